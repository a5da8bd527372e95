//! What a study of several runs came to: plain data, its page and its figure.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use lathe_latency_db::{Device, Prediction, Provenance, Summary};
use lathe_spaces::Micros;
use minijinja::{
    AutoEscape, Environment, context,
    syntax::SyntaxConfig,
    value::{Serde, Value},
};
use serde::{Deserialize, Serialize};

use crate::{
    ReportError,
    figures::{Chart, study_front},
    quantity::{Quantity, count, fixed, latency},
    replace,
};

/// Name of the page in a study's directory.
const PAGE: &str = "study.html";

/// A network of a study.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StudyNetwork {
    /// Word of the approach: that of its member, or of the baseline.
    pub approach: String,
    /// Target of its member, where it was found for one.
    pub target: Option<Micros>,
    /// Number of the seed, from 1.
    pub seed: usize,
    /// Name in its member.
    pub name: String,
    /// Text form.
    pub genotype: String,
    /// Predicted latency on the first device.
    pub predicted: Option<Prediction>,
    /// Expected latency at the end of the search, before the derivation.
    pub expected: Option<Micros>,
    /// Predicted latency of the network that the search would have derived without limit.
    pub unlimited: Option<Micros>,
    /// Accuracy on the test images, 0..1.
    pub test_accuracy: Option<f64>,
    /// Accuracy on the images held out of the training, 0..1.
    pub validation_accuracy: Option<f64>,
    /// Learned parameters.
    pub parameters: u64,
    /// Multiply-accumulates of one image.
    pub macs: u64,
    /// Latency on every device, all networks interleaved.
    pub latencies: BTreeMap<String, Summary>,
    /// Whether it was chosen of its group by the held-out images.
    pub chosen: bool,
}

/// Networks of all seeds that were found in one way.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StudyGroup {
    /// Word of the approach.
    pub approach: String,
    /// Target.
    pub target: Option<Micros>,
    /// Networks with an accuracy.
    pub networks: usize,
    /// Members that ended without a network, and why.
    pub failed: Vec<String>,
    /// Mean and standard deviation (n − 1) of the test accuracy, 0..1.
    pub accuracy: [f64; 2],
    /// Least, mean and greatest median latency on the first device.
    pub latency: [Micros; 3],
    /// Networks whose median is within the target.
    pub met: usize,
    /// Test accuracy of the one that the held-out images choose.
    pub chosen: Option<f64>,
}

/// Hypervolumes of one approach.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StudyVolume {
    /// Word of the approach.
    pub approach: String,
    /// Per seed: area of accuracy × latency that its networks dominate, as a share of the rectangle.
    pub seeds: Vec<f64>,
    /// Their mean and standard deviation (n − 1).
    pub mean: [f64; 2],
}

/// A device of a study.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StudyDevice {
    /// The study's name for it.
    pub name: String,
    /// Where its latencies come from.
    pub provenance: Provenance,
    /// The device.
    pub device: Device,
}

/// A study in short.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Study {
    /// Name of the study.
    pub name: String,
    /// Seeds of every approach.
    pub seeds: usize,
    /// First seed.
    pub seed: u64,
    /// Version of Lathe.
    pub version: String,
    /// Devices, the first one first.
    pub devices: Vec<StudyDevice>,
    /// Targets on the first device.
    pub targets: Vec<Micros>,
    /// Per target the limit on multiply-accumulates that as many of the measured networks keep.
    pub macs: Vec<f64>,
    /// Test images behind every accuracy.
    pub test_images: usize,
    /// Every network.
    pub networks: Vec<StudyNetwork>,
    /// Approach by approach and target by target.
    pub groups: Vec<StudyGroup>,
    /// Chance level and latency that hypervolumes are taken against.
    pub reference: (f64, Micros),
    /// Approach by approach.
    pub volumes: Vec<StudyVolume>,
}

impl Study {
    /// Writes `study.html` into a directory, whole or not at all, and returns its path.
    ///
    /// # Errors
    /// [`ReportError`] if it can't be drawn or written.
    pub fn write(&self, directory: &Path) -> Result<PathBuf, ReportError> {
        let page = self.render()?;
        let path = directory.join(PAGE);
        replace(directory, &path, page.as_bytes())
            .map_err(|source| ReportError::Write { path: path.clone(), source })?;
        Ok(path)
    }

