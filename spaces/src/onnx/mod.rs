//! Graphs as ONNX files.

mod encode;
mod message;

pub use encode::{OnnxError, encode_onnx};
