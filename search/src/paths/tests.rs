use std::sync::atomic::AtomicBool;

use lathe_spaces::{BLOCKS, NetworkOptions, SPACES, SpaceFile, Stream, Weights, seeded_input};
use tch::{Kind, Tensor, no_grad};

use super::{axis::Owner, shared::SharedWeights, *};
use crate::{DataSettings, DataSource, Event, Extremes, GraphModule, Quantity, WholeCosts};

fn small(name: &str) -> Space {
    let text = SPACES.iter().find(|(known, _)| *known == name).unwrap().1;
    let file = SpaceFile::parse(text).unwrap();
    if name == "sesr" { file.space(Some([8, 8])) } else { file.classifier(10).space(Some([32, 32])) }.unwrap()
}

/// Two stages of three kinds of blocks.
const KINDS: &str = r#"
name = "kinds"
about = "three kinds of blocks"
source = "a test"
input = [3, 32, 32]
head = [{ block = "pool" }, { block = "linear", channels = 10 }]

[[stage]]
name = "stem"
width = [8, 16]
stride = [2]
blocks = ["conv k3 relu6"]

[[stage]]
name = "first"
width = [16, 24]
stride = [2]
depth = [2, 3]
first = ["ibn k{3,5} e{4,8}", "fused e{4,8}", "tucker"]
blocks = ["ibn k{3,5} e{4,8}", "fused e{4,8}", "tucker"]

[[stage]]
name = "second"
width = [24, 32]
stride = [2]
depth = [1, 2]
blocks = ["ibn k{3,5} e{4,8}", "fused e{4,8}", "tucker"]
"#;

fn dataset(resolution: usize) -> Arc<Dataset> {
    let settings = DataSettings {
        source: DataSource::Generated,
        resolution,
        train_images: Some(40),
        test_images: Some(20),
    };
    Arc::new(Dataset::load(&settings, 3, &|_, _| {}).unwrap())
}

#[test]
fn every_network_of_every_space_runs_on_shared_weights() {
    for (name, _) in SPACES {
        let space = small(name);
        let mut weights = SharedWeights::new(1, WeightOptimizer::Sgd);
        for index in 0..4 {
            let genotype = space.sample(&mut Stream::new(5, "test paths", index));
            let graph = space.network(&genotype, NetworkOptions::default()).unwrap();
            let taken = weights.take(&graph, Owner::Paths);
            for (leaf, spec) in taken.leaves.iter().zip(graph.parameters()) {
                let dims: Vec<i64> = spec.dims.iter().map(|&extent| extent as i64).collect();
                assert_eq!(leaf.size(), dims, "{name}: {}", spec.name);
            }
            let module = GraphModule::of_leaves(&graph, &taken.leaves).unwrap();
            let shape = graph.input_shape().unwrap();
            let batch = lathe_spaces::Shape::new(2, shape.c, shape.h, shape.w);
            let x = Tensor::from_slice(&seeded_input(batch, 1)).to_kind(Kind::Float).view([
                2,
                shape.c as i64,
                shape.h as i64,
                shape.w as i64,
            ]);
            let drop = crate::DropPath { probability: 0.0, seed: 0, step: 0 };
            let output = no_grad(|| module.forward(&x, Some(&drop))).swap_remove(0);
            assert!(output.isfinite().all().int64_value(&[]) == 1, "{name}");
        }
    }
}

#[test]
fn a_network_takes_the_same_weights_whatever_others_did_to_their_extents() {
    let space = small("tinyvit");
    let draw = |index| space.sample(&mut Stream::new(9, "test paths", index));
    let graph = |index| space.network(&draw(index), NetworkOptions::default()).unwrap();
    let mut weights = SharedWeights::new(1, WeightOptimizer::Sgd);
    let before = weights.take(&graph(0), Owner::Paths).leaves;
    (1..20).for_each(|index| drop(weights.take(&graph(index), Owner::Paths)));
    let after = weights.take(&graph(0), Owner::Paths).leaves;
    for (before, after) in before.iter().zip(&after) {
        assert!(before.equal(after));
    }
    // The whole-tensor way: a module of plain weights computes the same with what was taken.
    let names = graph(0).parameters();
    let mut plain = Weights::seeded(&graph(0), 2);
    for (leaf, spec) in after.iter().zip(&names) {
        let values: Vec<f32> = Vec::try_from(leaf.detach().flatten(0, -1)).unwrap();
        plain.0.get_mut(&spec.name).unwrap().values = values;
    }
    let shape = graph(0).input_shape().unwrap();
    let x =
        Tensor::ones([2, shape.c as i64, shape.h as i64, shape.w as i64], (Kind::Float, tch::Device::Cpu));
    let drop = crate::DropPath { probability: 0.0, seed: 0, step: 0 };
    let whole = GraphModule::new(&graph(0), &plain, Kind::Float).unwrap().forward(&x, Some(&drop));
    let taken = GraphModule::of_leaves(&graph(0), &after).unwrap().forward(&x, Some(&drop));
    assert!(whole[0].allclose(&taken[0], 1e-5, 1e-6, false));
}

