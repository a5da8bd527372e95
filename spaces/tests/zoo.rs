//! The reference zoo: counts to the last parameter, files of one's own, errors.
#![allow(clippy::unwrap_used, reason = "tests")]

use lathe_spaces::{ZOO, ZooError, ZooNetwork};

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
