//! `lathe zoo`: published mobile networks as files of blocks.

mod directions;
mod figures;
mod page;

use std::{collections::BTreeSet, fs, path::Path};

use lathe_spaces::{
    BLOCKS, Block, BlockKind, GraphBuilder, Level, Precision, Shape, Values, Weights, Workload, ZOO,
    ZooNetwork, fold, fold_graph,
};
use miette::Report;

use crate::{
    arguments::{Format, ShowFormat, ZooArguments, ZooChoice, ZooCommand, ZooMeasureArguments},
    commands::{measure, space},
    exit_codes,
    failure::failed,
    terminal::{self, Terminal, table},
};

/// Runs the subcommand.
pub fn run(arguments: &ZooArguments, terminal: Terminal) -> Result<u8, Report> {
    match &arguments.command {
        ZooCommand::List { format } => list(*format)?,
        ZooCommand::Show { choice, file: true, .. } => {
            terminal::data(text_of(&choice.network)?.trim_end());
        }
        ZooCommand::Show { choice, format, .. } => show(choice, *format)?,
        ZooCommand::Blocks { format } => blocks(*format)?,
        ZooCommand::Export { choice, file, seed, unfolded } => {
            let (_, size, network) = network_of(choice)?;
            let graph = network.graph(size).map_err(failed)?;
            let weights = Weights::seeded(&graph, *seed);
            if *unfolded {
                space::write_onnx(&graph, &weights, file)?;
            } else {
                let folded = fold(&graph, &weights).map_err(failed)?;
                space::write_onnx(&folded.graph, &folded.weights, file)?;
                space::tell_folds(&folded, terminal);
            }
            terminal.say(&format!("{} written, with random weights of seed {seed}", file.display()));
        }
        ZooCommand::Measure(arguments) => return timed(arguments, terminal),
    }
    Ok(exit_codes::OK)
}

/// The text of a network's file.
fn text_of(name: &str) -> Result<String, Report> {
    if let Some((_, text)) = ZOO.iter().find(|(known, _)| *known == name) {
        return Ok((*text).to_owned());
    }
    if !Path::new(name).extension().is_some_and(|extension| extension.eq_ignore_ascii_case("toml")) {
        return Err(miette::miette!(
            help = "`lathe zoo list` has the names; a file of your own ends with .toml",
            "failed to find `{name}`: the zoo has no such network"
        ));
    }
    fs::read_to_string(name).map_err(|error| miette::miette!("failed to read {name}: {error}"))
}

type Chosen = (String, Option<[usize; 2]>, ZooNetwork);

fn network_of(choice: &ZooChoice) -> Result<Chosen, Report> {
    let text = text_of(&choice.network)?;
    let network = ZooNetwork::parse(&text).map_err(|error| failed(error).wrap_err(choice.network.clone()))?;
    Ok((text, choice.resolution.map(|side| [side, side]), network))
}

fn all() -> Result<Vec<ZooNetwork>, Report> {
    ZOO.iter().map(|(_, text)| ZooNetwork::parse(text).map_err(failed)).collect()
}

fn list(format: Format) -> Result<(), Report> {
    let mut rows = Vec::new();
    for network in all()? {
        let graph = network.graph(None).map_err(failed)?;
        let [channels, height, width] = network.input;
        if format == Format::Json {
            let value = serde_json::json!({
                "name": network.name, "about": network.about, "source": network.source, "input": network.input,
                "parameters": graph.parameter_count(), "macs": graph.macs(),
            });
            terminal::data(&value.to_string());
            continue;
        }
        rows.push(vec![
            network.name.clone(),
            format!("{channels}x{height}x{width}"),
            format!("{:.3}", graph.parameter_count() as f64 / 1e6),
            format!("{:.2}", graph.macs() as f64 / 1e6),
        ]);
    }
    if format == Format::Text {
        terminal::data(&table(&["network", "input", "parameters, M", "MMAC"], &rows));
    }
    Ok(())
}

