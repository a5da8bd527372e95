//! Spaces of files: published networks inside, faults named.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

use std::collections::BTreeMap;

use lathe_spaces::{NetworkOptions, SPACES, Space, SpaceFile, ZooNetwork};

/// Networks that lie inside each space: none may get lost.
const PUBLISHED: &[(&str, &[&str])] = &[
    ("casvit", &["cas-vit-xs", "cas-vit-s", "cas-vit-m", "cas-vit-t"]),
    ("hgnetv2", &["hgnetv2-b0", "hgnetv2-b1", "hgnetv2-b2", "hgnetv2-b4"]),
    ("lowformer", &["lowformer-b0", "lowformer-b1", "lowformer-b1.5", "lowformer-b3"]),
    ("mobile-mix", &[]),
    ("mobiledets", &["mobiledet-cpu", "mobiledet-dsp", "mobiledet-edgetpu"]),
    ("sesr", &["sesr-m3", "sesr-m5", "sesr-m7", "sesr-m11", "sesr-xl"]),
    ("shvit", &["shvit-s1", "shvit-s2", "shvit-s3", "shvit-s4"]),
    ("tinyvit", &[]),
];

#[test]
fn every_space_has_its_published_networks() {
    let got: BTreeMap<&str, Vec<String>> = SPACES
        .iter()
        .map(|(name, text)| {
            let file = SpaceFile::parse(text).unwrap();
            (*name, file.published.into_iter().map(|published| published.name).collect())
        })
        .collect();
    let expected = PUBLISHED
        .iter()
        .map(|(name, networks)| (*name, networks.iter().map(|network| (*network).to_owned()).collect()));
    assert_eq!(got, expected.collect::<BTreeMap<&str, Vec<String>>>());
}

#[test]
fn shvit_s4_lies_inside_at_its_own_resolution() {
    let (_, text) = SPACES.iter().find(|(name, _)| *name == "shvit").unwrap();
    let space = SpaceFile::parse(text).unwrap().space(Some([256, 256])).unwrap();
    let (_, genotype) = space.published().into_iter().find(|(name, _)| *name == "shvit-s4").unwrap();
    let graph = space.network(&genotype, NetworkOptions::default()).unwrap();
    let zoo = ZooNetwork::named("shvit-s4").unwrap().unwrap();
    let expected = zoo.graph(Some([256, 256])).unwrap();
    let operators = |graph: &lathe_spaces::Graph| -> Vec<_> {
        graph.nodes().iter().map(|node| (node.op, node.inputs.clone(), node.shape)).collect()
    };
    assert_eq!(operators(&graph), operators(&expected));
    assert_eq!(graph.parameter_count(), 16_588_484);
    assert!((graph.macs() as f64 / 1e6 - 986.22).abs() < 0.01, "{}", graph.macs());
}

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

/// A sound file, of a stage of windows behind a stem.
const SOUND: &str = "
name = 'mine'
about = 'a test'
source = 'none'
input = [3, 24, 24]

[[stage]]
name = 'stem'
width = [8, 16]
stride = [2]
blocks = ['conv k{3,5}']
save = 'stem'

[[stage]]
name = 'body'
width = [16, 32]
depth = [1, 2]
first = ['ibn k3 e{2,4}']
blocks = ['tinyvit h2 w{2,3}', 'shvit p<1/4>']
";

/// What a replacement in the sound file is answered with.
fn fault(from: &str, to: &str) -> String {
    assert!(SOUND.contains(from), "{from}");
    Space::from_toml(&SOUND.replacen(from, to, 1)).unwrap_err().to_string()
}

#[test]
fn a_file_of_ones_own_is_read() {
    let space = Space::from_toml(SOUND).unwrap();
    // Widths, kernels; widths, depths, expansions, blocks behind the first.
    assert!((space.size() - f64::from(2 * 2 * 2 * 2 * 2 * 3)).abs() < 1e-9, "{}", space.size());
    let genotype = space.parse("stem[w8: conv k5] body[w32 d2: ibn e2 | tinyvit w3 h2]").unwrap();
    assert_eq!(space.format(&genotype), "stem[w8: conv k5] body[w32 d2: ibn e2 | tinyvit h2 w3]");
    let shallow = space.parse("stem[w8: conv] body[d1 w32: ibn e2]").unwrap();
    assert_eq!(space.format(&shallow), "stem[w8: conv] body[w32 d1: ibn e2 | (tinyvit h2 w2)]");
    let all: Vec<_> = space.enumerate().unwrap().collect();
    assert_eq!(all.len(), 96);
    for genotype in &all {
        space.network(genotype, NetworkOptions::default()).unwrap();
        assert_eq!(space.parse(&space.format(genotype)).unwrap(), *genotype);
    }
}

