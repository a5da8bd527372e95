//! The README's second command: every test and check.

use crate::{
    checks,
    command::{self, Failure},
    cross,
    environment::{Environment, build_agent},
    setup,
};

/// Runs everything; `strict` adds clippy with warnings as errors.
pub fn run(environment: &Environment, strict: bool) -> Result<(), Failure> {
    command::run(&mut environment.cargo(&["fmt", "--all", "--check"]))?;
    checks::run(environment)?;
    if let Err(failure) = setup::npu_tools(&environment.root.join("target/lathe")) {
        // Their tests skip themselves, but not where everything must hold.
        if strict {
            return Err(failure);
        }
        command::say(&failure.to_string());
    }
    build_agent(&environment.root)?;
    if strict {
        command::run(&mut environment.cargo(&[
            "clippy",
            "--workspace",
            "--all-targets",
            "--",
            "--deny",
            "warnings",
        ]))?;
    }
    command::run(&mut environment.cargo(&["check", "--package", "lathe-search", "--no-default-features"]))?;
    command::run(&mut environment.cargo(&[
        "check",
        "--package",
        "lathe-latency-db",
        "--no-default-features",
    ]))?;
    let nextest = has_nextest(environment);
    let tests: &[&str] = if nextest {
        &["nextest", "run", "--workspace", "--no-fail-fast"]
    } else {
        command::say("cargo-nextest is not installed: using cargo test");
        &["test", "--workspace", "--lib", "--bins", "--tests", "--no-fail-fast"]
    };
    // Tests run side by side: threads of libtorch that wait for each other must not keep a core busy meanwhile.
    let mut variables = vec![("GOMP_SPINCOUNT", "2000".to_owned())];
    let packages = cross::missing(true);
    if packages.is_empty() {
        variables.extend(cross::aarch64(&environment.root)?.variables());
    } else if std::env::var_os("CI").is_some() {
        return Err(Failure::new(format!(
            "failed to test on ARM: missing Debian packages {}",
            packages.join(" ")
        )));
    } else {
        command::say(&format!(
            "the tests with an emulated ARM processor are skipped: apt-get install {}",
            packages.join(" ")
        ));
    }
    // Front-page examples are tests too; those of the crates that link libtorch take a minute each.
    command::run(&mut environment.cargo(&["test", "--doc", "--workspace"]))?;
    command::run(environment.cargo(tests).envs(variables))
}

fn has_nextest(environment: &Environment) -> bool {
    let mut cargo = environment.cargo(&["nextest", "--version"]);
    cargo.output().is_ok_and(|output| output.status.success())
}
