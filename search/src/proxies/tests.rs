#![allow(clippy::unwrap_used, clippy::float_cmp, reason = "tests")]

use lathe_spaces::{GraphBuilder, Nas201Skeleton, NetworkOptions, OpSpec, Shape, Space};
use tch::{Kind, Tensor};

use super::*;

fn space() -> Space {
    Space::nas201(Nas201Skeleton { width: 4, cells: 1, resolution: 8, classes: 10 })
}

fn cell(all: &str) -> Graph {
    let space = space();
    let text = format!("|{all}~0|+|{all}~0|{all}~1|+|{all}~0|{all}~1|{all}~2|");
    space.network(&space.parse(&text).unwrap(), NetworkOptions::default()).unwrap()
}

fn images() -> Tensor {
    let values = lathe_spaces::seeded_input(Shape::new(8, 3, 8, 8), 1);
    Tensor::from_slice(&values).view([8, 3, 8, 8])
}

/// A network of one linear layer behind a convolution of 1 × 1, without rectifier.
fn linear() -> Graph {
    let mut build = GraphBuilder::new();
    let x = build.input("x", Shape::new(1, 3, 4, 4)).unwrap();
    let conv = OpSpec::Conv2d {
        out_channels: 2,
        kernel: 1,
        stride: 1,
        padding: 0,
        dilation: 1,
        groups: 1,
        bias: false,
    };
    let conv = build.add("conv", conv, &[x]).unwrap();
    let pooled = build.add("pool", OpSpec::GlobalAvgPool, &[conv]).unwrap();
    let output = build.add("classify", OpSpec::Linear { out_features: 5, bias: false }, &[pooled]).unwrap();
    build.finish(&[output]).unwrap()
}

#[test]
fn synflow_of_a_chain_is_the_number_of_layers_times_the_flow() {
    tch::set_num_threads(1);
    let graph = linear();
    let weights = initial::initial(&graph, initial::Spread::Default, 3);
    let of = |name: &str| {
        let tensor = weights.0.iter().find(|(key, _)| key.starts_with(name)).unwrap().1;
        tensor.values.iter().map(|value| f64::from(value.abs())).collect::<Vec<f64>>()
    };
    let (conv, classify) = (of("conv"), of("classify"));
    let hidden: Vec<f64> = conv.chunks(3).map(|row| row.iter().sum()).collect();
    let flow: f64 =
        classify.chunks(2).map(|row| row.iter().zip(&hidden).map(|(w, h)| w * h).sum::<f64>()).sum();
    // The flow is linear in every layer's weights: Σ w · ∂R/∂w = R, layer by layer.
    let got = Proxy::Synflow.score(&graph, None, 3).unwrap();
    assert!((got - (2.0 * flow).ln()).abs() < 1e-9, "{got}");
}

#[test]
fn determinants_are_those_of_the_codes() {
    let kernel = Tensor::from_slice(&[3.0, 1.0, 1.0, 2.0]).view([2, 2]);
    assert!((naswot::log_determinant(&kernel) - 5.0_f64.ln()).abs() < 1e-12);
    let alike = Tensor::from_slice(&[3.0, 3.0, 3.0, 3.0]).view([2, 2]);
    assert_eq!(naswot::log_determinant(&alike), f64::NEG_INFINITY);
}

#[test]
fn images_that_are_the_same_have_no_determinant() {
    tch::set_num_threads(1);
    let twice = Tensor::cat(&[images(), images()], 0);
    let graph = cell("nor_conv_3x3");
    assert!(Proxy::Naswot.score(&graph, Some(&images()), 0).unwrap().is_finite());
    assert_eq!(Proxy::Naswot.score(&graph, Some(&twice), 0).unwrap(), f64::NEG_INFINITY);
}

#[test]
fn convolutions_score_above_skips_and_nothing_at_the_bottom() {
    tch::set_num_threads(1);
    let images = images();
    for proxy in Proxy::ALL {
        let of = |all: &str| proxy.score(&cell(all), Some(&images), 0).unwrap();
        let (conv, skip) = (of("nor_conv_3x3"), of("skip_connect"));
        assert!(conv > skip, "{}: {conv} and {skip}", proxy.name());
        if !matches!(proxy, Proxy::Parameters | Proxy::Macs) {
            assert_eq!(of("none"), f64::NEG_INFINITY, "{}", proxy.name());
        }
        assert_eq!(of("nor_conv_3x3"), conv, "{}", proxy.name());
    }
}

#[test]
fn every_space_has_scores() {
    tch::set_num_threads(1);
    let space = crate::fixtures::darts_of(4, 3, 16);
    let genotype = space.sample(&mut lathe_spaces::Stream::new(1, "test", 0));
    let darts = space.network(&genotype, NetworkOptions::default()).unwrap();
    let space = Space::fbnet(32, 10);
    let genotype = space.sample(&mut lathe_spaces::Stream::new(1, "test", 0));
    let fbnet = space.network(&genotype, NetworkOptions::default()).unwrap();
    for (graph, side) in [(darts, 16), (fbnet, 32)] {
        let values = lathe_spaces::seeded_input(Shape::new(4, 3, side, side), 1);
        let images = Tensor::from_slice(&values).view([4, 3, side as i64, side as i64]);
        for proxy in Proxy::ALL {
            let score = proxy.score(&graph, Some(&images), 0).unwrap();
            assert!(score.is_finite(), "{}: {score}", proxy.name());
        }
    }
}

#[test]
fn what_cannot_be_scored_is_refused() {
    let images = Tensor::zeros([2, 3, 4, 4], (Kind::Float, tch::Device::Cpu));
    let refused = Proxy::Naswot.score(&linear(), Some(&images), 0);
    assert!(matches!(refused, Err(ProxyError::NoRectifier)), "{refused:?}");
    let refused = Proxy::Naswot.score(&cell("nor_conv_1x1"), None, 0);
    assert!(matches!(refused, Err(ProxyError::NoImages)), "{refused:?}");
    let refused = Proxy::Naswot.score(&cell("nor_conv_1x1"), Some(&images), 0);
    assert!(matches!(refused, Err(ProxyError::Module(_))), "{refused:?}");
}

#[test]
fn kendall_counts_pairs_and_ties() {
    assert_eq!(kendall(&[(1.0, 1.0), (2.0, 2.0), (3.0, 3.0)]), 1.0);
    assert_eq!(kendall(&[(1.0, 3.0), (2.0, 2.0), (3.0, 1.0)]), -1.0);
    assert_eq!(kendall(&[(1.0, 1.0), (1.0, 2.0)]), 0.0);
    // By hand: 4 concordant, 1 discordant, 1 tied on the left.
    let tied = [(1.0, 1.0), (1.0, 2.0), (2.0, 4.0), (3.0, 3.0)];
    assert!((kendall(&tied) - 3.0 / 30.0_f64.sqrt()).abs() < 1e-12);
    let found = agreement(&tied.repeat(10), 0);
    assert!(found.kendall_95[0] <= found.kendall && found.kendall <= found.kendall_95[1]);
    assert!(found.spearman_95[0] < found.spearman_95[1]);
}
