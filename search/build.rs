//! Compiles the supernet's kernels, once per instruction set: the binary picks one at start.

fn main() {
    println!("cargo::rerun-if-changed=kernels/kernels.cpp");
    if std::env::var_os("CARGO_FEATURE_TORCH").is_none() {
        return;
    }
    shim();
    let x86 = std::env::var("CARGO_CFG_TARGET_ARCH").is_ok_and(|arch| arch == "x86_64");
    let mut sets: Vec<(&str, &[&str])> = vec![("baseline", &[])];
    if x86 {
        sets.push(("avx2", &["-mavx2", "-mfma"]));
        let wide = ["-mavx512f", "-mavx512vl", "-mavx512dq", "-mavx512bw", "-mfma", "-mprefer-vector-width=512"];
        sets.push(("avx512", Box::leak(Box::new(wide))));
    }
    for (set, flags) in sets {
        let mut build = cc::Build::new();
        build.cpp(true).std("c++17").file("kernels/kernels.cpp").define("LATHE_SET", set).warnings(false);
        // Whatever the profile: these loops are what a search waits for. Sums keep their order; only
        // products and sums are contracted, and no result depends on the sign of a zero or on an infinity.
        build.opt_level(3).flag("-ffp-contract=fast").flag("-fno-math-errno");
        build.flag("-fno-signed-zeros").flag("-ffinite-math-only").flag("-Wno-psabi");
        for flag in flags {
            build.flag(flag);
        }
        build.compile(&format!("lathe_kernels_{set}"));
    }
}

/// What tch does not bind of libtorch, in C++ against its headers.
fn shim() {
    println!("cargo::rerun-if-changed=shim");
    println!("cargo::rerun-if-env-changed=LIBTORCH");
    let Some(libtorch) = std::env::var_os("LIBTORCH").map(std::path::PathBuf::from) else {
        println!("cargo::error=LIBTORCH is not set: build with `cargo xtask`, or set it to a folder of libtorch 2.11.0");
        return;
    };
    let include = libtorch.join("include");
    if !include.join("ATen").is_dir() {
        println!("cargo::error=no headers of libtorch in {}: run `cargo xtask setup`", include.display());
        return;
    }
    let mut build = cc::Build::new();
    build.cpp(true).std("c++17").file("shim/profile.cpp").warnings(false);
    build.include(&include).include(include.join("torch/csrc/api/include"));
    build.compile("lathe_shim");
}
