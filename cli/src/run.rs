//! One run: its parts in order, each of which can be stopped and taken up again.

use std::{
    cell::{OnceCell, RefCell},
    fs,
    path::{Path, PathBuf},
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Instant,
};

use lathe_latency_db::{CostTable, Measurement, Protocol, Provenance, Store};
use lathe_runners::{Job, LocalRunner, LocalSettings};
use lathe_search::{Collective, Dataset, Event, Learning, Origin, Stage, StopReason, Teacher, TeacherError};
use lathe_spaces::{Genotype, Level, Micros, NetworkOptions, Precision, Shape, Space, Stream, Workload};
use miette::Report;
use serde::{Deserialize, Serialize};

use crate::{
    config::Config,
    devices::DeviceRunner,
    failure::failed,
    run_directory::{RunDirectory, write_atomically},
    stages,
    terminal::{Terminal, duration},
};

/// Name of the space in a run's directory, where it is one of stages.
pub const SPACE: &str = "space.json";

/// All stages, in order.
pub const STAGES: [Stage; 8] = [
    Stage::Measure,
    Stage::Fit,
    Stage::Search,
    Stage::Derive,
    Stage::Retrain,
    Stage::Export,
    Stage::Verify,
    Stage::Report,
];

/// How a stage ended.
#[derive(Clone, Debug, PartialEq)]
pub enum StageEnd {
    /// All its work is done.
    Done,
    /// The run can't go on, or the user asked to stop.
    Stop(StopReason),
}

/// The images of a configuration.
pub fn load_images(config: &Config, terminal: Terminal) -> Result<Arc<Dataset>, Report> {
    let bar = std::cell::RefCell::new(terminal.bar("images", 0));
    let loaded = Dataset::load(&config.data(), config.seed, &|done, total| {
        bar.borrow_mut().set(done, total, "");
    });
    bar.into_inner().done();
    let dataset = loaded.map_err(failed)?;
    let (found, wanted) = (dataset.classes.len(), config.space.classes());
    if found != wanted && config.space.learning() == Learning::Classes {
        return Err(miette::miette!(
            help = "set `space.classes` to the number of class folders",
            "failed to use the images: they have {found} classes, `space.classes` says {wanted}"
        ));
    }
    Ok(Arc::new(dataset))
}

/// A network that is trained and measured.
#[derive(Clone, Debug, PartialEq)]
pub struct Candidate {
    /// Name, unique in the run.
    pub name: String,
    /// Where it comes from.
    pub origin: Origin,
    /// Genotype.
    pub genotype: Genotype,
}

/// Everything that the stages share.
pub struct Run<'a> {
    /// Configuration.
    pub config: Config,
    /// Space at deployment widths.
    pub space: Space,
    /// Directory and record.
    pub directory: RunDirectory,
    /// Progress and messages.
    pub terminal: Terminal,
    /// Raised by Ctrl-C.
    pub stop: &'a AtomicBool,
    /// The other processes of a shared search.
    pub collective: Option<Arc<dyn Collective>>,
    /// Networks that take the place of a search.
    pub bred: Option<Bred>,
    dataset: OnceCell<Arc<Dataset>>,
    teacher: OnceCell<Rc<Teacher>>,
}

/// Networks that evolution found on the weights of a trained supernet.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Bred {
    /// Directory of the run that trained the supernet.
    pub supernet: PathBuf,
    /// Different networks that were scored.
    pub evaluations: usize,
    /// Images that each was scored on.
    pub images: usize,
    /// The networks that no other one beats in both: text form, accuracy, predicted latency.
    pub front: Vec<(String, f64, Micros)>,
}

impl<'a> Run<'a> {
    /// A run in an opened directory.
    pub fn new(config: Config, directory: RunDirectory, terminal: Terminal, stop: &'a AtomicBool) -> Self {
        let space = config.space();
        let (dataset, teacher) = (OnceCell::new(), OnceCell::new());
        Self { config, space, directory, terminal, stop, collective: None, bred: None, dataset, teacher }
    }

