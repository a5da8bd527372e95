//! How libtorch's threads wait for each other.

use std::{env, os::unix::process::CommandExt, process::Command};

/// Variables that rule how OpenMP's threads wait.
const RULES: [&str; 2] = ["GOMP_SPINCOUNT", "OMP_WAIT_POLICY"];
/// Turns of the waiting loop before a thread sleeps: some microseconds.
const TURNS: &str = "2000";

/// Starts this program anew with threads that wait a little and then sleep, unless the user has
/// ruled it. By default they wait actively for milliseconds: as soon as something else wants a core,
/// every one of a training step's thousands of barriers costs a time slice, and the training gets
/// slower by an order of magnitude. The library reads the variable when it is loaded, before `main`.
pub fn set() {
    if RULES.iter().any(|rule| env::var_os(rule).is_some()) {
        return;
    }
    let Ok(program) = env::current_exe() else { return };
    // Only comes back if it failed; then the training is as it would have been.
    let error = Command::new(program).args(env::args_os().skip(1)).env(RULES[0], TURNS).exec();
    tracing::warn!("failed to start anew with patient threads: {error}");
}
