//! `lathe table`, on files as their authors publish them, written here.

use std::{fs, path::Path, process::Output};

use lathe_latency_db::{LookupTable, Measurement, Provenance, Store};
use lathe_spaces::{Level, Nas201Skeleton, NetworkOptions, Space, Stream, Workload};
use serde_json::Value;

use crate::fixture::{Fixture, stderr};

const LOOKUP: &str = "\
expanded_conv-input:56x56x24-output:28x28x32-expand:144-kernel:5-stride:2-idskip:0-se:0-hs:0:
  count: 54
  mean: 4.5
  std: 0.25
expanded_conv-input:28x28x32-output:28x28x32-expand:16-kernel:3-stride:1-idskip:1-se:1-hs:0:
  count: 50
  mean: 1.25
  std: 0.125
";

fn run(fixture: &Fixture, words: &[&str]) -> Output {
    fixture.command(words).output().unwrap()
}

fn good(fixture: &Fixture, words: &[&str]) -> String {
    let output = run(fixture, words);
    assert!(output.status.success(), "{words:?}: {}", stderr(&output));
    String::from_utf8(output.stdout).unwrap()
}

fn bad(fixture: &Fixture, words: &[&str]) -> String {
    let output = run(fixture, words);
    assert_eq!(output.status.code(), Some(1), "{words:?}");
    // miette folds lines; what is looked for may stand across them.
    stderr(&output).replace(['\n', '│'], " ").split_whitespace().collect::<Vec<_>>().join(" ")
}

/// HW-NAS-Bench's structure in protocol 2; a device's latencies are its factor times 1, 2, 3, …
fn hw_nas_bench(path: &Path, count: usize) {
    let text = |bytes: &mut Vec<u8>, text: &str| {
        bytes.push(b'X');
        bytes.extend((text.len() as u32).to_le_bytes());
        bytes.extend(text.as_bytes());
    };
    let mut bytes = vec![0x80, 2, b'}'];
    text(&mut bytes, "nasbench201");
    bytes.push(b'}');
    for dataset in ["cifar10", "cifar100"] {
        text(&mut bytes, dataset);
        bytes.push(b'}');
        for (metric, factor) in [("pixel3_latency", 0.5), ("edgegpu_energy", 9.0), ("fpga_latency", 2.0)] {
            text(&mut bytes, metric);
            bytes.extend(b"](");
            for row in 1..=count {
                bytes.push(b'G');
                bytes.extend((factor * row as f64).to_be_bytes());
            }
            bytes.extend(b"es");
        }
        bytes.push(b's');
    }
    bytes.extend(b"s.");
    fs::write(path, bytes).unwrap();
}

#[test]
fn hw_nas_bench_is_shown_and_converted_in_the_official_order() {
    let fixture = Fixture::new("");
    hw_nas_bench(&fixture.path("HW-NAS-Bench-v1_0.pickle"), 15_625);
    let shown = good(&fixture, &["table", "show", "HW-NAS-Bench-v1_0.pickle", "--format", "json"]);
    let shown: Value = serde_json::from_str(&shown).unwrap();
    assert_eq!((&shown["layout"], &shown["space"]), (&"hw-nas-bench".into(), &"nas-bench-201".into()));
    assert_eq!(shown["rows"], 15_625);
    let devices = shown["devices"].as_array().unwrap();
    // Energy is no latency.
    assert_eq!(devices.len(), 2);
    assert_eq!((&devices[0]["device"], &devices[0]["first_ms"]), (&"fpga".into(), &2.0.into()));
    for name in ["t.csv", "t.parquet"] {
        let words = ["table", "convert", "HW-NAS-Bench-v1_0.pickle", name];
        good(&fixture, &words);
        assert!(bad(&fixture, &words).contains("the file exists"));
        let again = good(&fixture, &["table", "show", name, "--format", "json"]);
        let again: Value = serde_json::from_str(&again).unwrap();
        assert_eq!((&again["devices"], &again["layout"]), (&shown["devices"], &"wide".into()));
    }
    let text = fs::read_to_string(fixture.path("t.csv")).unwrap();
    let second = text.lines().nth(2).unwrap();
    // Number 1 of the benchmark.
    assert_eq!(
        second,
        "|nor_conv_3x3~0|+|nor_conv_3x3~0|avg_pool_3x3~1|+|skip_connect~0|nor_conv_3x3~1|skip_connect~2|,4,1"
    );
    assert!(good(&fixture, &["table", "show", "t.parquet"]).contains("fpga"));
}

