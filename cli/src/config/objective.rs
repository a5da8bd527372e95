//! `[objective]`: targets, limits and how they are held.

use lathe_search::{Method, ObjectiveSettings, SearchSettings, Sides};
use lathe_spaces::Micros;
use serde::Serialize;

use crate::run_devices::name_of;

use super::{
    reader::Section,
    schema::{DeviceConfig, read_device_keys},
};

/// `[objective]`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ObjectiveConfig {
    /// Target in milliseconds.
    pub target_ms: Option<f64>,
    /// Target as a quantile of the random networks measured on the device.
    pub target_quantile: Option<f64>,
    /// Measure-and-tighten rounds after the derivation.
    pub derive_rounds: usize,
    /// See [`ObjectiveSettings`].
    pub method: Method,
    /// w of the method.
    pub method_weight: f64,
    /// x of the method.
    pub method_exponent: f64,
    /// See [`ObjectiveSettings`].
    pub sides: Sides,
    /// See [`ObjectiveSettings`].
    pub dual_rate: f64,
    /// See [`ObjectiveSettings`].
    pub dual_max: f64,
    /// See [`ObjectiveSettings`].
    pub temperature_start: f64,
    /// See [`ObjectiveSettings`].
    pub temperature_end: f64,
    /// See [`ObjectiveSettings`].
    pub anneal_epochs: usize,
    /// See [`ObjectiveSettings`].
    pub measure_every_epochs: Option<usize>,
    /// How the targets of several devices are held.
    pub combine: Combine,
    /// Weight of the device of `[device]` among several.
    pub device_weight: f64,
    /// Whether one weighted target may mix measured, emulated and estimated latencies.
    pub mix_provenances: bool,
    /// Limits that nothing has to be measured for.
    pub limit: Vec<LimitConfig>,
    /// Further devices.
    pub device: Vec<OtherDevice>,
}

/// How the targets of several devices are held.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Combine {
    /// Each on its own.
    Worst,
    /// The weighted mean of latency / target.
    Weighted,
}

/// `[[objective.device]]`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct OtherDevice {
    /// Alias.
    pub name: String,
    /// Threads of the engine.
    pub threads: usize,
    /// Cores to pin to; the runner chooses if absent.
    pub cpus: Option<Vec<usize>>,
    /// Target in milliseconds.
    pub target_ms: Option<f64>,
    /// Target as a quantile of the random networks measured there.
    pub target_quantile: Option<f64>,
    /// Weight of its latency.
    pub weight: f64,
}

impl OtherDevice {
    /// Which one it is.
    pub fn config(&self) -> DeviceConfig {
        DeviceConfig { name: self.name.clone(), threads: self.threads, cpus: self.cpus.clone() }
    }
}

/// What is counted, not measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Counted {
    /// Multiply-accumulates of one image.
    Macs,
    /// Learned parameters.
    Parameters,
    /// Largest sum of live activations, in bytes of 32-bit floats.
    PeakMemory,
}

/// `[[objective.limit]]`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct LimitConfig {
    /// What is limited.
    pub quantity: Counted,
    /// To how much.
    pub at_most: f64,
}

const METHODS: [(&str, Method); 7] = [
    ("dual", Method::Dual),
    ("linear", Method::Linear),
    ("logarithmic", Method::Logarithmic),
    ("fbnet", Method::Fbnet),
    ("absolute", Method::Absolute),
    ("reinforce", Method::Reinforce),
    ("regressor", Method::Regressor),
];

const COUNTED: [(&str, Counted); 3] =
    [("macs", Counted::Macs), ("parameters", Counted::Parameters), ("peak_memory", Counted::PeakMemory)];

/// The value of one of several words, the first one by default.
fn one_of<T: Copy>(section: &Section<'_>, key: &str, pairs: &[(&'static str, T)]) -> T {
    let words: Vec<&'static str> = pairs.iter().map(|(word, _)| *word).collect();
    let word = section.choice(key, &words, words[0]);
    pairs.iter().find(|(other, _)| *other == word).map_or(pairs[0].1, |(_, value)| *value)
}

impl ObjectiveConfig {
    /// Reads the section.
    pub fn read(section: Section<'_>, stages: bool) -> Self {
        let of_stages = [("reinforce", Method::Reinforce)];
        let method = one_of(&section, "method", if stages { &of_stages } else { &METHODS });
        let [weight, exponent] = method.published();
        let objective = Self {
            target_ms: section.optional_number("target_ms", 1e-3, 1e7),
            target_quantile: section.optional_number("target_quantile", 0.0, 1.0),
            derive_rounds: section.count("derive_rounds", 3, 0..101),
            method,
            method_weight: section.number("method_weight", weight, 0.0, 1e6),
            method_exponent: section.number("method_exponent", exponent, 0.0, 100.0),
            sides: one_of(&section, "sides", &[("upper", Sides::Upper), ("both", Sides::Both)]),
            dual_rate: section.number("dual_rate", 0.02, 0.0, 100.0),
            dual_max: section.number("dual_max", 5.0, 0.0, 1e6),
            temperature_start: section.number("temperature_start", 1.0, 1e-3, 100.0),
            temperature_end: section.number("temperature_end", 0.1, 1e-3, 100.0),
            anneal_epochs: section.count("anneal_epochs", 10, 0..100_001),
            measure_every_epochs: section.optional_count("measure_every_epochs", 1..100_001),
            combine: one_of(
                &section,
                "combine",
                &[("worst", Combine::Worst), ("weighted", Combine::Weighted)],
            ),
            device_weight: section.number("device_weight", 1.0, 0.0, 1e6),
            mix_provenances: section.flag("mix_provenances", false),
            device: section.sections("device").into_iter().map(read_other).collect(),
            limit: section.sections("limit").into_iter().filter_map(read_limit).collect(),
        };
        let sided = stages || matches!(method, Method::Dual | Method::Regressor);
        if !sided && objective.sides == Sides::Both {
            let hint = "\"absolute\" pulls from both sides as it is".to_owned();
            section.fault("sides", "only the methods \"dual\" and \"regressor\" have sides", Some(hint));
        }
        if stages && objective.measure_every_epochs.is_some() {
            let message = "the policy of stages is measured when networks are derived, not before";
            section.fault("measure_every_epochs", message, None);
        }
        if stages && objective.combine == Combine::Weighted {
            section.fault("combine", "stages hold each device's target on its own", None);
        }
        section.close();
        objective
    }

