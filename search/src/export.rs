//! A trained network as files that other tools read.

use std::{
    borrow::Cow,
    collections::BTreeMap,
    fs::{self, File},
    io::{self, Write as _},
    path::{Path, PathBuf},
};

use lathe_spaces::{
    FoldError, Genotype, Graph, OnnxError, Shape, Skeleton, Space, Tensor as Values, Weights, encode_onnx,
};
use safetensors::{Dtype, SafeTensorError, View};
use serde::Serialize;
use tch::{CModule, Kind, TchError, Tensor, no_grad};
use thiserror::Error;

use crate::{GraphModule, GraphModuleError};

/// Why a network can't be exported.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ExportError {
    /// The file system refused.
    #[error("write `{}`: {source}; hint: the run's directory must be writable and have free space", path.display())]
    Io {
        /// File or folder.
        path: PathBuf,
        /// Cause.
        source: io::Error,
    },
    /// A name that is no file name.
    #[error("export `{0}`: expected a name without slashes that is not empty")]
    Name(String),
    /// The network can't be folded.
    #[error("export `{name}`: {source}")]
    Fold {
        /// Network.
        name: String,
        /// Cause.
        source: FoldError,
    },
    /// The ONNX file can't be made.
    #[error("export `{name}` as ONNX: {source}")]
    Onnx {
        /// Network.
        name: String,
        /// Cause.
        source: OnnxError,
    },
    /// The network can't be run.
    #[error("export `{name}` as TorchScript: {source}")]
    Network {
        /// Network.
        name: String,
        /// Cause.
        source: GraphModuleError,
    },
    /// libtorch refused to trace or write it.
    #[error("export `{name}` as TorchScript: {source}")]
    Script {
        /// Network.
        name: String,
        /// Cause.
        source: TchError,
    },
    /// The weights can't be written.
    #[error("export the weights of `{name}`: {source}")]
    Weights {
        /// Network.
        name: String,
        /// Cause.
        source: SafeTensorError,
    },
    /// The genotype can't be written.
    #[error("export the genotype of `{name}`: {source}")]
    Genotype {
        /// Network.
        name: String,
        /// Cause.
        source: serde_json::Error,
    },
}

/// What `NAME.genotype.json` holds.
#[derive(Serialize)]
struct Description<'a> {
    name: &'a str,
    /// Version of Lathe.
    version: &'static str,
    space: &'a str,
    /// Text form.
    genotype: String,
    blocks: &'a Genotype,
    skeleton: &'a Skeleton,
    input: Shape,
    parameters: u64,
    macs: u64,
}

/// Writes a trained network (without auxiliary head) into `directory`, which is created if absent: as it is deployed
/// ([`Space::deploy`]) `NAME.onnx` and `NAME.pt` (`TorchScript`, any batch size), as it was trained
/// `NAME.safetensors` (weights and statistics under the graph's names), and `NAME.genotype.json`, whose counts are
/// those of the network before it is folded. Returns their paths in this order.
///
/// Every file appears whole or not at all; files of these names are replaced.
pub fn export(
    graph: &Graph,
    weights: &Weights,
    space: &Space,
    genotype: &Genotype,
    directory: &Path,
    name: &str,
) -> Result<Vec<PathBuf>, ExportError> {
    if name.is_empty() || name.contains(['/', '\\']) {
        return Err(ExportError::Name(name.to_owned()));
    }
    let graph = graph.without_auxiliary();
    let deployed = space
        .deploy(&graph, weights)
        .map_err(|source| ExportError::Fold { name: name.to_owned(), source })?;
    let onnx = encode_onnx(&deployed.graph, &deployed.weights)
        .map_err(|source| ExportError::Onnx { name: name.to_owned(), source })?;
    let tensors = stored(&graph, weights);
    let bytes = safetensors::serialize(&tensors, None)
        .map_err(|source| ExportError::Weights { name: name.to_owned(), source })?;
    let description = Description {
        name,
        version: env!("CARGO_PKG_VERSION"),
        space: &space.name,
        genotype: space.format(genotype),
        blocks: genotype,
        skeleton: &space.skeleton,
        input: graph.input_shape().unwrap_or(Shape::new(0, 0, 0, 0)),
        parameters: graph.parameter_count(),
        macs: graph.macs(),
    };
    let mut description = serde_json::to_vec_pretty(&description)
        .map_err(|source| ExportError::Genotype { name: name.to_owned(), source })?;
    description.push(b'\n');

    fs::create_dir_all(directory).map_err(io(directory))?;
    let path = |extension: &str| directory.join(format!("{name}.{extension}"));
    let paths = [path("onnx"), path("pt"), path("safetensors"), path("genotype.json")];
    replace(&paths[0], &onnx)?;
    script(&deployed.graph, &deployed.weights, &paths[1], name)?;
    replace(&paths[2], &bytes)?;
    replace(&paths[3], &description)?;
    // The new names are durable only once the directory is.
    File::open(directory).and_then(|folder| folder.sync_all()).map_err(io(directory))?;
    Ok(paths.into())
}

