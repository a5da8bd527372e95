//! One file per command.

pub mod bench;
mod compare;
pub mod db;
pub mod device;
pub mod fit;
pub mod front;
pub mod measure;
pub mod predict;
pub mod report;
pub mod run;
pub mod show;
pub mod space;
pub mod table;
pub mod zoo;
