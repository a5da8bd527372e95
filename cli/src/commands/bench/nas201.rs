//! `lathe bench nas201`: searches by gradient in NAS-Bench-201, judged by published tables.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::{Arc, atomic::AtomicBool},
};

use lathe_latency_db::{LatencyTable, predictor::benchmark::known};
use lathe_search::{
    Dataset, Limit, Progress, Scores, SearchEnd, SearchTask, derive_within, search,
    tabular::{Standing, column_costs},
};
use lathe_spaces::{Genotype, Micros, Space};
use miette::Report;
use serde::{Deserialize, Serialize};

use super::{
    search::{looked_up, once},
    table_space,
};
use crate::{
    arguments::{BenchNas201Arguments, ShowFormat, TableSpace},
    config::{self, Config},
    exit_codes,
    failure::failed,
    interrupt,
    run::load_images,
    run_directory::write_atomically,
    stages::limits::connected,
    terminal::{self, Bar, Terminal, table},
};

/// What a search is held to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Way {
    /// The latency target.
    Target,
    /// Nothing.
    Free,
}

impl Way {
    const fn name(self) -> &'static str {
        match self {
            Self::Target => "target",
            Self::Free => "free",
        }
    }
}

/// A finished search, as it is kept.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Found {
    /// Digest of what the search was asked for.
    asked: String,
    genotype: String,
    /// Architectures whose latency was looked up: the samples, and what was derived.
    measurements: usize,
}

/// One search, judged.
#[derive(Debug, Serialize)]
struct Row {
    seed: u64,
    way: Way,
    genotype: String,
    measurements: usize,
    /// Whether the latency is within the target; null without one.
    met: Option<bool>,
    /// Null if the tables lack the architecture, or any of about its latency.
    standing: Option<Standing>,
    beats_the_median: Option<bool>,
}

/// All searches of one way.
#[derive(Debug, Serialize)]
struct Summary {
    way: Way,
    searches: usize,
    beat_the_median: usize,
    met: Option<usize>,
    /// Means over the searches that can be judged.
    latency_ms: f64,
    accuracy: f64,
    above_the_median: f64,
    quantile: f64,
}

/// What is printed as JSON.
#[derive(Serialize)]
struct Printed<'p> {
    version: &'static str,
    device: &'p str,
    column: &'p str,
    samples: usize,
    within_percent: f64,
    target_ms: f64,
    summary: &'p [Summary],
    rows: &'p [Row],
}

/// Everything that the searches share.
struct Bench<'a> {
    arguments: &'a BenchNas201Arguments,
    config: Config,
    space: Space,
    latencies: &'a LatencyTable,
    dataset: Arc<Dataset>,
    target: Micros,
    stop: &'a AtomicBool,
}

/// Runs the benchmark and prints one row per search.
pub fn run(arguments: &BenchNas201Arguments, terminal: Terminal) -> Result<u8, Report> {
    let config = config::load(&arguments.config)?;
    let space = table_space::space(TableSpace::Nb201);
    check(arguments, &config, &space)?;
    let latencies = LatencyTable::read(&arguments.latency, &space).map_err(failed)?;
    let accuracies = LatencyTable::read(&arguments.accuracy, &space).map_err(failed)?;
    once(&latencies, &arguments.latency)?;
    once(&accuracies, &arguments.accuracy)?;
    let judged = looked_up(&arguments.column, &arguments.accuracy, &accuracies, &latencies)?;
    let target = target(&config, &latencies, &arguments.device)?;
    let stop = interrupt::watch(terminal)?;
    let dataset = load_images(&config, terminal)?;
    let bench = Bench { arguments, config, space, latencies: &latencies, dataset, target, stop };
    let ways: Vec<(u64, Way)> = (0..arguments.seeds)
        .flat_map(|index| [Way::Target, Way::Free].map(|way| (bench.config.seed.wrapping_add(index), way)))
        .collect();
    let mut bar = terminal.bar("bench", ways.len());
    let mut rows = Vec::new();
    for (index, &(seed, way)) in ways.iter().enumerate() {
        let Some(found) = bench.search(seed, way, &mut bar, [index, ways.len()])? else {
            bar.done();
            terminal.say("stopped; nothing is lost. The same command goes on");
            return Ok(exit_codes::INTERRUPTED);
        };
        let row = bench.judged(seed, way, found, &judged)?;
        bar.say(&told(&row));
        rows.push(row);
    }
    bar.done();
    print(&bench, &rows)?;
    Ok(exit_codes::OK)
}

