//! The configuration of a run, checked.

use std::path::PathBuf;

use lathe_latency_db::Protocol;
use lathe_search::proxies::Proxy;
use lathe_search::{
    DataSettings, DataSource, ObjectiveSettings, RetrainSettings, SearchSettings, SupernetSettings,
};
use lathe_spaces::{Micros, Space};
use serde::Serialize;

use super::{PathsConfig, SpaceConfig, objective::ObjectiveConfig, reader::Section};

/// Everything that decides what a run computes. Its TOML form is `resolved.toml`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Config {
    /// Name of the run.
    pub name: String,
    /// Seed of every random stream.
    pub seed: u64,
    /// Threads of training (the device's own are in `device`).
    pub threads: usize,
    /// The run's directory.
    pub directory: PathBuf,
    /// The latency database.
    pub database: PathBuf,
    /// Space, at deployment widths.
    pub space: SpaceConfig,
    /// Images.
    pub data: DataConfig,
    /// Device.
    pub device: DeviceConfig,
    /// How it is measured.
    pub measure: MeasureConfig,
    /// How the predictor is checked.
    pub fit: FitConfig,
    /// Latency target.
    pub objective: ObjectiveConfig,
    /// How stages are searched; absent for cells.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub paths: Option<PathsConfig>,
    /// Size of the supernet; that of stages has none of its own.
    #[serde(skip_serializing_if = "is_of_stages")]
    pub supernet: SupernetSettings,
    /// Schedule of the search.
    pub search: SearchSettings,
    /// Networks that are trained beside the searched one.
    pub baselines: BaselineConfig,
    /// Training from scratch.
    pub retrain: RetrainSettings,
}

/// `[data]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct DataConfig {
    /// `generated`, `cifar10` or `image_folder`.
    pub source: String,
    /// Folder.
    pub path: Option<PathBuf>,
    /// Training images to use.
    pub train_images: Option<usize>,
    /// Test images to use.
    pub test_images: Option<usize>,
}

/// `[device]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct DeviceConfig {
    /// Alias.
    pub name: String,
    /// Threads of the engine.
    pub threads: usize,
    /// Cores to pin to; the runner chooses if absent.
    pub cpus: Option<Vec<usize>>,
}

/// `[measure]`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct MeasureConfig {
    /// Whole networks, drawn at random, that the composition is fitted on.
    pub networks: usize,
    /// Pairs of the A/A test; 0 leaves it out.
    pub noise_pairs: usize,
    /// Numeric type in which operators and networks are timed.
    pub precision: lathe_spaces::Precision,
    /// Whether usable measurements of the same device in the database are taken as they are.
    pub reuse: bool,
    /// Rules for operators and the fit's networks.
    pub protocol: Protocol,
    /// Rules for the final measurement of every candidate.
    pub verify: Protocol,
}

/// `[fit]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct FitConfig {
    /// Folds of the cross-validation.
    pub folds: usize,
    /// Fit times of an emulator.
    pub allow_emulated: bool,
}

/// `[baselines]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct BaselineConfig {
    /// Random networks of the same space.
    pub random: usize,
    /// Published genotypes of the space, by name.
    pub published: Vec<String>,
    /// Networks that a proxy likes best of some random ones.
    pub preselected: usize,
    /// The proxy.
    pub proxy: Proxy,
    /// Random networks that it chooses from, for each.
    pub proxy_of: usize,
}

/// Networks that a model of kernels is fitted to at least.
const LEAST_OF_STAGES: usize = 12;

fn is_of_stages(supernet: &SupernetSettings) -> bool {
    supernet.width == 0
}

