//! Files of this machine that a device needs: the agent, and an engine's library with what lies beside it.

use std::{
    fs,
    path::{Path, PathBuf},
};

use sha2::{Digest, Sha256};

use super::{architecture, device::RemoteDevice};
use crate::{RunnerError, find::FoundLibrary, hexadecimal::hexadecimal};

/// A file, read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Content {
    path: PathBuf,
    /// Option that names another one.
    option: &'static str,
    bytes: Vec<u8>,
}

impl Content {
    pub(super) fn read(path: &Path, option: &'static str) -> Result<Self, RunnerError> {
        let bytes = fs::read(path).map_err(RunnerError::file("read", path))?;
        Ok(Self { path: path.to_owned(), option, bytes })
    }

    /// An engine's library, and then the other files of the folder that it needs, if it needs one.
    pub(super) fn with_siblings(library: &FoundLibrary) -> Result<Vec<Self>, RunnerError> {
        let mut files = vec![library.file.clone()];
        if let Some(folder) = &library.folder {
            let entries = fs::read_dir(folder).map_err(RunnerError::file("list", folder))?;
            let mut others: Vec<PathBuf> = entries
                .filter_map(Result::ok)
                .map(|entry| entry.path())
                .filter(|path| path.is_file() && *path != library.file)
                .collect();
            others.sort();
            files.extend(others);
        }
        files.iter().map(|path| Self::read(path, "--library")).collect()
    }

    /// Refuses a program or library that is built for another processor than this one.
    pub(super) fn check(&self, architecture: &str, peer: &str) -> Result<(), RunnerError> {
        match architecture::of_file(&self.bytes).filter(|got| *got != architecture) {
            None => Ok(()),
            Some(got) => Err(RunnerError::Architecture {
                path: self.path.clone(),
                peer: peer.to_owned(),
                got: got.to_owned(),
                expected: architecture.to_owned(),
                option: self.option,
            }),
        }
    }

    fn name(&self) -> String {
        self.path.file_name().map_or_else(|| "file".into(), |name| name.to_string_lossy().into_owned())
    }
}

/// Puts files that belong together into one folder, named by the hash of their content: the path of the
/// first of them.
pub(super) fn store(device: &mut RemoteDevice, files: &[Content]) -> Result<String, RunnerError> {
    let hash = folder_name(files);
    let mut first = None;
    for file in files {
        let path = device.store(&hash, &file.name(), &file.bytes)?;
        first.get_or_insert(path);
    }
    Ok(first.unwrap_or_default())
}

/// The hash of a file alone is that of its content, whatever it is called.
fn folder_name(files: &[Content]) -> String {
    let digest = match files {
        [file] => Sha256::digest(&file.bytes),
        files => {
            let mut digest = Sha256::new();
            for file in files {
                digest.update(file.name().as_bytes());
                digest.update([0]);
                digest.update(Sha256::digest(&file.bytes));
            }
            digest.finalize()
        }
    };
    hexadecimal(&digest[..16])
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn a_library_comes_first_and_its_folder_after_it() {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in [("a.so", "a"), ("library.so", "l"), ("z.so", "z")] {
            fs::write(folder.path().join(name), text).unwrap();
        }
        fs::create_dir(folder.path().join("deeper")).unwrap();
        let mut library =
            FoundLibrary { file: folder.path().join("library.so"), folder: Some(folder.path().to_owned()) };
        let whole = Content::with_siblings(&library).unwrap();
        let names: Vec<String> = whole.iter().map(Content::name).collect();
        assert_eq!(names, ["library.so", "a.so", "z.so"]);
        library.folder = None;
        let alone = Content::with_siblings(&library).unwrap();
        assert_eq!(alone, whole[..1]);
        assert_ne!(folder_name(&alone), folder_name(&whole), "what lies beside it counts");
    }

    #[test]
    fn a_program_for_another_processor_is_refused() {
        let mut bytes = vec![0; 20];
        bytes[..6].copy_from_slice(b"\x7fELF\x02\x01");
        bytes[18] = 183;
        let content = Content { path: "/x/agent".into(), option: "--agent", bytes };
        content.check("aarch64", "pi").unwrap();
        assert!(matches!(
            content.check("x86_64", "pi"),
            Err(RunnerError::Architecture { option: "--agent", .. })
        ));
    }
}