#[test]
fn what_is_wrong_with_a_table_is_said() {
    let fixture = Fixture::new("");
    let pickle = fixture.path("t.pickle");
    hw_nas_bench(&pickle, 100);
    let message = bad(&fixture, &["table", "show", "t.pickle"]);
    assert!(message.contains("has 100 rows, and there are 15625 architectures"), "{message}");
    let bytes = fs::read(&pickle).unwrap();
    fs::write(&pickle, &bytes[..bytes.len() / 2]).unwrap();
    let message = bad(&fixture, &["table", "show", "t.pickle"]);
    assert!(message.contains("the file ends in the middle of the pickle"), "{message}");
    let marker = fixture.path("executed");
    fs::write(&pickle, format!("cposix\nsystem\n(S'touch {}'\ntR.", marker.display())).unwrap();
    let message = bad(&fixture, &["table", "show", "t.pickle"]);
    assert!(message.contains("`posix.system`") && !marker.exists(), "{message}");
    fs::write(fixture.path("t.txt"), "arch pixel3").unwrap();
    let message = bad(&fixture, &["table", "show", "t.txt"]);
    assert!(
        message.contains("recognise the layout of t.txt") && message.contains("hw-nas-bench"),
        "{message}"
    );
    let message = bad(&fixture, &["table", "show", "t.txt", "--layout", "help"]);
    assert!(message.contains("recognise the layout"), "{message}");
    fs::write(fixture.path("t.yaml"), LOOKUP.replace("4.5", "-4.5")).unwrap();
    let message = bad(&fixture, &["table", "show", "t.yaml"]);
    assert!(message.contains("t.yaml, line 1") && message.contains("got -4.5"), "{message}");
    assert!(bad(&fixture, &["table", "convert", "t.yaml", "t.csv"]).contains("lathe table import"));
    assert!(bad(&fixture, &["table", "show", "nowhere.csv"]).contains("nowhere.csv"));
}

#[test]
fn published_operators_go_in_and_come_out_and_are_called_what_they_are() {
    let fixture = Fixture::new("");
    fs::write(fixture.path("phone.yaml"), LOOKUP).unwrap();
    let shown = good(&fixture, &["table", "show", "phone.yaml"]);
    assert!(shown.contains("16 is less than the 32 channels"), "{shown}");
    let words = ["table", "import", "phone.yaml", "--device", "note10", "--database", "db"];
    let output = run(&fixture, &words);
    assert!(output.status.success());
    assert!(
        stderr(&output).contains("1 of 2 operators")
            && stderr(&output).contains("not imported: expanded_conv")
    );
    good(&fixture, &words);
    let listed = good(&fixture, &["db", "list", "--database", "db", "--format", "json"]);
    assert_eq!(listed.lines().count(), 1, "a second import adds nothing");
    let row: Value = serde_json::from_str(&listed).unwrap();
    assert_eq!((&row["provenance"], &row["published"]["count"]), (&"published".into(), &54.into()));
    let one = good(&fixture, &["db", "show", row["id"].as_str().unwrap(), "--database", "db"]);
    assert!(one.contains("not measured by Lathe") && one.contains("standard deviation 250.0"), "{one}");
    let words = ["table", "export", "out.yaml", "--layout", "ofa", "--device", "note10", "--database", "db"];
    good(&fixture, &words);
    assert!(bad(&fixture, &words).contains("the file exists"));
    let first: Vec<&str> = LOOKUP.lines().take(4).collect();
    assert_eq!(fs::read_to_string(fixture.path("out.yaml")).unwrap().lines().collect::<Vec<_>>(), first);
    let other =
        ["table", "export", "p.yaml", "--layout", "proxylessnas", "--device", "note10", "--database", "db"];
    good(&fixture, &other);
    let text = fs::read_to_string(fixture.path("p.yaml")).unwrap();
    assert!(
        text.starts_with(
            "expanded_conv-input:56x56x24-output:28x28x32-expand:6-kernel:5-stride:2-idskip:0:\n"
        ),
        "{text}"
    );
    let message = bad(
        &fixture,
        &[
            "table",
            "export",
            "c.csv",
            "--layout",
            "csv",
            "--device",
            "note10",
            "--database",
            "db",
            "--space",
            "nas201",
        ],
    );
    assert!(message.contains("none of 0 measured networks is known"), "{message}");
}

