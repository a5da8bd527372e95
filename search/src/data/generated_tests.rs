#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

use std::sync::Arc;

use tch::{
    Device, Kind, Tensor,
    nn::{self, OptimizerConfig as _},
};

use super::*;
use crate::{Augmentation, DataSource, Dataset, Loader, Split};

fn data(resolution: usize, train: usize, test: usize, seed: u64) -> Dataset {
    let source = DataSource::Generated;
    let settings = DataSettings { source, resolution, train_images: Some(train), test_images: Some(test) };
    Dataset::load(&settings, seed, &|_, _| ()).unwrap()
}

#[test]
fn images_depend_on_the_seed_and_their_place_only() {
    let few = data(12, 30, 10, 1);
    let many = data(12, 90, 10, 1);
    assert_eq!(few, data(12, 30, 10, 1));
    assert_ne!(few.train, data(12, 30, 10, 2).train);
    assert_eq!(few.train.pixels(29), many.train.pixels(29));
    assert_ne!(few.train.pixels(0), few.test.pixels(0));
    assert_eq!(few.classes.len(), 10);
    for class in 0..10 {
        assert_eq!(many.train.labels().iter().filter(|&&label| label == class).count(), 9);
    }
}

#[test]
fn too_small_a_resolution_is_an_error() {
    let settings =
        DataSettings { source: DataSource::Generated, resolution: 7, train_images: None, test_images: None };
    let message = Dataset::load(&settings, 0, &|_, _| ()).unwrap_err().to_string();
    assert!(message.contains("resolution = 7") && message.contains("at least 8"), "{message}");
}

/// Test accuracy of a model trained with Adam.
fn accuracy(dataset: &Arc<Dataset>, store: &nn::VarStore, model: &impl nn::ModuleT, epochs: u64) -> f64 {
    let mut adam = nn::Adam::default().build(store, 3e-3).unwrap();
    let indices = |split| (0..dataset.split(split).len()).collect::<Vec<_>>();
    for epoch in 0..epochs {
        let augmentation = Augmentation { flip: true, ..Augmentation::none() };
        let shuffle = Some((0, "test", epoch));
        let (data, train) = (Arc::clone(dataset), indices(Split::Train));
        if epoch * 3 > epochs * 2 {
            adam.set_lr(5e-4);
        }
        for batch in Loader::new(data, Split::Train, train, 64, augmentation, shuffle, false) {
            adam.backward_step(&model.forward_t(&batch.images, true).cross_entropy_for_logits(&batch.labels));
        }
    }
    let (data, test) = (Arc::clone(dataset), indices(Split::Test));
    let mut all = Loader::new(data, Split::Test, test, usize::MAX, Augmentation::none(), None, false);
    let batch = all.next().unwrap();
    let logits = tch::no_grad(|| model.forward_t(&batch.images, false));
    logits.accuracy_for_logits(&batch.labels).double_value(&[])
}

#[test]
fn a_small_network_learns_what_a_linear_model_cannot() {
    // Threads of libtorch wait for each other when other tests run beside this one.
    tch::set_num_threads(1);
    tch::manual_seed(0);
    let dataset = Arc::new(data(16, 2000, 500, 0));
    let store = nn::VarStore::new(Device::Cpu);
    let root = store.root();
    let linear = nn::seq_t().add_fn(|x: &Tensor| x.flatten(1, -1)).add(nn::linear(
        &root,
        3 * 16 * 16,
        10,
        nn::LinearConfig::default(),
    ));
    let linear = accuracy(&dataset, &store, &linear, 10);

    let store = nn::VarStore::new(Device::Cpu);
    let root = store.root();
    let mut network = nn::seq_t();
    for (index, (from, to)) in [(3, 16), (16, 32), (32, 64)].into_iter().enumerate() {
        let config = nn::ConvConfig { padding: 1, bias: false, ..nn::ConvConfig::default() };
        let path = &root / index as i64;
        network = network
            .add(nn::conv2d(&path / "conv", from, to, 3, config))
            .add(nn::batch_norm2d(&path / "norm", to, nn::BatchNormConfig::default()))
            .add_fn(move |x: &Tensor| if index < 2 { x.relu().max_pool2d_default(2) } else { x.relu() });
    }
    let network = network
        .add_fn(|x: &Tensor| x.mean_dim([2i64, 3].as_slice(), false, None::<Kind>))
        .add(nn::linear(&root / "classifier", 64, 10, nn::LinearConfig::default()));
    let network = accuracy(&dataset, &store, &network, 12);
    assert!(linear < 0.3, "a linear model reaches {linear}");
    assert!(network > linear + 0.3, "linear model {linear}, network {network}");
}
