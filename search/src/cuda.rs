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

/// Runs `work` on a GPU with convolutions and matrix products in bfloat16.
pub(crate) fn half_precision<R>(work: impl FnOnce() -> R) -> R {
    ffi::autocast_bfloat16();
    tch::autocast(true, work)
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
#[path = "cuda_tests.rs"]
mod tests;
