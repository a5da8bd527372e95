//! What was measured on.

use lathe_latency_db::Device;
use serde::Serialize;

use super::Section;
use crate::{
    history::History,
    quantity::{bytes, fixed, percent},
};

/// The device of a run.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct DeviceView {
    pub fingerprint: String,
    /// `measured`, `emulated`, `compiler estimate`.
    pub provenance: String,
    /// Smallest difference that it can tell apart.
    pub noise: Option<String>,
    /// All fields, in words.
    pub fields: Vec<(&'static str, String)>,
}

pub(super) fn device(history: &History) -> Section<DeviceView> {
    let Some(facts) = &history.device else {
        return Section::Missing("No device has been probed yet.".into());
    };
    Section::Ready(DeviceView {
        fingerprint: facts.device.fingerprint(),
        provenance: facts.provenance.to_string(),
        noise: facts.noise.map(|noise| percent(noise, if noise < 0.01 { 2 } else { 1 })),
        fields: fields(&facts.device),
    })
}

fn fields(device: &Device) -> Vec<(&'static str, String)> {
    let unknown = || "the system doesn't tell".to_owned();
    let cpus: Vec<String> = device.pinned_cpus.iter().map(ToString::to_string).collect();
    vec![
        ("alias", device.name.clone()),
        ("model", device.model.clone()),
        ("architecture", device.architecture.clone()),
        ("logical cores", device.cores.to_string()),
        ("memory", bytes(device.memory_kb.saturating_mul(1024))),
        ("operating system", device.os.clone()),
        ("kernel", device.kernel.clone()),
        ("pinned to cores", if cpus.is_empty() { "not pinned".into() } else { cpus.join(", ") }),
        ("frequency governor", device.governor.clone().unwrap_or_else(unknown)),
        (
            "highest frequency",
            device.max_khz.map_or_else(unknown, |khz| format!("{}\u{a0}GHz", fixed(khz as f64 / 1e6, 2))),
        ),
        ("engine threads", device.threads.to_string()),
        ("engine", format!("{} {}", device.engine.name, device.engine.version)),
        ("execution provider", device.engine.provider.clone()),
        ("engine library, SHA-256", device.engine.library_sha256.clone()),
    ]
}
