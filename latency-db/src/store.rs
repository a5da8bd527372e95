//! The append-only store of measurements.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use lathe_spaces::WorkloadId;
use polars::prelude::{DataFrame, ParquetReader, ParquetWriter, SerReader};
use sha2::{Digest, Sha256};

use crate::{Device, Filter, Measurement, StoreError, atomic_file, columns, device::hexadecimal, export};

/// After this time a file that is still being written has lost its writer.
const ABANDONED: Duration = Duration::from_hours(1);

/// A folder of Parquet files, one new file per append. Files are never changed.
///
/// Any program that reads Parquet can query it. One row per measurement, with these columns:
///
/// | column | type | content |
/// |---|---|---|
/// | `schema_version` | u32 | version of these columns: 1 |
/// | `id`, `campaign`, `agent` | text | names of the record, of the campaign and version of the agent |
/// | `workload`, `label` | text | stable id and readable name of what was timed |
/// | `level`, `precision` | text | `operator`, `fixed` or `network`; `fp32` or `int8` |
/// | `macs` | u64 | multiply-accumulates |
/// | `device_fingerprint`, `device_name` | text | what must be equal for latencies to be comparable; alias |
/// | `device`, `protocol` | text, JSON | [`Device`] and [`crate::Protocol`] in full |
/// | `provenance`, `outcome`, `error` | text | words of [`crate::Provenance`], [`crate::Outcome`]; message or null |
/// | `median_us` | f64 | median of the samples in microseconds; null when not usable |
/// | `samples_ns` | list of u64 | every sample in nanoseconds |
/// | `samples_per_process` | list of u64 | how many of them each process made |
/// | `batch`, `warmup_runs` | u64 | runs per sample; runs before the first sample |
/// | `load_ns`, `first_run_ns` | u64 | time to load the model and of the very first run, nanoseconds |
/// | `peak_rss_kb` | u64 | peak memory in kilobytes |
/// | `output_error` | f64 | relative deviation of the output from the reference; null if unknown |
/// | `state_before`, `state_after` | text, JSON | [`crate::MachineState`] |
/// | `flags` | text, JSON | list of [`crate::QualityFlag`] |
/// | `rejected` | text, JSON | list of [`crate::Rejected`] attempts with all their samples, or null |
/// | `published` | text, JSON | [`crate::Published`] of a row that was taken from a published table, or null |
/// | `execution` | text, JSON | [`crate::Execution`]: providers, precision, or null |
#[derive(Clone, Debug)]
pub struct Store {
    pub(crate) directory: PathBuf,
}

impl Store {
    /// Opens a store; creates its folder if there is none. Files that a killed writer left
    /// half-written more than an hour ago are removed.
    pub fn open(directory: &Path) -> Result<Self, StoreError> {
        fs::create_dir_all(directory).map_err(StoreError::io("create the folder", directory))?;
        let store = Self { directory: directory.to_owned() };
        for path in store.paths(atomic_file::PARTIAL)? {
            let age = fs::metadata(&path)
                .and_then(|data| data.modified())
                .map(|at| SystemTime::now().duration_since(at).unwrap_or_default());
            if age.is_ok_and(|age| age > ABANDONED) {
                // A store on a read-only disk can still be read: nothing reads these files.
                let _ = fs::remove_file(&path);
            }
        }
        Ok(store)
    }

    /// Adds measurements as one new file, `<campaign>-<hash>.parquet`, and returns its path. Rows
    /// whose id is stored already (a retry) are skipped; if none is left, nothing is written and the
    /// folder's path is returned.
    ///
    /// The file appears whole or not at all. Writers don't disturb each other: names are unique, and
    /// an id that two of them wrote at once is read once.
    pub fn append(&self, campaign: &str, rows: &[Measurement]) -> Result<PathBuf, StoreError> {
        let mut known = self.ids()?;
        let fresh: Vec<Measurement> =
            rows.iter().filter(|row| known.insert(row.id.clone())).cloned().collect();
        if fresh.is_empty() {
            return Ok(self.directory.clone());
        }
        let mut hash = Sha256::new();
        for row in &fresh {
            hash.update(row.id.as_bytes());
            hash.update([0]);
        }
        let hash = hexadecimal(&hash.finalize()[..6]);
        let path = self.directory.join(format!("{}-{hash}.parquet", file_name(campaign)));
        write_measurements(&path, &fresh)?;
        Ok(path)
    }

    /// The wanted measurements, each id once (files in the order of their names, the first one
    /// wins), sorted by device fingerprint, campaign and id.
    pub fn load(&self, filter: &Filter) -> Result<Vec<Measurement>, StoreError> {
        let mut seen = BTreeSet::new();
        let mut rows = Vec::new();
        for path in self.paths("parquet")? {
            for row in read_measurements(&path)? {
                if filter.wants(&row) && seen.insert(row.id.clone()) {
                    rows.push((row.device.fingerprint(), row));
                }
            }
        }
        rows.sort_by(|(left_device, left), (right_device, right)| {
            (left_device, &left.campaign, &left.id).cmp(&(right_device, &right.campaign, &right.id))
        });
        Ok(rows.into_iter().map(|(_, row)| row).collect())
    }