#[test]
fn kinds_of_blocks_are_all_in_some_space() {
    // What no space offers can't be searched: single layers aside, which stand in heads and entries.
    let texts: String = SPACES.iter().map(|(_, text)| *text).collect();
    for kind in BLOCKS {
        let alone = [
            "act",
            "norm",
            "hg_stem",
            "stem16",
            "tinyvit_stem",
            "depth_to_space",
            "linear",
            "pool",
            "dwconv",
            // Those of the spaces of cells, and of FBNet's.
            "sep_conv",
            "dil_conv",
            "nor_conv",
            "skip",
            "fbnet",
        ];
        assert!(texts.contains(&format!("\"{}", kind.name)) || alone.contains(&kind.name), "{}", kind.name);
    }
}

fn task<'a>(
    space: &'a Space,
    dataset: &Arc<Dataset>,
    checkpoint: &'a Path,
    stop: &'a AtomicBool,
) -> PathTask<'a> {
    let settings = SearchSettings {
        epochs: 3,
        warmup_epochs: 1,
        batch: 8,
        learning_rate: 0.02,
        learning_rate_min: 0.0,
        momentum: 0.9,
        weight_decay: 1e-4,
        gradient_clip: 5.0,
        arch_learning_rate: 0.05,
        arch_weight_decay: 0.0,
        second_order: false,
        cutout: None,
        hessian_every_epochs: None,
        stop_at_skips: None,
        stop_eigenvalue_ratio: None,
    };
    PathTask {
        space,
        dataset: Arc::clone(dataset),
        teacher: None,
        settings,
        // One batch per reward in place of four: what is tested is the same.
        paths: PathSettings { policy_batches: 1, ..PathSettings::default() },
        limits: &[],
        seed: 4,
        threads: 1,
        checkpoint,
        stop,
    }
}

#[test]
fn an_interrupted_search_ends_as_one_that_was_not() {
    let space = small("mobiledets");
    let dataset = dataset(32);
    let (whole, halved) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let stop = AtomicBool::new(false);
    let mut lines = Vec::new();
    let task_whole = task(&space, &dataset, whole.path(), &stop);
    let end = search_paths(&task_whole, &mut |progress| {
        if let Progress::Event(Event::Epoch { genotype, train_loss, .. }) = progress {
            lines.push((genotype, train_loss));
        }
        Ok(())
    });
    let end = end.unwrap();
    assert_eq!(lines.len(), 3);
    assert!(lines.iter().all(|(_, loss)| loss.is_finite()));

    let task_halved = task(&space, &dataset, halved.path(), &stop);
    let mut seen = 0;
    let first = search_paths(&task_halved, &mut |progress| {
        if let Progress::Step { done, .. } = progress {
            seen = done;
            // In the middle of the second epoch, where the policy moves.
            stop.store(done >= 4, std::sync::atomic::Ordering::Relaxed);
        }
        Ok(())
    });
    assert_eq!(first.unwrap(), PathEnd::Interrupted);
    assert!(seen < 9, "{seen}");
    stop.store(false, std::sync::atomic::Ordering::Relaxed);
    assert_eq!(search_paths(&task_halved, &mut |_| Ok(())).unwrap(), end);

    let mut scorer = PathScorer::new(&task_whole, 16).unwrap();
    let mut other = PathScorer::new(&task_halved, 16).unwrap();
    let genotype = scorer.likeliest();
    assert_eq!(scorer.score(&genotype).unwrap(), other.score(&genotype).unwrap());

    // Another schedule is another search.
    let mut changed = task(&space, &dataset, halved.path(), &stop);
    changed.paths.weight = 0.2;
    let error = search_paths(&changed, &mut |_| Ok(())).unwrap_err().to_string();
    assert!(error.contains("begun with another search schedule"), "{error}");
}

