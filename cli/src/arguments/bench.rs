//! `lathe bench`.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};
use lathe_latency_db::predictor::selection_benchmark::{DEFAULT_SAFETY, Limit};
use lathe_runners::Accelerator;
use lathe_search::proxies::Proxy;

use super::{Format, ShowFormat, SkeletonChoice, SpaceKind, TableSpace};

/// `lathe bench`.
#[derive(Debug, Args)]
pub struct BenchArguments {
    /// What to do
    #[command(subcommand)]
    pub command: BenchCommand,
}

/// What to benchmark.
#[derive(Debug, Subcommand)]
pub enum BenchCommand {
    /// How far latencies can be trusted: agent against ONNX Runtime's Python, and repeated campaigns
    #[command(
        after_help = "Agent and Python time the same file in turns, on the same core, with the same settings of the \
                            engine. The spread of a network's medians is (greatest - least) / median over the campaigns."
    )]
    Measurement(BenchMeasurementArguments),
    /// Latency predictors with few measurements of a device, on a table of architectures × devices
    #[command(
        after_help = "The table is a Parquet or CSV file with one row per architecture and one column of \
                            milliseconds per device; `arch` (or `arch_index`) names cells of NAS-Bench-201, `op_idx` \
                            (or `ops`) the operations of FBNet networks. Numbers that are missing, zero or negative \
                            are left out.\n\n\
                            Methods:\n  \
                            lathe            transfer from the sources, on random samples of the target\n  \
                            lathe_designed   the same, on the samples that tell most\n  \
                            ridge_onehot     one latency per position and operation, no sources\n  \
                            scale_and_shift  a line through the best single source; refuses when none orders\n                   \
                            architectures as the target does\n  \
                            flops            a line through the multiply-accumulates (nb201)\n  \
                            gbdt_900         gradient-boosted trees on up to 900 rows of the target, no sources\n\n\
                            Figures are means over seeds. The noise floor is what no predictor can be better than; \
                            a table with one measurement per architecture only shows it where the clock is coarse."
    )]
    Predictor(BenchPredictorArguments),
    /// The kernel model on this machine: random networks timed end to end, a few predict the others
    #[command(
        after_help = "What the database has is not timed again: an interrupted benchmark goes on. Use a quiet machine; \
                      250 networks of each space take about 20 minutes."
    )]
    Networks(BenchNetworksArguments),
    /// A search by gradient in NAS-Bench-201, judged by published tables of its latencies and accuracies
    #[command(
        after_help = "The configuration is one of `lathe run` with kind = \"nas201\" at the size of the tables (width 16, 5 cells \
                            per stage, resolution 32, 10 classes). Every seed searches twice: under the target of \
                            [objective], and without. Latencies are those of the column --device, of which a search knows \
                            --samples rows and what it finds; target_quantile is one of that column.\n\n\
                            The cell that was found is looked up in both tables. Its peers are the cells whose latency is \
                            within --within percent of its own; the quantile is the share of them that is less accurate, which is \
                            50 % in the mean for a cell drawn at random.\n\n\
                            A search that was interrupted goes on, and one that is finished is not made again: both are kept in \
                            --directory."
    )]
    Nas201(BenchNas201Arguments),
    /// Operators and networks of a space on several Ethos-U, as their compiler estimates them
    Npu(BenchNpuArguments),
    /// How well scores of untrained networks order them, on a table of accuracies of NAS-Bench-201
    #[command(
        after_help = "The table is a Parquet or CSV file as `lathe bench search` reads it. Networks are drawn among those \
                            with an accuracy in every column.\n\n\
                            Proxies:\n  \
                            parameters  number of learned values\n  \
                            macs        multiply-accumulates\n  \
                            synflow     synaptic flow of an image of ones (Tanaka et al. 2020)\n  \
                            naswot      how differently rectifiers answer to the --images (Mellor et al. 2021)\n  \
                            zen-score   how much features change with noise (Lin et al. 2021)\n\n\
                            Intervals are 95 % of 1,000 resamples of the networks. Seconds are those of one thread \
                            for one network, while all cores are busy with others."
    )]
    Proxies(BenchProxiesArguments),
    /// The most accurate architecture under a latency limit, chosen with few measurements of a device
    #[command(
        after_help = "Both tables are Parquet or CSV files as `lathe bench predictor` reads them; rows are joined by \
                            architecture. Every method has the same number of measurements, and chooses what it believes \
                            to meet the limit with the probability --safety.\n\n\
                            Methods:\n  \
                            lathe            transfer from the sources, on random samples of the target\n  \
                            lathe_designed   the same, on the samples that tell most\n  \
                            lathe_verified   the same on random samples, where up to four of the measurements are spent\n                   \
                            on what is about to be chosen\n  \
                            scale_and_shift  a line through the best single source\n  \
                            macs             a line through the multiply-accumulates (nb201)\n\n\
                            Accuracy is relative to the choice of someone who knows all latencies; choices that break \
                            the limit count as no better than that one."
    )]
    Selection(BenchSelectionArguments),
    /// Searches with few measurements and few evaluated architectures, judged by the exact optimum
    #[command(
        after_help = "Both tables are Parquet or CSV files as `lathe bench predictor` reads them, of NAS-Bench-201; rows are \
                            joined by architecture. --column is the accuracy that searches look up, one architecture at a \
                            time, and the one that is reported; a column of test accuracies is refused.\n\n\
                            Algorithms:\n  \
                            random     architectures drawn among those that seem to meet the limit\n  \
                            aging      regularised evolution\n  \
                            nsga2      NSGA-II\n  \
                            guided     a surrogate of the accuracy and the latency predictor choose what is next\n\n\
                            Latencies:\n  \
                            predictor  --samples measurements of the device, and tables of other devices\n  \
                            macs       a line through the multiply-accumulates, through as many measurements\n  \
                            oracle     every latency of the device, for comparison\n\n\
                            Half of the measurements are made before a search (five at least), the others are spent on \
                            what it finds. Regret is in units of the accuracy; a choice that breaks the limit counts as no \
                            better than the optimum. Hypervolumes are relative to that of the exact front, from the limit (or the \
                            slowest architecture) and the accuracy of the median architecture on."
    )]
    Search(BenchSearchArguments),
}

