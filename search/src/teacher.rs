//! A trained network whose outputs another one learns to give.

use std::{
    fmt, fs,
    path::{Path, PathBuf},
};

use lathe_spaces::decode_onnx;
use sha2::{Digest, Sha256};
use tch::{CModule, IValue, Kind, TchError, Tensor, no_grad};
use thiserror::Error;

use crate::{GraphModule, GraphModuleError};

/// Why a file is no teacher. The messages complete "failed to …".
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum TeacherError {
    /// The file can't be read.
    #[error("read the teacher `{}`: {source}", path.display())]
    Io {
        /// File.
        path: PathBuf,
        /// Cause.
        source: std::io::Error,
    },
    /// libtorch refuses the file.
    #[error("read the teacher `{}`: {source}; hint: save it with `torch.jit.trace` or `torch.jit.script`", path.display())]
    Script {
        /// File.
        path: PathBuf,
        /// Cause.
        source: TchError,
    },
    /// The ONNX file is broken, or has operators that Lathe doesn't know.
    #[error("read the teacher `{}`: {reason}; hint: a TorchScript file (.pt) may hold any operator", path.display())]
    Onnx {
        /// File.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// The network can't be run.
    #[error("run the teacher `{}`: {source}", path.display())]
    Network {
        /// File.
        path: PathBuf,
        /// Cause.
        source: GraphModuleError,
    },
    /// It refuses the images, or gives no tensor.
    #[error("run the teacher `{}` on images of 3x{side}x{side}: {reason}; hint: it must take normalised images [batch, 3, {side}, {side}] and give one tensor", path.display())]
    Run {
        /// File.
        path: PathBuf,
        /// Side of the images.
        side: usize,
        /// What happened.
        reason: String,
    },
}

enum Network {
    Script(CModule),
    Graph(GraphModule),
    Served(Serve),
}

/// Runs a file: numbers of images `[count, 3, side, side]` and the side in, those of all outputs out, or what was
/// wrong.
pub type Serve = Box<dyn Fn(&[f32], usize) -> Result<Vec<f32>, String>>;

/// A trained network with fixed weights, from a `TorchScript` or ONNX file.
///
/// It sees the images that the student sees, normalised by the data set's mean and deviation, and gives embeddings
/// `[batch, channels, rows, columns]` or `[batch, features]`.
pub struct Teacher {
    path: PathBuf,
    /// SHA-256 of the file.
    pub digest: String,
    /// Extents of its output for one image: channels, rows and columns, or features.
    pub output: Vec<usize>,
    network: Network,
}

impl fmt::Debug for Teacher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Teacher")
            .field("path", &self.path)
            .field("output", &self.output)
            .finish_non_exhaustive()
    }
}

