//! Devices by name: the registry's commands, and a whole run on a device behind SSH.

use std::{
    fs,
    net::{TcpListener, TcpStream},
    path::Path,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use crate::fixture::{Fixture, TINY, events, of_kind, stderr};

/// An SSH server on the loopback with keys of its own, in the fixture's folder `ssh`.
struct Sshd {
    port: u16,
    server: Child,
}

impl Sshd {
    /// Nothing (with a printed reason) where OpenSSH's server is not installed. In CI it must be.
    fn start(fixture: &Fixture) -> Option<Self> {
        const PROGRAM: &str = "/usr/sbin/sshd";
        if !Path::new(PROGRAM).exists() {
            assert!(std::env::var_os("CI").is_none(), "{PROGRAM} is missing: install openssh-server");
            eprintln!("skipped: {PROGRAM} is missing (Debian package openssh-server)");
            return None;
        }
        let folder = fixture.path("ssh");
        fs::create_dir_all(&folder).unwrap();
        let _ = fs::create_dir_all("/run/sshd");
        for key in ["host", "id"] {
            let mut keygen = Command::new("ssh-keygen");
            keygen.args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(folder.join(key));
            assert!(keygen.status().unwrap().success());
        }
        fs::copy(folder.join("id.pub"), folder.join("authorized_keys")).unwrap();
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let public = fs::read_to_string(folder.join("host.pub")).unwrap();
        fs::write(folder.join("known_hosts"), format!("[127.0.0.1]:{port} {public}")).unwrap();
        let here = folder.display();
        let config = format!(
            "Port {port}\nListenAddress 127.0.0.1\nHostKey {here}/host\nPidFile none\n\
             AuthorizedKeysFile {here}/authorized_keys\nStrictModes no\nUsePAM no\n\
             PasswordAuthentication no\nKbdInteractiveAuthentication no\n\
             PermitRootLogin prohibit-password\nSubsystem sftp internal-sftp\n"
        );
        fs::write(folder.join("sshd_config"), config).unwrap();
        let server = Command::new(PROGRAM)
            .args(["-D", "-f"])
            .arg(folder.join("sshd_config"))
            .arg("-E")
            .arg(folder.join("log"))
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        let sshd = Self { port, server };
        let until = Instant::now() + Duration::from_secs(20);
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(Instant::now() < until, "sshd did not start");
            thread::sleep(Duration::from_millis(50));
        }
        Some(sshd)
    }

    fn address(&self) -> String {
        let user = Command::new("id").arg("-un").output().unwrap().stdout;
        format!("{}@127.0.0.1:{}", String::from_utf8(user).unwrap().trim(), self.port)
    }
}

impl Drop for Sshd {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}

