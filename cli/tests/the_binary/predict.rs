//! `lathe fit --device` and `lathe predict`, with a real agent and a real engine.

use std::fs;

use serde_json::Value;

use crate::fixture::{Fixture, stderr};

/// A space that is quick to time.
const SPACE: [&str; 8] = ["--space", "darts", "--width", "4", "--layers", "3", "--resolution", "8"];

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap()
}

/// A database of ten networks, and the model that was fitted to them.
fn learned() -> Fixture {
    let fixture = Fixture::new("");
    let fit = ["fit", "--device", "local", "--budget", "10", "--seconds", "0.02", "--out", "a.json"];
    let told =
        json(&fixture.succeed(&[&fit[..], &SPACE, &["--format", "json", "--database", "db"]].concat()));
    assert_eq!((told["graphs"].as_u64(), told["networks"].as_u64()), (Some(10), Some(10)));
    assert_eq!(told["validation"]["graphs"], 10);
    fixture
}

#[test]
fn a_device_is_learned_and_networks_are_predicted_with_their_origin() {
    let fixture = learned();
    let file = json(&fs::read_to_string(fixture.path("a.json")).unwrap());
    assert_eq!(file["header"]["rows"], 10);
    assert_eq!(file["header"]["provenance"], "measured");
    assert!(file["header"]["created"].as_str().unwrap().ends_with('Z'));

    // The same answer for a genotype and for its file, and the parts add up to it.
    let genotype = ["PC_DARTS_cifar"];
    fixture.succeed(
        &[&["space", "export", "darts"], &genotype[..], &SPACE[2..], &["--file", "p.onnx"]].concat(),
    );
    let predict = |words: &[&str]| {
        json(&fixture.succeed(&[&["predict", "--device", "local", "--format", "json"], words].concat()))
    };
    let answer = predict(&["p.onnx", "--model", "a.json"]);
    let number = |value: &Value| value.as_f64().unwrap();
    let prediction = &answer["prediction_us"];
    let (low, mean, high) =
        (number(&prediction["low"]), number(&prediction["mean"]), number(&prediction["high"]));
    // The lower end may be nothing where a busy machine made all ten rows noisy.
    assert!(0.0 <= low && low < mean && mean < high, "{answer}");
    let parts: f64 = answer["kernels"].as_array().unwrap().iter().map(|part| number(&part["latency"])).sum();
    assert!((parts + number(&answer["rest_us"]) - mean).abs() < 1e-6 * mean);
    assert_ne!(prediction["source"], "measured");
    let by_name = predict(&[&genotype[..], &SPACE, &["--database", "db"]].concat());
    assert!((number(&by_name["prediction_us"]["mean"]) / mean - 1.0).abs() < 1e-6);

    // A network that was timed is answered by its measurement.
    let rows = fixture.succeed(&["db", "list", "--database", "db", "--format", "json"]);
    let row = json(rows.lines().next().unwrap());
    let known = predict(&[&[row["label"].as_str().unwrap()], &SPACE[..], &["--model", "a.json"]].concat());
    assert_eq!(known["prediction_us"]["source"], "measured");
    assert_eq!(known["prediction_us"]["mean"], row["summary"]["median"]);

    // A model is never overwritten, and that is found out before anything is timed.
    let again = ["fit", "--device", "local", "--budget", "3", "--database", "db", "--out", "a.json"];
    let refused = fixture.lathe(&[&again[..], &SPACE].concat());
    assert_eq!(refused.status.code(), Some(1));
    assert!(stderr(&refused).contains("the file exists"), "{}", stderr(&refused));
    assert_eq!(fixture.succeed(&["db", "list", "--database", "db", "--format", "json"]), rows);
}

#[test]
fn what_is_not_known_is_listed_and_not_guessed() {
    let fixture = learned();
    let export = ["space", "export", "darts", "PC_DARTS_cifar", "--file", "p.onnx"];
    fixture.succeed(&[&export[..], &SPACE[2..]].concat());
    let bytes = fs::read(fixture.path("p.onnx")).unwrap();

    let relu = b"Relu";
    let mut other = bytes.clone();
    let place = bytes.windows(4).position(|window| window == relu).unwrap();
    other[place..place + 4].copy_from_slice(b"Selu");
    fs::write(fixture.path("selu.onnx"), &other).unwrap();
    let predict = |words: &[&str]| {
        let database = ["--device", "local", "--database", "db", "--format", "json"];
        fixture.lathe(&[&["predict"], words, &database[..]].concat())
    };
    let refused = predict(&["selu.onnx"]);
    let message = stderr(&refused);
    assert_eq!(refused.status.code(), Some(1));
    assert!(message.contains("Selu, 1x") && message.contains("--ignore-unknown"), "{message}");
    let partial = predict(&["selu.onnx", "--ignore-unknown"]);
    assert!(partial.status.success(), "{}", stderr(&partial));
    assert_eq!(json(&String::from_utf8(partial.stdout).unwrap())["partial"], true);

    fs::write(fixture.path("half.onnx"), &bytes[..bytes.len() / 2]).unwrap();
    assert!(stderr(&predict(&["half.onnx"])).contains("cut off or not ONNX"));
    assert!(stderr(&predict(&["none.onnx"])).contains("give an ONNX file"));
    let nobody = fixture.lathe(&["predict", "p.onnx", "--device", "phone", "--database", "db"]);
    let message = stderr(&nobody);
    assert!(message.contains("the device \"phone\": the database db has local"), "{message}");
    let nothing = fixture.lathe(&["predict", "p.onnx", "--device", "local", "--database", "nowhere"]);
    assert!(stderr(&nothing).contains("there is no such directory"));
    let aimless = fixture.lathe(&["fit", "--device", "local", "--budget", "3"]);
    assert!(stderr(&aimless).contains("failed to spend a budget of 3 measurements"));
}

