//! What goes wrong on a device, whatever the way to it: jobs over the transport that stays on this
//! machine, and the same over SSH.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod peers;

use std::{fs, process::Command};

use lathe_latency_db::{Outcome, Provenance};
use lathe_runners::{LocalTransport, RemoteRunner, RemoteSettings, Runner, RunnerError, Transport};
use peers::fake::{FakeAgent, assert_whole, one, processes_with, run, workloads};

/// Whatever can go wrong with one process; `marker` makes its processes known.
fn accidents_of_a_process<T: Transport + 'static>(transport: impl Fn() -> T, marker: u32) {
    let (outcome, error) = one(transport(), "echo 'about to die' >&2; kill -KILL $$", 20.0);
    assert_eq!(outcome, Outcome::Crash);
    assert!(
        error.contains("SIGKILL") && error.contains("memory") && error.contains("about to die"),
        "{error}"
    );
    let (outcome, error) = one(transport(), "kill -SEGV $$", 20.0);
    assert_eq!(outcome, Outcome::Crash);
    assert!(error.contains("SIGSEGV"), "{error}");

    let (outcome, error) = one(transport(), "echo 'Segmentation fault, or so'", 20.0);
    assert_eq!(outcome, Outcome::Crash);
    assert!(error.contains("Segmentation fault, or so"), "{error}");
    let (outcome, error) = one(transport(), "echo \"$answer\"; echo \"$answer\"", 20.0);
    assert_eq!(outcome, Outcome::Crash);
    assert!(error.contains("more than one line"), "{error}");
    let (outcome, error) = one(transport(), "exit 9", 20.0);
    assert_eq!(outcome, Outcome::Crash);
    assert!(error.contains("exit code 9"), "{error}");
    let garbage = "head -c 300000 /dev/urandom";
    let (outcome, error) = one(transport(), garbage, 20.0);
    assert_eq!(outcome, Outcome::Crash);
    assert!(error.len() < 6000, "{}", error.len());

    let flood = "head -c 3000000 /dev/zero | tr '\\0' x >&2; echo last words >&2";
    let (outcome, _) = one(transport(), &format!("{flood}; echo \"$answer\""), 20.0);
    assert_eq!(outcome, Outcome::Ok);
    let (outcome, error) = one(transport(), &format!("{flood}; exit 3"), 20.0);
    assert_eq!(outcome, Outcome::Crash);
    assert!(error.contains("last words") && error.len() < 6000, "{}", error.len());

    // A child and a grandchild: only killing the whole group ends them.
    let sleeper = format!("sleep 6{marker}");
    let (outcome, error) =
        one(transport(), &format!("(sh -c '{sleeper}; true') & {sleeper}; echo never"), 2.0);
    assert_eq!(outcome, Outcome::Timeout);
    assert!(error.contains("2.0 s"), "{error}");
    assert_eq!(processes_with(&sleeper), 0, "what it launched still runs");
    // One that ends in time and leaves a child behind, which would disturb the next workload.
    let (outcome, _) = one(transport(), &format!("{sleeper} & echo \"$answer\""), 20.0);
    assert_eq!(outcome, Outcome::Ok);
    assert_eq!(processes_with(&sleeper), 0, "what it left behind still runs");
}

#[test]
fn accidents_of_a_process_are_outcomes_on_this_machine() {
    accidents_of_a_process(|| LocalTransport, 1_000_001);
}

#[cfg(feature = "ssh")]
#[test]
fn accidents_of_a_process_are_outcomes_over_ssh() {
    let Some(sshd) = peers::sshd::Sshd::start() else { return };
    accidents_of_a_process(|| sshd.transport(), 1_000_002);
}

#[test]
fn every_workload_has_one_row_and_the_files_are_pushed_once() {
    let agent = FakeAgent::good();
    let mut runner = agent.start(LocalTransport);
    assert_eq!((runner.provenance(), runner.device().name.as_str()), (Provenance::Measured, "fake"));
    let (rows, result) = run(&mut runner, &workloads(9), 20.0);
    result.unwrap();
    assert_whole(&agent, &rows, 9);
    drop(runner);
    assert!(!agent.path("device/lease").exists(), "the lease is given back");
    assert_eq!(fs::read_dir(agent.path("device/models")).unwrap().count(), 0, "models stay on the device");

    let pushed = || {
        let mut files: Vec<_> = fs::read_dir(agent.path("device"))
            .unwrap()
            .flatten()
            .flat_map(|folder| fs::read_dir(folder.path()).into_iter().flatten().flatten())
            .map(|file| (file.path(), file.metadata().unwrap().modified().unwrap()))
            .collect();
        files.sort();
        files
    };
    let before = pushed();
    assert_eq!(before.len(), 3, "script, agent and library: {before:?}");
    drop(agent.start(LocalTransport));
    assert_eq!(pushed(), before, "what is there is not pushed again");
    // A push that was cut off in the middle, by whatever means, is made good.
    let library = before.iter().find(|(path, _)| path.ends_with("library")).unwrap().0.clone();
    fs::write(&library, b"lib").unwrap();
    drop(agent.start(LocalTransport));
    assert_eq!(fs::read(&library).unwrap(), b"library");
}

