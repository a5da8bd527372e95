//! The device agent for another processor, the engine that goes with it, and a place to try both on
//! this machine.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use crate::{
    command::{self, Failure},
    pins::ONNXRUNTIME_AARCH64,
    setup,
    wheel::{self, available},
};

/// Rust's name of the target.
const TRIPLE: &str = "aarch64-unknown-linux-gnu";
/// The linker.
const LINKER: &str = "aarch64-linux-gnu-gcc";
/// The emulator of single programs.
pub const EMULATOR: &str = "qemu-aarch64-static";
/// Where Debian's cross compiler has the C library of the target.
const C_LIBRARY: &str = "/usr/aarch64-linux-gnu/lib";

/// What a device with a 64-bit ARM processor needs.
pub struct Aarch64 {
    /// Agent.
    pub agent: PathBuf,
    /// ONNX Runtime's library.
    pub onnxruntime: PathBuf,
    /// Folder that stands in for the root of an ARM machine (`qemu-aarch64-static -L`).
    pub prefix: PathBuf,
}

impl Aarch64 {
    /// Variables for the tests that need them.
    pub fn variables(&self) -> Vec<(&'static str, String)> {
        vec![
            ("LATHE_AGENT_AARCH64", self.agent.display().to_string()),
            ("ORT_DYLIB_PATH_AARCH64", self.onnxruntime.display().to_string()),
            ("LATHE_AARCH64_PREFIX", self.prefix.display().to_string()),
        ]
    }

    /// How to use it, for a person.
    pub fn usage(&self) -> String {
        let (agent, library) = (self.agent.display(), self.onnxruntime.display());
        format!(
            "agent: {agent}\nlibrary: {library}\n\n\
             on a board:\n  lathe device add pi --ssh USER@HOST --identity KEY --agent {agent} --library {library}\n\
             emulated, on this machine:\n  lathe device add arm --local --launch '{EMULATOR} -L {}' --agent {agent} \
             --library {library}",
            self.prefix.display()
        )
    }
}

/// Packages that are missing for the build, and for the emulator.
pub fn missing(emulator: bool) -> Vec<&'static str> {
    let mut packages = Vec::new();
    if !available(LINKER) {
        packages.push("gcc-aarch64-linux-gnu");
    }
    if !Path::new(C_LIBRARY).is_dir() {
        packages.push("libc6-dev-arm64-cross");
    }
    if emulator && !available(EMULATOR) {
        packages.push("qemu-user-static");
    }
    packages
}

/// Builds the agent, fetches the engine, and lays out the emulator's folder.
pub fn aarch64(root: &Path) -> Result<Aarch64, Failure> {
    let home = root.join("target/lathe");
    let mut cargo = cargo(root, &home, "")?;
    cargo
        .args(["build", "--package", "lathe-runners", "--no-default-features", "--features", "agent"])
        .args(["--bin", "lathe-agent", "--target", TRIPLE, "--target-dir", "target/agent-cross"]);
    command::run(&mut cargo)?;
    let onnxruntime = setup::onnxruntime_of(&home.join("onnxruntime-aarch64"), ONNXRUNTIME_AARCH64, &home)?;
    Ok(Aarch64 {
        agent: root.join("target/agent-cross").join(TRIPLE).join("debug/lathe-agent"),
        onnxruntime,
        prefix: prefix(&home.join("aarch64-root"))?,
    })
}

/// Builds the agent that has its engine inside and needs no library of the device, not even C's, for this
/// machine's processor or for 64-bit ARM. The engine's loops are compiled for speed; that takes minutes.
pub fn static_agent(root: &Path, aarch64: bool) -> Result<PathBuf, Failure> {
    const STATIC: &str = "-C target-feature=+crt-static";
    let host = format!("{}-unknown-linux-gnu", env::consts::ARCH);
    let triple = if aarch64 { TRIPLE } else { &host };
    let mut cargo = if aarch64 && env::consts::ARCH != "aarch64" {
        cargo(root, &root.join("target/lathe"), STATIC)?
    } else {
        let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        cargo.current_dir(root).env("RUSTFLAGS", STATIC);
        cargo
    };
    cargo
        .args(["build", "--release", "--package", "lathe-runners", "--no-default-features"])
        .args(["--features", "static-agent", "--bin", "lathe-agent-static", "--target", triple])
        .args(["--target-dir", "target/agent-static"]);
    command::run(&mut cargo)?;
    Ok(root.join("target/agent-static").join(triple).join("release/lathe-agent-static"))
}

