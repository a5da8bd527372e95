//! The file behind the events of a run: one JSON line each, synced, never doubled.

use std::{
    fs::{File, OpenOptions},
    io::{self, Read as _, Seek as _, SeekFrom, Write as _},
    path::{Path, PathBuf},
};

use thiserror::Error;

use crate::{Event, Stage};

/// Characters of a bad line that its error shows.
const SHOWN: usize = 60;

/// Why a record can't be read or written.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum RecordError {
    /// The file system refused.
    #[error(
        "{action} the run's record `{}`: {source}; hint: the run's directory must be writable and have free space",
        path.display()
    )]
    Io {
        /// `open`, `read` or `write`.
        action: &'static str,
        /// File.
        path: PathBuf,
        /// Cause.
        source: io::Error,
    },
    /// A whole line that is no event.
    #[error(
        "read the run's record `{}`: line {line} is not an event: {reason}; it begins with `{start}`",
        path.display()
    )]
    Line {
        /// File.
        path: PathBuf,
        /// Line, from 1.
        line: usize,
        /// What is wrong with it.
        reason: String,
        /// Its first characters.
        start: String,
    },
    /// An event that can't be written as JSON.
    #[error("write the run's record `{}`: {source}", path.display())]
    Encode {
        /// File.
        path: PathBuf,
        /// Cause.
        source: serde_json::Error,
    },
}

/// An open record.
#[derive(Debug)]
pub struct RunRecord {
    path: PathBuf,
    file: File,
    /// Bytes of the whole lines.
    length: u64,
    events: Vec<Event>,
}

impl RunRecord {
    /// Opens the record, or creates it.
    ///
    /// A last line without its end is what a killed process or a full disk leaves behind: it is cut
    /// off. Any other line that is no event is an error with its number.
    pub fn open(path: &Path) -> Result<Self, RecordError> {
        let io = |action| move |source| RecordError::Io { action, path: path.to_owned(), source };
        let created = !path.exists();
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)
            .map_err(io("open"))?;
        if created {
            // The new name is durable only once its directory is.
            let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
            let folder = parent.unwrap_or(Path::new("."));
            File::open(folder).and_then(|folder| folder.sync_all()).map_err(io("open"))?;
        }
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).map_err(io("read"))?;
        let whole = bytes.iter().rposition(|&byte| byte == b'\n').map_or(0, |end| end + 1);
        let mut events = Vec::new();
        for (index, line) in bytes[..whole].split_inclusive(|&byte| byte == b'\n').enumerate() {
            let line = &line[..line.len() - 1];
            let event = serde_json::from_slice(line).map_err(|error| RecordError::Line {
                path: path.to_owned(),
                line: index + 1,
                reason: error.to_string(),
                start: String::from_utf8_lossy(line).chars().take(SHOWN).collect(),
            })?;
            events.push(event);
        }
        let length = whole as u64;
        if whole < bytes.len() {
            file.set_len(length).and_then(|()| file.sync_all()).map_err(io("write"))?;
        }
        Ok(Self { path: path.to_owned(), file, length, events })
    }

    /// All events, in the order in which they were written.
    pub fn events(&self) -> &[Event] {
        &self.events
    }

    /// Appends an event and syncs it to the disk; false, and nothing written, if an event of the same
    /// identity is already there.
    ///
    /// After an error the record is as before, so that the same event can be pushed again.
    pub fn push(&mut self, event: Event) -> Result<bool, RecordError> {
        if self.events.iter().any(|known| same(known, &event)) {
            return Ok(false);
        }
        let mut line = serde_json::to_vec(&event)
            .map_err(|source| RecordError::Encode { path: self.path.clone(), source })?;
        line.push(b'\n');
        let written = self
            .file
            .seek(SeekFrom::Start(self.length))
            .and_then(|_| self.file.write_all(&line))
            .and_then(|()| self.file.sync_data());
        if let Err(source) = written {
            // Half a line must not stand before the next one; if this fails too, opening cuts it off.
            let _ = self.file.set_len(self.length);
            return Err(RecordError::Io { action: "write", path: self.path.clone(), source });
        }
        self.length += line.len() as u64;
        self.events.push(event);
        Ok(true)
    }

    /// Whether all the work of a stage is done.
    pub fn finished(&self, stage: Stage) -> bool {
        self.events
            .iter()
            .any(|event| matches!(event, Event::StageFinished { stage: done, .. } if *done == stage))
    }
}

/// Whether two events tell the same thing, so that the second one is a repetition after a resume.
fn same(a: &Event, b: &Event) -> bool {
    match (a, b) {
        // Once in a run.
        (Event::Started { .. }, Event::Started { .. })
        | (Event::Device { .. }, Event::Device { .. })
        | (Event::Fitted { .. }, Event::Fitted { .. })
        | (Event::Shared { .. }, Event::Shared { .. })
        | (Event::Bred { .. }, Event::Bred { .. })
        | (Event::SearchStopped { .. }, Event::SearchStopped { .. })
        | (Event::Limits { .. }, Event::Limits { .. })
        | (Event::Target { .. }, Event::Target { .. }) => true,
        (
            Event::OtherVerified { candidate: a, name: device_a, .. },
            Event::OtherVerified { candidate: b, name: device_b, .. },
        ) => a == b && device_a == device_b,
        (Event::StageStarted { stage: a, .. }, Event::StageStarted { stage: b, .. })
        | (Event::StageFinished { stage: a, .. }, Event::StageFinished { stage: b, .. }) => a == b,
        (Event::Epoch { epoch: a, .. }, Event::Epoch { epoch: b, .. })
        | (Event::Probed { epoch: a, .. }, Event::Probed { epoch: b, .. }) => a == b,
        (Event::Candidate { name: a, .. }, Event::Candidate { name: b, .. })
        | (Event::OtherDevice { name: a, .. }, Event::OtherDevice { name: b, .. })
        | (Event::OtherFitted { name: a, .. }, Event::OtherFitted { name: b, .. })
        | (Event::Trained { candidate: a, .. }, Event::Trained { candidate: b, .. })
        | (Event::Exported { candidate: a, .. }, Event::Exported { candidate: b, .. })
        | (Event::Verified { candidate: a, .. }, Event::Verified { candidate: b, .. }) => a == b,
        (
            Event::TrainEpoch { candidate: a, epoch: epoch_a, .. },
            Event::TrainEpoch { candidate: b, epoch: epoch_b, .. },
        ) => a == b && epoch_a == epoch_b,
        // A run that was interrupted, or whose device failed, may end again in another way.
        (Event::Finished { stop: a, .. }, Event::Finished { stop: b, .. }) => a == b && ends(a),
        // Every resumption is one of its own.
        _ => false,
    }
}

/// Whether nothing can follow such an end.
fn ends(stop: &crate::StopReason) -> bool {
    use crate::StopReason as Stop;
    !matches!(stop, Stop::Interrupted | Stop::DeviceFailed { .. })
}

#[cfg(test)]
#[path = "run_record_tests.rs"]
mod tests;
