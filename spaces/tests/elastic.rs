//! Spaces of files: published networks inside, faults named.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

use lathe_spaces::{NetworkOptions, SPACES, SpaceFile, ZooNetwork};

#[test]
fn published_networks_lie_inside_with_every_operator() {
    for (name, text) in SPACES {
        let file = SpaceFile::parse(text).unwrap();
        assert_eq!(file.name, *name);
        let space = file.space(None).unwrap();
        assert_eq!(space.published().len(), file.published.len());
        for (known, genotype) in space.published() {
            let zoo = ZooNetwork::named(known).unwrap().unwrap();
            let size = [file.input[1], file.input[2]];
            let expected = zoo.graph(Some(size)).unwrap();
            let graph = space.network(&genotype, NetworkOptions::default()).unwrap();
            assert_eq!(graph.parameter_count(), expected.parameter_count(), "{known}");
            assert_eq!(graph.macs(), expected.macs(), "{known}");
            let operators = |graph: &lathe_spaces::Graph| -> Vec<_> {
                graph.nodes().iter().map(|node| (node.op, node.inputs.clone(), node.shape)).collect()
            };
            assert_eq!(operators(&graph), operators(&expected), "{known}");
            for reference in zoo.reference.iter().filter(|reference| reference.size == size) {
                assert_eq!(reference.counted(&graph), reference.parameters, "{known}");
                let macs = graph.macs() as f64 / 1e6;
                assert!((macs - reference.million_macs).abs() <= reference.tolerance, "{known}: {macs}");
            }
        }
    }
}
