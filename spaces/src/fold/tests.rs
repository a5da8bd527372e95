use super::*;
use crate::{BLOCKS, Block, Shape, ZooNetwork, evaluate, seeded_input};

/// Largest difference between a graph and what it is folded to, relative to the largest number.
fn difference(graph: &Graph, folded: &Folded, weights: &Weights) -> f32 {
    let input = seeded_input(graph.input_shape().unwrap(), 1);
    let expected = evaluate(graph, weights, &input).unwrap();
    let got = evaluate(&folded.graph, &folded.weights, &input).unwrap();
    assert_eq!(got.len(), expected.len());
    let largest = expected.iter().fold(1e-6_f32, |largest, value| largest.max(value.abs()));
    got.iter().zip(&expected).map(|(got, want)| (got - want).abs() / largest).fold(0.0, f32::max)
}

fn folded(text: &str, shape: Shape, channels: usize) -> (Graph, Folded) {
    let block: Block = text.parse().unwrap();
    let mut builder = GraphBuilder::new();
    let x = builder.input("x", shape).unwrap();
    let y = block.build(&mut builder, "b", x, channels, 1).unwrap();
    let graph = builder.finish(&[y]).unwrap();
    let weights = Weights::seeded(&graph, 5);
    let folded = fold(&graph, &weights).unwrap();
    assert!(difference(&graph, &folded, &weights) < 1e-5, "{text}");
    (graph, folded)
}

#[test]
fn every_block_folds_to_the_same_function() {
    for example in BLOCKS.iter().flat_map(|kind| kind.examples) {
        let [channels, rows, columns] = example.input;
        let block: Block = example.text.parse().unwrap();
        let mut builder = GraphBuilder::new();
        let x = builder.input("x", Shape::new(2, channels, rows, columns)).unwrap();
        let y = block.build(&mut builder, "b", x, example.channels, example.stride).unwrap();
        let graph = builder.finish(&[y]).unwrap();
        let weights = Weights::seeded(&graph, 2);
        let folded = fold(&graph, &weights).unwrap();
        let worst = difference(&graph, &folded, &weights);
        assert!(worst < 1e-5, "{}: {worst}", example.text);
        assert!(folded.graph.macs() <= graph.macs(), "{}", example.text);
        assert_eq!(fold_graph(&graph).unwrap(), folded.graph, "{}", example.text);
    }
}

#[test]
fn the_expanded_block_of_sesr_becomes_one_convolution() {
    let (graph, folded) = folded("collapsible k3 p32 expanded res prelu", Shape::new(1, 4, 7, 6), 4);
    let names: Vec<&str> = folded.graph.nodes().iter().map(|node| node.op.name()).collect();
    assert_eq!(names, ["input", "conv2d", "prelu"]);
    assert_eq!(folded.applied, BTreeMap::from([(FoldRule::Collapse, 1), (FoldRule::Identity, 1)]));
    assert_eq!(
        (graph.parameter_count(), folded.graph.parameter_count()),
        (4 * 9 * 32 + 32 * 4 + 4, 4 * 9 * 4 + 4)
    );
}

#[test]
fn a_residual_depthwise_convolution_takes_norm_and_sum() {
    let (_, folded) = folded("dwconv k3 none res", Shape::new(2, 6, 5, 7), 6);
    let names: Vec<&str> = folded.graph.nodes().iter().map(|node| node.op.name()).collect();
    assert_eq!(names, ["input", "conv2d"]);
    assert_eq!(folded.applied, BTreeMap::from([(FoldRule::NormBehind, 1), (FoldRule::Identity, 1)]));
}

#[test]
fn a_norm_in_front_of_a_padded_convolution_stays_and_is_named() {
    let mut builder = GraphBuilder::new();
    let x = builder.input("x", Shape::new(1, 4, 5, 5)).unwrap();
    let norm = builder.add("norm", OpSpec::BatchNorm { affine: true }, &[x]).unwrap();
    let conv = builder.add("conv", OpSpec::conv(4, 3, 1), &[norm]).unwrap();
    let pool = builder.add("pool", OpSpec::GlobalAvgPool, &[conv]).unwrap();
    let other = builder.add("other", OpSpec::BatchNorm { affine: false }, &[pool]).unwrap();
    let linear = builder.add("linear", OpSpec::Linear { out_features: 3, bias: false }, &[other]).unwrap();
    let graph = builder.finish(&[linear]).unwrap();
    let weights = Weights::seeded(&graph, 0);
    let folded = fold(&graph, &weights).unwrap();
    assert!(difference(&graph, &folded, &weights) < 1e-5);
    assert_eq!(folded.applied, BTreeMap::from([(FoldRule::NormInFront, 1)]));
    assert_eq!(folded.left.len(), 1);
    assert_eq!(
        folded.left[0],
        "norm: a batch norm behind input and in front of conv, whose zeros around the map it must not shift"
    );
}

