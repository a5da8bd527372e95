//! `lathe bench`: figures that anyone can make again.

mod measurement;
mod nas201;
mod networks;
mod npu;
mod predictor;
mod proxies;
mod search;
mod selection;
mod table_space;

use miette::Report;

use crate::{
    arguments::{BenchArguments, BenchCommand},
    terminal::Terminal,
};

/// Runs the subcommand.
pub fn run(arguments: &BenchArguments, terminal: Terminal) -> Result<u8, Report> {
    match &arguments.command {
        BenchCommand::Measurement(arguments) => measurement::run(arguments, terminal),
        BenchCommand::Nas201(arguments) => nas201::run(arguments, terminal),
        BenchCommand::Networks(arguments) => networks::run(arguments, terminal),
        BenchCommand::Npu(arguments) => npu::run(arguments, terminal),
        BenchCommand::Predictor(predictor) => predictor::run(predictor, terminal),
        BenchCommand::Proxies(proxies) => proxies::run(proxies, terminal),
        BenchCommand::Search(search) => search::run(search, terminal),
        BenchCommand::Selection(selection) => selection::run(selection, terminal),
    }
}