/// How to use a static agent, for a person.
pub fn static_usage(agent: &Path) -> String {
    let agent = agent.display();
    format!(
        "agent: {agent}\n\n\
         on a board:\n  lathe device add pi --ssh USER@HOST --identity KEY --agent {agent} --engine tract\n\
         on a phone:\n  lathe device add phone --adb SERIAL --agent {agent} --engine tract\n\
         emulated, on this machine:\n  lathe device add arm --local --launch {EMULATOR} --agent {agent} --engine tract"
    )
}

/// Cargo with a compiler, a linker and flags for [`TRIPLE`].
fn cargo(root: &Path, home: &Path, flags: &str) -> Result<Command, Failure> {
    let packages = missing(false);
    if !packages.is_empty() {
        return Err(Failure::new(format!(
            "failed to build the agent for {TRIPLE}: missing Debian packages {}\nhint: apt-get install {}",
            packages.join(", "),
            packages.join(" ")
        )));
    }
    let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    let mut flags = flags.to_owned();
    if !has_standard_library() {
        let rust = debian_rust(&home.join("rust-aarch64"))?;
        flags = format!("--sysroot {} {flags}", rust.join("usr").display());
        cargo
            .env("RUSTC", rust.join("usr/bin/rustc"))
            .env("LD_LIBRARY_PATH", rust.join("usr/lib/x86_64-linux-gnu"));
    }
    cargo
        .current_dir(root)
        .env("RUSTFLAGS", flags.trim())
        .env("CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER", LINKER)
        // Cargo's wrappers and the toolchain's own choice are for the other compiler.
        .env_remove("RUSTUP_TOOLCHAIN");
    Ok(cargo)
}

/// Whether the toolchain in use has the target's standard library (`rustup target add`).
fn has_standard_library() -> bool {
    let mut rustc = Command::new("rustc");
    rustc.args(["--print", "target-libdir", "--target", TRIPLE]);
    let Ok(output) = rustc.output() else { return false };
    let folder = PathBuf::from(String::from_utf8_lossy(&output.stdout).trim().to_owned());
    output.status.success() && fs::read_dir(folder).is_ok_and(|mut entries| entries.next().is_some())
}

/// Debian's compiler with its standard libraries for this processor and the other one, unpacked into a
/// folder: nothing is installed, and the system's package lists stay as they are.
fn debian_rust(folder: &Path) -> Result<PathBuf, Failure> {
    let stamp = folder.join("stamp");
    if stamp.is_file() {
        return Ok(folder.to_owned());
    }
    if !available("apt-get") || !available("dpkg-deb") {
        return Err(Failure::new(format!(
            "failed to get Rust's standard library for {TRIPLE}: neither the toolchain nor this system has it\n\
             hint: rustup target add {TRIPLE}; on Debian, apt-get and dpkg-deb fetch it from its packages"
        )));
    }
    command::say(&format!("fetching Debian's Rust for {TRIPLE}"));
    let (lists, packages, root) = (folder.join("lists"), folder.join("packages"), folder.to_owned());
    for part in [&lists.join("partial"), &packages] {
        fs::create_dir_all(part).map_err(|error| wheel::io("create", part, &error))?;
    }
    let apt = |program: &str| {
        let mut command = Command::new(program);
        command.current_dir(&packages).env("LC_ALL", "C");
        command.arg("-o").arg(format!("Dir::State::lists={}", lists.display()));
        for option in [
            "Dir::Cache::pkgcache=",
            "Dir::Cache::srcpkgcache=",
            "APT::Sandbox::User=root",
            "APT::Architectures::=amd64",
            "APT::Architectures::=arm64",
        ] {
            command.args(["-o", option]);
        }
        command
    };
    command::run(apt("apt-get").args(["--quiet", "update"]))?;
    let mut names = vec!["rustc-web".to_owned()];
    names.extend(dependencies(&mut apt("apt-cache"), "rustc-web", &["libstd-rust"])?);
    names.extend(dependencies(&mut apt("apt-cache"), "libstd-rust-web-dev", &["libstd-rust"])?);
    let libraries =
        names.iter().find(|name| name.starts_with("libstd-rust-web-1")).cloned().unwrap_or_default();
    names.extend(dependencies(&mut apt("apt-cache"), &libraries, &["libllvm"])?);
    names.push("libstd-rust-web-dev:arm64".to_owned());
    command::run(apt("apt-get").args(["--quiet", "download"]).args(&names))?;
    let entries = fs::read_dir(&packages).map_err(|error| wheel::io("read", &packages, &error))?;
    for entry in entries.flatten() {
        command::run(Command::new("dpkg-deb").arg("--extract").arg(entry.path()).arg(&root))?;
    }
    for part in [&lists, &packages] {
        fs::remove_dir_all(part).map_err(|error| wheel::io("delete", part, &error))?;
    }
    fs::write(&stamp, names.join("\n")).map_err(|error| wheel::io("write", &stamp, &error))?;
    Ok(root)
}

