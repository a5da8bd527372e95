//! Searches in spaces of stages: shared weights, paths, evolution, and the same loop through the device.

use std::fs;

use lathe_spaces::{Function, GraphBuilder, OpSpec, Shape, Weights, encode_onnx};

use crate::fixture::{Fixture, events, of_kind, stderr};

/// A small space of somebody's own, with widths, depths and two kinds of blocks.
const SPACE: &str = r#"
name = "own"
about = "two stages"
source = "a test"
input = [3, 16, 16]

[[stage]]
name = "one"
width = [8, 12]
stride = [2]
blocks = ["conv k{3,5} relu"]

[[stage]]
name = "two"
width = [12, 16, 24]
stride = [2]
depth = [1, 2, 3]
first = ["ibn k{3,5} e{2,4}", "fused e2"]
blocks = ["ibn k{3,5} e{2,4}", "fused e2"]
"#;

fn config(space: &str) -> String {
    format!(
        r#"
name = "stages"
seed = 3
threads = 1
[space]
kind = "stages"
{space}
[data]
source = "generated"
train_images = 120
test_images = 40
[measure]
networks = 12
noise_pairs = 0
processes = 1
min_runs = 5
min_seconds = 0.0
warmup_runs = 2
warmup_seconds = 0.0
retries = 0
[verify]
processes = 1
min_runs = 5
min_seconds = 0.0
warmup_runs = 2
warmup_seconds = 0.0
retries = 0
[objective]
target_quantile = 0.8
derive_rounds = 1
[search]
epochs = 3
warmup_epochs = 1
batch = 20
learning_rate = 0.02
arch_learning_rate = 0.02
[paths]
evaluations = 12
images = 40
[baselines]
random = 1
[retrain]
epochs = 1
batch = 20
drop_path = 0.0
"#
    )
}

