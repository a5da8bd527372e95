//! Tables of operator latencies as OFA and `ProxylessNAS` publish them.

mod blocks;
mod error;
mod export;
mod import;
mod key;
mod table;
#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests;
mod yaml;

pub use error::LookupTableError;
pub use import::{Imported, Unusable};
pub use key::{Dialect, Maps, OperatorKey};
pub use table::{Figures, LookupTable, Spread};
