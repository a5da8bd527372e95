//! `lathe table`.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

use super::{Format, SkeletonChoice, SpaceKind};

/// `lathe table`.
#[derive(Debug, Args)]
#[command(
    after_help = "Layouts of tables of architectures x devices: wide (a row per architecture, a column per device), \
                        long (a row per architecture and device: arch, arch_index or op_idx; device; batch if it \
                        matters; latency_ms), both .csv or .parquet; hw-nas-bench (its .pickle); help (its folder \
                        data/nasbench201 or data/fbnet). Operator look-up tables are YAML as once-for-all and \
                        ProxylessNAS read it. The layout is detected; nothing in a pickle is ever executed."
)]
pub struct TableArguments {
    /// What to do
    #[command(subcommand)]
    pub command: TableCommand,
}

/// What to do with a table.
#[derive(Debug, Subcommand)]
pub enum TableCommand {
    /// What a file holds: layout, space, rows, devices, gaps, range, and what cannot be used
    Show {
        /// Table, or HELP's data folder
        file: PathBuf,
        /// How to read it
        #[command(flatten)]
        reading: TableReading,
        /// How to print
        #[arg(long, value_enum, default_value_t)]
        format: Format,
    },
    /// Write a table of architectures x devices as wide .csv or .parquet
    Convert {
        /// Table, or HELP's data folder
        input: PathBuf,
        /// File; an existing one is never overwritten
        output: PathBuf,
        /// How to read it
        #[command(flatten)]
        reading: TableReading,
    },
    /// Put the operators of a look-up table (YAML of once-for-all or proxylessnas) into the database
    Import {
        /// Look-up table
        file: PathBuf,
        /// Name of the device that it is of
        #[arg(long, value_name = "NAME")]
        device: String,
        /// Database
        #[arg(long, default_value = ".lathe/latency-db", value_name = "DIR")]
        database: PathBuf,
    },
    /// Write measurements as a table: networks as csv, operators as ofa or proxylessnas
    Export {
        /// File; an existing one is never overwritten
        file: PathBuf,
        /// What to write
        #[arg(long, value_enum)]
        layout: ExportLayout,
        /// Device (fingerprint or alias); several for csv
        #[arg(long, required = true, value_name = "DEVICE")]
        device: Vec<String>,
        /// Database
        #[arg(long, default_value = ".lathe/latency-db", value_name = "DIR")]
        database: PathBuf,
        /// Only this campaign
        #[arg(long)]
        campaign: Option<String>,
        /// Space whose networks or operators were measured; needed for all but imported operators
        #[arg(long, value_enum)]
        space: Option<SpaceKind>,
        /// Skeleton of the space
        #[command(flatten)]
        skeleton: SkeletonChoice,
        /// Seed of the run whose random networks were measured (csv)
        #[arg(long, default_value_t = 0)]
        seed: u64,
        /// File with one genotype a line, for networks that no run drew (csv)
        #[arg(long, value_name = "FILE")]
        genotypes: Option<PathBuf>,
    },
}

/// What a table does not say of itself.
#[derive(Debug, Args)]
pub struct TableReading {
    /// Layout, in place of what the content says
    #[arg(long, value_enum)]
    pub layout: Option<TableLayoutChoice>,
    /// Space of its architectures, in place of what its columns say
    #[arg(long, value_enum)]
    pub space: Option<TableSpace>,
    /// Data set, for HW-NAS-Bench's pickle (cifar10 if absent)
    #[arg(long)]
    pub dataset: Option<String>,
}

/// How a table is laid out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum TableLayoutChoice {
    /// A row per architecture, a column per device
    Wide,
    /// A row per architecture and device
    Long,
    /// The pickle of HW-NAS-Bench
    HwNasBench,
    /// A data folder of HELP
    Help,
    /// An operator look-up table of once-for-all or proxylessnas
    Lookup,
}

/// What an export writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ExportLayout {
    /// Networks x devices, in milliseconds (the median)
    Csv,
    /// Operators, under the names of once-for-all
    Ofa,
    /// Operators, under the names of proxylessnas
    Proxylessnas,
}

/// Spaces that published tables are of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum TableSpace {
    /// NAS-Bench-201
    Nb201,
    /// FBNet's 22 positions
    Fbnet,
}
