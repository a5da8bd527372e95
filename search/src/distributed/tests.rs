//! Real processes: a test starts this very program as its peers, each running the test [`peer`].
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use std::{
    env, fs,
    net::TcpListener,
    path::Path,
    process::{Child, Command, ExitStatus, Stdio},
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use lathe_spaces::seeded_input;
use serde::{Deserialize, Serialize};
use tch::{Kind, Tensor};

use super::*;
use crate::{
    Implementation, Precision, SupernetSettings, TrainingDevice, fixtures,
    search_loop::cross_entropy,
    supernet::{Architecture, Learn, Model},
};

/// What a peer is to do.
const ROLE: &str = "LATHE_TEST_PEER";
/// Where it writes what it found.
const FOUND: &str = "LATHE_TEST_FOUND";
/// The rank that is to die.
const DOOMED: &str = "LATHE_TEST_DOOMED";
/// Longest run of a test's processes: far beyond what they need, so that a hang is seen as one.
const LIMIT: Duration = Duration::from_mins(2);

/// Processes that were started, and end with the test.
struct Peers {
    children: Vec<Child>,
    folder: tempfile::TempDir,
}

impl Peers {
    /// Starts `size` processes that meet at a free port of this machine.
    fn start(role: &str, size: usize) -> Self {
        Self::start_at(free_port(), role, 0..size, size, 60, &[])
    }

    fn start_at(
        port: u16,
        role: &str,
        ranks: std::ops::Range<usize>,
        size: usize,
        timeout_seconds: u64,
        more: &[(&str, &str)],
    ) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let start = |rank: usize| {
            Command::new(env::current_exe().unwrap())
                .args(["--exact", "distributed::tests::peer", "--ignored", "--nocapture"])
                .env(ROLE, role)
                .env(FOUND, folder.path().join(rank.to_string()))
                .env("RANK", rank.to_string())
                .env("WORLD_SIZE", size.to_string())
                .env("MASTER_ADDR", "127.0.0.1")
                .env("MASTER_PORT", port.to_string())
                .env("LATHE_COLLECTIVE_TIMEOUT_SECONDS", timeout_seconds.to_string())
                .env("OMP_NUM_THREADS", "1")
                .envs(more.iter().copied())
                .stdout(Stdio::null())
                .spawn()
                .unwrap()
        };
        Self { children: ranks.map(start).collect(), folder }
    }

    /// Waits for one of them.
    fn wait(&mut self, index: usize) -> ExitStatus {
        let began = Instant::now();
        loop {
            if let Some(status) = self.children[index].try_wait().unwrap() {
                return status;
            }
            assert!(began.elapsed() < LIMIT, "process {index} hangs");
            thread::sleep(Duration::from_millis(10));
        }
    }

    fn found<T: for<'de> Deserialize<'de>>(&self, rank: usize) -> T {
        let path = self.folder.path().join(rank.to_string());
        serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap()
    }

    /// What all of them found; they must have ended well.
    fn all<T: for<'de> Deserialize<'de>>(mut self) -> Vec<T> {
        for index in 0..self.children.len() {
            let status = self.wait(index);
            assert!(status.success(), "process {index}: {status}");
        }
        (0..self.children.len()).map(|rank| self.found(rank)).collect()
    }
}

