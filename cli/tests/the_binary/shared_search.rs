//! A search that several processes share, as a launcher would start them.

use std::{net::TcpListener, process::Output};

use serde_json::Value;

use crate::fixture::{Fixture, TINY, events, of_kind, stderr};

/// Starts `lathe` with these words as every one of `size` processes and waits for all.
fn launch(fixture: &Fixture, words: &[&str], size: usize) -> Vec<Output> {
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let children = (0..size).map(|rank| {
        let mut command = fixture.command(words);
        command.env("RANK", rank.to_string()).env("WORLD_SIZE", size.to_string());
        command.env("MASTER_ADDR", "127.0.0.1").env("MASTER_PORT", port.to_string());
        command.env("LATHE_COLLECTIVE_TIMEOUT_SECONDS", "60");
        command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped()).spawn().unwrap()
    });
    let children: Vec<_> = children.collect();
    children.into_iter().map(|child| child.wait_with_output().unwrap()).collect()
}

fn losses(fixture: &Fixture, run: &str) -> Vec<f64> {
    let events = events(&fixture.path(run));
    of_kind(&events, "epoch").iter().map(|event| event["train_loss"].as_f64().unwrap()).collect()
}

#[test]
fn two_processes_search_like_one_and_only_the_first_writes() {
    // Without a target the two runs' own measurements have no part in the search.
    let config = TINY.replace("target_quantile = 0.9\n", "");
    let fixture = Fixture::steady(&config.replace("[search]\n", "[search]\nhessian_every_epochs = 1\n"));
    for run in ["one", "two", "three"] {
        fixture.succeed(&["measure", "run.toml", "--directory", run]);
        fixture.succeed(&["fit", "run.toml", "--directory", run]);
    }
    fixture.succeed(&["search", "run.toml", "--directory", "one"]);

    let words = ["search", "run.toml", "--directory", "two"];
    for (rank, output) in launch(&fixture, &words, 2).iter().enumerate() {
        assert!(output.status.success(), "rank {rank}: {}\n{}", output.status, stderr(output));
    }
    let (one, two) = (losses(&fixture, "one"), losses(&fixture, "two"));
    assert_eq!((one.len(), two.len()), (3, 3), "an epoch is told once");
    for ((one, two), tolerance) in one.iter().zip(&two).zip([1e-5, 1e-3, 1e-3]) {
        assert!((one - two).abs() < tolerance * one, "{one} with one process, {two} with two");
    }
    let scores = |run: &str| -> Value {
        serde_json::from_slice(&std::fs::read(fixture.path(run).join("scores.json")).unwrap()).unwrap()
    };
    let flat = |scores: &Value| -> Vec<f64> {
        let rows = scores["alpha"].as_array().unwrap().iter().flat_map(|row| row.as_array().unwrap());
        rows.map(|value| value.as_f64().unwrap()).collect()
    };
    // Adam's steps are as long for a gradient of almost nothing as for any other: where rounding turns the
    // sign of one, two searches part by two steps of 6e-4. (In double precision they are equal: see the
    // tests of `lathe-search`.)
    for (one, two) in flat(&scores("one")).iter().zip(flat(&scores("two"))) {
        assert!((one - two).abs() < 5e-3, "{one} with one process, {two} with two");
    }

    // Every process looks at the curvature, and goes on with the others.
    let curvature = |run: &str| -> Vec<f64> {
        let events = events(&fixture.path(run));
        of_kind(&events, "epoch").iter().filter_map(|event| event["eigenvalue"].as_f64()).collect()
    };
    assert_eq!((curvature("one").len(), curvature("two").len()), (2, 2));

    // From the warm-up of another run, which only the first process reads.
    let warm_up = |run: &str| fixture.path(run).join("checkpoint/search/warm-up");
    std::fs::create_dir_all(warm_up("three")).unwrap();
    let file = "checkpoint.safetensors";
    std::fs::copy(warm_up("one").join(file), warm_up("three").join(file)).unwrap();
    for (rank, output) in
        launch(&fixture, &["search", "run.toml", "--directory", "three"], 2).iter().enumerate()
    {
        assert!(output.status.success(), "rank {rank}: {}\n{}", output.status, stderr(output));
    }
    let three = losses(&fixture, "three");
    assert_eq!(three.len(), 3);
    assert!((three[0] - one[0]).abs() < 1e-12, "the warm-up is told as it was");
    assert!((three[2] - one[2]).abs() < 1e-3 * one[2]);

    // Once more: nothing is left to do, and nobody waits for it.
    for output in launch(&fixture, &words, 2) {
        assert!(output.status.success(), "{}", stderr(&output));
    }
}

#[test]
fn what_cannot_be_shared_says_so() {
    let fixture = Fixture::steady(TINY);
    let output = &launch(&fixture, &["run", "run.toml"], 2)[1];
    assert_eq!(output.status.code(), Some(1));
    let text = stderr(output);
    assert!(text.contains("one of 2 processes") && text.contains("lathe search"), "{text}");

    let mut command = fixture.command(&["search", "run.toml"]);
    let output = command.env("RANK", "0").env("WORLD_SIZE", "two").output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("WORLD_SIZE"), "{}", stderr(&output));
}
