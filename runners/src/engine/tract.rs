//! tract, which is compiled into the agent: for devices that no engine's library can be brought to.

use std::{collections::BTreeMap, fmt::Display, path::Path};

use lathe_latency_db::{Engine, Execution, Outcome};
use lathe_spaces::Shape;
use tract_onnx::prelude::{
    Framework, InferenceModelExt, IntoRunnable, IntoTValue, TValue, Tensor, TractResult, TypedSimpleState,
};

use super::{Failure, LoadedEngine, LoadedModel};
use crate::{AgentSettings, EngineChoice, Placement, engine_library};

/// Version of the crate that is compiled in; the workspace's manifest pins it.
const VERSION: &str = "0.23.9";

/// The engine, which is there as soon as this program runs.
pub(crate) struct Tract(EngineChoice);

impl Tract {
    /// Refuses what tract can't be asked for.
    pub(crate) fn load(settings: &AgentSettings) -> Result<Self, Failure> {
        if settings.threads != 1 {
            let message =
                format!("it computes with one thread, got {} (hint: --threads 1)", settings.threads);
            return Err(Failure::crash("start tract", message));
        }
        Ok(Self(settings.engine.clone()))
    }
}

/// The whole chain of causes in one line.
fn refused(action: &str, error: &impl Display) -> Failure {
    let text = format!("{error:#}");
    let words: Vec<&str> = text.split_whitespace().collect();
    Failure::engine(Outcome::Unsupported, action, &words.join(" "))
}

impl LoadedEngine for Tract {
    fn identity(&self) -> Result<Engine, Failure> {
        let program = std::env::current_exe().map_err(|error| Failure::crash("find the agent", error))?;
        engine_library::inspect(&program, &self.0, Some(VERSION.to_owned()), None)
            .map_err(|error| Failure::crash("read the agent", error))
    }

    fn providers(&self) -> Result<Vec<String>, Failure> {
        Ok(vec!["cpu".to_owned()])
    }

    fn check(&self, _model: &Path) -> Result<Vec<Placement>, Failure> {
        let message = "tract takes a model whole or not at all: `lathe measure` shows which (hint: onnxruntime tells node by node)";
        Err(Failure::new(Outcome::Unsupported, message))
    }

    fn create(&self, model: &Path) -> Result<Box<dyn LoadedModel>, Failure> {
        let model = Model::read(model).map_err(|error| refused("load the model", &error))?;
        match model.state.model().inputs.len() {
            1 => Ok(Box::new(model)),
            inputs => Err(refused("load the model", &format!("it has {inputs} inputs, wanted is one input"))),
        }
    }
}

/// An optimised model, what keeps its state between runs, and its input.
struct Model {
    state: TypedSimpleState,
    input: Option<TValue>,
}

impl Model {
    fn read(path: &Path) -> TractResult<Self> {
        let plan = tract_onnx::onnx().model_for_path(path)?.into_optimized()?.into_runnable()?;
        Ok(Self { state: plan.spawn()?, input: None })
    }

    /// The outputs of one run; tract allocates them.
    fn outputs(&mut self) -> Result<Vec<TValue>, Failure> {
        // Shared, not copied.
        let inputs = self.input.iter().cloned().collect();
        let outputs = self.state.run(inputs).map_err(|error| refused("run the model", &error))?;
        Ok(outputs.into_iter().collect())
    }
}

impl LoadedModel for Model {
    fn bind(&mut self, shape: Shape, input: Vec<f32>) -> Result<(), Failure> {
        let tensor =
            Tensor::from_shape(&shape.dims(), &input).map_err(|error| refused("bind the input", &error))?;
        self.input = Some(tensor.into_tvalue());
        Ok(())
    }

    fn run(&mut self) -> Result<(), Failure> {
        self.outputs().map(drop)
    }

    fn run_for_output(&mut self) -> Result<Vec<f32>, Failure> {
        let action = "run the model";
        let outputs = self.outputs()?;
        let Some(output) = outputs.first() else { return Err(refused(action, &"it has no output")) };
        let view = output.to_plain_array_view::<f32>().map_err(|error| refused(action, &error))?;
        Ok(view.iter().copied().collect())
    }

    fn execution(&mut self) -> Result<Execution, Failure> {
        let mut operators = BTreeMap::<String, usize>::new();
        let mut types = BTreeMap::<String, usize>::new();
        for node in &self.state.model().nodes {
            *operators.entry(node.op.name().into_owned()).or_default() += 1;
            for output in &node.outputs {
                *types.entry(format!("{:?}", output.fact.datum_type).to_lowercase()).or_default() += 1;
            }
        }
        let executed = operators.values().sum();
        let words: Vec<String> = operators.iter().map(|(name, count)| format!("{name} {count}")).collect();
        let precisions: Vec<String> = types.into_keys().collect();
        Ok(Execution {
            nodes: BTreeMap::from([("cpu".to_owned(), executed)]),
            precision: Some(precisions.join(", ")),
            notes: vec![format!("operators after optimisation: {}", words.join(", "))],
            ..Execution::default()
        })
    }
}
