//! From a row per architecture and device to a column per device.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use super::RawColumn;
use crate::LatencyTableError;

pub(super) const DEVICE: &str = "device";
pub(super) const LATENCY: &str = "latency_ms";
const BATCH: &str = "batch";

/// Whether the columns are those of the long layout.
pub(super) fn is_long(columns: &[(String, RawColumn)]) -> bool {
    [DEVICE, LATENCY].iter().all(|name| columns.iter().any(|(column, _)| column == name))
}

/// Architectures in the order of their first row. A device that has rows of more than one batch size
/// becomes a column `device_batch` for each.
pub(super) fn widen(
    path: &Path,
    columns: &[(String, RawColumn)],
    names: &[&'static str],
) -> Result<Vec<(String, RawColumn)>, LatencyTableError> {
    let find = |name: &str| columns.iter().find(|(column, _)| column == name).map(|(_, column)| column);
    let cell = |column: &str, row: usize, reason: String| LatencyTableError::Cell {
        path: path.to_owned(),
        column: column.to_owned(),
        row: row + 1,
        reason,
    };
    let missing = |name: &'static str| LatencyTableError::Format {
        path: path.to_owned(),
        reason: format!("the long layout has a column `{name}`, and this table has none of that kind"),
    };
    let Some(RawColumn::Texts(devices)) = find(DEVICE).map(RawColumn::to_texts) else {
        return Err(missing(DEVICE));
    };
    let Some(RawColumn::Numbers(latencies)) = find(LATENCY) else { return Err(missing(LATENCY)) };
    let (name, architectures) =
        names.iter().find_map(|name| Some((*name, find(name)?))).ok_or_else(|| {
            LatencyTableError::Architectures {
                path: path.to_owned(),
                expected: names.to_vec(),
                got: columns.iter().map(|(name, _)| name.clone()).collect(),
            }
        })?;
    let batches = match find(BATCH).map(RawColumn::to_texts) {
        Some(RawColumn::Texts(batches)) => batches,
        _ => vec![None; devices.len()],
    };
    let RawColumn::Texts(keys) = architectures.to_texts() else { return Err(missing("arch")) };

    let mut sizes: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for (device, batch) in devices.iter().zip(&batches) {
        if let Some(device) = device {
            sizes.entry(device).or_default().insert(batch.as_deref().unwrap_or_default());
        }
    }
    let mut places: BTreeMap<&str, usize> = BTreeMap::new();
    let mut firsts = Vec::new();
    let mut wide: BTreeMap<String, BTreeMap<usize, (usize, Option<f64>)>> = BTreeMap::new();
    for row in 0..devices.len() {
        let device = devices[row].as_deref().ok_or_else(|| cell(DEVICE, row, "no device".into()))?;
        let key = keys[row].as_deref().ok_or_else(|| cell(name, row, "no architecture".into()))?;
        let batch = batches[row].as_deref().unwrap_or_default();
        let several = sizes.get(device).is_some_and(|sizes| sizes.len() > 1);
        let column = if several { format!("{device}_{batch}") } else { device.to_owned() };
        let next = places.len();
        let place = *places.entry(key).or_insert(next);
        if place == firsts.len() {
            firsts.push(row);
        }
        if let Some((first, _)) = wide.entry(column.clone()).or_default().insert(place, (row, latencies[row]))
        {
            let reason = format!("{key} has a latency on `{column}` twice, first in row {}", first + 1);
            return Err(cell(LATENCY, row, reason));
        }
    }
    let mut table = vec![(name.to_owned(), architectures.rows(&firsts))];
    table.extend(wide.into_iter().map(|(device, known)| {
        let value = |place: usize| known.get(&place).and_then(|(_, latency)| *latency);
        (device, RawColumn::Numbers((0..firsts.len()).map(value).collect()))
    }));
    Ok(table)
}

impl RawColumn {
    /// Numbers as the texts that mean them.
    fn to_texts(&self) -> Self {
        match self {
            Self::Numbers(numbers) => {
                Self::Texts(numbers.iter().map(|number| number.map(|number| number.to_string())).collect())
            }
            Self::Texts(texts) => Self::Texts(texts.clone()),
        }
    }

    fn rows(&self, rows: &[usize]) -> Self {
        match self {
            Self::Texts(texts) => Self::Texts(rows.iter().map(|&row| texts[row].clone()).collect()),
            Self::Numbers(numbers) => Self::Numbers(rows.iter().map(|&row| numbers[row]).collect()),
        }
    }
}