#[test]
fn devices_are_added_listed_and_removed() {
    let fixture = Fixture::new("");
    fs::write(fixture.path("key"), "key").unwrap();
    fs::write(fixture.path("hosts"), "").unwrap();
    let add = [
        "device",
        "add",
        "pi",
        "--ssh",
        "pi@10.0.0.2",
        "--identity",
        "key",
        "--known-hosts",
        "hosts",
        "--launch",
        "taskset -c 3",
    ];
    fixture.succeed(&add);
    fixture.succeed(&["device", "add", "phone", "--adb", "R58M123"]);
    fixture.succeed(&[
        "device",
        "add",
        "emulator",
        "--local",
        "--launch",
        "qemu-arm -L '/a b'",
        "--emulated",
    ]);
    let list = fixture.succeed(&["device", "list"]);
    for expected in
        ["local", "ssh pi@10.0.0.2:22", "taskset -c 3", "adb R58M123", "qemu-arm -L '/a b' (emulated)"]
    {
        assert!(list.contains(expected), "{expected} is not in:\n{list}");
    }
    let text = fs::read_to_string(fixture.path(".lathe/devices.toml")).unwrap();
    assert!(text.contains(&format!("identity = \"{}\"", fixture.path("key").display())), "{text}");

    let twice = fixture.lathe(&add);
    assert_eq!(twice.status.code(), Some(1));
    assert!(stderr(&twice).contains("--replace"), "{}", stderr(&twice));
    fixture.succeed(&[&add[..], &["--replace"]].concat());

    let unknown = fixture.lathe(&["device", "remove", "phoen"]);
    assert_eq!(unknown.status.code(), Some(1));
    assert!(stderr(&unknown).contains("did you mean `phone`?"), "{}", stderr(&unknown));
    fixture.succeed(&["device", "remove", "phone"]);
    let json: serde_json::Value =
        serde_json::from_str(&fixture.succeed(&["device", "list", "--format", "json"])).unwrap();
    let names: Vec<&str> = json.as_array().unwrap().iter().map(|row| row["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["emulator", "pi"]);
}

#[test]
fn a_device_that_can_not_be_is_refused_with_what_to_do() {
    let fixture = Fixture::new("");
    for (words, code, expected) in [
        (vec!["pi"], 2, "--ssh"),
        (vec!["pi", "--ssh", "10.0.0.2", "--identity", "agent"], 2, "there is no user"),
        (vec!["pi", "--ssh", "pi@10.0.0.2"], 2, "--identity"),
        (vec!["pi", "--ssh", "pi@x", "--adb", "y", "--identity", "agent"], 2, "cannot be used with"),
        (vec!["pi", "--ssh", "pi@x", "--identity", "no/such/key"], 1, "no/such/key"),
        (vec!["local", "--local"], 2, "needs no entry"),
        (vec!["a b", "--local"], 2, "letters, digits"),
        (vec!["x", "--local", "--launch", "a 'b"], 1, "quote is not closed"),
        (vec!["x", "--local", "--directory", "here"], 1, "absolute path"),
    ] {
        let output = fixture.lathe(&[&["device", "add"], &words[..]].concat());
        let text = stderr(&output);
        assert_eq!(output.status.code(), Some(code), "{words:?}: {text}");
        assert!(text.contains(expected), "{words:?}: {expected} is not in:\n{text}");
    }
    assert!(!fixture.path(".lathe").exists(), "nothing is written");

    fs::create_dir(fixture.path(".lathe")).unwrap();
    fs::write(fixture.path(".lathe/devices.toml"), "[pi]\nlocal = true\nlauch = \"nice\"\n").unwrap();
    let output = fixture.lathe(&["device", "list"]);
    let text = stderr(&output);
    assert!(!output.status.success());
    assert!(text.contains("devices.toml:3:1: unknown key `lauch` in [pi]"), "{text}");
    assert!(text.contains("did you mean `launch`?") && text.contains("docs/DEVICES.md"), "{text}");
}

#[test]
fn a_run_on_a_device_without_a_name_stops_before_anything_is_measured() {
    let fixture = Fixture::new(&format!("{TINY}\n[device]\nname = \"pi\"\n"));
    let output = fixture.lathe(&["measure", "run.toml"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("lathe device add pi"), "{}", stderr(&output));
}

#[test]
fn a_stage_of_a_run_measures_on_a_device_behind_ssh() {
    let fixture = Fixture::new(&format!("{TINY}\n[device]\nname = \"pi\"\n"));
    let Some(sshd) = Sshd::start(&fixture) else { return };
    let directory = fixture.path("on the device").display().to_string();
    let address = sshd.address();
    let words = [
        "device",
        "add",
        "pi",
        "--ssh",
        &address,
        "--identity",
        "ssh/id",
        "--known-hosts",
        "ssh/known_hosts",
        "--launch",
        "nice -n 1",
        "--directory",
        &directory,
    ];
    fixture.succeed(&words);
    let probe = fixture.succeed(&["device", "probe", "pi", "--format", "json"]);
    let probe: serde_json::Value = serde_json::from_str(&probe).unwrap();
    assert_eq!((&probe["device"]["name"], &probe["provenance"]), (&"pi".into(), &"measured".into()));

    fixture.succeed(&["measure", "run.toml"]);
    let events = events(&fixture.path("runs/tiny"));
    assert_eq!(of_kind(&events, "device")[0]["device"]["name"], "pi");
    let rows = fixture.succeed(&["db", "list", "--format", "json"]);
    assert!(rows.contains("\"pi") && !rows.contains("\"local"), "{rows}");

    // The key is another one now: nothing is trusted, and what to do is told.
    fs::write(fixture.path("ssh/known_hosts"), "").unwrap();
    let output = fixture.lathe(&["device", "probe", "pi"]);
    let text = stderr(&output);
    assert_eq!(output.status.code(), Some(1));
    assert!(text.contains("SHA256:") && text.contains("ssh-keyscan"), "{text}");
}
