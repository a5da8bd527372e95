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
        Fixture::steady(&format!("{}\n[[objective.limit]]\nquantity = \"macs\"\nat_most = 1000\n", small()));
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
    let output = Fixture::steady(text).lathe(&["run", "run.toml"]);
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

/// Two devices of this machine, of which the second has two threads, with targets far above the tiny networks;
/// measured meanwhile; a limit on the parameters that does not bind.
fn two_devices() -> String {
    small()
        .replace(
            "target_quantile = 0.9\nderive_rounds = 0",
            "target_ms = 50\nderive_rounds = 1\nmeasure_every_epochs = 1",
        )
        .replace("epochs = 3\nwarmup_epochs = 1", "epochs = 4\nwarmup_epochs = 1")
        + "\n[[objective.device]]\nname = \"local\"\nthreads = 2\ntarget_ms = 50\n\
           [[objective.limit]]\nquantity = \"parameters\"\nat_most = 1e6\n"
}

#[test]
fn a_network_is_held_to_the_targets_of_two_devices() {
    let fixture = Fixture::steady(&two_devices());
    let output = fixture.lathe(&["run", "run.toml"]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let run = fixture.path("runs/tiny");
    let events = events(&run);
    for (kind, count) in [
        ("device", 1),
        ("other_device", 1),
        ("other_fitted", 1),
        ("limits", 1),
        ("probed", 2),
        ("other_verified", 1),
    ] {
        assert_eq!(of_kind(&events, kind).len(), count, "{kind}");
    }
    let limits = &of_kind(&events, "limits")[0]["limits"];
    let names: Vec<&str> =
        limits.as_array().unwrap().iter().map(|limit| limit["limit"].as_str().unwrap()).collect();
    assert_eq!(names, ["latency", "latency on local (2 threads)", "parameters", "macs"]);
    // By prediction every limit is kept, on its own table.
    let tables = ["cost-table.json", "cost-table-2.json"].map(|name| {
        let text = fs::read_to_string(run.join(name)).unwrap();
        serde_json::from_str::<serde_json::Value>(&text).unwrap()
    });
    assert_ne!(tables[0].to_string(), tables[1].to_string());
    let target = of_kind(&events, "target")[0]["target"].as_f64().unwrap();
    let predicted = of_kind(&events, "candidate")[0]["predicted"]["mean"].as_f64().unwrap();
    assert!(predicted <= target, "{predicted} on the first device, {target} asked");
    let target = of_kind(&events, "other_fitted")[0]["target"].as_f64().unwrap();
    let predicted = of_kind(&events, "other_verified")[0]["predicted"]["mean"].as_f64().unwrap();
    assert!(predicted <= target, "{predicted} on the second device, {target} asked");
    // What was measured during the search corrects the epochs after it.
    let epochs = of_kind(&events, "epoch");
    let correction = |epoch: usize| epochs[epoch]["limits"][0]["correction"].as_f64().unwrap().abs();
    assert!(correction(0) < 1e-12 && correction(1) > 1e-12);
    let report = fs::read_to_string(run.join("report.html")).unwrap();
    for text in ["latency on local (2 threads)", "Timed during the search", "The networks on further devices"]
    {
        assert!(report.contains(text), "{text:?} is not in the report");
    }

    // Cut off after the last measurement, with the search to be done again: the record answers, not the device.
    let scores = fs::read(run.join("scores.json")).unwrap();
    let record = fs::read_to_string(run.join("record.jsonl")).unwrap();
    let lines: Vec<&str> = record.lines().collect();
    let last = lines.iter().rposition(|line| line.contains("\"event\":\"probed\"")).unwrap();
    fs::write(run.join("record.jsonl"), lines[..=last].join("\n") + "\n").unwrap();
    fs::remove_dir_all(run.join("checkpoint")).unwrap();
    fs::remove_file(run.join("scores.json")).unwrap();
    fixture.succeed(&["search", "run.toml"]);
    assert_eq!(fs::read(run.join("scores.json")).unwrap(), scores);
    assert_eq!(of_kind(&crate::fixture::events(&run), "probed").len(), 2);
}

#[test]
fn devices_that_are_one_and_weights_of_nothing_are_refused() {
    let config = format!(
        "{}\n[[objective.device]]\nname = \"local\"\ntarget_ms = 1\n[[objective.device]]\nname = \"other\"\n",
        small().replace("target_quantile = 0.9", "combine = \"weighted\"")
    );
    let output = Fixture::steady(&config).lathe(&["run", "run.toml"]);
    assert_eq!(output.status.code(), Some(2));
    let text = stderr(&output).replace(['\n', '│'], " ").split_whitespace().collect::<Vec<_>>().join(" ");
    for expected in [
        "local (1 thread) is there twice",
        "expected either `target_ms` or `target_quantile`",
        "a weighted target needs a target here",
    ] {
        assert!(text.contains(expected), "{expected:?} is not in:\n{text}");
    }
}

#[test]
fn a_regressor_guards_and_a_proxy_take_part_in_a_whole_run() {
    let text = small()
        .replace("networks = 8", "networks = 12")
        .replace("target_quantile = 0.9", "target_ms = 50\nmethod = \"regressor\"")
        .replace(
            "batch = 20\n\n[baselines]",
            "batch = 20\nhessian_every_epochs = 1\nstop_at_skips = 1000\n\n[baselines]",
        )
        .replace("[baselines]", "[baselines]\npreselected = 1\nproxy = \"naswot\"\nproxy_of = 3");
    let fixture = Fixture::steady(&text);
    let output = fixture.lathe(&["run", "run.toml"]);
    assert!(output.status.success(), "{}", stderr(&output));
    let events = events(&fixture.path("runs/tiny"));
    let seen: Vec<bool> =
        of_kind(&events, "epoch").iter().map(|event| event["eigenvalue"].as_f64().is_some()).collect();
    assert_eq!(seen, [false, true, true], "an eigenvalue in every epoch but the warm-up's");
    assert!(of_kind(&events, "search_stopped").is_empty());
    let candidates = of_kind(&events, "candidate");
    let chosen = candidates.iter().find(|event| event["name"] == "naswot-0").unwrap();
    assert_eq!(chosen["preselected"], serde_json::json!(["naswot", 3]));
    let report = fs::read_to_string(fixture.path("runs/tiny/report.html")).unwrap();
    assert!(report.contains("best of 3 untrained ones by naswot"), "the report does not tell");
    assert!(report.contains("Curvature in the architecture parameters"));
}

#[test]
fn a_search_stops_at_too_many_skip_connections_and_says_so() {
    // One is too many: with eight operations a derived cell of tiny searches nearly always has one, whatever it learns.
    let text = small().replace(
        "epochs = 3\nwarmup_epochs = 1",
        "epochs = 12\nwarmup_epochs = 1\narch_learning_rate = 0.2\nstop_at_skips = 1",
    );
    let fixture = Fixture::steady(&text);
    for command in ["measure", "fit", "search"] {
        fixture.succeed(&[command, "run.toml"]);
    }
    let events = events(&fixture.path("runs/tiny"));
    let epochs = of_kind(&events, "epoch");
    let skips = |event: &serde_json::Value| event["signs"][0]["skips"].as_u64().unwrap();
    let first = epochs.iter().skip(1).position(|event| skips(event) >= 1).map(|place| place + 1);
    match (first, &of_kind(&events, "search_stopped")[..]) {
        (Some(epoch), [stopped]) => {
            assert_eq!(stopped["epoch"], epoch, "{stopped}");
            assert_eq!(stopped["kept"], epoch - 1);
            assert_eq!(epochs.len(), epoch + 1, "the search went on");
        }
        (None, []) => assert_eq!(epochs.len(), 12),
        other => panic!("{other:?}"),
    }
}
