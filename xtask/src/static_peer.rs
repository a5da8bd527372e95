//! The static agents against the usual one: this machine's and, where it can be emulated, 64-bit ARM's.

use crate::{
    command::{self, Failure},
    cross,
    environment::{Environment, build_agent},
};

/// Builds them (minutes, the first time) and runs the tests that need them.
pub fn run(environment: &Environment) -> Result<(), Failure> {
    build_agent(&environment.root)?;
    let here = cross::static_agent(&environment.root, false)?;
    let mut tests = environment.cargo(&["test", "--package", "lathe-runners", "--test", "static_agent"]);
    tests.env("LATHE_AGENT_STATIC", here);
    let packages = cross::missing(true);
    if packages.is_empty() {
        tests.env("LATHE_AGENT_STATIC_AARCH64", cross::static_agent(&environment.root, true)?);
    } else {
        command::say(&format!(
            "the static agent for ARM is left out: apt-get install {}",
            packages.join(" ")
        ));
    }
    command::run(&mut tests)
}
