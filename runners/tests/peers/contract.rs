//! What every transport must do, whatever lies behind it.

use std::time::Duration;

use lathe_runners::{Exit, Transport, TransportError};

const PLENTY: Duration = Duration::from_mins(1);

/// All of it; `root` is an empty folder on the device.
pub fn holds(transport: &mut dyn Transport, root: &str) {
    transport.probe().unwrap();
    files_arrive_whole_and_can_be_read(transport, root);
    exit_codes_and_signals_are_kept(transport);
    output_and_complaints_are_drained_together(transport);
    standard_input_stays_open(transport);
    a_deadline_ends_a_command_and_the_next_one_works(transport);
}

fn files_arrive_whole_and_can_be_read(transport: &mut dyn Transport, root: &str) {
    let content: Vec<u8> =
        (0..3_000_000_u32).map(|index| (index.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let path = format!("{root}/some/new folder/file");
    transport.put(&content, &path).unwrap();
    assert_eq!(transport.get(&path, 4_000_000).unwrap(), content);
    transport.put(b"#!/bin/sh\necho replaced \"$1\"\n", &path).unwrap();
    let finished = transport.run(&format!("'{path}' it"), PLENTY).unwrap();
    assert_eq!(String::from_utf8_lossy(&finished.stdout), "replaced it\n", "it is replaced, and can be run");
    let left = transport.run(&format!("ls '{root}/some/new folder'"), PLENTY).unwrap();
    assert_eq!(String::from_utf8_lossy(&left.stdout), "file\n", "no temporary file stays");
    transport.put(b"", &path).unwrap();
    assert_eq!(transport.get(&path, 10).unwrap(), b"");

    let absent = transport.get(&format!("{root}/absent"), 10).unwrap_err();
    assert!(matches!(absent, TransportError::File { action: "read", .. }), "{absent}");
    assert!(absent.to_string().contains(&format!("{root}/absent")), "{absent}");
    transport.put(&content, &path).unwrap();
    let large = transport.get(&path, 1000).unwrap_err();
    assert!(large.to_string().contains("larger than 1000 bytes"), "{large}");
    let refused = transport.put(b"x", "/proc/lathe/file").unwrap_err();
    assert!(matches!(refused, TransportError::File { action: "write", .. }), "{refused}");
    assert_eq!(transport.get(&path, 4_000_000).unwrap().len(), content.len(), "it goes on after errors");
}

fn exit_codes_and_signals_are_kept(transport: &mut dyn Transport) {
    assert_eq!(transport.run("exit 0", PLENTY).unwrap().exit, Exit::Code(0));
    assert_eq!(transport.run("echo out; echo err >&2; exit 9", PLENTY).unwrap().exit, Exit::Code(9));
    let killed = transport.run("kill -KILL $$", PLENTY).unwrap().exit;
    assert!(!killed.success(), "a killed process must not look like one that succeeded");
    assert!(matches!(&killed, Exit::Signal(name) if name == "KILL") || killed == Exit::Code(137), "{killed}");
}

fn output_and_complaints_are_drained_together(transport: &mut dyn Transport) {
    let flood = "head -c 3000000 /dev/zero | tr '\\0' e >&2; head -c 500000 /dev/zero | tr '\\0' o; \
                 head -c 3000000 /dev/zero | tr '\\0' e >&2; echo last words >&2; exit 4";
    let finished = transport.run(flood, PLENTY).unwrap();
    assert_eq!(finished.exit, Exit::Code(4));
    assert_eq!(finished.stdout.len(), 500_000);
    assert!(finished.stderr.ends_with(b"last words\n") && finished.stderr.len() <= 4096);
}

fn standard_input_stays_open(transport: &mut dyn Transport) {
    // A reader that meets the end of its input would be through long before the sleep.
    let line = "exec 3<&0; (read -r _ <&3; echo ended) & reader=$!; sleep 0.5; kill $reader 2>/dev/null && echo still reading";
    let finished = transport.run(line, PLENTY).unwrap();
    assert_eq!(String::from_utf8_lossy(&finished.stdout), "still reading\n");
}

fn a_deadline_ends_a_command_and_the_next_one_works(transport: &mut dyn Transport) {
    let error = transport.run("sleep 600", Duration::from_millis(700)).unwrap_err();
    assert!(matches!(error, TransportError::Silent { .. }) && error.is_lost(), "{error}");
    assert!(transport.run("exit 5", PLENTY).unwrap().exit == Exit::Code(5));
}
