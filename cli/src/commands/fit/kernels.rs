//! A model of kernels, from everything that is known of a device.

use std::fs;

use lathe_latency_db::{
    Store,
    kernels::{FusionEvidence, KernelModel, next_kernels, next_networks, split},
};
use lathe_runners::Runner;
use lathe_spaces::{Graph, Level, NetworkOptions, Stream, Workload, decode_onnx};
use miette::Report;

use super::Learning;
use crate::{
    arguments::{Format, SpaceKind},
    campaign::distinct,
    commands::space,
    exit_codes,
    failure::failed,
    learned::{Learned, evidence, fusion_workloads},
    terminal::{self, noise_floor, table},
};

/// Random networks of a space that a budget is spent on.
const CANDIDATES: u64 = 500;
/// Rounds in which a budget for kernels is spent: what the first teaches steers the next.
const ROUNDS: usize = 3;
/// Times what was asked for, fits the model and writes it.
pub fn learn(learning: &Learning<'_>) -> Result<u8, Report> {
    learning.learn_kernels()
}

impl Learning<'_> {
    fn learn_kernels(&self) -> Result<u8, Report> {
        let timing = self.arguments.budget > 0 || self.arguments.detect_fusion;
        let learned = if timing {
            match self.time(&mut self.runner()?)? {
                Some(learned) => learned,
                None if self.arguments.dry_run => return Ok(exit_codes::OK),
                None => return Ok(exit_codes::INTERRUPTED),
            }
        } else {
            Learned::load(&self.database, self.device, self.precision)?
        };
        let (model, header) = learned.fit(self.arguments.allow_emulated)?;
        model.save(&self.out, &header).map_err(failed)?;
        self.tell(&learned, &model);
        Ok(exit_codes::OK)
    }

    /// Times the pairs, then the budget; `None` if that was interrupted, or only to be shown.
    fn time(&self, runner: &mut impl Runner) -> Result<Option<Learned>, Report> {
        let arguments = self.arguments;
        let campaign = self.campaign()?;
        let device = runner.device().clone();
        let fingerprint = device.fingerprint();
        let store = Store::open(&self.database).map_err(failed)?;
        if arguments.detect_fusion {
            let pairs = fusion_workloads(self.precision)?;
            if arguments.dry_run {
                self.show(&pairs);
            } else {
                let Some(rows) = campaign.time(runner, &pairs)? else { return Ok(None) };
                self.show_fusion(&evidence(&rows, self.precision)?)?;
            }
        }
        if arguments.budget == 0 {
            return if arguments.dry_run {
                Ok(None)
            } else {
                Learned::of(&store, device, &fingerprint, self.precision).map(Some)
            };
        }
        let networks = self.read_networks()?;
        let mut left = arguments.budget;
        let rounds = if arguments.space.is_some() { 1 } else { ROUNDS };
        for round in 0..rounds {
            let learned = Learned::of(&store, device.clone(), &fingerprint, self.precision)?;
            let share = left.div_ceil(rounds - round);
            let next = match arguments.space {
                Some(kind) => self.next_of_space(kind, &learned, share)?,
                None => next_kernels(
                    learned.fit(true).ok().map(|(model, _)| model).as_ref(),
                    &learned.fusion,
                    &networks,
                    share,
                    arguments.seed + round as u64,
                )
                .into_iter()
                .map(|sample| sample.workload.at(self.precision))
                .collect(),
            };
            if arguments.dry_run {
                self.show(&next);
                return Ok(None);
            }
            left -= next.len().min(left);
            if campaign.time(runner, &next)?.is_none() {
                return Ok(None);
            }
        }
        Learned::of(&store, device, &fingerprint, self.precision).map(Some)
    }

    /// Networks of the space that the device's model knows least about.
    fn next_of_space(
        &self,
        kind: SpaceKind,
        learned: &Learned,
        count: usize,
    ) -> Result<Vec<Workload>, Report> {
        let space = space::build(kind, self.arguments.skeleton);
        let sampled = (0..CANDIDATES).map(|index| {
            let genotype =
                space.sample(&mut Stream::new(self.arguments.seed, "candidates of a budget", index));
            let graph = space.network(&genotype, NetworkOptions::default()).map_err(failed)?;
            Ok(Workload::new(space.format(&genotype), Level::Network, graph).at(self.precision))
        });
        let mut candidates = distinct(sampled.collect::<Result<Vec<_>, Report>>()?);
        candidates.retain(|candidate| {
            let id = candidate.id();
            learned.graphs.iter().all(|graph| graph.id != id)
        });
        let kernels: Vec<_> =
            candidates.iter().map(|candidate| split(&candidate.graph, &learned.fusion)).collect();
        let chosen = next_networks(&learned.graphs, &kernels, count);
        Ok(chosen.into_iter().map(|index| candidates[index].clone()).collect())
    }

    fn read_networks(&self) -> Result<Vec<Graph>, Report> {
        let mut graphs = Vec::new();
        for path in &self.arguments.network {
            let bytes = fs::read(path)
                .map_err(|error| miette::miette!("failed to read {}: {error}", path.display()))?;
            let decoded = decode_onnx(&bytes).map_err(failed)?;
            for line in decoded.left_out() {
                self.terminal.say(&format!("{}: can't be timed: {line}", path.display()));
            }
            graphs.push(decoded.graph);
        }
        Ok(graphs)
    }

    fn show_fusion(&self, found: &[FusionEvidence]) -> Result<(), Report> {
        if self.arguments.format == Format::Json {
            for pair in found {
                terminal::data(&serde_json::to_string(pair).map_err(failed)?);
            }
            return Ok(());
        }
        let cell = |value: f64| format!("{value:.1}");
        let lines: Vec<Vec<String>> = found
            .iter()
            .map(|pair| {
                vec![
                    format!("{} + {}", pair.first, pair.second),
                    cell(pair.times.first[0]),
                    cell(pair.times.second[0]),
                    cell(pair.times.both[0]),
                    format!("{:.1} [{:.1} … {:.1}]", pair.saving, pair.interval[0], pair.interval[1]),
                    if pair.fused { "yes".into() } else { "no".into() },
                ]
            })
            .collect();
        let header = ["pair", "T(a), µs", "T(b), µs", "T(ab), µs", "saved, µs", "one kernel"];
        terminal::data(&table(&header, &lines));
        Ok(())
    }

    fn tell(&self, learned: &Learned, model: &KernelModel) {
        let found = model.validation;
        if self.arguments.format == Format::Json {
            let value = serde_json::json!({
                "model": self.out, "device": learned.device.fingerprint(), "graphs": learned.graphs.len(),
                "networks": learned.networks.len(),
                "flagged": learned.graphs.iter().filter(|graph| graph.flagged).count(), "validation": found, "fusion_detected": model.fusion.detected,
            });
            terminal::data(&value.to_string());
            return;
        }
        terminal::data(&format!(
            "{}: {} graphs, {} of them networks, {} timed with doubts; median error {:.1} %, {:.0} % within ±10 % on {} held-out {}; noise \
             floor {}; fusion rules {}",
            self.out.display(),
            learned.graphs.len(),
            learned.networks.len(),
            learned.graphs.iter().filter(|graph| graph.flagged).count(),
            found.median_relative_error * 100.0,
            found.within_ten_percent * 100.0,
            found.graphs,
            if found.networks { "networks" } else { "kernels" },
            noise_floor(found.noise_floor),
            if model.fusion.detected { "detected" } else { "assumed (detect them: --detect-fusion)" }
        ));
    }
}
