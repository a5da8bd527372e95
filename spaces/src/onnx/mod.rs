//! Graphs as ONNX files.

mod build;
mod decode;
mod encode;
mod message;
mod primitives;
mod quantized;

pub use decode::{DecodeError, Decoded, UnknownOperator, decode_onnx};
pub use encode::{OnnxError, encode_onnx};
pub use quantized::encode_onnx_int8;
