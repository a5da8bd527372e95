//! The files of HW-NAS-Bench and of HELP as columns.

use std::{
    fs,
    path::{Path, PathBuf},
};

use super::{RawColumn, archive, pickle::Value};
use crate::LatencyTableError;

/// How the metrics of HW-NAS-Bench that are latencies end.
const LATENCY: &str = "_latency";
/// The data set whose networks take 32×32 images, and HW-NAS-Bench's first.
const DATASET: &str = "cifar10";

/// HW-NAS-Bench: search space → data set → metric → numbers in the official order. Rows are checked
/// against `config` where the file has it.
pub(super) fn hw_nas_bench(
    path: &Path,
    dataset: Option<&str>,
) -> Result<Vec<(String, RawColumn)>, LatencyTableError> {
    let pickle = archive::pickle(path)?;
    let fault = |reason: String| LatencyTableError::Pickle { path: path.to_owned(), reason };
    let dict = |value: Value<'_>, what: &str| {
        fault(format!("{what}: expected a dictionary with names as keys, got {}", value.kind()))
    };
    let root = pickle.root();
    let spaces = root.entries().ok_or_else(|| dict(root, "the file"))?;
    let list = |names: &mut dyn Iterator<Item = &&str>| names.copied().collect::<Vec<_>>().join(", ");
    let cells = *spaces.get("nasbench201").ok_or_else(|| {
        fault(format!("expected HW-NAS-Bench's part `nasbench201`, got {}", list(&mut spaces.keys())))
    })?;
    let datasets = cells.entries().ok_or_else(|| dict(cells, "`nasbench201`"))?;
    let wanted = dataset.unwrap_or(DATASET);
    let metrics = *datasets.get(wanted).ok_or_else(|| {
        fault(format!("it has no data set `{wanted}`; it has {}", list(&mut datasets.keys())))
    })?;
    let metrics = metrics.entries().ok_or_else(|| dict(metrics, wanted))?;
    let mut columns = Vec::new();
    for (name, value) in &metrics {
        let Some(device) = name.strip_suffix(LATENCY) else { continue };
        let numbers = value
            .numbers()
            .ok_or_else(|| fault(format!("`{name}`: expected a list of numbers, got {}", value.kind())))?;
        columns.push((device.to_owned(), numbers));
    }
    let count = super::CELLS;
    let architectures = match metrics.get("config").and_then(|value| value.list()) {
        Some(configs) => {
            let text = |config: Value<'_>| {
                let text = config.entries()?.get("arch_str")?.text()?;
                Some(text.to_owned())
            };
            ("arch".to_owned(), RawColumn::Texts(configs.into_iter().map(text).collect()))
        }
        None => ("arch_index".to_owned(), indices(count)),
    };
    table(path, architectures, count, columns)
}

/// HELP's folder: `latency/DEVICE.pt` with a number per architecture, and beside it
/// `str_arch2idx.pt` (cells to positions, NAS-Bench-201) or `metainfo.pt` (`FBNet`).
pub(super) fn help(path: &Path) -> Result<Vec<(String, RawColumn)>, LatencyTableError> {
    let (name, architectures) = match help_index(path)? {
        HelpIndex::Cells(file) => ("arch", cells(&file)?),
        HelpIndex::Stages(file) => ("op_idx", stages(&file)?),
    };
    let count = architectures.len();
    let mut columns = Vec::new();
    for file in latency_files(path)? {
        let pickle = archive::pickle(&file)?;
        let root = pickle.root();
        let numbers = root.numbers().ok_or_else(|| LatencyTableError::Pickle {
            path: file.clone(),
            reason: format!("expected a list of numbers, got {}", root.kind()),
        })?;
        let name = file.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
        columns.push((name, numbers));
    }
    let architectures = RawColumn::Texts(architectures.into_iter().map(Some).collect());
    table(path, (name.to_owned(), architectures), count, columns)
}

const CELLS: &str = "str_arch2idx.pt";
const STAGES: &str = "metainfo.pt";

/// Which architectures a folder of HELP is about.
enum HelpIndex {
    Cells(PathBuf),
    Stages(PathBuf),
}

