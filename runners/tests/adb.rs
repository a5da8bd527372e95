//! adb: against Debian's adbd (`cargo xtask adb-peer` starts one and runs these tests; they are skipped
//! elsewhere), and beside it a server of the test's own for what a real one won't do on demand.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod peers;

use std::{
    fs,
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    path::PathBuf,
    process::Command,
    thread,
    time::Duration,
};

use lathe_latency_db::{Outcome, Protocol};
use lathe_runners::{
    AdbSettings, AdbTransport, Exit, Job, RemoteRunner, RemoteSettings, Runner, RunnerError, Transport,
    TransportError, adb_devices,
};
use lathe_spaces::{GraphBuilder, Level, OpSpec, Shape, Workload};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use peers::{
    contract,
    fake::{FakeAgent, one, processes_with, run, workloads},
};

const PLENTY: Duration = Duration::from_mins(1);

/// The real device of this run, if there is one.
fn real() -> Option<AdbTransport> {
    let Ok(serial) = std::env::var("LATHE_ADB_SERIAL") else {
        eprintln!(
            "skipped: LATHE_ADB_SERIAL is not set; `cargo xtask adb-peer` starts Debian's adbd and sets it"
        );
        return None;
    };
    Some(AdbTransport::new(AdbSettings { serial, server_port: AdbSettings::default_port() }))
}

fn folder_on_device(transport: &mut AdbTransport) -> String {
    let folder = format!("/data/local/tmp/test-{}", std::process::id());
    assert!(transport.run(&format!("rm -rf {folder}; mkdir -p {folder}"), PLENTY).unwrap().exit.success());
    folder
}

#[test]
fn a_real_adbd_keeps_the_contract_of_a_transport() {
    let Some(mut transport) = real() else { return };
    let folder = folder_on_device(&mut transport);
    contract::holds(&mut transport, &folder);
}

#[test]
fn accidents_of_a_process_are_outcomes_over_a_real_adbd() {
    let Some(_) = real() else { return };
    let transport = || real().unwrap();
    let (outcome, error) = one(transport(), "echo 'about to die' >&2; kill -KILL $$", 20.0);
    assert_eq!(outcome, Outcome::Crash);
    assert!(error.contains("SIGKILL") && error.contains("about to die"), "{error}");
    let flood = "head -c 3000000 /dev/zero | tr '\\0' x >&2; echo last words >&2; exit 3";
    let (outcome, error) = one(transport(), flood, 20.0);
    assert_eq!(outcome, Outcome::Crash);
    assert!(error.contains("last words") && error.len() < 6000, "{}", error.len());
    let (outcome, error) = one(transport(), "echo garbage", 20.0);
    assert_eq!(outcome, Outcome::Crash);
    assert!(error.contains("garbage"), "{error}");
    let (outcome, _) = one(transport(), "sleep 61000020 & sleep 61000020", 1.0);
    assert_eq!((outcome, processes_with("sleep 61000020")), (Outcome::Timeout, 0));
}

#[test]
fn two_runners_on_a_real_adbd_do_not_disturb_each_other() {
    let Some(transport) = real() else { return };
    let agent = FakeAgent::good();
    let first = agent.start(transport);
    let error = RemoteRunner::start(agent.settings(), Box::new(real().unwrap())).unwrap_err();
    assert!(matches!(error, RunnerError::Busy { .. }), "{error}");
    drop(first);
    drop(agent.start(real().unwrap()));
}

/// A good agent that takes two seconds and notes its launches on the device.
fn slow(transport: &mut AdbTransport) -> FakeAgent {
    let agent = FakeAgent::new("echo x >> \"$folder/launches\"; sleep 2; echo \"$answer\"");
    let folder = agent.folder.path().display();
    assert!(transport.run(&format!("mkdir -p {folder}"), PLENTY).unwrap().exit.success());
    agent
}

