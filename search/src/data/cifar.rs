//! The binary version of CIFAR-10 (Krizhevsky 2009): records of a label and 32 × 32 × 3 pixels.

use std::{fs, path::Path};

use image::RgbImage;
use rayon::prelude::*;

use super::{DataError, ImageSet, Loaded, Split, dataset::choose, resize::square};
use crate::DataSettings;

const SIDE: usize = 32;
const PIXELS: usize = 3 * SIDE * SIDE;
const RECORD: usize = 1 + PIXELS;
const CLASSES: [&str; 10] =
    ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"];
const TRAIN: [&str; 5] =
    ["data_batch_1.bin", "data_batch_2.bin", "data_batch_3.bin", "data_batch_4.bin", "data_batch_5.bin"];
const TEST: [&str; 1] = ["test_batch.bin"];
const EXPECTED: &str = "the folder must hold data_batch_1.bin to data_batch_5.bin and test_batch.bin, \
                        as in cifar-10-binary.tar.gz (there: cifar-10-batches-bin)";

/// Reads both splits.
pub(super) fn load(
    path: &Path,
    settings: &DataSettings,
    seed: u64,
    progress: &dyn Fn(usize, usize),
) -> Result<Loaded, DataError> {
    let layout = |problem| DataError::Layout { path: path.to_owned(), problem, expected: EXPECTED };
    if !path.is_dir() {
        return Err(layout("there is no such folder".into()));
    }
    let missing: Vec<&str> =
        TRAIN.into_iter().chain(TEST).filter(|name| !path.join(name).is_file()).collect();
    if !missing.is_empty() {
        return Err(layout(format!("missing {}", missing.join(", "))));
    }
    let train = records(path, &TRAIN)?;
    let test = records(path, &TEST)?;
    let total = settings.train_images.unwrap_or(train.len()) + settings.test_images.unwrap_or(test.len());
    progress(0, total);
    let train = images(&train, Split::Train, settings.train_images, settings.resolution, seed)?;
    progress(train.len(), total);
    let test = images(&test, Split::Test, settings.test_images, settings.resolution, seed)?;
    progress(total, total);
    Ok((train, test, CLASSES.map(String::from).to_vec()))
}

/// The records of some files, in order.
fn records(folder: &Path, names: &[&str]) -> Result<Vec<Vec<u8>>, DataError> {
    let mut records = Vec::new();
    for name in names {
        let path = folder.join(name);
        let bytes = fs::read(&path).map_err(|source| DataError::Io { path: path.clone(), source })?;
        if bytes.is_empty() || bytes.len() % RECORD != 0 {
            return Err(DataError::Length { path, record: RECORD, got: bytes.len() as u64 });
        }
        for (index, record) in bytes.chunks(RECORD).enumerate() {
            if usize::from(record[0]) >= CLASSES.len() {
                return Err(DataError::Label { path, index, label: record[0] });
            }
            records.push(record.to_vec());
        }
    }
    Ok(records)
}

fn images(
    records: &[Vec<u8>],
    split: Split,
    wanted: Option<usize>,
    resolution: usize,
    seed: u64,
) -> Result<ImageSet, DataError> {
    let labels: Vec<usize> = records.iter().map(|record| usize::from(record[0])).collect();
    let chosen = choose(&labels, CLASSES.len(), split, wanted, seed)?;
    let pixels: Vec<Vec<u8>> =
        chosen.par_iter().map(|&index| scaled(&records[index][1..], resolution)).collect();
    Ok(ImageSet::new(pixels.concat(), chosen.iter().map(|&index| labels[index]).collect()))
}

fn scaled(planes: &[u8], resolution: usize) -> Vec<u8> {
    if resolution == SIDE {
        return planes.to_vec();
    }
    let picture = RgbImage::from_fn(SIDE as u32, SIDE as u32, |x, y| {
        let at = y as usize * SIDE + x as usize;
        image::Rgb([0, 1, 2].map(|channel| planes[channel * SIDE * SIDE + at]))
    });
    square(&picture, resolution)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]
mod tests {
    use super::*;
    use crate::{DataSource, Dataset};

    fn write(folder: &Path) {
        for (file, name) in TRAIN.into_iter().chain(TEST).enumerate() {
            let mut bytes = Vec::new();
            for image in 0..20u8 {
                bytes.push(image % 10);
                bytes.extend((0..PIXELS).map(|at| (at * 7 + file * 31 + usize::from(image)) as u8));
            }
            fs::write(folder.join(name), bytes).unwrap();
        }
    }

    fn settings(path: &Path, resolution: usize, train_images: Option<usize>) -> DataSettings {
        let source = DataSource::Cifar10 { path: path.to_owned() };
        DataSettings { source, resolution, train_images, test_images: None }
    }

    #[test]
    fn records_come_back_as_they_were_written() {
        let folder = tempfile::tempdir().unwrap();
        write(folder.path());
        let data = Dataset::load(&settings(folder.path(), 32, None), 0, &|_, _| ()).unwrap();
        assert_eq!((data.train.len(), data.test.len()), (100, 20));
        // Image 23 is the fourth of the second file.
        assert_eq!(data.train.label(23), 3);
        let expected: Vec<u8> = (0..PIXELS).map(|at| (at * 7 + 31 + 3) as u8).collect();
        assert_eq!(data.train.pixels(23), expected);
    }

    #[test]
    fn limits_are_balanced_and_repeatable() {
        let folder = tempfile::tempdir().unwrap();
        write(folder.path());
        let load = |seed| Dataset::load(&settings(folder.path(), 16, Some(30)), seed, &|_, _| ()).unwrap();
        let data = load(1);
        for class in 0..10 {
            assert_eq!(data.train.labels().iter().filter(|&&label| label == class).count(), 3);
        }
        assert_eq!(data.train.pixels(0).len(), 3 * 16 * 16);
        assert_eq!(data, load(1));
        assert_ne!(data.train, load(2).train);
        let error = Dataset::load(&settings(folder.path(), 32, Some(101)), 0, &|_, _| ()).unwrap_err();
        assert!(error.to_string().contains("choose 101 training images: there are 100"), "{error}");
    }

    #[test]
    fn faults_name_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let fault =
            |path: &Path| Dataset::load(&settings(path, 32, None), 0, &|_, _| ()).unwrap_err().to_string();
        let absent = fault(&folder.path().join("absent"));
        assert!(absent.contains("no such folder") && absent.contains("hint: "), "{absent}");
        write(folder.path());
        fs::remove_file(folder.path().join(TRAIN[2])).unwrap();
        fs::remove_file(folder.path().join(TEST[0])).unwrap();
        let missing = fault(folder.path());
        assert!(missing.contains("missing data_batch_3.bin, test_batch.bin"), "{missing}");
        write(folder.path());
        let path = folder.path().join(TRAIN[1]);
        let mut bytes = fs::read(&path).unwrap();
        bytes.pop();
        fs::write(&path, &bytes).unwrap();
        let length = fault(folder.path());
        assert!(length.contains("data_batch_2.bin") && length.contains("multiple of 3073"), "{length}");
        bytes.push(0);
        bytes[RECORD * 4] = 10;
        fs::write(&path, &bytes).unwrap();
        let label = fault(folder.path());
        assert!(label.contains("image 4 has label 10"), "{label}");
    }
}
