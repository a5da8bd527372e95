//! Limits beside the target, and what the record says of them.

use std::fs;

use crate::fixture::{Fixture, TINY, events, of_kind, stderr};

/// Nothing but what is tested: one random network, no published one, short trainings.
fn small() -> String {
    TINY.replace("random = 1", "random = 0").replace("published = [\"PC_DARTS_cifar\"]", "published = []")
}

#[test]
fn an_impossible_count_is_refused_before_anything_is_measured() {
    let fixture =
        Fixture::new(&format!("{}\n[[objective.limit]]\nquantity = \"macs\"\nat_most = 1000\n", small()));
    let output = fixture.lathe(&["run", "run.toml"]);
    assert_eq!(output.status.code(), Some(3), "{}", stderr(&output));
    let text = stderr(&output);
    assert!(text.contains("no network of the space keeps the limit of `macs`"), "{text}");
    assert!(text.contains("the closest network: Genotype("), "{text}");
    let events = events(&fixture.path("runs/tiny"));
    assert!(of_kind(&events, "device").is_empty(), "something was measured first");
    let stop = &of_kind(&events, "finished")[0]["stop"];
    assert_eq!(stop["reason"], "limits_infeasible");
    assert!(stop["values"][0]["upper"].as_f64().unwrap() > 1000.0, "{stop}");
    let report = fs::read_to_string(fixture.path("runs/tiny/report.html")).unwrap();
    assert!(report.contains("no network of the space keeps the limit"), "the report does not tell why");
}

#[test]
fn faulty_limits_are_told_with_their_place() {
    let text = "name = \"a\"\n[objective]\nmethod = \"logarithmc\"\nsides = \"both\"\n\
                [[objective.limit]]\nquantity = \"macs\"\nat_most = 5e6\n\
                [[objective.limit]]\nquantity = \"macs\"\nat_mots = 5e6\n";
    let output = Fixture::new(text).lathe(&["run", "run.toml"]);
    assert_eq!(output.status.code(), Some(2));
    let text = stderr(&output);
    for expected in [
        "run.toml:3:10: `objective.method`: expected one of dual, linear",
        "did you mean \"logarithmic\"?",
        "`objective.limit.at_most`: missing",
        "unknown key `at_mots` in [objective.limit]",
    ] {
        assert!(text.contains(expected), "{expected:?} is not in:\n{text}");
    }
}
