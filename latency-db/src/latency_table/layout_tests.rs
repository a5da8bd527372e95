//! Layouts of published tables.

use std::{fmt::Write as _, fs, io::Write as _, path::Path};

use lathe_spaces::Space;
use tempfile::TempDir;
use zip::write::SimpleFileOptions;

use super::*;

const CELL: &str = "|nor_conv_3x3~0|+|nor_conv_3x3~0|nor_conv_3x3~1|+|skip_connect~0|none~1|nor_conv_1x1~2|";
const SKIPS: &str = "|skip_connect~0|+|skip_connect~0|skip_connect~1|+|skip_connect~0|none~1|skip_connect~2|";

fn open(path: &Path) -> Result<LatencyTable, LatencyTableError> {
    LatencyTable::open(path, &TableOptions::default())
}

fn csv(text: &str) -> Result<LatencyTable, LatencyTableError> {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("t.csv");
    fs::write(&path, text).unwrap();
    open(&path)
}

#[test]
fn the_long_layout_becomes_columns_and_batches_part_devices() {
    let table = csv(&format!(
        "arch,device,batch,latency_ms\n{CELL},gpu,1,1.5\n{CELL},gpu,32,3\n{CELL},phone,1,7\n{SKIPS},gpu,32,2\n{SKIPS},phone,1,\n"
    ))
    .unwrap();
    assert_eq!(table.layout(), TableLayout::Long);
    assert_eq!(table.space().name, "nas-bench-201");
    assert_eq!(table.devices().collect::<Vec<_>>(), ["gpu_1", "gpu_32", "phone"]);
    assert_eq!(table.genotypes().len(), 2);
    assert_eq!(table.latencies("gpu_1").unwrap(), [Some(1.5), None]);
    assert_eq!(table.latencies("gpu_32").unwrap(), [Some(3.0), Some(2.0)]);
    assert_eq!(table.latencies("phone").unwrap(), [Some(7.0), None]);
    let stages = vec!["8"; 22].join(" ");
    let table = csv(&format!("op_idx,device,latency_ms\n{stages},9,1\n")).unwrap();
    assert_eq!((table.space().name.as_str(), table.devices().next()), ("fbnet", Some("9")));
    let table = csv("arch_index,device,latency_ms\n5,a,1\n7,a,2\n5,b,3\n").unwrap();
    assert_eq!(table.latencies("b").unwrap(), [Some(3.0), None]);
}

#[test]
fn a_latency_that_is_there_twice_is_an_error() {
    let message = csv(&format!("arch,device,latency_ms\n{CELL},a,1\n{SKIPS},a,2\n{CELL},a,3\n"))
        .unwrap_err()
        .to_string();
    assert!(
        message.contains("column `latency_ms`, row 3") && message.contains("on `a` twice, first in row 1"),
        "{message}"
    );
    let message = csv("device,latency_ms\na,1\n").unwrap_err().to_string();
    assert!(message.contains("no column names the architectures"), "{message}");
    let message = csv(&format!("arch,device,latency_ms\n{CELL},a,1\n{SKIPS},,1\n")).unwrap_err().to_string();
    assert!(message.contains("column `device`") && message.contains("no device"), "{message}");
}

/// A list or dictionary of protocol 0.
fn list<T: std::fmt::Display>(kind: char, items: impl IntoIterator<Item = T>) -> String {
    let mut text = "(l".to_owned();
    for item in items {
        let _ = write!(text, "{kind}{item}\na");
    }
    text
}

fn dict<'a>(entries: impl IntoIterator<Item = (&'a str, String)>) -> String {
    let mut text = "(d".to_owned();
    for (key, value) in entries {
        let _ = write!(text, "V{key}\n{value}s");
    }
    text
}

/// As `torch.save` does: a pickle in a stored archive.
fn torch(path: &Path, pickle: &str) {
    let mut archive = zip::ZipWriter::new(fs::File::create(path).unwrap());
    let stored = SimpleFileOptions::default().compression_method(zip::CompressionMethod::Stored);
    archive.start_file("archive/data.pkl", stored).unwrap();
    archive.write_all(format!("{pickle}.").as_bytes()).unwrap();
    archive.start_file("archive/version", stored).unwrap();
    archive.write_all(b"3\n").unwrap();
    archive.finish().unwrap();
}

#[test]
fn helps_cells_are_read_by_their_positions() {
    let folder = TempDir::new().unwrap();
    fs::create_dir(folder.path().join("latency")).unwrap();
    torch(
        &folder.path().join("str_arch2idx.pt"),
        &dict([(SKIPS, "I1\n".to_owned()), (CELL, "I0\n".to_owned())]),
    );
    torch(&folder.path().join("latency/pixel3.pt"), &list('F', [3.5, 0.25]));
    torch(&folder.path().join("latency/phone_32.pt"), &list('I', [16, 33]));
    fs::write(folder.path().join("latency/README"), "no table").unwrap();
    let table = open(folder.path()).unwrap();
    assert_eq!((table.layout(), table.space().name.as_str()), (TableLayout::Help, "nas-bench-201"));
    assert_eq!(table.devices().collect::<Vec<_>>(), ["phone_32", "pixel3"]);
    assert_eq!(table.latencies("pixel3").unwrap(), [Some(3.5), Some(0.25)]);
    assert_eq!(table.space().format(&table.genotypes()[0]), CELL);
    torch(&folder.path().join("latency/short.pt"), &list('F', [1.0]));
    let message = open(folder.path()).unwrap_err().to_string();
    assert!(message.contains("`short` has 1 rows, and there are 2 architectures"), "{message}");
    torch(&folder.path().join("latency/short.pt"), "cnumpy.core.multiarray\n_reconstruct\n");
    let message = open(folder.path()).unwrap_err().to_string();
    assert!(
        message.contains("short.pt") && message.contains("`numpy.core.multiarray._reconstruct`"),
        "{message}"
    );
    let whole = fs::read(folder.path().join("latency/pixel3.pt")).unwrap();
    fs::write(folder.path().join("latency/short.pt"), &whole[..whole.len() / 2]).unwrap();
    assert!(open(folder.path()).unwrap_err().to_string().contains("archive is damaged"));
    torch(
        &folder.path().join("str_arch2idx.pt"),
        &dict([(SKIPS, "I1\n".to_owned()), (CELL, "I1\n".to_owned())]),
    );
    assert!(open(folder.path()).unwrap_err().to_string().contains("out of range or taken"));
}