fn wait_for_launch(transport: &mut AdbTransport, agent: &FakeAgent) {
    let path = agent.path("launches").display().to_string();
    while transport.get(&path, 1000).unwrap_or_default().is_empty() {
        thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn a_real_adbd_that_is_cut_off_mid_run_costs_no_row_and_no_second_launch() {
    let Some(mut transport) = real() else { return };
    let serial = std::env::var("LATHE_ADB_SERIAL").unwrap();
    let agent = slow(&mut transport);
    let mut runner = agent.start(real().unwrap());
    let (rows, result) = thread::scope(|scope| {
        let running = scope.spawn(|| run(&mut runner, &workloads(1), 30.0));
        wait_for_launch(&mut transport, &agent);
        for word in ["disconnect", "connect"] {
            assert!(Command::new("adb").args([word, &serial]).output().unwrap().status.success());
            thread::sleep(Duration::from_millis(500));
        }
        running.join().unwrap()
    });
    result.unwrap();
    assert_eq!((rows.len(), rows[0].outcome, rows[0].samples_ns.len()), (1, Outcome::Ok, 20));
    let launches = transport.get(&agent.path("launches").display().to_string(), 1000).unwrap();
    assert_eq!(launches, b"x\nx\n", "two processes, each launched once");
}

#[test]
fn a_real_adbd_that_freezes_is_given_up_at_the_deadline() {
    let Some(mut transport) = real() else { return };
    let agent = slow(&mut transport);
    let settings = RemoteSettings { patience: Duration::from_secs(1), ..agent.settings() };
    let mut runner = RemoteRunner::start(settings, Box::new(real().unwrap())).unwrap();
    let signal = |signal| {
        let adbd =
            |path: &PathBuf| fs::read_to_string(path.join("comm")).is_ok_and(|name| name.trim() == "adbd");
        let processes = fs::read_dir("/proc").unwrap().flatten().map(|entry| entry.path()).filter(adbd);
        for process in processes {
            let pid = process.file_name().unwrap().to_str().unwrap().parse().unwrap();
            kill(Pid::from_raw(pid), signal).unwrap();
        }
    };
    let (rows, result) = thread::scope(|scope| {
        let running = scope.spawn(|| run(&mut runner, &workloads(1), 2.0));
        wait_for_launch(&mut transport, &agent);
        signal(Signal::SIGSTOP);
        running.join().unwrap()
    });
    signal(Signal::SIGCONT);
    assert_eq!(rows.len(), 0);
    assert!(matches!(result, Err(RunnerError::Unreachable { .. })), "{result:?}");
    drop(runner);
    assert_eq!(transport.run("exit 5", PLENTY).unwrap().exit, Exit::Code(5), "it works again");
}

#[test]
fn the_real_agent_measures_over_a_real_adbd() {
    let Some(mut transport) = real() else { return };
    let directory = folder_on_device(&mut transport);
    let file = |name| Some(PathBuf::from(std::env::var_os(name).expect("cargo xtask sets it")));
    let settings = RemoteSettings {
        agent: file("LATHE_AGENT"),
        library: file("ORT_DYLIB_PATH"),
        directory: Some(directory.clone()),
        ..RemoteSettings::new("phone")
    };
    let mut runner = RemoteRunner::start(settings, Box::new(real().unwrap())).unwrap();
    let mut builder = GraphBuilder::new();
    let input = builder.input("input", Shape::new(1, 4, 8, 8)).unwrap();
    let output = builder.add("relu", OpSpec::Relu, &[input]).unwrap();
    let workload = Workload::new("relu", Level::Operator, builder.finish(&[output]).unwrap());
    let protocol = Protocol { min_seconds: 0.05, processes: 2, ..Protocol::SCREENING };
    let mut rows = Vec::new();
    runner
        .run(&[workload], &Job::new("test", protocol, 1), &mut |row| {
            rows.push(row);
            std::ops::ControlFlow::Continue(())
        })
        .unwrap();
    assert_eq!((rows.len(), rows[0].outcome), (1, Outcome::Ok), "{:?}", rows[0].error);
    assert!(rows[0].device.os.contains("trixie"), "the facts are the device's own: {:?}", rows[0].device);
    drop(runner);
    transport.run(&format!("rm -rf {directory}"), PLENTY).unwrap();
}

/// What the server of the test's own does with one connection.
type Behaviour = fn(&mut TcpStream);

/// Listens and does this with every connection: its port.
fn server(behaviour: Behaviour) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            thread::spawn(move || behaviour(&mut stream));
        }
    });
    port
}

fn request(stream: &mut TcpStream) -> String {
    let mut length = [0; 4];
    stream.read_exact(&mut length).unwrap();
    let length = usize::from_str_radix(std::str::from_utf8(&length).unwrap(), 16).unwrap();
    let mut text = vec![0; length];
    stream.read_exact(&mut text).unwrap();
    String::from_utf8(text).unwrap()
}

fn say(stream: &mut TcpStream, bytes: &[u8]) {
    let _ = stream.write_all(bytes);
}