impl Drop for Peers {
    fn drop(&mut self) {
        for child in &mut self.children {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

fn found(value: &impl Serialize) {
    let path = env::var_os(FOUND).unwrap();
    fs::write(Path::new(&path), serde_json::to_string(value).unwrap()).unwrap();
}

#[test]
#[ignore = "run by the other tests, as one process of several"]
fn peer() {
    let Ok(role) = env::var(ROLE) else { return };
    tch::set_num_threads(1);
    let environment = Environment::from_process().unwrap().expect("several processes");
    let group = ProcessGroup::connect(&environment).unwrap();
    let doomed = env::var(DOOMED).is_ok_and(|rank| rank == group.rank().to_string());
    match role.as_str() {
        "sums" => found(&sums(&group)),
        "strided" => found(&strided(&group)),
        "step" => {
            let share = Share::from(&group as &dyn Collective);
            found(&step(share, Some(Arc::new(group))));
        }
        "death" => {
            group.sum(&mut [1.0]).unwrap();
            if doomed {
                std::process::exit(9);
            }
            found(&failure(&group));
        }
        "sleep" => {
            group.sum(&mut [1.0]).unwrap();
            if doomed {
                thread::sleep(LIMIT);
            }
            found(&failure(&group));
        }
        "tell" => {
            let own = if group.rank() == 0 { "grüße" } else { "what the others say does not matter" };
            found(&tell(&group, own).unwrap());
        }
        "agree" => {
            let same = agree(&group, "seed", "7").map_err(|error| error.to_string());
            let own = if doomed { "theirs" } else { "ours" };
            let other = agree(&group, "configuration", own).map_err(|error| error.to_string());
            let after = agree(&group, "seed", "7").map_err(|error| error.to_string());
            found(&[same, other, after]);
        }
        "freeze" => {
            group.sum(&mut [1.0]).unwrap();
            if doomed {
                let own = std::process::id().to_string();
                Command::new("kill").args(["-STOP", &own]).status().unwrap();
            }
            found(&failure(&group));
        }
        _ => panic!("no such role: {role}"),
    }
}

/// What sums, broadcasts and barriers gave: all as bits, so that equal means equal.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Sums {
    double: Vec<u64>,
    single: Vec<u32>,
    broadcast: Vec<u64>,
    long: Vec<u32>,
}

fn own_values(rank: usize) -> [f64; 3] {
    [rank as f64 + 0.5, 10f64.powi(-(rank as i32)), f64::MAX / 1e3 * (1.0 - 2.0 * rank as f64)]
}

fn long_values(rank: usize) -> Vec<f32> {
    (0..100_003).map(|index| ((index * 31 + rank * 17) as f32).sin()).collect()
}

fn sums(group: &ProcessGroup) -> Sums {
    let rank = group.rank();
    let mut double = own_values(rank);
    group.sum(&mut double).unwrap();
    let mut single = own_values(rank).map(|value| value as f32 / 1e30);
    single[2] = 0.1;
    group.sum_f32(&mut single).unwrap();
    let mut broadcast = own_values(rank);
    group.broadcast(&mut broadcast).unwrap();
    group.barrier().unwrap();
    group.sum(&mut []).unwrap();
    let mut long = long_values(rank);
    group.sum_f32(&mut long).unwrap();
    Sums {
        double: double.map(f64::to_bits).to_vec(),
        single: single.map(f32::to_bits).to_vec(),
        broadcast: broadcast.map(f64::to_bits).to_vec(),
        long: long.into_iter().map(f32::to_bits).collect(),
    }
}

fn check_sums(results: &[Sums]) {
    let size = results.len();
    assert!(results.iter().all(|result| *result == results[0]), "not the same everywhere");
    for (index, &bits) in results[0].double.iter().enumerate() {
        let expected: f64 = (0..size).map(|rank| own_values(rank)[index]).sum();
        let got = f64::from_bits(bits);
        assert!((got - expected).abs() <= expected.abs() * 1e-15, "{index}: {got}, expected {expected}");
    }
    let single: f32 = (0..size).map(|_| 0.1f32).sum();
    assert!((f32::from_bits(results[0].single[2]) - single).abs() < 1e-6);
    assert_eq!(results[0].broadcast, own_values(0).map(f64::to_bits));
    let longs: Vec<Vec<f32>> = (0..size).map(long_values).collect();
    for (index, &bits) in results[0].long.iter().enumerate() {
        let expected: f32 = longs.iter().map(|values| values[index]).sum();
        assert!((f32::from_bits(bits) - expected).abs() < 1e-5, "{index}");
    }
}

/// A view whose values do not lie side by side, in a kind that is summed in single precision.
fn strided(group: &ProcessGroup) -> [Vec<f32>; 2] {
    let rank = group.rank() as f64;
    let whole = Tensor::arange(12, (Kind::BFloat16, tch::Device::Cpu)).view([3, 4]) * (rank + 1.0);
    let mut part = whole.transpose(0, 1).narrow(0, 1, 2);
    sum_tensor(group, &mut part).unwrap();
    [&part, &whole].map(|tensor| Vec::try_from(tensor.to_kind(Kind::Float).flatten(0, -1)).unwrap())
}

#[test]
fn a_tensor_is_summed_in_its_place() {
    let results = Peers::start("strided", 2).all::<[Vec<f32>; 2]>();
    let expected = |factor: f32, own: f32| {
        let part = [1.0, 5.0, 9.0, 2.0, 6.0, 10.0].map(|value| value * factor);
        // Columns 1 and 2 of three rows are summed; the rest is as it was.
        let whole =
            (0..12).map(|index| index as f32 * if [1, 2].contains(&(index % 4)) { factor } else { own });
        [part.to_vec(), whole.collect()]
    };
    assert_eq!(results, [expected(3.0, 1.0), expected(3.0, 2.0)]);
}

#[test]
fn a_network_interface_can_be_chosen() {
    let more = [("GLOO_SOCKET_IFNAME", "lo")];
    check_sums(&Peers::start_at(free_port(), "sums", 0..2, 2, 60, &more).all::<Sums>());
}

#[test]
fn two_processes_have_the_same_sums() {
    check_sums(&Peers::start("sums", 2).all::<Sums>());
}

#[test]
fn three_processes_have_the_same_sums() {
    check_sums(&Peers::start("sums", 3).all::<Sums>());
}

#[test]
fn a_launcher_that_holds_the_store_itself_is_used() {
    // A group of one stands for torchrun's agent: it serves the same TCPStore at the port.
    let port = free_port();
    let address = Some("127.0.0.1".to_owned());
    let agent = ffi::Meeting {
        host: "127.0.0.1".into(),
        port,
        rank: 0,
        size: 1,
        timeout: Duration::from_mins(1),
        serve: true,
        prefix: "agent".into(),
        address,
    };
    let _agent = ffi::Group::create(&agent).unwrap();
    for attempt in ["0", "1"] {
        let more = [("TORCHELASTIC_USE_AGENT_STORE", "True"), ("TORCHELASTIC_RESTART_COUNT", attempt)];
        check_sums(&Peers::start_at(port, "sums", 0..2, 2, 60, &more).all::<Sums>());
    }
}

/// How long a sum took to fail, and the errors of this one and the next.
#[derive(Debug, Serialize, Deserialize)]
struct Failure {
    seconds: f64,
    first: String,
    second: String,
}

fn failure(group: &ProcessGroup) -> Failure {
    let began = Instant::now();
    let first = group.sum(&mut [1.0; 5]).unwrap_err().to_string();
    let seconds = began.elapsed().as_secs_f64();
    let second = group.broadcast(&mut [1.0]).unwrap_err().to_string();
    Failure { seconds, first, second }
}

fn check_failure(role: &str, doomed: usize, size: usize, timeout_seconds: u64, within: f64) {
    let more = [(DOOMED, &*doomed.to_string())];
    let mut peers = Peers::start_at(free_port(), role, 0..size, size, timeout_seconds, &more);
    for rank in (0..size).filter(|&rank| rank != doomed) {
        let status = peers.wait(rank);
        assert!(status.success(), "rank {rank}: {status}");
        let Failure { seconds, first, second } = peers.found(rank);
        assert!(seconds < within, "{seconds} s: {first}");
        let begin = format!("sum 5 values over {size} processes: rank {rank} waited ");
        assert!(first.starts_with(&begin), "{first}");
        let blame = format!(" in exchange 2, with no sign of life from rank {doomed}: ");
        assert!(first.contains(&blame), "{first}");
        let lost = format!("send 1 value of rank 0: rank {rank} lost the other processes in exchange 2");
        assert_eq!(second, lost);
    }
}

// Deaths are noticed far within the time that processes may wait: the connection breaks.

#[test]
fn a_death_among_two_is_an_error_at_once() {
    check_failure("death", 1, 2, 100, 60.0);
}

#[test]
fn a_death_among_three_is_an_error_at_once() {
    check_failure("death", 2, 3, 100, 60.0);
}

#[test]
fn the_death_of_rank_zero_who_holds_the_store_is_an_error_at_once() {
    check_failure("death", 0, 3, 100, 60.0);
}

#[test]
fn a_process_that_never_comes_is_an_error_in_time() {
    check_failure("sleep", 2, 3, 2, 30.0);
}

#[test]
fn a_frozen_process_is_an_error_in_time() {
    check_failure("freeze", 1, 3, 2, 30.0);
}

#[test]
fn a_frozen_rank_zero_that_answers_for_the_store_no_more_is_an_error_in_time() {
    check_failure("freeze", 0, 2, 2, 30.0);
}

fn environment(rank: usize, size: usize, port: u16, seconds: u64) -> Environment {
    Environment {
        rank,
        size,
        host: "127.0.0.1".into(),
        port,
        timeout: Duration::from_secs(seconds),
        store: StoreHost::RankZero,
    }
}

fn connect_error(environment: &Environment) -> String {
    let began = Instant::now();
    let error = ProcessGroup::connect(environment).unwrap_err().to_string();
    assert!(began.elapsed() < Duration::from_secs(30), "{:?}: {error}", began.elapsed());
    error
}

#[test]
fn a_port_with_nobody_behind_it_is_said() {
    let port = free_port();
    let error = connect_error(&environment(1, 2, port, 2));
    let begin = format!("connect rank 1 with the other 1 process at 127.0.0.1:{port}: ");
    assert!(error.starts_with(&begin), "{error}");
    assert!(error.contains("is rank 0 started"), "{error}");
}

#[test]
fn a_port_with_another_program_behind_it_is_said() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let error = connect_error(&environment(0, 3, port, 2));
    let begin = format!("connect rank 0 with the other 2 processes at 127.0.0.1:{port}: ");
    assert!(error.starts_with(&begin), "{error}");
    assert!(error.contains("address already in use"), "{error}");
    assert!(error.ends_with("give all processes another MASTER_PORT"), "{error}");
    // It accepts, and never answers.
    let error = connect_error(&environment(1, 3, port, 2));
    assert!(error.contains("is rank 0 started"), "{error}");
}

#[test]
fn processes_that_never_start_are_said() {
    let error = connect_error(&environment(0, 2, free_port(), 2));
    assert!(error.contains("are all other processes started"), "{error}");
}

#[test]
fn a_master_address_that_is_not_rank_zeros_is_said() {
    // An address of no machine, which the kernel itself refuses: whatever the network answers for others.
    let host = "224.0.0.1".to_owned();
    let error = connect_error(&Environment { host, ..environment(0, 2, free_port(), 2) });
    assert!(error.contains("MASTER_ADDR must be the machine of rank 0"), "{error}");
}

#[test]
fn a_host_that_does_not_exist_is_said() {
    let host = "no-such-host.invalid".to_owned();
    let error = connect_error(&Environment { host, ..environment(1, 2, free_port(), 2) });
    assert!(error.contains("no such host: MASTER_ADDR must be"), "{error}");
}

#[test]
fn processes_with_different_tasks_are_told_so() {
    let start = |doomed| Peers::start_at(free_port(), "agree", 0..3, 3, 60, &[(DOOMED, doomed)]);
    for (doomed, others) in [("2", "rank 2 has"), ("0", "ranks 1, 2 have")] {
        let error = format!(
            "train in 3 processes: {others} another configuration than rank 0; hint: start all processes alike"
        );
        for results in start(doomed).all::<[Result<(), String>; 3]>() {
            assert_eq!(results, [Ok(()), Err(error.clone()), Ok(())]);
        }
    }
}

#[test]
fn everybody_hears_what_the_first_one_tells() {
    assert_eq!(Peers::start("tell", 3).all::<String>(), ["grüße"; 3]);
}

#[test]
fn alone_every_sum_is_its_own() {
    let alone: &dyn Collective = &Alone;
    assert_eq!((alone.rank(), alone.size(), Share::from(alone)), (0, 1, Share::WHOLE));
    let mut values = [1.5, -2.0];
    alone.sum(&mut values).unwrap();
    alone.broadcast(&mut values).unwrap();
    assert_eq!(values.map(f64::to_bits), [1.5f64, -2.0].map(f64::to_bits));
}

/// Images of the whole batch: no share of 2 or 3 processes is even, and of 8 processes one has none.
const BATCH: usize = 7;

/// What a search step finds on a part of the batch: gradients of the weights and of the architecture, and
/// the running statistics of all batch norms.
fn step(share: Share, collective: Option<Arc<dyn Collective>>) -> [Vec<f64>; 3] {
    let space = fixtures::darts_of(8, 3, 8);
    let implementation = Implementation::Fused;
    let settings = SupernetSettings {
        width: 8,
        layers: 3,
        partial_channels: 4,
        implementation,
        device: TrainingDevice::Cpu,
        precision: Precision::Float32,
    };
    let mut model: Model<f64> = Model::new(&space, settings, 5, 1, collective).unwrap();
    let architecture = Architecture::new(&space, Kind::Double, 5).unwrap();
    let part = share.of(BATCH);
    let (start, length) = (part.start as i64, part.len() as i64);
    let shape = lathe_spaces::Shape::new(BATCH, 3, 8, 8);
    let images =
        Tensor::from_slice(&seeded_input(shape, 6)).view([BATCH as i64, 3, 8, 8]).to_kind(Kind::Double);
    let labels = Tensor::from_slice(&[0i64, 3, 9, 1, 1, 7, 4]);
    let (images, labels) = (images.narrow(0, start, length), labels.narrow(0, start, length));
    let pass = model.forward(&images, &architecture, Learn::Architecture, true).unwrap();
    // A term of the architecture itself, as the latency is: the same in every process.
    let own = (&architecture.leaves()[0] * &architecture.leaves()[0]).sum(Kind::Double) * 0.3;
    let loss = cross_entropy(&pass.logits, &labels, BATCH) + own;
    let of_architecture = model.architecture_gradient(&architecture, &pass, &loss).unwrap();
    let pass = model.forward(&images, &architecture, Learn::Weights, true).unwrap();
    let loss = cross_entropy(&pass.logits, &labels, BATCH);
    let of_weights = model.weight_gradient(&pass, &loss).unwrap();
    let statistics = model.parameters().flat_statistics.copy();
    [of_weights, of_architecture, statistics].map(|tensor| Vec::try_from(tensor).unwrap())
}

#[test]
fn several_processes_find_the_gradients_of_one_with_the_whole_batch() {
    tch::set_num_threads(1);
    let one = step(Share::WHOLE, None);
    for size in [2, 3, 8] {
        for (rank, got) in Peers::start("step", size).all::<[Vec<f64>; 3]>().into_iter().enumerate() {
            for (what, (got, one)) in
                ["weights", "architecture", "statistics"].iter().zip(got.iter().zip(&one))
            {
                assert_eq!(got.len(), one.len());
                let greatest = one.iter().fold(0.0f64, |greatest, value| greatest.max(value.abs()));
                assert!(greatest > 1e-3, "{what}: {greatest}");
                let differences = got.iter().zip(one).map(|(a, b)| (a - b).abs());
                let difference = differences.fold(0.0, f64::max) / greatest;
                assert!(difference < 1e-11, "{what} of rank {rank} of {size}: {difference}");
            }
        }
    }
}
