//! Devices on which no agent can run: a stock benchmark program is launched instead, one process per
//! workload and round, and its output is read strictly.
//!
//! What such a program can't do, the record says: its name stands where the agent's version stands, no
//! output was compared (`output_error` is absent), no reference workload was interleaved, whether it was
//! warm is not judged, the cores are those that `taskset` was asked for, and a program
//! that tells only a mean makes one sample a process, with the number of runs behind it as
//! [`Measurement::batch`].

mod benchmark_model;
mod perf_test;
mod reading;
mod snapshot;

use std::{collections::BTreeMap, fmt::Write as _, fs, ops::ControlFlow, path::PathBuf, time::Duration};

use lathe_latency_db::{Device, Engine, MachineState, Measurement, Outcome, Protocol, Provenance, Tier};
use lathe_spaces::{Weights, Workload};
use sha2::{Digest, Sha256};

use super::{
    PATIENCE, architecture,
    device::{End, Ended, RemoteDevice},
};
use crate::{
    Exit, Job, MeasureAnswer, ModelFormat, Runner, RunnerError, Transport,
    child::{ANSWER_BYTES, Accident, with_last_words},
    hexadecimal::hexadecimal,
    numbers::{self, NUMBERS_SEED},
    record::{self, Progress, Surroundings},
    schedule,
};
use reading::Reading;

/// How long the shell may take to tell of the device.
const LOOK_DEADLINE: Duration = Duration::from_mins(1);
/// Largest file of runs.
const RUNS_BYTES: usize = 1 << 28;

/// A stock benchmark program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BenchmarkProgram {
    /// TensorFlow Lite's: takes `TFLite` files, tells means.
    BenchmarkModel,
    /// ONNX Runtime's: takes ONNX files, tells every run.
    OnnxruntimePerfTest,
}

impl BenchmarkProgram {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::BenchmarkModel, Self::OnnxruntimePerfTest];

    /// Its name, as its makers call it.
    pub fn name(self) -> &'static str {
        match self {
            Self::BenchmarkModel => "benchmark_model",
            Self::OnnxruntimePerfTest => "onnxruntime_perf_test",
        }
    }

    /// The format of the models that it reads.
    fn format(self) -> ModelFormat {
        match self {
            Self::BenchmarkModel => ModelFormat::Tflite,
            Self::OnnxruntimePerfTest => ModelFormat::Onnx,
        }
    }
}

/// Where the program is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ProgramFile {
    /// On this machine, built for the device: it is pushed there once.
    Here(PathBuf),
    /// On the device already: its absolute path there.
    OnDevice(String),
}

/// How a device without an agent is used.
#[derive(Clone, Debug)]
pub struct AgentlessSettings {
    /// Alias of the device.
    pub name: String,
    /// Which program.
    pub program: BenchmarkProgram,
    /// Where it is.
    pub file: ProgramFile,
    /// Folder on the device, absolute; `.cache/lathe` in the user's home if absent.
    pub directory: Option<String>,
    /// Words before the program's own, as `env LD_LIBRARY_PATH=/data/local/tmp`.
    pub launch: Vec<String>,
    /// Declares that what it runs on is emulated; a launch prefix with `qemu-…` says so by itself.
    pub emulated: bool,
    /// Cores to be pinned to, by the device's `taskset`; none: not pinned.
    pub cpus: Vec<usize>,
    /// Threads that the program may use.
    pub threads: usize,
    /// Kind of device.
    pub tier: Option<Tier>,
    /// How long a lost connection is tried again before the device counts as lost.
    pub patience: Duration,
}

impl AgentlessSettings {
    /// One thread, not pinned, nothing before the program.
    pub fn new(name: impl Into<String>, program: BenchmarkProgram, file: ProgramFile) -> Self {
        Self {
            name: name.into(),
            program,
            file,
            directory: None,
            launch: Vec::new(),
            emulated: false,
            cpus: Vec::new(),
            threads: 1,
            tier: None,
            patience: PATIENCE,
        }
    }
}

/// Drives a stock benchmark program over a transport.
#[derive(Debug)]
pub struct AgentlessRunner {
    link: RemoteDevice,
    settings: AgentlessSettings,
    /// The program's path on the device.
    program: String,
    device: Device,
    provenance: Provenance,
    /// Processes so far: each has a file of runs of its own.
    launches: u64,
}