#[test]
fn one_bad_workload_does_not_stop_the_others_and_its_row_has_the_devices_state() {
    let behaviour = "case \"$line\" in *relu2*) kill -KILL $$;; esac; echo \"$answer\"";
    let agent = FakeAgent::new(behaviour);
    let (rows, result) = run(&mut agent.start(LocalTransport), &workloads(3), 20.0);
    result.unwrap();
    assert_eq!(rows.len(), 3);
    for row in rows {
        let expected = if row.label == "relu2" { Outcome::Crash } else { Outcome::Ok };
        assert_eq!(row.outcome, expected, "{}", row.label);
        assert_eq!(row.after.load_average, Some(0.25), "the state is the device's, as its agent read it");
    }
}

#[test]
fn a_device_that_no_longer_runs_the_reference_is_lost_and_the_measured_rows_are_kept() {
    let behaviour = "echo x >> \"$folder/count\"; [ $(wc -l < \"$folder/count\") -ge 17 ] && touch \"$folder/dead\"; echo \"$answer\"";
    let agent = FakeAgent::new(behaviour);
    let (rows, result) = run(&mut agent.start(LocalTransport), &workloads(9), 20.0);
    assert_eq!(rows.len(), 8);
    let error = result.unwrap_err();
    assert!(matches!(error, RunnerError::DeviceLost { outcome: Outcome::Crash, .. }), "{error}");
    assert!(error.device_failure().unwrap().contains("exit code 7"), "{error}");
}

#[test]
fn two_runners_on_one_device_do_not_disturb_each_other() {
    let agent = FakeAgent::good();
    let first = agent.start(LocalTransport);
    let error = RemoteRunner::start(agent.settings(), Box::new(LocalTransport)).unwrap_err();
    let RunnerError::Busy { owner, seconds, .. } = &error else { panic!("{error}") };
    assert!(owner.contains(&format!("process {}", std::process::id())), "{owner}");
    assert!((1..=120).contains(seconds), "{seconds}");
    assert_eq!(error.device_failure(), None, "it is no failure of the device");
    drop(first);
    drop(agent.start(LocalTransport));
}

#[test]
fn the_lease_of_an_owner_that_is_gone_or_of_another_boot_is_taken_over() {
    let agent = FakeAgent::good();
    drop(agent.start(LocalTransport));
    let lease = agent.path("device/lease");
    let uptime = fs::read_to_string("/proc/uptime").unwrap();
    let later = uptime.split('.').next().unwrap().parse::<u64>().unwrap() + 1000;
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
    let space = fs::read_link("/proc/self/ns/pid").unwrap();
    let boot = boot.trim();
    let space = space.display();
    let refused = || RemoteRunner::start(agent.settings(), Box::new(LocalTransport)).is_err();

    fs::write(&lease, format!("stranger {later} {boot} alice@elsewhere 7 7 another-boot/{space}\n")).unwrap();
    assert!(refused(), "an owner elsewhere may be alive");
    fs::write(&lease, format!("stranger {later} {boot} alice@here 7 nonsense {boot}/{space}\n")).unwrap();
    assert!(!refused(), "its owner was a process of this machine and is gone");
    fs::write(&lease, format!("stranger {later} before-the-restart alice@elsewhere 7 7 x/y\n")).unwrap();
    assert!(!refused(), "the device was started anew since");
    fs::write(&lease, format!("stranger 1 {boot} alice@elsewhere 7 7 x/y\n")).unwrap();
    assert!(!refused(), "it expired");
    fs::write(&lease, "garbage\n").unwrap();
    assert!(!refused(), "nobody's");
}

#[test]
fn a_lease_that_somebody_else_took_stops_the_run_with_his_name() {
    let lease = "echo \"other 99999999 $(cat /proc/sys/kernel/random/boot_id) bob@box 42 1 x/y\" > \"$folder/device/lease\"";
    let agent = FakeAgent::new(&format!("{lease}; echo \"$answer\""));
    let (rows, result) = run(&mut agent.start(LocalTransport), &workloads(2), 20.0);
    let error = result.unwrap_err();
    assert!(
        matches!(error, RunnerError::TakenOver { .. }) && error.to_string().contains("bob@box"),
        "{error}"
    );
    assert_eq!(rows.len(), 0);
    assert!(fs::read_to_string(agent.path("device/lease")).unwrap().starts_with("other "), "it stays his");
}

