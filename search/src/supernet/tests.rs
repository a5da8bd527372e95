#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

use std::collections::BTreeMap;

use lathe_spaces::{DartsSkeleton, Space, Stem};
use tch::{Device, no_grad};

use super::{
    operation::{MixedOperation, OPERATIONS, channel_shuffle, operation},
    *,
};
use crate::{Implementation, Precision, TrainingDevice, fixtures, optimizer::gradients};

fn settings(width: usize, layers: usize, partial_channels: usize) -> SupernetSettings {
    SupernetSettings {
        width,
        layers,
        partial_channels,
        implementation: Implementation::Plain,
        device: TrainingDevice::Cpu,
        precision: Precision::Float32,
    }
}

fn learned(supernet: &Supernet) -> i64 {
    supernet.parameters().learned.iter().map(|(_, tensor)| tensor.numel() as i64).sum()
}

fn greatest_difference(a: &Tensor, b: &Tensor) -> f64 {
    assert_eq!(a.size(), b.size());
    (a - b).abs().max().double_value(&[])
}

#[test]
fn counts_are_those_of_the_published_network() {
    let space = fixtures::darts();
    let supernet = Supernet::new(&space, settings(16, 8, 4), Kind::Float, 1).unwrap();
    assert_eq!(learned(&supernet), 299_578);
    assert_eq!(supernet.parameters().flat.numel(), 299_578);
    assert_eq!(supernet.parameters().learned.len(), 1_399);
    let millions = supernet.macs() as f64 / 1e6;
    assert!((millions - 56.6).abs() < 0.05, "{millions} million multiply-accumulates");
    let architecture = Architecture::new(&space, Kind::Float, 1).unwrap();
    assert_eq!(architecture.flat.numel(), 252);

    let whole = Supernet::new(&space, settings(16, 8, 1), Kind::Float, 1).unwrap();
    assert_eq!(learned(&whole), 1_930_618);
    let millions = whole.macs() as f64 / 1e6;
    assert!((millions - 300.3).abs() < 0.05, "{millions} million multiply-accumulates");
}

#[test]
fn shuffle_puts_channel_g_of_each_group_side_by_side() {
    for groups in [1, 2, 3, 4, 6, 12] {
        let x = Tensor::arange(2 * 12 * 4, (Kind::Double, Device::Cpu)).view([2, 12, 2, 2]);
        let shuffled = channel_shuffle(&x, groups);
        let per_group = 12 / groups;
        for c in 0..per_group {
            for g in 0..groups {
                let (got, expected) = (shuffled.select(1, c * groups + g), x.select(1, g * per_group + c));
                assert!(got.equal(&expected), "K = {groups}, c = {c}, g = {g}");
            }
        }
    }
}

/// Batch norm with the batch's own statistics, by its definition.
fn norm(x: &Tensor) -> Tensor {
    let mean = x.mean_dim([0, 2, 3].as_slice(), true, Kind::Double);
    let centred = x - mean;
    let variance = (&centred * &centred).mean_dim([0, 2, 3].as_slice(), true, Kind::Double);
    centred / (variance + 1e-5).sqrt()
}

/// One operation of DARTS from the weights of its convolutions in order, after the paper's table.
fn literal(choice: &str, x: &Tensor, weights: &[&Tensor], stride: i64) -> Tensor {
    let conv = |x: &Tensor, w: &Tensor, stride: i64, padding: i64, dilation: i64, groups: i64| {
        x.conv2d(w, None::<Tensor>, [stride; 2], [padding; 2], [dilation; 2], groups)
    };
    let channels = x.size()[1];
    let depthwise_block = |x: &Tensor, weights: &[&Tensor], stride: i64, padding: i64, dilation: i64| {
        let x = conv(&x.clamp_min(0.0), weights[0], stride, padding, dilation, channels);
        norm(&conv(&x, weights[1], 1, 0, 1, 1))
    };
    match choice {
        "none" => x.slice(2, 0, None, stride).slice(3, 0, None, stride) * 0.0,
        "max_pool_3x3" => norm(&x.max_pool2d([3, 3], [stride; 2], [1, 1], [1, 1], false)),
        "avg_pool_3x3" => {
            // Sum over the window divided by the number of pixels inside the image.
            let ones = Tensor::ones([channels, 1, 3, 3], (Kind::Double, Device::Cpu));
            let sum = conv(x, &ones, stride, 1, 1, channels);
            let count = conv(&x.ones_like(), &ones, stride, 1, 1, channels);
            norm(&(sum / count))
        }
        "skip_connect" if stride == 1 => x.shallow_clone(),
        "skip_connect" => {
            let x = x.clamp_min(0.0);
            let even = x.slice(2, 0, None, 2).slice(3, 0, None, 2);
            let odd = x.slice(2, 1, None, 2).slice(3, 1, None, 2);
            norm(&Tensor::cat(&[conv(&even, weights[0], 1, 0, 1, 1), conv(&odd, weights[1], 1, 0, 1, 1)], 1))
        }
        "sep_conv_3x3" | "sep_conv_5x5" => {
            let padding = if choice.ends_with("3x3") { 1 } else { 2 };
            let x = depthwise_block(x, &weights[..2], stride, padding, 1);
            depthwise_block(&x, &weights[2..], 1, padding, 1)
        }
        "dil_conv_3x3" => depthwise_block(x, weights, stride, 2, 2),
        "dil_conv_5x5" => depthwise_block(x, weights, stride, 4, 2),
        _ => unreachable!("{choice}"),
    }
}

