//! Which engine executes a workload, and what is asked of it.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// The engines that an agent may have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EngineName {
    /// ONNX Runtime, with the execution providers that its library was built with.
    #[default]
    Onnxruntime,
    /// `OpenVINO`, with the plugins that lie beside its library.
    Openvino,
    /// `LiteRT` on the processor.
    Litert,
    /// tract, compiled into the static agent: for devices without any engine's library.
    Tract,
}

impl EngineName {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Onnxruntime, Self::Openvino, Self::Litert, Self::Tract];

    /// As it is written in files, on the command line and in records.
    pub fn word(self) -> &'static str {
        match self {
            Self::Onnxruntime => "onnxruntime",
            Self::Openvino => "openvino",
            Self::Litert => "litert",
            Self::Tract => "tract",
        }
    }

    /// What people call it.
    pub fn title(self) -> &'static str {
        match self {
            Self::Onnxruntime => "ONNX Runtime",
            Self::Openvino => "OpenVINO",
            Self::Litert => "LiteRT",
            Self::Tract => "tract",
        }
    }

    /// What its providers are called; which of them a library has, only the library knows.
    pub fn providers(self) -> &'static [&'static str] {
        match self {
            Self::Onnxruntime => &["cpu", "xnnpack", "nnapi", "coreml", "qnn", "openvino"],
            Self::Openvino => &["cpu", "gpu", "npu"],
            Self::Litert | Self::Tract => &["cpu"],
        }
    }

    /// The format of the models that it reads.
    pub fn format(self) -> ModelFormat {
        match self {
            Self::Onnxruntime | Self::Openvino | Self::Tract => ModelFormat::Onnx,
            Self::Litert => ModelFormat::Tflite,
        }
    }

    /// The file that it is in; nothing for an engine that is compiled into the agent.
    pub fn library(self) -> Option<LibraryFile> {
        match self {
            Self::Onnxruntime => Some(LibraryFile {
                variable: "ORT_DYLIB_PATH",
                stem: "libonnxruntime.so",
                symbol: "OrtGetApiBase",
            }),
            Self::Openvino => Some(LibraryFile {
                variable: "LATHE_OPENVINO",
                stem: "libopenvino_c.so",
                symbol: "ov_core_create",
            }),
            Self::Litert => Some(LibraryFile {
                variable: "LATHE_LITERT",
                stem: "libLiteRt.so",
                symbol: "LiteRtCreateCompiledModel",
            }),
            Self::Tract => None,
        }
    }
}

/// How a model is written down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ModelFormat {
    /// Channels first; integers between floats (`QuantizeLinear`, `DequantizeLinear`).
    Onnx,
    /// Channels last; input and output of integers are integers.
    Tflite,
}

impl ModelFormat {
    /// Ending of a file's name.
    pub fn extension(self) -> &'static str {
        match self {
            Self::Onnx => "onnx",
            Self::Tflite => "tflite",
        }
    }
}

/// How the library of an engine is found and recognised.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LibraryFile {
    /// The environment variable that names it where nothing else does.
    pub variable: &'static str,
    /// How the file's name begins.
    pub stem: &'static str,
    /// A name that every version of it exports, and no other library.
    pub symbol: &'static str,
}

impl fmt::Display for EngineName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

impl FromStr for EngineName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::ALL.into_iter().find(|name| name.word() == text).ok_or_else(|| {
            let known: Vec<&str> = Self::ALL.into_iter().map(Self::word).collect();
            format!("expected one of {}, got `{text}`", known.join(", "))
        })
    }
}

/// The numeric type that the engine is asked to compute 32-bit models in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ExecutedPrecision {
    /// 32-bit floating point, as the model says.
    #[default]
    F32,
    /// bfloat16.
    Bf16,
    /// 16-bit floating point.
    F16,
}

impl ExecutedPrecision {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::F32, Self::Bf16, Self::F16];

    /// As it is written in files, on the command line and in records.
    pub fn word(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::Bf16 => "bf16",
            Self::F16 => "f16",
        }
    }

    /// How far the sums of an output may be from the 32-bit reference, relative, because of this type
    /// alone: a dozen roundings (2^-9 of a number in bfloat16, 2^-12 in 16-bit floating point) that all
    /// go the same way.
    pub fn tolerance(self) -> f64 {
        match self {
            Self::F32 => 0.0,
            Self::Bf16 => 12.0 / 512.0,
            Self::F16 => 12.0 / 4096.0,
        }
    }
}

impl fmt::Display for ExecutedPrecision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

