//! What can be searched, and what can be timed.
//!
//! A [`Space`] is data: blocks of nodes, edges and choices, and the skeleton that stacks them at the
//! width, depth and resolution that will be deployed. A [`Genotype`] is one point of it, a [`Graph`]
//! the network that it stands for, and a [`Workload`] whatever a device can be asked to time: an
//! operator, a fixed part, a whole network. Networks leave as ONNX files.
//!
//! ```
//! use lathe_spaces::{DartsSkeleton, NetworkOptions, Space, Stem, Stream, Weights, encode_onnx};
//!
//! let stem = Stem::Cifar;
//! let space = Space::darts(DartsSkeleton { stem, width: 8, layers: 5, resolution: 16, classes: 10 });
//! let genotype = space.sample(&mut Stream::new(0, "example", 0));
//! assert_eq!(space.parse(&space.format(&genotype))?, genotype);
//! let graph = space.network(&genotype, NetworkOptions::default())?;
//! assert!(graph.macs() > 0 && !space.workloads()?.is_empty());
//! let file = encode_onnx(&graph, &Weights::seeded(&graph, 0))?;
//! # assert!(!file.is_empty());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod blocks;
mod darts;
mod elastic;
mod evaluate;
mod fold;
mod genotype;
mod graph;
mod mersenne;
mod micros;
mod nas201;
mod network;
mod onnx;
mod op;
mod quantize;
mod sampling;
mod shape;
mod space;
mod stages;
mod stream;
mod text;
mod tflite;
mod weights;
mod window;
mod workload;
mod zoo;

pub use blocks::{BLOCKS, Block, BlockError, BlockKind, Example, Parameter, Values, collapse};
pub use darts::{DartsSkeleton, Stem};
pub use elastic::{
    ElasticEntry, ElasticLayer, ElasticSkeleton, ElasticStage, Mixture, PublishedText, SPACES, SpaceFile,
    SpaceFileError, StageText,
};
pub use evaluate::evaluate;
pub use fold::{FoldError, FoldRule, Folded, LinearPair, fold, fold_graph, linear_pairs};
pub use genotype::{BlockGenotype, Genotype, GenotypeError, Pick};
pub use graph::{Graph, GraphBuilder, GraphError, Node, NodeId, TensorSpec};
pub use micros::Micros;
pub use nas201::Nas201Skeleton;
pub use network::{NetworkOptions, SpaceError};
pub use onnx::{
    DecodeError, Decoded, OnnxError, UnknownOperator, decode_onnx, encode_onnx, encode_onnx_int8,
};
pub use op::{BATCH_NORM_EPSILON, BytesMoved, Function, OpError, OpSpec};
pub use quantize::{Affine, QuantizeError, Quantized};
pub use shape::Shape;
pub use space::{BlockSpec, EdgeSpec, NodeSpec, Skeleton, Slot, Space};
pub use stages::{StagePosition, StageSkeleton};
pub use stream::Stream;
pub use tflite::{TfliteError, encode_tflite, encode_tflite_int8};
pub use weights::{Tensor, Weights, WeightsError, seeded_input};
pub use workload::{Level, Precision, Workload, WorkloadId};
pub use zoo::{ZOO, ZooError, ZooLayer, ZooNetwork, ZooReference};
