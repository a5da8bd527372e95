//! Takes the libraries and headers out of the wheels.

use std::{
    fs::{self, File},
    io,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
};

use crate::{
    command::{self, Failure},
    pins::ONNXRUNTIME_LIBRARY,
    wheel,
};

/// Libraries of the wheel that only its CUDA and Python halves need. `libtorch.so` is replaced by an
/// empty one, because the wheel's own needs the CUDA half.
const LEFT_OUT: [&str; 7] = [
    "libtorch_cuda.so",
    "libtorch_cuda_linalg.so",
    "libc10_cuda.so",
    "libtorch_python.so",
    "libcaffe2_nvrtc.so",
    "libtorch_nvshmem.so",
    "libtorch.so",
];

/// Where a file of the libtorch wheels belongs, if anywhere.
fn torch_place(entry: &str) -> Option<PathBuf> {
    let name = Path::new(entry).file_name()?.to_str()?;
    if let Some(rest) = entry.strip_prefix("torch/") {
        let wanted = rest.starts_with("include/") || rest.starts_with("lib/") && !LEFT_OUT.contains(&name);
        return wanted.then(|| PathBuf::from(rest));
    }
    // The two libraries that libtorch_cpu.so links against.
    let stub = name.starts_with("libcudart.so") || name.starts_with("libcupti.so");
    stub.then(|| Path::new("lib").join(name))
}

/// libtorch's CPU half from its wheels.
pub fn torch(wheels: &[PathBuf], to: &Path) -> Result<(), Failure> {
    for wheel in wheels {
        extract(wheel, to, torch_place)?;
    }
    let stub = to.join("lib/libtorch.so");
    let source = to.join("lib/empty.c");
    fs::write(&source, "").map_err(|error| wheel::io("write", &source, &error))?;
    let mut compiler = Command::new("cc");
    command::run(compiler.arg("-shared").arg(&source).arg("-o").arg(&stub))
}

/// ONNX Runtime's library from its wheel.
pub fn onnxruntime(wheel: &Path, to: &Path) -> Result<(), Failure> {
    extract(wheel, to, |entry| {
        entry.ends_with(ONNXRUNTIME_LIBRARY).then(|| PathBuf::from(ONNXRUNTIME_LIBRARY))
    })
}

/// What `OpenVINO` needs to run ONNX files on the processor; its wheel has plugins and front ends for much
/// more.
const OPENVINO_PARTS: [&str; 8] = [
    "libopenvino.so.",
    "libopenvino_c.so.",
    "libopenvino_onnx_frontend.so.",
    "libopenvino_intel_cpu_plugin.so",
    "libtbb.so.",
    "libtbbbind_2_5.so.",
    "libtbbmalloc.so.",
    "libhwloc.so.",
];

/// `OpenVINO`'s libraries from its wheel, in one folder.
pub fn openvino(wheel: &Path, to: &Path) -> Result<(), Failure> {
    extract(wheel, to, |entry| {
        let name = entry.strip_prefix("openvino/libs/")?;
        OPENVINO_PARTS.iter().any(|part| name.starts_with(part)).then(|| PathBuf::from(name))
    })
}

/// Every shared library of a wheel but Python's own, in one folder.
pub fn libraries(wheel: &Path, to: &Path) -> Result<(), Failure> {
    extract(wheel, to, |entry| {
        let name = Path::new(entry).file_name()?.to_str()?;
        let library = name.starts_with("lib") && format!("{name}.").contains(".so.");
        library.then(|| PathBuf::from(name))
    })
}

/// Arm's compiler: `bin/vela` runs it.
pub fn vela(wheels: &[PathBuf], to: &Path) -> Result<(), Failure> {
    packages(wheels, to, "vela", "-c 'from ethosu.vela.vela import main; main()' \"$@\"")
}

/// LiteRT: `bin/python` is a Python that knows it.
pub fn litert(wheels: &[PathBuf], to: &Path) -> Result<(), Failure> {
    packages(wheels, to, "python", "\"$@\"")
}

/// All of some wheels as Python packages, and a launcher beside them: no virtual environment, for which
/// Debian needs another package.
fn packages(wheels: &[PathBuf], to: &Path, launcher: &str, words: &str) -> Result<(), Failure> {
    for wheel in wheels {
        extract(wheel, &to.join("packages"), |entry| {
            let safe =
                !entry.ends_with('/') && !Path::new(entry).components().any(|part| part.as_os_str() == "..");
            safe.then(|| PathBuf::from(entry))
        })?;
    }
    let path = to.join("bin").join(launcher);
    let text = format!("#!/bin/sh\nPYTHONPATH=\"$(dirname \"$0\")/../packages\" exec python3 -s {words}\n");
    fs::create_dir_all(to.join("bin"))
        .and_then(|()| fs::write(&path, text))
        .and_then(|()| fs::set_permissions(&path, fs::Permissions::from_mode(0o755)))
        .map_err(|error| wheel::io("write", &path, &error))
}

fn extract(wheel: &Path, to: &Path, place: impl Fn(&str) -> Option<PathBuf>) -> Result<(), Failure> {
    let fail = |error: &dyn std::fmt::Display| {
        Failure::new(format!("failed to unpack {}: {error}", wheel.display()))
    };
    let file = File::open(wheel).map_err(|error| fail(&error))?;
    let mut archive = zip::ZipArchive::new(file).map_err(|error| fail(&error))?;
    let mut count = 0;
    for index in 0..archive.len() {
        let mut entry = archive.by_index(index).map_err(|error| fail(&error))?;
        let name = entry.name().map_err(|error| fail(&error))?.into_owned();
        let Some(place) = place(&name).filter(|_| entry.is_file() && !name.contains("..")) else { continue };
        let target = to.join(place);
        if let Some(folder) = target.parent() {
            fs::create_dir_all(folder).map_err(|error| wheel::io("create", folder, &error))?;
        }
        let mut out = File::create(&target).map_err(|error| wheel::io("write", &target, &error))?;
        io::copy(&mut entry, &mut out).map_err(|error| wheel::io("write", &target, &error))?;
        count += 1;
    }
    if count == 0 {
        return Err(fail(&"it holds none of the expected files"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cpu_half_is_kept_and_the_cuda_half_left_out() {
        let place = |entry| torch_place(entry).map(|path| path.display().to_string());
        assert_eq!(place("torch/lib/libtorch_cpu.so").as_deref(), Some("lib/libtorch_cpu.so"));
        assert_eq!(place("torch/include/torch/script.h").as_deref(), Some("include/torch/script.h"));
        assert_eq!(place("nvidia/cu13/lib/libcudart.so.13").as_deref(), Some("lib/libcudart.so.13"));
        assert_eq!(place("nvidia/cu13/lib/libnvperf_host.so"), None);
        assert_eq!(place("torch/lib/libtorch_cuda.so"), None);
        assert_eq!(place("torch/lib/libtorch.so"), None);
        assert_eq!(place("torch/nn/modules/conv.py"), None);
    }
}
