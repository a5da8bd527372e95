//! Columns out of comma-separated text.

use std::path::Path;

use crate::{LatencyTableError, latency_table::RawColumn};

/// Words that stand for a missing number.
const MISSING: [&str; 6] = ["", "nan", "NaN", "NA", "null", "None"];

/// Columns of numbers and texts. A column is one of numbers if its first cell that is not missing is
/// one; a cell of it that is neither a number nor missing is an error.
pub(crate) fn columns(path: &Path, text: &str) -> Result<Vec<(String, RawColumn)>, LatencyTableError> {
    let format = |reason: String| LatencyTableError::Format { path: path.to_owned(), reason };
    let mut records = records(text.strip_prefix('\u{feff}').unwrap_or(text)).map_err(format)?.into_iter();
    let header = records.next().ok_or_else(|| format("it is empty".into()))?;
    let rows: Vec<Vec<String>> = records.collect();
    if let Some((row, cells)) = rows.iter().enumerate().find(|(_, cells)| cells.len() != header.len()) {
        let (row, got, expected) = (row + 1, cells.len(), header.len());
        return Err(format(format!("row {row} has {got} cells, and the header has {expected}")));
    }
    header
        .into_iter()
        .enumerate()
        .map(|(index, name)| {
            let cells: Vec<&str> = rows.iter().map(|cells| cells[index].trim()).collect();
            let first = cells.iter().find(|cell| !MISSING.contains(cell));
            if first.is_none_or(|cell| cell.parse::<f64>().is_err()) {
                let texts = cells.iter().map(|cell| (!cell.is_empty()).then(|| (*cell).to_owned()));
                return Ok((name, RawColumn::Texts(texts.collect())));
            }
            let number = |(row, cell): (usize, &&str)| {
                if MISSING.contains(cell) {
                    return Ok(None);
                }
                cell.parse().map(Some).map_err(|_| LatencyTableError::Cell {
                    path: path.to_owned(),
                    column: name.clone(),
                    row: row + 1,
                    reason: format!("expected a number, got \"{cell}\""),
                })
            };
            let numbers = cells.iter().enumerate().map(number).collect::<Result<_, _>>()?;
            Ok((name, RawColumn::Numbers(numbers)))
        })
        .collect()
}

/// RFC 4180: cells may stand in quotes, and then hold commas, line breaks and doubled quotes.
fn records(text: &str) -> Result<Vec<Vec<String>>, String> {
    let (mut records, mut record, mut cell) = (Vec::new(), Vec::new(), String::new());
    let mut quoted = false;
    let mut characters = text.chars().peekable();
    while let Some(character) = characters.next() {
        match character {
            '"' if quoted && characters.peek() == Some(&'"') => {
                cell.push('"');
                characters.next();
            }
            '"' => quoted = !quoted,
            ',' if !quoted => record.push(std::mem::take(&mut cell)),
            '\r' if !quoted => {}
            '\n' if !quoted => {
                record.push(std::mem::take(&mut cell));
                records.push(std::mem::take(&mut record));
            }
            _ => cell.push(character),
        }
    }
    if quoted {
        return Err("a quote is opened and never closed".into());
    }
    if !cell.is_empty() || !record.is_empty() {
        record.push(cell);
        records.push(record);
    }
    // An empty line holds nothing.
    records.retain(|record| record.len() > 1 || record.first().is_some_and(|cell| !cell.is_empty()));
    Ok(records)
}
