//! `lathe db`.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

use super::Format;

/// `lathe db`.
#[derive(Debug, Args)]
pub struct DbArguments {
    /// The database
    #[arg(long, value_name = "DIR", default_value = ".lathe/latency-db", global = true)]
    pub database: PathBuf,
    /// What to do
    #[command(subcommand)]
    pub command: DbCommand,
}

/// Which rows.
#[derive(Debug, Default, Args)]
pub struct RowChoice {
    /// Only this device (fingerprint or alias)
    #[arg(long)]
    pub device: Option<String>,
    /// Only this campaign
    #[arg(long)]
    pub campaign: Option<String>,
    /// Only this level
    #[arg(long, value_enum)]
    pub level: Option<LevelChoice>,
}

/// Level of a workload.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LevelChoice {
    /// Choices of a space
    Operator,
    /// Parts that every network of a space has
    Fixed,
    /// Whole networks
    Network,
}

/// What to do with the database.
#[derive(Debug, Subcommand)]
pub enum DbCommand {
    /// One line per measurement
    List {
        /// Rows
        #[command(flatten)]
        rows: RowChoice,
        /// How to print
        #[arg(long, value_enum, default_value_t)]
        format: Format,
    },
    /// Workloads on several devices side by side: how each ended, load time, first run, median, memory
    Compare {
        /// Device (fingerprint or alias); can be given several times; all of them if absent
        #[arg(long, value_name = "DEVICE")]
        device: Vec<String>,
        /// Only this level
        #[arg(long, value_enum, default_value = "network")]
        level: LevelChoice,
        /// How to print
        #[arg(long, value_enum, default_value_t)]
        format: Format,
    },
    /// Devices and how many rows each has
    Devices {
        /// How to print
        #[arg(long, value_enum, default_value_t)]
        format: Format,
    },
    /// Everything about one measurement
    Show {
        /// Identifier of the measurement or of the workload, or the beginning of one
        id: String,
        /// How to print
        #[arg(long, value_enum, default_value_t)]
        format: Format,
    },
    /// Write rows to a file: .csv, .json, .jsonl or .parquet
    Export {
        /// File; an existing one is never overwritten
        file: PathBuf,
        /// Rows
        #[command(flatten)]
        rows: RowChoice,
    },
}
