//! One file per command.

pub mod bench;
pub mod db;
pub mod device;
pub mod fit;
pub mod predict;
pub mod report;
pub mod run;
pub mod show;
pub mod space;
pub mod table;
