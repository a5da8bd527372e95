//! `lathe predict`: the latency of a network that may never have been measured.

use std::{fs, path::Path};

use lathe_latency_db::{
    Device, ModelKind,
    kernels::{GraphPrediction, KernelModel, ModelHeader},
    model_kind,
    predictor::{Encoding, TableModel},
};
use lathe_spaces::{Graph, Micros, NetworkOptions, decode_onnx};
use miette::Report;

use crate::{
    arguments::{Format, PredictArguments, SkeletonChoice, SpaceKind},
    commands::space,
    exit_codes,
    failure::failed,
    learned::Learned,
    terminal::{self, Terminal, noise_floor, table},
};

/// Runs the command.
pub fn run(arguments: &PredictArguments, terminal: Terminal) -> Result<u8, Report> {
    if let Some(path) = &arguments.model
        && model_kind(path).map_err(failed)? == ModelKind::Table
    {
        return of_table(arguments, path);
    }
    let wanted = Wanted { network: &arguments.network, space: arguments.space, skeleton: arguments.skeleton };
    let (graph, partial) = network(&wanted, arguments.ignore_unknown, terminal)?;
    let (model, header) = model(arguments)?;
    let answer = model.predict(&graph);
    match arguments.format {
        Format::Json => {
            let value = serde_json::json!({
                "network": arguments.network, "partial": partial, "device": header.device.name,
                "fingerprint": header.device.fingerprint(), "provenance": header.provenance,
                "precision": header.precision, "prediction_us": answer.prediction, "noise_floor": header.validation.noise_floor,
                "held_out_error": header.validation.median_relative_error, "rows": header.rows,
                "networks": header.networks, "flagged": header.flagged, "fusion_detected": model.fusion.detected,
                "kernels": answer.kernels, "rest_us": answer.rest,
            });
            terminal::data(&serde_json::to_string_pretty(&value).map_err(failed)?);
        }
        Format::Text => show(arguments, partial, &header, &answer),
    }
    Ok(exit_codes::OK)
}

fn show(arguments: &PredictArguments, partial: bool, header: &ModelHeader, answer: &GraphPrediction) {
    let prediction = answer.prediction;
    let validation = header.validation;
    terminal::data(&format!(
        "{}{} on {}: {} [{} … {}] (90 %), {}\n\
         latencies {} in {}, on {} ({}); {} graphs, {} of them networks, {} timed with doubts\n\
         noise floor {}; median error {:.1} % on {} held-out graphs\n",
        arguments.network,
        if partial { " (known part only)" } else { "" },
        header.device.name,
        prediction.mean,
        prediction.low,
        prediction.high,
        prediction.source,
        header.provenance,
        header.precision,
        header.device.model,
        header.device.fingerprint(),
        header.rows,
        header.networks,
        header.flagged,
        noise_floor(validation.noise_floor),
        validation.median_relative_error * 100.0,
        validation.graphs,
    ));
    let line = |name: &str, kind: &str, latency: Micros, source: &str| {
        let share = latency.0 / prediction.mean.0.max(1e-9) * 100.0;
        vec![
            name.to_owned(),
            kind.to_owned(),
            latency.to_string(),
            format!("{share:.1} %"),
            source.to_owned(),
        ]
    };
    let mut rows: Vec<Vec<String>> = answer
        .kernels
        .iter()
        .map(|share| line(&share.name, &share.kind, share.latency, &share.source.to_string()))
        .collect();
    rows.push(line("(rest)", "the run, interactions", answer.rest, ""));
    terminal::data(&table(&["kernel", "kind", "latency", "share", "source"], &rows));
}

