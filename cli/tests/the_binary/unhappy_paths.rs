//! What goes wrong for real people, and what they read then.

use std::{fs, process::Command};

use crate::fixture::{Fixture, TINY, events, of_kind, stderr};

/// Without the measurements that a later stage needs, which are not what is tested.
fn quick() -> String {
    TINY.replace("noise_pairs = 2", "noise_pairs = 0").replace("networks = 8", "networks = 4")
}

#[test]
fn a_faulty_configuration_is_refused_with_all_faults_and_nothing_is_started() {
    let fixture = Fixture::new("name = \"a\"\n[serch]\nepochs = 3\n[search]\nepochs = \"ten\"\nbach = 5\n");
    let output = fixture.lathe(&["run", "run.toml"]);
    assert_eq!(output.status.code(), Some(2));
    let text = stderr(&output);
    for expected in [
        "run.toml:2:2: unknown key `serch`",
        "did you mean `search`?",
        "run.toml:5:10: `search.epochs`: expected a whole number, got a string",
        "run.toml:6:1: unknown key `bach` in [search]",
        "did you mean `batch`?",
    ] {
        assert!(text.contains(expected), "{expected:?} is not in:\n{text}");
    }
    assert!(!fixture.path("runs").exists());
}

#[test]
fn a_configuration_that_is_not_there_is_named() {
    let output = Fixture::new("").lathe(&["run", "nowhere.toml"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("failed to read the configuration nowhere.toml"), "{}", stderr(&output));
}

#[test]
fn missing_data_is_told_before_anything_is_measured() {
    let config = quick().replace("source = \"generated\"", "source = \"image_folder\"\npath = \"photos\"");
    let fixture = Fixture::new(&config);
    let output = fixture.lathe(&["run", "run.toml"]);
    assert_eq!(output.status.code(), Some(1));
    let text = stderr(&output);
    assert!(text.contains("photos") && text.contains("train"), "{text}");
    assert_eq!(of_kind(&events(&fixture.path("runs/tiny")), "device").len(), 0);
}

#[test]
fn a_directory_that_cannot_be_written_is_named() {
    let fixture = Fixture::new(&quick());
    fs::write(fixture.path("file"), "").unwrap();
    for directory in ["file/run", "/sys/lathe-test"] {
        let output = fixture.lathe(&["run", "run.toml", "--directory", directory]);
        assert_eq!(output.status.code(), Some(1));
        assert!(stderr(&output).contains(&format!("failed to create {directory}")), "{}", stderr(&output));
    }
}

/// A limit on the size of files stands for the full disk: the kernel refuses the write in the middle
/// of it in the same way, and no special rights are needed.
#[test]
fn a_disk_that_fills_up_loses_nothing_that_was_recorded() {
    // What the workloads compute is in the database already: the disk fills up with rows.
    let fixture = Fixture::new(&quick().replace("[measure]", "[measure]\nreuse = false"));
    fixture.succeed(&["measure", "run.toml", "--directory", "before"]);
    let script = "ulimit -f 16; trap '' XFSZ; exec \"$0\" run run.toml";
    let output = Command::new("sh")
        .args(["-c", script, env!("CARGO_BIN_EXE_lathe")])
        .current_dir(fixture.folder.path())
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
    let text = stderr(&output);
    let unfolded = text.replace(['\n', '│'], " ").split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(unfolded.contains("failed to") && unfolded.contains("File too large"), "{text}");
    fixture.succeed(&["measure", "run.toml"]);
    let rows = fixture.succeed(&["db", "list", "--format", "json"]);
    let rows: Vec<serde_json::Value> = rows.lines().map(|row| serde_json::from_str(row).unwrap()).collect();
    // Two campaigns, each of which has every workload once.
    let of_second = |row: &&serde_json::Value| row["campaign"] != rows[0]["campaign"];
    assert_eq!(rows.iter().filter(of_second).count() * 2, rows.len());
    let key = |row: &serde_json::Value| format!("{} {}", row["campaign"], row["workload"]);
    let mut keys: Vec<String> = rows.iter().map(key).collect();
    keys.sort_unstable();
    keys.dedup();
    assert_eq!(rows.len(), keys.len(), "a row is doubled");
}

#[test]
fn a_changed_configuration_is_refused_with_the_keys_that_differ() {
    let fixture = Fixture::new(&quick());
    fixture.succeed(&["measure", "run.toml"]);
    let changed = quick().replace("epochs = 3", "epochs = 4").replace("seed = 3", "seed = 5");
    fs::write(fixture.path("run.toml"), changed).unwrap();
    let output = fixture.lathe(&["run", "run.toml", "--resume"]);
    assert_eq!(output.status.code(), Some(2));
    let text = stderr(&output);
    assert!(text.contains("search.epochs: 3 → 4") && text.contains("seed: 3 → 5"), "{text}");
    assert!(!text.contains("batch"), "{text}");
}

#[test]
fn a_second_start_in_the_same_directory_is_refused() {
    let fixture = Fixture::new(&quick());
    fixture.succeed(&["measure", "run.toml"]);
    let output = fixture.lathe(&["run", "run.toml"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("--resume"), "{}", stderr(&output));
}

#[test]
fn a_stage_without_what_it_needs_says_what_to_run() {
    let fixture = Fixture::new(&quick());
    let output = fixture.lathe(&["search", "run.toml"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("lathe measure run.toml"), "{}", stderr(&output));
}

#[test]
fn an_impossible_target_ends_before_the_search_with_the_fastest_network() {
    let config = quick().replace("target_quantile = 0.9", "target_ms = 0.001");
    let fixture = Fixture::steady(&config);
    let output = fixture.lathe(&["run", "run.toml"]);
    assert_eq!(output.status.code(), Some(3), "{}", stderr(&output));
    let events = events(&fixture.path("runs/tiny"));
    let finished = of_kind(&events, "finished");
    assert_eq!(finished[0]["stop"]["reason"], "infeasible");
    assert!(finished[0]["stop"]["fastest"].as_f64().unwrap() > 1.0);
    assert!(finished[0]["stop"]["closest"].as_str().unwrap().starts_with("Genotype("));
    assert!(of_kind(&events, "epoch").is_empty());
    // Its report tells why.
    let report = fs::read_to_string(fixture.path("runs/tiny/report.html")).unwrap();
    assert!(report.contains("No network of this space is fast enough"), "the report does not tell why");
}

#[test]
fn a_device_that_is_dead_from_the_start_is_no_failure_of_the_run() {
    let fixture = Fixture::new(TINY);
    let agent = fixture.path("agent.sh");
    let real = std::env::var("LATHE_AGENT").expect("LATHE_AGENT is not set: run `cargo xtask test`");
    let script = format!("#!/bin/sh\nif [ $1 = measure ]; then kill -9 $$; fi\nexec {real} \"$@\"\n");
    fs::write(&agent, script).unwrap();
    Command::new("chmod").arg("+x").arg(&agent).status().unwrap();
    let output = fixture.command(&["run", "run.toml"]).env("LATHE_AGENT", &agent).output().unwrap();
    assert_eq!(output.status.code(), Some(4), "{}", stderr(&output));
    assert!(stderr(&output).contains("SIGKILL"), "{}", stderr(&output));
    fixture.succeed(&["measure", "run.toml"]);
}

/// An agent that dies in the middle of every workload after the first few answers.
#[test]
fn a_device_that_dies_ends_the_run_with_what_it_gave() {
    let fixture = Fixture::new(&quick());
    let agent = fixture.path("agent.sh");
    let real = std::env::var("LATHE_AGENT").expect("LATHE_AGENT is not set: run `cargo xtask test`");
    let script = format!(
        "#!/bin/sh\necho x >> {count}\nif [ $(wc -l < {count}) -gt 12 ]; then kill -9 $$; fi\nexec {real} \"$@\"\n",
        count = fixture.path("count").display()
    );
    fs::write(&agent, script).unwrap();
    Command::new("chmod").arg("+x").arg(&agent).status().unwrap();
    let output = fixture.command(&["run", "run.toml"]).env("LATHE_AGENT", &agent).output().unwrap();
    assert_eq!(output.status.code(), Some(4), "{}", stderr(&output));
    assert!(stderr(&output).contains("--resume"), "{}", stderr(&output));
    // The device is back: what it gave is not asked again, what it owes is.
    let rows = |fixture: &Fixture| fixture.succeed(&["db", "list", "--format", "json"]);
    let before = rows(&fixture).lines().filter(|line| line.contains("\"outcome\":\"ok\"")).count();
    assert!(before > 0);
    // The agent's file is another one, the device is the same.
    fixture.succeed(&["measure", "run.toml"]);
    let all = rows(&fixture);
    let good: Vec<&str> = all.lines().filter(|line| line.contains("\"outcome\":\"ok\"")).collect();
    let workloads: std::collections::BTreeSet<&str> =
        good.iter().filter_map(|line| line.split("\"workload\":\"").nth(1)).map(|rest| &rest[..32]).collect();
    assert_eq!(good.len(), workloads.len(), "a workload was timed twice");
}
