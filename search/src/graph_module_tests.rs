#![allow(clippy::unwrap_used, clippy::expect_used, clippy::float_cmp, reason = "tests")]

use lathe_spaces::{
    DartsSkeleton, GraphBuilder, Nas201Skeleton, NetworkOptions, Space, Stem, evaluate, seeded_input,
};
use tch::Device;

use super::*;

fn darts(seed: u64, options: NetworkOptions) -> Graph {
    // The auxiliary head needs 8 × 8 pixels after two reductions.
    let resolution = if options.auxiliary { 32 } else { 16 };
    let skeleton = DartsSkeleton { stem: Stem::Cifar, width: 4, layers: 3, resolution, classes: 10 };
    let space = Space::darts(skeleton);
    space.network(&space.sample(&mut Stream::new(seed, "test", 0)), options).unwrap()
}

fn images(graph: &Graph, seed: u64, kind: Kind) -> (Vec<f32>, Tensor) {
    let shape = graph.input_shape().unwrap();
    let values = seeded_input(shape, seed);
    let tensor = Tensor::from_slice(&values).to_kind(kind).view(shape.dims().map(|extent| extent as i64));
    (values, tensor)
}

fn values(tensor: &Tensor) -> Vec<f64> {
    Vec::try_from(tensor.detach().to_kind(Kind::Double).flatten(0, -1)).unwrap()
}

fn assert_equal_to_evaluate(graph: &Graph, seed: u64) {
    tch::set_num_threads(1);
    let weights = Weights::seeded(graph, seed);
    for (kind, tolerance) in [(Kind::Float, 1e-4), (Kind::Double, 2e-5)] {
        let (input, x) = images(graph, seed, kind);
        let expected = evaluate(graph, &weights, &input).unwrap();
        let module = GraphModule::new(graph, &weights, kind).unwrap();
        let got = values(&no_grad(|| module.forward(&x, None))[0]);
        assert_eq!(got.len(), expected.len());
        let scale = expected.iter().fold(1e-6, |largest: f64, value| largest.max(f64::from(value.abs())));
        for (got, expected) in got.iter().zip(&expected) {
            let difference = (got - f64::from(*expected)).abs();
            assert!(difference <= tolerance * scale, "{kind:?}: got {got}, expected {expected}");
        }
    }
}

#[test]
fn darts_networks_equal_the_reference_interpreter() {
    for seed in 0..3 {
        assert_equal_to_evaluate(&darts(seed, NetworkOptions::default()), seed);
    }
}

#[test]
fn nas201_networks_equal_the_reference_interpreter() {
    let space = Space::nas201(Nas201Skeleton { width: 4, cells: 1, resolution: 16, classes: 10 });
    for seed in 0..3 {
        let genotype = space.sample(&mut Stream::new(seed, "test", 0));
        assert_equal_to_evaluate(&space.network(&genotype, NetworkOptions::default()).unwrap(), seed);
    }
}

#[test]
fn fbnet_networks_equal_the_reference_interpreter() {
    let space = Space::fbnet(32, 10);
    for seed in 0..3 {
        let genotype = space.sample(&mut Stream::new(seed, "test", 0));
        assert_equal_to_evaluate(&space.network(&genotype, NetworkOptions::default()).unwrap(), seed);
    }
}

#[test]
fn darts_networks_for_imagenet_equal_the_reference_interpreter() {
    let skeleton = DartsSkeleton { stem: Stem::ImageNet, width: 8, layers: 3, resolution: 64, classes: 10 };
    let space = Space::darts(skeleton);
    for seed in 0..3 {
        let genotype = space.sample(&mut Stream::new(seed, "test", 0));
        assert_equal_to_evaluate(&space.network(&genotype, NetworkOptions::default()).unwrap(), seed);
    }
}