/// What would make figures of something else.
fn check(arguments: &BenchNas201Arguments, config: &Config, space: &Space) -> Result<(), Report> {
    if config.space() != *space {
        return Err(miette::miette!(
            help = "set kind = \"nas201\" under [space] and leave its other keys out",
            "failed to judge searches of {} by tables: their networks have a width of 16, 5 cells per stage, \
             images of 32x32 and 10 classes",
            arguments.config.display()
        ));
    }
    let objective = &config.objective;
    if !objective.limit.is_empty() || !objective.device.is_empty() || objective.measure_every_epochs.is_some()
    {
        return Err(miette::miette!(
            help =
                "keep one target under [objective], and no further limits, devices or `measure_every_epochs`",
            "failed to search as {} says: tables tell one latency only",
            arguments.config.display()
        ));
    }
    if arguments.seeds == 0 || !(arguments.within > 0.0 && arguments.within < 100.0) {
        return Err(miette::miette!(
            "failed to begin: --seeds must be at least 1 and --within between 0 and 100 percent, got {} and {}",
            arguments.seeds,
            arguments.within
        ));
    }
    Ok(())
}

/// The target in microseconds: as it is given, or the latency that this share of the column's cells meet.
fn target(config: &Config, latencies: &LatencyTable, device: &str) -> Result<Micros, Report> {
    if let Some(millis) = config.objective.target_ms {
        return Ok(Micros::from_millis(millis));
    }
    let mut column: Vec<f64> =
        known(latencies, device).map_err(failed)?.into_iter().map(|(_, latency)| latency).collect();
    column.sort_by(f64::total_cmp);
    let Some((quantile, last)) = config.objective.target_quantile.zip(column.len().checked_sub(1)) else {
        return Err(miette::miette!(
            help = "set `target_ms` or `target_quantile` under [objective]",
            "failed to hold searches to a target: there is none, or no latency of `{device}`"
        ));
    };
    Ok(Micros::from_millis(column[(quantile * last as f64).round() as usize]))
}