#[test]
fn what_an_earlier_owner_left_running_is_ended() {
    let agent = FakeAgent::good();
    drop(agent.start(LocalTransport));
    let script = fs::read_dir(agent.path("device"))
        .unwrap()
        .flatten()
        .map(|entry| entry.path().join("device.sh"))
        .find(|path| path.exists())
        .unwrap();
    let device = agent.path("device");
    let job = device.join("jobs/old-1");
    fs::create_dir_all(&job).unwrap();
    fs::write(job.join("request"), b"").unwrap();
    fs::write(device.join("lease"), "old 0 x nobody\n").unwrap();
    let mut left = Command::new("setsid")
        .arg("sh")
        .arg(&script)
        .arg(&device)
        .args(["supervise", "old-1", "600", "sleep", "61000003"])
        .spawn()
        .unwrap();
    while !job.join("pid").exists() || processes_with("sleep 61000003") == 0 {
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    drop(agent.start(LocalTransport));
    left.wait().unwrap();
    assert_eq!((processes_with("sleep 61000003"), job.exists()), (0, false));
}

#[test]
fn a_full_disk_on_the_device_says_how_much_is_missing() {
    let agent = FakeAgent::good();
    let device = agent.path("device");
    fs::create_dir_all(&device).unwrap();
    let mounted = Command::new("mount")
        .args(["-t", "tmpfs", "-o", "size=1m", "tmpfs"])
        .arg(&device)
        .output()
        .is_ok_and(|output| output.status.success());
    if !mounted {
        eprintln!("skipped: a small file system can't be mounted here");
        return;
    }
    fs::write(agent.path("library"), vec![7; 3 << 20]).unwrap();
    let mut errors = vec![RemoteRunner::start(agent.settings(), Box::new(LocalTransport)).unwrap_err()];
    #[cfg(feature = "ssh")]
    if let Some(sshd) = peers::sshd::Sshd::start() {
        errors.push(RemoteRunner::start(agent.settings(), Box::new(sshd.transport())).unwrap_err());
    }
    let left: Vec<_> = walk(&device);
    let unmounted = Command::new("umount").arg(&device).status().unwrap().success();
    assert!(unmounted);
    for error in errors {
        let RunnerError::DiskFull { needed_kb, .. } = error else { panic!("{error}") };
        assert_eq!(needed_kb, 3 << 10);
        assert!(error.to_string().contains("--directory"), "{error}");
    }
    assert!(left.iter().all(|name| !name.contains("library")), "half a file stays: {left:?}");
}

fn walk(folder: &std::path::Path) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap().flatten() {
        found.push(entry.path().display().to_string());
        if entry.path().is_dir() {
            found.extend(walk(&entry.path()));
        }
    }
    found
}

#[test]
fn a_library_of_the_wrong_architecture_is_refused_before_it_is_pushed() {
    let agent = FakeAgent::good();
    let mut library = vec![0_u8; 64];
    library[..6].copy_from_slice(b"\x7fELF\x02\x01");
    let other: (u8, &str) = if cfg!(target_arch = "x86_64") { (183, "aarch64") } else { (62, "x86_64") };
    library[18] = other.0;
    fs::write(agent.path("library"), &library).unwrap();
    let error = RemoteRunner::start(agent.settings(), Box::new(LocalTransport)).unwrap_err();
    let text = error.to_string();
    assert!(matches!(error, RunnerError::Architecture { .. }), "{text}");
    assert!(text.contains(other.1) && text.contains(std::env::consts::ARCH), "{text}");
    assert!(text.contains("--library"), "{text}");
    let pushed = walk(&agent.path("device"));
    assert!(pushed.iter().all(|name| !name.ends_with("/library")), "{pushed:?}");
}

#[test]
fn a_launch_prefix_comes_before_the_agent_and_an_emulator_is_never_called_measured() {
    let agent = FakeAgent::new("[ \"$LATHE_TEST\" = 'a b' ] || exit 5; echo \"$answer\"");
    let launch = vec!["env".to_owned(), "LATHE_TEST=a b".into(), "nice".into(), "-n".into(), "1".into()];
    let settings = RemoteSettings { launch, ..agent.settings() };
    let mut runner = RemoteRunner::start(settings.clone(), Box::new(LocalTransport)).unwrap();
    let (rows, result) = run(&mut runner, &workloads(1), 20.0);
    result.unwrap();
    assert_eq!((rows[0].outcome, rows[0].provenance), (Outcome::Ok, Provenance::Measured), "{:?}", rows[0]);
    drop(runner);

    let declared = RemoteSettings { emulated: true, ..settings.clone() };
    let runner = RemoteRunner::start(declared, Box::new(LocalTransport)).unwrap();
    assert_eq!(runner.provenance(), Provenance::Emulated);
    drop(runner);

    let emulator = agent.path("qemu-aarch64-static");
    fs::copy("/usr/bin/env", &emulator).unwrap();
    let launch = vec![emulator.display().to_string(), "LATHE_TEST=a b".into()];
    let mut runner =
        RemoteRunner::start(RemoteSettings { launch, ..settings }, Box::new(LocalTransport)).unwrap();
    let (rows, result) = run(&mut runner, &workloads(1), 20.0);
    result.unwrap();
    assert_eq!((rows[0].outcome, rows[0].provenance), (Outcome::Ok, Provenance::Emulated), "{:?}", rows[0]);
}

#[test]
fn a_job_that_leaves_no_trace_is_a_crash_that_says_why_that_may_be() {
    // The supervisor dies with everything, as when the device is started anew.
    let behaviour = "read -r supervisor _ < supervisor; kill -KILL -$supervisor $$";
    let (outcome, error) = one(LocalTransport, behaviour, 20.0);
    assert_eq!(outcome, Outcome::Crash);
    assert!(error.contains("without a trace") && error.contains("kB are free"), "{error}");
}
