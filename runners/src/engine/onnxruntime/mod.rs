//! ONNX Runtime.

mod inspect;
mod model;
mod profile;
mod provider;

use std::path::{Path, PathBuf};

use lathe_latency_db::{Engine, Outcome};
use ort::{
    environment::Environment,
    session::{
        Session,
        builder::{GraphOptimizationLevel, SessionBuilder},
    },
};

use super::{Failure, LoadedEngine, LoadedModel};
use crate::{AgentSettings, EngineChoice, EngineName, Placement, engine_library};
use model::Model;
use provider::Provider;

/// The library, with what was chosen of it.
pub(crate) struct OnnxRuntime(Setup);

/// What every session is made from.
#[derive(Clone, Debug)]
struct Setup {
    environment: Environment,
    library: PathBuf,
    provider: Provider,
    choice: EngineChoice,
    threads: usize,
    /// The library that brought the provider, if it isn't built in.
    plugin: Option<PathBuf>,
}

/// What a session is for.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Purpose {
    /// To be timed, or to give outputs.
    Run,
    /// To see which provider executes which node: fallback is allowed, and a profile is written under
    /// this path.
    Inspect(PathBuf),
    /// The same for the nodes as the file has them, not as the engine rewrites them.
    Check(PathBuf),
}

impl OnnxRuntime {
    /// Loads the library, telemetry off, and makes sure that it has the provider.
    pub(crate) fn load(settings: &AgentSettings) -> Result<Self, Failure> {
        let action = "load ONNX Runtime";
        // Looked at only if it doesn't load: to read it whole would show in the peak memory.
        let crash = |error: String| {
            let reason = engine_library::expect(&settings.library, EngineName::Onnxruntime).err();
            Failure::crash(action, reason.unwrap_or(error))
        };
        let environment = ort::init_from(&settings.library)
            .map_err(|error| crash(error.to_string()))?
            .with_name("lathe-agent")
            .with_telemetry(false)
            .build()
            .map_err(|error| crash(error.to_string()))?;
        let action = "find the execution provider";
        let provider = Provider::of_word(&settings.engine.provider)
            .ok_or_else(|| Failure::crash(action, format!("`{}` is unknown", settings.engine.provider)))?;
        if let Some(plugin) = &settings.provider_library {
            provider.register(&environment, plugin)?;
        }
        let available = provider::available(&environment)?;
        if !available.contains(&provider) {
            let words: Vec<&str> = available.iter().map(|provider| provider.word()).collect();
            let message = format!(
                "{} was built without `{}`; it has {} (hint: name another library with --library, or a plugin with --provider-library)",
                settings.library.display(),
                provider.word(),
                words.join(", ")
            );
            return Err(Failure::crash(action, message));
        }
        Ok(Self(Setup {
            environment,
            library: settings.library.clone(),
            provider,
            choice: settings.engine.clone(),
            threads: settings.threads,
            plugin: settings.provider_library.clone(),
        }))
    }
}

impl LoadedEngine for OnnxRuntime {
    fn identity(&self) -> Result<Engine, Failure> {
        let mut engine =
            engine_library::inspect(&self.0.library, &self.0.choice, None, self.0.plugin.as_deref())
                .map_err(|error| Failure::crash("read ONNX Runtime's library", error))?;
        if self.0.provider == Provider::Cpu && saturates() {
            engine.provider.push_str(", exact integers");
        }
        Ok(engine)
    }

    fn providers(&self) -> Result<Vec<String>, Failure> {
        Ok(provider::available(&self.0.environment)?.iter().map(|provider| provider.word().into()).collect())
    }

    fn check(&self, model: &Path) -> Result<Vec<Placement>, Failure> {
        inspect::placements(&self.0, model)
    }

    fn create(&self, model: &Path) -> Result<Box<dyn LoadedModel>, Failure> {
        Ok(Box::new(Model::create(&self.0, model)?))
    }
}

/// Processors of x86-64 without VNNI saturate sums of products of 8-bit integers at 16 bits: outputs are wrong by tens of
/// steps. With this key ONNX Runtime multiplies there by another, slower rule; elsewhere it changes nothing
/// (`onnxruntime_session_options_config_keys.h`).
const EXACT_INTEGERS: &str = "session.x64quantprecision";

/// Whether [`EXACT_INTEGERS`] makes a difference on this processor; there it is part of a device's fingerprint, so that times
/// without it are not taken for times with it.
fn saturates() -> bool {
    #[cfg(target_arch = "x86_64")]
    let sums_in_32_bits = is_x86_feature_detected!("avx512vnni") || is_x86_feature_detected!("avxvnni");
    #[cfg(not(target_arch = "x86_64"))]
    let sums_in_32_bits = true;
    !sums_in_32_bits
}

impl Setup {
    /// All graph optimisations (but for a check), no spinning threads, one thread between operators.
    fn session(&self, model: &Path, purpose: &Purpose) -> Result<Session, Failure> {
        self.builder(purpose)?.commit_from_file(model).map_err(|error| refused(error.message()))
    }

    fn builder(&self, purpose: &Purpose) -> Result<SessionBuilder, Failure> {
        let level = match purpose {
            Purpose::Run | Purpose::Inspect(_) => GraphOptimizationLevel::All,
            Purpose::Check(_) => GraphOptimizationLevel::Disable,
        };
        let builder = Session::builder(&self.environment)
            .map_err(|error| refused(error.message()))?
            .with_intra_threads(self.threads)
            .and_then(|builder| builder.with_inter_threads(1))
            .and_then(|builder| builder.with_intra_op_spinning(false))
            .and_then(|builder| builder.with_inter_op_spinning(false))
            .and_then(|builder| builder.with_optimization_level(level))
            .and_then(|builder| builder.with_config_entry(EXACT_INTEGERS, "1"))
            .map_err(|error| refused(error.message()))?;
        let builder = self.provider.add_to(builder, self)?;
        match purpose {
            Purpose::Inspect(profile) | Purpose::Check(profile) => builder.with_profiling(profile),
            Purpose::Run if self.must_not_fall_back() => builder.with_disable_cpu_fallback(),
            Purpose::Run => Ok(builder),
        }
        .map_err(|error| refused(error.message()))
    }

    fn must_not_fall_back(&self) -> bool {
        self.provider != Provider::Cpu && !self.choice.allow_fallback
    }
}

fn refused(message: &str) -> Failure {
    Failure::engine(Outcome::Unsupported, "load the model", message)
}
