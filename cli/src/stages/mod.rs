//! The parts of a run, one file each.

pub mod derive;
pub mod export;
pub mod fit;
pub mod limits;
pub mod measure;
pub mod paths;
pub mod probe;
pub mod report;
pub mod retrain;
pub mod rounds;
pub mod search;
pub mod verify;
