//! Images: where they come from, and in which form they are kept.

mod cifar;
mod dataset;
mod error;
mod folder;
mod generated;
mod resize;

pub use dataset::{Dataset, ImageSet, Split};
pub use error::DataError;

/// Training images, test images and names of the classes.
type Loaded = (ImageSet, ImageSet, Vec<String>);
