//! Tests of the `lathe` binary itself, with a real agent and a real engine.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod bench_predictor;
mod bench_proxies;
mod bench_search;
mod devices;
mod fixture;
mod help;
mod interruption;
mod measure;
mod nas201;
mod objective;
mod predict;
mod shared_search;
mod spaces;
mod stages;
mod studies;
mod tables;
mod targets;
mod unhappy_paths;
mod whole_loop;
mod zoo;