#[test]
fn what_was_measured_comes_out_as_tables() {
    let fixture = Fixture::new("");
    fs::write(fixture.path("phone.yaml"), LOOKUP).unwrap();
    let base =
        LookupTable::read(&fixture.path("phone.yaml")).unwrap().import("local", "t").measurements.remove(0);
    let measured = |workload: &Workload, label: &str, nanos: u64| Measurement {
        id: format!("{label}-{}", workload.id()),
        workload: workload.id(),
        label: label.to_owned(),
        level: workload.level,
        macs: workload.graph.macs(),
        provenance: Provenance::Measured,
        samples_ns: vec![nanos; 4],
        samples_per_process: vec![4],
        published: None,
        execution: None,
        ..base.clone()
    };
    let cells = Space::nas201(Nas201Skeleton { width: 4, cells: 1, resolution: 8, classes: 10 });
    let drawn: Vec<_> =
        (0..3).map(|index| cells.sample(&mut Stream::new(3, "fit-networks", index))).collect();
    let mut rows = Vec::new();
    for (index, genotype) in drawn.iter().enumerate() {
        let graph = cells.network(genotype, NetworkOptions::default()).unwrap();
        let label = ["fit-0", "fit-1", "searched"][index];
        rows.push(measured(
            &Workload::new(label, Level::Network, graph),
            label,
            1_500_000 * (index as u64 + 1),
        ));
    }
    let stages = Space::fbnet(32, 10).workloads().unwrap();
    rows.extend(stages.iter().map(|workload| measured(workload, &workload.label, 2_000_000)));
    Store::open(&fixture.path("db")).unwrap().append("night", &rows).unwrap();

    let words = "table export nets.csv --layout csv --device local --database db --seed 3 --space nas201 --width 4 \
                 --layers 1 --resolution 8";
    good(&fixture, &words.split_whitespace().collect::<Vec<_>>());
    let text = fs::read_to_string(fixture.path("nets.csv")).unwrap();
    for (index, genotype) in drawn.iter().enumerate() {
        let line = format!("{},{}", cells.format(genotype), 1.5 * (index as f64 + 1.0));
        assert!(text.lines().any(|known| known == line), "{line} is not in:\n{text}");
    }
    assert_eq!(text.lines().count(), 4);
    let words = "table export lut.yaml --layout ofa --device local --database db --space fbnet --resolution 32 --classes 10";
    good(&fixture, &words.split_whitespace().collect::<Vec<_>>());
    let lut = LookupTable::read(&fixture.path("lut.yaml")).unwrap();
    assert!(lut.rows().len() > 20, "{}", lut.rows().len());
    assert!(
        lut.rows()
            .iter()
            .all(|(_, figures)| figures.count == Some(4) && (figures.mean_ms - 2.0).abs() < 1e-9)
    );
    let message = bad(
        &fixture,
        &["table", "export", "x.yaml", "--layout", "ofa", "--device", "local", "--database", "db"],
    );
    assert!(
        message.contains("has a name in tables of ofa") && message.contains("--space fbnet"),
        "{message}"
    );
}
