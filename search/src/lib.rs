//! Who chooses: the supernet, the latency target, the derivation, and the training of what was derived.
//!
//! Without the feature `torch` the crate holds what needs no training: the record of a run, the
//! expected latency of a relaxed genotype, and the derivation of the best network under a limit.
//!
//! ```
//! use lathe_search::{Scores, derive_unconstrained};
//! use lathe_spaces::{Nas201Skeleton, Space};
//!
//! let space = Space::nas201(Nas201Skeleton { width: 16, cells: 5, resolution: 32, classes: 10 });
//! // One row of logits per edge: the last choice of every edge is liked best.
//! let alpha = space.slots().into_iter().map(|slot| {
//!     (0..space.edge(slot).choices.len()).map(|choice| choice as f64).collect()
//! });
//! let scores = Scores { alpha: alpha.collect(), beta: vec![0.0; space.slots().len()] };
//! let genotype = derive_unconstrained(&space, &scores);
//! assert_eq!(space.format(&genotype), "|avg_pool_3x3~0|+|avg_pool_3x3~0|avg_pool_3x3~1|+|avg_pool_3x3~0|avg_pool_3x3~1|avg_pool_3x3~2|");
//! ```

#[cfg(feature = "torch")]
mod augment;
#[cfg(feature = "torch")]
mod checkpoint;
mod collapse;
#[cfg(feature = "torch")]
mod constraint;
#[cfg(feature = "torch")]
mod cuda;
#[cfg(feature = "torch")]
mod data;
mod derive;
#[cfg(feature = "torch")]
mod distributed;
pub mod evolution;
#[cfg(test)]
mod expectation_tests;
#[cfg(feature = "torch")]
mod export;
#[cfg(all(test, feature = "torch"))]
mod failure_modes_tests;
#[cfg(test)]
mod fixtures;
#[cfg(feature = "torch")]
mod graph_module;
#[cfg(feature = "torch")]
mod halves;
mod limit;
#[cfg(feature = "torch")]
mod loader;
mod objective;
#[cfg(feature = "torch")]
mod optimizer;
#[cfg(feature = "torch")]
mod paths;
#[cfg(feature = "torch")]
mod penalty;
#[cfg(feature = "torch")]
mod profile;
#[cfg(feature = "torch")]
pub mod proxies;
mod record;
#[cfg(feature = "torch")]
mod regressor;
#[cfg(feature = "torch")]
mod relaxed_latency;
#[cfg(feature = "torch")]
mod resident;
#[cfg(feature = "torch")]
mod retrain;
mod run_record;
mod scores;
#[cfg(feature = "torch")]
mod search_loop;
#[cfg(feature = "torch")]
mod search_step;
mod settings;
#[cfg(feature = "torch")]
mod supernet;
pub mod tabular;
#[cfg(feature = "torch")]
mod teacher;
#[cfg(feature = "torch")]
mod unrolled;
mod whole;

#[cfg(feature = "torch")]
pub use augment::Augmentation;
#[cfg(feature = "torch")]
pub use checkpoint::CheckpointError;
pub use collapse::BlockSigns;
#[cfg(feature = "torch")]
pub use cuda::{CudaError, open_cuda};
#[cfg(feature = "torch")]
pub use data::{DataError, Dataset, ImageSet, Split};
pub use derive::{DeriveError, Derived, DerivedWithin, derive, derive_unconstrained, derive_within};
#[cfg(feature = "torch")]
pub use distributed::{
    Alone, Collective, CollectiveError, Environment, EnvironmentError, ProcessGroup, Share, StoreHost, agree,
    sum_tensor, tell,
};
#[cfg(feature = "torch")]
pub use export::{ExportError, export};
#[cfg(feature = "torch")]
pub use graph_module::{DropPath, GraphModule, GraphModuleError, logits};
pub use limit::{Limit, LimitValue, Quantity, Whole};
#[cfg(feature = "torch")]
pub use loader::{Batch, Loader};
pub use objective::{Costs, expected_latency};
#[cfg(feature = "torch")]
pub use paths::{
    Learning, PathEnd, PathScore, PathScorer, PathSettings, PathTask, Truth, WeightOptimizer, search_paths,
};
#[cfg(feature = "torch")]
pub use profile::{KernelTime, profile};
pub use record::{ArchSnapshot, Event, LimitEpoch, LimitRange, Origin, Stage, StopReason};
#[cfg(feature = "torch")]
pub use retrain::{RetrainEnd, RetrainError, RetrainTask, retrain};
pub use run_record::{RecordError, RunRecord};
pub use scores::{Scores, ScoresError};
#[cfg(feature = "torch")]
pub use search_loop::{
    Probe, Progress, SearchEnd, SearchError, SearchTask, SupernetScore, SupernetScorer, search, share_warm_up,
};
#[cfg(feature = "torch")]
pub use search_step::SearchStep;
pub use settings::{
    DataSettings, DataSource, Implementation, Method, ObjectiveSettings, Precision, RetrainSettings,
    SearchSettings, Sides, SupernetSettings, TrainingDevice,
};
#[cfg(feature = "torch")]
pub use supernet::SupernetError;
#[cfg(feature = "torch")]
pub use teacher::{Serve, Teacher, TeacherError};
pub use whole::{Extremes, WholeCosts};