/// An architecture of a space, by a model that leans on other devices.
fn of_table(arguments: &PredictArguments, path: &Path) -> Result<u8, Report> {
    let (model, header) = TableModel::load(path).map_err(failed)?;
    check_device(arguments, path, &header.device)?;
    let of_space = || {
        miette::miette!(
            help = "give a genotype of that space with --space; for other networks, fit a model of kernels: \
                    `lathe fit --device NAME`",
            "failed to predict \"{}\": {} knows architectures of the space {} only",
            arguments.network,
            path.display(),
            model.space()
        )
    };
    let space = space::build(arguments.space.ok_or_else(of_space)?, arguments.skeleton);
    if space.name != model.space() {
        return Err(of_space());
    }
    let encoding = Encoding::of(&space).map_err(failed)?;
    if !model.fits(&encoding) {
        return Err(of_space());
    }
    let genotype = space::genotype_of(&space, &arguments.network)?;
    let prediction = model.predict(&encoding.encode(&genotype).map_err(failed)?);
    let validation = header.validation;
    match arguments.format {
        Format::Json => {
            let value = serde_json::json!({
                "network": arguments.network, "device": header.device.name,
                "fingerprint": header.device.fingerprint(), "provenance": header.provenance,
                "prediction_us": prediction, "noise_floor": validation.noise_floor,
                "held_out_error": validation.median_relative_error, "rows": header.rows,
                "sources": header.sources, "shares": header.shares,
            });
            terminal::data(&serde_json::to_string_pretty(&value).map_err(failed)?);
        }
        Format::Text => terminal::data(&format!(
            "{} on {}: {} [{} … {}] (90 %), {}\n\
             latencies {}, on {} ({}): {} architectures, and {} other devices of {}\n\
             noise floor {}; median error {:.1} %, each architecture predicted from the others",
            arguments.network,
            header.device.name,
            prediction.mean,
            prediction.low,
            prediction.high,
            prediction.source,
            header.provenance,
            header.device.model,
            header.device.fingerprint(),
            header.rows,
            header.sources.len(),
            header.table,
            noise_floor(validation.noise_floor),
            validation.median_relative_error * 100.0,
        )),
    }
    Ok(exit_codes::OK)
}

/// A network as it is named on the command line.
pub struct Wanted<'a> {
    /// ONNX file, or a genotype.
    pub network: &'a str,
    /// Space of the genotype.
    pub space: Option<SpaceKind>,
    /// Its skeleton.
    pub skeleton: SkeletonChoice,
}

/// The graph, and whether it is only the known part.
pub fn network(
    wanted: &Wanted<'_>,
    ignore_unknown: bool,
    terminal: Terminal,
) -> Result<(Graph, bool), Report> {
    if let Some(kind) = wanted.space {
        let space = space::build(kind, wanted.skeleton);
        let genotype = space::genotype_of(&space, wanted.network)?;
        return Ok((space.network(&genotype, NetworkOptions::default()).map_err(failed)?, false));
    }
    let path = Path::new(wanted.network);
    let bytes = fs::read(path).map_err(|error| {
        miette::miette!(
            help = "give an ONNX file, or a genotype with --space darts|nas201|fbnet",
            "failed to read the network {}: {error}",
            path.display()
        )
    })?;
    let decoded = decode_onnx(&bytes).map_err(failed)?;
    for note in &decoded.notes {
        terminal.say(&format!("note: {note}"));
    }
    if decoded.unknown.is_empty() {
        return Ok((decoded.graph, false));
    }
    let lines = decoded.left_out();
    let list: String = lines.iter().map(|line| format!("\n  {line}")).collect();
    if ignore_unknown {
        terminal.say(&format!("left out, unknown:{list}"));
        return Ok((decoded.graph, true));
    }
    Err(miette::miette!(
        help = "predict the known part only: --ignore-unknown",
        "failed to predict {}: it has unknown operators{list}",
        path.display()
    ))
}

fn model(arguments: &PredictArguments) -> Result<(KernelModel, ModelHeader), Report> {
    let Some(path) = &arguments.model else {
        let learned = Learned::load(&arguments.database, &arguments.device, arguments.precision.into())?;
        return learned.fit(arguments.allow_emulated);
    };
    let (model, header) = KernelModel::load(path).map_err(failed)?;
    check_device(arguments, path, &header.device)?;
    Ok((model, header))
}

fn check_device(arguments: &PredictArguments, path: &Path, device: &Device) -> Result<(), Report> {
    let fingerprint = device.fingerprint();
    if device.name == arguments.device || fingerprint.starts_with(&arguments.device) {
        return Ok(());
    }
    Err(miette::miette!(
        help = "fit a model of this device: `lathe fit --device NAME`",
        "failed to predict for the device \"{}\": {} is a model of \"{}\" ({fingerprint})",
        arguments.device,
        path.display(),
        device.name
    ))
}
