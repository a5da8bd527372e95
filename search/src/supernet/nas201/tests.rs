#![allow(clippy::unwrap_used, reason = "tests")]

use std::collections::BTreeMap;

use lathe_spaces::{Genotype, NetworkOptions, Space, Stream, Tensor as Values, Weights, seeded_input};
use rand::RngExt as _;
use tch::{Device, Kind, no_grad};

use super::*;
use crate::{
    Implementation, Precision, Scores, TrainingDevice, fixtures, logits,
    optimizer::gradients,
    supernet::{Architecture, Learn, Model, Supernet},
};

fn space(width: usize, cells: usize) -> Space {
    Space::nas201(Nas201Skeleton { width, cells, resolution: 8, classes: 10 })
}

fn settings(width: usize, cells: usize, partial: usize, implementation: Implementation) -> SupernetSettings {
    SupernetSettings {
        width,
        layers: cells,
        partial_channels: partial,
        implementation,
        device: TrainingDevice::Cpu,
        precision: Precision::Float32,
    }
}

fn images(count: usize, kind: Kind) -> Tensor {
    let values = seeded_input(Shape::new(count, 3, 8, 8), 3);
    Tensor::from_slice(&values).to_kind(kind).view([count as i64, 3, 8, 8])
}

fn greatest_difference(a: &Tensor, b: &Tensor) -> f64 {
    assert_eq!(a.size(), b.size());
    (a - b).abs().max().double_value(&[])
}

fn numbers(tensor: &Tensor) -> Vec<f32> {
    let flat = tensor.detach().to_kind(Kind::Float).flatten(0, -1);
    Vec::try_from(flat).unwrap()
}

/// Draws every weight and statistic anew, variances above zero: nothing may pass for being one or zero.
fn disturb(supernet: &mut Supernet, seed: u64) {
    let parameters = supernet.parameters_mut();
    no_grad(|| {
        let mut random = Stream::new(seed, "test weights", 0);
        let mut draw = |tensor: &Tensor, low: f64, high: f64| {
            let values: Vec<f64> = (0..tensor.numel()).map(|_| random.random_range(low..high)).collect();
            let values = Tensor::from_slice(&values).to_kind(tensor.kind()).view(tensor.size().as_slice());
            tensor.shallow_clone().copy_(&values);
        };
        for (_, tensor) in &parameters.learned {
            draw(tensor, -0.5, 0.5);
        }
        for (_, tensor) in &parameters.statistics {
            draw(tensor, 0.2, 1.0);
        }
    });
}

/// Logits that leave nothing but one network.
fn one_hot(space: &Space, genotype: &Genotype) -> Scores {
    let mut scores = Scores::uniform(space);
    let picks = genotype.blocks[0].nodes.iter().flatten();
    for ((slot, alpha), pick) in space.slots().into_iter().zip(&mut scores.alpha).zip(picks) {
        let edge = space.edge(slot);
        assert_eq!(edge.from, pick.from);
        alpha[edge.choices.iter().position(|choice| *choice == pick.choice).unwrap()] = 200.0;
    }
    scores
}

/// The supernet's tensors under the names of the discrete network. Cells have no learned batch norms here:
/// theirs get a scale of one and a shift of zero.
fn weights_of(supernet: &Supernet, graph: &lathe_spaces::Graph) -> Weights {
    let mut known: BTreeMap<String, Vec<f32>> = BTreeMap::new();
    let parameters = supernet.parameters();
    for (name, tensor) in parameters.learned.iter().chain(&parameters.statistics) {
        known.insert(name.clone(), numbers(tensor));
    }
    // (network, supernet) of everything outside the cells.
    let outside = BTreeMap::from([
        ("stem.conv", "stem.0"),
        ("stem.norm", "stem.1"),
        ("reductions.0.conv1", "reductions.0.1"),
        ("reductions.0.norm1", "reductions.0.2"),
        ("reductions.0.conv2", "reductions.0.4"),
        ("reductions.0.norm2", "reductions.0.5"),
        ("reductions.0.shortcut", "reductions.0.shortcut.1"),
        ("reductions.1.conv1", "reductions.1.1"),
        ("reductions.1.norm1", "reductions.1.2"),
        ("reductions.1.conv2", "reductions.1.4"),
        ("reductions.1.norm2", "reductions.1.5"),
        ("reductions.1.shortcut", "reductions.1.shortcut.1"),
        ("head.norm", "head.0"),
        ("classifier", "classifier"),
    ]);
    let tensors = Weights::seeded(graph, 1).0.into_iter().map(|(name, like)| {
        let (node, tensor) = name.rsplit_once('.').unwrap();
        let own = match outside.get(node) {
            Some(own) => (*own).to_owned(),
            None => node
                .strip_suffix(".conv")
                .map(|operation| format!("{operation}.1"))
                .or_else(|| node.strip_suffix(".norm").map(|operation| format!("{operation}.2")))
                .unwrap(),
        };
        let values = known.get(&format!("{own}.{tensor}")).cloned().unwrap_or_else(|| {
            assert!(
                node.starts_with("stages.") && node.rsplit('.').next() == Some("norm"),
                "{name} is not in the supernet"
            );
            vec![f32::from(u8::from(tensor == "weight")); like.values.len()]
        });
        assert_eq!(values.len(), like.values.len(), "{name}");
        (name, Values { dims: like.dims, values })
    });
    Weights(tensors.collect())
}

