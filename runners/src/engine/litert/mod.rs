//! `LiteRT` (formerly TensorFlow Lite), by its C library.
//!
//! Its files hold tensors with channels last; everything else of the agent speaks of channels first. The
//! two are exchanged outside of what is timed, as are floats and integers.

mod library;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    rc::Rc,
};

use lathe_latency_db::{Engine, Execution, Outcome};
use lathe_spaces::Shape;
use library::{Compiled, Element, LiteRt, Refusal, Run, Tensor};

use super::{Failure, LoadedEngine, LoadedModel};
use crate::{AgentSettings, EngineChoice, EngineName, Placement, engine_library};

/// The opened library, with what was chosen of it.
pub(crate) struct LiteRtEngine {
    path: PathBuf,
    choice: EngineChoice,
    threads: usize,
    library: Rc<LiteRt>,
}

impl LiteRtEngine {
    /// Opens the library.
    pub(crate) fn load(settings: &AgentSettings) -> Result<Self, Failure> {
        let action = "load LiteRT";
        engine_library::expect(&settings.library, EngineName::Litert)
            .map_err(|message| Failure::crash(action, message))?;
        let library = LiteRt::open(&settings.library).map_err(|refusal| {
            Failure::crash(action, format!("{}: {}", settings.library.display(), refusal.message))
        })?;
        Ok(Self {
            path: settings.library.clone(),
            choice: settings.engine.clone(),
            threads: settings.threads,
            library,
        })
    }
}

/// Version in the name of the folder that a wheel leaves beside the library's.
fn version(library: &Path) -> Option<String> {
    let packages = library.parent()?.parent()?;
    let names = packages.read_dir().ok()?.filter_map(Result::ok).map(|entry| entry.file_name());
    names
        .filter_map(|name| {
            let name = name.to_string_lossy();
            let version = name.strip_prefix("ai_edge_litert-")?.strip_suffix(".dist-info")?;
            Some(version.to_owned())
        })
        .next()
}

fn refused(action: &str, refusal: &Refusal) -> Failure {
    let outcome = if refusal.out_of_memory { Outcome::OutOfMemory } else { Outcome::Unsupported };
    Failure::new(outcome, format!("{action}: {}", refusal.message))
}

impl LoadedEngine for LiteRtEngine {
    fn identity(&self) -> Result<Engine, Failure> {
        engine_library::inspect(&self.path, &self.choice, version(&self.path), None)
            .map_err(|error| Failure::crash("read LiteRT's library", error))
    }

    fn providers(&self) -> Result<Vec<String>, Failure> {
        Ok(vec!["cpu".to_owned()])
    }

    fn check(&self, _model: &Path) -> Result<Vec<Placement>, Failure> {
        let message = "LiteRT says only whether XNNPACK took a model whole: `lathe measure` shows it (hint: onnxruntime tells node by node)";
        Err(Failure::new(Outcome::Unsupported, message))
    }

    fn create(&self, model: &Path) -> Result<Box<dyn LoadedModel>, Failure> {
        let action = "load the model";
        let compiled =
            Compiled::of(&self.library, model, self.threads).map_err(|refusal| refused(action, &refusal))?;
        let run = compiled.runner().map_err(|refusal| refused(action, &refusal))?;
        Ok(Box::new(Model { compiled, run }))
    }
}

/// A model and the function that runs it.
struct Model {
    compiled: Compiled,
    run: Run,
}

impl LoadedModel for Model {
    fn bind(&mut self, shape: Shape, input: Vec<f32>) -> Result<(), Failure> {
        let action = "bind the input";
        let wanted = [shape.n, shape.h, shape.w, shape.c];
        if self.compiled.input.dims != wanted {
            let message = format!("{action}: it is {:?}, got {wanted:?}", self.compiled.input.dims);
            return Err(Failure::new(Outcome::Unsupported, message));
        }
        let bytes = to_bytes(&self.compiled.input, &channels_last(&input, shape));
        self.compiled.write(&bytes).map_err(|refusal| refused(action, &refusal))
    }

    fn run(&mut self) -> Result<(), Failure> {
        self.compiled.run(self.run).map_err(|refusal| refused("run the model", &refusal))
    }

