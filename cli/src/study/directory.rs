//! The directory of a study: its plan, its configuration, its lock.

use std::{
    fs::{self, File},
    path::PathBuf,
};

use miette::Report;
use nix::fcntl::{Flock, FlockArg};
use serde::{Deserialize, Serialize};

use super::{Study, StudyPlan};
use crate::{config, failure::failed, run_directory::write_atomically};

/// Name of the file that says what a study is.
const PLAN: &str = "study.json";

#[derive(Serialize, Deserialize)]
struct Kept {
    plan: StudyPlan,
    /// The resolved configuration.
    config: String,
}

/// An opened study: nobody else works on it until it is dropped.
pub struct StudyDirectory {
    _lock: Flock<File>,
}

impl StudyDirectory {
    /// Starts a study, or takes one up again if `resume` and there is one.
    pub fn open(study: &Study<'_>, resume: bool) -> Result<Self, Report> {
        let path = &study.config.directory;
        let shown = path.display();
        if path.join("record.jsonl").exists() {
            return Err(miette::miette!(
                help = "choose another `--directory`",
                "failed to start a study in {shown}: it holds a single run"
            ));
        }
        let file = path.join(PLAN);
        let kept = Kept { plan: study.plan.clone(), config: config::resolved(&study.config)? };
        if file.exists() {
            if !resume {
                return Err(miette::miette!(
                    help = "go on with it by `--resume`, or choose another `--directory`",
                    "failed to start in {shown}: it holds a study already"
                ));
            }
            compare(&file, &kept)?;
        }
        fs::create_dir_all(path).map_err(|error| miette::miette!("failed to create {shown}: {error}"))?;
        let lock = path.join("lock");
        let opened = File::create(&lock)
            .map_err(|error| miette::miette!("failed to create {}: {error}", lock.display()))?;
        let lock = Flock::lock(opened, FlockArg::LockExclusiveNonblock).map_err(|_| {
            miette::miette!(
                help = "wait for it, or stop it first",
                "failed to open {shown}: another lathe works on this study"
            )
        })?;
        if !file.exists() {
            let text = serde_json::to_string_pretty(&kept).map_err(failed)?;
            write_atomically(&file, text.as_bytes()).map_err(failed)?;
        }
        Ok(Self { _lock: lock })
    }
}

/// Refuses to go on with another study than was begun.
fn compare(file: &PathBuf, now: &Kept) -> Result<(), Report> {
    let broken = |error: String| {
        miette::miette!(
            help = "restore it from a copy, or choose another `--directory`",
            "failed to read {}: {error}",
            file.display()
        )
    };
    let text = fs::read_to_string(file).map_err(|error| broken(error.to_string()))?;
    let before: Kept = serde_json::from_str(&text).map_err(|error| broken(error.to_string()))?;
    let mut differences = config::differences(&before.config, &now.config);
    if before.plan != now.plan {
        let show = |plan: &StudyPlan| serde_json::to_string(plan).unwrap_or_default();
        differences.push(format!("  {}\n  → {}", show(&before.plan), show(&now.plan)));
    }
    if differences.is_empty() {
        return Ok(());
    }
    Err(miette::miette!(
        help = "repeat the command as it was begun, or choose another `--directory`",
        "failed to resume the study in {}: it was begun with other settings\n{}",
        file.display(),
        differences.join("\n")
    ))
}
