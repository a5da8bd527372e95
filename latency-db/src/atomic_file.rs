//! Files that exist whole or not at all.

use std::{
    fs::{self, File},
    io::{self, BufWriter, Write},
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
};

/// How the names of files that are still being written end.
pub(crate) const PARTIAL: &str = "partial";

/// Writes a file under a temporary name in the same folder, syncs it and renames it over `path`; on
/// any error the temporary file is removed and `path` is as it was.
#[cfg(feature = "store")]
pub(crate) fn replace(
    path: &Path,
    write: impl FnOnce(&mut BufWriter<File>) -> io::Result<()>,
) -> io::Result<()> {
    through_partial(path, write, |partial| fs::rename(partial, path))
}

/// The same for a file that must not exist yet: an existing one is `ErrorKind::AlreadyExists`.
pub(crate) fn create(
    path: &Path,
    write: impl FnOnce(&mut BufWriter<File>) -> io::Result<()>,
) -> io::Result<()> {
    let exists = || io::Error::from(io::ErrorKind::AlreadyExists);
    if path.try_exists()? {
        return Err(exists());
    }
    through_partial(path, write, |partial| match fs::hard_link(partial, path) {
        Ok(()) => fs::remove_file(partial),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Err(error),
        // File systems without hard links: nothing there can check and rename in one step.
        Err(_) if path.try_exists()? => Err(exists()),
        Err(_) => fs::rename(partial, path),
    })
}

fn through_partial(
    path: &Path,
    write: impl FnOnce(&mut BufWriter<File>) -> io::Result<()>,
    publish: impl FnOnce(&Path) -> io::Result<()>,
) -> io::Result<()> {
    let partial = partial_name(path);
    let written = File::create_new(&partial).and_then(|file| {
        let mut writer = BufWriter::new(file);
        write(&mut writer)?;
        writer.flush()?;
        writer.get_ref().sync_all()?;
        publish(&partial)
    });
    if written.is_err() {
        // The first error is the one to tell; there may be nothing to remove.
        let _ = fs::remove_file(&partial);
        return written;
    }
    sync_folder(path)
}

/// Makes a new name in a folder survive a power failure.
pub(crate) fn sync_folder(path: &Path) -> io::Result<()> {
    File::open(folder(path))?.sync_all()
}

fn folder(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

/// Hidden, and unique among processes and threads.
fn partial_name(path: &Path) -> PathBuf {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    folder(path).join(format!(".{name}.{}-{number}.{PARTIAL}", std::process::id()))
}

#[cfg(all(test, feature = "store"))]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }

    #[test]
    fn a_failed_write_leaves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let full = |writer: &mut BufWriter<File>| {
            writer.write_all(b"half")?;
            Err(io::Error::from(io::ErrorKind::StorageFull))
        };
        let path = folder.path().join("file");
        assert_eq!(create(&path, full).unwrap_err().kind(), io::ErrorKind::StorageFull);
        assert_eq!(replace(&path, full).unwrap_err().kind(), io::ErrorKind::StorageFull);
        assert!(names(folder.path()).is_empty());
    }

    #[test]
    fn create_never_overwrites_and_replace_does() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        create(&path, |writer| writer.write_all(b"one")).unwrap();
        let again = create(&path, |writer| writer.write_all(b"two"));
        assert_eq!(again.unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(fs::read(&path).unwrap(), b"one");
        replace(&path, |writer| writer.write_all(b"two")).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"two");
        assert_eq!(names(folder.path()), ["file"]);
    }
}
