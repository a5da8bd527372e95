//! Reading tables, good and bad.

use std::{fs, path::PathBuf};

use lathe_spaces::{Nas201Skeleton, Space};
use tempfile::TempDir;

use super::*;

const CONVOLUTIONS: &str =
    "|nor_conv_3x3~0|+|nor_conv_3x3~0|nor_conv_3x3~1|+|skip_connect~0|none~1|nor_conv_1x1~2|";
const SKIPS: &str = "|skip_connect~0|+|skip_connect~0|skip_connect~1|+|skip_connect~0|none~1|skip_connect~2|";

fn nas201() -> Space {
    Space::nas201(Nas201Skeleton { width: 16, cells: 5, resolution: 32, classes: 10 })
}

fn read(name: &str, text: &str, space: &Space) -> Result<LatencyTable, LatencyTableError> {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join(name);
    fs::write(&path, text).unwrap();
    LatencyTable::read(&path, space)
}

fn error(name: &str, text: &str, space: &Space) -> String {
    read(name, text, space).unwrap_err().to_string()
}

#[test]
fn numbers_are_devices_and_what_is_no_latency_is_missing() {
    let text = format!(
        "arch,note,phone,\"server, big\"\r\n{CONVOLUTIONS},\"a \"\"b\"\"\",1.5,7\r\n{SKIPS},c,0,NaN\r\n{SKIPS},d,,-1\r\n"
    );
    let table = read("t.csv", &text, &nas201()).unwrap();
    assert_eq!(table.devices().collect::<Vec<_>>(), ["phone", "server, big"]);
    assert_eq!(table.latencies("phone").unwrap(), [Some(1.5), None, None]);
    assert_eq!(table.latencies("server, big").unwrap(), [Some(7.0), None, None]);
    assert_eq!(table.codes()[0].as_slice()[..6], [3, 3, 3, 1, 0, 2]);
    assert_eq!(table.genotypes()[0], nas201().parse(CONVOLUTIONS).unwrap());
}

#[test]
fn the_benchmarks_index_is_an_architecture_too() {
    let table = read("t.csv", "arch_index,phone\n0,1\n15624,2\n", &nas201()).unwrap();
    let all: Vec<Genotype> = nas201().enumerate().unwrap().collect();
    assert_eq!(table.genotypes(), [all[0].clone(), all[15_624].clone()]);
    let message = error("t.csv", "arch_index,phone\n15625,1\n", &nas201());
    assert!(
        message.contains("column `arch_index`, row 1: expected an index below 15625, got 15625"),
        "{message}"
    );
}

#[test]
fn indices_and_names_of_stages_say_the_same() {
    let space = Space::fbnet(224, 1000);
    let indices = vec!["8"; 22].join(" ");
    let names = vec!["skip"; 22].join(" ");
    let table = read("t.csv", &format!("op_idx,phone\n{indices},1\n"), &space).unwrap();
    assert_eq!(table.codes(), read("t.csv", &format!("ops,phone\n{names},1\n"), &space).unwrap().codes());
}

#[test]
fn errors_say_where() {
    let space = nas201();
    let message = error("t.csv", &format!("arch,phone\n{SKIPS},1\n|nonsense~0|,2\n"), &space);
    assert!(message.contains("t.csv, column `arch`, row 2: "), "{message}");
    let message = error("t.csv", &format!("arch,phone\n{SKIPS},1\n{SKIPS},fast\n"), &space);
    assert!(message.ends_with("column `phone`, row 2: expected a number, got \"fast\""), "{message}");
    let message = error("t.csv", &format!("arch,phone\n{SKIPS}\n"), &space);
    assert!(message.contains("row 1 has 1 cells, and the header has 2"), "{message}");
    let message = error("t.csv", &format!("cell,phone\n{SKIPS},1\n"), &space);
    assert!(message.contains("expected one of arch, arch_index, got columns cell, phone"), "{message}");
    assert!(error("t.csv", &format!("arch\n{SKIPS}\n"), &space).contains("no column of latencies"));
    assert!(error("t.csv", "", &space).contains("it is empty"));
    assert!(error("t.csv", "\"arch", &space).contains("a quote is opened and never closed"));
    assert!(error("t.txt", "", &space).contains("found an empty file"));
    let missing = LatencyTable::read(&PathBuf::from("no/such.csv"), &space).unwrap_err().to_string();
    assert!(missing.contains("no/such.csv"), "{missing}");
}

#[cfg(feature = "store")]
#[test]
fn a_damaged_parquet_file_is_named() {
    let message = error("t.parquet", "PAR1 and then nothing", &nas201());
    assert!(message.contains("t.parquet"), "{message}");
}

#[test]
fn a_device_that_is_misspelt_is_guessed_and_a_strange_one_gets_the_list() {
    let table = read("t.csv", &format!("arch,pixel3_1,server\n{SKIPS},1,2\n"), &nas201()).unwrap();
    let message = table.latencies("pixel_3").unwrap_err().to_string();
    assert!(message.contains("`pixel_3`") && message.contains("did you mean `pixel3_1`?"), "{message}");
    let message = table.latencies("toaster").unwrap_err().to_string();
    assert!(message.contains("it has pixel3_1, server"), "{message}");
}
