//! Fits the predictor on what was measured and settles the target.

use std::path::{Path, PathBuf};

use lathe_latency_db::{
    CostTable, Device, Filter, FitOptions, FitQuality, Measurement, Provenance, TableHeader, fit,
    kernels::{Fusion, KernelModel, Knowledge, ModelHeader, TimedGraph, held_out_by},
};
use lathe_search::{DeriveError, Event, Extremes, Scores, StopReason, WholeCosts, derive_within};
use lathe_spaces::Micros;
use miette::Report;

use crate::{
    failure::failed,
    latency_model::{LatencyModel, is_additive},
    run::{Run, StageEnd, now},
    run_devices::RunDevice,
    stages::{limits, measure},
};

/// Name of the cost table in a run's directory.
pub const TABLE: &str = "cost-table.json";

/// The stage.
pub fn run(run: &mut Run<'_>) -> Result<StageEnd, Report> {
    let rows = all_rows(run)?;
    run.copy_measurements(&rows)?;
    let shared = run.shared();
    for device in run.devices() {
        let (quality, simpler) = match &shared {
            Some(shared) => (take_over(run, &device, &shared.from)?, Vec::new()),
            None => on(run, &device)?,
        };
        let medians: Vec<Micros> = quality.points.iter().map(|point| point.measured.median).collect();
        let target = target(&device, &medians);
        let reachable = match run.model_on(&device)? {
            LatencyModel::Table(table) => table.reachable(&run.space).map_err(failed)?,
            LatencyModel::Kernels(model) => ends(run, &device, model)?,
        };
        let cost_table = device.table_file().into();
        let name = device.name.clone();
        match (device.index, target) {
            (0, _) => {
                run.push(Event::Fitted { quality, simpler, cost_table })?;
                run.push(Event::Target { target, reachable })?;
            }
            (_, Some(target)) => {
                run.push(Event::OtherFitted { name, quality, simpler, cost_table, target })?;
            }
            (_, None) => {}
        }
        if target.is_none() {
            run.terminal.say(&format!("      latency: {} to {}", reachable[0], reachable[1]));
        }
    }
    let limits = limits::all(run)?;
    limits::tell(run, &limits)?;
    let first = limits.first().filter(|limit| limit.name == run.devices()[0].limit_name());
    let first = first.filter(|limit| limit.whole.is_none());
    if let Some(limit) = first {
        let [fastest, target] =
            [limit.reachable(&run.space)[0] * limit.upper_factor, limit.at_most].map(Micros);
        if fastest > target {
            run.terminal.say(&format!(
                "      no network of this space is predicted to meet it: the fastest may need {fastest}"
            ));
            let fastest_network =
                derive_within(&run.space, &Scores::uniform(&run.space), std::slice::from_ref(limit), &|_| {
                    true
                });
            let closest = match fastest_network {
                Err(DeriveError::Limits { closest, .. }) => Some(run.space.format(&closest)),
                _ => None,
            };
            return Ok(StageEnd::Stop(StopReason::Infeasible { target, fastest, closest }));
        }
    }
    limits::feasible(run, &limits)
}

/// What the networks of a space of stages reach on a device, as far as it is found.
fn ends(run: &mut Run<'_>, of: &RunDevice, model: Box<KernelModel>) -> Result<[Micros; 2], Report> {
    let costs = WholeCosts::Kernels(model);
    let found = Extremes::of(&run.space, &costs, run.config.seed).map_err(failed)?;
    let range = found.range.map(Micros);
    let least = run.space.format(&found.least);
    run.push(Event::Reachable { device: of.name.clone(), range, least })?;
    Ok(range)
}

/// Copies the cost table that another run fitted for a device.
fn take_over(run: &Run<'_>, of: &RunDevice, from: &Path) -> Result<FitQuality, Report> {
    let (table, header) = CostTable::load(&from.join(of.table_file())).map_err(failed)?;
    let path = run.path(&of.table_file());
    if !path.exists() {
        table.save(&path, &header).map_err(failed)?;
    }
    Ok(header.quality)
}

/// Fits one device's predictor and writes its table. Its quality, and that of simpler ones where whole networks are
/// fitted.
fn on(run: &Run<'_>, of: &RunDevice) -> Result<(FitQuality, Vec<FitQuality>), Report> {
    let device = run.probed(of).cloned().ok_or_else(|| {
        miette::miette!(help = "run `lathe measure` first", "failed to fit: nothing was measured")
    })?;
    if of.index > 0 {
        run.terminal.say(&format!("      on {}:", of.name));
    }
    let networks = run.fit_networks();
    let rows = used_rows(run, &device.fingerprint())?;
    if !is_additive(&run.space) {
        return kernels(run, of, device, &rows);
    }
    let options = FitOptions {
        folds: run.config.fit.folds,
        seed: run.config.seed,
        allow_mixed_provenance: false,
        allow_emulated: run.config.fit.allow_emulated,
        precision: run.config.measure.precision,
    };
    let fitted = fit(&run.space, &networks, &rows, &options).map_err(failed)?;
    let quality = fitted.quality.clone();
    tell(run, &quality);

    if let Some([least, middle, greatest]) = quality.parts_over_whole() {
        run.terminal.say(&format!(
            "      a network's parts, each alone, add up to {middle:.2} times the whole ({least:.2} to {greatest:.2})"
        ));
    }

    let path = fresh(run, of)?;
    let header = TableHeader {
        version: env!("CARGO_PKG_VERSION").into(),
        created: now(),
        device,
        measurements: rows.len(),
        networks: quality.points.len(),
        quality: quality.clone(),
    };
    fitted.table.save(&path, &header).map_err(failed)?;
    Ok((quality, Vec::new()))
}

