//! Arm's Ethos-U without a board: the vendor's compiler `vela` estimates cycles of int8 TFLite files.

mod accelerator;
mod estimate;
mod table;
mod vela;

use std::{
    collections::BTreeMap,
    ops::ControlFlow,
    path::PathBuf,
    sync::{
        atomic::{AtomicBool, AtomicUsize, Ordering},
        mpsc,
    },
    thread,
    time::Duration,
};

use lathe_latency_db::{Device, Engine, MachineState, Measurement, Outcome, Provenance, Tier};
use lathe_spaces::{
    GraphBuilder, GraphError, Level, OpSpec, Precision, Quantized, Shape, Weights, Workload,
    encode_tflite_int8,
};

use crate::{
    Job, MeasureAnswer, Runner, RunnerError,
    child::Accident,
    numbers::NUMBERS_SEED,
    record::{self, Progress, Surroundings},
};
pub use accelerator::Accelerator;
pub use estimate::{Estimate, Layer};
use vela::Vela;

/// How long the first compilation may take, of a network of one convolution.
const PROBE_DEADLINE: Duration = Duration::from_mins(1);

/// How an Ethos-U is estimated.
#[derive(Clone, Debug, PartialEq)]
pub struct EthosUSettings {
    /// Alias of the device.
    pub name: String,
    /// Which of the family.
    pub accelerator: Accelerator,
    /// The compiler; if absent, `$LATHE_VELA`, else `vela` on the search path.
    pub vela: Option<PathBuf>,
    /// The compiler's configuration file of clocks and memories; its own if absent.
    pub config: Option<PathBuf>,
    /// Section of that file for the system; the compiler's default for the accelerator if absent.
    pub system_config: Option<String>,
    /// Section of that file for the use of memory; the compiler's default for the accelerator if absent.
    pub memory_mode: Option<String>,
    /// Accept networks of which some operators stay on the CPU. Their time is then left out.
    pub allow_cpu: bool,
}

impl EthosUSettings {
    /// With the compiler's own defaults.
    pub fn new(name: impl Into<String>, accelerator: Accelerator) -> Self {
        Self {
            name: name.into(),
            accelerator,
            vela: None,
            config: None,
            system_config: None,
            memory_mode: None,
            allow_cpu: false,
        }
    }
}

/// Turns int8 workloads into TFLite files and asks the compiler what they cost. Nothing runs: a row's
/// one sample is the compiler's estimate, its peak memory what the compiler assigns for activations
/// (and weights that are copied) in SRAM and DRAM.
#[derive(Debug)]
pub struct EthosURunner {
    vela: Vela,
    device: Device,
    accelerator: Accelerator,
    allow_cpu: bool,
}

impl EthosURunner {
    /// Finds the compiler and compiles a small network, to learn clock and memories.
    ///
    /// # Errors
    /// [`RunnerError::VelaMissing`], and [`RunnerError::Vela`] if it doesn't do its work.
    pub fn start(settings: EthosUSettings) -> Result<Self, RunnerError> {
        let vela = Vela::find(&settings)?;
        let (version, library_sha256) = (vela.version()?, vela.config_digest()?);
        let failed = |message: String| RunnerError::Vela { program: vela.program().to_owned(), message };
        let workload = probe().map_err(|error| failed(error.to_string()))?;
        let file = tflite(&workload, None).map_err(failed)?;
        let estimate = vela.estimate(&file, PROBE_DEADLINE)?.map_err(|accident| failed(accident.message))?;
        let mut provider =
            format!("{}, {}, {}", settings.accelerator, estimate.system_config, estimate.memory_mode);
        if settings.allow_cpu {
            provider.push_str(", operators on the CPU left out");
        }
        let device = Device {
            name: settings.name,
            model: format!("Arm {}", settings.accelerator),
            architecture: "ethos-u".to_owned(),
            cores: 1,
            memory_kb: 0,
            os: "none: estimated by a compiler".to_owned(),
            kernel: String::new(),
            pinned_cpus: Vec::new(),
            governor: None,
            max_khz: Some((estimate.clock_hertz / 1e3).round() as u64),
            threads: 1,
            engine: Engine { name: "vela".to_owned(), version, library_sha256, provider },
            // What it is part of: a small board.
            tier: Some(Tier::EdgeAccelerator),
            cluster: None,
            memory_limit_kb: None,
        };
        let (accelerator, allow_cpu) = (settings.accelerator, settings.allow_cpu);
        Ok(Self { vela, device, accelerator, allow_cpu })
    }

