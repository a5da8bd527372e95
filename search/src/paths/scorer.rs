//! The shared weights of a finished search as a judge of single networks.

use std::{fmt, sync::Arc};

use lathe_spaces::Genotype;
use tch::no_grad;

use super::{
    PathTask,
    axis::Owner,
    learning::Truth,
    run::{Run, network, run},
};
use crate::{Augmentation, Loader, Scores, SearchError, Split, halves::dealt};

/// What a network does with the shared weights.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PathScore {
    /// Mean loss.
    pub loss: f64,
    /// Mean quality: share of right answers, or decibels.
    pub quality: f64,
}

/// Scores networks with the weights that they share, on images of the policy's half, without augmentation. Batch norms
/// use the statistics of the batch: no recorded ones would be any single network's.
pub struct PathScorer<'a> {
    run: Run<'a>,
    batches: Vec<Truth>,
    images: usize,
}

impl fmt::Debug for PathScorer<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PathScorer").field("images", &self.images).finish_non_exhaustive()
    }
}

impl<'a> PathScorer<'a> {
    /// Loads the weights of a search that is finished. At most `images` images are used, whole batches of the
    /// search's size.
    ///
    /// # Errors
    /// As [`search_paths`](super::search_paths), and [`SearchError::Unfinished`].
    pub fn new(task: &'a PathTask<'a>, images: usize) -> Result<Self, SearchError> {
        tch::set_num_threads(task.threads as i32);
        let mut run = Run::new(task)?;
        run.restore()?;
        let (done, epochs) = (run.position.epoch, task.settings.epochs);
        if done < epochs {
            return Err(SearchError::Unfinished { path: task.checkpoint.to_owned(), done, epochs });
        }
        let batch = task.settings.batch;
        let half = &run.halves[1];
        let count = (images.min(half.len()) / batch * batch).max(batch.min(half.len()));
        let spread = (0..count).map(|index| half[index * half.len() / count]).collect::<Vec<_>>();
        let indices = dealt(&spread, batch);
        let dataset = Arc::clone(&task.dataset);
        let loader = Loader::new(dataset, Split::Train, indices, batch, Augmentation::none(), None, false);
        let teacher = task.teacher.as_deref();
        let batches = loader.map(|batch| run.learning.truth(&batch, &task.dataset, teacher));
        let batches = batches.collect::<Result<Vec<_>, _>>()?;
        Ok(Self { run, batches, images: count })
    }

    /// Images that every network is scored on.
    pub fn images(&self) -> usize {
        self.images
    }

    /// The policy's logits.
    pub fn policy(&self) -> Scores {
        self.run.policy.scores()
    }

    /// The network of the policy's likeliest choices.
    pub fn likeliest(&self) -> Genotype {
        self.run.policy.likeliest(self.run.task.space)
    }

    /// A network drawn from the policy.
    pub fn draw(&self, random: &mut impl rand::Rng) -> Genotype {
        self.run.policy.draw(self.run.task.space, random)
    }

    /// Scores a network of the space. The same network gets the same score.
    pub fn score(&mut self, genotype: &Genotype) -> Result<PathScore, SearchError> {
        let graph = network(self.run.task.space, genotype)?;
        let taken = self.run.weights.take(&graph, Owner::Paths);
        let learning = self.run.learning;
        let (mut loss, mut quality) = (0.0, 0.0);
        for truth in &self.batches {
            let output = no_grad(|| run(&graph, &taken, truth))?;
            loss += no_grad(|| learning.loss(&output, truth, 1)).double_value(&[]);
            quality += learning.quality(&output, truth);
        }
        let images = self.images.max(1) as f64;
        Ok(PathScore { loss: loss / images, quality: quality / images })
    }
}