#[test]
fn a_norm_goes_through_a_mean_into_the_linear_layer() {
    let network = |affine, read_twice: bool| {
        let mut builder = GraphBuilder::new();
        let x = builder.input("x", Shape::new(2, 6, 4, 5)).unwrap();
        let mut add = |name: &str, op, inputs: &[NodeId]| builder.add(name, op, inputs).unwrap();
        let relu = add("relu", OpSpec::Relu, &[x]);
        let norm = add("norm", OpSpec::BatchNorm { affine }, &[relu]);
        let mut pool = add("pool", OpSpec::GlobalAvgPool, &[norm]);
        if read_twice {
            pool = add("gated", OpSpec::Mul, &[norm, pool]);
        }
        let linear = add("linear", OpSpec::Linear { out_features: 3, bias: false }, &[pool]);
        builder.finish(&[linear]).unwrap()
    };
    for affine in [true, false] {
        let graph = network(affine, false);
        let weights = Weights::seeded(&graph, 4);
        let folded = fold(&graph, &weights).unwrap();
        assert!(difference(&graph, &folded, &weights) < 1e-5);
        let names: Vec<&str> = folded.graph.nodes().iter().map(|node| node.op.name()).collect();
        assert_eq!(names, ["input", "relu", "global_avg_pool", "linear"]);
        assert_eq!(folded.applied, BTreeMap::from([(FoldRule::NormInFront, 1)]));
        assert!(folded.left.is_empty(), "{:?}", folded.left);
    }
    let graph = network(true, true);
    let weights = Weights::seeded(&graph, 4);
    let folded = fold(&graph, &weights).unwrap();
    assert!(difference(&graph, &folded, &weights) < 1e-6);
    assert_eq!(folded.left, ["norm: a batch norm behind relu and that 2 operators read"]);
}

#[test]
fn a_norm_whose_reader_is_not_linear_or_that_is_the_result_stays_and_is_named() {
    let mut builder = GraphBuilder::new();
    let x = builder.input("x", Shape::new(1, 4, 5, 5)).unwrap();
    let first = builder.add("first", OpSpec::BatchNorm { affine: true }, &[x]).unwrap();
    let gelu = builder.add("gelu", OpSpec::Activation { function: crate::Function::Gelu }, &[first]).unwrap();
    let last = builder.add("last", OpSpec::BatchNorm { affine: true }, &[gelu]).unwrap();
    let graph = builder.finish(&[last]).unwrap();
    let folded = fold(&graph, &Weights::seeded(&graph, 0)).unwrap();
    assert_eq!(folded.graph, graph);
    assert_eq!(
        folded.left,
        [
            "first: a batch norm behind input and in front of gelu, which takes no scale and shift",
            "last: a batch norm behind gelu and that is the result",
        ]
    );
}

#[test]
fn a_learned_scale_and_shift_behind_a_rectifier_stays_and_is_named() {
    let (graph, folded) = folded("hg_block m4 l1 lab", Shape::new(1, 6, 6, 5), 6);
    let affine = |graph: &Graph| graph.nodes().iter().filter(|node| node.op == OpSpec::ScalarAffine).count();
    assert_eq!((affine(&graph), affine(&folded.graph)), (3, 3));
    assert_eq!(folded.left.len(), 3, "{:?}", folded.left);
    assert_eq!(folded.left[0], "b.chain0.scale: a scale and shift behind relu, which is not linear");
    assert_eq!(folded.applied, BTreeMap::from([(FoldRule::NormBehind, 3)]));
}