    /// Which of the family.
    pub fn accelerator(&self) -> Accelerator {
        self.accelerator
    }

    /// What the compiler says of a workload, layer by layer; or why it says nothing. Weights are seeded
    /// if absent.
    ///
    /// # Errors
    /// [`RunnerError`] if the compiler can't be launched.
    pub fn estimate(
        &self,
        workload: &Workload,
        weights: Option<&Weights>,
        deadline: Duration,
    ) -> Result<Result<Estimate, String>, RunnerError> {
        Ok(self.compile(workload, weights, deadline)?.map_err(|accident| accident.message))
    }

    /// The same for many workloads with seeded weights, several at a time; `sink` gets the results in the
    /// order of the workloads.
    ///
    /// # Errors
    /// [`RunnerError`] if the compiler can't be launched.
    pub fn estimates(
        &self,
        workloads: &[Workload],
        deadline: Duration,
        sink: &mut dyn FnMut(Result<Estimate, String>) -> ControlFlow<()>,
    ) -> Result<(), RunnerError> {
        in_parallel(workloads, &|workload| self.estimate(workload, None, deadline), sink)
    }

    fn compile(
        &self,
        workload: &Workload,
        weights: Option<&Weights>,
        deadline: Duration,
    ) -> Result<Result<Estimate, Accident>, RunnerError> {
        let unsupported = |message| Ok(Err(Accident { outcome: Outcome::Unsupported, message }));
        let file = match tflite(workload, weights) {
            Ok(file) => file,
            Err(message) => return unsupported(message),
        };
        let estimate = match self.vela.estimate(&file, deadline)? {
            Ok(estimate) => estimate,
            Err(accident) => return Ok(Err(accident)),
        };
        let left: Vec<&str> = estimate.on_cpu().map(|layer| layer.name.as_str()).collect();
        if !left.is_empty() && !self.allow_cpu {
            return unsupported(format!(
                "{} of {} operators stay on the CPU, whose time the compiler does not know: {}",
                left.len(),
                estimate.layers.len(),
                left.join(", ")
            ));
        }
        Ok(Ok(estimate))
    }

    fn row(
        &self,
        workload: &Workload,
        job: &Job,
        found: Result<Estimate, Accident>,
        before: MachineState,
    ) -> Measurement {
        let now = now();
        let mut progress = Progress::default();
        match found {
            Ok(estimate) => progress.answers.push(MeasureAnswer {
                execution: None,
                agent: format!("lathe {}", env!("CARGO_PKG_VERSION")),
                outcome: Outcome::Ok,
                message: None,
                samples_ns: vec![estimate.nanoseconds],
                batch: 1,
                warmup_runs: 0,
                settled: true,
                load_ns: 0,
                first_run_ns: 0,
                peak_rss_kb: estimate.memory_kibibytes.ceil() as u64,
                output: None,
                output_error: None,
                pinned_cpus: Vec::new(),
                before,
                after: now.clone(),
            }),
            Err(accident) => progress.failure = Some(accident),
        }
        let surroundings = Surroundings { drift: None, cool: true, now, rejected: Vec::new() };
        record::measurement(workload, &progress, &self.device, self.provenance(), job, surroundings)
    }
}

impl Runner for EthosURunner {
    fn device(&self) -> &Device {
        &self.device
    }