    /// Workloads that have a usable measurement on a device.
    pub fn measured(&self, fingerprint: &str) -> Result<BTreeSet<WorkloadId>, StoreError> {
        let filter = Filter { device: Some(fingerprint.to_owned()), ..Filter::default() };
        Ok(self.load(&filter)?.into_iter().filter(Measurement::usable).map(|row| row.workload).collect())
    }

    /// Every device with its fingerprint and its number of measurements, by fingerprint. The alias
    /// is the one of the first record.
    pub fn devices(&self) -> Result<Vec<(String, Device, usize)>, StoreError> {
        let mut devices: BTreeMap<String, (Device, usize)> = BTreeMap::new();
        for row in self.load(&Filter::default())? {
            devices.entry(row.device.fingerprint()).or_insert((row.device, 0)).1 += 1;
        }
        Ok(devices.into_iter().map(|(fingerprint, (device, count))| (fingerprint, device, count)).collect())
    }

    /// Writes the wanted measurements to a new file, never over an existing one, and returns their
    /// number. The extension says the format: `.csv` (a line of figures per measurement, with the
    /// interval, without the samples), `.json` (one array) or `.jsonl` (one record per line), both
    /// with everything, or `.parquet` (the store's own columns).
    pub fn export(&self, filter: &Filter, path: &Path) -> Result<usize, StoreError> {
        let format = export::Format::of(path)?;
        let rows = self.load(filter)?;
        export::write(format, path, &rows)?;
        Ok(rows.len())
    }

    fn ids(&self) -> Result<BTreeSet<String>, StoreError> {
        let mut ids = BTreeSet::new();
        for path in self.paths("parquet")? {
            let frame = read_frame(&path, Some(&["schema_version", "id"]))?;
            let foreign = |reason| StoreError::Foreign { path: path.clone(), reason };
            let column = columns::Texts::required(&frame, "id").map_err(foreign)?;
            for row in 0..frame.height() {
                ids.insert(column.at(row).map_err(foreign)?.to_owned());
            }
        }
        Ok(ids)
    }

    /// Files of the folder with an extension, by name.
    fn paths(&self, extension: &str) -> Result<Vec<PathBuf>, StoreError> {
        let entries =
            fs::read_dir(&self.directory).map_err(StoreError::io("read the folder", &self.directory))?;
        let mut paths = Vec::new();
        for entry in entries {
            let path = entry.map_err(StoreError::io("read the folder", &self.directory))?.path();
            if path.extension().is_some_and(|found| found == extension) && path.is_file() {
                paths.push(path);
            }
        }
        paths.sort();
        Ok(paths)
    }
}

/// Writes measurements to one Parquet file with the columns of [`Store`]; an existing file is
/// replaced in one step.
pub fn write_measurements(path: &Path, rows: &[Measurement]) -> Result<(), StoreError> {
    let mut frame = encode(path, rows)?;
    atomic_file::replace(path, |writer| finish(writer, &mut frame)).map_err(StoreError::io("write", path))
}

pub(crate) fn encode(path: &Path, rows: &[Measurement]) -> Result<DataFrame, StoreError> {
    columns::frame(rows)
        .map_err(|error| StoreError::Encode { path: path.to_owned(), reason: error.to_string() })
}

pub(crate) fn finish(writer: impl io::Write, frame: &mut DataFrame) -> io::Result<()> {
    ParquetWriter::new(writer).finish(frame).map(|_| ()).map_err(io::Error::other)
}

/// Reads a file that [`write_measurements`] or [`Store::append`] wrote.
pub fn read_measurements(path: &Path) -> Result<Vec<Measurement>, StoreError> {
    let frame = read_frame(path, None)?;
    columns::measurements(&frame).map_err(|reason| StoreError::Foreign { path: path.to_owned(), reason })
}

fn read_frame(path: &Path, wanted: Option<&[&str]>) -> Result<DataFrame, StoreError> {
    let foreign = |reason: String| StoreError::Foreign { path: path.to_owned(), reason };
    let file = File::open(path).map_err(StoreError::io("read", path))?;
    let mut reader = ParquetReader::new(file);
    let schema = reader.schema().map_err(|error| foreign(format!("not a whole Parquet file ({error})")))?;
    let strange = || foreign("it was not written by lathe (it has no column `schema_version`)".to_owned());
    if !schema.contains("schema_version") {
        return Err(strange());
    }
    let projection = wanted.map(|names| {
        names.iter().filter(|name| schema.contains(name)).map(|&name| name.to_owned()).collect::<Vec<_>>()
    });
    let frame = reader
        .with_columns(projection)
        .finish()
        .map_err(|error| foreign(format!("not a whole Parquet file ({error})")))?;
    match columns::version(&frame) {
        None => Err(strange()),
        Some(found) if found > columns::SCHEMA_VERSION => {
            Err(StoreError::Newer { path: path.to_owned(), found, supported: columns::SCHEMA_VERSION })
        }
        Some(_) => Ok(frame),
    }
}

/// The campaign as part of a file name.
fn file_name(campaign: &str) -> String {
    let plain = |letter: char| letter.is_ascii_alphanumeric() || matches!(letter, '-' | '_' | '.');
    let name: String =
        campaign.chars().take(80).map(|letter| if plain(letter) { letter } else { '-' }).collect();
    let name = name.trim_start_matches('.');
    if name.is_empty() { "campaign".to_owned() } else { name.to_owned() }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic, reason = "tests")]
#[path = "store_tests.rs"]
mod tests;