#[test]
fn a_mixed_edge_is_the_sum_of_its_operations_on_a_part_of_the_channels() {
    tch::set_num_threads(1);
    for (channels, partial, stride) in [(8, 4, 1), (8, 4, 2), (12, 3, 2), (6, 1, 1), (6, 1, 2), (8, 2, 1)] {
        let mut build = ParameterBuilder::new(7, Kind::Double);
        let operations = OPERATIONS
            .map(|choice| operation(&mut build, choice, choice, channels / partial, stride).unwrap())
            .into_iter()
            .collect();
        let parameters = build.finish();
        let mut weights: BTreeMap<&str, Vec<&Tensor>> = BTreeMap::new();
        for (name, tensor) in &parameters.learned {
            weights.entry(name.split('.').next().unwrap()).or_default().push(tensor);
        }
        let mixed = MixedOperation::new(operations, partial, stride);
        let x = Tensor::from_slice(&lathe_spaces::seeded_input(Shape::new(2, channels, 8, 8), 3))
            .to_kind(Kind::Double)
            .view([2, channels as i64, 8, 8]);
        let shares = [0.3, 0.05, 0.1, 0.15, 0.05, 0.1, 0.2, 0.05];
        let got = mixed.forward(&x, &shares.map(Tensor::from), true);

        let (all, part, k) = (channels as i64, (channels / partial) as i64, partial as i64);
        let input = x.narrow(1, 0, part);
        let mut sum = literal("none", &input, &[], stride as i64);
        for (choice, share) in OPERATIONS.iter().zip(shares) {
            let weights = weights.get(choice).map_or(&[][..], Vec::as_slice);
            sum += literal(choice, &input, weights, stride as i64) * share;
        }
        let rest = x.narrow(1, part, all - part);
        let rest = if stride == 2 && k > 1 {
            // 2×2 maximum by hand.
            let at = |row, column| rest.slice(2, row, None, 2).slice(3, column, None, 2);
            at(0, 0).maximum(&at(0, 1)).maximum(&at(1, 0).maximum(&at(1, 1)))
        } else {
            rest.slice(2, 0, None, stride as i64).slice(3, 0, None, stride as i64)
        };
        let stacked = Tensor::cat(&[sum, rest], 1);
        let order: Vec<i64> = (0..all).map(|out| (out % k) * part + out / k).collect();
        let expected = stacked.index_select(1, &Tensor::from_slice(&order));
        let difference = greatest_difference(&got, &expected);
        assert!(difference < 1e-12, "C = {channels}, K = {partial}, stride {stride}: {difference}");
        // The sizes that are counted are those that are computed.
        let traced = mixed.trace(Shape::new(2, channels, 8, 8), &mut 0);
        assert_eq!(traced.dims().map(|extent| extent as i64).as_slice(), got.size());
    }
}

#[test]
fn asking_for_some_gradients_gives_the_same_as_asking_for_all() {
    tch::set_num_threads(1);
    let space = fixtures::darts_of(8, 3, 8);
    let supernet = Supernet::new(&space, settings(4, 3, 2), Kind::Double, 5).unwrap();
    let architecture = Architecture::new(&space, Kind::Double, 5).unwrap();
    let images = Tensor::from_slice(&lathe_spaces::seeded_input(Shape::new(3, 3, 8, 8), 1))
        .to_kind(Kind::Double)
        .view([3, 3, 8, 8]);
    let labels = Tensor::from_slice(&[1i64, 0, 7]);
    let loss = |learn: bool| {
        let logits = supernet.forward(&images, &architecture.mixture(learn), true);
        logits.cross_entropy_loss(&labels, None::<Tensor>, tch::Reduction::Mean, -100, 0.0)
    };
    let weights: Vec<&Tensor> = supernet.parameters().learned.iter().map(|(_, tensor)| tensor).collect();
    let arch: Vec<&Tensor> = architecture.leaves().iter().collect();
    let all = gradients(&loss(true), &[weights.as_slice(), arch.as_slice()].concat());
    let mut some = gradients(&loss(false), &weights);
    some.extend(gradients(&loss(true), &arch));
    let mut moving = 0;
    for (all, some) in all.iter().zip(&some) {
        assert!(greatest_difference(all, some) < 1e-12);
        moving += usize::from(all.abs().max().double_value(&[]) > 0.0);
    }
    // Every tensor has a part in the loss.
    assert_eq!(moving, all.len());
}