/// `lathe bench nas201`.
#[derive(Debug, Args)]
pub struct BenchNas201Arguments {
    /// Configuration of the search
    #[arg(long, value_name = "CONFIG")]
    pub config: PathBuf,
    /// Table of latencies, .parquet or .csv
    #[arg(long, value_name = "FILE")]
    pub latency: PathBuf,
    /// Column of the device to search for
    #[arg(long, value_name = "DEVICE")]
    pub device: String,
    /// Table of accuracies of the same architectures, .parquet or .csv
    #[arg(long, value_name = "FILE")]
    pub accuracy: PathBuf,
    /// Column of accuracies; nothing is chosen by them
    #[arg(long, value_name = "NAME", default_value = "cifar10_val_200ep")]
    pub column: String,
    /// Rows of the device's column that the cost table is fitted on
    #[arg(long, default_value_t = 10)]
    pub samples: usize,
    /// Searches of each kind; the first seed is that of the configuration
    #[arg(long, default_value_t = 3)]
    pub seeds: u64,
    /// Largest difference of a peer's latency, in percent
    #[arg(long, default_value_t = 5.0, value_name = "PERCENT")]
    pub within: f64,
    /// Where searches are kept
    #[arg(long, value_name = "DIR", default_value = "runs/bench-nas201")]
    pub directory: PathBuf,
    /// How to print
    #[arg(long, value_enum, default_value_t)]
    pub format: ShowFormat,
}

