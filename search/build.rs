//! Compiles what tch does not bind of libtorch: the C++ files in `shim`.

use std::{
    env,
    path::{Path, PathBuf},
};

/// A header that every libtorch with c10d has.
const NEEDED: &str = "torch/csrc/distributed/c10d/ProcessGroupGloo.hpp";

fn main() {
    println!("cargo::rerun-if-changed=shim");
    for name in ["LIBTORCH", "LIBTORCH_INCLUDE", "LIBTORCH_CXX11_ABI"] {
        println!("cargo::rerun-if-env-changed={name}");
    }
    if env::var_os("CARGO_FEATURE_TORCH").is_none() {
        return;
    }
    if let Some(include) = headers() {
        collective(&include);
    }
}

/// Sums over processes, and the opening of the CUDA half.
fn collective(include: &Path) {
    // torch-sys has the same default.
    let abi = env::var("LIBTORCH_CXX11_ABI").unwrap_or_else(|_| "1".to_owned());
    let mut build = cc::Build::new();
    build.cpp(true).std("c++17").files(["shim/collective.cpp", "shim/cuda.cpp"]);
    // What stands in for Gloo's headers (shim/gloo/README.md).
    build.include("shim");
    for folder in [include, &include.join("torch/csrc/api/include")] {
        build.flag("-isystem").flag(folder);
    }
    build.define("USE_DISTRIBUTED", None).define("USE_C10D_GLOO", None);
    build.define("_GLIBCXX_USE_CXX11_ABI", abi.as_str());
    build.compile("lathe_collective");
    println!("cargo::rustc-link-lib=torch_cpu");
    println!("cargo::rustc-link-lib=c10");
}

/// The headers of the libtorch that tch links, looked for where torch-sys looks; the build fails with a
/// message if there are none.
fn headers() -> Option<PathBuf> {
    let given = ["LIBTORCH_INCLUDE", "LIBTORCH"].map(|name| env::var_os(name).map(PathBuf::from));
    // Set by torch-sys, however it found libtorch: the folder of the libraries.
    let beside = env::var_os("DEP_TCH_LIBTORCH_LIB").map(|lib| Path::new(&lib).join(".."));
    let tried: Vec<PathBuf> =
        given.into_iter().chain([beside]).flatten().map(|root| root.join("include")).collect();
    let found = tried.iter().find(|include| include.join(NEEDED).is_file());
    if found.is_none() {
        let tried: Vec<String> = tried.iter().map(|include| include.display().to_string()).collect();
        println!(
            "cargo::error=failed to find libtorch's headers: no {NEEDED} in {}; hint: build with `cargo xtask`, \
             or set LIBTORCH to the folder of libtorch 2.11.0 that holds `include` and `lib`",
            if tried.is_empty() { "any folder".to_owned() } else { tried.join(", ") }
        );
    }
    found.cloned()
}
