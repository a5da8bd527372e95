//! Seconds of a training step of SESR with its linear blocks run expanded and collapsed, interleaved in one run.
//!
//! `cargo bench -p lathe-search --bench collapsed_step`. The last line on stdout is one JSON object; the table goes to
//! stderr.
#![allow(clippy::print_stdout, clippy::print_stderr, missing_docs, reason = "a benchmark prints")]

use std::{error::Error, time::Instant};

use lathe_search::{DropPath, GraphModule};
use lathe_spaces::{NetworkOptions, SPACES, SpaceFile, Weights};
use serde_json::json;
use tch::{Kind, Tensor, kind::FLOAT_CPU};

const ROUNDS: usize = 11;
/// Images per step, and side of the low-resolution input: SESR's own training (section 5.1) has 32 and 64.
const SIZES: [(i64, usize); 3] = [(8, 16), (32, 32), (32, 64)];

fn main() -> Result<(), Box<dyn Error>> {
    let text = SPACES.iter().find(|(name, _)| *name == "sesr").ok_or("there is no space `sesr`")?.1;
    let file = SpaceFile::parse(text)?;
    let mut rows = Vec::new();
    eprintln!(
        "{:>10} {:>6} {:>12} {:>13} {:>6}",
        "network", "images", "expanded, ms", "collapsed, ms", "ratio"
    );
    for (images, side) in SIZES {
        let space = file.space(Some([side, side]))?;
        for (name, genotype) in space.published() {
            if !["sesr-m5", "sesr-xl"].contains(&name) {
                continue;
            }
            let options = NetworkOptions { expanded: true, ..NetworkOptions::default() };
            let graph = space.network(&genotype, options)?;
            let weights = Weights::seeded(&graph, 0);
            let collapsed = GraphModule::new(&graph, &weights, Kind::Float)?;
            let expanded = GraphModule::new(&graph, &weights, Kind::Float)?.expanded();
            let x = Tensor::randn([images, 1, side as i64, side as i64], FLOAT_CPU);
            let mut seconds = [Vec::new(), Vec::new()];
            // The first round warms up.
            for round in 0..=ROUNDS {
                for (module, seconds) in [&expanded, &collapsed].into_iter().zip(&mut seconds) {
                    let took = step(module, &x);
                    if round > 0 {
                        seconds.push(took);
                    }
                }
            }
            let [expanded, collapsed] = seconds.map(median);
            let ratio = collapsed / expanded;
            eprintln!(
                "{name:>10} {:>6} {:12.1} {:13.1} {ratio:6.2}",
                format!("{images}x{side}"),
                expanded * 1e3,
                collapsed * 1e3
            );
            rows.push(json!({
                "network": name, "images": images, "side": side, "expanded_seconds": expanded,
                "collapsed_seconds": collapsed, "ratio": ratio,
            }));
        }
    }
    println!(
        "{}",
        json!({ "benchmark": "collapsed_step", "rounds": ROUNDS, "threads": tch::get_num_threads(), "rows": rows })
    );
    Ok(())
}

/// Forward and backward.
fn step(module: &GraphModule, x: &Tensor) -> f64 {
    let began = Instant::now();
    let drop = DropPath { probability: 0.0, seed: 0, step: 0 };
    let loss = module.forward(x, Some(&drop)).swap_remove(0).square().mean(Kind::Float);
    let gradients = Tensor::run_backward(&[&loss], &module.parameters(), false, false);
    let seconds = began.elapsed().as_secs_f64();
    assert!(gradients.iter().all(Tensor::defined), "a step that learns nothing");
    seconds
}

fn median(mut seconds: Vec<f64>) -> f64 {
    seconds.sort_by(f64::total_cmp);
    seconds[seconds.len() / 2]
}
