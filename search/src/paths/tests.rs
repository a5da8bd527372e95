use std::sync::atomic::AtomicBool;

use lathe_spaces::{BLOCKS, NetworkOptions, SPACES, SpaceFile, Stream, Weights, seeded_input};
use tch::{Kind, Tensor, no_grad};

use super::{shared::SharedWeights, *};
use crate::{DataSettings, DataSource, Event, GraphModule};

fn small(name: &str) -> Space {
    let text = SPACES.iter().find(|(known, _)| *known == name).unwrap().1;
    let file = SpaceFile::parse(text).unwrap();
    if name == "sesr" { file.space(Some([8, 8])) } else { file.classifier(10).space(Some([32, 32])) }.unwrap()
}

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
        let mut weights = SharedWeights::new(1);
        for index in 0..4 {
            let genotype = space.sample(&mut Stream::new(5, "test paths", index));
            let graph = space.network(&genotype, NetworkOptions::default()).unwrap();
            let taken = weights.take(&graph);
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
    let mut weights = SharedWeights::new(1);
    let before = weights.take(&graph(0)).leaves;
    (1..20).for_each(|index| drop(weights.take(&graph(index))));
    let after = weights.take(&graph(0)).leaves;
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
        paths: PathSettings::default(),
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