impl AgentlessRunner {
    /// Leases the device, pushes the program if it isn't there, and asks the shell what this device is.
    pub fn start(
        mut settings: AgentlessSettings,
        transport: Box<dyn Transport>,
    ) -> Result<Self, RunnerError> {
        settings.cpus.sort_unstable();
        settings.cpus.dedup();
        let pinned = settings.cpus.len();
        if settings.threads == 0 || (pinned > 0 && pinned < settings.threads) {
            return Err(RunnerError::Threads { threads: settings.threads, available: pinned });
        }
        let emulator = architecture::of_emulator(&settings.launch).map(str::to_owned);
        let (mut link, machine) =
            RemoteDevice::open(transport, settings.directory.as_deref(), settings.patience)?;
        let (program, hash) = match &settings.file {
            ProgramFile::Here(path) => {
                let bytes = fs::read(path).map_err(RunnerError::file("read", path))?;
                let expected = emulator.as_deref().unwrap_or_else(|| architecture::of_machine(&machine));
                if let Some(got) = architecture::of_file(&bytes).filter(|got| *got != expected) {
                    return Err(RunnerError::Architecture {
                        path: path.clone(),
                        peer: link.peer(),
                        got: got.to_owned(),
                        expected: expected.to_owned(),
                        option: "--program",
                    });
                }
                let hash = hexadecimal(&Sha256::digest(&bytes));
                (link.store(&hash, settings.program.name(), &bytes)?, hash)
            }
            ProgramFile::OnDevice(path) => (path.clone(), hash_there(&mut link, path)?),
        };
        let (facts, _) = look(&mut link, &settings.cpus)?;
        let device = Device {
            name: settings.name.clone(),
            model: facts.model,
            architecture: facts.architecture,
            cores: facts.cores,
            memory_kb: facts.memory_kb,
            os: facts.os,
            kernel: facts.kernel,
            pinned_cpus: settings.cpus.clone(),
            governor: facts.governor,
            max_khz: facts.max_khz,
            threads: settings.threads,
            engine: Engine {
                name: settings.program.name().to_owned(),
                // Neither program tells one: its hash stands for it.
                version: "not told".to_owned(),
                library_sha256: hash,
                provider: "cpu".to_owned(),
            },
            cluster: None,
            tier: settings.tier,
            memory_limit_kb: None,
        };
        let emulated = settings.emulated || emulator.is_some();
        let provenance = if emulated { Provenance::Emulated } else { Provenance::Measured };
        Ok(Self { link, settings, program, device, provenance, launches: 0 })
    }

    /// One process: what it told, or what happened to it.
    fn launch(
        &mut self,
        model: &str,
        rules: &Protocol,
    ) -> Result<Result<MeasureAnswer, Accident>, RunnerError> {
        let (_, before) = look(&mut self.link, &self.settings.cpus)?;
        let reading = match self.settings.program {
            BenchmarkProgram::BenchmarkModel => {
                let words = benchmark_model::words(&self.program, model, self.settings.threads, rules);
                self.process(&words, rules)?.and_then(|output| benchmark_model::read(&output).map_err(crash))
            }
            BenchmarkProgram::OnnxruntimePerfTest => self.perf_test(model, rules)?,
        };
        let reading = match reading {
            Ok(reading) => reading,
            Err(accident) => return Ok(Err(accident)),
        };
        let (_, after) = look(&mut self.link, &self.settings.cpus)?;
        Ok(Ok(self.answer(reading, before, after)))
    }

    /// Runs for as long as the rules want, and once more by number if that made too few runs.
    fn perf_test(&mut self, model: &str, rules: &Protocol) -> Result<Result<Reading, Accident>, RunnerError> {
        for extent in [perf_test::first_extent(rules), perf_test::second_extent(rules)] {
            self.launches += 1;
            let runs = self.link.place(&format!("models/{}.runs", self.launches), b"")?;
            let words = perf_test::words(&self.program, model, &runs, self.settings.threads, extent);
            let output = match self.process(&words, rules)? {
                Ok(output) => output,
                Err(accident) => return Ok(Err(accident)),
            };
            let bytes = self.link.get(&runs, RUNS_BYTES)?;
            self.link.delete(&[runs]);
            match perf_test::read(&output, &String::from_utf8_lossy(&bytes), rules) {
                Ok(Some(reading)) => return Ok(Ok(reading)),
                Ok(None) => {}
                Err(message) => return Ok(Err(crash(message))),
            }
        }
        Ok(Err(crash("it made fewer runs than it was asked for".to_owned())))
    }

