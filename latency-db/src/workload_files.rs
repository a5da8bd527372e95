//! What the workloads of a store compute: measurements hold their identity only.

use std::{collections::BTreeMap, fs, io, io::Write, path::Path};

use lathe_spaces::{Workload, WorkloadId};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::{Store, StoreError, atomic_file, device::hexadecimal};

/// Folder inside the store's.
const FOLDER: &str = "workloads";

/// One line: the identity comes first, so that a damaged graph is found out.
#[derive(Serialize, Deserialize)]
struct Line {
    id: WorkloadId,
    workload: Workload,
}

impl Store {
    /// Keeps the graphs of workloads beside their measurements, as one new file of JSON lines in
    /// `workloads/`; those that are known already are skipped. What is measured without this can be
    /// listed and fitted by a space that knows it, but not by the kernel model.
    ///
    /// # Errors
    /// [`StoreError`] if the folder can't be read or written.
    pub fn remember(&self, workloads: &[Workload]) -> Result<(), StoreError> {
        let known = self.workloads()?;
        let mut fresh: BTreeMap<WorkloadId, &Workload> =
            workloads.iter().map(|workload| (workload.id(), workload)).collect();
        fresh.retain(|id, _| !known.contains_key(id));
        if fresh.is_empty() {
            return Ok(());
        }
        let folder = self.directory.join(FOLDER);
        fs::create_dir_all(&folder).map_err(StoreError::io("create the folder", &folder))?;
        let mut bytes = Vec::new();
        for (id, workload) in fresh {
            let line = Line { id, workload: workload.clone() };
            serde_json::to_writer(&mut bytes, &line)
                .map_err(|error| StoreError::Encode { path: folder.clone(), reason: error.to_string() })?;
            bytes.push(b'\n');
        }
        let path = folder.join(format!("{}.jsonl", hexadecimal(&Sha256::digest(&bytes)[..8])));
        match atomic_file::create(&path, |writer| writer.write_all(&bytes)) {
            // Another process wrote the very same lines.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            written => written.map_err(StoreError::io("write", path)),
        }
    }

    /// Every workload that [`Store::remember`] kept.
    ///
    /// # Errors
    /// [`StoreError::WorkloadLine`] names the file and the line that is no workload.
    pub fn workloads(&self) -> Result<BTreeMap<WorkloadId, Workload>, StoreError> {
        let folder = self.directory.join(FOLDER);
        let mut found = BTreeMap::new();
        let entries = match fs::read_dir(&folder) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(found),
            entries => entries.map_err(StoreError::io("read the folder", &folder))?,
        };
        for entry in entries {
            let path = entry.map_err(StoreError::io("read the folder", &folder))?.path();
            if path.extension().is_some_and(|extension| extension == "jsonl") {
                read(&path, &mut found)?;
            }
        }
        Ok(found)
    }
}

fn read(path: &Path, found: &mut BTreeMap<WorkloadId, Workload>) -> Result<(), StoreError> {
    let text = fs::read_to_string(path).map_err(StoreError::io("read", path))?;
    for (number, line) in text.lines().enumerate() {
        let damaged =
            |reason: String| StoreError::WorkloadLine { path: path.to_owned(), line: number + 1, reason };
        let Line { id, workload } = serde_json::from_str(line).map_err(|error| damaged(error.to_string()))?;
        let own = workload.id();
        if own != id {
            return Err(damaged(format!("expected workload {id}, its graph is that of {own}")));
        }
        found.insert(id, workload);
    }
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use lathe_spaces::{GraphBuilder, Level, OpSpec, Shape};

    use super::*;

    fn workload(channels: usize) -> Workload {
        let mut builder = GraphBuilder::new();
        let x = builder.input("input", Shape::new(1, 4, 8, 8)).unwrap();
        let y = builder.add("conv", OpSpec::conv(channels, 3, 1), &[x]).unwrap();
        Workload::new(format!("conv {channels}"), Level::Operator, builder.finish(&[y]).unwrap())
    }

    #[test]
    fn what_is_remembered_comes_back_once_and_damage_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        assert!(store.workloads().unwrap().is_empty());
        store.remember(&[workload(8), workload(16), workload(8)]).unwrap();
        store.remember(&[workload(16), workload(32)]).unwrap();
        let found = store.workloads().unwrap();
        assert_eq!(found.len(), 3);
        assert_eq!(found[&workload(32).id()], workload(32));
        assert!(store.load(&crate::Filter::default()).unwrap().is_empty());

        let files: Vec<_> = fs::read_dir(folder.path().join(FOLDER)).unwrap().collect();
        assert_eq!(files.len(), 2, "the second call writes only what is new");
        for file in files {
            let path = file.unwrap().path();
            let text = fs::read_to_string(&path).unwrap();
            fs::write(&path, text.replace("\"out_channels\":32", "\"out_channels\":33")).unwrap();
        }
        let error = store.workloads().unwrap_err().to_string();
        assert!(error.contains("line 1") && error.contains("expected workload"), "{error}");
    }
}
