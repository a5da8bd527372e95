#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

use lathe_spaces::{DartsSkeleton, Shape, Stem, seeded_input};
use proptest::prelude::*;
use tch::{Kind, Reduction};

use super::*;
use crate::{
    Implementation, Precision, TrainingDevice, fixtures,
    optimizer::{Adam, Sgd, SgdStep},
    supernet::{Architecture, Learn, Model},
};

/// Largest relative difference that is put down to rounding.
const TOLERANCE: f64 = 1e-9;

/// The plain implementation of a supernet and another one, with an architecture each.
struct Twins {
    models: [Model<f64>; 2],
    architectures: [Architecture; 2],
}

impl Twins {
    fn new(space: &Space, settings: SupernetSettings, threads: usize) -> Self {
        tch::set_num_threads(1);
        let other = settings.implementation;
        let model = |implementation| {
            Model::new(space, SupernetSettings { implementation, ..settings }, 3, threads, None).unwrap()
        };
        let architecture = || {
            let mut architecture = Architecture::new(space, Kind::Double, 4).unwrap();
            // Far from uniform, so that a mix-up of two operations shows.
            let length = architecture.flat.numel() as i64;
            let values = Tensor::arange(length, (Kind::Double, tch::Device::Cpu));
            tch::no_grad(|| architecture.flat.copy_(&((values * 12.9898).sin() * 0.7)));
            architecture
        };
        Self {
            models: [model(Implementation::Plain), model(other)],
            architectures: [architecture(), architecture()],
        }
    }

    /// Per implementation the result.
    fn each<R>(&mut self, mut work: impl FnMut(&mut Model<f64>, &mut Architecture) -> R) -> [R; 2] {
        let [plain, fused] = &mut self.models;
        let [first, second] = &mut self.architectures;
        [work(plain, first), work(fused, second)]
    }
}

fn settings(width: usize, layers: usize, partial_channels: usize) -> SupernetSettings {
    SupernetSettings {
        width,
        layers,
        partial_channels,
        implementation: Implementation::Fused,
        device: TrainingDevice::Cpu,
        precision: Precision::Float32,
    }
}

fn darts(stem: Stem, width: usize, layers: usize, resolution: usize) -> Space {
    Space::darts(DartsSkeleton { stem, width, layers, resolution, classes: 5 })
}

fn batch(images: usize, resolution: usize, seed: u64) -> (Tensor, Tensor) {
    let values = seeded_input(Shape::new(images, 3, resolution, resolution), seed);
    let size = [images as i64, 3, resolution as i64, resolution as i64];
    let labels: Vec<i64> = (0..images as i64).map(|image| (image * 3 + 1) % 5).collect();
    (Tensor::from_slice(&values).to_kind(Kind::Double).view(size), Tensor::from_slice(&labels))
}

fn loss(logits: &Tensor, labels: &Tensor) -> Tensor {
    logits.cross_entropy_loss(labels, None::<Tensor>, Reduction::Mean, -100, 0.0)
}

/// Asserts that two vectors agree, relative to the largest value of the piece that a name stands for.
fn agree(what: &str, pair: &[Tensor; 2]) {
    agree_at_scale(what, 1e-9, pair);
}

/// The same where values below `least` are no more than rounding.
fn agree_at_scale(what: &str, least: f64, [plain, fused]: &[Tensor; 2]) {
    assert_eq!(plain.size(), fused.size(), "{what}");
    let scale = plain.abs().max().double_value(&[]);
    let difference = (plain - fused).abs().max().double_value(&[]);
    assert!(
        difference <= TOLERANCE * scale.max(least),
        "{what}: difference {difference:e} at a scale of {scale:e}"
    );
}

