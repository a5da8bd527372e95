//! The weights of a finished search as a judge of single networks of its space.

use std::{fmt, sync::Arc};

use lathe_spaces::Genotype;

use super::{SearchError, SearchTask, check::check, correct, cross_entropy, policy::Drawn, run::Run};
use crate::{Augmentation, Batch, Loader, Split, halves::dealt, supernet::Learn};

/// What a network does with the supernet's weights.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SupernetScore {
    /// Mean cross-entropy.
    pub cross_entropy: f64,
    /// Share of right answers, 0..1.
    pub accuracy: f64,
}

/// A trained supernet that scores networks: each is run by itself, with the weights that it shares with all others.
///
/// The images are those of the architecture half, without augmentation, which never moved a weight. Batch norms use
/// the statistics of the batch: the recorded ones are those of the mixture of all operations, and no single network's
/// (Bender et al. 2018, section 3.4).
pub struct SupernetScorer<'a> {
    run: Run<'a>,
    batches: Vec<Batch>,
    images: usize,
}

impl fmt::Debug for SupernetScorer<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SupernetScorer").field("images", &self.images).finish_non_exhaustive()
    }
}

impl<'a> SupernetScorer<'a> {
    /// Loads the weights of a search that is finished. At most `images` images are used, whole batches of the search's
    /// size.
    ///
    /// # Errors
    /// As [`search`](super::search), and [`SearchError::Unfinished`].
    pub fn new(task: &'a SearchTask<'a>, images: usize) -> Result<Self, SearchError> {
        check(task)?;
        tch::set_num_threads(task.threads as i32);
        let mut run = Run::new(task)?;
        run.restore()?;
        let (done, epochs) = (run.position.epoch, task.settings.epochs);
        if done < epochs {
            return Err(SearchError::Unfinished { path: task.checkpoint.to_owned(), done, epochs });
        }
        let batch = task.settings.batch;
        let half = &run.halves[1];
        // A smaller last batch would have other statistics than the rest.
        let count = (images.min(half.len()) / batch * batch).max(batch.min(half.len()));
        // Spread over the half, which lies in the order of the folders' classes.
        let indices = (0..count).map(|index| half[index * half.len() / count]).collect::<Vec<_>>();
        let indices = dealt(&indices, batch);
        let dataset = Arc::clone(&task.dataset);
        let loader = Loader::new(dataset, Split::Train, indices, batch, Augmentation::none(), None, false);
        let device = run.model.device();
        let batches = loader.map(|batch| batch.to_device(device)).collect();
        Ok(Self { run, batches, images: count })
    }

    /// Images that every network is scored on.
    pub fn images(&self) -> usize {
        self.images
    }

    /// Scores a network of the space. The same network gets the same score.
    pub fn score(&mut self, genotype: &Genotype) -> Result<SupernetScore, SearchError> {
        let only = self.run.only(&Drawn::of(self.run.task.space, genotype))?;
        let (mut loss, mut right, mut images) = (0.0, 0, 0);
        for batch in &self.batches {
            let pass = self.run.model.forward(&batch.images, &only, Learn::Nothing, true)?;
            let count = batch.labels.numel();
            loss += cross_entropy(&pass.logits, &batch.labels, 1).double_value(&[]);
            right += correct(&pass.logits, &batch.labels);
            images += count;
        }
        let images = images as f64;
        Ok(SupernetScore { cross_entropy: loss / images, accuracy: right as f64 / images })
    }
}
