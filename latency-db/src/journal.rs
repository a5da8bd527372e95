//! Measurements that arrive one by one.

use std::{
    fs::{self, File, OpenOptions},
    io::{Seek, SeekFrom, Write},
    path::{Path, PathBuf},
};

use crate::{Measurement, StoreError, atomic_file};

/// A file of JSON lines that keeps what was measured until a campaign ends and its rows go into the
/// [`crate::Store`]. Every row is synced to the disk before the next one is measured, so a killed
/// process loses at most the row that it was writing.
#[derive(Debug)]
pub struct Journal {
    path: PathBuf,
    file: File,
    length: u64,
}

impl Journal {
    /// Opens a journal, creates it if there is none, and returns the rows that it holds. A last line
    /// without its end was never acknowledged: it is cut off.
    pub fn open(path: &Path) -> Result<(Self, Vec<Measurement>), StoreError> {
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)
            .map_err(StoreError::io("open", path))?;
        let bytes = fs::read(path).map_err(StoreError::io("read", path))?;
        let whole = bytes.iter().rposition(|&byte| byte == b'\n').map_or(0, |end| end + 1);
        let rows = bytes[..whole]
            .split(|&byte| byte == b'\n')
            .enumerate()
            .filter(|(_, line)| !line.is_empty())
            .map(|(number, line)| {
                serde_json::from_slice(line).map_err(|source| StoreError::JournalLine {
                    path: path.to_owned(),
                    line: number + 1,
                    source,
                })
            })
            .collect::<Result<Vec<Measurement>, _>>()?;
        let length = whole as u64;
        file.set_len(length)
            .and_then(|()| file.seek(SeekFrom::Start(length)))
            .and_then(|_| file.sync_all())
            .and_then(|()| atomic_file::sync_folder(path))
            .map_err(StoreError::io("write", path))?;
        Ok((Self { path: path.to_owned(), file, length }, rows))
    }

    /// Adds a row; it is on the disk when this returns. After an error (a full disk) the journal is
    /// as it was before.
    pub fn push(&mut self, row: &Measurement) -> Result<(), StoreError> {
        let mut line = serde_json::to_vec(row)
            .map_err(|error| StoreError::Encode { path: self.path.clone(), reason: error.to_string() })?;
        line.push(b'\n');
        let written = self.file.write_all(&line).and_then(|()| self.file.sync_data());
        if let Err(source) = written {
            // The first error is the one to tell; if the cut fails too, the next `open` makes it.
            let _ =
                self.file.set_len(self.length).and_then(|()| self.file.seek(SeekFrom::Start(self.length)));
            return Err(StoreError::Io { action: "write", path: self.path.clone(), source });
        }
        self.length += line.len() as u64;
        Ok(())
    }

    /// Removes the file: its rows are in the store.
    pub fn remove(self) -> Result<(), StoreError> {
        fs::remove_file(&self.path).map_err(StoreError::io("remove", &self.path))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use crate::sample_rows::row;

    #[test]
    fn rows_survive_and_a_half_line_is_cut_off() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("journal.jsonl");
        let (mut journal, rows) = Journal::open(&path).unwrap();
        assert!(rows.is_empty());
        journal.push(&row("a", 1000)).unwrap();
        journal.push(&row("b", 2000)).unwrap();
        drop(journal);
        let whole = fs::read(&path).unwrap();
        let mut half = whole.clone();
        half.extend_from_slice(&whole[..whole.len() / 3]);
        fs::write(&path, half).unwrap();

        let (mut journal, rows) = Journal::open(&path).unwrap();
        assert_eq!(rows, [row("a", 1000), row("b", 2000)]);
        assert_eq!(fs::read(&path).unwrap(), whole);
        journal.push(&row("c", 3000)).unwrap();
        drop(journal);
        let (journal, rows) = Journal::open(&path).unwrap();
        assert_eq!(rows.len(), 3);
        assert_eq!(rows[2], row("c", 3000));
        journal.remove().unwrap();
        assert!(!path.exists());
    }

    #[test]
    fn a_bad_whole_line_is_an_error_with_its_number() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("journal.jsonl");
        let (mut journal, _) = Journal::open(&path).unwrap();
        journal.push(&row("a", 1000)).unwrap();
        let mut bytes = fs::read(&path).unwrap();
        bytes.extend_from_slice(b"{\"id\": 3}\n");
        fs::write(&path, bytes).unwrap();
        let error = Journal::open(&path).unwrap_err().to_string();
        assert!(error.contains("line 2") && error.contains("journal.jsonl"), "{error}");
    }

    #[test]
    fn a_path_that_cannot_be_written_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let blocker = folder.path().join("file");
        fs::write(&blocker, b"").unwrap();
        let error = Journal::open(&blocker.join("journal.jsonl")).unwrap_err().to_string();
        assert!(error.contains("journal.jsonl"), "{error}");
    }
}
