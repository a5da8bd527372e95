#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use std::{
    env, fs,
    os::unix::fs::symlink,
    process::{Command, Output},
};

use super::*;

/// What the process that a test starts is to see.
const ROLE: &str = "LATHE_TEST_CUDA";

fn tensors_work() {
    assert!((tch::Tensor::from(2.0f64) * 2.0).double_value(&[]) > 3.9);
}

/// Makes the library in `folder`, with the compiler that built this crate's shim.
fn compile(folder: &Path, source: &str) {
    let include = ffi::libtorch_folder().unwrap().join("../include");
    fs::write(folder.join("source.cpp"), source).unwrap();
    let mut command = Command::new(env::var_os("CXX").unwrap_or_else(|| "c++".into()));
    command.args(["-std=c++17", "-shared", "-fPIC", "source.cpp", "-o", LIBRARY, "-isystem"]).arg(include);
    assert!(command.current_dir(folder).status().unwrap().success());
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
    let path = folder.path().join(LIBRARY);
    fs::write(&path, "no library").unwrap();
    let text = open_beside(folder.path()).unwrap_err().to_string();
    assert!(text.starts_with(&format!("load `{}`: ", path.display())), "{text}");
    assert!(text.contains("file too short"), "{text}");
    fs::write(&path, "no library ".repeat(100)).unwrap();
    let text = open_beside(folder.path()).unwrap_err().to_string();
    assert!(text.contains("invalid ELF header"), "{text}");
    fs::remove_file(&path).unwrap();
    symlink("nowhere", &path).unwrap();
    let text = open_beside(folder.path()).unwrap_err().to_string();
    assert!(text.contains("No such file"), "{text}");
    tensors_work();
}

#[test]
fn a_library_is_loaded_and_its_initialisers_run() {
    let folder = tempfile::tempdir().unwrap();
    let mark = folder.path().join("loaded");
    let source = "#include <stdio.h>\n\
        __attribute__((constructor)) static void loaded() { fclose(fopen(\"MARK\", \"w\")); }\n";
    compile(folder.path(), &source.replace("MARK", mark.to_str().unwrap()));
    assert!(!mark.exists());
    assert_eq!(open_beside(folder.path()), Ok(true));
    assert!(mark.exists());
    tensors_work();
}

#[test]
fn a_library_that_needs_what_is_not_there_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let source = "extern \"C\" void lathe_not_there(); void f() { lathe_not_there(); }";
    compile(folder.path(), source);
    let text = open_beside(folder.path()).unwrap_err().to_string();
    assert!(text.contains("undefined symbol: lathe_not_there"), "{text}");
}

#[test]
#[ignore = "run by the other tests, with another libtorch"]
fn program() {
    let Ok(role) = env::var(ROLE) else { return };
    let folder = ffi::libtorch_folder().unwrap();
    assert!(env::var("LD_LIBRARY_PATH").unwrap().starts_with(folder.to_str().unwrap()), "{folder:?}");
    match role.as_str() {
        "without" => {
            assert_eq!(open_cuda(), Ok(false));
            assert!(!tch::Cuda::is_available());
        }
        "broken" => {
            let error = open_cuda().unwrap_err();
            assert!(
                matches!(&error, CudaError::Load { path, .. } if *path == folder.join(LIBRARY)),
                "{error}"
            );
            assert!(!tch::Cuda::is_available());
        }
        "without hooks" => {
            assert_eq!(open_cuda(), Ok(true));
            assert!(!tch::Cuda::is_available());
        }
        "with hooks" => {
            assert_eq!(open_cuda(), Ok(true));
            assert!(tch::Cuda::is_available());
            assert_eq!(tch::Cuda::device_count(), 3);
        }
        "too late" => {
            assert!(!tch::Cuda::is_available());
            assert_eq!(open_cuda(), Ok(true));
            assert!(!tch::Cuda::is_available());
        }
        _ => panic!("no such role: {role}"),
    }
    tensors_work();
}

/// Runs this program's test [`program`] with a copy of libtorch's CPU half in `folder`.
fn start(folder: &Path, role: &str) -> Output {
    let real = ffi::libtorch_folder().unwrap();
    let library_path = env::var("LD_LIBRARY_PATH").unwrap_or_default();
    Command::new(env::current_exe().unwrap())
        .args(["--exact", "cuda::tests::program", "--ignored", "--nocapture"])
        .env(ROLE, role)
        .env("LD_LIBRARY_PATH", format!("{}:{library_path}:{}", folder.display(), real.display()))
        .output()
        .unwrap()
}

/// A folder with links to libtorch's CPU half; `None` if the real one lies beside its CUDA half, which
/// this program is then linked with.
fn links() -> Option<tempfile::TempDir> {
    let real = ffi::libtorch_folder().unwrap();
    if real.join(LIBRARY).exists() {
        return None;
    }
    let folder = tempfile::tempdir().unwrap();
    for entry in fs::read_dir(real).unwrap() {
        let entry = entry.unwrap();
        symlink(entry.path(), folder.path().join(entry.file_name())).unwrap();
    }
    Some(folder)
}

fn check(folder: &Path, role: &str) {
    let Output { status, stdout, stderr } = start(folder, role);
    let [stdout, stderr] = [stdout, stderr].map(|text| String::from_utf8_lossy(&text).into_owned());
    assert!(status.success(), "{role}: {status}\n{stdout}\n{stderr}");
    assert!(stdout.contains("1 passed"), "{role}: {stdout}");
}

#[test]
fn the_library_beside_the_libtorch_in_use_decides() {
    let Some(folder) = links() else { return };
    let folder = folder.path();
    check(folder, "without");
    fs::write(folder.join(LIBRARY), "no library").unwrap();
    check(folder, "broken");
    compile(folder, "int nothing;");
    check(folder, "without hooks");
    // What the real one does at its start (ATen/cuda/detail/CUDAHooks.cpp), with devices that aren't.
    let hooks = "#include <ATen/detail/CUDAHooksInterface.h>\n\
        struct CUDAHooks : at::CUDAHooksInterface {\n\
          explicit CUDAHooks(at::CUDAHooksArgs) {}\n\
          bool hasCUDA() const override { return true; }\n\
          c10::DeviceIndex deviceCount() const override { return 3; }\n\
        };\n\
        namespace at { REGISTER_CUDA_HOOKS(CUDAHooks); }\n";
    compile(folder, hooks);
    check(folder, "with hooks");
    check(folder, "too late");
}