/// Logits, loss, gradients and running statistics of one batch, tensor by tensor.
fn compare(twins: &mut Twins, images: &Tensor, labels: &Tensor) {
    let [plain, fused] = twins.each(|model, architecture| {
        let pass = model.forward(images, architecture, Learn::Weights, true).unwrap();
        let weight_loss = loss(&pass.logits, labels);
        let weights = model.weight_gradient(&pass, &weight_loss).unwrap();
        let second = model.forward(images, architecture, Learn::Architecture, true).unwrap();
        // A term of α and β themselves, as the latency is.
        let direct = architecture
            .leaves()
            .iter()
            .fold(loss(&second.logits, labels), |sum, leaf| sum + (leaf * leaf).sum(Kind::Double) * 0.01);
        let gradient = model.architecture_gradient(architecture, &second, &direct).unwrap();
        [pass.logits.detach(), weight_loss.detach(), weights, direct.detach(), gradient]
    });
    let mut both = plain.into_iter().zip(fused);
    let mut next = || both.next().map(|(plain, fused)| [plain, fused]).unwrap();
    agree("logits", &next());
    agree("loss", &next());
    let weights = next();
    let mut start = 0;
    for (name, tensor) in &twins.models[0].parameters().learned {
        let length = tensor.numel() as i64;
        agree(name, &[weights[0].narrow(0, start, length), weights[1].narrow(0, start, length)]);
        start += length;
    }
    assert_eq!(start as usize, weights[0].numel());
    agree("loss of the architecture", &next());
    agree("gradient of the architecture", &next());
    let statistics = |model: &Model<f64>| {
        model
            .parameters()
            .statistics
            .iter()
            .map(|(name, tensor)| (name.clone(), tensor.copy()))
            .collect::<Vec<_>>()
    };
    let [plain, fused] = [0, 1].map(|which| statistics(&twins.models[which]));
    for ((name, plain), (_, fused)) in plain.into_iter().zip(fused) {
        // Normalised values have deviation one: a mean of 10⁻¹⁶ is a zero.
        agree_at_scale(&name, 1e-2, &[plain, fused]);
    }
}

/// Ten steps of both optimisers, then everything again.
fn train_and_compare(twins: &mut Twins, images: usize, resolution: usize) {
    twins.each(|model, architecture| {
        let mut sgd = Sgd::new(&model.parameters().flat);
        let mut adam = Adam::new(&architecture.flat);
        for step in 0..10 {
            let (x, labels) = batch(images, resolution, 100 + step);
            let pass = model.forward(&x, architecture, Learn::Architecture, true).unwrap();
            let gradient =
                model.architecture_gradient(architecture, &pass, &loss(&pass.logits, &labels)).unwrap();
            adam.step(&mut architecture.flat, &gradient, 0.02, 1e-3);
            let pass = model.forward(&x, architecture, Learn::Weights, true).unwrap();
            let gradient = model.weight_gradient(&pass, &loss(&pass.logits, &labels)).unwrap();
            let step = SgdStep { learning_rate: 0.02, momentum: 0.9, weight_decay: 3e-4, clip: 5.0 };
            sgd.step(&mut model.parameters_mut().flat, &gradient, &step);
        }
    });
    let flat = [0, 1].map(|which| twins.models[which].parameters().flat.copy());
    agree("weights after ten steps", &flat);
    let flat = [0, 1].map(|which| twins.architectures[which].flat.copy());
    agree("architecture after ten steps", &flat);
}

/// Both the fused form and the grouped one against the plain one.
fn whole(stem: Stem, width: usize, partial: usize, images: usize, resolution: usize, threads: usize) {
    let space = darts(stem, 16, 8, resolution);
    for implementation in [Implementation::Fused, Implementation::Grouped] {
        let settings = SupernetSettings { implementation, ..settings(width, 4, partial) };
        let mut twins = Twins::new(&space, settings, threads);
        let (x, labels) = batch(images, resolution, 9);
        compare(&mut twins, &x, &labels);
        train_and_compare(&mut twins, images, resolution);
        compare(&mut twins, &x, &labels);
        // With running statistics.
        let [plain, other] = twins.each(|model, architecture| {
            let pass = model.forward(&x, architecture, Learn::Nothing, false).unwrap();
            pass.logits.detach()
        });
        agree("logits with running statistics", &[plain, other]);
    }
}