    /// Whether a target is a quantile of what is measured.
    pub fn quantiles(&self) -> bool {
        self.target_quantile.is_some() || self.device.iter().any(|device| device.target_quantile.is_some())
    }

    /// The limit on a counted quantity.
    pub fn at_most(&self, quantity: Counted) -> Option<f64> {
        self.limit.iter().find(|limit| limit.quantity == quantity).map(|limit| limit.at_most)
    }

    /// Settings of the search crate, with the target that the run resolved.
    pub fn settings(&self, target: Option<Micros>) -> ObjectiveSettings {
        ObjectiveSettings {
            target,
            method: self.method,
            weight: self.method_weight,
            exponent: self.method_exponent,
            sides: self.sides,
            dual_rate: self.dual_rate,
            dual_max: self.dual_max,
            temperature_start: self.temperature_start,
            temperature_end: self.temperature_end,
            anneal_epochs: self.anneal_epochs,
            measure_every_epochs: self.measure_every_epochs,
        }
    }

    /// Faults that concern two keys at once.
    pub fn cross_check(&self, section: &Section<'_>, search: &SearchSettings, first: &DeviceConfig) {
        let none = self.target_ms.is_none() && self.target_quantile.is_none();
        for (index, other) in self.device.iter().enumerate() {
            let name = name_of(&other.config());
            let mut known = self.device[..index].iter().map(OtherDevice::config);
            if name == name_of(first) || known.any(|known| name_of(&known) == name) {
                let hint = "give it other threads, or another name of `lathe device add`".to_owned();
                section.fault("device", format!("{name} is there twice"), Some(hint));
            }
        }
        if self.combine == Combine::Weighted {
            if none || self.device.is_empty() {
                let message = "a weighted target needs a target here and at least one [[objective.device]]";
                section.fault("combine", message, None);
            } else if self.device_weight + self.device.iter().map(|device| device.weight).sum::<f64>() <= 0.0
            {
                section.fault("combine", "all weights are zero", None);
            }
        }
        if self.measure_every_epochs.is_some() && none && self.device.is_empty() {
            section.fault("measure_every_epochs", "there is no target that it could correct", None);
        }
        if self.target_ms.is_some() && self.target_quantile.is_some() {
            section.fault("target_quantile", "`target_ms` is set too; keep one of them", None);
        }
        for (index, limit) in self.limit.iter().enumerate() {
            if self.limit[..index].iter().any(|other| other.quantity == limit.quantity) {
                section.fault(
                    "limit",
                    format!("{:?} is limited twice; keep one of them", limit.quantity),
                    None,
                );
            }
        }
        if self.method == Method::Regressor && none {
            let hint = "set `target_ms` or `target_quantile`".to_owned();
            section.fault("method", "the regressor is about the target, and there is none", Some(hint));
        }
        let first_order = matches!(
            self.method,
            Method::Regressor | Method::Logarithmic | Method::Fbnet | Method::Reinforce
        );
        if first_order && search.second_order {
            let message = "this method has no gradient of second order; leave out `search.second_order`";
            section.fault("method", message, None);
        }
    }
}

fn read_other(section: Section<'_>) -> OtherDevice {
    let DeviceConfig { name, threads, cpus } = read_device_keys(&section);
    let other = OtherDevice {
        name,
        threads,
        cpus,
        target_ms: section.optional_number("target_ms", 1e-3, 1e7),
        target_quantile: section.optional_number("target_quantile", 0.0, 1.0),
        weight: section.number("weight", 1.0, 0.0, 1e6),
    };
    if other.target_ms.is_some() == other.target_quantile.is_some() {
        section.fault("target_ms", "expected either `target_ms` or `target_quantile`", None);
    }
    section.close();
    other
}

fn read_limit(section: Section<'_>) -> Option<LimitConfig> {
    let quantity = one_of(&section, "quantity", &COUNTED);
    if section.text("quantity").is_none() {
        section.fault("quantity", "missing", Some("one of macs, parameters, peak_memory".into()));
    }
    let at_most = section.optional_number("at_most", 1.0, 1e18);
    if at_most.is_none() && !section.keys().iter().any(|key| key == "at_most") {
        section.fault("at_most", "missing", Some("the largest allowed value, as in at_most = 300e6".into()));
    }
    section.close();
    at_most.map(|at_most| LimitConfig { quantity, at_most })
}