#[test]
fn operators_that_sampled_networks_may_lack_equal_the_interpreter() {
    let mut build = GraphBuilder::new();
    let x = build.input("x", Shape::new(2, 6, 7, 7)).unwrap();
    let shuffled = build.add("shuffle", OpSpec::ChannelShuffle { groups: 3 }, &[x]).unwrap();
    let pool = OpSpec::AvgPool { kernel: 3, stride: 2, padding: 1, count_include_pad: true };
    let averaged = build.add("average", pool, &[shuffled]).unwrap();
    let pool = OpSpec::AvgPool { kernel: 3, stride: 2, padding: 1, count_include_pad: false };
    let other = build.add("other", pool, &[shuffled]).unwrap();
    let zero = build.add("zero", OpSpec::Zero { stride: 2 }, &[shuffled]).unwrap();
    let sum = build.add("sum", OpSpec::Add, &[averaged, other, zero]).unwrap();
    let crop = build.add("crop", OpSpec::Crop { top: 1, left: 2 }, &[sum]).unwrap();
    // Read twice by the same node.
    let twice = build.add("twice", OpSpec::Concat, &[crop, crop]).unwrap();
    let normed = build.add("norm", OpSpec::BatchNorm { affine: false }, &[twice]).unwrap();
    let linear = build.add("linear", OpSpec::Linear { out_features: 5, bias: true }, &[normed]).unwrap();
    assert_equal_to_evaluate(&build.finish(&[linear]).unwrap(), 1);
}

#[test]
fn functions_and_products_equal_the_interpreter() {
    use lathe_spaces::Function::{HardSigmoid, HardSwish, Relu6, Sigmoid, Swish, Tanh};
    let mut build = GraphBuilder::new();
    let x = build.input("x", Shape::new(1, 6, 7, 7)).unwrap();
    let mut all = vec![x];
    for function in [Relu6, Sigmoid, HardSigmoid, Swish, HardSwish, Tanh] {
        all.push(build.add(function.name(), OpSpec::Activation { function }, &[x]).unwrap());
    }
    let sides = build.add("sides", OpSpec::Concat, &all).unwrap();
    let gates = build.add("gates", OpSpec::GlobalAvgPool, &[sides]).unwrap();
    let gated = build.add("gated", OpSpec::Mul, &[sides, gates]).unwrap();
    let squared = build.add("squared", OpSpec::Mul, &[gated, gated]).unwrap();
    assert_equal_to_evaluate(&build.finish(&[squared]).unwrap(), 2);
}

#[test]
fn training_normalises_by_the_batch_and_moves_the_statistics_by_a_tenth() {
    let mut build = GraphBuilder::new();
    let x = build.input("x", Shape::new(1, 2, 4, 4)).unwrap();
    let normed = build.add("norm", OpSpec::BatchNorm { affine: true }, &[x]).unwrap();
    let graph = build.finish(&[normed]).unwrap();
    let mut weights = Weights::seeded(&graph, 0);
    for (name, value) in [("weight", 1.0), ("bias", 0.0), ("running_mean", 0.0), ("running_var", 1.0)] {
        weights.0.get_mut(&format!("norm.{name}")).unwrap().values.fill(value);
    }
    let module = GraphModule::new(&graph, &weights, Kind::Float).unwrap();
    let x = Tensor::from_slice(&seeded_input(Shape::new(8, 2, 4, 4), 3)).view([8, 2, 4, 4]) * 2.0 + 5.0;
    let drop_path = DropPath { probability: 0.0, seed: 0, step: 0 };
    let y = &module.forward(&x, Some(&drop_path))[0];
    let mean: Vec<f64> = values(&y.mean_dim([0i64, 2, 3].as_slice(), false, None::<Kind>));
    assert!(mean.iter().all(|mean| mean.abs() < 1e-5), "{mean:?}");
    let expected = values(&x.mean_dim([0i64, 2, 3].as_slice(), false, None::<Kind>));
    let moved = &module.weights().0["norm.running_mean"].values;
    for (moved, mean) in moved.iter().zip(expected) {
        assert!((f64::from(*moved) - 0.1 * mean).abs() < 1e-5);
    }
    let before = module.weights();
    no_grad(|| module.forward(&x, None));
    assert_eq!(module.weights(), before);
}

