//! Tables of latencies that people already have: architectures × devices.

mod archive;
mod layout;
mod long;
mod pickle;
mod published;
mod write;

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use lathe_spaces::{Genotype, Nas201Skeleton, Skeleton, Space};

pub use layout::TableLayout;
use layout::{Content, content};

use crate::{
    LatencyTableError, latency_csv,
    predictor::{Codes, Encoding, SourceDevice},
};

/// Column of the benchmark's index; with it alone the architecture is known only if the space has an
/// official order.
const INDEX: &str = "arch_index";
/// Cells of NAS-Bench-201.
const CELLS: usize = 15_625;
/// Columns that name architectures of NAS-Bench-201, the first one that there is counts.
const NAS201: [&str; 2] = ["arch", INDEX];
/// The same for chains of stages.
const STAGES: [&str; 3] = ["op_idx", "ops", "arch"];
/// A column of the long layout that is no device even where it is read as wide.
const BATCH: &str = "batch";

/// A table of architectures × devices in milliseconds, as HW-NAS-Bench and HELP publish them.
///
/// A wide file has one row per architecture and one column per device. For NAS-Bench-201 the column
/// `arch` holds cells in the benchmark's text form, or, without it, `arch_index` the benchmark's
/// index. For chains of stages the column `op_idx` holds indices and `ops` names of the operations.
/// Every other column of numbers is a device. [`TableLayout`] lists the other layouts. A latency that
/// is absent, not positive or not finite is missing.
#[derive(Clone, Debug)]
pub struct LatencyTable {
    path: PathBuf,
    layout: TableLayout,
    space: Space,
    encoding: Encoding,
    genotypes: Vec<Genotype>,
    codes: Vec<Codes>,
    devices: BTreeMap<String, Vec<Option<f64>>>,
}

/// A column as it comes out of a file.
#[derive(Clone, Debug)]
pub(crate) enum RawColumn {
    Texts(Vec<Option<String>>),
    Numbers(Vec<Option<f64>>),
}

/// What a file doesn't say of itself, or what is to be believed against it.
#[derive(Clone, Debug, Default)]
pub struct TableOptions {
    /// Space of the architectures; by default what the names of the columns or files say.
    pub space: Option<Space>,
    /// Layout; by default what the content says.
    pub layout: Option<TableLayout>,
    /// Data set of a file that has several (HW-NAS-Bench); by default `cifar10`.
    pub dataset: Option<String>,
}

impl LatencyTable {
    /// Reads a table of architectures of `space`, in whatever layout it is.
    ///
    /// # Errors
    /// [`LatencyTableError`] names the file, and where it can the column and the row.
    pub fn read(path: &Path, space: &Space) -> Result<Self, LatencyTableError> {
        Self::open(path, &TableOptions { space: Some(space.clone()), ..TableOptions::default() })
    }

    /// Reads a table by these options.
    ///
    /// # Errors
    /// [`LatencyTableError`] names the file, and where it can the column and the row.
    pub fn open(path: &Path, options: &TableOptions) -> Result<Self, LatencyTableError> {
        let (layout, columns) = columns(path, options)?;
        let space = options.space.clone().unwrap_or_else(|| space_of(&columns));
        let columns =
            if layout == TableLayout::Long { long::widen(path, &columns, names(&space))? } else { columns };
        Self::of(path, layout, space, columns)
    }

    /// A table of these architectures, with a latency in milliseconds per device and architecture
    /// where it is known.
    ///
    /// # Errors
    /// [`LatencyTableError`] for spaces that cannot be encoded, and for devices that don't have a
    /// place per architecture.
    pub fn new(
        space: &Space,
        genotypes: Vec<Genotype>,
        devices: BTreeMap<String, Vec<Option<f64>>>,
    ) -> Result<Self, LatencyTableError> {
        let path = PathBuf::from("the new table");
        if let Some((device, values)) = devices.iter().find(|(_, values)| values.len() != genotypes.len()) {
            let (device, expected, got) = (device.clone(), genotypes.len(), values.len());
            return Err(LatencyTableError::Rows { path, device, expected, got });
        }
        let encoding = Encoding::of(space)?;
        let codes = genotypes.iter().map(|genotype| encoding.encode(genotype)).collect::<Result<_, _>>()?;
        let layout = TableLayout::Wide;
        Ok(Self { path, layout, space: space.clone(), encoding, genotypes, codes, devices })
    }