/// What a package depends on, of those whose names begin so.
fn dependencies(apt: &mut Command, package: &str, wanted: &[&str]) -> Result<Vec<String>, Failure> {
    let output = command::capture(apt.args(["depends", package]))?;
    let found = parse_dependencies(&String::from_utf8_lossy(&output.stdout), wanted);
    if found.is_empty() {
        return Err(Failure::new(format!(
            "failed to get Rust's standard library for {TRIPLE}: Debian's package {package} is not to be had, or \
             depends on none of {}\nhint: rustup target add {TRIPLE}",
            wanted.join(", ")
        )));
    }
    Ok(found)
}

fn parse_dependencies(text: &str, wanted: &[&str]) -> Vec<String> {
    text.lines()
        .filter_map(|line| line.trim().strip_prefix("Depends: "))
        .filter(|name| wanted.iter().any(|beginning| name.starts_with(beginning)))
        .map(str::to_owned)
        .collect()
}

/// A folder whose files the emulator shows in place of the host's: the target's C library, and a
/// `/proc/cpuinfo` of as many ARM cores as this machine has. With the host's own, ONNX Runtime's
/// detection of the processor crashes.
fn prefix(folder: &Path) -> Result<PathBuf, Failure> {
    let proc = folder.join("proc");
    fs::create_dir_all(&proc).map_err(|error| wheel::io("create", &proc, &error))?;
    let library = folder.join("lib");
    if !library.is_symlink() {
        std::os::unix::fs::symlink(C_LIBRARY, &library)
            .map_err(|error| wheel::io("link", &library, &error))?;
    }
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let listed = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let cores = listed.lines().filter(|line| line.starts_with("processor")).count().max(cores);
    let file = proc.join("cpuinfo");
    fs::write(&file, cpuinfo(cores)).map_err(|error| wheel::io("write", &file, &error))?;
    Ok(folder.to_owned())
}

/// Cortex-A72 cores, as a Raspberry Pi 4 shows them.
fn cpuinfo(cores: usize) -> String {
    (0..cores)
        .map(|core| {
            format!(
                "processor\t: {core}\nBogoMIPS\t: 108.00\n\
                 Features\t: fp asimd evtstrm crc32 cpuid\nCPU implementer\t: 0x41\n\
                 CPU architecture: 8\nCPU variant\t: 0x0\nCPU part\t: 0xd08\nCPU revision\t: 3\n\n"
            )
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dependencies_are_read_from_apts_words() {
        let text = "rustc-web\n  Depends: libc6\n  Depends: libstd-rust-web-dev\n  Depends: <libc-dev>\n    libc6-dev\n  \
                    Conflicts: rustc\n";
        assert_eq!(parse_dependencies(text, &["libstd-rust"]), ["libstd-rust-web-dev"]);
        assert!(parse_dependencies("E: No packages found\n", &["libllvm"]).is_empty());
    }

    #[test]
    fn every_core_is_listed() {
        assert_eq!(cpuinfo(3).matches("CPU part\t: 0xd08").count(), 3);
        assert!(cpuinfo(2).contains("processor\t: 1\n"));
    }
}
