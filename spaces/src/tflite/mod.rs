//! Graphs as TFLite files.

mod encode;
mod layout;
mod schema;

pub use encode::{TfliteError, encode_tflite, encode_tflite_int8};
