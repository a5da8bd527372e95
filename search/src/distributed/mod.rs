//! One training shared by several processes, which sum what they found over libtorch's c10d (Gloo).

mod collective;
mod environment;
mod error;
pub(crate) mod ffi;
mod process_group;
mod share;

pub use collective::{Alone, Collective, agree, sum_tensor, tell};
pub use environment::{Environment, EnvironmentError, StoreHost};
pub use error::CollectiveError;
pub use process_group::ProcessGroup;
pub use share::Share;

#[cfg(test)]
mod tests;