#[test]
fn drop_path_drops_whole_images_scales_the_rest_and_repeats_itself() {
    let mut build = GraphBuilder::new();
    let x = build.input("x", Shape::new(1, 2, 2, 2)).unwrap();
    let relu = build.add("relu", OpSpec::Relu, &[x]).unwrap();
    build.drop_path(relu);
    let graph = build.finish(&[relu]).unwrap();
    let module = GraphModule::new(&graph, &Weights::default(), Kind::Float).unwrap();
    let x = Tensor::ones([2000, 2, 2, 2], (Kind::Float, Device::Cpu));
    let run = |step| values(&module.forward(&x, Some(&DropPath { probability: 0.25, seed: 9, step }))[0]);
    let first = run(0);
    let mut kept = 0;
    for image in first.chunks(8) {
        assert!(image.iter().all(|value| *value == image[0]));
        assert!(image[0] == 0.0 || (image[0] - 1.0 / 0.75).abs() < 1e-6);
        kept += usize::from(image[0] > 0.0);
    }
    assert!((1400..1600).contains(&kept), "{kept}");
    assert_eq!(first, run(0));
    assert_ne!(first, run(1));
    assert!(values(&module.forward(&x, None)[0]).iter().all(|value| *value == 1.0));
}

#[test]
fn gradients_reach_every_parameter_through_both_outputs() {
    tch::set_num_threads(1);
    let graph = darts(0, NetworkOptions { auxiliary: true, ..NetworkOptions::default() });
    let module = GraphModule::new(&graph, &Weights::seeded(&graph, 0), Kind::Float).unwrap();
    let x = Tensor::from_slice(&seeded_input(Shape::new(4, 3, 32, 32), 1)).view([4, 3, 32, 32]);
    let outputs = module.forward(&x, Some(&DropPath { probability: 0.0, seed: 0, step: 0 }));
    assert_eq!(outputs.iter().map(Tensor::size).collect::<Vec<_>>(), vec![vec![4, 10]; 2]);
    let loss = (&outputs[0] * &outputs[0]).sum(Kind::Float) + (&outputs[1] * &outputs[1]).sum(Kind::Float);
    let parameters = module.parameters();
    let gradients = Tensor::run_backward(&[&loss], &parameters.iter().collect::<Vec<_>>(), false, false);
    assert!(gradients.iter().all(Tensor::defined));
    assert_eq!(gradients.len(), graph.parameters().len());
}

#[test]
fn weights_come_back_and_misfits_are_errors() {
    let graph = darts(0, NetworkOptions::default());
    let weights = Weights::seeded(&graph, 0);
    assert_eq!(GraphModule::new(&graph, &weights, Kind::Float).unwrap().weights(), weights);
    let error = GraphModule::new(&graph, &Weights::default(), Kind::Float).unwrap_err();
    assert!(matches!(error, GraphModuleError::Weights(WeightsError::Missing { .. })), "{error}");
    let wrong = Tensor::zeros([2, 3, 8, 8], (Kind::Float, Device::Cpu));
    let error = logits(&graph, &weights, &wrong).unwrap_err().to_string();
    assert!(error.contains("[batch, 3, 16, 16]") && error.contains("[2, 3, 8, 8]"), "{error}");
}

#[path = "../../spaces/tests/samples/mod.rs"]
mod samples;

#[test]
fn every_primitive_and_block_equals_the_interpreter() {
    let all = samples::primitives().into_iter().chain(samples::blocks());
    for (index, (name, graph)) in all.enumerate() {
        eprintln!("{name}");
        assert_equal_to_evaluate(&graph, index as u64);
    }
}

#[test]
fn what_is_drawn_from_any_space_of_stages_equals_the_interpreter() {
    for (name, text) in lathe_spaces::SPACES {
        let side = if *name == "sesr" { 8 } else { 32 };
        let space = lathe_spaces::SpaceFile::parse(text).unwrap().space(Some([side, side])).unwrap();
        for index in 0..3 {
            let genotype = space.sample(&mut Stream::new(13, "libtorch and stages", index));
            assert_equal_to_evaluate(&space.network(&genotype, NetworkOptions::default()).unwrap(), index);
        }
    }
}
