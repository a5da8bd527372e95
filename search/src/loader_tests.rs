#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

use std::collections::BTreeSet;

use super::*;
use crate::{DataSettings, DataSource};

const AUGMENTED: Augmentation = Augmentation { crop_padding: 2, flip: true, cutout: Some(4) };

fn dataset() -> Arc<Dataset> {
    let source = DataSource::Generated;
    let settings = DataSettings { source, resolution: 8, train_images: Some(50), test_images: Some(20) };
    Arc::new(Dataset::load(&settings, 0, &|_, _| ()).unwrap())
}

fn loader(dataset: &Arc<Dataset>, purpose: &str, epoch: u64) -> Loader {
    let shuffle = Some((3, purpose, epoch));
    Loader::new(Arc::clone(dataset), Split::Train, (0..50).collect(), 8, AUGMENTED, shuffle, false)
}

fn contents(loader: impl Iterator<Item = Batch>) -> Vec<(Vec<f32>, Vec<i64>)> {
    let values = |batch: Batch| {
        (Vec::try_from(batch.images.flatten(0, -1)).unwrap(), Vec::try_from(batch.labels).unwrap())
    };
    loader.map(values).collect()
}

#[test]
fn an_epoch_repeats_itself_and_differs_from_the_next() {
    let dataset = dataset();
    let first = contents(loader(&dataset, "a", 0));
    assert_eq!(first.len(), 7);
    assert_eq!(first[6].1.len(), 2);
    assert_eq!(first, contents(loader(&dataset, "a", 0)));
    assert_ne!(first, contents(loader(&dataset, "a", 1)));
    assert_ne!(first, contents(loader(&dataset, "b", 0)));
}

#[test]
fn skipped_batches_leave_the_rest_as_it_was() {
    let dataset = dataset();
    let whole = contents(loader(&dataset, "a", 2));
    for count in 0..=8 {
        let rest = contents(loader(&dataset, "a", 2).skip_batches(count));
        assert_eq!(rest, whole[count.min(7)..]);
    }
}

#[test]
fn the_shares_of_all_processes_are_the_batches_of_one() {
    let dataset = dataset();
    let whole = contents(loader(&dataset, "a", 1));
    // 50 images in batches of 8: the last batch has 2. With 3 processes nothing divides; with 5 and 11
    // some get none of the last batch, or of any.
    for size in [1, 2, 3, 5, 11] {
        let mut joined = vec![(Vec::new(), Vec::new()); whole.len()];
        for rank in 0..size {
            let loader = loader(&dataset, "a", 1).share(Share { rank, size });
            let mut counts = Vec::new();
            let shares = contents(loader.inspect(|batch| counts.push(batch.whole)));
            assert_eq!(counts, [8, 8, 8, 8, 8, 8, 2]);
            assert_eq!(shares.len(), whole.len());
            for (batch, (images, labels)) in joined.iter_mut().zip(shares) {
                batch.0.extend(images);
                batch.1.extend(labels);
            }
        }
        assert_eq!(joined, whole, "{size} processes");
    }
}

#[test]
fn a_share_goes_with_skipped_and_dropped_batches() {
    let dataset = dataset();
    let share = Share { rank: 1, size: 3 };
    let all = contents(loader(&dataset, "a", 1).share(share));
    let rest = contents(loader(&dataset, "a", 1).skip_batches(4).share(share));
    assert_eq!(rest, all[4..]);
    let shuffle = Some((3, "a", 1));
    let indices = (0..50).collect();
    let full = Loader::new(Arc::clone(&dataset), Split::Train, indices, 8, AUGMENTED, shuffle, true);
    assert_eq!(contents(full.share(share)), all[..6]);
    let mut none = loader(&dataset, "a", 1).share(Share { rank: 0, size: 11 });
    assert_eq!(none.next().unwrap().images.size(), [0, 3, 8, 8]);
}

#[test]
fn a_shuffled_epoch_has_every_image_once() {
    let dataset = dataset();
    let plain = |shuffle| {
        let indices = (0..50).collect();
        let loader =
            Loader::new(Arc::clone(&dataset), Split::Train, indices, 8, Augmentation::none(), shuffle, false);
        contents(loader).into_iter().flat_map(|(images, labels)| {
            let images: Vec<Vec<u32>> =
                images.chunks(192).map(|image| image.iter().map(|value| value.to_bits()).collect()).collect();
            images.into_iter().zip(labels).collect::<Vec<_>>()
        })
    };
    let ordered: Vec<_> = plain(None).collect();
    let shuffled: Vec<_> = plain(Some((1, "a", 0))).collect();
    assert_ne!(ordered, shuffled);
    assert_eq!(ordered.iter().collect::<BTreeSet<_>>(), shuffled.iter().collect::<BTreeSet<_>>());
    let labels: Vec<i64> = ordered.iter().map(|entry| entry.1).collect();
    assert_eq!(labels, dataset.train.labels().iter().map(|&label| label as i64).collect::<Vec<_>>());
}

#[test]
fn images_are_normalised_by_the_training_images() {
    let dataset = dataset();
    let indices = (0..50).collect();
    let mut all =
        Loader::new(Arc::clone(&dataset), Split::Train, indices, 50, Augmentation::none(), None, false);
    let images = all.next().unwrap().images;
    assert_eq!(images.size(), [50, 3, 8, 8]);
    for channel in 0..3 {
        let plane = images.select(1, channel);
        assert!(plane.mean(tch::Kind::Double).double_value(&[]).abs() < 1e-4);
        assert!((plane.std(false).double_value(&[]) - 1.0).abs() < 1e-4);
    }
    assert!(all.next().is_none());
}

#[test]
fn incomplete_batches_can_be_dropped_and_empty_epochs_are_empty() {
    let dataset = dataset();
    let sizes = |count: usize, drop_last| -> Vec<usize> {
        let indices = (0..count).collect();
        let data = Arc::clone(&dataset);
        let loader = Loader::new(data, Split::Test, indices, 8, Augmentation::none(), None, drop_last);
        contents(loader).iter().map(|batch| batch.1.len()).collect()
    };
    assert_eq!(sizes(20, false), [8, 8, 4]);
    assert_eq!(sizes(20, true), [8, 8]);
    assert!(sizes(0, false).is_empty());
}

#[test]
fn a_loader_dropped_early_ends_its_thread() {
    let dataset = dataset();
    let mut early = loader(&dataset, "a", 0);
    early.next().unwrap();
    drop(early);
    // The thread held the images; joined, it holds them no more.
    assert_eq!(Arc::strong_count(&dataset), 1);
}
