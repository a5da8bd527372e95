//! Everything in order on a tiny run, and what is in its directory afterwards.

use std::fs;

use crate::fixture::{Fixture, TINY, events, of_kind};

#[test]
fn a_run_goes_from_measuring_to_the_report() {
    let fixture = Fixture::new(TINY);
    let output = fixture.lathe(&["run", "run.toml"]);
    // The target may be missed by a few microseconds of noise on a tiny network: both ends are right.
    let code = output.status.code();
    assert!(matches!(code, Some(0 | 3)), "{code:?}\n{}", crate::fixture::stderr(&output));

    let run = fixture.path("runs/tiny");
    let events = events(&run);
    assert_eq!(events[0]["event"], "started");
    assert_eq!(events.last().unwrap()["event"], "finished");
    assert_eq!(of_kind(&events, "epoch").len(), 3);
    let names: Vec<&str> =
        of_kind(&events, "candidate").iter().map(|event| event["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["searched", "random-0", "PC_DARTS_cifar"]);
    for event in of_kind(&events, "verified") {
        assert!(event["max_output_error"].as_f64().unwrap() < 1e-4, "{event}");
        let latency = &event["latency"];
        let (low, median, high) = (&latency["low"], &latency["median"], &latency["high"]);
        assert!(low.as_f64() <= median.as_f64() && median.as_f64() <= high.as_f64(), "{event}");
        assert!(median.as_f64().unwrap() > 0.0);
    }
    assert_eq!(of_kind(&events, "verified").len(), 3);
    assert_eq!(of_kind(&events, "trained").len(), 3);

    // The derivation never exceeds the target by prediction.
    let target = of_kind(&events, "target")[0]["target"].as_f64().unwrap();
    let searched = of_kind(&events, "candidate")[0];
    assert!(searched["predicted"]["mean"].as_f64().unwrap() <= target, "{searched}");

    for file in [
        "config.toml",
        "resolved.toml",
        "measurements.parquet",
        "cost-table.json",
        "report.html",
        "export/searched.onnx",
        "export/searched.pt",
        "export/searched.safetensors",
        "export/searched.genotype.json",
    ] {
        assert!(run.join(file).is_file(), "{file} is missing");
    }
    let report = fs::read_to_string(run.join("report.html")).unwrap();
    assert!(report.contains("searched") && report.contains("<svg"));

    // The database can be looked into and exported.
    let list = fixture.succeed(&["db", "list", "--level", "network"]);
    assert!(list.contains("measured") && list.contains("searched"), "{list}");
    fixture.succeed(&["db", "export", "rows.csv"]);
    assert!(fs::read_to_string(fixture.path("rows.csv")).unwrap().lines().count() > 20);
    let again = fixture.lathe(&["db", "export", "rows.csv"]);
    assert_eq!(again.status.code(), Some(1), "an existing file must not be overwritten");

    // Nothing is left to measure, and asking again measures nothing.
    let plan = fixture.succeed(&["measure", "run.toml", "--only-missing", "--dry-run"]);
    assert!(plan.starts_with("0 workloads are missing"), "{plan}");
}
