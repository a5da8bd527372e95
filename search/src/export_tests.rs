#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

use lathe_spaces::{DartsSkeleton, NetworkOptions, Stem, Stream, seeded_input};
use safetensors::SafeTensors;

use super::*;
use crate::logits;

fn network() -> (Space, Genotype, Graph, Weights) {
    tch::set_num_threads(1);
    let skeleton = DartsSkeleton { stem: Stem::Cifar, width: 4, layers: 3, resolution: 32, classes: 10 };
    let space = Space::darts(skeleton);
    let genotype = space.sample(&mut Stream::new(2, "test", 0));
    let graph =
        space.network(&genotype, NetworkOptions { auxiliary: true, ..NetworkOptions::default() }).unwrap();
    let weights = Weights::seeded(&graph, 4);
    (space, genotype, graph, weights)
}

#[test]
fn the_four_files_hold_the_deployed_network() {
    let folder = tempfile::tempdir().unwrap();
    let directory = folder.path().join("not/yet/there");
    let (space, genotype, graph, weights) = network();
    let files = export(&graph, &weights, &space, &genotype, &directory, "searched").unwrap();
    let names: Vec<_> = files.iter().map(|file| file.file_name().unwrap().to_str().unwrap()).collect();
    assert_eq!(names, ["searched.onnx", "searched.pt", "searched.safetensors", "searched.genotype.json"]);
    assert_eq!(fs::read_dir(&directory).unwrap().count(), 4, "nothing temporary stays");

    let deployed = graph.without_auxiliary();
    assert_eq!(fs::read(&files[0]).unwrap(), encode_onnx(&deployed, &weights).unwrap());

    // Another batch size than that of the trace, in a module that knows nothing but the file.
    let values = seeded_input(Shape::new(5, 3, 32, 32), 6);
    let images = Tensor::from_slice(&values).view([5, 3, 32, 32]);
    let expected = logits(&graph, &weights, &images).unwrap();
    let script = CModule::load(&files[1]).unwrap();
    let got = no_grad(|| script.forward_ts(&[&images])).unwrap();
    assert_eq!(got.size(), [5, 10]);
    let difference = (got - &expected).abs().max().double_value(&[]);
    assert!(difference <= 1e-6 * expected.abs().max().double_value(&[]).max(1.0), "{difference}");

    let bytes = fs::read(&files[2]).unwrap();
    let stored = SafeTensors::deserialize(&bytes).unwrap();
    let specs: Vec<_> = deployed.parameters().into_iter().chain(deployed.statistics()).collect();
    assert_eq!(stored.len(), specs.len());
    for spec in specs {
        let view = stored.tensor(&spec.name).unwrap();
        assert_eq!(view.shape(), spec.dims);
        let expected: Vec<u8> = weights.0[&spec.name].values.iter().flat_map(|v| v.to_le_bytes()).collect();
        assert_eq!(view.data(), expected, "{}", spec.name);
    }

    let text = fs::read_to_string(&files[3]).unwrap();
    let json: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(space.parse(json["genotype"].as_str().unwrap()).unwrap(), genotype);
    assert_eq!(serde_json::from_value::<Genotype>(json["blocks"].clone()).unwrap(), genotype);
    assert_eq!(json["parameters"], deployed.parameter_count());
    assert_eq!(json["macs"], deployed.macs());
}

#[test]
fn exporting_again_replaces_the_files() {
    let folder = tempfile::tempdir().unwrap();
    let (space, genotype, graph, weights) = network();
    let first = export(&graph, &Weights::seeded(&graph, 1), &space, &genotype, folder.path(), "a").unwrap();
    let before = fs::read(&first[2]).unwrap();
    // What a killed export leaves behind does no harm.
    fs::write(folder.path().join("a.onnx.partial"), b"half").unwrap();
    let second = export(&graph, &weights, &space, &genotype, folder.path(), "a").unwrap();
    assert_eq!(first, second);
    assert_ne!(fs::read(&second[2]).unwrap(), before);
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 4);
}

#[test]
fn bad_names_and_places_are_errors() {
    let folder = tempfile::tempdir().unwrap();
    let (space, genotype, graph, weights) = network();
    let error = export(&graph, &weights, &space, &genotype, folder.path(), "a/b").unwrap_err();
    assert!(matches!(error, ExportError::Name(_)), "{error}");
    let file = folder.path().join("taken");
    fs::write(&file, b"x").unwrap();
    let error = export(&graph, &weights, &space, &genotype, &file, "a").unwrap_err();
    assert!(matches!(error, ExportError::Io { .. }) && error.to_string().contains("taken"), "{error}");
    let error = export(&graph, &Weights::default(), &space, &genotype, folder.path(), "a").unwrap_err();
    assert!(matches!(error, ExportError::Fold { .. }), "{error}");
    assert!(error.to_string().contains("stem.conv.weight"), "{error}");
}
