//! The same networks under several engines, interleaved: a table in Markdown on standard output.
//!
//! `cargo run -p lathe-runners --example engines -- 5` with the variables of `cargo xtask env` set; the
//! number says how many rounds. tract takes part if `LATHE_AGENT_STATIC` names the static agent
//! (`cargo xtask agent --static`).

#![allow(clippy::print_stdout, reason = "the table is what it is for")]

use std::{error::Error, ops::ControlFlow};

use lathe_latency_db::{Outcome, Protocol};
use lathe_runners::{EngineChoice, EngineName, ExecutedPrecision, Job, LocalRunner, LocalSettings, Runner};
use lathe_spaces::{DartsSkeleton, Level, NetworkOptions, Space, Stem, Stream, Workload};

const RULES: Protocol = Protocol { min_seconds: 0.3, processes: 1, ..Protocol::SCREENING };

fn main() -> Result<(), Box<dyn Error>> {
    let rounds: u64 = std::env::args().nth(1).map_or(Ok(5), |text| text.parse())?;
    let openvino = EngineChoice::new(EngineName::Openvino);
    let mut runners = Vec::new();
    for (name, engine) in [
        ("onnxruntime f32", EngineChoice::default()),
        ("openvino f32", openvino.clone()),
        ("openvino bf16", EngineChoice { precision: ExecutedPrecision::Bf16, ..openvino }),
        ("litert", EngineChoice::new(EngineName::Litert)),
    ] {
        runners.push(LocalRunner::start(LocalSettings { engine, ..LocalSettings::new(name) })?);
    }
    if let Some(agent) = std::env::var_os("LATHE_AGENT_STATIC") {
        let engine = EngineChoice::new(EngineName::Tract);
        let settings = LocalSettings { engine, agent: Some(agent.into()), ..LocalSettings::new("tract") };
        runners.push(LocalRunner::start(settings)?);
    }
    let workloads = workloads()?;
    println!(
        "| network | engine | executed in | median µs of {rounds} rounds | to onnxruntime, median of rounds | outcome |"
    );
    println!("|---|---|---|---|---|---|");
    for workload in &workloads {
        eprintln!("{}", workload.label);
        let mut medians: Vec<Vec<f64>> = vec![Vec::new(); runners.len()];
        let mut last = vec![(String::new(), Outcome::Ok); runners.len()];
        for round in 0..rounds {
            for (index, runner) in runners.iter_mut().enumerate() {
                let job = Job::new(format!("engines {round}"), RULES, round);
                runner.run(std::slice::from_ref(workload), &job, &mut |row| {
                    medians[index].extend(row.median().map(|median| median.0));
                    let precision = row.execution.and_then(|execution| execution.precision);
                    last[index] = (precision.unwrap_or_default(), row.outcome);
                    if let Some(error) = row.error {
                        eprintln!("{}: {error}", row.label);
                    }
                    ControlFlow::Continue(())
                })?;
            }
        }
        for (index, runner) in runners.iter().enumerate() {
            let ratios = medians[index].iter().zip(&medians[0]).map(|(this, first)| this / first).collect();
            println!(
                "| {} | {} | {} | {:.0} | {:.2} | {} |",
                workload.label,
                runner.device().name,
                last[index].0,
                middle(medians[index].clone()),
                middle(ratios),
                last[index].1
            );
        }
    }
    Ok(())
}

/// A small network of each space.
fn workloads() -> Result<Vec<Workload>, Box<dyn Error>> {
    let darts = DartsSkeleton { stem: Stem::Cifar, width: 16, layers: 8, resolution: 32, classes: 10 };
    let mut workloads = Vec::new();
    let spaces = [
        ("DARTS, published cell", Space::darts(darts)),
        ("FBNet, random", Space::fbnet(112, 100)),
        (
            "NAS-Bench-201, random",
            Space::nas201(lathe_spaces::Nas201Skeleton { width: 16, cells: 3, resolution: 32, classes: 10 }),
        ),
    ];
    for (label, space) in spaces {
        let genotype = match space.published().into_iter().next() {
            Some((_, genotype)) => genotype,
            // The second one: the first of NAS-Bench-201 is cut off by `none`, a constant.
            None => space.sample(&mut Stream::new(1, "engines", 1)),
        };
        let graph = space.network(&genotype, NetworkOptions::default())?;
        workloads.push(Workload::new(label, Level::Network, graph));
    }
    Ok(workloads)
}

fn middle(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}