#[test]
fn a_file_of_ones_own_is_searched_measured_exported_and_reported() {
    let limit = "\n[[objective.limit]]\nquantity = \"macs\"\nat_most = 60000\n";
    let own = config("file = \"own.toml\"\nresolution = 16");
    let limited = own.replace("target_quantile = 0.8", "target_ms = 100.0") + limit;
    let fixture = Fixture::steady(&limited);
    fs::write(fixture.path("own.toml"), SPACE).unwrap();
    let output = fixture.lathe(&["run", "run.toml"]);
    let code = output.status.code();
    assert_eq!(code, Some(0), "{}", stderr(&output));
    let run = fixture.path("runs/stages");
    let events = events(&run);
    assert_eq!(of_kind(&events, "stages")[0]["measure"], "accuracy");
    assert_eq!(of_kind(&events, "epoch").len(), 3);

    // The front is sorted, and every network of it keeps the target by its upper bound or better.
    let bred = of_kind(&events, "bred")[0];
    let front = bred["front"].as_array().unwrap();
    assert!(!front.is_empty() && bred["evaluations"].as_u64().unwrap() <= 12);
    let latencies: Vec<f64> = front.iter().map(|row| row[2].as_f64().unwrap()).collect();
    assert!(latencies.is_sorted(), "{latencies:?}");
    let target = of_kind(&events, "target")[0]["target"].as_f64().unwrap();
    let candidates = of_kind(&events, "candidate");
    let names: Vec<&str> = candidates.iter().map(|event| event["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["searched", "random-0"]);
    assert!(candidates[0]["predicted"]["mean"].as_f64().unwrap() <= target, "{}", candidates[0]);
    assert!(front.iter().any(|row| row[0] == candidates[0]["genotype"]));
    // A limit that is counted holds exactly, and binds: half of the space lies above it.
    assert!(candidates[0]["macs"].as_u64().unwrap() <= 60_000, "{}", candidates[0]);

    // What was exported computes what was trained, and its time goes to kinds of kernels.
    for verified in of_kind(&events, "verified") {
        assert!(verified["max_output_error"].as_f64().unwrap() < 1e-4, "{verified}");
        assert!(verified["shares"].to_string().contains("conv"), "{verified}");
    }
    let report = fs::read_to_string(run.join("report.html")).unwrap();
    for words in
        ["The policy", "Stage <code>two</code>", "model of kernels", "two → depth", "two → position 2"]
    {
        assert!(report.contains(words), "{words} is not in the report");
    }
    assert!(report.contains("<b>w8</b>") || report.contains("<b>w12</b>"), "the policy's panels are unnamed");
    for words in ["Signs of collapse", "could not be used", "There is no drawing", "choice 0"] {
        assert!(!report.contains(words), "{words} is in the report");
    }

    // What is finished is not done again, and another space is another run.
    let again = fixture.lathe(&["run", "run.toml", "--resume"]);
    assert_eq!(again.status.code(), code, "{}", stderr(&again));
    let study = fixture.lathe(&["front", "run.toml", "--quantiles", "0.5", "--directory", "study"]);
    assert!(stderr(&study).contains("studies search cells"), "{}", stderr(&study));
}

#[test]
fn a_target_from_both_sides_is_used() {
    let own = config("file = \"own.toml\"\nresolution = 16");
    let both = own.replace("target_quantile = 0.8", "target_quantile = 0.7\nsides = \"both\"");
    let fixture = Fixture::steady(&both);
    fs::write(fixture.path("own.toml"), SPACE).unwrap();
    for command in ["measure", "fit", "search", "derive"] {
        fixture.succeed(&[command, "run.toml"]);
    }
    let events = events(&fixture.path("runs/stages"));
    let target = of_kind(&events, "target")[0]["target"].as_f64().unwrap();
    let upper = of_kind(&events, "candidate")[0]["predicted"]["high"].as_f64().unwrap();
    assert!((0.9..=1.0).contains(&(upper / target)), "upper bound {upper}, target {target}");
    // What lies above every network is refused, as in spaces of cells.
    fs::write(fixture.path("above.toml"), both.replace("target_quantile = 0.7", "target_ms = 5000")).unwrap();
    let output = fixture.lathe(&["run", "above.toml", "--directory", "above"]);
    assert_eq!(output.status.code(), Some(3), "{}", stderr(&output));
    assert!(stderr(&output).contains("comes up to the limit"), "{}", stderr(&output));
}

#[test]
fn an_encoder_is_searched_and_trained_for_a_teacher() {
    // The teacher is a network of another run, as TorchScript and as ONNX.
    let own = config("file = \"own.toml\"\nresolution = 16").replace("target_quantile = 0.8\n", "");
    let fixture = Fixture::steady(&own);
    fs::write(fixture.path("own.toml"), SPACE).unwrap();
    for command in ["measure", "fit", "search", "derive", "retrain", "export"] {
        fixture.succeed(&[command, "run.toml"]);
    }
    let head = "head = [{ block = \"pool\" }, { block = \"linear\", channels = 10 }]\n[[stage]]";
    fs::write(fixture.path("student.toml"), SPACE.replacen("[[stage]]", head, 1)).unwrap();
    for extension in ["pt", "onnx"] {
        let name = format!("student-{extension}");
        let teacher = format!("teacher = \"runs/stages/export/random-0.{extension}\"");
        let student = own
            .replace("name = \"stages\"", &format!("name = \"{name}\""))
            .replace("file = \"own.toml\"", &format!("file = \"student.toml\"\n{teacher}"));
        fs::write(fixture.path("student-run.toml"), &student).unwrap();
        fixture.succeed(&["run", "student-run.toml"]);
        let run = fixture.path(&format!("runs/{name}"));
        assert_eq!(of_kind(&events(&run), "stages")[0]["measure"], "similarity");
        let report = fs::read_to_string(run.join("report.html")).unwrap();
        assert!(report.contains("test similarity") && !report.contains("test accuracy"));
        let shown = fixture.succeed(&["show", &format!("runs/{name}")]);
        assert!(shown.contains("test similarity"), "{shown}");
    }
    // Operators that Lathe doesn't read: ONNX Runtime runs the file.
    let strange = {
        let mut builder = GraphBuilder::new();
        let x = builder.input("input", Shape::new(1, 3, 16, 16)).unwrap();
        let y = builder.add("conv", OpSpec::conv(8, 3, 2), &[x]).unwrap();
        let tanh = OpSpec::Activation { function: Function::Tanh };
        let y = builder.add("function", tanh, &[y]).unwrap();
        let y = builder.add("pool", OpSpec::GlobalAvgPool, &[y]).unwrap();
        let y = builder.add("linear", OpSpec::Linear { out_features: 10, bias: true }, &[y]).unwrap();
        let graph = builder.finish(&[y]).unwrap();
        let mut bytes = encode_onnx(&graph, &Weights::seeded(&graph, 4)).unwrap();
        let at = bytes.windows(4).position(|word| word == b"Tanh").unwrap();
        bytes[at..at + 4].copy_from_slice(b"Sinh");
        bytes
    };
    fs::write(fixture.path("strange.onnx"), strange).unwrap();
    let student = own
        .replace("name = \"stages\"", "name = \"strange\"")
        .replace("train_images = 120", "train_images = 40")
        .replace("file = \"own.toml\"", "file = \"student.toml\"\nteacher = \"strange.onnx\"");
    fs::write(fixture.path("strange.toml"), student).unwrap();
    let output = fixture.lathe(&["run", "strange.toml"]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert!(stderr(&output).contains("strange.onnx: run by ONNX Runtime"), "{}", stderr(&output));
    let trained = events(&fixture.path("runs/strange"));
    let similarity = of_kind(&trained, "trained")[0]["test_accuracy"].as_f64().unwrap();
    assert!((-1.0..=1.0).contains(&similarity), "{similarity}");

    // Classes are not what this teacher gives: its student needs its own ten outputs, not a map.
    let student = own
        .replace("file = \"own.toml\"", "file = \"own.toml\"\nteacher = \"runs/stages/export/random-0.pt\"");
    fs::write(fixture.path("map.toml"), student.replace("name = \"stages\"", "name = \"map\"")).unwrap();
    let output = fixture.lathe(&["run", "map.toml"]);
    assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
    assert!(stderr(&output).contains("teacher"), "{}", stderr(&output));
}

#[test]
fn an_interrupted_search_of_stages_ends_as_one_that_was_not() {
    // Without a target nothing depends on how fast the machine is today.
    let free = config("file = \"own.toml\"\nresolution = 16").replace("target_quantile = 0.8\n", "");
    let whole = Fixture::steady(&free);
    fs::write(whole.path("own.toml"), SPACE).unwrap();
    for command in ["measure", "fit"] {
        whole.succeed(&[command, "run.toml"]);
    }
    // The same measurements, in a second directory.
    let halved = Fixture::steady(&free);
    fs::write(halved.path("own.toml"), SPACE).unwrap();
    let copy = std::process::Command::new("cp")
        .args(["-r", whole.path("runs").to_str().unwrap(), whole.path(".lathe").to_str().unwrap()])
        .arg(halved.folder.path())
        .status()
        .unwrap();
    assert!(copy.success());
    whole.succeed(&["search", "run.toml"]);
    let mut child = halved.command(&["search", "run.toml"]).spawn().unwrap();
    let checkpoint = halved.path("runs/stages/checkpoint/search/checkpoint.safetensors");
    while !checkpoint.is_file() && child.try_wait().unwrap().is_none() {
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    let _ = child.kill();
    let _ = child.wait();
    halved.succeed(&["search", "run.toml"]);
    let scores = |fixture: &Fixture| fs::read_to_string(fixture.path("runs/stages/scores.json")).unwrap();
    assert_eq!(scores(&whole), scores(&halved));
    let front =
        |fixture: &Fixture| of_kind(&events(&fixture.path("runs/stages")), "bred")[0]["front"].clone();
    assert_eq!(front(&whole), front(&halved));
}

#[test]
fn relaxed_blocks_are_searched_by_gradient_and_paths() {
    let relaxed = config("file = \"own.toml\"\nresolution = 16")
        .replace("evaluations = 12", "evaluations = 12\nrelaxed = true\npartial_channels = 2")
        .replace("target_quantile = 0.8", "target_ms = 100.0");
    let fixture = Fixture::steady(&relaxed);
    fs::write(fixture.path("own.toml"), SPACE).unwrap();
    fixture.succeed(&["run", "run.toml"]);
    let run = fixture.path("runs/stages");
    let events = events(&run);
    // The logits of the blocks at a position moved, and the report names them.
    let epochs = of_kind(&events, "epoch");
    let row = |epoch: usize| -> Vec<f64> {
        let shares = epochs[epoch]["arch"][1]["alpha"][4].as_array().unwrap();
        shares.iter().map(|share| share.as_f64().unwrap()).collect()
    };
    let spread =
        |row: &[f64]| row.iter().copied().fold(0.0, f64::max) - row.iter().copied().fold(1.0, f64::min);
    assert!(spread(&row(0)) < 1e-9 && spread(&row(2)) > 1e-3, "{:?}", row(2));
    let report = fs::read_to_string(run.join("report.html")).unwrap();
    assert!(report.contains("two → position 1"));
    let resolved = fs::read_to_string(run.join("config.toml")).unwrap();
    assert!(resolved.contains("relaxed = true"), "{resolved}");
}

#[test]
fn super_resolution_is_judged_in_decibels_everywhere() {
    let fixture = Fixture::steady(&config("name = \"sesr\"\nresolution = 16"));
    let output = fixture.lathe(&["run", "run.toml"]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert!(stderr(&output).contains("test PSNR"), "{}", stderr(&output));
    let run = fixture.path("runs/stages");
    let events = events(&run);
    assert_eq!(of_kind(&events, "stages")[0]["measure"], "PSNR");
    for trained in of_kind(&events, "trained") {
        assert!(trained["test_accuracy"].as_f64().unwrap() > 2.0, "{trained}");
    }
    let report = fs::read_to_string(run.join("report.html")).unwrap();
    let shown = fixture.succeed(&["show", "runs/stages"]);
    assert!(shown.contains("test PSNR, dB") && !shown.contains("NaN"), "{shown}");
    assert!(report.contains("test PSNR") && report.contains("dB") && !report.contains("test accuracy"));
}

#[test]
fn what_cannot_be_searched_is_said_with_its_place() {
    let faults = |text: String| {
        let fixture = Fixture::steady(&text);
        let output = fixture.lathe(&["run", "run.toml"]);
        assert_eq!(output.status.code(), Some(2), "{}", stderr(&output));
        stderr(&output).replace('│', " ").split_whitespace().collect::<Vec<_>>().join(" ")
    };
    let text = faults(config("name = \"mobiledet\""));
    assert!(text.contains("did you mean \"mobiledets\"?"), "{text}");
    let text = faults(config("file = \"nowhere.toml\""));
    assert!(text.contains("failed to read nowhere.toml"), "{text}");
    let text = faults(config("name = \"sesr\"\nresolution = 15"));
    assert!(text.contains("15x15 can't be made smaller 2 to 1"), "{text}");
    let text = faults(config("name = \"shvit\"\nlayers = 3") + "\n[supernet]\nwidth = 8\n");
    assert!(text.contains("stages choose their widths and depths themselves"), "{text}");
    assert!(text.contains("as large as the largest network"), "{text}");
    let text = faults(config("name = \"shvit\"").replace("networks = 12", "networks = 5"));
    assert!(text.contains("at least 12 networks, got 5"), "{text}");
    let text = faults(config("name = \"shvit\"").replace("derive_rounds = 1", "method = \"dual\""));
    assert!(text.contains("expected one of reinforce, got \"dual\""), "{text}");
    let text = faults(config("name = \"shvit\"").replace("kind = \"stages\"", "kind = \"darts\""));
    assert!(text.contains("name"), "{text}");
}

#[test]
fn limits_that_no_network_keeps_end_the_run_with_the_closest_one() {
    let limit = "\n[[objective.limit]]\nquantity = \"macs\"\nat_most = 10\n";
    let fixture = Fixture::steady(&(config("name = \"shvit\"\nresolution = 64") + limit));
    let output = fixture.lathe(&["run", "run.toml"]);
    assert_eq!(output.status.code(), Some(3), "{}", stderr(&output));
    let events = events(&fixture.path("runs/stages"));
    let end = &events.last().unwrap()["stop"];
    assert_eq!(end["reason"], "limits_infeasible", "{end}");
    assert!(end["what"].as_str().unwrap().contains("macs"), "{end}");
}
