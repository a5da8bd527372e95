//! Which provider executes which node: a session of its own that writes a profile, never timed.

use std::{collections::BTreeMap, fs, path::Path};

use lathe_latency_db::{Execution, Outcome};

use super::{
    Purpose, Setup,
    model::Model,
    profile::{self, Node},
    provider::Provider,
    refused,
};
use crate::{
    Placement,
    engine::{Failure, LoadedModel},
};

const ACTION: &str = "see which provider executes what";

/// How a model is executed.
pub(super) fn execution(setup: &Setup, path: &Path) -> Result<Execution, Failure> {
    let nodes = nodes(setup, path, &Purpose::Inspect(path.with_extension("profile")))?;
    Ok(profile::execution(&nodes, setup.provider))
}

/// Which provider takes which node of the file. A provider that compiles hides the nodes that it takes
/// behind one of its own: what the processor didn't execute by itself is what it took.
pub(super) fn placements(setup: &Setup, path: &Path) -> Result<Vec<Placement>, Failure> {
    let purpose = Purpose::Check(path.with_extension("profile"));
    let plain = Setup { provider: Provider::Cpu, ..setup.clone() };
    let given = nodes(&plain, path, &purpose)?;
    let asked = nodes(setup, path, &purpose)?;
    let elsewhere: BTreeMap<&str, &str> = asked
        .iter()
        .filter(|node| node.provider != setup.provider.word())
        .map(|node| (node.name.as_str(), node.provider.as_str()))
        .collect();
    let placement = |node: &Node| Placement {
        node: node.name.clone(),
        operator: node.operator.clone(),
        provider: elsewhere.get(node.name.as_str()).map_or(setup.provider.word(), |word| *word).to_owned(),
    };
    Ok(given.iter().map(placement).collect())
}

/// The failure of a session that must not fall back, with the nodes that would have, if that is why.
pub(super) fn name_the_nodes(setup: &Setup, path: &Path, failure: Failure) -> Failure {
    if !setup.must_not_fall_back() || failure.outcome != Outcome::Unsupported {
        return failure;
    }
    match execution(setup, path) {
        Ok(execution) => not_all(&execution, setup.provider.word()).unwrap_or(failure),
        // With fallback it fails too: fallback isn't what it is about.
        Err(_) => failure,
    }
}

/// Whether nodes ran elsewhere: the outcome of a workload for which that isn't allowed.
fn not_all(execution: &Execution, provider: &str) -> Option<Failure> {
    const NAMED: usize = 8;
    if execution.elsewhere.is_empty() {
        return None;
    }
    let mut named = execution.elsewhere[..execution.elsewhere.len().min(NAMED)].join(", ");
    if execution.elsewhere.len() > NAMED {
        named = format!("{named}, …");
    }
    let message = format!(
        "execute the model on {provider}: {} of {} nodes run elsewhere: {named} (hint: --allow-fallback measures it nevertheless and flags the row)",
        execution.elsewhere.len(),
        execution.nodes.values().sum::<usize>()
    );
    Some(Failure::new(Outcome::Unsupported, message))
}

/// The nodes of one run.
fn nodes(setup: &Setup, path: &Path, purpose: &Purpose) -> Result<Vec<Node>, Failure> {
    let session = setup.session(path, purpose)?;
    let mut model = Model::of(setup, path, session)?;
    let dimensions: Option<Vec<usize>> = model.session.inputs()[0]
        .dtype()
        .tensor_shape()
        .and_then(|dimensions| dimensions.iter().map(|&extent| usize::try_from(extent).ok()).collect());
    let dimensions = dimensions.ok_or_else(|| refused("its input has no fixed shape"))?;
    let elements = dimensions.iter().product();
    model.bind_dimensions(dimensions, vec![0.5; elements])?;
    model.run()?;
    let file = model.session.end_profiling().map_err(|error| Failure::crash(ACTION, error.message()))?;
    let bytes = fs::read(&file).map_err(|error| Failure::crash(ACTION, format!("read {file}: {error}")))?;
    // Whoever made the folder deletes it; a file that can't be deleted is in nobody's way.
    let _ = fs::remove_file(&file);
    profile::nodes(&bytes).map_err(|message| Failure::crash(ACTION, format!("{file}: {message}")))
}
