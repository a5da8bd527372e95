//! `lathe front`.

use clap::Args;

use super::{ProxyChoice, StageArguments};
use crate::study::Approach;

/// `lathe front`.
#[derive(Debug, Args)]
#[command(
    after_help = "Everything that is measured is measured once; searches of one seed share their warm-up; at \
the end all networks are timed again, interleaved. Without targets the configuration's own is \
taken. Every member of the study is a run with its own report: DIR/seed-N/NAME.\n\n\
Example: lathe front examples/cifar10-cpu.toml --quantiles 0.2,0.5,0.8 --compare macs --seeds 3"
)]
pub struct FrontArguments {
    /// Where
    #[command(flatten)]
    pub stage: StageArguments,
    /// Targets in milliseconds
    #[arg(long, value_name = "MS,…", value_delimiter = ',', conflicts_with = "quantiles")]
    pub targets_ms: Vec<f64>,
    /// Targets as quantiles of the random networks that are measured
    #[arg(long, value_name = "Q,…", value_delimiter = ',')]
    pub quantiles: Vec<f64>,
    /// Repetitions, with seeds from the configuration's on
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub seeds: u16,
    /// Search also in another way, for comparison
    #[arg(long, value_enum, value_delimiter = ',')]
    pub compare: Vec<Approach>,
    /// Breed networks by NSGA-II on a trained supernet's weights: so many are scored per seed
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(2..=1_000_000))]
    pub evolve: Option<u32>,
    /// Let a score of untrained networks choose the first generation, each of four random ones
    #[arg(long, value_enum, value_name = "PROXY", requires = "evolve")]
    pub evolve_proxy: Option<ProxyChoice>,
    /// Images that each of them is scored on
    #[arg(long, value_name = "N", default_value_t = 512, value_parser = clap::value_parser!(u32).range(2..))]
    pub evolve_images: u32,
    /// Device to search for, in place of the configuration's
    #[arg(long, value_name = "DEVICE")]
    pub device: Option<String>,
    /// Time the networks found on this device, too; can be given several times
    #[arg(long, value_name = "DEVICE")]
    pub also: Vec<String>,
    /// Go on with a study that was stopped; it ends as if it had not been
    #[arg(long)]
    pub resume: bool,
}