#[test]
fn faults_of_a_file_say_where_what_and_what_to_do() {
    for (from, to, said) in [
        (
            "ibn k3",
            "ibm k3",
            ["space `mine`, stage `body`, first[0]", "did you mean `ibn`?", "lathe zoo blocks"],
        ),
        (
            "width = [16, 32]",
            "width = [15, 32]",
            ["stage `body`, blocks[0]", "15 channels can't be divided among 2", "or the widths"],
        ),
        (
            "w{2,3}",
            "w{2,5}",
            [
                "stage `body`, blocks[0]",
                "windows of 5x5 do not divide the map of 12x12",
                "use 2, 3, 4, 6, 12",
            ],
        ),
        (
            "width = [8, 16]",
            "width = []",
            ["stage `stem`, width", "nothing to choose from", "at least one width"],
        ),
        ("depth = [1, 2]", "depth = [0, 2]", ["stage `body`, depth", "the depth 0", "at least 1"]),
        ("stride = [2]", "stride = [2, 2]", ["stage `stem`, stride", "`2` is there twice", "leave one out"]),
        ("name = 'body'", "name = 'stem'", ["stage", "`stem` is there twice", "leave one out"]),
        (
            "'shvit p<1/4>'",
            "'tinyvit w3 h2'",
            ["stage `body`, blocks[1]", "`tinyvit h2 w3` is there twice", "leave one out"],
        ),
        ("p<1/4>", "p<1/0>", ["stage `body`, blocks[1]", "`p<1/0>` is no parameter", "change the block"]),
        ("k{3,5}", "k{3,5", ["stage `stem`, blocks[0]", "no partner", "`k{3,5}`"]),
        (
            "first = ['ibn k3 e{2,4}']",
            "first = []",
            ["stage `body`, first", "nothing to choose from", "at least one block"],
        ),
        (
            "blocks = ['tinyvit h2 w{2,3}', 'shvit p<1/4>']",
            "",
            ["stage `body`, blocks", "the depth 2 needs more", "give `blocks`"],
        ),
        (
            "blocks = ['tinyvit h2 w{2,3}'",
            "add = 'start'\nblocks = ['tinyvit h2 w{2,3}'",
            [
                "stage `body`, add",
                "nothing in front saves `start`; there are input, stem",
                "save what it means",
            ],
        ),
        (
            "blocks = ['tinyvit h2 w{2,3}'",
            "add = 'stem'\nblocks = ['tinyvit h2 w{2,3}'",
            ["stage `body`, add", "body", "as many channels or one"],
        ),
        ("input = [3, 24, 24]", "input = [3, 0, 24]", ["input", "0 channels, rows or columns", "at least 1"]),
        ("name = 'stem'", "name = 'a stem'", ["name", "`a stem` can't be a name", "letters, digits"]),
        (
            "[[stage]]",
            "[[published]]\nname = 'x'\ngenotype = 'stem[w9: conv]'\n[[stage]]",
            ["published `x`", "stem", "choices of this file"],
        ),
        ("[[stage]]", "[[stage]]\ndepht = [1]", ["line 8", "unknown field `depht`", "expected one of"]),
    ] {
        let error = fault(from, to);
        for words in said {
            let words = if words == "body" { "build the network" } else { words };
            assert!(error.contains(words), "{from} -> {to}: no `{words}` in: {error}");
        }
    }
}

#[test]
fn faults_of_a_genotype_are_named() {
    let space = Space::from_toml(SOUND).unwrap();
    for (text, said) in [
        ("stem[w9: conv] body[w32 d1: ibn e2]", "use `w9` at the width of stage `stem`"),
        ("stem[: conv] body[w32 d1: ibn e2]", "expected a width (`w32`) for stage `stem` in front"),
        ("stem[w8: conv]", "expected [\"stem\", \"body\"], got [\"stem\"]"),
        ("stem[w8: conv] body[w32 d2: ibn e2]", "nodes of block `body`: expected 2, got 1"),
        ("stem[w8: conv] body[w32 d1: ibn e2 | shvit p<1/4>]", "expected 1, got 2"),
        ("stem[w8: conv] body[w32 d1: (ibn e2) | shvit]", "blocks in brackets behind all others"),
        (
            "stem[w8: conv] body[w32 d1: ibn e3]",
            "use `ibn e3` at position 0 of stage `body`: did you mean `ibn e4`?",
        ),
        ("stem[w8 w16: conv]", "not `w16` as well"),
        ("stem(w8: conv)", "expected `[`"),
        ("stem[w8: conv] body[w32 d1: ibn e2] tail[]", "got [\"stem\", \"body\", \"tail\"]"),
    ] {
        let error = space.parse(text).unwrap_err().to_string();
        assert!(error.contains(said), "{text}: {error}");
    }
}

#[test]
fn spaces_are_found_by_name() {
    for (name, _) in SPACES {
        assert_eq!(Space::named(name).unwrap().unwrap().name, *name);
    }
    assert!(Space::named("mobilenets").is_none());
}

#[test]
fn the_page_about_spaces_says_what_is_so() {
    let page = include_str!("../../docs/SPACES.md");
    let fenced = |fence: &str| -> Vec<&str> {
        page.split(fence).skip(1).map(|rest| rest.split("\n```").next().unwrap()).collect()
    };
    let tables = fenced("```toml\n");
    let space = Space::from_toml(tables[0]).unwrap();
    let texts = fenced("\n```\n");
    let genotype = texts.iter().find(|text| text.starts_with("stem[")).unwrap();
    assert_eq!(space.format(&space.parse(genotype).unwrap()), *genotype);
    let with_network = format!("{}\n\n{}", tables[0], tables[1]);
    assert_eq!(Space::from_toml(&with_network).unwrap().published().len(), 1);
    let spoilt = tables[0].replace("w{divisors}", "w5");
    let error = Space::from_toml(&spoilt).unwrap_err().to_string();
    assert!(texts.iter().any(|text| *text == format!("failed to {error}")), "{error}");
    assert!(SPACES.iter().all(|(name, _)| page.contains(&format!("| `{name}` |"))));
}
