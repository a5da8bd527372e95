//! What a report reads from a run's directory. Nothing is changed there: the run may still be going.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use lathe_latency_db::{CostTable, TableHeader};
use lathe_search::Event;
use lathe_spaces::Space;

use crate::ReportError;

/// Characters of a bad line that its error shows.
const SHOWN: usize = 60;

/// The contents of a run's directory.
#[derive(Debug, Default)]
pub(crate) struct RunFiles {
    /// All events, in order.
    pub events: Vec<Event>,
    /// The record ends in the middle of a line.
    pub half_line: bool,
    /// `resolved.toml`, as it is.
    pub resolved: Option<String>,
    /// The cost table of the fit.
    pub table: Option<(CostTable, TableHeader)>,
    /// The space, where the run has written it down: one of stages, which is like no other.
    pub space: Option<Space>,
    /// Files that are there and could not be read, with the reason.
    pub unreadable: Vec<String>,
}

impl RunFiles {
    pub(crate) fn read(directory: &Path) -> Result<Self, ReportError> {
        let mut files = Self::default();
        files.read_record(&directory.join("record.jsonl"))?;
        match fs::read_to_string(directory.join("resolved.toml")) {
            Ok(text) => files.resolved = Some(text),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => files.unreadable.push(format!("resolved.toml: {error}")),
        }
        let path = directory.join("space.json");
        if path.exists() {
            let text = fs::read_to_string(&path).map_err(|error| error.to_string());
            match text.and_then(|text| serde_json::from_str(&text).map_err(|error| error.to_string())) {
                Ok(space) => files.space = Some(space),
                Err(error) => files.unreadable.push(format!("space.json: {error}")),
            }
        }
        let path = directory.join(files.table_name());
        // Of stages it is a model of kernels, which says nothing by itself.
        let of_stages = files.events.iter().any(|event| matches!(event, Event::Stages { .. }));
        if path.exists() && !of_stages {
            match CostTable::load(&path) {
                Ok(table) => files.table = Some(table),
                Err(error) => files.unreadable.push(error.to_string()),
            }
        }
        Ok(files)
    }

    fn read_record(&mut self, path: &Path) -> Result<(), ReportError> {
        let bytes = fs::read(path).map_err(|source| match source.kind() {
            io::ErrorKind::NotFound => ReportError::NoRecord { path: path.to_owned() },
            _ => ReportError::Read { path: path.to_owned(), source },
        })?;
        let whole = bytes.iter().rposition(|&byte| byte == b'\n').map_or(0, |end| end + 1);
        self.half_line = whole < bytes.len();
        for (index, line) in bytes[..whole].split_inclusive(|&byte| byte == b'\n').enumerate() {
            let line = &line[..line.len() - 1];
            let event = serde_json::from_slice(line).map_err(|error| ReportError::Line {
                path: path.to_owned(),
                line: index + 1,
                reason: error.to_string(),
                start: String::from_utf8_lossy(line).chars().take(SHOWN).collect(),
            })?;
            self.events.push(event);
        }
        Ok(())
    }

    /// The cost table's name: the record's, or the usual one. Only a plain name inside the run's
    /// directory counts.
    fn table_name(&self) -> PathBuf {
        let named = self.events.iter().find_map(|event| match event {
            Event::Fitted { cost_table, .. } => cost_table.file_name(),
            _ => None,
        });
        named.map_or_else(|| "cost-table.json".into(), PathBuf::from)
    }
}
