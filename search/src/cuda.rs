//! libtorch's CUDA half, opened if it is there: one build serves machines with and without a GPU.

use std::path::{Path, PathBuf};

use thiserror::Error;

use crate::distributed::ffi;

/// Name of the library beside `libtorch_cpu.so`.
const LIBRARY: &str = "libtorch_cuda.so";

/// Why libtorch's CUDA half can't be used.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum CudaError {
    /// The library is there but can't be loaded.
    #[error(
        "load `{}`: {reason}; hint: it must be the one of the same libtorch, with NVIDIA's libraries within reach; training uses the CPU",
        path.display()
    )]
    Load {
        /// The library.
        path: PathBuf,
        /// The loader's words.
        reason: String,
    },
    /// Where libtorch lies is not known.
    #[error("find the folder of libtorch_cpu.so, to look for `{LIBRARY}`")]
    Folder,
}

/// Opens `libtorch_cuda.so` if it lies beside the `libtorch_cpu.so` in use; false if there is none.
///
/// To be called before anything else of libtorch: it looks for its CUDA half once, at the first
/// question about CUDA, among the libraries loaded by then (`at::detail::getCUDAHooks`). Whether
/// there is a device to use is another question, for [`tch::Cuda::is_available`].
pub fn open_cuda() -> Result<bool, CudaError> {
    open_beside(&ffi::libtorch_folder().ok_or(CudaError::Folder)?)
}

fn open_beside(folder: &Path) -> Result<bool, CudaError> {
    let path = folder.join(LIBRARY);
    // A link that leads nowhere is there, too, and can't be loaded.
    if path.symlink_metadata().is_err() {
        return Ok(false);
    }
    match ffi::open_library(&path) {
        Ok(()) => Ok(true),
        Err(reason) => Err(CudaError::Load { path, reason }),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

    use std::{fs, os::unix::fs::symlink, process::Command};

    use super::*;

    #[test]
    fn the_libtorch_in_use_is_found() {
        let folder = ffi::libtorch_folder().unwrap();
        assert!(folder.join("libtorch_cpu.so").is_file(), "{}", folder.display());
        // Whether there is a CUDA half depends on the libtorch; asking leaves it usable.
        let there = folder.join(LIBRARY).exists();
        assert_eq!(open_cuda().unwrap_or(true), there);
        assert!(there || !tch::Cuda::is_available());
        assert!((tch::Tensor::from(2.0f64) * 2.0).double_value(&[]) > 3.9);
    }

    #[test]
    fn nothing_there_is_no_error() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(open_beside(folder.path()), Ok(false));
        assert_eq!(open_beside(&folder.path().join("none")), Ok(false));
    }

    #[test]
    fn a_library_that_is_none_is_told_in_the_loaders_words() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join(LIBRARY), "no library").unwrap();
        let error = open_beside(folder.path()).unwrap_err();
        let text = error.to_string();
        assert!(text.contains(LIBRARY) && text.contains("file too short"), "{text}");
        fs::write(folder.path().join(LIBRARY), "no library ".repeat(100)).unwrap();
        let text = open_beside(folder.path()).unwrap_err().to_string();
        assert!(text.contains("invalid ELF header"), "{text}");
        fs::remove_file(folder.path().join(LIBRARY)).unwrap();
        symlink("nowhere", folder.path().join(LIBRARY)).unwrap();
        let text = open_beside(folder.path()).unwrap_err().to_string();
        assert!(text.contains("No such file"), "{text}");
        assert!(!tch::Cuda::is_available() || open_cuda() == Ok(true));
    }

    /// A library with initialisers, as libtorch's CUDA half is; the compiler that built the shim makes it.
    fn compile(folder: &Path, source: &str) {
        fs::write(folder.join("source.c"), source).unwrap();
        let compiler = std::env::var_os("CC").unwrap_or_else(|| "cc".into());
        let mut command = Command::new(compiler);
        command.args(["-shared", "-fPIC", "source.c", "-o", LIBRARY]).current_dir(folder);
        assert!(command.status().unwrap().success());
    }

    #[test]
    fn a_library_is_loaded_its_initialisers_run_and_libtorch_is_none_the_worse() {
        let folder = tempfile::tempdir().unwrap();
        let mark = folder.path().join("loaded");
        let source = "#include <stdio.h>\n\
            __attribute__((constructor)) static void loaded(void) { fclose(fopen(\"MARK\", \"w\")); }\n";
        compile(folder.path(), &source.replace("MARK", mark.to_str().unwrap()));
        assert!(!mark.exists());
        assert_eq!(open_beside(folder.path()), Ok(true));
        assert!(mark.exists());
        // It registered no CUDA hooks: there is no CUDA, whatever the library's name.
        assert!(!tch::Cuda::is_available() || open_cuda() == Ok(true));
        assert!((tch::Tensor::from(2.0f64) * 2.0).double_value(&[]) > 3.9);
    }

    #[test]
    fn a_library_that_needs_what_is_not_there_is_refused_whole() {
        let folder = tempfile::tempdir().unwrap();
        compile(folder.path(), "void lathe_not_there(void); void f(void) { lathe_not_there(); }");
        let text = open_beside(folder.path()).unwrap_err().to_string();
        assert!(text.contains("undefined symbol: lathe_not_there"), "{text}");
    }
}