/// Selects the device and accepts the service, as a good server does.
fn accept(stream: &mut TcpStream) -> String {
    assert_eq!(request(stream), "host:transport:serial-1");
    say(stream, b"OKAY");
    let service = request(stream);
    say(stream, b"OKAY");
    service
}

fn transport(behaviour: Behaviour) -> AdbTransport {
    AdbTransport::new(AdbSettings { serial: "serial-1".into(), server_port: server(behaviour) })
}

#[test]
fn output_complaints_and_the_exit_code_come_in_packets() {
    let mut transport = transport(|stream| {
        assert_eq!(accept(stream), "shell,v2,raw:some command");
        // In pieces, as a network may cut them.
        for piece in
            [&b"\x01\x03\0"[..], b"\0\0out\x02\x03\0\0\0e", b"rr\x07\x01\0\0\0?", b"\x03\x01\0\0\0\x89"]
        {
            say(stream, piece);
            stream.flush().unwrap();
            thread::sleep(Duration::from_millis(20));
        }
    });
    let finished = transport.run("some command", PLENTY).unwrap();
    assert_eq!(
        (finished.exit, &*finished.stdout, &*finished.stderr),
        (Exit::Code(137), &b"out"[..], &b"err"[..])
    );
}

#[test]
fn what_the_server_refuses_is_told_with_what_to_do() {
    let refusing = |stream: &mut TcpStream| {
        request(stream);
        let message = "device unauthorized.";
        say(stream, format!("FAIL{:04x}{message}", message.len()).as_bytes());
    };
    let error = transport(refusing).probe().unwrap_err();
    assert!(error.to_string().contains("unauthorized") && error.to_string().contains("allow"), "{error}");
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let mut transport = AdbTransport::new(AdbSettings { serial: "x".into(), server_port: nobody });
    let error = transport.probe().unwrap_err();
    assert!(error.to_string().contains("adb start-server"), "{error}");
}

#[test]
fn a_server_that_hangs_up_or_keeps_silent_or_speaks_otherwise_is_no_success() {
    let error = transport(|stream| {
        accept(stream);
        say(stream, b"\x01\x03\0\0\0out");
    });
    let error = { error }.run("x", PLENTY).unwrap_err();
    assert!(matches!(error, TransportError::Lost { .. }), "no exit code came: {error}");
    let mut silent = transport(|stream| {
        accept(stream);
        thread::sleep(Duration::from_mins(1));
    });
    let error = silent.run("x", Duration::from_millis(300)).unwrap_err();
    assert!(matches!(error, TransportError::Silent { .. }), "{error}");
    let mut other = transport(|stream| say(stream, b"HTTP/1.1 400 Bad Request\r\n\r\n"));
    let error = other.run("x", PLENTY).unwrap_err();
    assert!(matches!(error, TransportError::Protocol { .. }), "{error}");
}

#[test]
fn a_device_that_refuses_a_file_in_the_middle_says_why() {
    let mut transport = transport(|stream| {
        let service = accept(stream);
        if service == "sync:" {
            let mut start = [0; 64];
            let _ = stream.read(&mut start).unwrap();
            let message = "couldn't write: No space left on device";
            let length = (message.len() as u32).to_le_bytes();
            say(stream, &[b"FAIL", &length[..], message.as_bytes()].concat());
        } else {
            say(stream, b"\x03\x01\0\0\0\0");
        }
    });
    let error = transport.put(&vec![1; 8 << 20], "/data/local/tmp/file").unwrap_err();
    match &error {
        TransportError::File { message, .. } => assert!(message.contains("No space left"), "{error}"),
        // The kernel may drop what came when the other side closes with unread bytes.
        other => assert!(other.is_lost(), "{error}"),
    }
}

#[test]
fn attached_devices_are_listed_with_their_states() {
    let port = server(|stream| {
        assert_eq!(request(stream), "host:devices");
        let text = "serial-1\tdevice\nserial-2\tunauthorized\n";
        say(stream, format!("OKAY{:04x}{text}", text.len()).as_bytes());
    });
    let devices = adb_devices(port).unwrap();
    assert_eq!(devices, [("serial-1".into(), "device".into()), ("serial-2".into(), "unauthorized".into())]);
    let several = TransportError::SeveralDevices { serials: vec!["serial-1".into(), "serial-2".into()] };
    assert!(several.to_string().contains("serial-1, serial-2") && several.to_string().contains("--adb"));
}
