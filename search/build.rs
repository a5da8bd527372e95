//! Compiles what tch does not bind of libtorch: the C++ files in `shim`.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    #[cfg(feature = "torch")]
    shim::compile();
}

#[cfg(feature = "torch")]
mod shim {
    use std::{
        env,
        path::{Path, PathBuf},
        process::exit,
    };

    const SOURCES: [&str; 2] = ["shim/collective.cpp", "shim/cuda.cpp"];
    /// A header that every libtorch with c10d has.
    const NEEDED: &str = "torch/csrc/distributed/c10d/ProcessGroupGloo.hpp";

    /// Compiles and links the shim.
    pub fn compile() {
        println!("cargo:rerun-if-changed=shim");
        for name in ["LIBTORCH", "LIBTORCH_INCLUDE", "LIBTORCH_CXX11_ABI"] {
            println!("cargo:rerun-if-env-changed={name}");
        }
        let include = include();
        // torch-sys has the same default.
        let abi = env::var("LIBTORCH_CXX11_ABI").unwrap_or_else(|_| "1".to_owned());
        cc::Build::new()
            .cpp(true)
            .std("c++17")
            .files(SOURCES)
            .include("shim")
            .flag("-isystem")
            .flag(&include)
            .flag("-isystem")
            .flag(include.join("torch/csrc/api/include"))
            .define("USE_DISTRIBUTED", None)
            .define("USE_C10D_GLOO", None)
            .define("_GLIBCXX_USE_CXX11_ABI", abi.as_str())
            .compile("lathe_shim");
        println!("cargo:rustc-link-lib=torch_cpu");
        println!("cargo:rustc-link-lib=c10");
    }

    /// The headers of the libtorch that tch links, looked for where torch-sys looks.
    fn include() -> PathBuf {
        let given = ["LIBTORCH_INCLUDE", "LIBTORCH"].map(|name| env::var_os(name).map(PathBuf::from));
        // Set by torch-sys, however it found libtorch: the folder of the libraries.
        let beside = env::var_os("DEP_TCH_LIBTORCH_LIB").map(|lib| Path::new(&lib).join(".."));
        let tried: Vec<PathBuf> =
            given.into_iter().chain([beside]).flatten().map(|root| root.join("include")).collect();
        if let Some(found) = tried.iter().find(|include| include.join(NEEDED).is_file()) {
            return found.clone();
        }
        let tried: Vec<String> = tried.iter().map(|include| format!("`{}`", include.display())).collect();
        let tried = if tried.is_empty() { "nowhere".to_owned() } else { tried.join(", ") };
        eprintln!(
            "failed to find libtorch's headers: no `{NEEDED}`; looked in {tried}\n\
             hint: set LIBTORCH to the folder of libtorch 2.11.0 that holds `include` and `lib` \
             (`cargo xtask` does)"
        );
        exit(1);
    }
}
