//! Latency of graphs that were never seen, from the kernels that they are made of.

pub mod benchmark;
mod error;
mod fusion;
mod held_out;
mod kernel;
mod model;
mod model_file;
mod residual;
mod sampling;
mod selection;
mod timed_graph;

pub use error::KernelError;
pub use fusion::{Fusion, FusionEvidence, PairTimes};
pub use held_out::{Knowledge, held_out_by};
pub use kernel::{Kernel, split};
pub use model::{GraphPrediction, KernelModel, KernelShare, Validation};
pub use model_file::ModelHeader;
pub use sampling::{KernelSample, next_kernels};
pub use selection::next_networks;
pub use timed_graph::TimedGraph;