    /// The same run on images that are loaded already.
    #[must_use]
    pub fn on_images(self, images: Arc<Dataset>) -> Self {
        Self { dataset: OnceCell::from(images), ..self }
    }

    /// Does every stage that isn't finished yet, and ends the record.
    pub fn all(&mut self) -> Result<StopReason, Report> {
        if !self.directory.record.finished(Stage::Retrain) {
            // Before anything is measured: missing or broken images shall not be found an hour later.
            self.dataset()?;
            self.check_teacher()?;
        }
        for stage in STAGES {
            if let StageEnd::Stop(reason) = self.stage(stage)? {
                return self.finish(reason);
            }
        }
        let reason = stages::verify::verdict(self)?;
        self.finish(reason)
    }

    /// Does one stage unless it is finished.
    pub fn stage(&mut self, stage: Stage) -> Result<StageEnd, Report> {
        if self.directory.record.finished(stage) {
            return Ok(StageEnd::Done);
        }
        if self.stop.load(Ordering::Relaxed) {
            return Ok(StageEnd::Stop(StopReason::Interrupted));
        }
        let position = STAGES.iter().position(|other| *other == stage).unwrap_or_default();
        self.terminal.say(&format!("[{}/{}] {}", position + 1, STAGES.len(), title(stage)));
        self.push(Event::StageStarted { stage, at: now() })?;
        if stage == Stage::Measure && self.config.paths.is_some() {
            let measure = self.config.space.learning().measure().to_owned();
            // The report draws networks of this very space.
            let space = serde_json::to_string(&self.space).map_err(failed)?;
            write_atomically(&self.path(SPACE), space.as_bytes()).map_err(failed)?;
            self.push(Event::Stages { space: self.space.name.clone(), measure })?;
        }
        let started = Instant::now();
        let end = match stage {
            Stage::Measure => stages::measure::run(self),
            Stage::Fit => stages::fit::run(self),
            Stage::Search => stages::search::run(self),
            Stage::Derive => stages::derive::run(self),
            Stage::Retrain => stages::retrain::run(self),
            Stage::Export => stages::export::run(self),
            Stage::Verify => stages::verify::run(self),
            Stage::Report => stages::report::run(self),
        }?;
        if end == StageEnd::Done {
            let seconds = started.elapsed().as_secs_f64();
            self.push(Event::StageFinished { stage, at: now(), seconds })?;
            self.terminal.say(&format!("      done in {}", duration(seconds)));
        }
        Ok(end)
    }

    /// Writes the last line, and the report that tells of it, however the run ended. An interruption
    /// is no end.
    fn finish(&mut self, reason: StopReason) -> Result<StopReason, Report> {
        if reason != StopReason::Interrupted {
            self.push(Event::Finished { at: now(), stop: reason.clone() })?;
            stages::report::run(self)?;
        }
        Ok(reason)
    }

    /// Adds an event to the record.
    pub fn push(&mut self, event: Event) -> Result<(), Report> {
        self.directory.record.push(event).map(|_| ()).map_err(failed)
    }