    fn of(
        path: &Path,
        layout: TableLayout,
        space: Space,
        columns: Vec<(String, RawColumn)>,
    ) -> Result<Self, LatencyTableError> {
        let encoding = Encoding::of(&space)?;
        let names = names(&space);
        let find = |name: &&&str| columns.iter().find(|(column, _)| column == **name);
        let (name, column) = names.iter().find_map(|name| find(&name)).ok_or_else(|| {
            let got = columns.iter().map(|(name, _)| name.clone()).collect();
            LatencyTableError::Architectures { path: path.to_owned(), expected: names.to_vec(), got }
        })?;
        let cell = |row: usize, reason: String| LatencyTableError::Cell {
            path: path.to_owned(),
            column: name.clone(),
            row: row + 1,
            reason,
        };
        let genotypes: Vec<Genotype> = match column {
            RawColumn::Texts(texts) => texts
                .iter()
                .enumerate()
                .map(|(row, text)| {
                    let text = text.as_deref().ok_or_else(|| cell(row, "no architecture".into()))?;
                    space.parse(text).map_err(|error| cell(row, error.to_string()))
                })
                .collect::<Result<_, _>>()?,
            RawColumn::Numbers(_) if name != INDEX => {
                return Err(cell(0, "expected texts, got numbers".into()));
            }
            RawColumn::Numbers(indices) => {
                let all: Vec<Genotype> =
                    space.enumerate().map_err(|error| cell(0, error.to_string()))?.collect();
                let genotype = |(row, index): (usize, &Option<f64>)| {
                    let known = index.filter(|index| index.fract() == 0.0 && *index >= 0.0);
                    known.and_then(|index| all.get(index as usize)).cloned().ok_or_else(|| {
                        let got = index.map_or_else(|| "nothing".to_owned(), |index| index.to_string());
                        cell(row, format!("expected an index below {}, got {got}", all.len()))
                    })
                };
                indices.iter().enumerate().map(genotype).collect::<Result<_, _>>()?
            }
        };
        let codes = genotypes.iter().map(|genotype| encoding.encode(genotype)).collect::<Result<_, _>>()?;
        let mut devices = BTreeMap::new();
        for (name, column) in columns {
            if let RawColumn::Numbers(values) = column
                && name != INDEX
                && name != BATCH
            {
                let known = |value: Option<f64>| value.filter(|value| value.is_finite() && *value > 0.0);
                devices.insert(name, values.into_iter().map(known).collect());
            }
        }
        if devices.is_empty() {
            return Err(LatencyTableError::NoDevice { path: path.to_owned() });
        }
        Ok(Self { path: path.to_owned(), layout, space, encoding, genotypes, codes, devices })
    }

    /// How its file is laid out.
    pub const fn layout(&self) -> TableLayout {
        self.layout
    }

    /// The space of its architectures.
    pub const fn space(&self) -> &Space {
        &self.space
    }

    /// How architectures are encoded.
    pub const fn encoding(&self) -> &Encoding {
        &self.encoding
    }

    /// The architectures, row by row.
    pub fn genotypes(&self) -> &[Genotype] {
        &self.genotypes
    }

    /// The architectures as categories, row by row.
    pub fn codes(&self) -> &[Codes] {
        &self.codes
    }

    /// Names of the devices, in alphabetical order.
    pub fn devices(&self) -> impl Iterator<Item = &str> {
        self.devices.keys().map(String::as_str)
    }

    /// Latencies of a device in milliseconds, row by row; `None` where missing.
    ///
    /// # Errors
    /// [`LatencyTableError::Device`] with the name that is most like it.
    pub fn latencies(&self, device: &str) -> Result<&[Option<f64>], LatencyTableError> {
        self.devices.get(device).map(Vec::as_slice).ok_or_else(|| {
            let likeness = |name: &&str| (strsim::jaro_winkler(name, device) * 1e6) as u64;
            let hint = match self.devices().max_by_key(likeness) {
                Some(name) if strsim::jaro_winkler(name, device) > 0.8 => format!("did you mean `{name}`?"),
                _ => format!("it has {}", self.devices().collect::<Vec<_>>().join(", ")),
            };
            LatencyTableError::Device { path: self.path.clone(), device: device.to_owned(), hint }
        })
    }
}

impl LatencyTable {
    /// A column as a device to learn from: every row that has a latency and computes something.
    ///
    /// # Errors
    /// See [`LatencyTable::latencies`].
    pub fn source<'a>(&'a self, device: &'a str) -> Result<SourceDevice<'a>, LatencyTableError> {
        let rows = self.codes.iter().zip(self.latencies(device)?);
        let known = rows.filter(|(codes, _)| self.encoding.connected(codes));
        let (codes, latencies) = known.filter_map(|(codes, latency)| Some((codes, (*latency)?))).unzip();
        Ok(SourceDevice { name: device, codes, latencies })
    }
}

