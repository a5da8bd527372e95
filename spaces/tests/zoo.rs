//! The reference zoo: counts to the last parameter, files of one's own, errors.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use lathe_spaces::{GraphBuilder, OpSpec, Shape, ZOO, ZooError, ZooNetwork, linear_pairs};

#[test]
fn counts_equal_those_of_the_authors_code() {
    let mut wrong = Vec::new();
    for (name, text) in ZOO {
        let network = ZooNetwork::parse(text).unwrap();
        assert_eq!(network.name, *name);
        assert!(!network.reference.is_empty(), "{name} has nothing to be checked against");
        for reference in &network.reference {
            let graph = network.graph(Some(reference.size)).unwrap();
            let (parameters, macs) = (reference.counted(&graph), graph.macs() as f64 / 1e6);
            if parameters != reference.parameters
                || (macs - reference.million_macs).abs() > reference.tolerance
            {
                wrong.push(format!(
                    "{name} at {:?}: {parameters} parameters, expected {}; {macs:.3} million MACs, expected {}",
                    reference.size, reference.parameters, reference.million_macs
                ));
            }
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

/// SESR's authors: a step on a batch of 32 patches of 64×64 is 41.77 billion multiply-accumulates expanded, 1.84
/// billion where the blocks are collapsed first.
#[test]
fn a_training_step_of_sesr_costs_what_its_authors_say() {
    let network = |name: &str| ZooNetwork::named(name).unwrap().unwrap().graph(Some([64, 64])).unwrap();
    let (expanded, collapsed) = (network("sesr-m5-expanded"), network("sesr-m5"));
    assert_eq!((expanded.macs() * 32 + 500_000) / 1_000_000, 41_775);
    assert_eq!((collapsed.macs() * 32 + 500_000) / 1_000_000, 1_772);
    // Collapsing a block sends one image per input channel through it, whose k×k outputs are the taps.
    let collapse = |pair: &lathe_spaces::LinearPair| {
        let (first, second) = (&expanded.nodes()[pair.first], &expanded.nodes()[pair.second]);
        let OpSpec::Conv2d { out_channels: middle, kernel, .. } = first.op else { panic!("{first:?}") };
        let channels = expanded.source_shape(first).c;
        let mut builder = GraphBuilder::new();
        let side = 2 * kernel - 1;
        let deltas = builder.input("deltas", Shape::new(channels, channels, side, side)).unwrap();
        let unpadded = OpSpec::Conv2d {
            out_channels: middle,
            kernel,
            stride: 1,
            padding: 0,
            dilation: 1,
            groups: 1,
            bias: false,
        };
        let wide = builder.add("wide", unpadded, &[deltas]).unwrap();
        let taps = builder.add("taps", OpSpec::conv(second.shape.c, 1, 1), &[wide]).unwrap();
        assert_eq!(builder.shape(taps), Shape::new(channels, second.shape.c, kernel, kernel));
        builder.finish(&[taps]).unwrap().macs()
    };
    let pairs = linear_pairs(&expanded);
    assert_eq!(pairs.len(), 7);
    let collapsing: u64 = pairs.iter().map(collapse).sum();
    assert_eq!(collapsing, 71_123_200);
    assert_eq!((collapsed.macs() * 32 + collapsing + 500_000) / 1_000_000, 1_843);
}

#[test]
fn a_file_of_ones_own_is_read_and_its_faults_are_named() {
    let file = |layers: &str| {
        format!(
            "name = 'mine'\nabout = 'a test'\nsource = 'none'\ninput = [3, 32, 32]\nlayers = [\n{layers}\n]\n"
        )
    };
    let graph = |layers: &str| ZooNetwork::parse(&file(layers)).and_then(|network| network.graph(None));
    let stem = "{ block = 'conv k3', channels = 8, stride = 2, save = 'stem' },";
    let sound =
        graph(&format!("{stem} {{ block = 'ibn e4', repeat = 2, add = 'stem' }}, {{ block = 'pool' }},"));
    assert_eq!(sound.unwrap().output_shape().dims(), [1, 8, 1, 1]);
    let error = |layers: &str| graph(layers).unwrap_err().to_string();
    let text = error("{ block = 'ibm e4' }");
    assert!(text.contains("layer 0 of mine") && text.contains("did you mean `ibn`?"), "{text}");
    let text = error(&format!("{stem} {{ block = 'pool', add = 'start' }},"));
    assert!(text.contains("no layer in front of it saves `start`; there are input, stem"), "{text}");
    let text = error(&format!("{stem} {{ block = 'pool', add = 'stem' }},"));
    assert!(text.contains("layer 1 of mine") && text.contains("does not fit"), "{text}");
    let text = error("{ blok = 'pool' }");
    assert!(text.contains("line 6") && text.contains("unknown field `blok`"), "{text}");
    assert!(matches!(graph(""), Err(ZooError::Empty { .. })));
}
