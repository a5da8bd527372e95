//! Set-up, tests and demo of this repository: `cargo xtask --help`.

mod adb_peer;
mod checks;
mod command;
mod cross;
mod data;
mod demo;
mod engines_peer;
mod environment;
mod pins;
mod setup;
mod static_peer;
mod test;
mod unpack;
mod wheel;

use std::{path::PathBuf, process::ExitCode};

use clap::{Parser, Subcommand};

use command::Failure;
use environment::Environment;

/// Set-up, tests and demo of Lathe. Everything lands under target/.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", max_term_width = 100)]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Fetch libtorch and ONNX Runtime, once; the other tasks do it by themselves
    Setup,
    /// Set up, build, and do a whole search on generated images: a report in a few minutes
    Demo,
    /// Set up, build, and run every test and check
    Test {
        /// Clippy too, with warnings as errors (always on where CI=true)
        #[arg(long)]
        strict: bool,
    },
    /// Run the adb tests against Debian's adbd in namespaces of its own (needs root and debootstrap)
    AdbPeer,
    /// Run the tests of execution providers that need 210 MB of wheels: Hexagon's emulator and another one
    EnginesPeer,
    /// Install Arm's compiler for Ethos-U and LiteRT's interpreter; `test` does it by itself
    NpuTools,
    /// Build the device agent: target/agent/debug/lathe-agent; with --target aarch64 for 64-bit ARM, with
    /// ONNX Runtime's library for it
    Agent {
        /// Processor of the device, if it is not this machine's
        #[arg(long, value_parser = ["x86_64", "aarch64"])]
        target: Option<String>,
        /// One file that needs nothing of the device, with the engine tract inside (5 to 15 minutes)
        #[arg(long = "static")]
        linked_statically: bool,
    },
    /// Compare the static agents, this machine's and an emulated ARM one, with ONNX Runtime
    StaticPeer,
    /// Run lathe in the right environment, as in: cargo xtask lathe -- db list
    Lathe {
        /// Words for lathe
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        words: Vec<String>,
    },
    /// Print the environment as export lines for a shell
    Env,
    /// Unpack images for examples/cifar10-cpu.toml
    Data {
        /// Archive with train/<class>/*.jpg and test/<class>/*.jpg
        #[arg(long, default_value = "../shared/data/cifar10_jpeg.tar.xz")]
        archive: PathBuf,
        /// Folder
        #[arg(long, default_value = "target/data/cifar10")]
        to: PathBuf,
    },
}

fn main() -> ExitCode {
    match run(Arguments::parse().task) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            command::say(&format!("error: {failure}"));
            // The status of a program that was run for the user is the user's answer.
            ExitCode::from(failure.status.unwrap_or(1))
        }
    }
}

fn run(task: Task) -> Result<(), Failure> {
    let root = environment::root()?;
    match task {
        Task::Setup => Environment::set_up(&root).map(|_| ()),
        Task::Demo => demo::run(&Environment::set_up(&root)?),
        Task::Test { strict } => test::run(
            &Environment::set_up(&root)?.with_openvino()?,
            strict || std::env::var_os("CI").is_some(),
        ),
        Task::EnginesPeer => engines_peer::run(Environment::set_up(&root)?),
        Task::AdbPeer => adb_peer::run(&Environment::set_up(&root)?),
        Task::NpuTools => {
            setup::npu_tools(&root.join("target/lathe"))?;
            for (key, value) in environment::npu_tools(&root) {
                command::print(&format!("export {key}='{}'", value.replace('\'', "'\\''")));
            }
            Ok(())
        }
        Task::StaticPeer => static_peer::run(&Environment::set_up(&root)?),
        Task::Agent { target, linked_statically: true } => {
            let agent = cross::static_agent(&root, target.as_deref() == Some("aarch64"))?;
            command::say(&cross::static_usage(&agent));
            Ok(())
        }
        Task::Agent { target, linked_statically: false } => match target.as_deref() {
            Some(target) if target != std::env::consts::ARCH => {
                cross::aarch64(&root).map(|built| command::say(&built.usage()))
            }
            _ => environment::build_agent(&root).map(|agent| command::say(&agent.display().to_string())),
        },
        Task::Lathe { words } => demo::lathe(&Environment::set_up(&root)?, &words),
        Task::Env => {
            for (key, value) in Environment::set_up(&root)?.variables() {
                command::print(&format!("export {key}='{}'", value.replace('\'', "'\\''")));
            }
            Ok(())
        }
        Task::Data { archive, to } => data::unpack(&archive, &to),
    }
}