#[test]
fn helps_stages_are_read_and_folders_of_other_kinds_are_described() {
    let folder = TempDir::new().unwrap();
    let message = open(folder.path()).unwrap_err().to_string();
    assert!(message.contains("a folder without a folder `latency`"), "{message}");
    fs::create_dir(folder.path().join("latency")).unwrap();
    assert!(open(folder.path()).unwrap_err().to_string().contains("neither str_arch2idx.pt"));
    let arch = |choice: u8| dict([("op_idx_list", list('I', vec![choice; 22]))]);
    torch(
        &folder.path().join("metainfo.pt"),
        &dict([("dataset", "Vcifar100\n".into()), ("arch", format!("(l{}a{}a", arch(8), arch(3)))]),
    );
    torch(&folder.path().join("latency/pixel3.pt"), &list('F', [1.5, 2.5]));
    let table = open(folder.path()).unwrap();
    assert_eq!(table.space().name, "fbnet");
    let options = TableOptions { dataset: Some("cifar10".into()), ..TableOptions::default() };
    assert!(LatencyTable::open(folder.path(), &options).unwrap_err().to_string().contains("no data sets"));
    for name in ["t.csv", "t.parquet"] {
        let path = folder.path().join(name);
        table.write(&path).unwrap();
        let again = LatencyTable::read(&path, &Space::fbnet(224, 1000)).unwrap();
        assert_eq!(again.genotypes(), table.genotypes());
        assert_eq!(again.latencies("pixel3").unwrap(), [Some(1.5), Some(2.5)]);
        assert!(matches!(table.write(&path).unwrap_err(), LatencyTableError::Exists { .. }));
    }
    assert!(table.write(&folder.path().join("t.xlsx")).unwrap_err().to_string().contains(".csv or .parquet"));
}

#[test]
fn hw_nas_benchs_data_sets_are_chosen_and_its_rows_checked() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("v1.pickle");
    let write = |pickle: String| fs::write(&path, format!("{pickle}.")).unwrap();
    let latencies = |factor: f64| list('F', (1..=CELLS).map(|row| factor * row as f64));
    let set = |factor: f64| dict([("pixel3_latency", latencies(factor)), ("eyeriss_energy", latencies(1.0))]);
    write(dict([("nasbench201", dict([("cifar10", set(0.5)), ("cifar100", set(2.0))]))]));
    let table = open(&path).unwrap();
    assert_eq!((table.layout(), table.genotypes().len()), (TableLayout::HwNasBench, CELLS));
    assert_eq!(table.devices().collect::<Vec<_>>(), ["pixel3"]);
    assert_eq!(table.latencies("pixel3").unwrap()[1], Some(1.0));
    let all: Vec<Genotype> = table.space().enumerate().unwrap().collect();
    assert_eq!(table.genotypes(), all);
    let of = |dataset: &str| TableOptions { dataset: Some(dataset.into()), ..TableOptions::default() };
    let other = LatencyTable::open(&path, &of("cifar100")).unwrap();
    assert_eq!(other.latencies("pixel3").unwrap()[1], Some(4.0));
    let message = LatencyTable::open(&path, &of("imagenet")).unwrap_err().to_string();
    assert!(message.contains("no data set `imagenet`; it has cifar10, cifar100"), "{message}");
    // With `config` the file says itself which cell a row is.
    let config = |text: &str| dict([("arch_str", format!("V{text}\n"))]);
    let metrics = [
        ("config", format!("(l{}", format!("{}a", config(SKIPS)).repeat(CELLS))),
        ("pixel3_latency", latencies(1.0)),
    ];
    write(dict([("nasbench201", dict([("cifar10", dict(metrics))]))]));
    let table = open(&path).unwrap();
    assert_eq!(table.space().format(&table.genotypes()[0]), SKIPS);
    write(dict([("fbnet", dict([]))]));
    assert!(
        open(&path)
            .unwrap_err()
            .to_string()
            .contains("expected HW-NAS-Bench's part `nasbench201`, got fbnet")
    );
    write("(l".to_owned());
    assert!(open(&path).unwrap_err().to_string().contains("expected a dictionary"));
    let forced = TableOptions { layout: Some(TableLayout::Wide), ..TableOptions::default() };
    let message = LatencyTable::open(&path, &forced).unwrap_err().to_string();
    assert!(message.contains("a pickle, which the layout `wide` that was asked for is not"), "{message}");
}
