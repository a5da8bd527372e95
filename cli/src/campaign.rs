//! Timing outside of a run: workloads go straight into the latency database.

use std::{
    collections::BTreeSet,
    fs::File,
    ops::ControlFlow,
    path::Path,
    sync::atomic::{AtomicBool, Ordering},
};

use lathe_latency_db::{Filter, Journal, Measurement, Protocol, Store};
use lathe_runners::{Job, Runner};
use lathe_spaces::{Workload, WorkloadId};
use miette::Report;
use nix::fcntl::{Flock, FlockArg};

use crate::{failure::failed, terminal::Terminal};

/// Characters of a label that progress shows.
const LABEL: usize = 60;

/// Workloads timed on one device for one database.
pub struct Campaign<'a> {
    /// Name under which the rows stand.
    pub name: &'a str,
    /// Folder of the latency database; created if there is none.
    pub database: &'a Path,
    /// Rules of timing.
    pub protocol: Protocol,
    /// Seed of the order.
    pub seed: u64,
    /// Raised by Ctrl-C.
    pub stop: &'a AtomicBool,
    /// Time also what the database knows of this device.
    pub again: bool,
    /// What progress calls it.
    pub title: &'a str,
    /// Progress.
    pub terminal: Terminal,
}

impl Campaign<'_> {
    /// Times what the database doesn't know of this device, and returns every row that it then has of
    /// these workloads; `None` if it was interrupted. Whatever was timed is kept, also after a crash:
    /// the next campaign on this device finds it.
    pub fn time(
        &self,
        runner: &mut impl Runner,
        workloads: &[Workload],
    ) -> Result<Option<Vec<Measurement>>, Report> {
        let store = Store::open(self.database).map_err(failed)?;
        store.remember(workloads).map_err(failed)?;
        let fingerprint = runner.device().fingerprint();
        let _lock = lock(self.database, &fingerprint)?;
        let mut journal = taken_over(&store, self.database, &fingerprint, self.name)?;
        let mut rows: Vec<Measurement> = Vec::new();

        let known =
            if self.again { BTreeSet::new() } else { store.measured(&fingerprint).map_err(failed)? };
        let missing: Vec<Workload> =
            workloads.iter().filter(|workload| !known.contains(&workload.id())).cloned().collect();
        if !missing.is_empty() {
            // Until the first group of networks is timed nothing else is said, which may take minutes.
            self.terminal.say(&format!(
                "{}: {} workloads to time, {} known already",
                runner.device().name,
                missing.len(),
                workloads.len() - missing.len()
            ));
        }
        let mut bar = self.terminal.bar(self.title, missing.len());
        let mut failure = None;
        let job = Job::new(self.name, self.protocol, self.seed);
        let timed = runner.run(&missing, &job, &mut |row| {
            // The label of a network may be its whole genotype.
            let label: String = row.label.chars().take(LABEL).collect();
            bar.set(rows.len() + 1, missing.len(), &label);
            if !row.usable() {
                let message = row.error.as_deref().unwrap_or("no message");
                bar.say(&format!("{}: {label}: {} ({message})", row.device.name, row.outcome));
            }
            if let Err(error) = journal.push(&row) {
                failure = Some(error);
                return ControlFlow::Break(());
            }
            rows.push(row);
            if self.stop.load(Ordering::Relaxed) { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        bar.done();
        store.append(self.name, &rows).map_err(failed)?;
        journal.remove().map_err(failed)?;
        if let Some(error) = failure {
            return Err(failed(error));
        }
        timed.map_err(failed)?;
        if self.stop.load(Ordering::Relaxed) {
            self.terminal.say(&format!(
                "interrupted: {} of {} are timed and kept; the same command times the others",
                rows.len(),
                missing.len()
            ));
            return Ok(None);
        }
        let wanted = workloads.iter().map(Workload::id).collect();
        let filter = Filter { device: Some(fingerprint), workloads: Some(wanted), ..Filter::default() };
        store.load(&filter).map(Some).map_err(failed)
    }
}

/// Stores the rows that a killed campaign left for this device. Where another one is timing right now, its
/// rows are not in the database yet.
pub fn take_over(store: &Store, database: &Path, fingerprint: &str, name: &str) -> Result<(), Report> {
    let Ok(_lock) = lock(database, fingerprint) else { return Ok(()) };
    taken_over(store, database, fingerprint, name)?.remove().map_err(failed)
}

/// The journal of a device, whose rows are in the database now.
fn taken_over(store: &Store, database: &Path, fingerprint: &str, name: &str) -> Result<Journal, Report> {
    let path = database.join(format!("{fingerprint}.measuring.jsonl"));
    let (journal, rows) = Journal::open(&path).map_err(failed)?;
    store.append(name, &rows).map_err(failed)?;
    Ok(journal)
}

/// Two campaigns on one device would disturb each other.
fn lock(database: &Path, fingerprint: &str) -> Result<Flock<File>, Report> {
    let path = database.join(format!("{fingerprint}.lock"));
    let file = File::create(&path)
        .map_err(|error| miette::miette!("failed to create {}: {error}", path.display()))?;
    Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|_| {
        miette::miette!(
            help = "wait for it, or stop it",
            "failed to time on device {fingerprint}: another lathe is timing on it for the database {}",
            database.display()
        )
    })
}

/// Without repeats, in the order of the first ones.
pub fn distinct(workloads: impl IntoIterator<Item = Workload>) -> Vec<Workload> {
    let mut seen = BTreeSet::<WorkloadId>::new();
    workloads.into_iter().filter(|workload| seen.insert(workload.id())).collect()
}