/// The tensors of a graph.
fn stored<'a>(graph: &Graph, weights: &'a Weights) -> BTreeMap<String, Stored<'a>> {
    let specs = graph.parameters().into_iter().chain(graph.statistics());
    specs
        .filter_map(|spec| {
            weights.0.get_key_value(&spec.name).map(|(name, tensor)| (name.clone(), Stored(tensor)))
        })
        .collect()
}

/// A tensor on its way into a safetensors file.
struct Stored<'a>(&'a Values);

impl View for &Stored<'_> {
    fn dtype(&self) -> Dtype {
        Dtype::F32
    }

    fn shape(&self) -> &[usize] {
        &self.0.dims
    }

    fn data(&self) -> Cow<'_, [u8]> {
        Cow::Owned(self.0.values.iter().flat_map(|value| value.to_le_bytes()).collect())
    }

    fn data_len(&self) -> usize {
        self.0.values.len() * size_of::<f32>()
    }
}

/// Traces the network in inference mode; its weights become constants of the file.
fn script(graph: &Graph, weights: &Weights, path: &Path, name: &str) -> Result<(), ExportError> {
    let network = |source| ExportError::Network { name: name.to_owned(), source };
    let failed = |source| ExportError::Script { name: name.to_owned(), source };
    let module = GraphModule::frozen(graph, weights).map_err(network)?;
    let shape = graph.input_shape().ok_or_else(|| network(GraphModuleError::Inputs(0)))?;
    // Two images: a batch of one could be traced into an extent of one.
    let example =
        Tensor::zeros([2, shape.c as i64, shape.h as i64, shape.w as i64], (Kind::Float, tch::Device::Cpu));
    let traced = no_grad(|| {
        let mut forward = |inputs: &[Tensor]| module.forward(&inputs[0], None);
        CModule::create_by_tracing("Network", "forward", &[example], &mut forward)
    })
    .map_err(failed)?;
    let partial = partial(path);
    traced.save(&partial).map_err(failed)?;
    File::open(&partial).and_then(|file| file.sync_all()).map_err(io(&partial))?;
    fs::rename(&partial, path).map_err(io(path))
}

fn replace(path: &Path, bytes: &[u8]) -> Result<(), ExportError> {
    let partial = partial(path);
    let write = || {
        let mut file = File::create(&partial)?;
        file.write_all(bytes)?;
        file.sync_all()
    };
    write().map_err(io(&partial))?;
    fs::rename(&partial, path).map_err(io(path))
}

/// Name while a file is being written; a half file under it is harmless and is overwritten.
fn partial(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".partial");
    name.into()
}

fn io(path: &Path) -> impl Fn(io::Error) -> ExportError + '_ {
    |source| ExportError::Io { path: path.to_owned(), source }
}

#[cfg(test)]
#[path = "export_tests.rs"]
mod tests;
