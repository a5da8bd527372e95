//! Trains the supernet with its architecture parameters under the latency target.

use lathe_search::{Event, Progress, SearchEnd, SearchTask, StopReason, search};
use miette::Report;

use crate::{
    failure::failed,
    run::{Run, StageEnd},
    run_directory::write_atomically,
};

/// Name of the final architecture parameters in a run's directory.
pub const SCORES: &str = "scores.json";

/// The stage.
pub fn run(run: &mut Run<'_>) -> Result<StageEnd, Report> {
    let table = run.table()?;
    let dataset = run.dataset()?;
    let checkpoint = run.checkpoint("search")?;
    let target = run.target();
    let mut bar = run.terminal.bar("search", 0);
    let task = SearchTask {
        space: &run.space,
        dataset,
        supernet: run.config.supernet,
        settings: run.config.search,
        objective: run.config.objective(target),
        table: Some(&table),
        seed: run.config.seed,
        threads: run.config.threads,
        collective: None,
        checkpoint: &checkpoint,
        stop: run.stop,
    };
    let record = &mut run.directory.record;
    let end = search(&task, &mut |progress| {
        match progress {
            Progress::Step { done, total, loss } => bar.set(done, total, &format!("loss {loss:.3}")),
            Progress::Event(event) => {
                if let Event::Epoch { epoch, epochs, train_accuracy, derived, lambda, .. } = &event {
                    let derived = derived.map_or_else(String::new, |time| format!(", derived {time}"));
                    bar.say(&format!(
                        "      epoch {}/{epochs}: accuracy {:.1} %{derived}, λ {lambda:.2}",
                        epoch + 1,
                        train_accuracy * 100.0
                    ));
                }
                record.push(event)?;
            }
        }
        Ok(())
    })
    .map_err(failed)?;
    bar.done();
    match end {
        SearchEnd::Interrupted => Ok(StageEnd::Stop(StopReason::Interrupted)),
        SearchEnd::Finished(scores) => {
            let text = serde_json::to_string_pretty(&scores)
                .map_err(|error| miette::miette!("failed to write the scores: {error}"))?;
            write_atomically(&run.path(SCORES), text.as_bytes()).map_err(failed)?;
            Ok(StageEnd::Done)
        }
    }
}
