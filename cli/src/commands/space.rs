//! `lathe space`: look at search spaces and at single networks of them.

use std::path::Path;

use lathe_spaces::{
    DartsSkeleton, Folded, Genotype, Graph, Nas201Skeleton, NetworkOptions, SPACES, Space, SpaceFile,
    SpaceFileError, Stem, Stream, Weights, encode_onnx,
};
use miette::Report;

use crate::{
    arguments::{Format, SkeletonChoice, SpaceArguments, SpaceChoice, SpaceCommand, SpaceKind},
    config, exit_codes,
    failure::failed,
    run_directory::write_atomically,
    terminal::{self, Terminal, table},
};

/// Runs the subcommand.
pub fn run(arguments: &SpaceArguments, terminal: Terminal) -> Result<u8, Report> {
    match &arguments.command {
        SpaceCommand::List { format } => list(*format)?,
        SpaceCommand::File { name } => terminal::data(file_of(name)?.trim_end()),
        SpaceCommand::Show { space, format } => show(space, *format)?,
        SpaceCommand::Workloads { space, format } => workloads(space, *format)?,
        SpaceCommand::Sample { space, count, seed } => {
            let space = chosen(space)?;
            for index in 0..*count {
                let genotype = space.sample(&mut Stream::new(*seed, "lathe space sample", index));
                terminal::data(&space.format(&genotype));
            }
        }
        SpaceCommand::Count { space, genotype, format } => count(space, genotype, *format)?,
        SpaceCommand::Export { space, genotype, file, seed } => {
            let space = chosen(space)?;
            let graph = network(&space, &genotype_of(&space, genotype)?)?;
            let deployed = space.deploy(&graph, &Weights::seeded(&graph, *seed)).map_err(failed)?;
            write_onnx(&deployed.graph, &deployed.weights, file)?;
            tell_folds(&deployed, terminal);
            terminal.say(&format!("{} written, with random weights of seed {seed}", file.display()));
        }
    }
    Ok(exit_codes::OK)
}

/// The spaces of cells and of fixed stages.
const BUILT: [(&str, SpaceKind, &str); 3] = [
    ("darts", SpaceKind::Darts, "normal and reduction cells of DARTS and PC-DARTS"),
    ("nas201", SpaceKind::Nas201, "NAS-Bench-201"),
    ("fbnet", SpaceKind::Fbnet, "FBNet's 22 positions"),
];

/// The space of a name or of a file.
fn chosen(choice: &SpaceChoice) -> Result<Space, Report> {
    if let Some((_, kind, _)) = BUILT.iter().find(|(name, ..)| *name == choice.name) {
        return Ok(build(*kind, choice.skeleton));
    }
    let SkeletonChoice { width, layers, resolution, classes } = choice.skeleton;
    if width.or(layers).or(classes).is_some() {
        return Err(miette::miette!(
            help = "copy the file (`lathe space file NAME`) and edit it; only `--resolution` can be changed from here",
            "failed to build the space `{}`: its widths, depths and classes are in its file",
            choice.name
        ));
    }
    let file = SpaceFile::parse(&file_of(&choice.name)?).map_err(|error| in_file(&choice.name, &error))?;
    file.space(resolution.map(|side| [side, side])).map_err(|error| in_file(&choice.name, &error))
}

fn in_file(name: &str, error: &SpaceFileError) -> Report {
    failed(Named { name: name.to_owned(), text: error.to_string() })
}

/// A fault with the file that it is in.
#[derive(Debug, thiserror::Error)]
#[error("read the space in {name}: {text}")]
struct Named {
    name: String,
    text: String,
}

/// The text of a stage-wise space: one that comes with Lathe, or a file.
fn file_of(name: &str) -> Result<String, Report> {
    if let Some((_, text)) = SPACES.iter().find(|(known, _)| *known == name) {
        return Ok((*text).to_owned());
    }
    if Path::new(name).extension().is_some_and(|extension| extension == "toml") {
        return std::fs::read_to_string(name)
            .map_err(|error| miette::miette!("failed to read the space in {name}: {error}"));
    }
    let built = BUILT.iter().map(|(name, ..)| *name);
    let known: Vec<&str> = built.chain(SPACES.iter().map(|(name, _)| *name)).collect();
    let near = config::closest(name, &known);
    let help = near.map_or_else(
        || format!("one of {}, or a .toml file", known.join(", ")),
        |near| format!("did you mean `{near}`?"),
    );
    Err(miette::miette!(help = help, "failed to find the space `{name}`"))
}

fn list(format: Format) -> Result<(), Report> {
    let mut rows: Vec<Vec<String>> =
        BUILT.iter().map(|(name, _, about)| vec![(*name).to_owned(), (*about).to_owned()]).collect();
    for (name, text) in SPACES {
        let file = SpaceFile::parse(text).map_err(|error| in_file(name, &error))?;
        rows.push(vec![(*name).to_owned(), file.about]);
    }
    if format == Format::Json {
        let values: Vec<_> =
            rows.iter().map(|row| serde_json::json!({ "name": row[0], "about": row[1] })).collect();
        terminal::data(&serde_json::to_string_pretty(&values).map_err(failed)?);
        return Ok(());
    }
    terminal::data(&table(&["space", "what"], &rows));
    Ok(())
}

