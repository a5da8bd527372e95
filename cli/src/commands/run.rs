//! `lathe run` and its stages as commands of their own.

use std::{path::Path, sync::Arc};

use lathe_runners::Runner;
use lathe_search::{Environment, ProcessGroup, Stage, StopReason};
use miette::Report;

use crate::{
    arguments::{MeasureArguments, RunArguments, StageArguments},
    commands::{
        measure::{Plan, estimated_seconds},
        show::RunSummary,
    },
    config::{self, Config},
    exit_codes,
    failure::failed,
    interrupt,
    run::{Run, STAGES, StageEnd, name},
    run_directory::{RunDirectory, RunDirectoryError},
    stages,
    terminal::Terminal,
};

/// `lathe run`.
pub fn all(arguments: &RunArguments, terminal: Terminal) -> Result<u8, Report> {
    alone("lathe run")?;
    if let Some(seeds) = arguments.seeds {
        return super::front::seeds(arguments, usize::from(seeds), terminal);
    }
    let mut run = open(&arguments.stage, arguments.resume, terminal)?;
    let reason = run.all()?;
    let summary = RunSummary::of(run.directory.record.events());
    if reason != StopReason::Interrupted && !summary.is_empty() {
        terminal.say(&format!("\n{}\n", summary.text()));
    }
    Ok(end(&run, &arguments.stage, &reason))
}

/// One stage as a command.
pub fn stage(arguments: &StageArguments, stage: Stage, terminal: Terminal) -> Result<u8, Report> {
    if stage == Stage::Retrain {
        alone("lathe retrain")?;
    }
    let mut run = open(arguments, true, terminal)?;
    one(&mut run, arguments, stage)
}

/// `lathe search`: by itself, or shared by the processes that a launcher started.
pub fn search(arguments: &StageArguments, terminal: Terminal) -> Result<u8, Report> {
    let Some(environment) = Environment::from_process().map_err(failed)? else {
        return stage(arguments, Stage::Search, terminal);
    };
    let (_, mut config) = load(&arguments.config)?;
    config.directory = arguments.directory.clone().unwrap_or(config.directory);
    if config.space.is_stages() {
        return Err(miette::miette!(
            help = "start `lathe search` with one process",
            "failed to share the search: one of a space of stages is not shared by processes"
        ));
    }
    let group = Arc::new(ProcessGroup::connect(&environment).map_err(failed)?);
    if environment.rank > 0 {
        let stop = interrupt::watch(terminal)?;
        let finished = stages::search::follow(&config, group, terminal, stop)?;
        return Ok(if finished { exit_codes::OK } else { exit_codes::INTERRUPTED });
    }
    let mut run = open(arguments, true, terminal)?;
    if run.directory.record.finished(Stage::Search) {
        stages::search::Task::Nothing.tell(group.as_ref())?;
    }
    run.collective = Some(group);
    one(&mut run, arguments, Stage::Search)
}

/// Refuses to do in several processes what only one can do.
pub fn alone(command: &str) -> Result<(), Report> {
    match Environment::from_process().map_err(failed)? {
        None => Ok(()),
        Some(environment) => Err(miette::miette!(
            help = "only `lathe search` can be shared: run the other stages with one process (docs/DISTRIBUTED.md)",
            "failed to start `{command}` as one of {} processes",
            environment.size
        )),
    }
}

/// `lathe measure CONFIG`: the first stage of a run.
pub fn measure(config: &Path, arguments: &MeasureArguments, terminal: Terminal) -> Result<u8, Report> {
    let stage = StageArguments {
        config: config.to_owned(),
        directory: arguments.directory.clone(),
        database: arguments.database.clone(),
    };
    let mut run = open(&stage, true, terminal)?;
    if arguments.only_missing {
        run.config.measure.reuse = true;
    }
    if arguments.dry_run {
        for device in run.devices() {
            let runner = run.runner_on(&device)?;
            let known = stages::measure::known(&run, &runner.device().fingerprint())?;
            let mut plan = Plan {
                device: runner.device().clone(),
                workloads: stages::measure::plan(&run)?,
                seconds: 0.0,
            };
            plan.workloads.retain(|workload| !known.contains(&workload.id()));
            plan.seconds = estimated_seconds(&plan.workloads, &run.config.measure.protocol, &run.store()?)?;
            plan.show(arguments.format)?;
        }
        return Ok(exit_codes::OK);
    }
    one(&mut run, &stage, Stage::Measure)
}

fn one(run: &mut Run<'_>, arguments: &StageArguments, stage: Stage) -> Result<u8, Report> {
    for before in STAGES.iter().take_while(|other| **other != stage) {
        if !run.directory.record.finished(*before) {
            let name = name(*before);
            let config = arguments.config.display();
            return Err(miette::miette!(
                help = format!("run `lathe {name} {config}`, or everything with `lathe run {config}`"),
                "failed to start this stage: the stage `{name}` is not finished"
            ));
        }
    }
    if run.directory.record.finished(stage) {
        run.terminal.say(&format!("`{}` is finished already; nothing to do", name(stage)));
        return Ok(exit_codes::OK);
    }
    match run.stage(stage)? {
        StageEnd::Done => Ok(exit_codes::OK),
        StageEnd::Stop(reason) => Ok(end(run, arguments, &reason)),
    }
}