/// `lathe bench proxies`.
#[derive(Debug, Args)]
pub struct BenchProxiesArguments {
    /// Table of accuracies, .parquet or .csv
    #[arg(long, value_name = "FILE")]
    pub accuracy: PathBuf,
    /// Columns of accuracies, as in a,b
    #[arg(long, value_delimiter = ',', value_name = "NAMES", default_values = ["cifar10_val_200ep", "cifar100_val_200ep", "imagenet16_120_val_200ep"])]
    pub column: Vec<String>,
    /// Networks to score
    #[arg(long, default_value_t = 200)]
    pub networks: usize,
    /// Folder of images for naswot: CIFAR-10's binary version, or train/<class>/ and test/<class>/
    #[arg(long, value_name = "DIR")]
    pub images: Option<PathBuf>,
    /// Images of naswot's batch
    #[arg(long, default_value_t = 128)]
    pub batch: usize,
    /// Proxies, as in synflow,macs; all if absent, naswot only with --images
    #[arg(long, value_enum, value_delimiter = ',', value_name = "NAMES")]
    pub proxies: Option<Vec<ProxyChoice>>,
    /// Seed of the draw, of initial values and of intervals
    #[arg(long, default_value_t = 0)]
    pub seed: u64,
    /// How to print
    #[arg(long, value_enum, default_value_t)]
    pub format: Format,
}

/// How untrained networks are scored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ProxyChoice {
    /// Number of learned values
    Parameters,
    /// Multiply-accumulates
    Macs,
    /// Synaptic flow
    Synflow,
    /// Codes of rectifiers
    Naswot,
    /// Expected change with noise
    ZenScore,
}

impl From<ProxyChoice> for Proxy {
    fn from(choice: ProxyChoice) -> Self {
        match choice {
            ProxyChoice::Parameters => Self::Parameters,
            ProxyChoice::Macs => Self::Macs,
            ProxyChoice::Synflow => Self::Synflow,
            ProxyChoice::Naswot => Self::Naswot,
            ProxyChoice::ZenScore => Self::ZenScore,
        }
    }
}

/// `lathe bench search`.
#[derive(Debug, Args)]
pub struct BenchSearchArguments {
    /// Table of latencies, .parquet or .csv
    #[arg(long, value_name = "FILE")]
    pub latency: PathBuf,
    /// Table of accuracies of the same architectures, .parquet or .csv
    #[arg(long, value_name = "FILE")]
    pub accuracy: PathBuf,
    /// Column of accuracies
    #[arg(long, value_name = "NAME", default_value = "cifar100_val_200ep")]
    pub column: String,
    /// Devices to transfer from, as in a,b; all columns but those of the target's device if absent
    #[arg(long, value_delimiter = ',', value_name = "DEVICES")]
    pub sources: Option<Vec<String>>,
    /// Devices to search for, as in a,b; every column in turn if absent
    #[arg(long, value_delimiter = ',', value_name = "DEVICES")]
    pub targets: Option<Vec<String>>,
    /// Limits of every target; if absent, those that 10, 30, 50, 70 and 90 % of its architectures meet
    #[arg(long, value_delimiter = ',', value_name = "NUMBERS")]
    pub limits_ms: Option<Vec<f64>>,
    /// Measurements of the target
    #[arg(long, default_value_t = 10)]
    pub samples: usize,
    /// Numbers of architectures whose accuracy is looked up
    #[arg(long, value_delimiter = ',', value_name = "NUMBERS", default_values_t = [50, 200, 1000])]
    pub budgets: Vec<usize>,
    /// Searches of each kind
    #[arg(long, default_value_t = 100)]
    pub seeds: u64,
    /// Algorithms, as in guided,random
    #[arg(long, value_enum, value_delimiter = ',', value_name = "NAMES", default_values = ["random", "aging", "nsga2", "guided"])]
    pub algorithms: Vec<AlgorithmChoice>,
    /// Where latencies come from, as in predictor,macs
    #[arg(long, value_enum, value_delimiter = ',', value_name = "NAMES", default_values = ["predictor", "macs", "oracle"])]
    pub knowledge: Vec<KnowledgeChoice>,
    /// How to print
    #[arg(long, value_enum, default_value_t)]
    pub format: ShowFormat,
}