#[test]
fn the_flat_vector_is_the_weights() {
    tch::set_num_threads(1);
    let space = fixtures::darts_of(8, 3, 8);
    let mut supernet = Supernet::new(&space, settings(4, 3, 2), Kind::Float, 5).unwrap();
    let images = Tensor::ones([2, 3, 8, 8], (Kind::Float, Device::Cpu));
    let architecture = Architecture::new(&space, Kind::Float, 5).unwrap();
    let mixture = architecture.mixture(false);
    let _ = no_grad(|| supernet.parameters_mut().flat.zero_());
    assert!(supernet.forward(&images, &mixture, false).abs().max().double_value(&[]) == 0.0);
    let twin = Supernet::new(&space, settings(4, 3, 2), Kind::Float, 5).unwrap();
    let again = Supernet::new(&space, settings(4, 3, 2), Kind::Float, 5).unwrap();
    let other = Supernet::new(&space, settings(4, 3, 2), Kind::Float, 6).unwrap();
    assert!(twin.parameters().flat.equal(&again.parameters().flat));
    assert!(!twin.parameters().flat.equal(&other.parameters().flat));
}

#[test]
fn the_stem_for_large_images_divides_by_eight() {
    tch::set_num_threads(1);
    let skeleton = DartsSkeleton { stem: Stem::ImageNet, width: 48, layers: 14, resolution: 64, classes: 5 };
    let space = Space::darts(skeleton);
    let supernet = Supernet::new(&space, settings(4, 4, 2), Kind::Float, 1).unwrap();
    let architecture = Architecture::new(&space, Kind::Float, 1).unwrap();
    let images = Tensor::ones([2, 3, 64, 64], (Kind::Float, Device::Cpu));
    let logits = supernet.forward(&images, &architecture.mixture(false), true);
    assert_eq!(logits.size(), [2, 5]);
    assert!(supernet.macs() > 0);
}

#[test]
fn the_mixture_is_softmax_over_choices_and_over_the_edges_of_a_node() {
    let space = fixtures::darts();
    let architecture = Architecture::new(&space, Kind::Double, 9).unwrap();
    let scores = architecture.scores();
    assert!(scores.check(&space).is_ok());
    let spread = scores.alpha.iter().flatten().map(|logit| logit * logit).sum::<f64>() / 224.0;
    assert!((0.5e-3..2e-3).contains(&spread.sqrt()), "deviation {}", spread.sqrt());
    let mixture = architecture.mixture(true);
    for (block, snapshot) in scores.snapshots(&space).iter().enumerate() {
        for (edge, (alpha, beta)) in snapshot.alpha.iter().zip(&snapshot.beta).enumerate() {
            assert!((mixture.beta[block][edge].double_value(&[]) - beta).abs() < 1e-15);
            for (choice, alpha) in alpha.iter().enumerate() {
                assert!((mixture.alpha[block][edge][choice].double_value(&[]) - alpha).abs() < 1e-15);
            }
        }
    }
}

#[test]
fn what_cannot_be_built_says_why() {
    let error =
        |space: &Space, settings| Supernet::new(space, settings, Kind::Float, 1).unwrap_err().to_string();
    assert!(error(&Space::fbnet(64, 10), settings(16, 8, 4)).contains("fbnet"));
    let space = fixtures::darts();
    assert!(
        error(&space, settings(18, 8, 4)).contains("width = 18, expected a multiple of partial_channels = 4")
    );
    assert!(error(&space, settings(16, 2, 4)).contains("layers = 2"));
    assert!(error(&space, settings(16, 8, 0)).contains("partial_channels = 0"));
    assert!(error(&fixtures::darts_of(16, 8, 30), settings(16, 8, 4)).contains("resolution = 30"));
    let mut strange = fixtures::darts();
    strange.blocks[1].nodes[2].edges[0].choices[5] = "sep_conv_9x9".into();
    assert!(
        error(&strange, settings(16, 8, 4))
            .contains("unknown operation `sep_conv_9x9` in the block `reduce`")
    );
}
