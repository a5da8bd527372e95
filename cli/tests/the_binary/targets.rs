//! How runs end whose targets are out of reach, or seem to be.

use std::{fs, path::Path};

use serde_json::Value;

use crate::fixture::{Fixture, TINY, events, of_kind, stderr};

/// Nothing but what is tested: no baselines, short trainings.
fn small() -> String {
    TINY.replace("random = 1", "random = 0").replace("published = [\"PC_DARTS_cifar\"]", "published = []")
}

fn report(run: &Path) -> String {
    let page = fs::read_to_string(run.join("report.html")).unwrap();
    page.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[test]
fn a_condition_that_the_first_networks_fail_does_not_end_a_run_before_its_search() {
    // No network has so small a peak, but of hundreds of millions only ten thousand are looked at.
    let limit = "\n[[objective.limit]]\nquantity = \"peak_memory\"\nat_most = 1\n";
    let fixture = Fixture::steady(&(small().replace("target_quantile = 0.9", "target_ms = 50") + limit));
    let output = fixture.lathe(&["run", "run.toml"]);
    let text = stderr(&output);
    assert_eq!(output.status.code(), Some(3), "{text}");
    assert!(text.contains("was not looked at; going on"), "{text}");
    let run = fixture.path("runs/tiny");
    let events = events(&run);
    assert_eq!(of_kind(&events, "epoch").len(), 3, "the search was done all the same");
    let stop = &events.last().unwrap()["stop"];
    assert_eq!(stop["reason"], "limits_undecided", "{stop}");
    assert!(stop["closest"].as_str().unwrap().contains("Genotype("), "{stop}");
    assert!(
        report(&run).contains("Undecided: none of the 10000 best networks"),
        "the report does not tell why"
    );
}

#[test]
fn targets_from_both_sides_above_every_network_are_refused_with_the_range() {
    // A count is refused before anything is measured.
    let limit = "\n[[objective.limit]]\nquantity = \"macs\"\nat_most = 1e12\n";
    let both = small().replace("target_quantile = 0.9", "target_ms = 50\nsides = \"both\"");
    let fixture = Fixture::steady(&(both.clone() + limit));
    let output = fixture.lathe(&["run", "run.toml"]);
    let text = stderr(&output);
    assert_eq!(output.status.code(), Some(3), "{text}");
    assert!(text.contains("comes up to the limit of `macs`") && text.contains("hint: lower it"), "{text}");
    assert!(
        of_kind(&events(&fixture.path("runs/tiny")), "device").is_empty(),
        "something was measured first"
    );

    // A latency after the fit, which tells what the space reaches.
    let fixture = Fixture::steady(&both.replace("target_ms = 50", "target_ms = 60000"));
    let output = fixture.lathe(&["run", "run.toml"]);
    assert_eq!(output.status.code(), Some(3), "{}", stderr(&output));
    let run = fixture.path("runs/tiny");
    let events = events(&run);
    assert!(of_kind(&events, "epoch").is_empty(), "it was searched for");
    let stop = &events.last().unwrap()["stop"];
    assert_eq!((&stop["reason"], &stop["limit"]), (&"limit_above_reach".into(), &"latency".into()), "{stop}");
    let reachable = &of_kind(&events, "target")[0]["reachable"];
    for end in [0, 1] {
        // Upper bounds, which lie above the predictions.
        let [bound, mean] = [&stop["reachable"][end], &reachable[end]].map(|value| value.as_f64().unwrap());
        assert!(bound >= mean && bound < 6e7, "{stop} beside {reachable}");
    }
    let page = report(&run);
    assert!(page.contains("comes up to the limit of latency") && page.contains("Lower it"));
}

/// Makes a predictor believe that everything takes a thousandth, and a run that it is asked for 10 µs.
fn deceive(run: &Path) {
    let path = run.join("cost-table.json");
    let mut table: Value = serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
    let smaller = |value: &mut Value| *value = (value.as_f64().unwrap() / 1000.0).into();
    let costs = if table.get("slots").is_some() { &mut table } else { &mut table["table"] };
    smaller(&mut costs["fixed"]);
    for slot in costs["slots"].as_array_mut().unwrap() {
        slot["choices"].as_object_mut().unwrap().values_mut().for_each(smaller);
    }
    fs::write(&path, table.to_string()).unwrap();
    let record = run.join("record.jsonl");
    let lines = fs::read_to_string(&record).unwrap();
    let lines = lines.lines().map(|line| {
        let mut event: Value = serde_json::from_str(line).unwrap();
        if event["event"] == "target" {
            event["target"] = 10.0.into();
        }
        event.to_string() + "\n"
    });
    fs::write(&record, lines.collect::<String>()).unwrap();
}

#[test]
fn a_target_that_every_measurement_misses_is_told_with_the_network_that_misses_least() {
    let text =
        small().replace("target_quantile = 0.9\nderive_rounds = 0", "target_ms = 50\nderive_rounds = 2");
    let fixture = Fixture::steady(&text);
    for command in ["measure", "fit"] {
        fixture.succeed(&[command, "run.toml"]);
    }
    let run = fixture.path("runs/tiny");
    deceive(&run);
    let output = fixture.lathe(&["run", "run.toml", "--resume"]);
    let text = stderr(&output);
    assert_eq!(output.status.code(), Some(3), "{text}");
    assert!(text.contains("derived network 0, latency") && text.contains("misses it"), "{text}");
    // A limit tightened a hundredfold and more is below every network: the measured one is not lost.
    assert!(text.contains("no network was found under the tighter limits"), "{text}");
    assert!(text.contains("going on with derived network 0"), "{text}");
    assert!(text.contains("the searched network misses the target of 10"), "{text}");
    let events = events(&run);
    let names: Vec<&Value> = of_kind(&events, "candidate").iter().map(|event| &event["name"]).collect();
    assert_eq!(names, ["searched"]);
    assert_eq!(of_kind(&events, "trained").len(), 1);
    let stop = &events.last().unwrap()["stop"];
    assert_eq!(stop["reason"], "target_missed", "{stop}");
    assert!(stop["measured"].as_f64() > stop["target"].as_f64(), "{stop}");
    assert!(report(&run).contains("misses the target by measurement"), "the report does not tell");
}