/// What a file holds, and how it is laid out.
fn columns(
    path: &Path,
    options: &TableOptions,
) -> Result<(TableLayout, Vec<(String, RawColumn)>), LatencyTableError> {
    let forced = options.layout;
    let content = content(path)?;
    let layout = match (&content, forced) {
        (Content::Folder, None | Some(TableLayout::Help)) => TableLayout::Help,
        (Content::Pickle, None | Some(TableLayout::HwNasBench)) => TableLayout::HwNasBench,
        (Content::Parquet | Content::Csv, None | Some(TableLayout::Wide | TableLayout::Long)) => {
            let columns = if matches!(content, Content::Parquet) {
                parquet(path)?
            } else {
                let text = fs::read_to_string(path).map_err(|source| io(path, source))?;
                latency_csv::columns(path, &text)?
            };
            let found = if long::is_long(&columns) { TableLayout::Long } else { TableLayout::Wide };
            no_dataset(path, options)?;
            return Ok((forced.unwrap_or(found), columns));
        }
        (content, Some(layout)) => {
            let what = match content {
                Content::Folder => "a folder",
                Content::Pickle => "a pickle",
                Content::Parquet => "a Parquet file",
                Content::Csv => "comma-separated text",
            };
            let found = format!("{what}, which the layout `{layout}` that was asked for is not");
            return Err(LatencyTableError::Layout { path: path.to_owned(), found });
        }
    };
    let columns = if layout == TableLayout::Help {
        no_dataset(path, options)?;
        published::help(path)?
    } else {
        published::hw_nas_bench(path, options.dataset.as_deref())?
    };
    Ok((layout, columns))
}

fn no_dataset(path: &Path, options: &TableOptions) -> Result<(), LatencyTableError> {
    match &options.dataset {
        Some(dataset) => Err(LatencyTableError::Format {
            path: path.to_owned(),
            reason: format!("it has no data sets to choose `{dataset}` from; only HW-NAS-Bench's pickle has"),
        }),
        None => Ok(()),
    }
}

/// `FBNet`'s space if a column is named as its architectures are, NAS-Bench-201 otherwise.
fn space_of(columns: &[(String, RawColumn)]) -> Space {
    if columns.iter().any(|(name, _)| name == STAGES[0] || name == STAGES[1]) {
        Space::fbnet(224, 1000)
    } else {
        Space::nas201(Nas201Skeleton { width: 16, cells: 5, resolution: 32, classes: 10 })
    }
}

fn names(space: &Space) -> &'static [&'static str] {
    if matches!(space.skeleton, Skeleton::Nas201(_)) { &NAS201 } else { &STAGES }
}

impl RawColumn {
    const fn len(&self) -> usize {
        match self {
            Self::Texts(texts) => texts.len(),
            Self::Numbers(numbers) => numbers.len(),
        }
    }
}

fn io(path: &Path, source: std::io::Error) -> LatencyTableError {
    LatencyTableError::Io { path: path.to_owned(), source }
}

#[cfg(not(feature = "store"))]
fn parquet(path: &Path) -> Result<Vec<(String, RawColumn)>, LatencyTableError> {
    let reason = "this build reads CSV only (it lacks the feature `store`)".to_owned();
    Err(LatencyTableError::Format { path: path.to_owned(), reason })
}

/// Columns of numbers and texts; others hold neither latencies nor architectures and are left out.
#[cfg(feature = "store")]
fn parquet(path: &Path) -> Result<Vec<(String, RawColumn)>, LatencyTableError> {
    use polars::prelude::{DataType, ParquetReader, SerReader};

    let file = fs::File::open(path).map_err(|source| io(path, source))?;
    let format = |error: polars::prelude::PolarsError| LatencyTableError::Format {
        path: path.to_owned(),
        reason: error.to_string(),
    };
    let frame = ParquetReader::new(file).finish().map_err(format)?;
    let mut columns = Vec::new();
    for column in frame.columns() {
        let name = column.name().to_string();
        if column.dtype().is_primitive_numeric() {
            // Single precision becomes the shortest decimal that means the same number: 9.1, not
            // 9.100000381469727.
            let single = *column.dtype() == DataType::Float32;
            let values = column.cast(&DataType::Float64).map_err(format)?;
            let values = values.f64().map_err(format)?.iter();
            let shortest = |value: f64| (value as f32).to_string().parse().unwrap_or(value);
            let values = values.map(|value| value.map(|value| if single { shortest(value) } else { value }));
            columns.push((name, RawColumn::Numbers(values.collect())));
        } else if *column.dtype() == DataType::String {
            let texts = column.str().map_err(format)?.iter();
            columns.push((name, RawColumn::Texts(texts.map(|text| text.map(str::to_owned)).collect())));
        }
    }
    Ok(columns)
}

#[cfg(test)]
#[path = "latency_table_tests.rs"]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests;

#[cfg(all(test, feature = "store"))]
#[path = "latency_table/layout_tests.rs"]
#[allow(clippy::unwrap_used, reason = "tests")]
mod layout_tests;