    /// The standard output of a process that ended well.
    fn process(
        &mut self,
        words: &[String],
        rules: &Protocol,
    ) -> Result<Result<String, Accident>, RunnerError> {
        let deadline = Duration::try_from_secs_f64(rules.timeout_seconds).unwrap_or(Duration::MAX / 4);
        let mut all = Vec::new();
        if !self.settings.cpus.is_empty() {
            // First, because behind an emulator's words it would be emulated.
            all.extend(["taskset".to_owned(), mask(&self.settings.cpus)]);
        }
        all.extend_from_slice(&self.settings.launch);
        all.extend_from_slice(words);
        let ended = self.link.run_job(b"", &all, deadline)?;
        let told = outcome_of(&mut self.link, &ended, self.settings.program.name(), deadline);
        self.link.forget(&ended);
        told
    }

    fn answer(&self, reading: Reading, before: MachineState, after: MachineState) -> MeasureAnswer {
        let mut agent = format!("{} (no agent: output not checked", self.settings.program.name());
        if self.settings.program == BenchmarkProgram::BenchmarkModel {
            // Writing to a string never fails.
            let _ = write!(agent, ", a sample is the mean of {} runs", reading.batch);
        }
        agent.push(')');
        MeasureAnswer {
            agent,
            outcome: Outcome::Ok,
            message: None,
            samples_ns: reading.samples_ns,
            batch: reading.batch,
            warmup_runs: reading.warmup_runs,
            settled: true,
            load_ns: reading.load_ns,
            first_run_ns: reading.first_run_ns,
            peak_rss_kb: reading.peak_rss_kb,
            output: None,
            output_error: None,
            pinned_cpus: self.settings.cpus.clone(),
            before,
            after,
            execution: None,
        }
    }

    /// The file that the program takes: ONNX, or `TFLite`, at the workload's precision.
    fn encoded(&self, workload: &Workload, job: &Job) -> Result<Vec<u8>, Accident> {
        let seeded;
        let weights = if let Some(weights) = job.weights.get(&workload.id()) {
            weights
        } else {
            seeded = Weights::seeded(&workload.graph, NUMBERS_SEED);
            &seeded
        };
        let encoded =
            numbers::File::of(workload, weights, self.settings.program.format()).map(|file| file.bytes);
        encoded.map_err(|message| Accident { outcome: Outcome::Unsupported, message })
    }

    fn emit(
        &mut self,
        workload: &Workload,
        done: &Progress,
        job: &Job,
        sink: &mut dyn FnMut(Measurement) -> ControlFlow<()>,
    ) -> Result<ControlFlow<()>, RunnerError> {
        let (_, now) = look(&mut self.link, &self.settings.cpus)?;
        let surroundings = Surroundings { drift: None, cool: true, now, rejected: Vec::new() };
        Ok(sink(record::measurement(workload, done, &self.device, self.provenance, job, surroundings)))
    }
}

impl Runner for AgentlessRunner {
    fn device(&self) -> &Device {
        &self.device
    }

    fn provenance(&self) -> Provenance {
        self.provenance
    }