    /// The page as HTML text. Everything that names something is escaped; only what this crate drew is not.
    ///
    /// # Errors
    /// [`ReportError`] if a figure can't be drawn.
    pub fn render(&self) -> Result<String, ReportError> {
        let front: Option<Chart> = study_front(self)?;
        let mut environment = Environment::new();
        environment.set_auto_escape_callback(|_| AutoEscape::Html);
        environment.set_syntax(SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build()?);
        environment.add_template("study", include_str!("study.html"))?;
        let page = environment.get_template("study")?.render(context! {
            style => Value::from_safe_string(include_str!("style.css").to_owned()),
            name => &self.name,
            seed => self.seed,
            seeds => self.seeds,
            version => &self.version,
            test_images => self.test_images,
            word => self.word(),
            targets => Value::from(Serde(self.targets.iter().copied().map(latency).collect::<Vec<_>>())),
            macs => Value::from(Serde(self.macs.iter().map(|macs| count(macs.max(0.0) as u64)).collect::<Vec<_>>())),
            devices => Value::from(Serde(self.devices.iter().map(DeviceRow::of).collect::<Vec<_>>())),
            groups => Value::from(Serde(self.groups.iter().map(GroupRow::of).collect::<Vec<_>>())),
            volumes => Value::from(Serde(self.volumes.iter().map(|volume| VolumeRow::of(volume, self)).collect::<Vec<_>>())),
            reference => (fixed(self.reference.0 * 100.0, 0), latency(self.reference.1)),
            networks => Value::from(Serde(self.networks.iter().map(|network| NetworkRow::of(network, self)).collect::<Vec<_>>())),
            front => Value::from(Serde(&front)),
            lathe => env!("CARGO_PKG_VERSION"),
        })?;
        Ok(page)
    }

    /// Where the latencies of the first device come from.
    pub fn word(&self) -> String {
        self.devices.first().map_or_else(|| "measured".into(), |device| device.provenance.to_string())
    }
}

#[derive(Serialize)]
struct DeviceRow {
    name: String,
    provenance: String,
    facts: String,
}

impl DeviceRow {
    fn of(on: &StudyDevice) -> Self {
        let Device { model, cores, threads, engine, os, .. } = &on.device;
        let facts = format!(
            "{model}, {cores} cores, {threads} of them used, {} {}, {os} (fingerprint {})",
            engine.name,
            engine.version,
            on.device.fingerprint()
        );
        Self { name: on.name.clone(), provenance: on.provenance.to_string(), facts }
    }
}

#[derive(Serialize)]
struct GroupRow {
    approach: String,
    target: Option<String>,
    networks: usize,
    accuracy: Option<String>,
    spread: Option<String>,
    latency: Option<String>,
    range: Option<String>,
    met: Option<String>,
    chosen: Option<String>,
    failed: Vec<String>,
}

impl GroupRow {
    fn of(group: &StudyGroup) -> Self {
        let some = group.networks > 0;
        let several = group.networks > 1;
        let [mean, deviation] = group.accuracy.map(|share| fixed(share * 100.0, 1));
        let [least, middle, most] = group.latency.map(latency);
        Self {
            approach: group.approach.clone(),
            target: group.target.map(latency),
            networks: group.networks,
            accuracy: some.then(|| format!("{mean} %")),
            spread: several
                .then(|| format!("± {deviation} (standard deviation of {} seeds)", group.networks)),
            latency: some.then_some(middle),
            range: several.then(|| format!("{least} – {most}")),
            met: group.target.filter(|_| some).map(|_| format!("{} of {}", group.met, group.networks)),
            chosen: group.chosen.map(|share| format!("{} %", fixed(share * 100.0, 1))),
            failed: group.failed.clone(),
        }
    }
}

#[derive(Serialize)]
struct VolumeRow {
    approach: String,
    mean: String,
    spread: Option<String>,
    /// Over that of the searches under a target.
    ratio: Option<String>,
}

impl VolumeRow {
    fn of(volume: &StudyVolume, study: &Study) -> Self {
        let against = study.volumes.iter().find(|other| other.approach == "latency");
        let ratio = against.filter(|against| against.approach != volume.approach && against.mean[0] > 0.0);
        Self {
            approach: volume.approach.clone(),
            mean: fixed(volume.mean[0], 4),
            spread: (volume.seeds.len() > 1).then(|| format!("± {}", fixed(volume.mean[1], 4))),
            ratio: ratio.map(|against| fixed(volume.mean[0] / against.mean[0], 2)),
        }
    }
}

#[derive(Serialize)]
struct NetworkRow {
    approach: String,
    target: Option<String>,
    seed: usize,
    accuracy: Option<Quantity>,
    validation: Option<String>,
    expected: Option<String>,
    unlimited: Option<String>,
    predicted: Option<Quantity>,
    /// On every device, in their order.
    latencies: Vec<Option<Quantity>>,
    meets: Option<bool>,
    parameters: String,
    macs: String,
    genotype: String,
    chosen: bool,
}

