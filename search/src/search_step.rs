//! One step of a search on random images: what a benchmark times.

use lathe_spaces::{DartsSkeleton, Shape, Space, Stem, seeded_input};
use tch::{Kind, Tensor};

use crate::{
    Implementation, Precision, SupernetError, SupernetSettings, TrainingDevice,
    distributed::CollectiveError,
    optimizer::{Adam, Sgd, SgdStep},
    search_loop::cross_entropy,
    supernet::{Architecture, Learn, Model},
};

/// The published search on CIFAR-10 (16 channels, 8 cells, K = 4, 32×32), one batch of random images and
/// the published optimisers. Loading images is left out.
#[derive(Debug)]
pub struct SearchStep {
    model: Model<f32>,
    architecture: Architecture,
    sgd: Sgd,
    adam: Adam,
    images: Tensor,
    labels: Tensor,
    batch: usize,
}

impl SearchStep {
    /// A search at its first step.
    pub fn new(implementation: Implementation, batch: usize, threads: usize) -> Result<Self, SupernetError> {
        tch::set_num_threads(threads as i32);
        let skeleton =
            DartsSkeleton { stem: Stem::Cifar, width: 36, layers: 20, resolution: 32, classes: 10 };
        let space = Space::darts(skeleton);
        let settings = SupernetSettings {
            width: 16,
            layers: 8,
            partial_channels: 4,
            implementation,
            device: TrainingDevice::Cpu,
            precision: Precision::Float32,
        };
        let model = Model::new(&space, settings, 2, threads, None)?;
        let architecture = Architecture::new(&space, Kind::Float, 2)?;
        let images = seeded_input(Shape::new(batch, 3, 32, 32), 2);
        let labels: Vec<i64> = (0..batch as i64).map(|image| image % 10).collect();
        Ok(Self {
            sgd: Sgd::new(&model.parameters().flat),
            adam: Adam::new(&architecture.flat),
            model,
            architecture,
            images: Tensor::from_slice(&images).view([batch as i64, 3, 32, 32]),
            labels: Tensor::from_slice(&labels),
            batch,
        })
    }

    /// A full first-order step: the architecture's, then the weights'. Returns the weights' loss.
    pub fn run(&mut self) -> Result<f64, CollectiveError> {
        let Self { model, architecture, sgd, adam, images, labels, batch } = self;
        let pass = model.forward(images, architecture, Learn::Architecture, true)?;
        let loss = cross_entropy(&pass.logits, labels, *batch);
        let gradient = model.architecture_gradient(architecture, &pass, &loss)?;
        adam.step(&mut architecture.flat, &gradient, 6e-4, 1e-3);
        let pass = model.forward(images, architecture, Learn::Weights, true)?;
        let loss = cross_entropy(&pass.logits, labels, *batch);
        let gradient = model.weight_gradient(&pass, &loss)?;
        let step = SgdStep { learning_rate: 0.1, momentum: 0.9, weight_decay: 3e-4, clip: 5.0 };
        sgd.step(&mut model.parameters_mut().flat, &gradient, &step);
        Ok(loss.double_value(&[]))
    }
}