    fn run_for_output(&mut self) -> Result<Vec<f32>, Failure> {
        self.run()?;
        let bytes = self.compiled.bytes().map_err(|refusal| refused("read the output", &refusal))?;
        let output = &self.compiled.output;
        let values = from_bytes(output, &bytes);
        Ok(match output.dims[..] {
            [n, h, w, c] => channels_first(&values, Shape::new(n, c, h, w)),
            _ => values,
        })
    }

    fn execution(&mut self) -> Result<Execution, Failure> {
        let precision = match self.compiled.input.element {
            Element::Float32 => "f32",
            Element::Int8 => "i8",
        };
        let who = if self.compiled.whole { "XNNPACK took all of them" } else { "XNNPACK left some of them" };
        Ok(Execution {
            nodes: BTreeMap::from([("cpu".to_owned(), self.compiled.operators)]),
            precision: Some(precision.to_owned()),
            notes: vec![format!("operators of the file, before fusion: {}; {who}", self.compiled.operators)],
            ..Execution::default()
        })
    }
}

fn channels_last(values: &[f32], shape: Shape) -> Vec<f32> {
    let Shape { c, h, w, .. } = shape;
    let area = h * w;
    let source = |index: usize| {
        let (image, rest) = (index / (area * c), index % (area * c));
        image * area * c + rest % c * area + rest / c
    };
    (0..values.len()).map(|index| values[source(index)]).collect()
}

fn channels_first(values: &[f32], shape: Shape) -> Vec<f32> {
    let Shape { c, h, w, .. } = shape;
    let area = h * w;
    let source = |index: usize| {
        let (image, rest) = (index / (area * c), index % (area * c));
        image * area * c + rest % area * c + rest / area
    };
    (0..values.len()).map(|index| values[source(index)]).collect()
}

fn to_bytes(tensor: &Tensor, values: &[f32]) -> Vec<u8> {
    match tensor.affine {
        None => values.iter().flat_map(|value| value.to_le_bytes()).collect(),
        Some((scale, zero)) => values
            .iter()
            .map(|value| ((value / scale).round_ties_even() + zero as f32).clamp(-128.0, 127.0) as i8)
            .flat_map(i8::to_le_bytes)
            .collect(),
    }
}

fn from_bytes(tensor: &Tensor, bytes: &[u8]) -> Vec<f32> {
    match tensor.affine {
        None => bytes.as_chunks::<4>().0.iter().map(|&number| f32::from_le_bytes(number)).collect(),
        Some((scale, zero)) => {
            bytes.iter().map(|&byte| (i64::from(i8::from_le_bytes([byte])) - zero) as f32 * scale).collect()
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::float_cmp, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn channels_go_last_and_come_back() {
        let shape = Shape::new(2, 3, 2, 5);
        let values: Vec<f32> = (0..60_u8).map(f32::from).collect();
        let last = channels_last(&values, shape);
        assert_eq!(last[..4], [0.0, 10.0, 20.0, 1.0], "the channels of the first pixel come first");
        assert_eq!(channels_first(&last, shape), values);
    }

    #[test]
    fn integers_stand_for_numbers_and_are_limited() {
        let tensor = Tensor { element: Element::Int8, dims: vec![4], affine: Some((0.5, 3)) };
        let bytes = to_bytes(&tensor, &[-1.0, 0.25, 0.0, 1e9]);
        assert_eq!(bytes.iter().map(|&byte| byte as i8).collect::<Vec<_>>(), [1, 3, 3, 127]);
        assert_eq!(from_bytes(&tensor, &bytes), [-1.0, 0.0, 0.0, 62.0]);
    }

    #[test]
    fn the_version_is_that_of_the_wheel() {
        let folder = tempfile::tempdir().unwrap();
        let library = folder.path().join("ai_edge_litert/libLiteRt.so");
        std::fs::create_dir_all(library.parent().unwrap()).unwrap();
        assert_eq!(version(&library), None);
        std::fs::create_dir(folder.path().join("ai_edge_litert-2.3.0.dist-info")).unwrap();
        assert_eq!(version(&library).as_deref(), Some("2.3.0"));
    }
}