fn open(arguments: &StageArguments, resume: bool, terminal: Terminal) -> Result<Run<'static>, Report> {
    let (file, mut config) = load(&arguments.config)?;
    if let Some(directory) = &arguments.directory {
        config.directory.clone_from(directory);
    }
    if let Some(database) = &arguments.database {
        config.database.clone_from(database);
    }
    let stop = interrupt::watch(terminal)?;
    let directory = RunDirectory::open(&file, &config, resume).map_err(|error| match error {
        RunDirectoryError::Config(error) => Report::new(error),
        other => failed(other),
    })?;
    Ok(Run::new(config, directory, terminal, stop))
}

/// The configuration of a file, or of a run's directory.
pub fn load(path: &Path) -> Result<(std::path::PathBuf, Config), Report> {
    if path.is_dir() {
        let file = path.join("config.toml");
        let mut config = config::load(&file)?;
        path.clone_into(&mut config.directory);
        return Ok((file, config));
    }
    Ok((path.to_owned(), config::load(path)?))
}

fn end(run: &Run<'_>, arguments: &StageArguments, reason: &StopReason) -> u8 {
    let report = run.path("report.html");
    let say = |text: &str| run.terminal.say(text);
    let say_report = || {
        if report.is_file() {
            say(&format!("report: {}", report.display()));
        }
    };
    match reason {
        StopReason::Completed => say(&format!("done: {}", report.display())),
        StopReason::TargetMissed { target, measured } => {
            say(&format!("the searched network misses the target of {target}: it takes {measured}"));
            say_report();
            return exit_codes::TARGET_MISSED;
        }
        StopReason::Infeasible { target, fastest, closest } => {
            if let Some(closest) = closest {
                say(&format!("the fastest network: {closest}"));
            }
            say(&format!(
                "no network of this space meets {target}: the fastest is predicted to need up to {fastest}\n\
                 hint: raise `objective.target_ms`, or make `space.width` or `space.{}` smaller",
                run.config.space.depth_key()
            ));
            say_report();
            return exit_codes::TARGET_MISSED;
        }
        StopReason::OtherTargetMissed { name, target, measured, quantity } => {
            let [target, measured] = [target, measured].map(|value| quantity.show(*value));
            say(&format!(
                "the searched network misses the target of its {name}: {target}, measured {measured}"
            ));
            say_report();
            return exit_codes::TARGET_MISSED;
        }
        StopReason::LimitsInfeasible { what, closest, values } => {
            say(&format!("{what}\nthe closest network: {closest}"));
            for value in values {
                say(&format!("  {value}"));
            }
            let depth = run.config.space.depth_key();
            say(&format!("hint: raise the limits, or make `space.width` or `space.{depth}` smaller"));
            say_report();
            return exit_codes::TARGET_MISSED;
        }
        StopReason::LimitsUndecided { what, closest, values } => {
            say(&format!("{what}\nthe closest network: {closest}"));
            for value in values {
                say(&format!("  {value}"));
            }
            say("hint: loosen the limits a little, or ask for fewer of them");
            say_report();
            return exit_codes::TARGET_MISSED;
        }
        StopReason::LimitAboveReach { limit, quantity, at_most, reachable } => {
            let [least, most] = reachable.map(|value| quantity.show(value));
            say(&format!(
                "no network of this space comes up to the limit of `{limit}`, {}: upper bounds are {least} to {most}\n\
                 hint: lower it, or take it as an upper bound alone (`objective.sides = \"upper\"`)",
                quantity.show(*at_most)
            ));
            say_report();
            return exit_codes::TARGET_MISSED;
        }
        StopReason::DeviceFailed { message } => {
            say(&format!("the device failed: {message}"));
            say(&format!("everything until then is kept; when the device is back: {}", resume(arguments)));
            return exit_codes::DEVICE_FAILED;
        }
        StopReason::Interrupted => {
            say(&format!("stopped; nothing is lost. Go on with: {}", resume(arguments)));
            return exit_codes::INTERRUPTED;
        }
        other => {
            say(&format!("ended: {other:?}"));
            return exit_codes::FAILED;
        }
    }
    exit_codes::OK
}

fn resume(arguments: &StageArguments) -> String {
    let mut command = format!("lathe run {} --resume", arguments.config.display());
    for (flag, value) in [("--directory", &arguments.directory), ("--database", &arguments.database)] {
        if let Some(value) = value {
            command.extend([" ", flag, " ", &value.display().to_string()]);
        }
    }
    command
}