#[test]
fn the_policy_rests_in_the_warm_up_and_then_goes_to_its_limit_from_both_sides() {
    let space = small("sesr");
    let dataset = dataset(16);
    let stop = AtomicBool::new(false);
    let ends = Extremes::of(&space, &WholeCosts::Macs, 1).unwrap();
    let [least, most] = ends.range;
    for share in [0.02, 0.9] {
        let at_most = least + share * (most - least);
        let limits = [Limit::whole("macs", Quantity::Macs, WholeCosts::Macs, ends.clone(), at_most)];
        let folder = tempfile::tempdir().unwrap();
        let mut task = task(&space, &dataset, folder.path(), &stop);
        (task.settings.epochs, task.settings.warmup_epochs) = (14, 2);
        (task.limits, task.paths.weight, task.paths.policy_batches) = (&limits, 100.0, 2);
        let mut epochs = Vec::new();
        search_paths(&task, &mut |progress| {
            if let Progress::Event(Event::Epoch { limits, arch, valid_loss, .. }) = progress {
                epochs.push(((limits[0].expected / at_most - 1.0).abs(), arch, valid_loss.is_some()));
            }
            Ok(())
        })
        .unwrap();
        assert_eq!(epochs.iter().map(|epoch| epoch.2).filter(|moves| *moves).count(), 12);
        assert_eq!(epochs[0].1, epochs[1].1);
        assert_ne!(epochs[1].1, epochs[2].1);
        // Means of what was drawn in an epoch: three networks each.
        let mean = |range: std::ops::Range<usize>| {
            epochs[range.clone()].iter().map(|epoch| epoch.0).sum::<f64>() / range.len() as f64
        };
        assert!(mean(11..14) < 0.6 * mean(2..5), "{share}: {} and {}", mean(2..5), mean(11..14));
    }
}

#[test]
fn warm_up_networks_are_as_wide_as_the_space_and_otherwise_as_drawn() {
    let space = small("mobiledets");
    let drawn = space.sample(&mut Stream::new(4, "test paths", 0));
    let wide = run::widest(&space, &drawn);
    assert!(space.validate(&wide).is_ok());
    for (block, spec) in space.blocks.iter().enumerate() {
        let widths = spec.nodes[0].edges[0].choices.iter();
        let greatest = widths.filter_map(|choice| choice.strip_prefix('w')?.parse::<usize>().ok()).max();
        let found = &wide.blocks[block].nodes[0][0].choice;
        assert_eq!(found.strip_prefix('w').and_then(|width| width.parse().ok()), greatest);
        assert_eq!(wide.blocks[block].nodes[1..], drawn.blocks[block].nodes[1..]);
    }
}

#[test]
fn a_mixture_of_one_block_alone_is_the_path_of_that_block() {
    for (name, _) in SPACES {
        let space = small(name);
        let mut weights = SharedWeights::new(1, WeightOptimizer::Sgd);
        let mut mixed = 0;
        for index in 0..2 {
            let genotype = space.sample(&mut Stream::new(11, "test mixtures", index));
            let (graph, mixtures) = space.relaxed_network(&genotype, 1, run::TRAINED).unwrap();
            let path = space.network(&genotype, run::TRAINED).unwrap();
            let alone = mixtures.iter().map(|mixture| {
                let [block, node] = mixture.place;
                let own = &genotype.blocks[block].nodes[node][0].choice;
                let choices = &space.blocks[block].nodes[node].edges[0].choices;
                let shares: Vec<f32> = mixture
                    .choices
                    .iter()
                    .map(|&choice| f32::from(u8::from(choices[choice] == *own)))
                    .collect();
                assert!(shares.len() > 1 && shares.contains(&1.0), "{name}");
                (mixture.node, Tensor::from_slice(&shares))
            });
            let alone = alone.collect();
            mixed += mixtures.len();
            let shape = graph.input_shape().unwrap();
            let x = Tensor::randn([2, shape.c as i64, shape.h as i64, shape.w as i64], tch::kind::FLOAT_CPU);
            let [relaxed, plain] = [&graph, &path].map(|graph| {
                let leaves = weights.take(graph, Owner::Paths).leaves;
                GraphModule::of_leaves(graph, &leaves).unwrap()
            });
            let drop = crate::DropPath { probability: 0.0, seed: 0, step: 0 };
            let relaxed = no_grad(|| relaxed.mixed(&x, &alone)).swap_remove(0);
            let plain = no_grad(|| plain.forward(&x, Some(&drop))).swap_remove(0);
            assert!(relaxed.allclose(&plain, 1e-4, 1e-5, false), "{name}");
        }
        assert!(mixed > 0, "{name}");
    }
}

