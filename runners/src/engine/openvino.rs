//! `OpenVINO`, by its C library.

use std::path::{Path, PathBuf};

use lathe_latency_db::{Engine, Execution, Outcome};
use lathe_spaces::Shape;
use openvino::{
    CompiledModel, Core, DeviceType, ElementType, InferRequest, PropertyKey, RwPropertyKey, Tensor,
};

use super::{Failure, LoadedEngine, LoadedModel};
use crate::{AgentSettings, EngineChoice, EngineName, Placement, engine_library};

/// The library, with what was chosen of it.
pub(crate) struct OpenVino {
    library: PathBuf,
    choice: EngineChoice,
    device: DeviceType<'static>,
    threads: usize,
}

impl OpenVino {
    /// Loads the library and makes sure that it has a plugin and a device for the provider.
    pub(crate) fn load(settings: &AgentSettings) -> Result<Self, Failure> {
        let action = "load OpenVINO";
        engine_library::expect(&settings.library, EngineName::Openvino)
            .map_err(|message| Failure::crash(action, message))?;
        openvino_sys::library::load_from(&settings.library).map_err(|error| Failure::crash(action, error))?;
        let this = Self {
            library: settings.library.clone(),
            choice: settings.engine.clone(),
            device: DeviceType::Other(settings.engine.provider.to_uppercase().into()),
            threads: settings.threads,
        };
        let available = this.providers()?;
        if !available.contains(&this.choice.provider) {
            let message = format!(
                "there is no `{}` here; it has {}",
                this.choice.provider,
                if available.is_empty() { "none".to_owned() } else { available.join(", ") }
            );
            return Err(Failure::crash("find the device of OpenVINO", message));
        }
        Ok(this)
    }

    /// A core whose device computes as it was asked to: one stream, so many threads, in the asked type.
    fn core(&self) -> Result<Core, Failure> {
        let mut core = new_core()?;
        let threads = self.threads.to_string();
        // Where the process may run is the agent's business, and its children inherit it.
        let on_cpu = [
            (RwPropertyKey::InferenceNumThreads, threads.as_str()),
            (RwPropertyKey::HintEnableCpuPinning, "NO"),
        ];
        let mut asked = vec![
            (RwPropertyKey::NumStreams, "1"),
            (RwPropertyKey::HintPerformanceMode, "LATENCY"),
            (RwPropertyKey::HintInferencePrecision, self.choice.precision.word()),
        ];
        if self.choice.provider == "cpu" {
            asked.extend(on_cpu);
        }
        for (key, value) in asked {
            core.set_property(&self.device, &key, value).map_err(|error| {
                Failure::crash(&format!("set {} of OpenVINO to {value}", key.as_ref()), error)
            })?;
        }
        Ok(core)
    }
}

fn new_core() -> Result<Core, Failure> {
    Core::new().map_err(|error| Failure::crash("start OpenVINO", error))
}

/// The error in one line; what the library said is a part of it.
fn words(error: &impl std::fmt::Display) -> String {
    let text = error.to_string();
    let lines: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    lines.join(" | ")
}

fn refused(action: &str, error: &impl std::fmt::Display) -> Failure {
    Failure::engine(Outcome::Unsupported, action, &words(error))
}

impl LoadedEngine for OpenVino {
    fn identity(&self) -> Result<Engine, Failure> {
        let version = openvino::version().build_number;
        engine_library::inspect(&self.library, &self.choice, Some(version), None)
            .map_err(|error| Failure::crash("read OpenVINO's libraries", error))
    }

    fn providers(&self) -> Result<Vec<String>, Failure> {
        let core = new_core()?;
        let devices = core
            .available_devices()
            .map_err(|error| Failure::crash("list the devices of OpenVINO", error))?;
        Ok(devices.iter().map(|device| device.as_ref().to_lowercase()).collect())
    }

    fn check(&self, _model: &Path) -> Result<Vec<Placement>, Failure> {
        let message = "OpenVINO takes a model whole or not at all: `lathe measure` shows which (hint: onnxruntime tells node by node)";
        Err(Failure::new(Outcome::Unsupported, message))
    }

    fn create(&self, model: &Path) -> Result<Box<dyn LoadedModel>, Failure> {
        let action = "load the model";
        let mut core = self.core()?;
        let network = core
            .read_model_from_file(&model.to_string_lossy(), "")
            .map_err(|error| refused(action, &error))?;
        let inputs = network.get_inputs_len().map_err(|error| refused(action, &error))?;
        if inputs != 1 {
            return Err(refused(action, &format!("it has {inputs} inputs, wanted is one input")));
        }
        let mut compiled =
            core.compile_model(&network, self.device.to_owned()).map_err(|error| refused(action, &error))?;
        let request = compiled.create_infer_request().map_err(|error| refused(action, &error))?;
        Ok(Box::new(Model { request, compiled, core }))
    }
}

/// A compiled model and its only request.
struct Model {
    request: InferRequest,
    compiled: CompiledModel,
    /// Outlives what it compiled.
    #[expect(dead_code, reason = "held, not used")]
    core: Core,
}

impl LoadedModel for Model {
    fn bind(&mut self, shape: Shape, input: Vec<f32>) -> Result<(), Failure> {
        let action = "bind input and outputs";
        let dimensions = shape.dims().map(|extent| extent as i64);
        let shape = openvino::Shape::new(&dimensions).map_err(|error| refused(action, &error))?;
        let mut tensor = Tensor::new(ElementType::F32, &shape).map_err(|error| refused(action, &error))?;
        tensor.get_data_mut::<f32>().map_err(|error| refused(action, &error))?.copy_from_slice(&input);
        // The request keeps its outputs' memory from run to run.
        self.request.set_input_tensor(&tensor).map_err(|error| refused(action, &error))
    }

    fn run(&mut self) -> Result<(), Failure> {
        self.request.infer().map_err(|error| refused("run the model", &error))
    }

    fn run_for_output(&mut self) -> Result<Vec<f32>, Failure> {
        let action = "run the model";
        self.run()?;
        let output = self.request.get_output_tensor_by_index(0).map_err(|error| refused(action, &error))?;
        let kind = output.get_element_type().map_err(|error| refused(action, &error))?;
        if kind != ElementType::F32 {
            return Err(refused(action, &format!("its output is {kind:?}, wanted are 32-bit floats")));
        }
        Ok(output.get_data::<f32>().map_err(|error| refused(action, &error))?.to_vec())
    }

    fn execution(&mut self) -> Result<Execution, Failure> {
        let read = |key: PropertyKey| {
            self.compiled
                .get_property(&key)
                .map(|value| value.trim().to_lowercase())
                .map_err(|error| Failure::crash("read back what OpenVINO compiled", error))
        };
        let precision = read(RwPropertyKey::HintInferencePrecision.into())?;
        let threads = read(RwPropertyKey::InferenceNumThreads.into())?;
        let devices = read(PropertyKey::Other("EXECUTION_DEVICES".into()))?;
        Ok(Execution {
            precision: Some(precision),
            notes: vec![format!("devices {devices}, threads {threads}")],
            ..Execution::default()
        })
    }
}