impl Config {
    /// Reads the document; faults are noted, and the value counts only if there were none.
    pub fn read(root: Section<'_>) -> Self {
        let name = root.text("name").unwrap_or_else(|| {
            root.fault("name", "missing", Some("name the run, as in name = \"my-search\"".into()));
            String::new()
        });
        if name.contains(['/', '\\', '\0']) || name.starts_with('.') {
            root.fault("name", format!("\"{name}\" can't be part of a path"), None);
        }
        let directory = root.path_value("directory").unwrap_or_else(|| PathBuf::from("runs").join(&name));
        let database = root.path_value("database").unwrap_or_else(|| ".lathe/latency-db".into());
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let space = SpaceConfig::read(root.section("space"));
        let config = Self {
            seed: root.seed("seed", 0),
            threads: root.count("threads", cores, 1..1025),
            directory,
            database,
            data: read_data(root.section("data")),
            device: read_device(root.section("device")),
            measure: read_measure(&root),
            fit: read_fit(root.section("fit")),
            objective: ObjectiveConfig::read(root.section("objective"), space.is_stages()),
            paths: space.is_stages().then(|| PathsConfig::read(root.section("paths"))),
            supernet: space.read_supernet(root.section("supernet")),
            search: read_search(root.section("search"), space.is_stages()),
            baselines: read_baselines(root.section("baselines"), &space),
            retrain: read_retrain(root.section("retrain"), &space),
            space,
            name,
        };
        config.cross_check(&root);
        root.close();
        config
    }

    /// The space at deployment widths.
    pub fn space(&self) -> Space {
        self.space.space()
    }

    /// Data settings of the search crate.
    pub fn data(&self) -> DataSettings {
        let path = self.data.path.clone().unwrap_or_default();
        let source = match self.data.source.as_str() {
            "cifar10" => DataSource::Cifar10 { path },
            "image_folder" => DataSource::ImageFolder { path },
            _ => DataSource::Generated,
        };
        DataSettings {
            source,
            resolution: self.space.resolution(),
            train_images: self.data.train_images,
            test_images: self.data.test_images,
        }
    }

    /// Objective settings of the search crate, with the target that the run resolved.
    pub fn objective(&self, target: Option<Micros>) -> ObjectiveSettings {
        self.objective.settings(target)
    }

    /// Faults that concern two keys at once.
    fn cross_check(&self, root: &Section<'_>) {
        let supernet = root.section("supernet");
        let k = self.supernet.partial_channels;
        if !self.supernet.width.is_multiple_of(k) {
            let width = self.supernet.width;
            supernet.fault(
                "partial_channels",
                format!("K = {k} does not divide the supernet's width of {width}"),
                Some(match self.space {
                    SpaceConfig::Darts(_) => format!("make `supernet.width` a multiple of {}", 2 * k),
                    SpaceConfig::Nas201(_) | SpaceConfig::Stages(_) => {
                        format!("make `supernet.width` a multiple of {k}")
                    }
                }),
            );
        } else if !(self.supernet.width / k * 2).is_multiple_of(2) {
            supernet.fault("width", "a reduction needs an even number of channels", None);
        }
        let search = root.section("search");
        if self.search.warmup_epochs >= self.search.epochs {
            search.fault(
                "warmup_epochs",
                format!(
                    "{} warm-up epochs leave none of the {} epochs for the architecture",
                    self.search.warmup_epochs, self.search.epochs
                ),
                None,
            );
        }
        if self.space.is_stages() {
            let of_cells = "only searches of cells have it";
            for key in ["hessian_every_epochs", "stop_at_skips", "stop_eigenvalue_ratio"] {
                search.refuse(key, of_cells);
            }
            if self.search.second_order {
                search.fault("second_order", of_cells, None);
            }
            if self.measure.networks < LEAST_OF_STAGES {
                let message = format!(
                    "a model of kernels is fitted to at least {LEAST_OF_STAGES} networks, got {}",
                    self.measure.networks
                );
                root.section("measure").fault("networks", message, None);
            }
        }
        self.objective.cross_check(&root.section("objective"), &self.search, &self.device);
        if self.objective.method == lathe_search::Method::Regressor && self.measure.networks < 10 {
            root.section("measure").fault(
                "networks",
                "the method `regressor` learns from at least 10 measured networks",
                None,
            );
        }
        if self.objective.quantiles() && self.measure.networks < 4 {
            root.section("measure").fault(
                "networks",
                "a target quantile needs at least 4 measured networks",
                None,
            );
        }
    }
}

