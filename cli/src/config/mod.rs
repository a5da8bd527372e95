//! One TOML file: read, every fault reported at once, then nothing about it can fail any more.

mod objective;
mod reader;
mod schema;
mod space;
mod stages;

use std::{
    collections::BTreeMap,
    fmt, fs,
    path::{Path, PathBuf},
};

use miette::{Diagnostic, LabeledSpan, NamedSource, Severity, SourceCode};
use sha2::{Digest, Sha256};
use thiserror::Error;
use toml::de::DeTable;

pub use objective::{Combine, Counted, LimitConfig, OtherDevice};
use reader::{Fault, Faults};
pub use reader::{Section, closest};
pub use schema::{BaselineConfig, Config, DeviceConfig};
pub use space::SpaceConfig;
pub use stages::PathsConfig;

/// Why a configuration can't be used.
#[derive(Debug, Error, Diagnostic)]
pub enum ConfigError {
    /// The file can't be read.
    #[error("failed to read the configuration {path}: {source}")]
    Read {
        /// File.
        path: PathBuf,
        /// Cause.
        source: std::io::Error,
    },
    /// The file has faults.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Faults(#[from] FaultyConfig),
    /// The resolved form can't be written as TOML.
    #[error("failed to write the resolved configuration: {0}")]
    Resolve(#[from] toml::ser::Error),
    /// A run is resumed with another configuration.
    #[diagnostic(help(
        "resume with the configuration that it began with (config.toml in its directory), or start a new run with another --directory"
    ))]
    #[error(
        "failed to resume {directory}: the configuration changed since the run began\n{}",
        differences.join("\n")
    )]
    Changed {
        /// Run directory.
        directory: PathBuf,
        /// `key: before → now`, one per differing key.
        differences: Vec<String>,
    },
}

/// A file with all its faults; each is shown with line and column.
#[derive(Debug)]
pub struct FaultyConfig {
    path: PathBuf,
    documented: &'static str,
    faults: Vec<FaultReport>,
}

/// One fault with the file that it stands in.
#[derive(Debug)]
struct FaultReport {
    fault: Fault,
    place: String,
    source: NamedSource<String>,
}

impl fmt::Display for FaultyConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = self.faults.len();
        let noun = if count == 1 { "fault" } else { "faults" };
        write!(f, "the configuration {} has {count} {noun}", self.path.display())
    }
}

impl std::error::Error for FaultyConfig {}

impl Diagnostic for FaultyConfig {
    fn help<'a>(&'a self) -> Option<Box<dyn fmt::Display + 'a>> {
        Some(Box::new(format!("every key is described in {}", self.documented)))
    }

    fn related<'a>(&'a self) -> Option<Box<dyn Iterator<Item = &'a dyn Diagnostic> + 'a>> {
        Some(Box::new(self.faults.iter().map(|fault| fault as &dyn Diagnostic)))
    }
}

impl fmt::Display for FaultReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place, self.fault.message)
    }
}

impl std::error::Error for FaultReport {}

impl Diagnostic for FaultReport {
    fn severity(&self) -> Option<Severity> {
        Some(Severity::Error)
    }

    fn help<'a>(&'a self) -> Option<Box<dyn fmt::Display + 'a>> {
        self.fault.hint.as_ref().map(|hint| Box::new(hint) as Box<dyn fmt::Display>)
    }

    fn source_code(&self) -> Option<&dyn SourceCode> {
        Some(&self.source)
    }

    fn labels(&self) -> Option<Box<dyn Iterator<Item = LabeledSpan> + '_>> {
        let span = self.fault.span.clone();
        Some(Box::new(std::iter::once(LabeledSpan::underline(span))))
    }
}

/// Reads and checks a configuration file.
pub fn load(path: &Path) -> Result<Config, ConfigError> {
    let text = fs::read_to_string(path).map_err(|source| ConfigError::Read { path: path.into(), source })?;
    parse(path, &text)
}

/// Checks the text of a configuration; `path` is for messages only.
pub fn parse(path: &Path, text: &str) -> Result<Config, ConfigError> {
    Ok(parse_document(path, text, "docs/CONFIGURATION.md", Config::read)?)
}