fn show(choice: &ZooChoice, format: Format) -> Result<(), Report> {
    let (_, size, network) = network_of(choice)?;
    let graph = network.graph(size).map_err(failed)?;
    let input = graph.input_shape().unwrap_or(graph.output_shape());
    let here = |reference: &&lathe_spaces::ZooReference| reference.size == [input.h, input.w];
    let reference = network.reference.iter().find(here);
    let (parameters, macs) = (graph.parameter_count(), graph.macs());
    let (moved, peak) = (graph.bytes_moved(4), graph.peak_activation_bytes(4));
    if format == Format::Json {
        let value = serde_json::json!({
            "name": network.name, "about": network.about, "source": network.source,
            "input": input.to_string(), "output": graph.output_shape().to_string(),
            "parameters": parameters, "macs": macs,
            "reference_parameters": reference.map(|reference| reference.parameters),
            "reference_million_macs": reference.map(|reference| reference.million_macs),
            "published": network.published, "notes": network.notes,
            "bytes_moved_fp32": moved, "peak_activation_bytes_fp32": peak,
            "max_tensor_rank": graph.max_tensor_rank(),
            "layers": network.layers.iter().map(|layer| &layer.block).collect::<Vec<_>>(),
        });
        terminal::data(&value.to_string());
        return Ok(());
    }
    let beside =
        |text: Option<String>| text.map_or_else(String::new, |text| format!(" (authors' code: {text})"));
    let mut rows = vec![
        ("about", network.about.clone()),
        ("source", network.source.clone()),
        ("input", input.to_string()),
        ("output", graph.output_shape().to_string()),
        (
            "parameters",
            format!(
                "{parameters}{}",
                beside(reference.map(|reference| {
                    let without = reference.without.join(", ");
                    let less = if without.is_empty() { String::new() } else { format!(" without {without}") };
                    format!("{}{less}", reference.parameters)
                }))
            ),
        ),
        (
            "multiply-accumulates",
            format!(
                "{:.2} M{}",
                macs as f64 / 1e6,
                beside(reference.map(|reference| format!("{} M", reference.million_macs)))
            ),
        ),
        ("bytes moved, fp32", format!("{:.2} MB", moved as f64 / 1e6)),
        ("peak activations, fp32", format!("{:.1} KiB", peak as f64 / 1024.0)),
        ("largest tensor rank", graph.max_tensor_rank().to_string()),
    ];
    rows.extend(network.published.clone().map(|published| ("published", published)));
    rows.extend(network.notes.iter().map(|note| ("note", note.clone())));
    let rows: Vec<Vec<String>> = rows.into_iter().map(|(key, value)| vec![key.into(), value]).collect();
    terminal::data(&table(&["network", &network.name], &rows));
    terminal::data("");
    let layers: Vec<Vec<String>> = network
        .layers
        .iter()
        .map(|layer| {
            let channels = layer.channels.map_or_else(|| "as before".into(), |channels| channels.to_string());
            vec![layer.block.clone(), channels, layer.stride.to_string(), layer.repeat.to_string()]
        })
        .collect();
    terminal::data(&table(&["block", "channels", "stride", "repeat"], &layers));
    Ok(())
}

fn blocks(format: Format) -> Result<(), Report> {
    let mut rows = Vec::new();
    for kind in BLOCKS {
        if format == Format::Json {
            let parameters: Vec<_> = kind
                .parameters
                .iter()
                .map(|parameter| match parameter.values {
                    Values::Number { default, least } => serde_json::json!({
                        "key": parameter.key, "default": default, "least": least, "about": parameter.about,
                    }),
                    Values::Word(words) => serde_json::json!({ "words": words, "about": parameter.about }),
                    Values::Flag => serde_json::json!({ "flag": parameter.key, "about": parameter.about }),
                })
                .collect();
            let value = serde_json::json!({
                "name": kind.name, "about": kind.about, "parameters": parameters,
                "max_tensor_rank": rank(kind)?,
            });
            terminal::data(&value.to_string());
            continue;
        }
        rows.push(vec![kind.name.to_owned(), rank(kind)?.to_string(), kind.expected()]);
    }
    if format == Format::Text {
        terminal::data(&table(&["block", "rank", "parameters and defaults, [flags]"], &rows));
    }
    Ok(())
}