impl Bench<'_> {
    /// One search from its beginning, or where it was stopped; `None` if it is stopped now.
    fn search(
        &self,
        seed: u64,
        way: Way,
        bar: &mut Bar,
        [index, count]: [usize; 2],
    ) -> Result<Option<Found>, Report> {
        let folder = self.arguments.directory.join(format!("seed-{seed}-{}", way.name()));
        let path = folder.join("found.json");
        let asked = self.asked(way)?;
        if path.exists() {
            return found(&path, &asked).map(Some);
        }
        fs::create_dir_all(&folder)
            .map_err(|error| miette::miette!("failed to create {}: {error}", folder.display()))?;
        let target = (way == Way::Target).then_some(self.target);
        let BenchNas201Arguments { device, samples, .. } = self.arguments;
        let costs = column_costs(self.latencies, device, *samples, seed).map_err(failed)?;
        let task = SearchTask {
            space: &self.space,
            dataset: Arc::clone(&self.dataset),
            supernet: self.config.supernet,
            settings: self.config.search,
            objective: self.config.objective(target),
            table: target.is_some().then_some(&costs),
            limits: &[],
            measured: &[],
            probe: None,
            seed,
            threads: self.config.threads,
            collective: None,
            checkpoint: &folder,
            stop: self.stop,
        };
        let title = format!("seed {seed}, {}", way.name());
        let end = search(&task, &mut |progress| {
            if let Progress::Step { done, total, loss } = progress {
                bar.set(index * total + done, count * total, &format!("{title}: loss {loss:.3}"));
            }
            Ok(())
        });
        let SearchEnd::Finished(scores) = end.map_err(failed)? else { return Ok(None) };
        let limit = target.map(|target| Limit::latency("latency", &self.space, &costs, target));
        let (genotype, derived) = self.derived(&scores, limit.transpose().map_err(failed)?)?;
        let measurements = if way == Way::Target { samples + derived } else { 0 };
        let found = Found { asked, genotype: self.space.format(&genotype), measurements };
        write_atomically(&path, &serde_json::to_vec_pretty(&found).map_err(failed)?).map_err(failed)?;
        Ok(Some(found))
    }

    /// Derives under the limit and looks the latency up; while it misses the target, tightens the limit by
    /// what was missed and derives again. Of networks that all miss it the fastest is kept. Also how many were
    /// derived.
    fn derived(&self, scores: &Scores, limit: Option<Limit>) -> Result<(Genotype, usize), Report> {
        let accept = |genotype: &Genotype| connected(&self.space, genotype);
        let Some(mut limit) = limit else {
            let derived = derive_within(&self.space, scores, &[], &accept).map_err(failed)?;
            return Ok((derived.genotype, 1));
        };
        let mut best: Option<(f64, Genotype)> = None;
        let mut count = 0;
        while count <= self.config.objective.derive_rounds {
            let derived = match derive_within(&self.space, scores, std::slice::from_ref(&limit), &accept) {
                Ok(derived) => derived,
                Err(error) if best.is_none() => return Err(failed(error)),
                Err(_) => break,
            };
            count += 1;
            let measured = self.latency(&derived.genotype).unwrap_or(f64::INFINITY);
            if best.as_ref().is_none_or(|(least, _)| measured < *least) {
                best = Some((measured, derived.genotype.clone()));
            }
            if measured <= self.target.millis() {
                break;
            }
            let upper = limit.upper(&self.space, &derived.genotype);
            limit.at_most = limit.at_most.min(upper) * (self.target.millis() / measured).clamp(0.5, 0.99);
        }
        let best = best.ok_or_else(|| miette::miette!("failed to derive a network"))?;
        Ok((best.1, count))
    }

    fn row(&self, genotype: &Genotype) -> Option<usize> {
        self.latencies.genotypes().iter().position(|other| other == genotype)
    }

    /// Milliseconds on the device.
    fn latency(&self, genotype: &Genotype) -> Option<f64> {
        let column = self.latencies.latencies(&self.arguments.device).ok()?;
        column[self.row(genotype)?]
    }

    fn judged(&self, seed: u64, way: Way, found: Found, accuracies: &[Option<f64>]) -> Result<Row, Report> {
        let genotype = self.space.parse(&found.genotype).map_err(failed)?;
        let column = self.latencies.latencies(&self.arguments.device).map_err(failed)?;
        let within = self.arguments.within / 100.0;
        let standing = self.row(&genotype).and_then(|row| Standing::of(column, accuracies, row, within));
        Ok(Row {
            seed,
            way,
            measurements: found.measurements,
            met: (self.latency(&genotype).filter(|_| way == Way::Target))
                .map(|latency| latency <= self.target.millis()),
            beats_the_median: standing.as_ref().map(Standing::beats_the_median),
            genotype: found.genotype,
            standing,
        })
    }

    /// Digest of all that a search depends on, but for its seed.
    fn asked(&self, way: Way) -> Result<String, Report> {
        let mut config = self.config.clone();
        // Where things lie changes nothing.
        (config.directory, config.database) = (PathBuf::new(), PathBuf::new());
        let BenchNas201Arguments { device, samples, .. } = self.arguments;
        let target = self.target.0;
        let text = config::resolved(&config)?;
        Ok(config::digest(&format!("{text}\n{device} {samples} {target} {}", way.name())))
    }
}

fn found(path: &Path, asked: &str) -> Result<Found, Report> {
    let bytes =
        fs::read(path).map_err(|error| miette::miette!("failed to read {}: {error}", path.display()))?;
    let found: Found = serde_json::from_slice(&bytes)
        .map_err(|error| miette::miette!("failed to read {}: {error}", path.display()))?;
    if found.asked == asked {
        return Ok(found);
    }
    Err(miette::miette!(
        help = "name another --directory",
        "failed to go on: {} is of another configuration, device or number of samples",
        path.display()
    ))
}

/// A search in words.
fn told(row: &Row) -> String {
    let of = format!("      seed {}, {}:", row.seed, row.way.name());
    match &row.standing {
        None => format!("{of} {} is not in both tables", row.genotype),
        Some(Standing { latency_ms, accuracy, median, quantile, .. }) => format!(
            "{of} {latency_ms:.3} ms, {accuracy:.2} % (median {median:.2}), above {:.0} % of its peers",
            100.0 * quantile
        ),
    }
}