/// The index of a folder of HELP.
fn help_index(folder: &Path) -> Result<HelpIndex, LatencyTableError> {
    let file = |name: &str| Some(folder.join(name)).filter(|path| path.is_file());
    if !folder.join("latency").is_dir() {
        let found = "a folder without a folder `latency` of .pt files".to_owned();
        return Err(LatencyTableError::Layout { path: folder.to_owned(), found });
    }
    if let Some(file) = file(CELLS) {
        return Ok(HelpIndex::Cells(file));
    }
    file(STAGES).map(HelpIndex::Stages).ok_or_else(|| LatencyTableError::Layout {
        path: folder.to_owned(),
        found: format!("a folder with `latency`, but neither {CELLS} (NAS-Bench-201) nor {STAGES} (FBNet)"),
    })
}

/// Cells by their position.
fn cells(path: &Path) -> Result<Vec<String>, LatencyTableError> {
    let fault = |reason: String| LatencyTableError::Pickle { path: path.to_owned(), reason };
    let pickle = archive::pickle(path)?;
    let root = pickle.root();
    let entries = root
        .entries()
        .ok_or_else(|| fault(format!("expected a dictionary of cells, got {}", root.kind())))?;
    let mut cells: Vec<Option<String>> = vec![None; entries.len()];
    for (cell, value) in entries {
        let position = value.number().filter(|number| number.fract() == 0.0 && *number >= 0.0);
        let place = position.and_then(|position| cells.get_mut(position as usize));
        match place {
            Some(place @ None) => *place = Some(cell.to_owned()),
            _ => {
                return Err(fault(format!(
                    "{cell}: its position is out of range or taken: {}",
                    value.kind()
                )));
            }
        }
    }
    Ok(cells.into_iter().flatten().collect())
}

/// `{'arch': [{'op_idx_list': [7, 8, …]}, …]}`.
fn stages(path: &Path) -> Result<Vec<String>, LatencyTableError> {
    let fault = |reason: String| LatencyTableError::Pickle { path: path.to_owned(), reason };
    let pickle = archive::pickle(path)?;
    let root = pickle.root();
    let list = root.entries().and_then(|entries| entries.get("arch")?.list());
    let list = list.ok_or_else(|| fault(format!("expected a list under `arch`, got {}", root.kind())))?;
    list.into_iter()
        .enumerate()
        .map(|(row, arch)| {
            let numbers = arch.entries().and_then(|entries| entries.get("op_idx_list")?.numbers());
            let numbers = numbers.and_then(|numbers| numbers.into_iter().collect::<Option<Vec<f64>>>());
            let numbers = numbers
                .ok_or_else(|| fault(format!("architecture {row}: it has no `op_idx_list` of numbers")))?;
            Ok(numbers.iter().map(f64::to_string).collect::<Vec<_>>().join(" "))
        })
        .collect()
}

fn latency_files(folder: &Path) -> Result<Vec<PathBuf>, LatencyTableError> {
    let folder = folder.join("latency");
    let io = |source| LatencyTableError::Io { path: folder.clone(), source };
    let mut files = Vec::new();
    for entry in fs::read_dir(&folder).map_err(io)? {
        let path = entry.map_err(io)?.path();
        if path.extension().is_some_and(|extension| extension == "pt") {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

fn indices(count: usize) -> RawColumn {
    RawColumn::Numbers((0..count).map(|index| Some(index as f64)).collect())
}

/// Devices behind the architectures, each with a number for each.
fn table(
    path: &Path,
    architectures: (String, RawColumn),
    count: usize,
    devices: Vec<(String, Vec<Option<f64>>)>,
) -> Result<Vec<(String, RawColumn)>, LatencyTableError> {
    let rows = |device: &str, expected: usize, got: usize| LatencyTableError::Rows {
        path: path.to_owned(),
        device: device.to_owned(),
        expected,
        got,
    };
    let listed = architectures.1.len();
    if listed != count {
        return Err(rows(&architectures.0, count, listed));
    }
    if let Some((device, numbers)) = devices.iter().find(|(_, numbers)| numbers.len() != count) {
        return Err(rows(device, count, numbers.len()));
    }
    let mut columns = vec![architectures];
    columns.extend(devices.into_iter().map(|(device, numbers)| (device, RawColumn::Numbers(numbers))));
    Ok(columns)
}
