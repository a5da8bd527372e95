//! How published tables are laid out.

use std::{fmt, fs::File, io::Read, path::Path};

use crate::LatencyTableError;

/// How a table of architectures × devices is laid out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum TableLayout {
    /// Parquet or CSV, a row per architecture and a column per device.
    Wide,
    /// Parquet or CSV, a row per architecture and device: columns `arch`, `arch_index` or `op_idx`,
    /// `device`, `latency_ms`, and `batch` where it matters.
    Long,
    /// The pickle of HW-NAS-Bench (Li et al. 2021): its part `nasbench201`.
    HwNasBench,
    /// A data folder of HELP (Lee et al. 2021): `latency/*.pt` and an index of architectures.
    Help,
}

impl fmt::Display for TableLayout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Wide => "wide",
            Self::Long => "long",
            Self::HwNasBench => "hw-nas-bench",
            Self::Help => "help",
        })
    }
}

/// What a path is, as far as its kind of content says.
pub(super) enum Content {
    Folder,
    Parquet,
    Csv,
    Pickle,
}

/// Looks at the first bytes, and for text, which has no mark, at the name.
pub(super) fn content(path: &Path) -> Result<Content, LatencyTableError> {
    if path.is_dir() {
        return Ok(Content::Folder);
    }
    let mut start = Vec::new();
    File::open(path)
        .and_then(|file| file.take(4096).read_to_end(&mut start))
        .map_err(|source| LatencyTableError::Io { path: path.to_owned(), source })?;
    let extension = path.extension().and_then(|extension| extension.to_str()).unwrap_or_default();
    let unknown =
        |found: &str| Err(LatencyTableError::Layout { path: path.to_owned(), found: found.to_owned() });
    match (start.as_slice(), extension) {
        ([b'P', b'A', b'R', b'1', ..], _) | (_, "parquet") => Ok(Content::Parquet),
        (_, "csv") => Ok(Content::Csv),
        ([0x80, 0..=5, ..], _) | (_, "pickle" | "pkl") => Ok(Content::Pickle),
        ([b'P', b'K', 3, 4, ..], _) => unknown(
            "an archive as torch.save writes it; of HELP's tables, name the folder that holds `latency`",
        ),
        ([], _) => unknown("an empty file"),
        (bytes, "yaml" | "yml") if std::str::from_utf8(bytes).is_ok() => {
            unknown("YAML, as operator look-up tables are; see `lathe table import`")
        }
        (bytes, _) if bytes.iter().all(|byte| !matches!(byte, 0..=8 | 14..=31)) => {
            unknown("text whose name does not end in .csv")
        }
        _ => unknown("bytes of an unknown format"),
    }
}
