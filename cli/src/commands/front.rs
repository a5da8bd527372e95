//! `lathe front`, and `lathe run --seeds`: studies of several runs.

use lathe_search::proxies::Proxy;
use miette::Report;

use crate::{
    arguments::{FrontArguments, RunArguments, StageArguments},
    commands::run::{alone, load},
    config::Config,
    interrupt,
    study::{Approach, Study, StudyPlan},
    terminal::Terminal,
};

/// Share of the training images that chooses among seeds where the configuration says nothing.
const VALIDATION: f64 = 0.1;

/// `lathe front`.
pub fn run(arguments: &FrontArguments, terminal: Terminal) -> Result<u8, Report> {
    alone("lathe front")?;
    check(arguments)?;
    let (file, mut config) = configured(&arguments.stage, "front")?;
    if let Some(device) = &arguments.device {
        config.device.name.clone_from(device);
        config.device.cpus = None;
        // Its own place, beside the study of the configuration's device.
        if arguments.stage.directory.is_none() {
            let mut name = config.directory.file_name().unwrap_or_default().to_owned();
            name.push(format!("-{device}"));
            config.directory.set_file_name(name);
        }
    }
    let mut plan = StudyPlan {
        targets_ms: arguments.targets_ms.clone(),
        quantiles: arguments.quantiles.clone(),
        seeds: usize::from(arguments.seeds),
        compare: arguments.compare.clone(),
        evolve: arguments.evolve.map(|count| count as usize),
        evolve_proxy: arguments.evolve_proxy.map(|choice| Proxy::from(choice).name().to_owned()),
        evolve_images: arguments.evolve_images as usize,
        also: arguments.also.clone(),
    };
    own_target(&mut plan, &config);
    let needs = plan.evolve.is_some() || plan.compare.contains(&Approach::Macs);
    if needs && !plan.has_targets() {
        return Err(miette::miette!(
            help = "add `--targets-ms` or `--quantiles`, or a target under [objective]",
            "failed to start: `--compare macs` and `--evolve` need targets"
        ));
    }
    hold_out(&mut config, &plan, terminal);
    let stop = interrupt::watch(terminal)?;
    Study { config, plan, file: &file, terminal, stop }.run(arguments.resume)
}

/// `lathe run --seeds`: one target, several seeds.
pub fn seeds(arguments: &RunArguments, seeds: usize, terminal: Terminal) -> Result<u8, Report> {
    let (file, mut config) = configured(&arguments.stage, "seeds")?;
    let mut plan = StudyPlan {
        targets_ms: Vec::new(),
        quantiles: Vec::new(),
        seeds,
        compare: Vec::new(),
        evolve: None,
        evolve_proxy: None,
        evolve_images: 0,
        also: Vec::new(),
    };
    own_target(&mut plan, &config);
    hold_out(&mut config, &plan, terminal);
    let stop = interrupt::watch(terminal)?;
    Study { config, plan, file: &file, terminal, stop }.run(arguments.resume)
}

/// The configuration, with a directory of its own beside that of a single run.
fn configured(arguments: &StageArguments, suffix: &str) -> Result<(std::path::PathBuf, Config), Report> {
    let (file, mut config) = load(&arguments.config)?;
    if config.space.is_stages() {
        return Err(miette::miette!(
            help = "run it once per target or seed with `lathe run`; the report of each has the front that its evolution found",
            "failed to start a study: studies search cells, and this is a space of stages"
        ));
    }
    if let Some(directory) = &arguments.directory {
        config.directory.clone_from(directory);
    } else {
        let mut name = config.directory.file_name().unwrap_or_default().to_owned();
        name.push(format!("-{suffix}"));
        config.directory.set_file_name(name);
    }
    if let Some(database) = &arguments.database {
        config.database.clone_from(database);
    }
    Ok((file, config))
}

/// Without targets of its own a study has the configuration's.
fn own_target(plan: &mut StudyPlan, config: &Config) {
    if !plan.has_targets() {
        plan.targets_ms.extend(config.objective.target_ms);
        plan.quantiles.extend(config.objective.target_quantile);
    }
}

/// Several seeds need images to choose by.
fn hold_out(config: &mut Config, plan: &StudyPlan, terminal: Terminal) {
    if plan.seeds > 1 && config.retrain.validation <= 0.0 {
        config.retrain.validation = VALIDATION;
        terminal.say(&format!(
            "holding out {:.0} % of the training images to choose among the seeds (`retrain.validation`)",
            VALIDATION * 100.0
        ));
    }
}

fn check(arguments: &FrontArguments) -> Result<(), Report> {
    let fault = |flag: &str, value: f64, expected: &str| {
        Err(miette::miette!(help = format!("expected {expected}"), "failed to understand `{flag} {value}`"))
    };
    if let Some(&value) = arguments.targets_ms.iter().find(|value| !(**value > 0.0 && value.is_finite())) {
        return fault("--targets-ms", value, "milliseconds above zero");
    }
    if let Some(&value) = arguments.quantiles.iter().find(|value| !(0.0..=1.0).contains(*value)) {
        return fault("--quantiles", value, "a number from 0 to 1");
    }
    Ok(())
}
