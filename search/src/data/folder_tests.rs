#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use std::{cell::RefCell, process::Command};

use image::{Rgb, codecs::jpeg::JpegEncoder};

use super::*;
use crate::{DataSource, Dataset};

fn picture(width: u32, height: u32, shade: u8) -> RgbImage {
    RgbImage::from_fn(width, height, |x, y| Rgb([shade, (x * 5 % 256) as u8, (y * 5 % 256) as u8]))
}

/// Two classes, three training and two test images each, PNG and JPEG.
fn write(folder: &Path, test: &str) {
    for (split, count) in [("train", 3), (test, 2)] {
        for (class, shade) in [("cat", 50), ("dog", 200)] {
            let place = folder.join(split).join(class);
            fs::create_dir_all(&place).unwrap();
            for index in 0..count {
                let picture = picture(16, 16, shade + index);
                picture.save(place.join(format!("{index}.png"))).unwrap();
            }
            let mut bytes = Vec::new();
            JpegEncoder::new_with_quality(&mut bytes, 95).encode_image(&picture(48, 32, shade)).unwrap();
            fs::write(place.join("9.JPG"), bytes).unwrap();
            fs::write(place.join("notes.txt"), "no image").unwrap();
        }
    }
}

fn load_at(path: &Path, resolution: usize) -> Result<Dataset, DataError> {
    let source = DataSource::ImageFolder { path: path.to_owned() };
    let settings = DataSettings { source, resolution, train_images: None, test_images: None };
    Dataset::load(&settings, 0, &|_, _| ())
}

#[test]
fn pictures_of_both_kinds_and_any_size_are_read() {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), "test");
    let data = load_at(folder.path(), 16).unwrap();
    assert_eq!(data.classes, ["cat", "dog"]);
    assert_eq!((data.train.len(), data.test.len()), (8, 6));
    assert_eq!(data.train.labels(), [0, 0, 0, 0, 1, 1, 1, 1]);
    // A PNG of the right size comes back pixel by pixel.
    let expected = picture(16, 16, 51);
    for (at, pixel) in expected.pixels().enumerate() {
        for channel in 0..3 {
            assert_eq!(data.train.pixels(1)[channel * 256 + at], pixel.0[channel]);
        }
    }
    // The JPEG of 48 × 32 is halved and cut to its middle: columns 8 to 40 of the original.
    let green = &data.train.pixels(3)[256..512];
    assert!(green[0].abs_diff(42) < 8 && green[15].abs_diff(192) < 8, "{} {}", green[0], green[15]);
    assert!(data.train.pixels(3)[..256].iter().all(|red| red.abs_diff(50) < 8));
}

#[test]
fn a_folder_called_val_is_the_test_and_progress_ends_at_all() {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), "val");
    let source = DataSource::ImageFolder { path: folder.path().to_owned() };
    let settings = DataSettings { source, resolution: 8, train_images: Some(4), test_images: Some(2) };
    let told = RefCell::new(Vec::new());
    let data = Dataset::load(&settings, 0, &|done, all| told.borrow_mut().push((done, all))).unwrap();
    assert_eq!(data.train.labels(), [0, 0, 1, 1]);
    assert_eq!(data.test.labels(), [0, 1]);
    assert_eq!(told.borrow().last(), Some(&(6, 6)));
}

#[test]
fn truncated_images_are_all_counted_and_five_are_named() {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), "test");
    let mut cut = 0;
    for class in ["cat", "dog"] {
        let place = folder.path().join("train").join(class);
        for file in pictures(&place).unwrap() {
            let bytes = fs::read(&file).unwrap();
            fs::write(&file, &bytes[..bytes.len() / 2]).unwrap();
            cut += 1;
        }
    }
    fs::write(folder.path().join("test/cat/empty.png"), b"").unwrap();
    let error = load_at(folder.path(), 16).unwrap_err();
    let DataError::Undecodable { count, total, examples } = &error else { panic!("{error}") };
    assert_eq!((*count, *total, examples.len()), (cut + 1, 15, 5));
    let message = error.to_string();
    assert!(message.contains("9 of 15") && message.contains("train/cat/9.JPG"), "{message}");
}

#[test]
fn a_jpeg_cut_anywhere_is_noticed() {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), "test");
    let file = folder.path().join("train/cat/9.JPG");
    let bytes = fs::read(&file).unwrap();
    for length in [1, 20, bytes.len() / 3, bytes.len() * 9 / 10, bytes.len() - 1] {
        fs::write(&file, &bytes[..length]).unwrap();
        assert!(
            matches!(load_at(folder.path(), 16), Err(DataError::Undecodable { count: 1, .. })),
            "{length}"
        );
    }
}

#[test]
fn what_is_missing_is_said_with_what_is_expected() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    let fault = |path: &Path| {
        let message = load_at(path, 16).unwrap_err().to_string();
        assert!(message.contains("hint: expected train/<class>/"), "{message}");
        message
    };
    assert!(fault(&path.join("absent")).contains("no such folder"));
    assert!(fault(path).contains("no folder `train`"));
    fs::create_dir_all(path.join("train")).unwrap();
    assert!(fault(path).contains("no folder `test` or `val`"));
    fs::create_dir_all(path.join("test")).unwrap();
    assert!(fault(path).contains("no class folders"));
    fs::create_dir_all(path.join("train/cat")).unwrap();
    fs::create_dir_all(path.join("test/cow")).unwrap();
    let message = fault(path);
    assert!(message.contains("only in `train`: cat; only in `test`: cow"), "{message}");
    fs::rename(path.join("test/cow"), path.join("test/cat")).unwrap();
    assert!(fault(path).contains("no images"));
}

/// The real images, if they are there.
#[test]
fn cifar10_images_load() {
    let archive = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/data/cifar10_jpeg.tar.xz");
    if !archive.is_file() {
        eprintln!("skipped: {} is absent", archive.display());
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let mut tar = Command::new("tar");
    tar.arg("-xJf").arg(&archive).arg("-C").arg(folder.path());
    let listed = tar.args(["--wildcards", "*/000?.jpg"]).status().unwrap();
    assert!(listed.success());
    let inside = |path: &Path| path.join("train").is_dir();
    let root = if inside(folder.path()) {
        folder.path().to_owned()
    } else {
        entries(folder.path()).unwrap().into_iter().find(|path| inside(path)).unwrap()
    };
    let data = load_at(&root, 32).unwrap();
    assert_eq!((data.classes.len(), data.train.len(), data.test.len()), (10, 100, 100));
}