impl NetworkRow {
    fn of(network: &StudyNetwork, study: &Study) -> Self {
        let on = |device: &StudyDevice| network.latencies.get(&device.name);
        let first = study.devices.first().and_then(on);
        Self {
            approach: network.approach.clone(),
            target: network.target.map(latency),
            seed: network.seed,
            accuracy: network.test_accuracy.map(|share| Quantity::accuracy(share, study.test_images)),
            validation: network.validation_accuracy.map(|share| format!("{} %", fixed(share * 100.0, 1))),
            expected: network.expected.map(latency),
            unlimited: network.unlimited.map(latency),
            predicted: network.predicted.as_ref().map(Quantity::predicted),
            latencies: study.devices.iter().map(|device| on(device).map(Quantity::measured)).collect(),
            meets: network.target.and_then(|target| Some(first?.median <= target)),
            parameters: count(network.parameters),
            macs: count(network.macs),
            genotype: network.genotype.clone(),
            chosen: network.chosen,
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use crate::fixtures;

    fn network(approach: &str, seed: usize, accuracy: f64, micros: f64) -> StudyNetwork {
        StudyNetwork {
            approach: approach.into(),
            target: Some(Micros(500.0)).filter(|_| approach == "latency"),
            seed,
            name: "searched".into(),
            genotype: "<b>text</b>".into(),
            predicted: None,
            expected: Some(Micros(480.0)),
            unlimited: None,
            test_accuracy: Some(accuracy),
            validation_accuracy: Some(accuracy - 0.01),
            parameters: 40_000,
            macs: 8_000_000,
            latencies: [("local".to_owned(), fixtures::summary(micros, 0.02))].into(),
            chosen: seed == 1,
        }
    }

    fn study() -> Study {
        let networks = vec![
            network("latency", 1, 0.52, 480.0),
            network("latency", 2, 0.5, 510.0),
            network("macs", 1, 0.53, 700.0),
        ];
        Study {
            name: "my <study>".into(),
            seeds: 2,
            seed: 1,
            version: "0.1.0".into(),
            devices: Vec::new(),
            targets: vec![Micros(500.0)],
            macs: vec![7.5e6],
            test_images: 1000,
            groups: vec![StudyGroup {
                approach: "latency".into(),
                target: Some(Micros(500.0)),
                networks: 2,
                failed: vec!["why <not>".into()],
                accuracy: [0.51, 0.01],
                latency: [480.0, 495.0, 510.0].map(Micros),
                met: 1,
                chosen: Some(0.52),
            }],
            reference: (0.1, Micros(735.0)),
            volumes: vec![
                StudyVolume { approach: "latency".into(), seeds: vec![0.2, 0.1], mean: [0.15, 0.07] },
                StudyVolume { approach: "macs".into(), seeds: vec![0.03, 0.03], mean: [0.03, 0.0] },
            ],
            networks,
        }
    }

    #[test]
    fn the_page_tells_spread_targets_and_failures_and_escapes_names() {
        let page = study().render().unwrap();
        for expected in [
            "51.0 %",
            "± 1.0",
            "480\u{a0}µs",
            "1 of 2",
            "0.1500",
            "0.20",
            "why &lt;not&gt;",
            "my &lt;study&gt;",
            "&lt;b&gt;text",
        ] {
            assert!(page.contains(expected), "{expected}");
        }
        assert!(!page.contains("<b>text"), "a genotype is no HTML");
        assert!(!page.contains("http://") && !page.contains("https://"), "nothing is loaded from elsewhere");
    }

    #[test]
    fn the_page_is_written_and_the_data_reads_back() {
        let folder = tempfile::tempdir().unwrap();
        let path = study().write(folder.path()).unwrap();
        assert!(std::fs::read_to_string(path).unwrap().starts_with("<!DOCTYPE html>"));
        let text = serde_json::to_string(&study()).unwrap();
        let read: Study = serde_json::from_str(&text).unwrap();
        // The last bit of a latency may be lost.
        assert_eq!((read.groups, read.volumes, read.macs), (study().groups, study().volumes, study().macs));
        assert_eq!(read.networks.len(), study().networks.len());
    }

    #[test]
    fn a_study_without_networks_has_a_page() {
        let study = Study { networks: Vec::new(), groups: Vec::new(), volumes: Vec::new(), ..study() };
        assert!(study.render().unwrap().contains("no network"));
    }
}