    /// A path inside the run's directory.
    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path.join(name)
    }

    /// The images, loaded once.
    pub fn dataset(&self) -> Result<Arc<Dataset>, Report> {
        if let Some(dataset) = self.dataset.get() {
            return Ok(Arc::clone(dataset));
        }
        let dataset = load_images(&self.config, self.terminal)?;
        Ok(Arc::clone(self.dataset.get_or_init(|| dataset)))
    }

    /// What networks learn to give in place of classes, loaded once.
    pub fn teacher(&self) -> Result<Option<Rc<Teacher>>, Report> {
        let Some(path) = self.config.space.teacher() else { return Ok(None) };
        if let Some(teacher) = self.teacher.get() {
            return Ok(Some(Rc::clone(teacher)));
        }
        let side = self.config.space.resolution();
        let teacher = match Teacher::load(path, side) {
            Err(error @ TeacherError::Onnx { .. }) => self.served_teacher(path, side, error)?,
            loaded => loaded.map_err(failed)?,
        };
        Ok(Some(Rc::clone(self.teacher.get_or_init(|| Rc::new(teacher)))))
    }

    /// An ONNX file with operators that Lathe doesn't know, run by ONNX Runtime.
    fn served_teacher(&self, path: &Path, side: usize, unknown: TeacherError) -> Result<Teacher, Report> {
        let settings = LocalSettings { threads: self.config.threads, ..LocalSettings::new("teacher") };
        let runner =
            LocalRunner::start(settings).map_err(|error| failed(unknown).wrap_err(error.to_string()))?;
        let runner = RefCell::new(runner);
        let file = path.to_owned();
        let serve = move |images: &[f32], side: usize| {
            let shape = Shape::new(1, 3, side, side);
            runner.borrow_mut().evaluate(&file, images, shape).map_err(|error| error.to_string())
        };
        let teacher = Teacher::served(path, side, Box::new(serve)).map_err(failed)?;
        let name = path.display();
        self.terminal.say(&format!("      {name}: run by ONNX Runtime, for Lathe can't read all of it"));
        Ok(teacher)
    }

    /// Whether the networks of the space give what the teacher gives.
    fn check_teacher(&self) -> Result<(), Report> {
        let Some(teacher) = self.teacher()? else { return Ok(()) };
        let genotype = self.space.sample(&mut Stream::new(self.config.seed, "output of the space", 0));
        let graph = self.space.network(&genotype, NetworkOptions::default()).map_err(failed)?;
        if teacher.output_is_like(&graph) {
            return Ok(());
        }
        Err(miette::miette!(
            help = "end the space's `head` with the extents of the teacher's output",
            "failed to match the teacher: it gives {:?}, networks of the space give {}",
            teacher.output,
            graph.output_shape()
        ))
    }

    /// The first device, probed.
    pub fn runner(&self) -> Result<DeviceRunner, Report> {
        self.runner_on(&self.devices()[0])
    }

    /// Where the first device's latencies come from.
    pub fn provenance(&self) -> Provenance {
        self.provenance_on(&self.devices()[0])
    }

    /// The latency database.
    pub fn store(&self) -> Result<Store, Report> {
        Store::open(&self.config.database).map_err(failed)
    }

    /// The cost table that the fit wrote.
    pub fn table(&self) -> Result<CostTable, Report> {
        CostTable::load(&self.path(stages::fit::TABLE)).map(|(table, _)| table).map_err(failed)
    }

    /// The target that the fit resolved.
    pub fn target(&self) -> Option<Micros> {
        self.directory.record.events().iter().find_map(|event| match event {
            Event::Target { target, .. } => *target,
            _ => None,
        })
    }

    /// Name under which a stage's rows stand in the database: unique, because of the run's start time.
    pub fn campaign(&self, stage: Stage) -> String {
        let started = self.directory.record.events().iter().find_map(|event| match event {
            Event::Started { at, .. } => Some(at.as_str()),
            _ => None,
        });
        let compact: String =
            started.unwrap_or_default().chars().filter(char::is_ascii_alphanumeric).collect();
        format!("{}-{compact}-{}", self.config.name, name(stage))
    }

    /// A stage's job by these rules.
    pub fn job(&self, stage: Stage, protocol: Protocol) -> Job {
        Job::new(self.campaign(stage), protocol, self.config.seed)
    }

    /// Name under which the rows of the first stage stand in the database.
    pub fn measured_as(&self) -> String {
        self.shared().map_or_else(|| self.campaign(Stage::Measure), |shared| shared.campaign)
    }

    /// The run whose measurements this one uses, if they are not its own.
    pub fn shared(&self) -> Option<Shared> {
        self.directory.record.events().iter().find_map(|event| match event {
            Event::Shared { from, campaign, seed } => {
                Some(Shared { from: from.clone(), campaign: campaign.clone(), seed: *seed })
            }
            _ => None,
        })
    }

    /// Random networks, and the published ones, that the composition is fitted on.
    pub fn fit_networks(&self) -> Vec<(String, Genotype)> {
        let seed = self.shared().map_or(self.config.seed, |shared| shared.seed);
        fit_networks(&self.space, self.config.measure.networks as u64, seed)
    }

    /// A network of the space as it is exported and timed.
    pub fn network(&self, label: &str, genotype: &Genotype) -> Result<Workload, Report> {
        network(&self.space, label, genotype, self.config.measure.precision)
    }

    /// The candidates of this run, once they were derived.
    pub fn candidates(&self) -> Result<Vec<Candidate>, Report> {
        let mut candidates = Vec::new();
        for event in self.directory.record.events() {
            if let Event::Candidate { name, origin, genotype, .. } = event {
                let genotype = self.space.parse(genotype).map_err(failed)?;
                candidates.push(Candidate { name: name.clone(), origin: *origin, genotype });
            }
        }
        Ok(candidates)
    }

    /// Stores a stage's rows in the database.
    pub fn keep(&self, stage: Stage, rows: &[Measurement]) -> Result<(), Report> {
        if !rows.is_empty() {
            self.store()?.append(&self.campaign(stage), rows).map_err(failed)?;
        }
        Ok(())
    }

    /// Writes the rows that this run used beside its record.
    pub fn copy_measurements(&self, rows: &[Measurement]) -> Result<(), Report> {
        lathe_latency_db::write_measurements(&self.path("measurements.parquet"), rows).map_err(failed)
    }

    /// A stage's checkpoint folder, created.
    pub fn checkpoint(&self, name: &str) -> Result<PathBuf, Report> {
        let path = self.directory.path.join("checkpoint").join(name);
        fs::create_dir_all(&path)
            .map_err(|error| miette::miette!("failed to create {}: {error}", path.display()))?;
        Ok(path)
    }
}

