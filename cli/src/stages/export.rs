//! Writes every trained candidate as ONNX, TorchScript, safetensors and genotype JSON, and as TFLite
//! where the device reads that.

use std::{
    fs,
    path::{Path, PathBuf},
};

use lathe_latency_db::Device;
use lathe_runners::{EngineName, ModelFormat, NUMBERS_SEED};
use lathe_search::{Event, StopReason, export};
use lathe_spaces::{
    Graph, NetworkOptions, Precision, Quantized, Weights, encode_onnx_int8, encode_tflite, encode_tflite_int8,
};
use miette::Report;

use crate::{
    failure::failed,
    run::{Run, StageEnd},
    stages::retrain,
};

/// The stage.
pub fn run(run: &mut Run<'_>) -> Result<StageEnd, Report> {
    for candidate in run.candidates()? {
        let Some(weights) = retrain::train(run, &candidate, &candidate.name)? else {
            return Ok(StageEnd::Stop(StopReason::Interrupted));
        };
        let graph = run.space.network(&candidate.genotype, NetworkOptions::default()).map_err(failed)?;
        let folder = run.path("export");
        let files = export(&graph, &weights, &run.space, &candidate.genotype, &folder, &candidate.name)
            .map_err(failed)?;
        let mut files = files;
        let deployed = run.space.deploy(&graph, &weights).map_err(failed)?;
        if let Some(first) = deployed.left.first() {
            run.terminal.say(&format!(
                "      {}: {} operators stay that others lose by folding; the first is {first}",
                candidate.name,
                deployed.left.len()
            ));
        }
        let (graph, weights) = (deployed.graph, deployed.weights);
        if run
            .devices()
            .iter()
            .filter_map(|device| run.probed(device))
            .any(|device| format(device) == ModelFormat::Tflite)
        {
            let content = encode_tflite(&graph, &weights).map_err(failed)?;
            files.push(write(&folder, &format!("{}.tflite", candidate.name), &content)?);
        }
        if run.config.measure.precision == Precision::Int8 {
            files.extend(integers(&graph, &weights, &folder, &candidate.name)?);
        }
        let files = files
            .iter()
            .map(|file| file.strip_prefix(&run.directory.path).unwrap_or(file).to_owned())
            .collect();
        run.push(Event::Exported { candidate: candidate.name, files })?;
    }
    Ok(StageEnd::Done)
}

/// The files of integers, with the scales that the device's latencies were found with.
fn integers(graph: &Graph, weights: &Weights, folder: &Path, name: &str) -> Result<Vec<PathBuf>, Report> {
    let network = Quantized::of(graph, weights, NUMBERS_SEED).map_err(failed)?;
    let contents = [
        ("onnx", encode_onnx_int8(&network).map_err(failed)?),
        ("tflite", encode_tflite_int8(&network).map_err(failed)?),
    ];
    contents
        .into_iter()
        .map(|(extension, content)| write(folder, &format!("{name}.int8.{extension}"), &content))
        .collect()
}

fn write(folder: &Path, name: &str, content: &[u8]) -> Result<PathBuf, Report> {
    let path = folder.join(name);
    fs::write(&path, content)
        .map_err(|error| miette::miette!("failed to write {}: {error}", path.display()))?;
    Ok(path)
}

/// The format of the models that a device's engine reads.
pub fn format(device: &Device) -> ModelFormat {
    device.engine.name.parse::<EngineName>().unwrap_or_default().format()
}
