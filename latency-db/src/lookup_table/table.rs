//! Operators with their latencies.

use std::{fs, io, io::Write, path::Path};

use super::{Dialect, LookupTableError, OperatorKey, yaml};
use crate::atomic_file;

/// How much the runs behind a mean vary.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Spread {
    /// Standard deviation in milliseconds (`std`, in OFA's files).
    Deviation(f64),
    /// Variance in squared milliseconds (`var`, in `ProxylessNAS`' file).
    Variance(f64),
}

impl Spread {
    /// Standard deviation in milliseconds.
    pub fn deviation_ms(self) -> f64 {
        match self {
            Self::Deviation(deviation) => deviation,
            Self::Variance(variance) => variance.sqrt(),
        }
    }
}

/// What a table says of an operator.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Figures {
    /// Mean latency in milliseconds.
    pub mean_ms: f64,
    /// Spread, where the table has it.
    pub spread: Option<Spread>,
    /// Number of runs, where the table has it.
    pub count: Option<u64>,
}

/// A table of operator latencies: the YAML files that OFA's and `ProxylessNAS`' readers take.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LookupTable {
    rows: Vec<(OperatorKey, Figures)>,
}

impl LookupTable {
    /// A table of these rows. A table may not name an operator twice, nor mix the two grammars.
    ///
    /// # Errors
    /// What contradicts that, with the index of the row.
    pub fn new(rows: Vec<(OperatorKey, Figures)>) -> Result<Self, (usize, String)> {
        let mut known = std::collections::BTreeMap::new();
        let mut dialect: Option<Dialect> = None;
        for (index, (key, _)) in rows.iter().enumerate() {
            if let Some(first) = known.insert(*key, index) {
                return Err((
                    index,
                    format!("the operator stands there twice, first as number {}", first + 1),
                ));
            }
            match (dialect, key.dialect()) {
                (Some(before), Some(own)) if before != own => {
                    let reason =
                        format!("a key of {own} in a table of {before}: `expand` means another thing");
                    return Err((index, reason));
                }
                (_, own) => dialect = dialect.or(own),
            }
        }
        Ok(Self { rows })
    }

    /// Reads a table: a key per operator, and under it `mean` in milliseconds and, where known, `std`
    /// or `var`, and `count`; in block form or as `{mean: 1.5, std: 0.1, count: 50}`.
    ///
    /// # Errors
    /// [`LookupTableError`] names the file, the line and the key.
    pub fn read(path: &Path) -> Result<Self, LookupTableError> {
        let text = fs::read_to_string(path).map_err(|source| LookupTableError::Io {
            action: "read",
            path: path.to_owned(),
            source,
        })?;
        yaml::read(&text).map_err(|fault| match fault {
            None => LookupTableError::Empty { path: path.to_owned() },
            Some(yaml::Fault { line, key, reason }) => {
                LookupTableError::Line { path: path.to_owned(), line, key, reason }
            }
        })
    }

    /// Writes the table as OFA's reader takes it; never over an existing file.
    ///
    /// # Errors
    /// [`LookupTableError::Exists`], or [`LookupTableError::Io`] with what the system refused.
    pub fn write(&self, path: &Path) -> Result<(), LookupTableError> {
        atomic_file::create(path, |writer| writer.write_all(yaml::text(&self.rows).as_bytes())).map_err(
            |source| match source.kind() {
                io::ErrorKind::AlreadyExists => LookupTableError::Exists { path: path.to_owned() },
                _ => LookupTableError::Io { action: "write", path: path.to_owned(), source },
            },
        )
    }

    /// The operators with their latencies, in the order of the file.
    pub fn rows(&self) -> &[(OperatorKey, Figures)] {
        &self.rows
    }

    /// The grammar of its keys; `None` if it has only operators that both grammars name alike.
    pub fn dialect(&self) -> Option<Dialect> {
        self.rows.iter().find_map(|(key, _)| key.dialect())
    }
}