impl Teacher {
    /// Reads a file: ONNX if its name ends so, else `TorchScript`. `side`: that of the square images.
    ///
    /// # Errors
    /// [`TeacherError`], also if it refuses a black image.
    pub fn load(path: &Path, side: usize) -> Result<Self, TeacherError> {
        let io = |source| TeacherError::Io { path: path.to_owned(), source };
        let bytes = fs::read(path).map_err(io)?;
        let network = if path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("onnx")) {
            let decoded = decode_onnx(&bytes)
                .map_err(|error| TeacherError::Onnx { path: path.to_owned(), reason: error.to_string() })?;
            let onnx = |reason: String| TeacherError::Onnx { path: path.to_owned(), reason };
            if let Some(unknown) = decoded.unknown.first() {
                return Err(onnx(format!("it has the operator {}, which Lathe doesn't know", unknown.kind)));
            }
            let weights = decoded.weights.ok_or_else(|| onnx("its weights are not in it".into()))?;
            let module = GraphModule::frozen(&decoded.graph, &weights)
                .map_err(|source| TeacherError::Network { path: path.to_owned(), source })?;
            Network::Graph(module)
        } else {
            let script = |source| TeacherError::Script { path: path.to_owned(), source };
            let mut module = CModule::load(path).map_err(script)?;
            module.set_eval();
            Network::Script(module)
        };
        Self { path: path.to_owned(), digest: digest(&bytes), output: Vec::new(), network }.tried(side)
    }

    /// A file that something else runs: an engine that knows more operators than Lathe. Its outputs come without
    /// extents, as features.
    ///
    /// # Errors
    /// [`TeacherError`] as [`Teacher::load`].
    pub fn served(path: &Path, side: usize, serve: Serve) -> Result<Self, TeacherError> {
        let bytes = fs::read(path).map_err(|source| TeacherError::Io { path: path.to_owned(), source })?;
        Self {
            path: path.to_owned(),
            digest: digest(&bytes),
            output: Vec::new(),
            network: Network::Served(serve),
        }
        .tried(side)
    }

    /// The same, having seen a black image.
    fn tried(mut self, side: usize) -> Result<Self, TeacherError> {
        let extent = side as i64;
        let output = self.embed(&Tensor::zeros([1, 3, extent, extent], (Kind::Float, tch::Device::Cpu)))?;
        self.output = output.size().into_iter().skip(1).map(|extent| extent as usize).collect();
        Ok(self)
    }

    /// Whether a network's output has the extents of the teacher's.
    pub fn output_is_like(&self, graph: &lathe_spaces::Graph) -> bool {
        let shape = graph.output_shape();
        let own = [shape.c, shape.h, shape.w];
        if let Network::Served(_) = self.network {
            return self.output.iter().product::<usize>() == own.iter().product::<usize>();
        }
        self.output == own || (self.output == own[..1] && own[1..] == [1, 1])
    }

    /// What it says of images `[batch, 3, side, side]`.
    ///
    /// # Errors
    /// [`TeacherError::Run`] if it refuses them.
    pub fn embed(&self, images: &Tensor) -> Result<Tensor, TeacherError> {
        let refused = |reason: String| TeacherError::Run {
            path: self.path.clone(),
            side: images.size().last().map_or(0, |side| *side as usize),
            reason,
        };
        no_grad(|| match &self.network {
            Network::Script(module) => {
                let given = module.forward_is(&[IValue::Tensor(images.shallow_clone())]);
                match given.map_err(|error| refused(first_line(&error)))? {
                    IValue::Tensor(output) => Ok(output),
                    other => Err(refused(format!("it gives {other:?}, not a tensor"))),
                }
            }
            Network::Served(serve) => {
                let (count, side) = (images.size()[0], images.size()[3]);
                let numbers: Vec<f32> =
                    Vec::try_from(images.flatten(0, -1)).map_err(|error| refused(first_line(&error)))?;
                let given = serve(&numbers, side as usize).map_err(&refused)?;
                if given.is_empty() || given.len() % count as usize != 0 {
                    return Err(refused(format!("it gives {} numbers for {count} images", given.len())));
                }
                Ok(Tensor::from_slice(&given).view([count, -1]))
            }
            Network::Graph(module) => {
                crate::graph_module::check_images(module.graph(), images)
                    .map_err(|error| refused(error.to_string()))?;
                Ok(module.forward(images, None).swap_remove(0))
            }
        })
    }
}

