//! The words a person types.

mod arguments;
mod campaign;
mod commands;
mod config;
mod devices;
mod exit_codes;
mod failure;
mod interrupt;
mod latency_model;
mod learned;
mod patience;
mod run;
mod run_devices;
mod run_directory;
mod stages;
mod study;
mod terminal;

use std::process::ExitCode;

use clap::Parser;

use arguments::{Arguments, Command};
use terminal::Terminal;

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_env_filter(
            tracing_subscriber::EnvFilter::try_from_env("LATHE_LOG").unwrap_or_else(|_| "warn".into()),
        )
        .init();
    if arguments.command.trains() {
        patience::set();
        if let Err(error) = lathe_search::open_cuda() {
            tracing::warn!("failed to {error}");
        }
    }
    let terminal = Terminal::new(arguments.quiet);
    let outcome = match &arguments.command {
        Command::Run(run) => commands::run::all(run, terminal),
        Command::Front(front) => commands::front::run(front, terminal),
        Command::Measure(measure) => commands::measure::run(measure, terminal),
        Command::Fit(fit) => commands::fit::run(fit, terminal),
        Command::Predict(predict) => commands::predict::run(predict, terminal),
        Command::Search(stage) => commands::run::search(stage, terminal),
        Command::Derive(stage) => commands::run::stage(stage, lathe_search::Stage::Derive, terminal),
        Command::Retrain(stage) => commands::run::stage(stage, lathe_search::Stage::Retrain, terminal),
        Command::Export(stage) => commands::run::stage(stage, lathe_search::Stage::Export, terminal),
        Command::Verify(stage) => commands::run::stage(stage, lathe_search::Stage::Verify, terminal),
        Command::Report(report) => commands::report::run(report, terminal),
        Command::Show(show) => commands::show::run(show, terminal),
        Command::Space(space) => commands::space::run(space, terminal),
        Command::Zoo(zoo) => commands::zoo::run(zoo, terminal),
        Command::Device(device) => commands::device::run(device, terminal),
        Command::Db(db) => commands::db::run(db, terminal),
        Command::Table(table) => commands::table::run(table, terminal),
        Command::Bench(bench) => commands::bench::run(bench, terminal),
    };
    match outcome {
        Ok(code) => ExitCode::from(code),
        Err(report) => {
            let usage = report.downcast_ref::<config::ConfigError>().is_some();
            Terminal::error(&report);
            ExitCode::from(if usage { exit_codes::USAGE } else { exit_codes::FAILED })
        }
    }
}