/// Reads a TOML document and gives its value only if there is no fault in it; `documented` is the page
/// that describes its keys, `path` is for messages only.
pub fn parse_document<T>(
    path: &Path,
    text: &str,
    documented: &'static str,
    read: impl FnOnce(Section<'_>) -> T,
) -> Result<T, FaultyConfig> {
    let faults = Faults::default();
    let (table, errors) = DeTable::parse_recoverable(text);
    for error in &errors {
        let span = error.span().unwrap_or(0..0);
        faults.push(error.message().replace('\n', ", "), Some("this is not TOML".into()), span);
    }
    let value = errors.is_empty().then(|| read(Section::root(&table, &faults)));
    let mut faults = faults.into_sorted();
    faults.dedup();
    match value {
        Some(value) if faults.is_empty() => Ok(value),
        _ => {
            let faults = faults
                .into_iter()
                .map(|fault| FaultReport {
                    place: place(path, text, fault.span.start),
                    source: NamedSource::new(path.display().to_string(), text.to_owned()),
                    fault,
                })
                .collect();
            Err(FaultyConfig { path: path.into(), documented, faults })
        }
    }
}

/// `file:line:column` of a byte.
fn place(path: &Path, text: &str, offset: usize) -> String {
    let before = &text[..offset.min(text.len())];
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
    format!("{}:{line}:{column}", path.display())
}

/// The checked configuration with every default filled in, as TOML.
pub fn resolved(config: &Config) -> Result<String, ConfigError> {
    Ok(toml::to_string(config)?)
}

/// SHA-256 of the resolved configuration, hexadecimal.
pub fn digest(resolved: &str) -> String {
    Sha256::digest(resolved.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// `key: before → now` for every key in which two resolved configurations differ. Where the run
/// and the database lie, and how many threads train it, may change between the parts of a run.
pub fn differences(before: &str, now: &str) -> Vec<String> {
    const MAY_CHANGE: [&str; 2] = ["directory", "database"];
    let (before, now) = (flatten(before), flatten(now));
    let keys: std::collections::BTreeSet<&String> = before.keys().chain(now.keys()).collect();
    let show = |value: Option<&String>| value.cloned().unwrap_or_else(|| "absent".into());
    keys.into_iter()
        .filter(|key| !MAY_CHANGE.contains(&key.as_str()) && before.get(*key) != now.get(*key))
        .map(|key| format!("  {key}: {} → {}", show(before.get(key)), show(now.get(key))))
        .collect()
}

fn flatten(text: &str) -> BTreeMap<String, String> {
    fn walk(prefix: &str, value: &toml::Value, into: &mut BTreeMap<String, String>) {
        if let toml::Value::Table(table) = value {
            for (key, value) in table {
                let path = if prefix.is_empty() { key.clone() } else { format!("{prefix}.{key}") };
                walk(&path, value, into);
            }
        } else {
            into.insert(prefix.to_owned(), value.to_string());
        }
    }
    let mut into = BTreeMap::new();
    if let Ok(table) = text.parse::<toml::Table>() {
        walk("", &toml::Value::Table(table), &mut into);
    }
    into
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic, reason = "tests")]
mod tests {
    use super::*;

    fn messages(text: &str) -> Vec<String> {
        match parse(Path::new("run.toml"), text) {
            Err(ConfigError::Faults(faulty)) => faulty
                .faults
                .iter()
                .map(|fault| format!("{fault} [{}]", fault.fault.hint.clone().unwrap_or_default()))
                .collect(),
            other => panic!("expected faults, got {other:?}"),
        }
    }

    #[test]
    fn every_fault_is_reported_at_once_with_its_place() {
        let text = "name = \"a\"\nsed = 3\n[search]\nepoch = 5\nbatch = \"many\"\nwarmup_epochs = 2\n\
                    [data]\nsource = \"cifar\"\n[serch]\nepochs = 1\n";
        insta::assert_snapshot!(messages(text).join("\n"));
    }

    #[test]
    fn faults_between_keys_are_found() {
        let text = "name = \"a\"\n[supernet]\nwidth = 6\npartial_channels = 4\n\
                    [search]\nepochs = 3\nwarmup_epochs = 3\n\
                    [objective]\ntarget_ms = 1.0\ntarget_quantile = 0.5\n";
        insta::assert_snapshot!(messages(text).join("\n"));
    }

    #[test]
    fn a_short_file_of_nas201_gets_the_benchmarks_sizes() {
        let text = "name = \"a\"\n[space]\nkind = \"nas201\"\n";
        let config = parse(Path::new("run.toml"), text).unwrap();
        let SpaceConfig::Nas201(skeleton) = &config.space else { panic!("{:?}", config.space) };
        assert_eq!((skeleton.width, skeleton.cells, skeleton.resolution, skeleton.classes), (16, 5, 32, 10));
        assert_eq!(config.space().name, "nas-bench-201");
        assert_eq!((config.supernet.layers, config.retrain.auxiliary), (5, None));
        assert_eq!(config.baselines.published, Vec::<String>::new());
        let resolved = resolved(&config).unwrap();
        assert!(resolved.contains("kind = \"nas201\"") && resolved.contains("cells = 5"), "{resolved}");
    }

    #[test]
    fn faults_of_nas201_are_found() {
        let text = "name = \"a\"\n[space]\nkind = \"nas201\"\nlayers = 8\nresolution = 30\n\
                    [supernet]\nwidth = 6\npartial_channels = 4\nimplementation = \"fused\"\n\
                    [retrain]\nauxiliary = 0.4\n[baselines]\npublished = [\"PC_DARTS_cifar\"]\n";
        insta::assert_snapshot!(messages(text).join("\n"));
        let text = "name = \"a\"\n[space]\nkind = \"nasbench201\"\ncells = 2\n";
        insta::assert_snapshot!(messages(text).join("\n"));
    }

    #[test]
    fn guards_and_proxies_that_cannot_work_are_faults() {
        let text = "name = \"a\"\n[search]\nstop_eigenvalue_ratio = 0.75\n[measure]\nnetworks = 5\n\
                    [objective]\nmethod = \"regressor\"\n[baselines]\nproxy = \"synflw\"\n";
        let found = messages(text);
        for expected in [
            "run.toml:3:25: `search.stop_eigenvalue_ratio`: no eigenvalue is computed [add `hessian_every_epochs = 1`]",
            "the regressor is about the target, and there is none [set `target_ms` or `target_quantile`]",
            "the method `regressor` learns from at least 10 measured networks",
            "did you mean \"synflow\"?",
        ] {
            assert!(
                found.iter().any(|message| message.contains(expected)),
                "{expected} is not in {found:#?}"
            );
        }
    }

    #[test]
    fn text_that_is_not_toml_has_a_place_too() {
        let found = messages("name = \"a\"\n[search\nepochs = 2\n");
        assert!(found[0].starts_with("run.toml:2:8:"), "{found:?}");
    }

    #[test]
    fn a_short_file_gets_the_papers_defaults() {
        let config = parse(Path::new("run.toml"), "name = \"a\"\n").unwrap();
        assert_eq!((config.search.epochs, config.search.warmup_epochs, config.search.batch), (50, 15, 256));
        let SpaceConfig::Darts(skeleton) = config.space else { panic!("{:?}", config.space) };
        assert_eq!((skeleton.width, skeleton.layers), (36, 20));
        assert_eq!(config.directory, PathBuf::from("runs/a"));
    }

    #[test]
    fn the_resolved_form_reads_back_and_tells_what_differs() {
        let first = resolved(&parse(Path::new("a.toml"), "name = \"a\"\n").unwrap()).unwrap();
        let again = parse(Path::new("a.toml"), "name = \"a\"\nseed = 4\n[search]\nbatch = 64\n").unwrap();
        let second = resolved(&again).unwrap();
        assert_eq!(differences(&first, &first), Vec::<String>::new());
        assert_eq!(differences(&first, &second), ["  search.batch: 256 → 64", "  seed: 0 → 4"]);
        let moved = second.replace("runs/a", "elsewhere");
        assert_ne!(moved, second);
        assert_eq!(differences(&second, &moved), Vec::<String>::new());
    }
}
