//! Trains every candidate from scratch, all in the same way.

use lathe_search::{Event, Progress, RetrainEnd, RetrainTask, StopReason, retrain};
use lathe_spaces::{NetworkOptions, Weights, collapse};
use miette::Report;

use crate::{
    failure::failed,
    run::{Candidate, Run, StageEnd},
};

/// The stage.
pub fn run(run: &mut Run<'_>) -> Result<StageEnd, Report> {
    let candidates = run.candidates()?;
    for (index, candidate) in candidates.iter().enumerate() {
        let title = format!("{}/{} {}", index + 1, candidates.len(), candidate.name);
        if train(run, candidate, &title)?.is_none() {
            return Ok(StageEnd::Stop(StopReason::Interrupted));
        }
    }
    Ok(StageEnd::Done)
}

/// Trained weights of a candidate; at once if its training is finished. `None` if the user stopped it.
pub fn train(run: &mut Run<'_>, candidate: &Candidate, title: &str) -> Result<Option<Weights>, Report> {
    let settings = run.config.retrain;
    let options = NetworkOptions { auxiliary: settings.auxiliary.is_some(), expanded: false };
    let deployed = run.space.network(&candidate.genotype, options).map_err(failed)?;
    let trained = NetworkOptions { expanded: true, ..options };
    let graph = run.space.network(&candidate.genotype, trained).map_err(failed)?;
    let checkpoint = run.checkpoint(&format!("retrain-{}", candidate.name))?;
    let (dataset, teacher) = (run.dataset()?, run.teacher()?);
    let mut bar = run.terminal.bar(title, 0);
    let task = RetrainTask {
        graph: &graph,
        name: &candidate.name,
        dataset,
        teacher,
        settings,
        seed: run.config.seed,
        threads: run.config.threads,
        checkpoint: &checkpoint,
        stop: run.stop,
    };
    let record = &mut run.directory.record;
    let end = retrain(&task, &mut |progress| {
        match progress {
            Progress::Step { done, total, loss } => bar.set(done, total, &format!("loss {loss:.3}")),
            Progress::Event(event) => {
                record.push(event)?;
            }
        }
        Ok(())
    })
    .map_err(failed)?;
    bar.done();
    match end {
        RetrainEnd::Interrupted => Ok(None),
        RetrainEnd::Finished { weights, test_accuracy, test_images, validation } => {
            let trained = Event::Trained {
                candidate: candidate.name.clone(),
                test_accuracy,
                test_images,
                validation_accuracy: validation.map(|(accuracy, _)| accuracy),
                validation_images: validation.map(|(_, images)| images),
            };
            if run.directory.record.push(trained).map_err(failed)? {
                let name = &candidate.name;
                let learning = run.config.space.learning();
                let shown = learning.show(test_accuracy);
                run.terminal.say(&format!("      {name}: test {} {shown}", learning.measure()));
            }
            let weights = if graph == deployed {
                weights
            } else {
                collapse(&graph, &weights, &deployed).map_err(failed)?
            };
            Ok(Some(weights))
        }
    }
}