#[test]
fn with_one_hot_parameters_it_is_the_discrete_network() {
    tch::set_num_threads(1);
    let space = space(4, 2);
    let mut supernet =
        Supernet::new(&space, settings(4, 2, 1, Implementation::Plain), Kind::Float, 1).unwrap();
    disturb(&mut supernet, 5);
    let images = images(3, Kind::Float);
    let first = "|none~0|+|none~0|nor_conv_3x3~1|+|skip_connect~0|avg_pool_3x3~1|nor_conv_1x1~2|";
    let mut random = Stream::new(2, "test genotypes", 0);
    let mut genotypes = vec![space.parse(first).unwrap()];
    genotypes.extend((0..8).map(|_| space.sample(&mut random)));
    for genotype in genotypes {
        let architecture = Architecture::of(&space, &one_hot(&space, &genotype)).unwrap();
        let got = no_grad(|| supernet.forward(&images, &architecture.mixture(false), false));
        let graph = space.network(&genotype, NetworkOptions::default()).unwrap();
        let expected = logits(&graph, &weights_of(&supernet, &graph), &images).unwrap();
        let scale = expected.abs().max().double_value(&[]).max(1.0);
        let difference = greatest_difference(&got, &expected) / scale;
        assert!(difference < 1e-5, "{}: {difference}", space.format(&genotype));
    }
}

#[test]
fn it_computes_what_all_operations_together_take() {
    let space = space(4, 2);
    let supernet = Supernet::new(&space, settings(4, 2, 1, Implementation::Plain), Kind::Float, 1).unwrap();
    let fixed: u64 = space.fixed().unwrap().iter().map(|part| part.graph.macs()).sum();
    let operations: u64 = space
        .slots()
        .into_iter()
        .flat_map(|slot| space.edge(slot).choices.iter().map(move |choice| (slot, choice)))
        .flat_map(|(slot, choice)| space.instances(slot, choice).unwrap())
        .map(|part| part.graph.macs())
        .sum();
    assert_eq!(supernet.macs(), fixed + operations);
}

/// Logits, gradients and statistics after one pass of each implementation, in 64 bits.
fn pass(partial: usize, implementation: Implementation, training: bool) -> (Tensor, Tensor, Tensor, Tensor) {
    let space = space(8, 5);
    let settings = settings(8, 2, partial, implementation);
    let mut model: Model<f64> = Model::new(&space, settings, 3, 1, None).unwrap();
    let mut architecture = Architecture::new(&space, Kind::Double, 3).unwrap();
    let spread = fixtures::scores(&space, 1.0, 4);
    let spread: Vec<f64> = spread.alpha.concat().into_iter().chain(spread.beta).collect();
    no_grad(|| architecture.flat.copy_(&Tensor::from_slice(&spread)));
    let images = images(4, Kind::Double);
    let labels = Tensor::from_slice(&[1i64, 0, 7, 3]);
    let loss =
        |logits: &Tensor| logits.cross_entropy_loss(&labels, None::<Tensor>, tch::Reduction::Mean, -100, 0.0);
    let first = model.forward(&images, &architecture, Learn::Weights, training).unwrap();
    let logits = first.logits.detach();
    let weights = model.weight_gradient(&first, &loss(&first.logits)).unwrap();
    let second = model.forward(&images, &architecture, Learn::Architecture, training).unwrap();
    let arch = model.architecture_gradient(&architecture, &second, &loss(&second.logits)).unwrap();
    (logits, weights, arch, model.parameters().flat_statistics.copy())
}

#[test]
fn the_grouped_form_is_the_plain_one() {
    tch::set_num_threads(1);
    for (partial, training) in [(1, true), (1, false), (2, true), (4, true), (4, false)] {
        let plain = pass(partial, Implementation::Plain, training);
        let grouped = pass(partial, Implementation::Grouped, training);
        for (what, plain, grouped) in [
            ("logits", plain.0, grouped.0),
            ("gradients of weights", plain.1, grouped.1),
            ("gradients of the architecture", plain.2, grouped.2),
            ("statistics", plain.3, grouped.3),
        ] {
            let difference = greatest_difference(&plain, &grouped);
            assert!(difference < 1e-10, "K = {partial}, training {training}, {what}: {difference}");
            assert!(plain.abs().max().double_value(&[]) > 0.0, "{what} are all zero");
        }
    }
}

