//! The device that was measured.

use std::fmt;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// The engine that executes a workload.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Engine {
    /// Name (`onnxruntime`).
    pub name: String,
    /// Version that the library reports.
    pub version: String,
    /// SHA-256 of the library file.
    pub library_sha256: String,
    /// Execution provider (`cpu`).
    pub provider: String,
}

/// What kind of device it is to the people who ship networks on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Tier {
    /// A phone or tablet.
    Phone,
    /// The processor of a small board: Raspberry Pi and the like.
    EdgeCpu,
    /// An accelerator on a small board: GPU or NPU.
    EdgeAccelerator,
    /// A desktop computer or a server.
    Server,
}

impl fmt::Display for Tier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Phone => "phone",
            Self::EdgeCpu => "edge CPU",
            Self::EdgeAccelerator => "edge GPU or NPU",
            Self::Server => "server",
        })
    }
}

/// The static part of a device: what must be equal for two latencies to be comparable.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Device {
    /// Alias that the user gave it (`local`); not part of the fingerprint.
    pub name: String,
    /// Model of the processor or board.
    pub model: String,
    /// Instruction set (`x86_64`, `aarch64`).
    pub architecture: String,
    /// Logical cores that the operating system shows.
    pub cores: usize,
    /// Memory in kilobytes.
    pub memory_kb: u64,
    /// Operating system and its version.
    pub os: String,
    /// Kernel release.
    pub kernel: String,
    /// Cores that the agent pins itself to.
    pub pinned_cpus: Vec<usize>,
    /// Frequency governor of the pinned cores, where the system has one.
    pub governor: Option<String>,
    /// Highest frequency of the pinned cores in kilohertz, where the system tells.
    pub max_khz: Option<u64>,
    /// Threads that the engine may use.
    pub threads: usize,
    /// Engine.
    pub engine: Engine,
    /// Most memory that the agent was allowed to hold for data, in kilobytes, if it was limited.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_limit_kb: Option<u64>,
    /// Name of the cluster that the pinned cores were chosen from (`big`); not part of the fingerprint,
    /// the cores are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cluster: Option<String>,
    /// Kind of device, as the user said; not part of the fingerprint.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tier: Option<Tier>,
}

impl Device {
    /// The first 16 hexadecimal digits of the SHA-256 over everything but alias, cluster and tier.
    pub fn fingerprint(&self) -> String {
        let anonymous = Self { name: String::new(), cluster: None, tier: None, ..self.clone() };
        let text = serde_json::to_string(&anonymous).unwrap_or_default();
        hexadecimal(&Sha256::digest(text.as_bytes())[..8])
    }
}

/// Two digits a byte.
pub(crate) fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |text, byte| text + &format!("{byte:02x}"))
}

#[cfg(test)]
mod tests {
    use crate::sample_rows::device;

    #[test]
    fn the_alias_does_not_count_and_everything_else_does() {
        let known = device();
        let mut other = device();
        other.name = "another alias".into();
        other.tier = Some(super::Tier::Phone);
        other.cluster = Some("big".into());
        assert_eq!(other.fingerprint(), known.fingerprint());
        assert_eq!(known.fingerprint().len(), 16);
        other.engine.version = "1.32.0".into();
        assert_ne!(other.fingerprint(), known.fingerprint());
        let mut other = device();
        other.pinned_cpus = vec![0];
        assert_ne!(other.fingerprint(), known.fingerprint());
    }
}
