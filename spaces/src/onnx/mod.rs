//! Graphs as ONNX files.

mod decode;
mod encode;
mod message;

pub use decode::{DecodeError, Decoded, UnknownOperator, decode_onnx};
pub use encode::{OnnxError, encode_onnx};
