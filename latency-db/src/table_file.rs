//! A cost table as a file beside the measurements.

use std::{fs, io, io::Write, path::Path};

use serde::{Deserialize, Serialize};

use crate::{CostError, CostTable, Device, FitQuality, atomic_file};

/// Format that is written; the newest that is read.
const FORMAT: u32 = 1;

/// Where a cost table comes from, written above it in its file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TableHeader {
    /// Version of Lathe that fitted it.
    pub version: String,
    /// When, RFC 3339.
    pub created: String,
    /// Device that was measured.
    pub device: Device,
    /// Number of measurements that went in.
    pub measurements: usize,
    /// Number of networks that the composition was fitted to.
    pub networks: usize,
    /// Error on networks that the fit had not seen.
    pub quality: FitQuality,
}

#[derive(Serialize)]
struct Written<'a> {
    format: u32,
    header: &'a TableHeader,
    table: &'a CostTable,
}

#[derive(Deserialize)]
struct Format {
    format: u32,
}

#[derive(Deserialize)]
struct Read {
    header: TableHeader,
    table: CostTable,
}

impl CostTable {
    /// Writes the table with its header as JSON; never over an existing file.
    pub fn save(&self, path: &Path, header: &TableHeader) -> Result<(), CostError> {
        atomic_file::create(path, |writer| {
            serde_json::to_writer_pretty(&mut *writer, &Written { format: FORMAT, header, table: self })?;
            writer.write_all(b"\n")
        })
        .map_err(|source| match source.kind() {
            io::ErrorKind::AlreadyExists => CostError::Exists { path: path.to_owned() },
            _ => CostError::Io { action: "write", path: path.to_owned(), source },
        })
    }

    /// Reads a file that [`CostTable::save`] wrote.
    pub fn load(path: &Path) -> Result<(Self, TableHeader), CostError> {
        let parse = |source| CostError::Parse { path: path.to_owned(), source };
        let text = fs::read_to_string(path).map_err(|source| CostError::Io {
            action: "read",
            path: path.to_owned(),
            source,
        })?;
        let Format { format } = serde_json::from_str(&text).map_err(parse)?;
        if format > FORMAT {
            return Err(CostError::Newer { path: path.to_owned(), found: format, supported: FORMAT });
        }
        let Read { header, table } = serde_json::from_str(&text).map_err(parse)?;
        Ok((table, header))
    }
}
