use std::collections::BTreeSet;

use super::*;
use crate::{Graph, GraphBuilder, Shape, Weights, encode_onnx, evaluate, seeded_input};

fn graph(example: &Example) -> Graph {
    let [channels, rows, columns] = example.input;
    let block: Block = example.text.parse().unwrap();
    let mut builder = GraphBuilder::new();
    let x = builder.input("x", Shape::new(2, channels, rows, columns)).unwrap();
    let y = block.build(&mut builder, "block", x, example.channels, example.stride).unwrap();
    builder.finish(&[y]).unwrap()
}

#[test]
fn kinds_are_listed_once_and_their_parameters_can_be_told_apart() {
    let names: BTreeSet<_> = BLOCKS.iter().map(|kind| kind.name).collect();
    assert_eq!(names.len(), BLOCKS.len());
    for kind in BLOCKS {
        assert!(!kind.examples.is_empty() && kind.parameters.len() <= Block::MOST, "{}", kind.name);
        let mut words = BTreeSet::new();
        for parameter in kind.parameters {
            let all: Vec<String> = match parameter.values {
                Values::Number { default, .. } => vec![format!("{}{default}", parameter.key)],
                Values::Word(list) => list.iter().map(|word| (*word).to_owned()).collect(),
                Values::Flag => vec![parameter.key.to_owned()],
            };
            for word in all {
                assert!(words.insert(word.clone()), "{}: {word}", kind.name);
                // Read as this parameter, and nothing else.
                format!("{} {word}", kind.name).parse::<Block>().unwrap();
            }
        }
    }
}

#[test]
fn text_is_read_back_in_its_shortest_form() {
    for (text, shortest) in [
        ("ibn k5 e4 se", "ibn k5 e4 se"),
        (" ibn  se e8 k3 relu6", "ibn se"),
        ("fused k3 e8", "fused e8"),
        ("tucker k3 i25 o75", "tucker"),
        ("mbconv e4 k5 hard_swish", "mbconv k5 e4 hard_swish"),
        ("shvit p48 qk16", "shvit p48"),
    ] {
        let block: Block = text.parse().unwrap();
        assert_eq!(block.to_string(), shortest);
        assert_eq!(shortest.parse::<Block>().unwrap(), block);
    }
    for kind in BLOCKS {
        for example in kind.examples {
            let block: Block = example.text.parse().unwrap();
            assert_eq!(block.to_string().parse::<Block>().unwrap(), block, "{}", example.text);
        }
    }
}

#[test]
fn faults_are_named() {
    let error = |text: &str| text.parse::<Block>().unwrap_err().to_string();
    assert!(error("mbconf k3").contains("did you mean `mbconv`?"), "{}", error("mbconf k3"));
    assert!(error("transformer").contains("there are conv, dwconv"));
    assert!(error("ibn k3 k5").contains("`k5` says again"));
    assert!(error("ibn relu6 relu").contains("`relu` says again"));
    assert!(error("ibn k0").contains("at least 1"));
    let text = error("tucker gelu");
    assert!(text.contains("`gelu` is no parameter of tucker, which takes k3, i25, o75"), "{text}");
    let mut builder = GraphBuilder::new();
    let x = builder.input("x", Shape::new(1, 8, 6, 6)).unwrap();
    let block: Block = "shvit p8".parse().unwrap();
    let error = block.build(&mut builder, "b", x, 8, 1).unwrap_err().to_string();
    assert!(error.contains("build block `shvit p8` on 1x8x6x6 to 8 channels with stride 1"), "{error}");
    let error = block.build(&mut builder, "b", x, 16, 2).unwrap_err().to_string();
    assert!(error.contains("keeps channels and size"), "{error}");
}

#[test]
fn every_example_is_built_counted_written_and_computed() {
    for example in BLOCKS.iter().flat_map(|kind| kind.examples) {
        let graph = graph(example);
        let shape = graph.output_shape();
        assert_eq!(shape.c, example.channels, "{}", example.text);
        let weights = Weights::seeded(&graph, 0);
        encode_onnx(&graph, &weights).unwrap();
        let output = evaluate(&graph, &weights, &seeded_input(graph.input_shape().unwrap(), 1)).unwrap();
        assert_eq!(output.len(), shape.elements());
        let square = output.iter().map(|value| f64::from(*value).powi(2)).sum::<f64>() / output.len() as f64;
        assert!(square.is_finite() && square > 1e-4, "{}: {square}", example.text);
    }
}