fn tell(run: &Run<'_>, quality: &FitQuality) {
    run.terminal.say(&format!(
        "      {}: median error {:.1} %, {:.0} % within ±10 %, Spearman {:.3} on {} held-out networks; noise floor {:.1} %",
        quality.model,
        quality.median_relative_error * 100.0,
        quality.within_ten_percent * 100.0,
        quality.spearman,
        quality.points.len(),
        quality.noise_floor * 100.0,
    ));
}

/// The path of a model that is about to be written. One without its event is the rest of a fit that was cut off.
fn fresh(run: &Run<'_>, of: &RunDevice) -> Result<PathBuf, Report> {
    let path = run.path(&of.table_file());
    if path.exists() {
        std::fs::remove_file(&path)
            .map_err(|error| miette::miette!("failed to replace {}: {error}", path.display()))?;
    }
    Ok(path)
}

/// Fits a model of kernels to the whole networks that were measured, and writes it. Its quality, and what simpler
/// fits say of the same networks.
fn kernels(
    run: &Run<'_>,
    of: &RunDevice,
    device: Device,
    rows: &[Measurement],
) -> Result<(FitQuality, Vec<FitQuality>), Report> {
    let workloads = run.store()?.workloads().map_err(failed)?;
    let fusion = Fusion::from_evidence(&[]);
    let graphs = TimedGraph::of(rows, &workloads, &fusion).map_err(failed)?;
    let provenance = run.provenance_on(of);
    if provenance == Provenance::Emulated && !run.config.fit.allow_emulated {
        return Err(miette::miette!(
            help = "`fit.allow_emulated = true` fits them all the same, for a trial of the tool",
            "failed to fit a model of {}: its latencies are those of an emulator, and of no device",
            of.name
        ));
    }
    let folds = run.config.fit.folds;
    let quality = KernelModel::held_out(&graphs, rows, &fusion, folds, run.config.seed).map_err(failed)?;
    let simpler =
        Knowledge::ALL.map(|knowledge| held_out_by(knowledge, &graphs, rows, folds, run.config.seed));
    let simpler = simpler.into_iter().collect::<Result<Vec<_>, _>>().map_err(failed)?;
    for simpler in &simpler {
        tell(run, simpler);
    }
    tell(run, &quality);
    let model = KernelModel::fit(&graphs, &fusion).map_err(failed)?;
    let header = ModelHeader {
        version: env!("CARGO_PKG_VERSION").into(),
        created: now(),
        device,
        provenance,
        precision: run.config.measure.precision,
        rows: graphs.len(),
        networks: graphs.iter().filter(|graph| graph.network).count(),
        flagged: graphs.iter().filter(|graph| graph.flagged).count(),
        validation: model.validation,
        fusion: Vec::new(),
    };
    model.save(&fresh(run, of)?, &header).map_err(failed)?;
    Ok((quality, simpler))
}

/// The usable rows of this run's workloads on all of its devices.
pub fn all_rows(run: &Run<'_>) -> Result<Vec<Measurement>, Report> {
    let mut rows = Vec::new();
    for device in run.devices() {
        rows.extend(used_rows(run, &run.fingerprint_on(&device)?)?);
    }
    Ok(rows)
}

/// The usable rows of this run's workloads on its device.
fn used_rows(run: &Run<'_>, fingerprint: &str) -> Result<Vec<Measurement>, Report> {
    let wanted = measure::plan(run)?.iter().map(lathe_spaces::Workload::id).collect();
    let filter = Filter { device: Some(fingerprint.into()), workloads: Some(wanted), ..Filter::default() };
    let mut rows = run.store()?.load(&filter).map_err(failed)?;
    if !run.config.measure.reuse {
        let own = run.measured_as();
        rows.retain(|row| row.campaign == own);
    }
    Ok(rows)
}

fn target(device: &RunDevice, measured: &[Micros]) -> Option<Micros> {
    if let Some(millis) = device.target_ms {
        return Some(Micros::from_millis(millis));
    }
    let quantile = device.target_quantile?;
    let mut sorted = measured.to_vec();
    sorted.sort_by(Micros::total_cmp);
    let last = sorted.len().checked_sub(1)?;
    Some(sorted[(quantile * last as f64).round() as usize])
}
