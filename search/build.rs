//! Compiles the supernet's kernels, and what tch does not bind of libtorch: the C++ files in `kernels` and
//! `shim`.

use std::{
    env,
    path::{Path, PathBuf},
};

/// A header that every libtorch with c10d has.
const NEEDED: &str = "torch/csrc/distributed/c10d/ProcessGroupGloo.hpp";

fn main() {
    println!("cargo::rerun-if-changed=shim");
    println!("cargo::rerun-if-changed=kernels");
    for name in ["LIBTORCH", "LIBTORCH_INCLUDE", "LIBTORCH_CXX11_ABI"] {
        println!("cargo::rerun-if-env-changed={name}");
    }
    if env::var_os("CARGO_FEATURE_TORCH").is_none() {
        return;
    }
    if let Some(include) = headers() {
        shim(&include);
    }
    kernels();
}

/// The kernels, once per instruction set: the binary picks one at start.
fn kernels() {
    let mut sets: Vec<(&str, &[&str])> = vec![("baseline", &[])];
    if env::var("CARGO_CFG_TARGET_ARCH").is_ok_and(|arch| arch == "x86_64") {
        sets.push(("avx2", &["-mavx2", "-mfma"]));
        sets.push(("avx512", &WIDE));
    }
    for (set, flags) in sets {
        let mut build = cc::Build::new();
        build.cpp(true).std("c++17").file("kernels/kernels.cpp").define("LATHE_SET", set).warnings(false);
        // Whatever the profile: these loops are what a search waits for. Sums keep their order; only
        // products and sums are contracted, and no result depends on the sign of a zero or on an infinity.
        build.opt_level(3).debug(false).flag("-ffp-contract=fast").flag("-fno-math-errno");
        build.flag("-fno-signed-zeros").flag("-ffinite-math-only").flag_if_supported("-Wno-psabi");
        for flag in flags {
            build.flag(flag);
        }
        build.compile(&format!("lathe_kernels_{set}"));
    }
}

/// AVX-512 as every server with it has it.
const WIDE: [&str; 6] =
    ["-mavx512f", "-mavx512vl", "-mavx512dq", "-mavx512bw", "-mfma", "-mprefer-vector-width=512"];

/// Sums over processes, the opening of the CUDA half, and libtorch's profiling hooks.
fn shim(include: &Path) {
    // torch-sys has the same default.
    let abi = env::var("LIBTORCH_CXX11_ABI").unwrap_or_else(|_| "1".to_owned());
    let mut build = cc::Build::new();
    build.cpp(true).std("c++17").files([
        "shim/collective.cpp",
        "shim/cuda.cpp",
        "shim/profile.cpp",
        "shim/autocast.cpp",
    ]);
    // What stands in for Gloo's headers (shim/gloo/README.md).
    build.include("shim");
    for folder in [include, &include.join("torch/csrc/api/include")] {
        build.flag("-isystem").flag(folder);
    }
    build.define("USE_DISTRIBUTED", None).define("USE_C10D_GLOO", None);
    build.define("_GLIBCXX_USE_CXX11_ABI", abi.as_str());
    build.compile("lathe_shim");
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
