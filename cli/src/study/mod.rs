//! A study: several runs of one configuration that share what they can.
//!
//! `lathe front` sweeps targets, `lathe run --seeds` repeats with other seeds. Operators and networks are measured
//! and the predictor is fitted once, in `measured/`; every member is a run of its own in `seed-N/NAME/`, with its own
//! record and report. Members of one seed share the warm-up of the supernet. At the end all networks are timed once
//! more, interleaved, so that their latencies compare.

mod breed;
mod compare;
mod directory;
mod member;
mod plan;
mod summary;

pub use plan::{Approach, StudyPlan};
pub use summary::{markdown, read, text};

use std::{path::Path, sync::atomic::AtomicBool, time::Instant};

use lathe_search::{Event, Stage, StopReason};
use miette::Report;

use crate::{
    config::Config,
    exit_codes,
    run::{StageEnd, load_images},
    terminal::{Terminal, duration},
};

use directory::StudyDirectory;
use member::Member;

/// Everything that the parts of a study share.
pub struct Study<'a> {
    /// Configuration of all members, with the study's directory.
    pub config: Config,
    /// What the members are.
    pub plan: StudyPlan,
    /// The configuration's file.
    pub file: &'a Path,
    /// Progress and messages.
    pub terminal: Terminal,
    /// Raised by Ctrl-C.
    pub stop: &'static AtomicBool,
}

impl Study<'_> {
    /// Does everything that isn't done yet, and returns the exit status.
    pub fn run(&self, resume: bool) -> Result<u8, Report> {
        let _directory = StudyDirectory::open(self, resume)?;
        let images = load_images(&self.config, self.terminal)?;
        let shared = match member::measured(self, &images)? {
            Ok(shared) => shared,
            Err(reason) => return Ok(self.stopped(&reason)),
        };
        let members = member::all(self, &shared);
        let began = Instant::now();
        let (mut done, mut skipped) = (0, 0);
        for (index, member) in members.iter().enumerate() {
            if member.ended(self)? {
                skipped += 1;
                continue;
            }
            self.terminal.say(&format!("member {}/{}: {}", index + 1, members.len(), member.title()));
            let reason = self.member(member, &shared, &members, &images)?;
            match reason {
                StopReason::Interrupted | StopReason::DeviceFailed { .. } => return Ok(self.stopped(&reason)),
                _ => {}
            }
            done += 1;
            let left = began.elapsed().as_secs_f64() / f64::from(done) * (members.len() - index - 1) as f64;
            if left > 0.0 {
                self.terminal.say(&format!("      about {} left for the other members", duration(left)));
            }
        }
        if skipped > 0 {
            self.terminal.say(&format!("{skipped} members were finished already"));
        }
        let summary = match compare::all(self, &shared, &members)? {
            Ok(times) => summary::of(self, &shared, &members, &times)?,
            Err(reason) => return Ok(self.stopped(&reason)),
        };
        let page = summary::write(&summary, &self.config.directory)?;
        self.terminal.say(&format!("\n{}\n", summary::text(&summary)));
        self.terminal.say(&format!("done: {}", page.display()));
        Ok(exit_codes::OK)
    }

    /// One member, from where it stands to its end.
    fn member(
        &self,
        member: &Member,
        shared: &member::Measured,
        members: &[Member],
        images: &std::sync::Arc<lathe_search::Dataset>,
    ) -> Result<StopReason, Report> {
        let bred = match member.approach {
            Approach::Evolved => match breed::front(self, member, members, images)? {
                Some(bred) => Some(bred),
                None => return Ok(StopReason::Interrupted),
            },
            _ => None,
        };
        let mut run = member.open(self, images)?;
        run.bred = bred;
        shared.give(&mut run)?;
        if member.approach != Approach::Evolved && !run.directory.record.finished(Stage::Search) {
            member.share_warm_up(self, members)?;
        }
        run.all()
    }

    fn stopped(&self, reason: &StopReason) -> u8 {
        let say = |text: &str| self.terminal.say(text);
        match reason {
            StopReason::DeviceFailed { message } => {
                say(&format!("the device failed: {message}"));
                say(
                    "everything until then is kept; when the device is back, repeat the command with --resume",
                );
                exit_codes::DEVICE_FAILED
            }
            StopReason::Interrupted => {
                say("stopped; nothing is lost. Go on by repeating the command with --resume");
                exit_codes::INTERRUPTED
            }
            StopReason::LimitsInfeasible { what, closest, .. }
            | StopReason::LimitsUndecided { what, closest, .. } => {
                say(&format!("{what}\nthe closest network: {closest}"));
                exit_codes::TARGET_MISSED
            }
            other => {
                say(&format!("ended: {other:?}"));
                exit_codes::FAILED
            }
        }
    }
}

/// Whether a stage of a run is done, or why the run ended.
fn done(end: StageEnd) -> Result<(), StopReason> {
    match end {
        StageEnd::Done => Ok(()),
        StageEnd::Stop(reason) => Err(reason),
    }
}

/// How a run ended, if it did for good.
fn ending(events: &[Event]) -> Option<&StopReason> {
    let last = events.iter().rev().find_map(|event| match event {
        Event::Finished { stop, .. } => Some(stop),
        _ => None,
    });
    last.filter(|stop| !matches!(stop, StopReason::Interrupted | StopReason::DeviceFailed { .. }))
}
