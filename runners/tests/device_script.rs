//! The script that runs on devices, in every shell that is there: Debian's, Android's and busybox's.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod peers;

use std::{
    fs,
    path::Path,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use peers::fake::processes_with;

const SHELLS: [&[&str]; 4] = [&["dash"], &["bash", "--posix"], &["mksh"], &["busybox", "sh"]];

/// The script in one shell, on one folder.
struct Device<'a> {
    shell: &'a [&'a str],
    folder: &'a Path,
}

impl Device<'_> {
    fn command(&self, words: &str) -> Command {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/src/remote/device.sh");
        let mut command = Command::new(self.shell[0]);
        command.args(&self.shell[1..]).arg(script).arg(self.folder).args(words.split(' '));
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// Starts a command whose standard input is open as long as the child is kept.
    fn spawn(&self, words: &str) -> Child {
        self.command(words).spawn().unwrap()
    }

    fn says(&self, words: &str) -> String {
        let mut child = self.spawn(words);
        let stdin = child.stdin.take();
        let output = child.wait_with_output().unwrap();
        drop(stdin);
        let complaints = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(complaints, "", "{:?} {words}", self.shell);
        String::from_utf8(output.stdout).unwrap().trim().replace("lathe-device: ", "")
    }

    fn job(&self, name: &str) -> std::path::PathBuf {
        let job = self.folder.join("jobs").join(name);
        fs::create_dir_all(&job).unwrap();
        fs::write(job.join("request"), "request\n").unwrap();
        job
    }
}

fn in_every_shell(test: impl Fn(&Device<'_>)) {
    let mut tried = 0;
    for shell in SHELLS {
        let there = Command::new(shell[0]).args(&shell[1..]).args(["-c", ":"]).status();
        if !there.is_ok_and(|status| status.success()) {
            eprintln!("skipped: {} is not installed", shell[0]);
            continue;
        }
        let folder = tempfile::tempdir().unwrap();
        test(&Device { shell, folder: folder.path() });
        tried += 1;
    }
    assert!(tried > 0, "no shell at all");
}

fn wait_until(what: &str, condition: impl Fn() -> bool) {
    let until = Instant::now() + Duration::from_secs(30);
    while !condition() {
        assert!(Instant::now() < until, "{what}");
        thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn a_job_runs_once_and_its_end_is_told_as_often_as_asked() {
    in_every_shell(|device| {
        let job = device.job("t-1");
        assert_eq!(device.says("take t 60 - me"), "taken");
        let start = "start t-1 1 5 t 60 20 tee out";
        assert_eq!(device.says(start), "ended 0 itself");
        fs::write(job.join("request"), "another\n").unwrap();
        assert_eq!(device.says(start), "ended 0 itself");
        assert_eq!(fs::read_to_string(job.join("answer")).unwrap(), "request\n");
        assert_eq!(device.says("start absent 1 5 t 60 20 true"), "absent");
        assert_eq!(device.says("forget t-1 absent"), "forgotten");
        assert!(!job.exists());
    });
}

#[test]
fn signals_deadlines_and_complaints_are_written_down() {
    in_every_shell(|device| {
        device.job("t-1");
        let late = device.job("t-2");
        device.says("take t 60 - me");
        // The job ends itself: its number stands in the file `pid`.
        fs::write(device.folder.join("die.sh"), "echo dying >&2; kill -KILL $$\n").unwrap();
        let die = format!("start t-1 1 5 t 60 20 sh {}/die.sh", device.folder.display());
        assert_eq!(device.says(&die), "ended 137 itself");
        assert_eq!(fs::read_to_string(device.folder.join("jobs/t-1/complaint")).unwrap(), "dying\n");
        assert_eq!(device.says("start t-2 1 5 t 60 1 sleep 61000010"), "ended 137 late");
        assert!(late.join("timeout").exists());
        assert_eq!(processes_with("sleep 61000010"), 0);
    });
}

#[test]
fn a_job_outlives_its_launcher_for_the_grace_and_no_longer() {
    in_every_shell(|device| {
        let job = device.job("t-1");
        device.says("take t 60 - me");
        let mut first = device.spawn("start t-1 1 1 t 60 600 sleep 61000011");
        wait_until("it was not launched", || job.join("pid").exists() && job.join("holder").exists());
        // The launcher goes, another one takes its place before the grace is over.
        let second_start = |number| device.spawn(&format!("start t-1 {number} 1 t 60 600 sleep 61000011"));
        let mut second = second_start(2);
        wait_until("nobody waits", || fs::read_to_string(job.join("holder")).is_ok_and(|text| text == "2\n"));
        drop(first.stdin.take());
        first.kill().unwrap();
        first.wait().unwrap();
        thread::sleep(Duration::from_secs(2));
        assert!(processes_with("sleep 61000011") > 0, "somebody waits for it");
        drop(second.stdin.take());
        second.kill().unwrap();
        second.wait().unwrap();
        wait_until("nobody waits, but it runs", || {
            processes_with("sleep 61000011") == 0 && job.join("exit").exists()
        });
        wait_until("the lease stays", || !device.folder.join("lease").exists());
        assert_eq!(device.says("take t 60 - me"), "taken");
        assert_eq!(device.says("start t-1 3 1 t 60 600 true"), "ended 137 orphaned");
    });
}

#[test]
fn the_lease_has_one_holder() {
    in_every_shell(|device| {
        assert_eq!(device.says("take one 60 - me"), "taken");
        assert_eq!(device.says("take one 60 - me"), "taken", "taking is asked twice when an answer is lost");
        // The seconds are whole ones: one may be over by now.
        let busy = |words: &str| ["busy one 60 me", "busy one 59 me"].contains(&words);
        let said = device.says("take two 60 - other");
        assert!(busy(&said), "{said}");
        device.job("two-1");
        assert_eq!(device.says("start two-1 1 5 two 60 5 true"), "taken_away me");
        assert_eq!(device.says("release two"), "");
        let said = device.says("take two 60 - other");
        assert!(busy(&said), "{said}");
        assert_eq!(device.says("take two 60 one other"), "taken", "its holder is known to be gone");
        assert_eq!(device.says("release two"), "");
        assert_eq!(device.says("take one 60 - me"), "taken");

        // Eight at once: one gets it.
        assert_eq!(device.says("release one"), "");
        let children: Vec<Child> =
            (0..8).map(|number| device.spawn(&format!("take n{number} 60 - me"))).collect();
        let said: Vec<String> = children
            .into_iter()
            .map(|child| String::from_utf8(child.wait_with_output().unwrap().stdout).unwrap())
            .collect();
        assert_eq!(said.iter().filter(|line| line.contains("taken")).count(), 1, "{said:?}");
    });
}
