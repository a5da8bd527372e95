//! Writes every trained candidate as ONNX, TorchScript, safetensors and genotype JSON.

use lathe_search::{Event, StopReason, export};
use lathe_spaces::NetworkOptions;
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
        let files = files
            .iter()
            .map(|file| file.strip_prefix(&run.directory.path).unwrap_or(file).to_owned())
            .collect();
        run.push(Event::Exported { candidate: candidate.name, files })?;
    }
    Ok(StageEnd::Done)
}