/// Who chooses what is evaluated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum AlgorithmChoice {
    /// Chance
    Random,
    /// Regularised evolution
    Aging,
    /// NSGA-II
    Nsga2,
    /// Predictors of accuracy and latency
    Guided,
}

/// Where latencies come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum KnowledgeChoice {
    /// A few measurements and tables of other devices
    Predictor,
    /// A line through the multiply-accumulates
    Macs,
    /// Every latency of the device
    Oracle,
}

/// `lathe bench measurement`.
#[derive(Debug, Args)]
pub struct BenchMeasurementArguments {
    /// Python that has onnxruntime of the agent's version, and numpy; without it the comparison is left out
    #[arg(long, value_name = "PROGRAM")]
    pub python: Option<PathBuf>,
    /// Rounds of the comparison: in each the agent and Python time every network once
    #[arg(long, default_value_t = 11)]
    pub rounds: usize,
    /// Campaigns whose medians are compared; 0 leaves them out
    #[arg(long, default_value_t = 5)]
    pub campaigns: usize,
    /// The same campaigns again while a neighbour keeps another core busy
    #[arg(long)]
    pub neighbour: bool,
    /// Least measured seconds per network and campaign or process
    #[arg(long, default_value_t = 1.0)]
    pub seconds: f64,
    /// How to print
    #[arg(long, value_enum, default_value_t)]
    pub format: ShowFormat,
}

/// `lathe bench networks`.
#[derive(Debug, Args)]
pub struct BenchNetworksArguments {
    /// Spaces of the networks
    #[arg(long, value_enum, value_delimiter = ',', default_values = ["darts", "fbnet"])]
    pub spaces: Vec<SpaceKind>,
    /// Networks per space
    #[arg(long, default_value_t = 250)]
    pub count: usize,
    /// Numbers of training networks; a random fifth of all is set aside for the test
    #[arg(long, value_delimiter = ',', default_values_t = [20, 50, 200])]
    pub samples: Vec<usize>,
    /// Random splits per number of training networks
    #[arg(long, default_value_t = 20)]
    pub repeats: usize,
    /// Least measured seconds per network, over two processes
    #[arg(long, default_value_t = 1.0)]
    pub seconds: f64,
    /// Channels of the first DARTS cells
    #[arg(long, default_value_t = 8)]
    pub width: usize,
    /// Cells of the DARTS networks
    #[arg(long, default_value_t = 5)]
    pub layers: usize,
    /// Side of the FBNet networks' input
    #[arg(long, default_value_t = 64)]
    pub resolution: usize,
    /// Seed of the networks and of the splits
    #[arg(long, default_value_t = 0)]
    pub seed: u64,
    /// Latency database
    #[arg(long, value_name = "DIR", default_value = ".lathe/latency-db")]
    pub database: PathBuf,
    /// How to print
    #[arg(long, value_enum, default_value_t)]
    pub format: ShowFormat,
}

/// `lathe bench npu`.
#[derive(Debug, Args)]
pub struct BenchNpuArguments {
    /// Accelerators to compare
    #[arg(long, value_delimiter = ',', default_values = ["u55-128", "u65-512", "u85-1024"])]
    pub accelerators: Vec<Accelerator>,
    /// The compiler; `$LATHE_VELA` or `vela` on the search path if absent
    #[arg(long, value_name = "FILE")]
    pub vela: Option<PathBuf>,
    /// Space of operators and networks
    #[arg(long, value_enum, default_value = "darts")]
    pub space: SpaceKind,
    /// Skeleton of the space
    #[command(flatten)]
    pub skeleton: SkeletonChoice,
    /// Random networks, beside the published ones
    #[arg(long, default_value_t = 20)]
    pub count: u64,
    /// Seed of the random networks
    #[arg(long, default_value_t = 0)]
    pub seed: u64,
    /// How to print
    #[arg(long, value_enum, default_value_t)]
    pub format: ShowFormat,
}