/// What cannot be had on a processor is refused.
#[test]
fn a_gpu_and_half_precision_are_refused_where_there_is_none() {
    let space = darts(Stem::Cifar, 16, 8, 8);
    let error = |settings| Model::<f32>::new(&space, settings, 1, 1, None).unwrap_err().to_string();
    if !tch::Cuda::is_available() {
        let cuda = SupernetSettings { device: TrainingDevice::Cuda, ..settings(8, 3, 2) };
        assert!(error(cuda).contains("libtorch sees none"), "{}", error(cuda));
    }
    let half = SupernetSettings { precision: Precision::Bfloat16, ..settings(8, 3, 2) };
    assert!(error(half).contains("only GPUs do"), "{}", error(half));
}

#[test]
fn both_are_equal_without_partial_channels() {
    whole(Stem::Cifar, 4, 1, 5, 8, 2);
}

#[test]
fn both_are_equal_for_half_the_channels() {
    whole(Stem::Cifar, 8, 2, 7, 16, 1);
}

#[test]
fn both_are_equal_for_a_quarter_of_the_channels() {
    whole(Stem::Cifar, 16, 4, 19, 8, 2);
}

#[test]
fn both_are_equal_for_an_eighth_of_the_channels() {
    whole(Stem::Cifar, 16, 8, 3, 16, 2);
}

#[test]
fn both_are_equal_with_the_stem_for_large_images() {
    whole(Stem::ImageNet, 4, 2, 11, 64, 2);
}

#[test]
fn both_are_equal_at_the_published_size() {
    let space = fixtures::darts();
    let settings = settings(16, 8, 4);
    let mut twins = Twins::new(&space, settings, 2);
    let (x, labels) = batch(3, 32, 9);
    compare(&mut twins, &x, &labels);
}

/// One process per instruction set: the choice is made once.
#[test]
fn every_instruction_set_computes_the_same() {
    if std::env::var_os("LATHE_INSTRUCTION_SET").is_some() {
        // Started below: the set that was asked for is in use, and equal to the plain supernet.
        let expected = if std::env::var("LATHE_INSTRUCTION_SET").unwrap() == "avx2" {
            kernels::InstructionSet::Avx2
        } else {
            kernels::InstructionSet::Baseline
        };
        assert_eq!(kernels::InstructionSet::chosen(), expected.min(kernels::InstructionSet::best()));
        let mut twins = Twins::new(&darts(Stem::Cifar, 16, 8, 8), settings(8, 3, 2), 1);
        let (x, labels) = batch(5, 8, 9);
        compare(&mut twins, &x, &labels);
        return;
    }
    for set in ["baseline", "avx2"] {
        let output = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "supernet::fused::tests::every_instruction_set_computes_the_same"])
            .env("LATHE_INSTRUCTION_SET", set)
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success() && text.contains("1 passed"), "{set}: {text}");
    }
}

#[test]
fn threads_change_no_bit() {
    let space = darts(Stem::Cifar, 16, 8, 8);
    let settings = settings(8, 3, 2);
    let run = |threads| {
        let mut model: Model<f32> = Model::new(&space, settings, 3, threads, None).unwrap();
        let architecture = Architecture::new(&space, Kind::Float, 4).unwrap();
        let (x, labels) = batch(37, 8, 5);
        let pass = model.forward(&x.to_kind(Kind::Float), &architecture, Learn::Weights, true).unwrap();
        let loss = loss(&pass.logits, &labels);
        model.weight_gradient(&pass, &loss).unwrap()
    };
    let one = run(1);
    assert!(one.equal(&run(2)) && one.equal(&run(5)));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, ..ProptestConfig::default() })]

    #[test]
    fn both_are_equal_for_any_size(
        partial in prop::sample::select(vec![1usize, 2, 4, 8]),
        width in 1usize..3,
        layers in 3usize..5,
        images in 1usize..20,
        size in 1usize..4,
        threads in 1usize..3,
    ) {
        let space = darts(Stem::Cifar, 16, 8, 4 * size);
        let settings = settings(2 * partial * width, layers, partial);
        let mut twins = Twins::new(&space, settings, threads);
        // The last maps of the smallest images are single pixels: a norm over two of them amplifies rounding.
        let (x, labels) = batch(images.max(if size == 1 { 8 } else { 2 }), 4 * size, 7);
        compare(&mut twins, &x, &labels);
    }
}