impl FromStr for ExecutedPrecision {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::ALL
            .into_iter()
            .find(|precision| precision.word() == text)
            .ok_or_else(|| format!("expected one of f32, bf16, f16, got `{text}`"))
    }
}

/// Which engine, and what is asked of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EngineChoice {
    /// Engine.
    pub name: EngineName,
    /// Execution provider: one of [`EngineName::providers`].
    pub provider: String,
    /// Nodes that the provider can't execute may run on the processor instead. The row is flagged then;
    /// otherwise the workload is unsupported.
    pub allow_fallback: bool,
    /// Numeric type that is asked for.
    pub precision: ExecutedPrecision,
}

impl Default for EngineChoice {
    /// ONNX Runtime on the processor.
    fn default() -> Self {
        Self::new(EngineName::Onnxruntime)
    }
}

impl EngineChoice {
    /// The engine on the processor, in 32 bits.
    pub fn new(name: EngineName) -> Self {
        Self { name, provider: "cpu".into(), allow_fallback: false, precision: ExecutedPrecision::F32 }
    }

    /// Whether this can be asked at all. What the library makes of it is another matter.
    pub fn check(&self) -> Result<(), String> {
        let known = self.name.providers();
        if !known.contains(&self.provider.as_str()) {
            return Err(format!(
                "provider: expected one of {} for {}, got `{}`",
                known.join(", "),
                self.name,
                self.provider
            ));
        }
        if self.allow_fallback && (self.provider == "cpu" || self.name != EngineName::Onnxruntime) {
            return Err(format!(
                "allow_fallback: only providers of onnxruntime other than cpu can fall back, got {} on {}",
                self.name, self.provider
            ));
        }
        if self.precision != ExecutedPrecision::F32 && self.name != EngineName::Openvino {
            return Err(format!(
                "precision: only openvino can be asked for {}, {} computes what the model says",
                self.precision, self.name
            ));
        }
        Ok(())
    }

    /// Whether it only emulates the hardware that it speaks of: Hexagon's compiler and emulator are what
    /// Qualcomm's libraries for x86-64 hold.
    pub fn emulates(&self, architecture: &str) -> bool {
        self.provider == "qnn" && architecture == "x86_64"
    }

    /// The provider as a device's fingerprint has it: with what else was asked that isn't the default.
    pub fn provider_text(&self) -> String {
        let mut text = self.provider.clone();
        if self.precision != ExecutedPrecision::F32 {
            text = format!("{text}, {}", self.precision);
        }
        if self.allow_fallback {
            text.push_str(", fallback allowed");
        }
        text
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn words_read_back_and_unknown_ones_are_answered_with_the_known() {
        for name in EngineName::ALL {
            assert_eq!(name.word().parse::<EngineName>().unwrap(), name);
            assert_eq!(serde_json::to_value(name).unwrap(), name.word());
            EngineChoice::new(name).check().unwrap();
        }
        for precision in ExecutedPrecision::ALL {
            assert_eq!(precision.word().parse::<ExecutedPrecision>().unwrap(), precision);
            assert_eq!(serde_json::to_value(precision).unwrap(), precision.word());
        }
        assert_eq!(
            "ort".parse::<EngineName>().unwrap_err(),
            "expected one of onnxruntime, openvino, litert, tract, got `ort`"
        );
    }

    #[test]
    fn what_can_not_be_asked_is_refused() {
        let choice = EngineChoice { provider: "cuda".into(), ..EngineChoice::default() };
        assert!(choice.check().unwrap_err().contains("xnnpack"), "{choice:?}");
        let choice = EngineChoice { allow_fallback: true, ..EngineChoice::default() };
        assert!(choice.check().unwrap_err().starts_with("allow_fallback"));
        let choice = EngineChoice { precision: ExecutedPrecision::Bf16, ..EngineChoice::default() };
        assert!(choice.check().unwrap_err().starts_with("precision"));
    }

    #[test]
    fn the_fingerprint_of_the_plain_processor_stays_what_it_was() {
        assert_eq!(EngineChoice::default().provider_text(), "cpu");
        let bf16 =
            EngineChoice { precision: ExecutedPrecision::Bf16, ..EngineChoice::new(EngineName::Openvino) };
        assert_eq!(bf16.provider_text(), "cpu, bf16");
        let xnnpack =
            EngineChoice { provider: "xnnpack".into(), allow_fallback: true, ..EngineChoice::default() };
        assert_eq!(xnnpack.provider_text(), "xnnpack, fallback allowed");
    }
}