/// `lathe bench predictor`.
#[derive(Debug, Args)]
pub struct BenchPredictorArguments {
    /// Table of latencies, .parquet or .csv
    #[arg(long, value_name = "FILE")]
    pub table: PathBuf,
    /// Space of its architectures
    #[arg(long, value_enum)]
    pub space: TableSpace,
    /// Devices to transfer from, as in a,b; all columns but those of the target's device (whatever the
    /// batch size behind its name) if absent
    #[arg(long, value_delimiter = ',', value_name = "DEVICES")]
    pub sources: Option<Vec<String>>,
    /// Devices to predict, as in a,b; every column in turn if absent
    #[arg(long, value_delimiter = ',', value_name = "DEVICES")]
    pub targets: Option<Vec<String>>,
    /// Which rows are for fitting and which for testing
    #[arg(long, value_enum, default_value_t)]
    pub protocol: TableProtocolChoice,
    /// Numbers of measurements of the target
    #[arg(long, value_delimiter = ',', value_name = "NUMBERS", default_values_t = [10, 20, 50])]
    pub samples: Vec<usize>,
    /// Draws of samples per target
    #[arg(long, default_value_t = 20)]
    pub seeds: u64,
    /// How to print
    #[arg(long, value_enum, default_value_t)]
    pub format: Format,
}

/// `lathe bench selection`.
#[derive(Debug, Args)]
pub struct BenchSelectionArguments {
    /// Table of latencies, .parquet or .csv
    #[arg(long, value_name = "FILE")]
    pub latency: PathBuf,
    /// Table of accuracies of the same architectures, .parquet or .csv
    #[arg(long, value_name = "FILE")]
    pub accuracy: PathBuf,
    /// Column of accuracies
    #[arg(long, value_name = "NAME", default_value = "cifar100_val_200ep")]
    pub column: String,
    /// Space of the architectures
    #[arg(long, value_enum, default_value = "nb201")]
    pub space: TableSpace,
    /// Devices to transfer from, as in a,b; all columns but those of the target's device if absent
    #[arg(long, value_delimiter = ',', value_name = "DEVICES")]
    pub sources: Option<Vec<String>>,
    /// Devices to choose for, as in a,b; every column in turn if absent
    #[arg(long, value_delimiter = ',', value_name = "DEVICES")]
    pub targets: Option<Vec<String>>,
    /// Limits, as milliseconds or as the share of the device's architectures that meet it (25%)
    #[arg(long, value_delimiter = ',', value_name = "LIMITS", default_values = ["25%", "50%", "75%"], value_parser = limit)]
    pub limits: Vec<Limit>,
    /// Measurements of the target
    #[arg(long, default_value_t = 10)]
    pub samples: usize,
    /// Draws of samples per target
    #[arg(long, default_value_t = 20)]
    pub seeds: u64,
    /// Probability with which a choice should meet its limit, from 0.5 to below 1
    #[arg(long, default_value_t = DEFAULT_SAFETY)]
    pub safety: f64,
    /// How to print
    #[arg(long, value_enum, default_value_t)]
    pub format: Format,
}

/// `7.5` is milliseconds, `25%` a share of the device's architectures.
fn limit(text: &str) -> Result<Limit, String> {
    let number = |text: &str| {
        let value = text.trim().parse::<f64>().ok().filter(|value| value.is_finite() && *value > 0.0);
        value.ok_or_else(|| "expected milliseconds (7.5) or a share of the architectures (25%)".to_owned())
    };
    match text.strip_suffix('%') {
        Some(percent) => Ok(Limit::Quantile(number(percent)? / 100.0)),
        None => Ok(Limit::Milliseconds(number(text)?)),
    }
}

/// Which rows of a table are for fitting and which for testing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum TableProtocolChoice {
    /// Samples from rows 0-899, test on rows 900-1899, both without the slowest and the fastest tenth
    Help,
    /// Samples from all rows, test on the others; 800 random rows of every source
    #[default]
    All,
}