#[test]
fn fusions_are_detected_and_kernels_of_a_file_are_timed() {
    let fixture = Fixture::new("");
    let export = ["space", "export", "darts", "PC_DARTS_cifar", "--file", "p.onnx"];
    fixture.succeed(&[&export[..], &SPACE[2..]].concat());
    let plan = ["fit", "--device", "local", "--database", "db", "--network", "p.onnx", "--format", "json"];
    let planned = fixture.succeed(&[&plan[..], &["--budget", "9", "--dry-run"]].concat());
    assert!(planned.lines().all(|line| json(line)["level"] == "operator"), "{planned}");
    assert!(!planned.is_empty());
    let list = ["db", "list", "--database", "db", "--format", "json"];
    assert_eq!(fixture.succeed(&list), "", "a plan times nothing");

    let fit = ["--budget", "9", "--detect-fusion", "--seconds", "0.02", "--out", "a.json"];
    let told = fixture.succeed(&[&plan[..], &fit].concat());
    let lines: Vec<Value> = told.lines().map(json).collect();
    let (last, pairs) = lines.split_last().unwrap();
    assert_eq!(pairs.len(), 17);
    // ONNX Runtime folds a batch norm into the convolution before it, and never a pool into one.
    let fused = |first: &str, second: &str| {
        pairs.iter().find(|pair| pair["first"] == first && pair["second"] == second).unwrap()["fused"].clone()
    };
    assert_eq!(fused("max_pool", "batch_norm"), false);
    assert_eq!(last["fusion_detected"], true);
    let rows = fixture.succeed(&list);
    let kernels = rows.lines().count() - 28;
    assert!((1..=9).contains(&kernels), "{kernels}");
    let header = &json(&fs::read_to_string(fixture.path("a.json")).unwrap())["header"];
    assert_eq!(header["fusion"].as_array().unwrap().len(), 17);
}

#[test]
fn a_table_of_other_devices_helps_to_learn_a_new_one() {
    let fixture = Fixture::new("");
    let skeleton = ["--width", "4", "--layers", "1", "--resolution", "8"];
    let cells = fixture.succeed(&["space", "sample", "nas201", "-n", "80", "--seed", "1"]);
    let mut table = "arch,phone,laptop\n".to_owned();
    for cell in cells.lines() {
        let cost = |operation: &str| cell.matches(operation).count() as f64;
        let phone = 3.0 + 2.0 * cost("nor_conv_3x3") + cost("nor_conv_1x1") + 0.5 * cost("avg_pool");
        table += &[cell, &phone.to_string(), &(1.0 + phone / 4.0).to_string()].join(",");
        table.push('\n');
    }
    fs::write(fixture.path("others.csv"), table).unwrap();
    let fit =
        ["fit", "--device", "local", "--space", "nas201", "--sources", "others.csv", "--database", "db"];
    let with = |words: &[&str]| fixture.lathe(&[&fit[..], &skeleton, words].concat());

    let wrong = with(&["--budget", "8", "--columns", "phon"]);
    assert!(stderr(&wrong).contains("did you mean `phone`?"), "{}", stderr(&wrong));
    let few = with(&[]);
    assert!(stderr(&few).contains("failed to"), "{}", stderr(&few));

    let told = with(&["--budget", "8", "--seconds", "0.02", "--format", "json"]);
    assert!(told.status.success(), "{}", stderr(&told));
    let told = json(&String::from_utf8(told.stdout).unwrap());
    assert_eq!((told["architectures"].as_u64(), told["model"].as_str()), (Some(8), Some("local-table.json")));
    assert_eq!(told["sources"], serde_json::json!(["laptop", "phone"]));
    let header = &json(&fs::read_to_string(fixture.path("local-table.json")).unwrap())["header"];
    assert_eq!((header["rows"].as_u64(), header["table"].as_str()), (Some(8), Some("others.csv")));

    let model = ["--device", "local", "--model", "local-table.json", "--format", "json"];
    let predict = |cell: &str, space: &str| {
        fixture.lathe(&[&["predict", cell, "--space", space], &skeleton[..], &model].concat())
    };
    let rows = fixture.succeed(&["db", "list", "--database", "db", "--format", "json"]);
    let row = json(rows.lines().next().unwrap());
    let known = predict(row["label"].as_str().unwrap(), "nas201");
    assert!(known.status.success(), "{}", stderr(&known));
    let known = json(&String::from_utf8(known.stdout).unwrap());
    assert_eq!(known["prediction_us"]["source"], "measured");
    let median = row["summary"]["median"].as_f64().unwrap();
    assert!((known["prediction_us"]["mean"].as_f64().unwrap() / median - 1.0).abs() < 1e-9);
    let unmeasured = cells.lines().find(|cell| !rows.contains(*cell)).unwrap();
    let answer = json(&String::from_utf8(predict(unmeasured, "nas201").stdout).unwrap());
    let bound = |name: &str| answer["prediction_us"][name].as_f64().unwrap();
    // Eight hasty measurements may leave zero inside the interval.
    assert!(0.0 <= bound("low") && bound("low") < bound("mean") && bound("mean") < bound("high"), "{answer}");
    assert_ne!(answer["prediction_us"]["source"], "measured");
    let foreign = predict("PC_DARTS_cifar", "darts");
    assert!(stderr(&foreign).contains("local-table.json knows architectures"), "{}", stderr(&foreign));
}
