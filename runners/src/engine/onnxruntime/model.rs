//! One session: a model with its input and its output bound to memory that stays.

use std::path::{Path, PathBuf};

use lathe_latency_db::{Execution, Outcome};
use lathe_spaces::Shape;
use ort::{
    memory::{AllocationDevice, Allocator, AllocatorType, MemoryInfo, MemoryType},
    session::{IoBinding, Session},
    value::Tensor,
};

use super::{Purpose, Setup, inspect, refused};
use crate::engine::{Failure, LoadedModel};

/// A model in a session of its own.
pub(super) struct Model {
    setup: Setup,
    path: PathBuf,
    pub(super) session: Session,
    binding: IoBinding,
    output: String,
}

impl Model {
    /// Creates the session. If the provider leaves nodes to the processor and that isn't allowed, the
    /// failure names them.
    pub(super) fn create(setup: &Setup, path: &Path) -> Result<Self, Failure> {
        let session = setup
            .session(path, &Purpose::Run)
            .map_err(|failure| inspect::name_the_nodes(setup, path, failure))?;
        Self::of(setup, path, session)
    }

    /// A session that exists.
    pub(super) fn of(setup: &Setup, path: &Path, session: Session) -> Result<Self, Failure> {
        let output = match (session.inputs(), session.outputs()) {
            ([_], [output, ..]) => output.name().to_owned(),
            (inputs, outputs) => {
                let message = format!(
                    "it has {} inputs and {} outputs, wanted is one input",
                    inputs.len(),
                    outputs.len()
                );
                return Err(refused(&message));
            }
        };
        let binding = session.create_binding().map_err(|error| refused(error.message()))?;
        Ok(Self { setup: setup.clone(), path: path.to_owned(), session, binding, output })
    }

    /// Binds an input of any rank.
    pub(super) fn bind_dimensions(&mut self, dimensions: Vec<usize>, input: Vec<f32>) -> Result<(), Failure> {
        let failed = |error: &ort::Error| {
            Failure::engine(Outcome::Unsupported, "bind input and outputs", error.message())
        };
        let tensor = Tensor::from_array((dimensions, input)).map_err(|error| failed(&error))?;
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
}

impl LoadedModel for Model {
    fn bind(&mut self, shape: Shape, input: Vec<f32>) -> Result<(), Failure> {
        self.bind_dimensions(shape.dims().to_vec(), input)
    }

    fn run(&mut self) -> Result<(), Failure> {
        match self.session.run_binding(&self.binding) {
            Ok(_) => Ok(()),
            Err(error) => Err(Failure::engine(Outcome::Unsupported, "run the model", error.message())),
        }
    }

    fn run_for_output(&mut self) -> Result<Vec<f32>, Failure> {
        let failed =
            |error: &ort::Error| Failure::engine(Outcome::Unsupported, "run the model", error.message());
        let outputs = self.session.run_binding(&self.binding).map_err(|error| failed(&error))?;
        let value = outputs.get(self.output.as_str()).ok_or_else(|| {
            Failure::new(Outcome::Unsupported, format!("run the model: it gave no output `{}`", self.output))
        })?;
        let (_, values) = value.try_extract_tensor::<f32>().map_err(|error| failed(&error))?;
        Ok(values.to_vec())
    }

    fn execution(&mut self) -> Result<Execution, Failure> {
        inspect::execution(&self.setup, &self.path)
    }
}
