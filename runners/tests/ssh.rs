//! SSH against a real OpenSSH server on the loopback.

#![cfg(feature = "ssh")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod peers;

use std::{
    fs,
    os::unix::net::UnixStream,
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use lathe_runners::{Exit, SshIdentity, SshSettings, SshTransport, Transport, TransportError};
use nix::sys::signal::Signal;
use peers::{contract, sshd::Sshd};

const PLENTY: Duration = Duration::from_mins(1);

fn works(settings: SshSettings) {
    assert_eq!(SshTransport::new(settings).run("exit 3", PLENTY).unwrap().exit, Exit::Code(3));
}

fn fails(settings: SshSettings) -> TransportError {
    SshTransport::new(settings).probe().unwrap_err()
}

#[test]
fn ssh_keeps_the_contract_of_a_transport() {
    let Some(sshd) = Sshd::start() else { return };
    let folder = tempfile::tempdir().unwrap();
    contract::holds(&mut sshd.transport(), folder.path().to_str().unwrap());
}

#[test]
fn a_killed_process_is_a_signal_and_no_success() {
    let Some(sshd) = Sshd::start() else { return };
    let finished = sshd.transport().run("kill -KILL $$", PLENTY).unwrap();
    assert_eq!(finished.exit, Exit::Signal("KILL".into()));
}

#[test]
fn an_rsa_key_logs_in_and_another_key_is_refused_with_what_to_do() {
    let Some(sshd) = Sshd::start() else { return };
    works(SshSettings { identity: SshIdentity::File(sshd.path("id_rsa")), ..sshd.settings() });
    sshd.new_host_key("stranger", "ed25519");
    let stranger = SshIdentity::File(sshd.path("stranger"));
    let error = fails(SshSettings { identity: stranger, ..sshd.settings() });
    assert!(matches!(error, TransportError::LogIn { .. }), "{error}");
    assert!(error.to_string().contains("authorized_keys"), "{error}");
    let absent = SshIdentity::File(sshd.path("absent"));
    let error = fails(SshSettings { identity: absent, ..sshd.settings() });
    assert!(error.to_string().contains("absent") && error.to_string().contains("--identity"), "{error}");
}

#[test]
fn a_locked_key_is_told_from_a_refused_one() {
    let Some(sshd) = Sshd::start() else { return };
    for (name, format) in [("locked", None), ("locked_pem", Some("PEM"))] {
        let mut keygen = Command::new("ssh-keygen");
        keygen.args(["-q", "-t", "rsa", "-N", "secret", "-f"]).arg(sshd.path(name));
        assert!(keygen.args(format.iter().flat_map(|format| ["-m", format])).status().unwrap().success());
        let identity = SshIdentity::File(sshd.path(name));
        let error = fails(SshSettings { identity, ..sshd.settings() });
        assert!(error.to_string().contains("passphrase"), "{error}");
    }
}

#[test]
fn the_agent_is_one_option_and_its_absence_says_so() {
    let Some(sshd) = Sshd::start() else { return };
    let settings = SshSettings { identity: SshIdentity::Agent, ..sshd.settings() };
    let error = fails(settings.clone());
    assert!(matches!(error, TransportError::LogIn { .. }), "{error}");
    assert!(error.to_string().contains("ssh-add -l"), "{error}");

    let socket = sshd.path("agent");
    let mut agent =
        Command::new("ssh-agent").arg("-D").arg("-a").arg(&socket).stdout(Stdio::null()).spawn().unwrap();
    let until = Instant::now() + Duration::from_secs(10);
    while UnixStream::connect(&socket).is_err() && Instant::now() < until {
        thread::sleep(Duration::from_millis(20));
    }
    let add = Command::new("ssh-add")
        .arg(sshd.path("id_ed25519"))
        .env("SSH_AUTH_SOCK", &socket)
        .stderr(Stdio::null())
        .status();
    assert!(add.unwrap().success());
    // The variable is the process' own: a program of its own tries it (see `through_an_agent`).
    let child = Command::new(std::env::current_exe().unwrap())
        .args(["--ignored", "--exact", "through_an_agent"])
        .env("SSH_AUTH_SOCK", &socket)
        .env("LATHE_TEST_PORT", sshd.port.to_string())
        .env("LATHE_TEST_KNOWN_HOSTS", sshd.path("known_hosts"))
        .output()
        .unwrap();
    agent.kill().unwrap();
    agent.wait().unwrap();
    let text = String::from_utf8_lossy(&child.stdout);
    assert!(child.status.success() && text.contains("1 passed"), "{text}");
}

#[test]
#[ignore = "launched by the_agent_is_one_option_and_its_absence_says_so"]
fn through_an_agent() {
    works(SshSettings {
        user: peers::sshd::user(),
        host: "127.0.0.1".into(),
        port: std::env::var("LATHE_TEST_PORT").unwrap().parse().unwrap(),
        identity: SshIdentity::Agent,
        known_hosts: std::env::var_os("LATHE_TEST_KNOWN_HOSTS").unwrap().into(),
    });
}

#[test]
fn an_unknown_host_is_never_trusted_and_its_fingerprint_is_shown() {
    let Some(sshd) = Sshd::start() else { return };
    fs::write(sshd.path("known_hosts"), "# nothing\n").unwrap();
    let error = fails(sshd.settings());
    let TransportError::UnknownHost { host, fingerprint, .. } = &error else { panic!("{error}") };
    assert_eq!(host, &format!("[127.0.0.1]:{}", sshd.port));
    let shown = Command::new("ssh-keygen").arg("-lf").arg(sshd.path("host_ed25519.pub")).output().unwrap();
    let rsa = Command::new("ssh-keygen").arg("-lf").arg(sshd.path("host_rsa.pub")).output().unwrap();
    let shown = String::from_utf8([shown.stdout, rsa.stdout].concat()).unwrap();
    assert!(shown.contains(fingerprint), "{fingerprint} is not what ssh-keygen prints: {shown}");
    let text = error.to_string();
    assert!(text.contains("ssh-keyscan -p") && text.contains("known_hosts"), "{text}");
    assert_eq!(fs::read_to_string(sshd.path("known_hosts")).unwrap(), "# nothing\n", "it is not written");
    fs::remove_file(sshd.path("known_hosts")).unwrap();
    assert!(matches!(fails(sshd.settings()), TransportError::KnownHosts { .. }));
}

#[test]
fn a_changed_host_key_is_an_error_of_its_own() {
    let Some(sshd) = Sshd::start() else { return };
    sshd.new_host_key("other", "ed25519");
    sshd.write_known_hosts(&["other"]);
    let error = fails(sshd.settings());
    assert!(matches!(error, TransportError::ChangedHost { line: 1, .. }), "{error}");
    assert!(error.to_string().contains("CHANGED") && !error.is_lost(), "{error}");
    sshd.write_known_hosts(&["host_ed25519"]);
    works(sshd.settings());
}

#[test]
fn a_host_whose_key_changes_during_the_session_is_refused_at_the_reconnection() {
    let Some(mut sshd) = Sshd::start() else { return };
    let mut transport = sshd.transport();
    transport.probe().unwrap();
    sshd.new_host_key("other", "ed25519");
    sshd.signal_connections(Signal::SIGKILL);
    sshd.restart_with("other");
    assert!(transport.probe().unwrap_err().is_lost());
    assert!(matches!(transport.probe(), Err(TransportError::ChangedHost { .. })));
}

#[test]
fn the_host_is_asked_for_the_type_of_key_that_is_known() {
    let Some(mut sshd) = Sshd::start() else { return };
    // The server prefers ed25519, but only its RSA key is known.
    sshd.write_known_hosts(&["host_rsa"]);
    works(sshd.settings());
    // It no longer has a key of the known type: that is a change, not a missing algorithm.
    sshd.restart_with("host_ed25519");
    let error = fails(sshd.settings());
    assert!(matches!(error, TransportError::ChangedHost { .. }), "{error}");
}

#[test]
fn hashed_and_revoked_lines_are_understood() {
    let Some(sshd) = Sshd::start() else { return };
    let hash = |path| {
        let status = Command::new("ssh-keygen").arg("-H").arg("-f").arg(path).output().unwrap();
        assert!(status.status.success());
    };
    hash(sshd.path("known_hosts"));
    let text = fs::read_to_string(sshd.path("known_hosts")).unwrap();
    assert!(text.starts_with("|1|"), "{text}");
    works(sshd.settings());
    let revoked: String = text.lines().map(|line| format!("@revoked {line}\n")).collect();
    fs::write(sshd.path("known_hosts"), format!("{revoked}{text}")).unwrap();
    let error = fails(sshd.settings());
    assert!(matches!(error, TransportError::RevokedHost { .. }), "{error}");
}

#[test]
fn nobody_there_is_told_at_once_and_what_is_no_ssh_server_too() {
    let Some(mut sshd) = Sshd::start() else { return };
    sshd.stop();
    let error = fails(sshd.settings());
    assert!(matches!(error, TransportError::Connect { .. }) && error.is_lost(), "{error}");
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let web = thread::spawn(move || {
        use std::io::Write;
        let (mut stream, _) = listener.accept().unwrap();
        let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n");
    });
    let error = fails(SshSettings { port, ..sshd.settings() });
    assert!(error.to_string().contains("SSH server"), "{error}");
    web.join().unwrap();
}

#[test]
fn a_connection_that_is_cut_is_lost_and_the_next_call_connects_again() {
    let Some(sshd) = Sshd::start() else { return };
    let mut transport = sshd.transport();
    transport.probe().unwrap();
    let cutter = thread::scope(|scope| {
        let run = scope.spawn(|| transport.run("sleep 600", PLENTY));
        thread::sleep(Duration::from_millis(300));
        assert!(sshd.signal_connections(Signal::SIGKILL) > 0);
        run.join().unwrap()
    });
    let error = cutter.unwrap_err();
    assert!(matches!(error, TransportError::Lost { .. }), "{error}");
    assert_eq!(transport.run("exit 6", PLENTY).unwrap().exit, Exit::Code(6));
}

#[test]
fn a_frozen_server_is_silent_at_the_deadline_and_not_later() {
    let Some(sshd) = Sshd::start() else { return };
    let mut transport = sshd.transport();
    transport.probe().unwrap();
    assert!(sshd.signal_connections(Signal::SIGSTOP) > 0);
    let error = transport.run("exit 0", Duration::from_millis(500)).unwrap_err();
    assert!(matches!(error, TransportError::Silent { .. }), "{error}");
    assert_eq!(transport.run("exit 7", PLENTY).unwrap().exit, Exit::Code(7), "a new connection works");
    sshd.signal_connections(Signal::SIGCONT);
}
