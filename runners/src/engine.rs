//! ONNX Runtime, loaded into this process.

use std::path::Path;

use lathe_latency_db::Outcome;
use lathe_spaces::Shape;
use ort::{
    environment::Environment,
    memory::{AllocationDevice, Allocator, AllocatorType, MemoryInfo, MemoryType},
    session::{IoBinding, Session, builder::GraphOptimizationLevel},
    value::Tensor,
};

/// What went wrong, and which kind of outcome that is.
#[derive(Debug)]
pub(crate) struct Failure {
    /// Kind.
    pub(crate) outcome: Outcome,
    /// What happened.
    pub(crate) message: String,
}

impl Failure {
    pub(crate) fn new(outcome: Outcome, message: impl Into<String>) -> Self {
        Self { outcome, message: message.into() }
    }

    /// A failure of the engine: out of memory if it says so, else `otherwise`.
    fn engine(otherwise: Outcome, action: &str, message: &str) -> Self {
        let lower = message.to_lowercase();
        let memory =
            ["bad_alloc", "bad allocation", "failed to allocate", "out of memory", "allocation failed"];
        let outcome =
            if memory.iter().any(|words| lower.contains(words)) { Outcome::OutOfMemory } else { otherwise };
        Self { outcome, message: format!("{action}: {message}") }
    }
}

/// Loads the library; telemetry off.
pub(crate) fn load(library: &Path) -> Result<Environment, Failure> {
    let crash = |message: String| Failure::new(Outcome::Crash, format!("load ONNX Runtime: {message}"));
    if !library.is_file() {
        return Err(crash(format!("{} is not a file", library.display())));
    }
    ort::init_from(library)
        .map_err(|error| crash(error.to_string()))?
        .with_name("lathe-agent")
        .with_telemetry(false)
        .build()
        .map_err(|error| crash(error.to_string()))
}

/// A model with its input and its output bound to memory that stays.
pub(crate) struct Model {
    session: Session,
    binding: IoBinding,
    output: String,
}

impl Model {
    /// Creates the session: all graph optimisations, no spinning threads, one thread between operators.
    /// A model that the engine refuses is [`Outcome::Unsupported`].
    pub(crate) fn create(environment: &Environment, model: &Path, threads: usize) -> Result<Self, Failure> {
        let failed = |message: &str| Failure::engine(Outcome::Unsupported, "load the model", message);
        let session = Session::builder(environment)
            .map_err(|error| failed(error.message()))?
            .with_intra_threads(threads)
            .and_then(|builder| builder.with_inter_threads(1))
            .and_then(|builder| builder.with_intra_op_spinning(false))
            .and_then(|builder| builder.with_inter_op_spinning(false))
            .and_then(|builder| builder.with_optimization_level(GraphOptimizationLevel::All))
            .map_err(|error| failed(error.message()))?
            .commit_from_file(model)
            .map_err(|error| failed(error.message()))?;
        let output = match (session.inputs(), session.outputs()) {
            ([_], [output, ..]) => output.name().to_owned(),
            (inputs, outputs) => {
                let message = format!(
                    "it has {} inputs and {} outputs, wanted is one input",
                    inputs.len(),
                    outputs.len()
                );
                return Err(failed(&message));
            }
        };
        let binding = session.create_binding().map_err(|error| failed(error.message()))?;
        Ok(Self { session, binding, output })
    }

    /// Binds an input (copied) and memory for the outputs, so that a run allocates neither.
    pub(crate) fn bind(&mut self, shape: Shape, input: Vec<f32>) -> Result<(), Failure> {
        let failed = |error: &ort::Error| {
            Failure::engine(Outcome::Unsupported, "bind input and outputs", error.message())
        };
        let tensor = Tensor::from_array((shape.dims(), input)).map_err(|error| failed(&error))?;
        self.binding.bind_input(self.session.inputs()[0].name(), &tensor).map_err(|error| failed(&error))?;
        for output in self.session.outputs() {
            match output.dtype().tensor_shape() {
                Some(dims) if dims.iter().all(|&extent| extent > 0) => {
                    let memory = Tensor::<f32>::new(&Allocator::default(), dims.to_vec())
                        .map_err(|error| failed(&error))?;
                    self.binding.bind_output(output.name(), memory).map_err(|error| failed(&error))?;
                }
                _ => {
                    let memory = MemoryInfo::new(
                        AllocationDevice::CPU,
                        0,
                        AllocatorType::Device,
                        MemoryType::CPUOutput,
                    )
                    .map_err(|error| failed(&error))?;
                    self.binding
                        .bind_output_to_device(output.name(), &memory)
                        .map_err(|error| failed(&error))?;
                }
            }
        }
        Ok(())
    }

    /// Runs once; the outputs stay where they are.
    pub(crate) fn run(&mut self) -> Result<(), Failure> {
        match self.session.run_binding(&self.binding) {
            Ok(_) => Ok(()),
            Err(error) => Err(Failure::engine(Outcome::Unsupported, "run the model", error.message())),
        }
    }

    /// Runs once and copies the first output.
    pub(crate) fn run_for_output(&mut self) -> Result<Vec<f32>, Failure> {
        let failed =
            |error: &ort::Error| Failure::engine(Outcome::Unsupported, "run the model", error.message());
        let outputs = self.session.run_binding(&self.binding).map_err(|error| failed(&error))?;
        let value = outputs.get(self.output.as_str()).ok_or_else(|| {
            Failure::new(Outcome::Unsupported, format!("run the model: it gave no output `{}`", self.output))
        })?;
        let (_, values) = value.try_extract_tensor::<f32>().map_err(|error| failed(&error))?;
        Ok(values.to_vec())
    }
}