/// Where measurements were taken over from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shared {
    /// Directory of the run that measured.
    pub from: PathBuf,
    /// Name of its rows in the database.
    pub campaign: String,
    /// Its seed.
    pub seed: u64,
}

/// Random networks of a space and its published ones, with their names.
pub fn fit_networks(space: &Space, count: u64, seed: u64) -> Vec<(String, Genotype)> {
    let mut networks: Vec<(String, Genotype)> = (0..count)
        .map(|index| {
            let mut stream = Stream::new(seed, "fit-networks", index);
            (format!("fit-{index}"), space.sample(&mut stream))
        })
        .collect();
    networks.extend(space.published().into_iter().map(|(name, genotype)| (name.into(), genotype)));
    networks
}

/// A network of a space as it is exported and timed.
pub fn network(
    space: &Space,
    label: &str,
    genotype: &Genotype,
    precision: Precision,
) -> Result<Workload, Report> {
    let graph = space.deployed(genotype).map_err(failed)?;
    Ok(Workload::new(label, Level::Network, graph).at(precision))
}

/// Now, RFC 3339.
pub fn now() -> String {
    jiff::Timestamp::now().to_string()
}

/// The word for a stage: its command.
pub const fn name(stage: Stage) -> &'static str {
    match stage {
        Stage::Measure => "measure",
        Stage::Fit => "fit",
        Stage::Search => "search",
        Stage::Derive => "derive",
        Stage::Retrain => "retrain",
        Stage::Export => "export",
        Stage::Verify => "verify",
        Stage::Report => "report",
    }
}

/// What a stage does, for the user.
pub const fn title(stage: Stage) -> &'static str {
    match stage {
        Stage::Measure => "measure the space's operators and some networks on the device",
        Stage::Fit => "fit the latency predictor",
        Stage::Search => "search: train the supernet",
        Stage::Derive => "derive the network that meets the target",
        Stage::Retrain => "train the candidates from scratch",
        Stage::Export => "export them",
        Stage::Verify => "run the exported files on the device and measure them",
        Stage::Report => "write the report",
    }
}
