//! The store on a real disk.

use std::thread;

use polars::prelude::{Column, ParquetWriter};

use super::*;
use crate::{Outcome, QualityFlag, sample_rows::row};

fn store() -> (tempfile::TempDir, Store) {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(&folder.path().join("db")).unwrap();
    (folder, store)
}

fn everything(store: &Store) -> Vec<Measurement> {
    store.load(&Filter::default()).unwrap()
}

fn write_frame(path: &Path, mut frame: DataFrame) {
    ParquetWriter::new(File::create(path).unwrap()).finish(&mut frame).unwrap();
}

#[test]
fn rows_come_back_as_they_were() {
    let (_folder, store) = store();
    let mut failed = row("b", 2000);
    failed.outcome = Outcome::Crash;
    failed.error = Some("signal 9".into());
    failed.samples_ns.clear();
    failed.samples_per_process.clear();
    failed.output_error = None;
    failed.flags = vec![QualityFlag::NotPinned, QualityFlag::BusyMachine];
    failed.before.load_average = None;
    failed.device.governor = None;
    let mut rows = vec![row("a", 1000), failed];
    let path = store.append("first try: 3/4", &rows).unwrap();
    assert!(path.file_name().unwrap().to_str().unwrap().starts_with("first-try--3-4-"), "{}", path.display());
    rows.sort_by_key(|row| (row.device.fingerprint(), row.id.clone()));
    assert_eq!(everything(&store), rows);
    assert_eq!(read_measurements(&path).unwrap().len(), 2);
    let measured = store.measured(&row("a", 1).device.fingerprint()).unwrap();
    assert_eq!(measured, [WorkloadId("workload-a".into())].into());
    assert_eq!(store.devices().unwrap().iter().map(|device| device.2).collect::<Vec<_>>(), [1, 1]);
}

#[test]
fn an_id_is_stored_and_read_once() {
    let (folder, store) = store();
    store.append("one", &[row("a", 1000)]).unwrap();
    let path = store.append("one", &[row("a", 1000), row("b", 2000), row("b", 2000)]).unwrap();
    assert_eq!(read_measurements(&path).unwrap().len(), 1);
    assert_eq!(store.append("one", &[row("a", 1000)]).unwrap(), folder.path().join("db"));
    // What two writers that did not know of each other leave behind.
    write_measurements(&folder.path().join("db/two-0.parquet"), &[row("a", 9000)]).unwrap();
    let rows = everything(&store);
    assert_eq!(rows.iter().map(|row| row.id.as_str()).collect::<Vec<_>>(), ["a", "b"]);
    assert_eq!(rows[0], row("a", 1000));
}

#[test]
fn filters_select() {
    let (_folder, store) = store();
    let mut other = row("b", 2000);
    other.device.threads = 2;
    other.campaign = "night".into();
    store.append("x", &[row("a", 1000), other.clone()]).unwrap();
    let ids = |filter: Filter| store.load(&filter).unwrap().into_iter().map(|row| row.id).collect::<Vec<_>>();
    assert_eq!(ids(Filter { campaign: Some("night".into()), ..Filter::default() }), ["b"]);
    assert_eq!(ids(Filter { device: Some(other.device.fingerprint()), ..Filter::default() }), ["b"]);
    let workloads = Some([WorkloadId("workload-a".into())].into());
    assert_eq!(ids(Filter { workloads, ..Filter::default() }), ["a"]);
    assert!(ids(Filter { level: Some(lathe_spaces::Level::Network), ..Filter::default() }).is_empty());
}

#[test]
fn what_a_published_table_says_is_kept() {
    let (_folder, store) = store();
    let published = crate::Published {
        source: "lut".into(),
        standard_deviation: Some(lathe_spaces::Micros(1.5)),
        count: None,
    };
    let provenance = crate::Provenance::Published;
    let row = Measurement { provenance, published: Some(published), ..row("a", 1000) };
    store.append("one", std::slice::from_ref(&row)).unwrap();
    assert_eq!(everything(&store), [row]);
}