fn read_data(section: Section<'_>) -> DataConfig {
    let source = section.choice("source", &["generated", "cifar10", "image_folder"], "generated");
    let data = DataConfig {
        source: source.into(),
        path: section.path_value("path"),
        train_images: section.optional_count("train_images", 20..100_000_000),
        test_images: section.optional_count("test_images", 10..100_000_000),
    };
    match (source, &data.path) {
        ("generated", Some(_)) => {
            section.fault(
                "path",
                "generated data has no path",
                Some("set `source`, or leave `path` out".into()),
            );
        }
        ("cifar10" | "image_folder", None) => {
            section.fault("path", format!("missing; source \"{source}\" needs one"), None);
        }
        _ => {}
    }
    section.close();
    data
}

fn read_device(section: Section<'_>) -> DeviceConfig {
    let device = read_device_keys(&section);
    section.close();
    device
}

/// Which device, how many threads, which cores.
pub fn read_device_keys(section: &Section<'_>) -> DeviceConfig {
    let device = DeviceConfig {
        name: section.text("name").unwrap_or_else(|| "local".into()),
        threads: section.count("threads", 1, 1..1025),
        cpus: section.counts("cpus"),
    };
    if device.cpus.as_ref().is_some_and(|cpus| cpus.len() < device.threads) {
        section.fault("cpus", format!("fewer cores than the {} threads", device.threads), None);
    }
    device
}

fn read_measure(root: &Section<'_>) -> MeasureConfig {
    let section = root.section("measure");
    let measure = MeasureConfig {
        networks: section.count("networks", 40, 0..100_001),
        noise_pairs: read_pairs(&section),
        precision: match section.choice("precision", &["fp32", "int8"], "fp32") {
            "int8" => lathe_spaces::Precision::Int8,
            _ => lathe_spaces::Precision::Fp32,
        },
        reuse: section.flag("reuse", true),
        protocol: read_protocol(&section, Protocol::SCREENING),
        verify: read_protocol(&root.section("verify"), Protocol::SCREENING),
    };
    section.close();
    let verify = root.section("verify");
    read_protocol(&verify, Protocol::SCREENING);
    verify.close();
    measure
}

/// None at all, or enough for a quantile.
fn read_pairs(section: &Section<'_>) -> usize {
    let pairs = section.count("noise_pairs", 10, 0..1001);
    if pairs == 1 {
        section.fault("noise_pairs", "expected 0 or at least 2, got 1", None);
    }
    pairs
}

fn read_protocol(section: &Section<'_>, default: Protocol) -> Protocol {
    let default = match section.choice("protocol", &["screening", "reference"], "screening") {
        "reference" => Protocol::REFERENCE,
        _ => default,
    };
    Protocol {
        min_runs: section.count("min_runs", default.min_runs, 5..1_000_001),
        min_seconds: section.number("min_seconds", default.min_seconds, 0.0, 3600.0),
        processes: section.count("processes", default.processes, 1..101),
        warmup_runs: section.count("warmup_runs", default.warmup_runs, 1..100_001),
        warmup_seconds: section.number("warmup_seconds", default.warmup_seconds, 0.0, 600.0),
        timeout_seconds: section.number("timeout_seconds", default.timeout_seconds, 1.0, 86_400.0),
        retries: section.count("retries", default.retries, 0..101),
        cool_down_seconds: section.number("cool_down_seconds", default.cool_down_seconds, 0.0, 86_400.0),
    }
}

fn read_fit(section: Section<'_>) -> FitConfig {
    let fit = FitConfig {
        folds: section.count("folds", 5, 2..1001),
        allow_emulated: section.flag("allow_emulated", false),
    };
    section.close();
    fit
}