#[test]
fn parts_of_the_channels_are_mixed_where_blocks_allow_it() {
    for (name, _) in SPACES {
        let space = small(name);
        let genotype = space.sample(&mut Stream::new(12, "test mixtures", 0));
        let (whole, _) = space.relaxed_network(&genotype, 1, run::TRAINED).unwrap();
        let (part, mixtures) = space.relaxed_network(&genotype, 4, run::TRAINED).unwrap();
        assert_eq!(part.output_shape(), whole.output_shape(), "{name}");
        let shuffled = part.nodes().iter().filter(|node| node.name.ends_with(".shuffle")).count();
        assert!(shuffled == 0 || part.macs() < whole.macs(), "{name}");
        let mut weights = SharedWeights::new(1, WeightOptimizer::Sgd);
        let leaves = weights.take(&part, Owner::Relaxed).leaves;
        assert!(weights.tensors.keys().all(|name| name.starts_with("relaxed ")));
        // Without sharing every tensor is as large as the network's own.
        assert_eq!(weights.tensors.len(), leaves.len(), "{name}");
        let shares = mixtures.iter().map(|mixture| {
            let count = mixture.choices.len() as i64;
            (mixture.node, Tensor::ones([count], tch::kind::FLOAT_CPU) / count as f64)
        });
        let shares = shares.collect();
        let shape = part.input_shape().unwrap();
        let x = Tensor::randn([2, shape.c as i64, shape.h as i64, shape.w as i64], tch::kind::FLOAT_CPU);
        let module = GraphModule::of_leaves(&part, &leaves).unwrap();
        let output = no_grad(|| module.mixed(&x, &shares)).swap_remove(0);
        assert_eq!(output.isfinite().all().int64_value(&[]), 1, "{name}");
    }
    let sesr = small("sesr");
    let genotype = sesr.sample(&mut Stream::new(12, "test mixtures", 0));
    assert!(sesr.relaxed_network(&genotype, 0, run::TRAINED).is_err());
    let (part, _) = sesr.relaxed_network(&genotype, 4, run::TRAINED).unwrap();
    assert!(part.nodes().iter().any(|node| node.name.ends_with(".shuffle")));
}

#[test]
fn a_relaxed_search_moves_blocks_by_the_loss_and_is_resumed() {
    let space = SpaceFile::parse(KINDS).unwrap().space(Some([32, 32])).unwrap();
    let dataset = dataset(32);
    let (whole, halved) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let stop = AtomicBool::new(false);
    for parts in [1, 4] {
        let task = |folder| {
            let mut task = task(&space, &dataset, folder, &stop);
            task.paths.relaxed = Some(parts);
            if parts == 4 {
                task.paths.optimizer = WeightOptimizer::RmsProp;
            }
            task
        };
        let (whole, halved) = (whole.path().join(parts.to_string()), halved.path().join(parts.to_string()));
        let (whole, halved) = (task(&whole), task(&halved));
        let PathEnd::Finished(scores) = search_paths(&whole, &mut |_| Ok(())).unwrap() else {
            unreachable!("nobody stops it")
        };
        let moved = scores.alpha.iter().flatten().filter(|logit| logit.abs() > 0.0).count();
        assert!(moved > 10, "{moved}");
        let first = search_paths(&halved, &mut |progress| {
            if let Progress::Step { done, .. } = progress {
                stop.store(done >= 4, std::sync::atomic::Ordering::Relaxed);
            }
            Ok(())
        });
        assert_eq!(first.unwrap(), PathEnd::Interrupted);
        stop.store(false, std::sync::atomic::Ordering::Relaxed);
        assert_eq!(search_paths(&halved, &mut |_| Ok(())).unwrap(), PathEnd::Finished(scores));
        let mut scorer = PathScorer::new(&whole, 16).unwrap();
        let likeliest = scorer.likeliest();
        assert!(scorer.score(&likeliest).unwrap().loss.is_finite());
    }
}

#[test]
fn super_resolution_learns_by_paths_too() {
    let space = small("sesr");
    let dataset = dataset(16);
    let folder = tempfile::tempdir().unwrap();
    let stop = AtomicBool::new(false);
    let mut qualities = Vec::new();
    let mut task = task(&space, &dataset, folder.path(), &stop);
    task.settings.epochs = 6;
    search_paths(&task, &mut |progress| {
        if let Progress::Event(Event::Epoch { train_accuracy, .. }) = progress {
            qualities.push(train_accuracy);
        }
        Ok(())
    })
    .unwrap();
    // Decibels: far above one, and rising.
    assert!(qualities[5] > qualities[0] && qualities[5] > 5.0, "{qualities:?}");
}