fn summary(rows: &[Row]) -> Vec<Summary> {
    let of = |way: Way| {
        let rows: Vec<&Row> = rows.iter().filter(|row| row.way == way).collect();
        let standings: Vec<&Standing> = rows.iter().filter_map(|row| row.standing.as_ref()).collect();
        let mean = |value: &dyn Fn(&Standing) -> f64| {
            standings.iter().map(|standing| value(standing)).sum::<f64>() / standings.len() as f64
        };
        Summary {
            way,
            searches: rows.len(),
            beat_the_median: rows.iter().filter(|row| row.beats_the_median == Some(true)).count(),
            met: (way == Way::Target).then(|| rows.iter().filter(|row| row.met == Some(true)).count()),
            latency_ms: mean(&|standing| standing.latency_ms),
            accuracy: mean(&|standing| standing.accuracy),
            above_the_median: mean(&|standing| standing.accuracy - standing.median),
            quantile: mean(&|standing| standing.quantile),
        }
    };
    vec![of(Way::Target), of(Way::Free)]
}

fn print(bench: &Bench<'_>, rows: &[Row]) -> Result<(), Report> {
    let BenchNas201Arguments { device, column, samples, within, format, .. } = bench.arguments;
    let summary = summary(rows);
    let target_ms = bench.target.millis();
    if *format == ShowFormat::Json {
        let printed = Printed {
            version: env!("CARGO_PKG_VERSION"),
            device,
            column,
            samples: *samples,
            within_percent: *within,
            target_ms,
            summary: &summary,
            rows,
        };
        terminal::data(&serde_json::to_string_pretty(&printed).map_err(failed)?);
        return Ok(());
    }
    let shown = |header: &[&str], cells: &[Vec<String>]| match format {
        ShowFormat::Markdown => format!("{}\n", terminal::markdown(header, cells)),
        _ => format!("{}\n", table(header, cells)),
    };
    terminal::data(&format!("target {target_ms:.4} ms on {device}, accuracies of {column}\n"));
    let header = ["way", "beat median", "met", "ms", "accuracy %", "above median", "quantile %"];
    let cells: Vec<Vec<String>> = summary
        .iter()
        .map(|of| {
            vec![
                of.way.name().to_owned(),
                format!("{}/{}", of.beat_the_median, of.searches),
                of.met.map_or_else(|| "-".into(), |met| format!("{met}/{}", of.searches)),
                format!("{:.3}", of.latency_ms),
                format!("{:.2}", of.accuracy),
                format!("{:+.2}", of.above_the_median),
                format!("{:.1}", 100.0 * of.quantile),
            ]
        })
        .collect();
    terminal::data(&shown(&header, &cells));
    let header = ["seed", "way", "met", "ms", "accuracy %", "median %", "best %", "quantile %", "peers"];
    let cells: Vec<Vec<String>> = rows.iter().map(cells_of).collect();
    terminal::data(&shown(&header, &cells));
    let cells: Vec<Vec<String>> = rows
        .iter()
        .map(|row| vec![row.seed.to_string(), row.way.name().to_owned(), row.genotype.clone()])
        .collect();
    terminal::data(shown(&["seed", "way", "cell"], &cells).trim_end());
    Ok(())
}

fn cells_of(row: &Row) -> Vec<String> {
    let figure =
        |value: &dyn Fn(&Standing) -> String| row.standing.as_ref().map_or_else(|| "-".to_owned(), value);
    vec![
        row.seed.to_string(),
        row.way.name().to_owned(),
        row.met.map_or_else(|| "-".into(), |met| if met { "yes" } else { "no" }.to_owned()),
        figure(&|of| format!("{:.3}", of.latency_ms)),
        figure(&|of| format!("{:.2}", of.accuracy)),
        figure(&|of| format!("{:.2}", of.median)),
        figure(&|of| format!("{:.2}", of.best)),
        figure(&|of| format!("{:.1}", 100.0 * of.quantile)),
        figure(&|of| of.peers.to_string()),
    ]
}
