#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

use super::*;

const TORCHRUN: &str = "RANK=1 WORLD_SIZE=4 MASTER_ADDR=node-0 MASTER_PORT=29500";
const SLURM: &str = "SLURM_PROCID=2 SLURM_NTASKS=3 SLURM_LAUNCH_NODE_IPADDR=10.0.0.7 SLURM_JOB_ID=4812345";

/// Reads `NAME=value` words; later ones win.
fn read(words: &str) -> Result<Option<Environment>, EnvironmentError> {
    Environment::read(|name| {
        let of_name =
            |word: &str| word.split_once('=').filter(|(key, _)| *key == name).map(|(_, v)| v.into());
        words.split(' ').filter_map(of_name).next_back()
    })
}

fn some(words: &str) -> Environment {
    read(words).unwrap().unwrap()
}

fn error(words: &str) -> String {
    read(words).unwrap_err().to_string()
}

#[test]
fn torchruns_variables_are_understood() {
    let expected = Environment {
        rank: 1,
        size: 4,
        host: "node-0".into(),
        port: 29500,
        timeout: Duration::from_mins(30),
        store: StoreHost::RankZero,
    };
    assert_eq!(some(TORCHRUN), expected);
    // They win over Slurm's.
    assert_eq!(some(&format!("{TORCHRUN} {SLURM}")), expected);
    let seconds = some(&format!("{TORCHRUN} LATHE_COLLECTIVE_TIMEOUT_SECONDS=90"));
    assert_eq!(seconds.timeout, Duration::from_secs(90));
    let agent = format!("{TORCHRUN} TORCHELASTIC_USE_AGENT_STORE=True");
    assert_eq!(some(&agent).store, StoreHost::Launcher { attempt: 0 });
    let restarted = some(&format!("{agent} TORCHELASTIC_RESTART_COUNT=2"));
    assert_eq!(restarted.store, StoreHost::Launcher { attempt: 2 });
    assert_eq!(some(&format!("{TORCHRUN} TORCHELASTIC_USE_AGENT_STORE=False")).store, StoreHost::RankZero);
}

#[test]
fn slurms_variables_are_understood() {
    let expected = Environment {
        rank: 2,
        size: 3,
        host: "10.0.0.7".into(),
        port: 22345,
        timeout: Duration::from_mins(30),
        store: StoreHost::RankZero,
    };
    assert_eq!(some(SLURM), expected);
    let given = some(&format!("{SLURM} MASTER_ADDR=node-0 MASTER_PORT=1234 WORLD_SIZE=6"));
    assert_eq!(given, Environment { size: 6, host: "node-0".into(), port: 1234, ..expected });
}

#[test]
fn a_single_process_has_no_environment() {
    for words in [
        "",
        "WORLD_SIZE=1",
        "RANK=0 WORLD_SIZE=1",
        "MASTER_ADDR=node-0 MASTER_PORT=29500",
        "RANK= WORLD_SIZE=",
        "RANK=0 WORLD_SIZE=1 MASTER_PORT=nonsense",
        // A batch script, without and with tasks to come.
        "SLURM_PROCID=0 SLURM_JOB_ID=7",
        "SLURM_PROCID=0 SLURM_NTASKS=1",
        "SLURM_PROCID=0 SLURM_NTASKS=4 WORLD_SIZE=1",
        "SLURM_NTASKS=4",
    ] {
        assert_eq!(read(words), Ok(None), "{words}");
    }
}

#[test]
fn nonsense_is_named_with_what_was_expected() {
    let cases = [
        ("RANK=4", "RANK=4, expected a whole number from 0 to 3 (WORLD_SIZE=4)"),
        ("RANK=-1", "RANK=-1, expected a whole number from 0 to 3 (WORLD_SIZE=4)"),
        ("WORLD_SIZE=0", "WORLD_SIZE=0, expected a whole number from 1 to 2147483647"),
        ("WORLD_SIZE=four", "WORLD_SIZE=four, expected a whole number from 1 to 2147483647"),
        ("MASTER_PORT=0", "MASTER_PORT=0, expected a whole number from 1 to 65535"),
        ("MASTER_PORT=65536", "MASTER_PORT=65536, expected a whole number from 1 to 65535"),
        (
            "LATHE_COLLECTIVE_TIMEOUT_SECONDS=0",
            "LATHE_COLLECTIVE_TIMEOUT_SECONDS=0, expected a whole number from 1 to 604800",
        ),
        (
            "TORCHELASTIC_USE_AGENT_STORE=True TORCHELASTIC_RESTART_COUNT=x",
            "TORCHELASTIC_RESTART_COUNT=x, expected a whole number from 0",
        ),
    ];
    for (word, expected) in cases {
        let got = error(&format!("{TORCHRUN} {word}"));
        assert_eq!(got, format!("join the other processes: the environment has {expected}"));
    }
    let got = error("RANK=1 WORLD_SIZE=1");
    assert!(got.ends_with("RANK=1, expected a whole number from 0 to 0 (WORLD_SIZE=1)"), "{got}");
    let got = error(&format!("{SLURM} SLURM_NTASKS=2"));
    assert!(got.ends_with("SLURM_PROCID=2, expected a whole number from 0 to 1 (SLURM_NTASKS=2)"), "{got}");
}

#[test]
fn half_of_the_variables_is_an_error() {
    let cases = [
        ("RANK=0", "RANK=0 but no WORLD_SIZE"),
        ("WORLD_SIZE=2", "WORLD_SIZE=2 but no RANK"),
        ("WORLD_SIZE=2 RANK=0", "WORLD_SIZE=2 but no MASTER_ADDR"),
        ("WORLD_SIZE=2 RANK=0 MASTER_ADDR=a", "WORLD_SIZE=2 but no MASTER_PORT"),
        ("SLURM_PROCID=0 SLURM_NTASKS=2", "SLURM_NTASKS=2 but no MASTER_ADDR"),
        ("SLURM_PROCID=0 SLURM_NTASKS=2 MASTER_ADDR=a", "SLURM_NTASKS=2 but no MASTER_PORT"),
        // No Slurm process: its other variables do not count.
        ("RANK=0 WORLD_SIZE=2 SLURM_LAUNCH_NODE_IPADDR=a", "WORLD_SIZE=2 but no MASTER_ADDR"),
    ];
    for (words, expected) in cases {
        let got = error(words);
        assert!(
            got.starts_with(&format!("join the other processes: the environment has {expected}; hint:")),
            "{got}"
        );
        let first = expected.split('=').next().unwrap();
        assert!(got.ends_with(&format!("for a single process unset {first}")), "{got}");
    }
}
