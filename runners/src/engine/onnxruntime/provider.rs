//! Execution providers: what they are called, which of them a library has, how they are asked for.

use std::{num::NonZeroUsize, path::Path};

use lathe_latency_db::Outcome;
use ort::{
    environment::Environment,
    ep::{self, ArbitrarilyConfigurableExecutionProvider, ExecutionProvider, ExecutionProviderDispatch},
    session::builder::SessionBuilder,
};

use super::{Failure, Setup};

/// A provider that can be asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Provider {
    Cpu,
    Xnnpack,
    Nnapi,
    Coreml,
    Qnn,
    Openvino,
}

impl Provider {
    const ALL: [Self; 6] = [Self::Cpu, Self::Xnnpack, Self::Nnapi, Self::Coreml, Self::Qnn, Self::Openvino];

    /// As [`crate::EngineName::providers`] has it.
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Cpu => "cpu",
            Self::Xnnpack => "xnnpack",
            Self::Nnapi => "nnapi",
            Self::Coreml => "coreml",
            Self::Qnn => "qnn",
            Self::Openvino => "openvino",
        }
    }

    pub(super) fn of_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|provider| provider.word() == word)
    }

    pub(super) fn of_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|provider| provider.name() == name)
    }

    /// ONNX Runtime's name for it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Cpu => ep::CPU::NAME,
            Self::Xnnpack => ep::XNNPACK::NAME,
            Self::Nnapi => ep::NNAPI::NAME,
            Self::Coreml => ep::CoreML::NAME,
            Self::Qnn => ep::QNN::NAME,
            Self::Openvino => ep::OpenVINO::NAME,
        }
    }

    /// Whether it takes whole groups of nodes and compiles them, so that what is computed inside, and in
    /// which numeric type, isn't seen from outside.
    pub(super) fn compiles(self) -> bool {
        !matches!(self, Self::Cpu | Self::Xnnpack)
    }

    fn built_in(self) -> ort::Result<bool> {
        match self {
            Self::Cpu => ep::CPU::is_available(),
            Self::Xnnpack => ep::XNNPACK::is_available(),
            Self::Nnapi => ep::NNAPI::is_available(),
            Self::Coreml => ep::CoreML::is_available(),
            Self::Qnn => ep::QNN::is_available(),
            Self::Openvino => ep::OpenVINO::is_available(),
        }
    }

    /// Whether a library of its own brought it.
    fn plugged_in(self, environment: &Environment) -> bool {
        self != Self::Cpu
            && environment.devices().any(|device| device.ep().is_ok_and(|name| name == self.name()))
    }

    /// Loads a library that brings this provider.
    pub(super) fn register(self, environment: &Environment, plugin: &Path) -> Result<(), Failure> {
        let action = format!("load the provider's library {}", plugin.display());
        if !plugin.is_file() {
            return Err(Failure::crash(&action, "it is not a file"));
        }
        environment
            .register_ep_library(self.name(), plugin)
            .map_err(|error| Failure::crash(&action, error.message()))?;
        if self.plugged_in(environment) {
            return Ok(());
        }
        let mut names: Vec<&str> = environment.devices().filter_map(|device| device.ep().ok()).collect();
        names.dedup();
        let message = format!("it brings no {}; there are {}", self.name(), names.join(", "));
        Err(Failure::crash(&action, message))
    }

    /// Asks a session for it; that it can't be had is a failure.
    pub(super) fn add_to(self, builder: SessionBuilder, setup: &Setup) -> Result<SessionBuilder, Failure> {
        let refused = |message: &str| {
            let action = format!("ask ONNX Runtime for the provider {}", self.word());
            Failure::engine(Outcome::Unsupported, &action, message)
        };
        // Where a plugin is loaded, a session that names no provider takes the plugin's.
        if setup.plugin.is_some() && (self == Self::Cpu || self.plugged_in(&setup.environment)) {
            let options = self.plugin_options(setup);
            let devices = setup.environment.devices();
            let devices = devices.filter(|device| device.ep().is_ok_and(|name| name == self.name()));
            return builder.with_devices(devices, Some(&options)).map_err(|error| refused(error.message()));
        }
        match self.dispatch(setup) {
            None => Ok(builder),
            Some(provider) => builder
                .with_execution_providers([provider.error_on_failure()])
                .map_err(|error| refused(error.message())),
        }
    }

    fn dispatch(self, setup: &Setup) -> Option<ExecutionProviderDispatch> {
        let threads = NonZeroUsize::new(setup.threads).unwrap_or(NonZeroUsize::MIN);
        match self {
            Self::Cpu => None,
            Self::Xnnpack => Some(ep::XNNPACK::default().with_intra_op_num_threads(threads).build()),
            // NNAPI's own implementation for the processor is a fallback by another name.
            Self::Nnapi => Some(ep::NNAPI::default().with_disable_cpu(!setup.choice.allow_fallback).build()),
            Self::Coreml => Some(ep::CoreML::default().build()),
            Self::Qnn => Some(ep::QNN::default().with_backend_path(htp(&setup.library)).build()),
            // "ACCURACY": what the model says, not what is fastest on this processor.
            Self::Openvino => Some(
                ep::OpenVINO::default()
                    .with_device_type("CPU")
                    .with_num_threads(threads.get())
                    .with_arbitrary_config("precision", "ACCURACY")
                    .build(),
            ),
        }
    }

    /// Options of a provider that a library of its own brought, as `Provider.key`.
    fn plugin_options(self, setup: &Setup) -> Vec<(String, String)> {
        match (self, &setup.plugin) {
            (Self::Qnn, Some(plugin)) => vec![(format!("{}.backend_path", self.name()), htp(plugin))],
            _ => Vec::new(),
        }
    }
}

/// Qualcomm's library for Hexagon's tensor processor, which lies beside the one that asks for it.
fn htp(beside: &Path) -> String {
    beside.with_file_name("libQnnHtp.so").display().to_string()
}

/// The providers that can be had: built into the library, or brought by a plugin.
pub(super) fn available(environment: &Environment) -> Result<Vec<Provider>, Failure> {
    let mut found = Vec::new();
    for provider in Provider::ALL {
        let built_in = provider
            .built_in()
            .map_err(|error| Failure::crash("list the execution providers", error.message()))?;
        if built_in || provider.plugged_in(environment) {
            found.push(provider);
        }
    }
    Ok(found)
}