#[test]
fn how_a_workload_was_executed_is_kept_and_older_files_and_lines_know_nothing_of_it() {
    let (folder, store) = store();
    let execution = crate::Execution {
        nodes: [("cpu".to_owned(), 2), ("xnnpack".to_owned(), 5)].into(),
        precision: Some("f32".into()),
        elsewhere: vec!["pool (MaxPool) on cpu".into()],
        notes: vec!["executed operators: Conv 5".into()],
    };
    let told = Measurement { execution: Some(execution), ..row("a", 1000) };
    store.append("new", std::slice::from_ref(&told)).unwrap();
    assert_eq!(everything(&store), std::slice::from_ref(&told));
    let line = serde_json::to_string(&told).unwrap();
    assert_eq!(serde_json::from_str::<Measurement>(&line).unwrap(), told);

    // A file as it was written before there was such a column, and a line before there was such a key.
    let older = crate::columns::frame(&[row("b", 2000)]).unwrap().drop("execution").unwrap();
    write_frame(&folder.path().join("db/older.parquet"), older);
    assert_eq!(everything(&store), [told, row("b", 2000)]);
    let line = serde_json::to_string(&row("b", 2000)).unwrap();
    assert!(!line.contains("execution"), "{line}");
    assert_eq!(serde_json::from_str::<Measurement>(&line).unwrap().execution, None);
}

#[test]
fn writers_at_the_same_time_lose_nothing() {
    let (_folder, store) = store();
    thread::scope(|scope| {
        for writer in 0..4 {
            let store = &store;
            scope.spawn(move || {
                for part in 0..5 {
                    store
                        .append("night", &[row(&format!("{writer}-{part}"), 1000), row("shared", 5)])
                        .unwrap();
                }
            });
        }
    });
    assert_eq!(everything(&store).len(), 21);
}

#[test]
fn a_truncated_file_is_named() {
    let (_folder, store) = store();
    let path = store.append("one", &[row("a", 1000), row("b", 2000)]).unwrap();
    let bytes = fs::read(&path).unwrap();
    for length in [0, 3, bytes.len() / 2, bytes.len() - 1] {
        fs::write(&path, &bytes[..length]).unwrap();
        for error in
            [store.load(&Filter::default()).unwrap_err(), store.append("two", &[row("c", 1)]).unwrap_err()]
        {
            assert!(matches!(&error, StoreError::Foreign { path: named, .. } if *named == path), "{error}");
            assert!(error.to_string().contains("move the file"), "{error}");
        }
    }
}

#[test]
fn a_file_of_another_program_is_named() {
    let (folder, store) = store();
    let path = folder.path().join("db/other.parquet");
    write_frame(&path, DataFrame::new_infer_height(vec![Column::new("x".into(), vec![1.5_f64])]).unwrap());
    let error = store.load(&Filter::default()).unwrap_err();
    assert!(matches!(&error, StoreError::Foreign { path: named, .. } if *named == path), "{error}");
    fs::remove_file(&path).unwrap();
    fs::write(folder.path().join("db/README.md"), "not a table").unwrap();
    assert!(everything(&store).is_empty());
}

#[test]
fn a_newer_schema_is_refused() {
    let (folder, store) = store();
    let mut frame = columns::frame(&[row("a", 1000)]).unwrap();
    frame.with_column(Column::new("schema_version".into(), vec![columns::SCHEMA_VERSION + 1])).unwrap();
    let path = folder.path().join("db/future.parquet");
    write_frame(&path, frame);
    let error = store.load(&Filter::default()).unwrap_err();
    let StoreError::Newer { path: named, found, supported } = &error else { panic!("{error}") };
    assert_eq!((named, *found, *supported), (&path, 2, 1));
}

#[test]
fn a_file_without_later_columns_gets_their_defaults() {
    let (folder, store) = store();
    let mut frame = columns::frame(&[row("a", 1000)]).unwrap();
    for name in ["flags", "output_error", "peak_rss_kb", "state_after", "agent", "median_us", "published"] {
        frame = frame.drop(name).unwrap();
    }
    write_frame(&folder.path().join("db/old.parquet"), frame);
    store.append("new", &[row("b", 2000)]).unwrap();
    let rows = everything(&store);
    assert_eq!(rows.len(), 2);
    let expected = Measurement {
        output_error: None,
        peak_rss_kb: 0,
        after: crate::MachineState::default(),
        agent: String::new(),
        ..row("a", 1000)
    };
    assert_eq!(rows[0], expected);
}

#[test]
fn a_missing_necessary_column_is_named() {
    let (folder, store) = store();
    let frame = columns::frame(&[row("a", 1000)]).unwrap().drop("samples_ns").unwrap();
    write_frame(&folder.path().join("db/odd.parquet"), frame);
    let error = store.load(&Filter::default()).unwrap_err().to_string();
    assert!(error.contains("samples_ns") && error.contains("odd.parquet"), "{error}");
}