    fn provenance(&self) -> Provenance {
        Provenance::CompilerEstimate
    }

    fn computes(&self, precision: Precision) -> bool {
        precision == Precision::Int8
    }

    /// Compiles as many workloads at a time as there are cores; rows come in the order of the workloads.
    fn run(
        &mut self,
        workloads: &[Workload],
        job: &Job,
        sink: &mut dyn FnMut(Measurement) -> ControlFlow<()>,
    ) -> Result<(), RunnerError> {
        if let Some(workload) = workloads.iter().find(|workload| !self.computes(workload.precision)) {
            return Err(RunnerError::Precision {
                device: self.device.name.clone(),
                label: workload.label.clone(),
                got: workload.precision,
            });
        }
        let deadline = Duration::try_from_secs_f64(job.protocol.timeout_seconds).unwrap_or(Duration::MAX / 4);
        let this = &*self;
        let compile = |workload: &Workload| {
            let before = now();
            let found = this.compile(workload, job.weights.get(&workload.id()), deadline)?;
            Ok(this.row(workload, job, found, before))
        };
        in_parallel(workloads, &compile, sink)
    }
}

/// Compiles as many workloads at a time as there are cores, and hands the results on in the order of the
/// workloads, until the sink has enough or one is an error.
fn in_parallel<T: Send>(
    workloads: &[Workload],
    compile: &(dyn Fn(&Workload) -> Result<T, RunnerError> + Sync),
    sink: &mut dyn FnMut(T) -> ControlFlow<()>,
) -> Result<(), RunnerError> {
    let threads = thread::available_parallelism().map_or(1, usize::from).min(workloads.len());
    let (next, stop) = (AtomicUsize::new(0), AtomicBool::new(false));
    thread::scope(|scope| {
        let (sender, receiver) = mpsc::channel();
        for _ in 0..threads {
            let (sender, next, stop) = (sender.clone(), &next, &stop);
            scope.spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    let Some(workload) = workloads.get(index) else { break };
                    if sender.send((index, compile(workload))).is_err() {
                        break;
                    }
                }
            });
        }
        drop(sender);
        let result = in_order(&receiver, sink);
        stop.store(true, Ordering::Relaxed);
        result
    })
}

fn in_order<T>(
    receiver: &mpsc::Receiver<(usize, Result<T, RunnerError>)>,
    sink: &mut dyn FnMut(T) -> ControlFlow<()>,
) -> Result<(), RunnerError> {
    let mut early = BTreeMap::new();
    let mut next = 0;
    for (index, result) in receiver {
        early.insert(index, result);
        while let Some(result) = early.remove(&next) {
            next += 1;
            if sink(result?).is_break() {
                return Ok(());
            }
        }
    }
    Ok(())
}

/// The int8 TFLite file of a workload; without weights, with the seeded ones.
fn tflite(workload: &Workload, weights: Option<&Weights>) -> Result<Vec<u8>, String> {
    let seeded = weights.is_none().then(|| Weights::seeded(&workload.graph, NUMBERS_SEED));
    let weights = seeded.as_ref().or(weights).ok_or("there are no weights")?;
    let network = Quantized::of(&workload.graph, weights, NUMBERS_SEED)
        .map_err(|error| format!("failed to {error}"))?;
    encode_tflite_int8(&network).map_err(|error| format!("failed to {error}"))
}

/// One convolution.
fn probe() -> Result<Workload, GraphError> {
    let mut builder = GraphBuilder::new();
    let input = builder.input("input", Shape::new(1, 8, 8, 8))?;
    let output = builder.add("conv", OpSpec::conv(8, 3, 1), &[input])?;
    Ok(Workload::new("probe", Level::Operator, builder.finish(&[output])?).at(Precision::Int8))
}

fn now() -> MachineState {
    MachineState { at: jiff::Timestamp::now().to_string(), ..MachineState::default() }
}