/// Largest number of extents of any tensor of a kind of block, over its examples: accelerators have limits.
fn rank(kind: &BlockKind) -> Result<usize, Report> {
    let ranks = kind.examples.iter().map(|example| {
        let block: Block = example.text.parse().map_err(failed)?;
        let [channels, rows, columns] = example.input;
        let mut builder = GraphBuilder::new();
        let x = builder.input("input", Shape::new(1, channels, rows, columns)).map_err(failed)?;
        let y = block.build(&mut builder, "block", x, example.channels, example.stride).map_err(failed)?;
        Ok(builder.finish(&[y]).map_err(failed)?.max_tensor_rank())
    });
    Ok(ranks.collect::<Result<Vec<_>, Report>>()?.into_iter().max().unwrap_or_default())
}

/// A network as it runs.
fn workload(network: &ZooNetwork, size: Option<[usize; 2]>) -> Result<Workload, Report> {
    let graph = network.graph(size).map_err(failed)?;
    // SESR's expanded form is in the zoo to be timed expanded.
    let folds = !network.layers.iter().any(|layer| layer.block.split(' ').any(|word| word == "expanded"));
    let graph = if folds { fold_graph(&graph).map_err(failed)? } else { graph };
    Ok(Workload::new(network.name.clone(), Level::Network, graph))
}

/// A block at a place, as it runs.
fn block(text: &str, input: Shape, channels: usize) -> Result<Workload, Report> {
    let block: Block = text.parse().map_err(failed)?;
    let mut builder = GraphBuilder::new();
    let x = builder.input("input", input).map_err(failed)?;
    let y = block.build(&mut builder, "block", x, channels, 1).map_err(failed)?;
    let graph = builder.finish(&[y]).map_err(failed)?;
    let graph = fold_graph(&graph).map_err(failed)?;
    Ok(Workload::new(format!("{text} {}x{}x{}", input.c, input.h, input.w), Level::Operator, graph))
}

fn timed(arguments: &ZooMeasureArguments, terminal: Terminal) -> Result<u8, Report> {
    let mut networks = Vec::new();
    if arguments.networks.is_empty() {
        networks = all()?;
    }
    for name in &arguments.networks {
        let choice = ZooChoice { network: name.clone(), resolution: arguments.resolution };
        networks.push(network_of(&choice)?.2);
    }
    let size = arguments.resolution.map(|side| [side, side]);
    let precisions: BTreeSet<Precision> = arguments.precision.iter().map(|&choice| choice.into()).collect();
    let mut wanted = Vec::new();
    for network in &networks {
        let folded = workload(network, size)?;
        wanted.extend(precisions.iter().map(|&precision| folded.clone().at(precision)));
    }
    let pairs = if arguments.directions { directions::all()? } else { Vec::new() };
    for pair in &pairs {
        for workload in [&pair.first, &pair.second] {
            wanted.extend(precisions.iter().map(|&precision| workload.clone().at(precision)));
        }
    }
    let wanted = crate::campaign::distinct(wanted);
    let (rows, code) = measure::workloads(&arguments.measuring(), wanted, terminal)?;
    if !rows.is_empty() {
        let columns = figures::columns(&rows, &networks, size, &precisions, &pairs)?;
        match arguments.format {
            ShowFormat::Markdown => page::print(&columns),
            ShowFormat::Json => figures::print_json(&columns)?,
            ShowFormat::Text => figures::print_text(&columns),
        }
    }
    Ok(code)
}
