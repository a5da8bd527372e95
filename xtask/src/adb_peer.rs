//! The adb tests against Debian's adbd, in namespaces of their own: nothing of it is reachable from
//! outside, and nothing of it is left when the tests have ended.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use crate::{
    command::{self, Failure},
    environment::{Environment, build_agent},
    wheel::available,
};

/// Where Debian puts the daemon.
const ADBD: &str = "usr/lib/android-sdk/platform-tools/adbd";

/// Runs inside the namespaces: the daemon in its own root, an adb server, and then the words that are
/// left. The daemon binds to every address of the network namespace, which has none but the loopback.
const PEER: &str = r#"
set -eu
root=$1
shift
ip link set lo up
mount --bind /dev "$root/dev"
mount -t proc proc "$root/proc"
mkdir -p "$root/data/local/tmp"
chroot "$root" /usr/lib/android-sdk/platform-tools/adbd >"$root/adbd.log" 2>&1 &
export ANDROID_ADB_SERVER_PORT=15037 LATHE_ADB_SERIAL=127.0.0.1:5555
adb start-server
tries=0
until adb connect $LATHE_ADB_SERIAL >/dev/null && adb -s $LATHE_ADB_SERIAL shell exit 0; do
    tries=$((tries + 1))
    [ $tries -lt 20 ] || { tail "$root/adbd.log" >&2; exit 1; }
    sleep 0.5
done
"$@"
"#;

/// Builds the peer once, and runs the tests with it.
pub fn run(environment: &Environment) -> Result<(), Failure> {
    let missing: Vec<&str> = [("adb", "adb"), ("debootstrap", "debootstrap"), ("ip", "iproute2")]
        .into_iter()
        .filter(|(program, _)| !available(program) && !Path::new("/usr/sbin").join(program).exists())
        .map(|(_, package)| package)
        .collect();
    if !missing.is_empty() {
        return Err(Failure::new(format!(
            "failed to start an adb peer: missing Debian packages {}\nhint: apt-get install {}",
            missing.join(", "),
            missing.join(" ")
        )));
    }
    let namespaces = ["--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"];
    let allowed = command::capture(Command::new("unshare").args(namespaces).arg("true"))?;
    if !allowed.status.success() {
        return Err(Failure::new(format!(
            "failed to start an adb peer: this kernel or container allows no namespaces: {}\nhint: run it as root on a machine of your own",
            String::from_utf8_lossy(&allowed.stderr).trim()
        )));
    }
    let root = peer(&environment.root)?;
    build_agent(&environment.root)?;
    let tests = ["test", "--package", "lathe-runners", "--test", "adb"];
    command::run(environment.cargo(&tests).arg("--no-run"))?;
    // What is built is only run in there, where there is no network.
    let mut inside = environment.command("unshare");
    inside.args(namespaces).args(["sh", "-c", PEER, "adb-peer"]).arg(root);
    inside.arg(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    inside.args(tests).args(["--offline", "--", "--test-threads", "1"]);
    command::run(&mut inside)
}

/// A small Debian with adbd, kept under `target/`.
fn peer(repository: &Path) -> Result<PathBuf, Failure> {
    let root = repository.join("target/adb-peer");
    if root.join(ADBD).exists() {
        return Ok(root);
    }
    let part = repository.join("target/adb-peer.part");
    if part.exists() {
        fs::remove_dir_all(&part)
            .map_err(|error| Failure::new(format!("failed to delete {}: {error}", part.display())))?;
    }
    // Without one debootstrap takes its own.
    let mirror = std::env::var("DEBIAN_MIRROR").ok();
    command::run(
        Command::new("debootstrap")
            .args(["--variant=minbase", "--include=adbd", "trixie"])
            .arg(&part)
            .args(mirror),
    )?;
    fs::rename(&part, &root)
        .map_err(|error| Failure::new(format!("failed to rename {}: {error}", part.display())))?;
    Ok(root)
}