fn digest(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// libtorch's errors go on with a trace of addresses.
fn first_line(error: &TchError) -> String {
    error.to_string().lines().next().unwrap_or_default().to_owned()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use std::{
        rc::Rc,
        sync::{Arc, atomic::AtomicBool},
    };

    use lathe_spaces::{Graph, GraphBuilder, NetworkOptions, OpSpec, Shape, Space, Stream, Weights};

    use super::*;
    use crate::{
        DataSettings, DataSource, Dataset, Progress, RetrainEnd, RetrainSettings, RetrainTask, export,
        logits, retrain,
    };

    /// A network for images of 32x32, with `features` at its end.
    fn network(features: usize) -> (Space, lathe_spaces::Genotype, Graph) {
        let space = Space::fbnet(32, features);
        let genotype = space.sample(&mut Stream::new(1, "teacher", 0));
        let graph = space.network(&genotype, NetworkOptions::default()).unwrap();
        (space, genotype, graph)
    }

    #[test]
    fn both_kinds_of_files_give_what_the_network_gives() {
        let folder = tempfile::tempdir().unwrap();
        let (space, genotype, graph) = network(6);
        let weights = Weights::seeded(&graph, 2);
        let files = export(&graph, &weights, &space, &genotype, folder.path(), "teacher").unwrap();
        let images = Tensor::randn([2, 3, 32, 32], (Kind::Float, tch::Device::Cpu));
        let expected = logits(&graph, &weights, &images).unwrap();
        for file in &files[..2] {
            let teacher = Teacher::load(file, 32).unwrap();
            assert_eq!(teacher.output, [6]);
            assert!(teacher.output_is_like(&graph) && !teacher.output_is_like(&network(7).2));
            assert!(teacher.embed(&images).unwrap().allclose(&expected, 1e-4, 1e-5, false), "{file:?}");
        }
    }

    #[test]
    fn what_another_engine_runs_is_a_teacher_by_the_count_of_its_numbers() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("strange.onnx");
        fs::write(&path, b"only the engine knows").unwrap();
        // The mean of every image, three times.
        let means = |numbers: &[f32], side: usize| {
            let image = 3 * side * side;
            let mean = |image: &[f32]| image.iter().sum::<f32>() / image.len() as f32;
            Ok(numbers.chunks(image).flat_map(|numbers| [mean(numbers); 3]).collect())
        };
        let teacher = Teacher::served(&path, 4, Box::new(means)).unwrap();
        assert_eq!(teacher.output, [3]);
        let images = Tensor::ones([2, 3, 4, 4], (Kind::Float, tch::Device::Cpu));
        let given = teacher.embed(&images).unwrap();
        assert!(given.size() == [2, 3] && given.eq(1.0).all().int64_value(&[]) == 1);
        assert!(teacher.output_is_like(&network(3).2) && !teacher.output_is_like(&network(4).2));
        let error = |serve: Serve| Teacher::served(&path, 4, serve).unwrap_err().to_string();
        assert!(error(Box::new(|_, _| Err("no such operator".into()))).contains("no such operator"));
        assert!(error(Box::new(|_, _| Ok(Vec::new()))).contains("0 numbers for 1 images"));
    }

    #[test]
    fn what_is_no_teacher_is_said() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        let error = |name: &str| Teacher::load(&path(name), 32).unwrap_err().to_string();
        assert!(error("none.pt").contains("none.pt"));
        for name in ["half.pt", "half.onnx"] {
            fs::write(path(name), b"PK\x03\x04 nothing").unwrap();
            assert!(error(name).starts_with("read the teacher"), "{}", error(name));
        }
        // A network for other images: ONNX files say what they take.
        let mut builder = GraphBuilder::new();
        let x = builder.input("input", Shape::new(1, 3, 8, 8)).unwrap();
        let y = builder.add("mean", OpSpec::GlobalAvgPool, &[x]).unwrap();
        let y = builder.add("linear", OpSpec::Linear { out_features: 2, bias: true }, &[y]).unwrap();
        let graph = builder.finish(&[y]).unwrap();
        let onnx = lathe_spaces::encode_onnx(&graph, &Weights::seeded(&graph, 1)).unwrap();
        fs::write(path("small.onnx"), onnx).unwrap();
        assert!(error("small.onnx").contains("on images of 3x32x32"), "{}", error("small.onnx"));
    }

    #[test]
    fn a_student_comes_to_give_what_its_teacher_gives() {
        let folder = tempfile::tempdir().unwrap();
        let (space, genotype, graph) = network(6);
        let weights = Weights::seeded(&graph, 2);
        let files = export(&graph, &weights, &space, &genotype, folder.path(), "teacher").unwrap();
        let settings = DataSettings {
            source: DataSource::Generated,
            resolution: 32,
            train_images: Some(60),
            test_images: Some(20),
        };
        let dataset = Arc::new(Dataset::load(&settings, 3, &|_, _| {}).unwrap());
        let stop = AtomicBool::new(false);
        let train = |epochs: usize, graph: &Graph| {
            let checkpoint = folder.path().join(format!("{epochs}"));
            let task = RetrainTask {
                graph,
                name: "student",
                dataset: Arc::clone(&dataset),
                teacher: Some(Rc::new(Teacher::load(&files[1], 32).unwrap())),
                settings: RetrainSettings {
                    epochs,
                    batch: 20,
                    learning_rate: 0.05,
                    momentum: 0.9,
                    weight_decay: 0.0,
                    gradient_clip: 5.0,
                    auxiliary: None,
                    drop_path: 0.0,
                    cutout: None,
                    validation: 0.0,
                },
                seed: 5,
                threads: 1,
                checkpoint: &checkpoint,
                stop: &stop,
            };
            let mut losses = Vec::new();
            let end = retrain(&task, &mut |progress| {
                if let Progress::Event(crate::Event::TrainEpoch { train_loss, .. }) = progress {
                    losses.push(train_loss);
                }
                Ok(())
            });
            end.map(|end| (end, losses))
        };
        let (end, losses) = train(8, &graph).unwrap();
        assert!(losses[7] < 0.5 * losses[0], "{losses:?}");
        let RetrainEnd::Finished { test_accuracy, .. } = end else { unreachable!("nobody stops it") };
        assert!((-1.0..=1.0).contains(&test_accuracy));
        // A student with other outputs is told so before anything is trained.
        let error = train(1, &network(7).2).unwrap_err().to_string();
        assert!(error.contains("that of the teacher, [6]"), "{error}");
    }
}
