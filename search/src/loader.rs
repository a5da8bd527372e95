//! Batches of an epoch, prepared ahead of the training.

use std::{
    rc::Rc,
    sync::{
        Arc,
        mpsc::{Receiver, sync_channel},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use lathe_spaces::Stream;
use rand::seq::SliceRandom as _;
use tch::Tensor;

use crate::{
    Augmentation, Dataset, Share, Split,
    augment::{Decisions, Normalisation, prepare},
    resident::Resident,
};

/// Batches that wait ready at most.
const AHEAD: usize = 4;

/// Images with their labels.
#[derive(Debug)]
pub struct Batch {
    /// `[batch, 3, resolution, resolution]`, single precision, normalised.
    pub images: Tensor,
    /// `[batch]`, 64-bit integers.
    pub labels: Tensor,
    /// Images of the whole batch, of which these are this process's share.
    pub whole: usize,
}

impl Batch {
    /// The same images on a device.
    #[must_use]
    pub fn to_device(&self, device: tch::Device) -> Self {
        Self {
            images: self.images.to_device(device),
            labels: self.labels.to_device(device),
            whole: self.whole,
        }
    }
}

/// Batches of an epoch, decoded ahead on a background thread.
///
/// Order and augmentation depend only on (seed, purpose, epoch) and an image's position in the
/// epoch, never on timing; libtorch's generator isn't touched.
#[derive(Debug)]
pub struct Loader {
    work: Option<Work>,
    running: Option<Running>,
    waited: Duration,
    /// Where the images lie, if not in the processor's memory alone.
    resident: Option<Rc<Resident>>,
}

/// What the background thread does.
#[derive(Debug)]
struct Work {
    dataset: Arc<Dataset>,
    split: Split,
    /// Images in the order of the epoch.
    order: Vec<usize>,
    batch: usize,
    /// Part of every batch that is prepared.
    share: Share,
    /// Batches in all.
    batches: usize,
    /// Next batch.
    next: usize,
    augmentation: Augmentation,
    seed: u64,
    /// Purpose and epoch, as the name of the augmentation's streams.
    purpose: String,
    /// Whether images lie on a device already: then only what chance decides is prepared.
    decide: bool,
}

/// A batch before it is a tensor.
#[derive(Debug)]
struct Prepared {
    images: Vec<f32>,
    labels: Vec<i64>,
    side: usize,
    whole: usize,
    /// For images that lie on a device: which, and what chance decided.
    decided: Vec<(usize, Decisions)>,
}

#[derive(Debug)]
struct Running {
    batches: Option<Receiver<Prepared>>,
    thread: Option<JoinHandle<()>>,
}

impl Loader {
    /// Batches of the images of a split at `indices`; shuffled if given (seed, purpose, epoch). An
    /// incomplete last batch is left out if `drop_last`. A `batch` of 0 counts as 1.
    ///
    /// Without shuffling, an augmentation is drawn from seed 0.
    pub fn new(
        dataset: Arc<Dataset>,
        split: Split,
        indices: Vec<usize>,
        batch: usize,
        augmentation: Augmentation,
        shuffle: Option<(u64, &str, u64)>,
        drop_last: bool,
    ) -> Self {
        let mut order = indices;
        let (seed, purpose, epoch) = shuffle.unwrap_or((0, "in order", 0));
        if shuffle.is_some() {
            order.shuffle(&mut Stream::new(seed, &format!("{purpose}: order"), epoch));
        }
        let batch = batch.max(1);
        let batches = if drop_last { order.len() / batch } else { order.len().div_ceil(batch) };
        let purpose = format!("{purpose}: augmentation of epoch {epoch}");
        let work = Work {
            dataset,
            split,
            order,
            batch,
            share: Share::WHOLE,
            batches,
            next: 0,
            augmentation,
            seed,
            purpose,
            decide: false,
        };
        Self { work: Some(work), running: None, waited: Duration::ZERO, resident: None }
    }

    /// The same epoch from its batch `count` on; the batches before it are never prepared. Has no
    /// effect once iteration has begun.
    #[must_use]
    pub fn skip_batches(mut self, count: usize) -> Self {
        if let Some(work) = &mut self.work {
            work.next = work.next.saturating_add(count).min(work.batches);
        }
        self
    }

    /// Only this process's share of every batch: order and augmentation stay those of the whole, so that
    /// the shares of all processes are the very batch that one process would get. With fewer images than
    /// processes in a batch some get a batch of no images. Has no effect once iteration has begun.
    #[must_use]
    pub fn share(mut self, share: Share) -> Self {
        if let Some(work) = &mut self.work {
            work.share = share;
        }
        self
    }

    /// Batches are gathered and augmented where the images lie already, with the same decisions. Has no
    /// effect once iteration has begun.
    #[must_use]
    pub(crate) fn resident(mut self, images: Rc<Resident>) -> Self {
        if let Some(work) = &mut self.work {
            work.decide = true;
            self.resident = Some(images);
        }
        self
    }

    /// Time that the consumer spent waiting for batches so far.
    pub fn waited(&self) -> Duration {
        self.waited
    }
}

impl Iterator for Loader {
    type Item = Batch;

    fn next(&mut self) -> Option<Batch> {
        let asked = Instant::now();
        if let Some(work) = self.work.take() {
            self.running = Some(Running::start(work));
        }
        let batches = self.running.as_ref().and_then(|running| running.batches.as_ref());
        let prepared = batches.and_then(|batches| batches.recv().ok());
        self.waited += asked.elapsed();
        let Prepared { images, labels, side, whole, decided } = prepared?;
        let (count, side) = (labels.len() as i64, side as i64);
        let labels = Tensor::from_slice(&labels);
        let Some(resident) = &self.resident else {
            let images = Tensor::from_slice(&images).view([count, 3, side, side]);
            return Some(Batch { images, labels, whole });
        };
        let (indices, decisions): (Vec<usize>, Vec<Decisions>) = decided.into_iter().unzip();
        let images = resident.batch(&indices, &decisions);
        Some(Batch { images, labels: labels.to_device(resident.device()), whole })
    }
}

impl Running {
    fn start(mut work: Work) -> Self {
        let (sender, batches) = sync_channel(AHEAD);
        let thread = thread::spawn(move || {
            while let Some(prepared) = work.prepare() {
                // Nobody listens any more: the loader was dropped.
                if sender.send(prepared).is_err() {
                    break;
                }
            }
        });
        Self { batches: Some(batches), thread: Some(thread) }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // The thread may wait for room in the channel: closing it first lets it go.
        self.batches = None;
        if let Some(thread) = self.thread.take() {
            // A panic there was already reported, and shows as an early end of the batches.
            let _ = thread.join();
        }
    }
}

impl Work {
    fn prepare(&mut self) -> Option<Prepared> {
        if self.next >= self.batches {
            return None;
        }
        let start = self.next * self.batch;
        let whole = self.batch.min(self.order.len() - start);
        let share = self.share.of(whole);
        self.next += 1;
        let dataset = &*self.dataset;
        let set = dataset.split(self.split);
        let side = dataset.resolution;
        let normalisation = Normalisation { mean: dataset.mean, deviation: dataset.deviation };
        let mut decided = Vec::new();
        let mut images = Vec::new();
        let mut labels = Vec::with_capacity(share.len());
        for position in start + share.start..start + share.end {
            let index = self.order[position];
            let mut random = Stream::new(self.seed, &self.purpose, position as u64);
            if self.decide {
                decided.push((index, Decisions::draw(side, self.augmentation, &mut random)));
            } else {
                images.reserve(3 * side * side);
                prepare(set.pixels(index), side, self.augmentation, normalisation, &mut random, &mut images);
            }
            labels.push(set.label(index) as i64);
        }
        Some(Prepared { images, labels, side, whole, decided })
    }
}

#[cfg(test)]
#[path = "loader_tests.rs"]
mod tests;