#[test]
fn gradients_are_differences_of_the_loss() {
    tch::set_num_threads(1);
    let space = space(4, 5);
    let images = images(3, Kind::Double);
    let labels = Tensor::from_slice(&[1i64, 0, 7]);
    for partial in [1, 2] {
        let settings = settings(4, 1, partial, Implementation::Plain);
        let supernet = Supernet::new(&space, settings, Kind::Double, 3).unwrap();
        let architecture = Architecture::new(&space, Kind::Double, 3).unwrap();
        let loss = |architecture: &Architecture, learn: bool| {
            let logits = supernet.forward(&images, &architecture.mixture(learn), true);
            logits.cross_entropy_loss(&labels, None::<Tensor>, tch::Reduction::Mean, -100, 0.0)
        };
        let leaves: Vec<&Tensor> = architecture.leaves().iter().collect();
        let found = gradients(&loss(&architecture, true), &leaves);
        let found = Tensor::cat(&found.iter().map(|part| part.flatten(0, -1)).collect::<Vec<_>>(), 0);
        let step = 1e-5;
        for index in 0..architecture.flat.numel() as i64 {
            let at = |by: f64| {
                no_grad(|| {
                    let _ = architecture.flat.narrow(0, index, 1).g_add_scalar_(by);
                });
                let value = no_grad(|| loss(&architecture, false)).double_value(&[]);
                no_grad(|| {
                    let _ = architecture.flat.narrow(0, index, 1).g_sub_scalar_(by);
                });
                value
            };
            let expected = (at(step) - at(-step)) / (2.0 * step);
            let got = found.double_value(&[index]);
            assert!(
                (got - expected).abs() < 1e-6,
                "K = {partial}, value {index}: {got}, expected {expected}"
            );
        }
        // The last six are β, which have a part only where some channels go around the operations.
        let beta = found.narrow(0, 30, 6).abs().max().double_value(&[]);
        assert_eq!(beta > 0.0, partial > 1, "K = {partial}");
    }
}

#[test]
fn edges_that_are_alike_count_once_each() {
    tch::set_num_threads(1);
    // Identities only: the last node sums x + x + (x + x) = 4·x, shuffled in between or not.
    let space = space(4, 1);
    for partial in [1, 2, 4] {
        let mut build = ParameterBuilder::new(1, Kind::Double);
        let cell = Nas201Cell::new(&mut build, "cell", &space.blocks[0], 4, partial).unwrap();
        let genotype =
            "|skip_connect~0|+|skip_connect~0|skip_connect~1|+|skip_connect~0|skip_connect~1|skip_connect~2|";
        let scores = one_hot(&space, &space.parse(genotype).unwrap());
        let architecture = Architecture::of(&space, &scores).unwrap();
        // The same value on all channels: a shuffle changes nothing.
        let x = Tensor::arange(9, (Kind::Double, Device::Cpu)).view([1, 1, 3, 3]).expand([2, 4, 3, 3], false);
        let got = cell.forward(&x, &architecture.mixture(false), true);
        assert!(greatest_difference(&got, &(&x * 4.0)) < 1e-5, "K = {partial}");
    }
}

#[test]
fn what_cannot_be_built_says_why() {
    let error = |space: &Space, settings| {
        Model::<f32>::new(space, settings, 1, 1, None).map(drop).unwrap_err().to_string()
    };
    let plain = |width, cells, partial| settings(width, cells, partial, Implementation::Plain);
    let ours = space(16, 5);
    assert!(error(&ours, plain(6, 1, 4)).contains("width = 6, expected a multiple of partial_channels = 4"));
    assert!(error(&ours, plain(8, 0, 4)).contains("cells = 0"));
    assert!(error(&ours, plain(8, 1, 0)).contains("partial_channels = 0"));
    let fused = error(&ours, settings(8, 1, 4, Implementation::Fused));
    assert!(fused.contains("fused") && fused.contains("implementation = \"grouped\""), "{fused}");
    let mut strange = ours.clone();
    strange.blocks[0].nodes[2].edges[0].choices[4] = "max_pool_3x3".into();
    let known = "unknown operation `max_pool_3x3` in the block `cell`; known are none, skip_connect";
    assert!(error(&strange, plain(8, 1, 1)).contains(known));
    let odd = Space::nas201(Nas201Skeleton { width: 16, cells: 5, resolution: 10, classes: 10 });
    assert!(error(&odd, plain(8, 1, 1)).contains("resolution = 10"));
}