/// A space with its skeleton.
pub fn build(kind: SpaceKind, choice: SkeletonChoice) -> Space {
    let resolution = choice.resolution;
    let classes = choice.classes.unwrap_or(if resolution.unwrap_or(32) > 64 { 1000 } else { 10 });
    match kind {
        SpaceKind::Darts => {
            let resolution = resolution.unwrap_or(32);
            let stem = if resolution > 64 { Stem::ImageNet } else { Stem::Cifar };
            let (width, layers) = (choice.width.unwrap_or(36), choice.layers.unwrap_or(20));
            Space::darts(DartsSkeleton { stem, width, layers, resolution, classes })
        }
        SpaceKind::Nas201 => Space::nas201(Nas201Skeleton {
            width: choice.width.unwrap_or(16),
            cells: choice.layers.unwrap_or(5),
            resolution: resolution.unwrap_or(32),
            classes,
        }),
        SpaceKind::Fbnet => Space::fbnet(resolution.unwrap_or(224), choice.classes.unwrap_or(1000)),
    }
}

/// A published name or a text form.
pub fn genotype_of(space: &Space, text: &str) -> Result<Genotype, Report> {
    if let Some((_, genotype)) = space.published().into_iter().find(|(name, _)| *name == text) {
        return Ok(genotype);
    }
    space.parse(text).map_err(failed)
}

fn network(space: &Space, genotype: &Genotype) -> Result<Graph, Report> {
    space.network(genotype, NetworkOptions::default()).map_err(failed)
}

fn show(choice: &SpaceChoice, format: Format) -> Result<(), Report> {
    let space = chosen(choice)?;
    let workloads = space.workloads().map_err(failed)?;
    let published: Vec<&str> = space.published().into_iter().map(|(name, _)| name).collect();
    if format == Format::Json {
        let value = serde_json::json!({
            "space": space, "networks": space.size(), "slots": space.slots().len(),
            "workloads": workloads.len(), "published": published,
        });
        terminal::data(&serde_json::to_string_pretty(&value).map_err(failed)?);
        return Ok(());
    }
    let mut rows = vec![
        vec!["networks".into(), format!("{:.3e}", space.size())],
        vec!["edges with a choice".into(), space.slots().len().to_string()],
        vec!["workloads to time".into(), workloads.len().to_string()],
        vec![
            "published networks".into(),
            if published.is_empty() { "none".into() } else { published.join(", ") },
        ],
    ];
    for block in &space.blocks {
        let mut choices: Vec<&str> = Vec::new();
        for choice in block.nodes.iter().flat_map(|node| &node.edges).flat_map(|edge| &edge.choices) {
            if !choices.contains(&choice.as_str()) {
                choices.push(choice);
            }
        }
        rows.push(vec![
            format!("block {}", block.name),
            format!("{} nodes, choices: {}", block.nodes.len(), choices.join(", ")),
        ]);
    }
    terminal::data(&table(&["space", &space.name], &rows));
    Ok(())
}

fn workloads(choice: &SpaceChoice, format: Format) -> Result<(), Report> {
    let workloads = chosen(choice)?.workloads().map_err(failed)?;
    if format == Format::Json {
        for workload in &workloads {
            let value = serde_json::json!({
                "id": workload.id(), "level": workload.level, "label": workload.label,
                "macs": workload.graph.macs(), "parameters": workload.graph.parameter_count(),
                "bytes_moved_fp32": workload.graph.bytes_moved(4),
            });
            terminal::data(&value.to_string());
        }
        return Ok(());
    }
    let rows: Vec<Vec<String>> = workloads
        .iter()
        .map(|workload| {
            let macs = format!("{:.3}", workload.graph.macs() as f64 / 1e6);
            vec![workload.id().0, workload.level.to_string(), macs, workload.label.clone()]
        })
        .collect();
    terminal::data(&table(&["id", "level", "MMAC", "label"], &rows));
    Ok(())
}

fn count(choice: &SpaceChoice, text: &str, format: Format) -> Result<(), Report> {
    let space = chosen(choice)?;
    let genotype = genotype_of(&space, text)?;
    let graph = network(&space, &genotype)?;
    let input = graph.input_shape().map(|shape| shape.to_string()).unwrap_or_default();
    let (parameters, macs) = (graph.parameter_count(), graph.macs());
    let (moved, peak) = (graph.bytes_moved(4), graph.peak_activation_bytes(4));
    if format == Format::Json {
        let value = serde_json::json!({
            "genotype": space.format(&genotype), "input": input, "parameters": parameters, "macs": macs,
            "bytes_moved_fp32": moved, "peak_activation_bytes_fp32": peak,
        });
        terminal::data(&value.to_string());
        return Ok(());
    }
    let rows = [
        ("genotype", space.format(&genotype)),
        ("input", input),
        ("parameters", format!("{:.3} M", parameters as f64 / 1e6)),
        ("multiply-accumulates", format!("{:.2} M ({:.2} MFLOP)", macs as f64 / 1e6, macs as f64 / 5e5)),
        ("bytes moved, fp32", format!("{:.2} MB", moved as f64 / 1e6)),
        ("peak activations, fp32", format!("{:.1} KiB", peak as f64 / 1024.0)),
    ];
    let rows: Vec<Vec<String>> = rows.into_iter().map(|(key, value)| vec![key.into(), value]).collect();
    terminal::data(&table(&["network", &space.name], &rows));
    Ok(())
}

/// What was folded before a network was written, and what stays.
pub fn tell_folds(folded: &Folded, terminal: Terminal) {
    for (rule, count) in &folded.applied {
        terminal.say(&format!("folded: {count} x {}", rule.name()));
    }
    for left in &folded.left {
        terminal.say(&format!("not folded: {left}"));
    }
}

/// Writes a new ONNX file.
pub fn write_onnx(graph: &Graph, weights: &Weights, file: &Path) -> Result<(), Report> {
    if file.exists() {
        return Err(miette::miette!(
            help = "name another file, or move that one away",
            "failed to write {}: it is there already",
            file.display()
        ));
    }
    let bytes = encode_onnx(graph, weights).map_err(failed)?;
    write_atomically(file, &bytes).map_err(failed)
}