#[test]
fn a_network_of_every_family_folds_to_the_same_function() {
    let families = [
        ("lowformer-b0", [64, 32]),
        ("mobiledet-cpu", [32, 32]),
        ("mobiledet-edgetpu", [32, 32]),
        ("shvit-s1", [64, 32]),
        ("sesr-m3", [9, 8]),
        ("sesr-m5-expanded", [9, 8]),
        ("cas-vit-xs", [32, 32]),
        ("cas-vit-xs-distilled", [32, 32]),
        ("hgnetv2-atto", [32, 32]),
        ("tinyvit-5m-sam", [32, 64]),
    ];
    for (name, size) in families {
        let graph = ZooNetwork::named(name).unwrap().unwrap().graph(Some(size)).unwrap();
        let weights = Weights::seeded(&graph, 6);
        let folded = fold(&graph, &weights).unwrap();
        let worst = difference(&graph, &folded, &weights);
        assert!(worst < 1e-5, "{name}: {worst}");
        assert!(folded.graph.macs() <= graph.macs(), "{name}");
        let norms = |graph: &Graph| {
            graph.nodes().iter().filter(|node| matches!(node.op, OpSpec::BatchNorm { .. })).count()
        };
        // Two classifiers read the same mean: the norm in front of both stays.
        let stays = usize::from(name == "cas-vit-xs-distilled");
        assert_eq!(norms(&folded.graph), stays, "{name}: {:?}", folded.left);
    }
}

#[test]
fn the_expanded_network_folds_to_the_collapsed_one() {
    let size = Some([9, 8]);
    let expanded = ZooNetwork::named("sesr-m5-expanded").unwrap().unwrap().graph(size).unwrap();
    let collapsed = ZooNetwork::named("sesr-m5").unwrap().unwrap().graph(size).unwrap();
    let weights = Weights::seeded(&expanded, 3);
    let folded = fold(&expanded, &weights).unwrap();
    assert!(difference(&expanded, &folded, &weights) < 1e-5);
    let counts = |graph: &Graph| (graph.nodes().len(), graph.macs(), graph.parameter_count());
    assert_eq!(counts(&folded.graph), counts(&collapsed));
}

#[test]
fn a_network_loses_all_its_norms() {
    let graph = ZooNetwork::named("shvit-s1").unwrap().unwrap().graph(Some([64, 64])).unwrap();
    let weights = Weights::seeded(&graph, 3);
    let folded = fold(&graph, &weights).unwrap();
    assert!(difference(&graph, &folded, &weights) < 1e-5);
    assert!(folded.left.is_empty(), "{:?}", folded.left);
    assert!(folded.graph.nodes().iter().all(|node| !matches!(node.op, OpSpec::BatchNorm { .. })));
    assert!(folded.applied[&FoldRule::Identity] > 10);
}

#[test]
fn networks_of_stages_are_deployed_folded_and_those_of_cells_as_they_are() {
    for name in ["shvit", "sesr"] {
        let text =
            std::fs::read_to_string(format!("{}/spaces/{name}.toml", env!("CARGO_MANIFEST_DIR"))).unwrap();
        let side = if name == "sesr" { [9, 11] } else { [64, 64] };
        let space = crate::SpaceFile::parse(&text).unwrap().space(Some(side)).unwrap();
        let genotype = space.sample(&mut crate::Stream::new(3, "deployed", 0));
        let graph = space.network(&genotype, crate::NetworkOptions::default()).unwrap();
        let weights = Weights::seeded(&graph, 4);
        let deployed = space.deploy(&graph, &weights).unwrap();
        assert_eq!(deployed.graph, space.deployed(&genotype).unwrap());
        assert!(difference(&graph, &deployed, &weights) < 1e-5, "{name}");
        let norms =
            |graph: &Graph| graph.nodes().iter().filter(|node| node.op.name() == "batch_norm").count();
        assert_eq!(norms(&deployed.graph), 0, "{name}");
        assert_eq!(norms(&graph) > 0, name == "shvit");
    }
    let cells = crate::Space::nas201(crate::Nas201Skeleton { width: 4, cells: 1, resolution: 8, classes: 3 });
    let genotype = cells.sample(&mut crate::Stream::new(3, "deployed", 0));
    let graph = cells.network(&genotype, crate::NetworkOptions::default()).unwrap();
    assert_eq!(cells.deployed(&genotype).unwrap(), graph);
}
