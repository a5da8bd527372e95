//! Image folders: `train/<class>/*.jpg|png` and `test/<class>/…` (or `val/<class>/…`).

use std::{
    collections::BTreeSet,
    fs, io,
    path::{Path, PathBuf},
};

use image::{ImageReader, RgbImage};
use rayon::prelude::*;

use super::{DataError, ImageSet, Loaded, Split, dataset::choose, error::undecodable, resize::square};
use crate::DataSettings;

const EXPECTED: &str =
    "expected train/<class>/*.jpg|jpeg|png and, with the same classes, test/<class>/ (or val/<class>/)";
const EXTENSIONS: [&str; 3] = ["jpg", "jpeg", "png"];
/// Images decoded between two calls of the progress function.
const CHUNK: usize = 512;

/// Reads both splits.
pub(super) fn load(
    path: &Path,
    settings: &DataSettings,
    seed: u64,
    progress: &dyn Fn(usize, usize),
) -> Result<Loaded, DataError> {
    let layout = |path: &Path, problem: String| DataError::Layout {
        path: path.to_owned(),
        problem,
        expected: EXPECTED,
    };
    if !path.is_dir() {
        return Err(layout(path, "there is no such folder".into()));
    }
    let train = path.join("train");
    if !train.is_dir() {
        return Err(layout(path, "it has no folder `train`".into()));
    }
    let Some(test) = ["test", "val"].map(|name| path.join(name)).into_iter().find(|folder| folder.is_dir())
    else {
        return Err(layout(path, "it has no folder `test` or `val`".into()));
    };
    let classes = folders(&train)?;
    if classes.is_empty() {
        return Err(layout(&train, "it has no class folders".into()));
    }
    let tested = folders(&test)?;
    if classes != tested {
        let name = |folder: &Path| folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let only = |a: &BTreeSet<String>, b: &BTreeSet<String>, folder: &Path| {
            let list: Vec<&str> = a.difference(b).map(String::as_str).collect();
            (!list.is_empty()).then(|| format!("only in `{}`: {}", name(folder), list.join(", ")))
        };
        let differences: Vec<String> =
            only(&classes, &tested, &train).into_iter().chain(only(&tested, &classes, &test)).collect();
        return Err(layout(path, format!("the class folders differ ({})", differences.join("; "))));
    }
    let classes: Vec<String> = classes.into_iter().collect();
    let mut splits = Vec::new();
    for (folder, split, wanted) in
        [(train, Split::Train, settings.train_images), (test, Split::Test, settings.test_images)]
    {
        let mut files = Vec::new();
        for (label, class) in classes.iter().enumerate() {
            let found = pictures(&folder.join(class))?;
            if found.is_empty() {
                return Err(layout(&folder.join(class), "it has no images".into()));
            }
            files.extend(found.into_iter().map(|file| (file, label)));
        }
        let labels: Vec<usize> = files.iter().map(|file| file.1).collect();
        let chosen = choose(&labels, classes.len(), split, wanted, seed)?;
        splits.push(chosen.into_iter().map(|index| files[index].clone()).collect::<Vec<_>>());
    }
    let total = splits.iter().map(Vec::len).sum();
    progress(0, total);
    let each = 3 * settings.resolution * settings.resolution;
    let (mut done, mut faults, mut sets) = (0, Vec::new(), Vec::new());
    for files in &splits {
        let mut pixels = Vec::with_capacity(files.len() * each);
        for chunk in files.chunks(CHUNK) {
            let decoded: Vec<Result<Vec<u8>, String>> =
                chunk.par_iter().map(|(file, _)| Ok(square(&decode(file)?, settings.resolution))).collect();
            for ((file, _), result) in chunk.iter().zip(decoded) {
                match result {
                    Ok(image) => pixels.extend(image),
                    Err(fault) => faults.push((file.clone(), fault)),
                }
            }
            done += chunk.len();
            progress(done, total);
        }
        sets.push(ImageSet::new(pixels, files.iter().map(|file| file.1).collect()));
    }
    if !faults.is_empty() {
        return Err(undecodable(faults, total));
    }
    let test = sets.pop().unwrap_or_default();
    let train = sets.pop().unwrap_or_default();
    Ok((train, test, classes))
}

/// Names of the folders in a folder; hidden ones don't count.
fn folders(path: &Path) -> Result<BTreeSet<String>, DataError> {
    let visible = |entry: &PathBuf| entry.is_dir() && !hidden(entry);
    let name = |entry: PathBuf| entry.file_name().map(|name| name.to_string_lossy().into_owned());
    Ok(entries(path)?.into_iter().filter(visible).filter_map(name).collect())
}

/// Image files in a folder, sorted by name.
fn pictures(path: &Path) -> Result<Vec<PathBuf>, DataError> {
    let wanted = |entry: &PathBuf| {
        let extension = entry.extension().unwrap_or_default().to_string_lossy().to_lowercase();
        EXTENSIONS.contains(&extension.as_str()) && !hidden(entry) && entry.is_file()
    };
    Ok(entries(path)?.into_iter().filter(wanted).collect())
}

fn hidden(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name.to_string_lossy().starts_with('.'))
}

fn entries(path: &Path) -> Result<Vec<PathBuf>, DataError> {
    let list = || fs::read_dir(path)?.map(|entry| Ok(entry?.path())).collect::<io::Result<Vec<_>>>();
    let mut list = list().map_err(|source| DataError::Io { path: path.to_owned(), source })?;
    list.sort_unstable();
    Ok(list)
}

fn decode(path: &Path) -> Result<RgbImage, String> {
    let bytes = fs::read(path).map_err(|error| error.to_string())?;
    if bytes.is_empty() {
        return Err("the file is empty".into());
    }
    // The JPEG decoder fills what is missing with grey instead of complaining.
    if bytes.starts_with(&[0xff, 0xd8]) && !ends_as_jpeg(&bytes) {
        return Err("the file ends before its end marker".into());
    }
    let reader = ImageReader::new(io::Cursor::new(&bytes)).with_guessed_format();
    let picture = reader.map_err(|error| error.to_string())?.decode().map_err(|error| error.to_string())?;
    if picture.width() == 0 || picture.height() == 0 {
        return Err("the image has no pixels".into());
    }
    Ok(picture.to_rgb8())
}

/// Whether an end-of-image marker follows the last scan; compressed data never contains one.
fn ends_as_jpeg(bytes: &[u8]) -> bool {
    let last = |marker: u8| bytes.windows(2).rposition(|pair| pair == [0xff, marker]);
    matches!((last(0xda), last(0xd9)), (Some(scan), Some(end)) if end > scan)
}

#[cfg(test)]
#[path = "folder_tests.rs"]
mod tests;