    fn run(
        &mut self,
        workloads: &[Workload],
        job: &Job,
        sink: &mut dyn FnMut(Measurement) -> ControlFlow<()>,
    ) -> Result<(), RunnerError> {
        for (number, members) in schedule::groups(workloads.len(), job.seed).into_iter().enumerate() {
            let mut placed = BTreeMap::new();
            let mut progress: BTreeMap<usize, Progress> = BTreeMap::new();
            for &index in &members {
                let done = progress.entry(index).or_default();
                match self.encoded(&workloads[index], job) {
                    Ok(bytes) => {
                        placed.insert(index, self.link.place(&format!("models/{index}.model"), &bytes)?);
                    }
                    Err(accident) => done.failure = Some(accident),
                }
            }
            for round in 0..job.protocol.processes.max(1) {
                for index in schedule::round(&members, job.seed, number, round) {
                    let Some(done) = progress.get_mut(&index).filter(|done| done.failure.is_none()) else {
                        continue;
                    };
                    match self.launch(&placed[&index], &job.protocol)? {
                        Ok(answer) => done.answers.push(answer),
                        Err(accident) => done.failure = Some(accident),
                    }
                }
            }
            self.link.delete(&placed.into_values().collect::<Vec<_>>());
            for (index, done) in progress {
                if self.emit(&workloads[index], &done, job, sink)?.is_break() {
                    return Ok(());
                }
            }
        }
        Ok(())
    }
}

fn crash(message: String) -> Accident {
    Accident { outcome: Outcome::Crash, message }
}

/// Cores as the bit mask that every `taskset` understands, Android's too.
fn mask(cpus: &[usize]) -> String {
    let digits = cpus.iter().max().map_or(0, |cpu| cpu / 4) + 1;
    (0..digits)
        .rev()
        .map(|digit| {
            let bits: usize = cpus.iter().filter(|&&cpu| cpu / 4 == digit).map(|cpu| 1 << (cpu % 4)).sum();
            format!("{bits:x}")
        })
        .collect()
}

/// What a job wrote, if it ended well.
fn outcome_of(
    link: &mut RemoteDevice,
    ended: &Ended,
    program: &str,
    deadline: Duration,
) -> Result<Result<String, Accident>, RunnerError> {
    let accident = match &ended.end {
        End::Itself(Exit::Code(0)) => {
            let output = link.get(&format!("{}/answer", ended.folder), ANSWER_BYTES as usize)?;
            return Ok(Ok(String::from_utf8_lossy(&output).into_owned()));
        }
        End::Itself(exit) => crash(format!("{program} ended with {exit}")),
        End::Late => Accident {
            outcome: Outcome::Timeout,
            message: format!("no end after {:.1} s, killed", deadline.as_secs_f64()),
        },
        End::Orphaned => {
            crash("the device ended it, because the connection was lost for too long".to_owned())
        }
        End::Vanished { .. } => {
            return Ok(Err(crash(
                "it ended without a trace: the device was started anew, or its disk is full".to_owned(),
            )));
        }
    };
    let complaint = link.get(&format!("{}/complaint", ended.folder), 1 << 16)?;
    Ok(Err(Accident { message: with_last_words(accident.message, &complaint), ..accident }))
}

fn look(link: &mut RemoteDevice, cpus: &[usize]) -> Result<(crate::DeviceFacts, MachineState), RunnerError> {
    let words = ["sh", "-c", snapshot::SCRIPT].map(str::to_owned);
    let ended = link.run_job(b"", &words, LOOK_DEADLINE)?;
    let output = link.get(&format!("{}/answer", ended.folder), ANSWER_BYTES as usize)?;
    link.forget(&ended);
    snapshot::read(&output, cpus)
}

/// SHA-256 of a program on the device.
fn hash_there(link: &mut RemoteDevice, path: &str) -> Result<String, RunnerError> {
    let words = ["sha256sum", path].map(str::to_owned);
    let ended = link.run_job(b"", &words, LOOK_DEADLINE)?;
    let output = link.get(&format!("{}/answer", ended.folder), 1 << 16)?;
    link.forget(&ended);
    let text = String::from_utf8_lossy(&output);
    let hash = text.split_whitespace().next().map(|word| word.trim_start_matches('\\'));
    hash.filter(|hash| hash.len() == 64 && hash.chars().all(|digit| digit.is_ascii_hexdigit()))
        .map(str::to_owned)
        .ok_or_else(|| RunnerError::Agent {
            action: "find the benchmark program",
            message: format!("{path} can't be read on {} (hint: name its absolute path there)", link.peer()),
        })
}

#[cfg(test)]
mod tests {
    use super::mask;

    #[test]
    fn cores_become_a_mask() {
        assert_eq!(
            [mask(&[0]), mask(&[3]), mask(&[4, 5]), mask(&[0, 7, 70])].join(" "),
            "1 8 30 400000000000000081"
        );
    }
}
