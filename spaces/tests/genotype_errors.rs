//! What a wrong genotype is answered with.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

use lathe_spaces::{DartsSkeleton, GenotypeError, Nas201Skeleton, Space, Stem, Stream};

fn darts() -> Space {
    Space::darts(DartsSkeleton { stem: Stem::Cifar, width: 8, layers: 3, resolution: 8, classes: 10 })
}

fn nas201() -> Space {
    Space::nas201(Nas201Skeleton { width: 4, cells: 1, resolution: 8, classes: 10 })
}

/// The error for the published text after a replacement.
fn spoilt(from: &str, to: &str) -> GenotypeError {
    let space = darts();
    let text = space.format(&space.published()[0].1);
    assert!(text.contains(from), "{text}");
    space.parse(&text.replacen(from, to, 1)).unwrap_err()
}

#[test]
fn a_misspelt_operation_gets_a_suggestion() {
    let error = spoilt("sep_conv_5x5", "sep_conv5x5").to_string();
    assert!(error.contains("did you mean `sep_conv_5x5`?"), "{error}");
    assert!(error.contains("of block `normal`"), "{error}");
    let error = spoilt("sep_conv_5x5", "xyz").to_string();
    assert!(error.contains("expected one of max_pool_3x3, avg_pool_3x3, skip_connect"), "{error}");
}

#[test]
fn none_is_never_deployed() {
    let error = spoilt("'skip_connect'", "'none'").to_string();
    assert!(error.contains("relaxation only"), "{error}");
}

#[test]
fn an_edge_kept_twice_is_refused() {
    let error = spoilt("('skip_connect', 0)", "('skip_connect', 1)");
    assert!(matches!(error, GenotypeError::Duplicate { from: 1, .. }), "{error}");
}

#[test]
fn an_edge_from_nowhere_is_refused() {
    let error = spoilt("('skip_connect', 0)", "('skip_connect', 2)");
    assert!(matches!(error, GenotypeError::From { from: 2, .. }), "{error}");
}

#[test]
fn missing_edges_are_counted() {
    let error = spoilt("('skip_connect', 0), ", "");
    assert_eq!(error, GenotypeError::Edges { block: "normal".into(), expected: 8, got: 7 });
    let error = nas201().parse("|none~0|+|none~0|+|none~0|none~1|none~2|").unwrap_err();
    assert!(matches!(error, GenotypeError::Keep { expected: 2, got: 1, .. }), "{error}");
    let error = nas201().parse("|none~0|+|none~0|none~1|").unwrap_err();
    assert_eq!(error, GenotypeError::Nodes { block: "cell".into(), expected: 3, got: 2 });
    let error = Space::fbnet(64, 10).parse("skip,skip").unwrap_err();
    assert_eq!(error, GenotypeError::Nodes { block: "stages".into(), expected: 22, got: 2 });
}

#[test]
fn syntax_errors_name_the_character() {
    let error = darts().parse("Genotype[").unwrap_err();
    assert_eq!(error.to_string(), "read the genotype at character 9: expected `(`, got `[`");
    let error = nas201().parse("|none-0|").unwrap_err();
    assert_eq!(error.to_string(), "read the genotype at character 6: expected `~`, got `-0|`");
    let error = darts().parse("").unwrap_err();
    assert!(error.to_string().ends_with("got the end of the text"), "{error}");
    let error = spoilt("range(2, 6)", "range(2, 5)").to_string();
    assert!(error.contains("all nodes of the cell"), "{error}");
    let error = spoilt("reduce=", "normal=").to_string();
    assert!(error.contains("once only"), "{error}");
    let error = Space::fbnet(64, 10).parse("9,skip").unwrap_err().to_string();
    assert!(error.contains("an index below 9"), "{error}");
}

#[test]
fn an_unsorted_genotype_is_refused() {
    let space = darts();
    let mut genotype = space.sample(&mut Stream::new(0, "unsorted", 0));
    genotype.blocks[0].nodes[0].reverse();
    assert!(matches!(space.validate(&genotype), Err(GenotypeError::Order { .. })));
    genotype.blocks.reverse();
    assert!(matches!(space.validate(&genotype), Err(GenotypeError::Blocks { .. })));
}