/// `paths`: a search by paths, with the schedule of `TuNAS` in place of PC-DARTS': a quarter of the steps is warm-up, and
/// the policy's first rate is 3e-4 per 256 images.
fn read_search(section: Section<'_>, paths: bool) -> SearchSettings {
    let epochs = section.count("epochs", 50, 1..100_001);
    let batch = section.count("batch", 256, 2..100_001);
    let (warmup, rate) = if paths { (epochs / 4, 3e-4 * batch as f64 / 256.0) } else { (15, 6e-4) };
    let search = SearchSettings {
        epochs,
        warmup_epochs: section.count("warmup_epochs", warmup, 0..100_001),
        batch,
        learning_rate: section.number("learning_rate", 0.1, 0.0, 100.0),
        learning_rate_min: section.number("learning_rate_min", 0.0, 0.0, 100.0),
        momentum: section.number("momentum", 0.9, 0.0, 1.0),
        weight_decay: section.number("weight_decay", 3e-4, 0.0, 10.0),
        gradient_clip: section.number("gradient_clip", 5.0, 1e-6, 1e9),
        arch_learning_rate: section.number("arch_learning_rate", rate, 0.0, 100.0),
        arch_weight_decay: section.number("arch_weight_decay", 1e-3, 0.0, 10.0),
        second_order: section.flag("second_order", false),
        cutout: section.optional_count("cutout", 1..4097),
        hessian_every_epochs: section.optional_count("hessian_every_epochs", 1..100_001),
        stop_at_skips: section.optional_count("stop_at_skips", 1..1001),
        stop_eigenvalue_ratio: section.optional_number("stop_eigenvalue_ratio", 1e-6, 1.0),
    };
    if search.stop_eigenvalue_ratio.is_some() && search.hessian_every_epochs.is_none() {
        let hint = "add `hessian_every_epochs = 1`".to_owned();
        section.fault("stop_eigenvalue_ratio", "no eigenvalue is computed", Some(hint));
    }
    section.close();
    search
}

fn read_baselines(section: Section<'_>, space: &SpaceConfig) -> BaselineConfig {
    let published = space.published();
    let published: Vec<&str> = published.iter().map(String::as_str).collect();
    // Those of stages stand for whole networks of other sizes: they are asked for by name.
    let usual = if space.is_stages() { 0 } else { published.len().min(1) };
    let baselines = BaselineConfig {
        random: section.count("random", 3, 0..1001),
        preselected: section.count("preselected", 0, 0..1001),
        proxy: {
            let word = section.choice("proxy", &Proxy::ALL.map(Proxy::name), Proxy::Synflow.name());
            Proxy::ALL.into_iter().find(|proxy| proxy.name() == word).unwrap_or(Proxy::Synflow)
        },
        proxy_of: section.count("proxy_of", 64, 2..1_000_001),
        published: section.choices("published", &published, &published[..usual]),
    };
    section.close();
    baselines
}

fn read_retrain(section: Section<'_>, space: &SpaceConfig) -> RetrainSettings {
    let default = if space.has_auxiliary() { 0.4 } else { 0.0 };
    let auxiliary = section.number("auxiliary", default, 0.0, 100.0);
    if auxiliary > 0.0 && !space.has_auxiliary() {
        section.fault("auxiliary", "only networks of darts have an auxiliary classifier", None);
    }
    let retrain = RetrainSettings {
        epochs: section.count("epochs", 600, 1..1_000_001),
        batch: section.count("batch", 96, 2..100_001),
        learning_rate: section.number("learning_rate", 0.025, 0.0, 100.0),
        momentum: section.number("momentum", 0.9, 0.0, 1.0),
        weight_decay: section.number("weight_decay", 3e-4, 0.0, 10.0),
        gradient_clip: section.number("gradient_clip", 5.0, 1e-6, 1e9),
        auxiliary: (auxiliary > 0.0).then_some(auxiliary),
        drop_path: section.number("drop_path", 0.3, 0.0, 0.99),
        cutout: section.optional_count("cutout", 1..4097),
        validation: section.number("validation", 0.0, 0.0, 0.9),
    };
    section.close();
    retrain
}