#[test]
fn abandoned_partial_files_are_removed_and_fresh_ones_are_left_alone() {
    let (folder, store) = store();
    store.append("one", &[row("a", 1000)]).unwrap();
    let [old, fresh] =
        ["old", "fresh"].map(|name| folder.path().join(format!("db/.{name}.parquet.1-0.partial")));
    fs::write(&old, b"PAR1half").unwrap();
    fs::write(&fresh, b"PAR1half").unwrap();
    let long_ago = SystemTime::now() - 2 * ABANDONED;
    File::options().write(true).open(&old).unwrap().set_modified(long_ago).unwrap();
    let store = Store::open(&folder.path().join("db")).unwrap();
    assert!(!old.exists() && fresh.exists());
    assert_eq!(everything(&store).len(), 1);
}

#[test]
fn a_folder_that_cannot_be_made_or_written_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    fs::write(&file, b"").unwrap();
    let error = Store::open(&file.join("db")).unwrap_err();
    assert!(matches!(&error, StoreError::Io { .. }) && error.to_string().contains("file/db"), "{error}");
    let (folder, store) = store();
    fs::remove_dir(folder.path().join("db")).unwrap();
    let error = store.append("one", &[row("a", 1000)]).unwrap_err();
    assert!(error.to_string().contains("db"), "{error}");
}

#[test]
fn a_full_disk_leaves_nothing_half_written() {
    // Every write to this device fails as on a full disk; elsewhere there is no such device.
    let Ok(full) = File::options().write(true).open("/dev/full") else { return };
    let mut frame = columns::frame(&[row("a", 1000)]).unwrap();
    assert!(finish(full, &mut frame).is_err());
    let (_folder, store) = store();
    let path = store.directory.join("one.parquet");
    let failed =
        atomic_file::replace(&path, |_| finish(File::options().write(true).open("/dev/full")?, &mut frame));
    assert!(failed.is_err());
    assert_eq!(fs::read_dir(&store.directory).unwrap().count(), 0);
}

#[test]
fn a_copy_of_a_run_is_replaced_whole() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("measurements.parquet");
    write_measurements(&path, &[]).unwrap();
    assert!(read_measurements(&path).unwrap().is_empty());
    write_measurements(&path, &[row("a", 1000)]).unwrap();
    write_measurements(&path, &[row("a", 1000), row("b", 2000)]).unwrap();
    assert_eq!(read_measurements(&path).unwrap(), [row("a", 1000), row("b", 2000)]);
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
}

#[test]
fn exports_hold_the_rows_and_never_overwrite() {
    let (folder, store) = store();
    store.append("one", &[row("a", 1000), row("b", 2000)]).unwrap();
    let path = |name: &str| folder.path().join(name);
    for name in ["x.csv", "x.json", "x.jsonl", "x.parquet"] {
        assert_eq!(store.export(&Filter::default(), &path(name)).unwrap(), 2);
        let before = fs::read(path(name)).unwrap();
        let error = store.export(&Filter::default(), &path(name)).unwrap_err();
        assert!(matches!(&error, StoreError::Exists { path: named } if *named == path(name)), "{error}");
        assert_eq!(fs::read(path(name)).unwrap(), before);
    }
    let rows = [row("a", 1000), row("b", 2000)];
    let json: Vec<Measurement> = serde_json::from_slice(&fs::read(path("x.json")).unwrap()).unwrap();
    assert_eq!(json, rows);
    let lines = fs::read_to_string(path("x.jsonl")).unwrap();
    let lines: Vec<Measurement> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines, rows);
    assert_eq!(read_measurements(&path("x.parquet")).unwrap(), rows);
    let csv = fs::read_to_string(path("x.csv")).unwrap();
    let lines: Vec<&str> = csv.lines().collect();
    assert_eq!(lines.len(), 3);
    assert!(
        lines[1].starts_with("a,campaign,bench,") && lines[1].contains("\"conv \"\"a\"\", 3x3\""),
        "{csv}"
    );
    assert!(lines[1].contains(",60,1,1.002,"), "{csv}");
    let error = store.export(&Filter::default(), &path("x.txt")).unwrap_err();
    assert!(matches!(error, StoreError::Extension { .. }), "{error}");
}
