//! From a workload to the file that an engine loads, and to what it must compute.

use lathe_spaces::{
    Graph, Precision, Quantized, Shape, Weights, Workload, encode_onnx, encode_onnx_int8, encode_tflite,
    encode_tflite_int8, evaluate, seeded_input,
};

use crate::ModelFormat;

/// Seed of weights, inputs and calibration: latency doesn't depend on it, and one seed keeps expected outputs reusable.
pub const NUMBERS_SEED: u64 = 0;
/// Largest relative deviation of the sums of an output in single precision from the reference interpreter's.
const FP32_TOLERANCE: f64 = 1e-3;
/// The same for integers, which engines round in their own ways and places (the largest seen is 0.053, on a
/// random network of 10 logits).
const INT8_TOLERANCE: f64 = 0.15;

/// Largest relative deviation of an output's sums from the reference interpreter's.
pub(crate) const fn tolerance(precision: Precision) -> f64 {
    match precision {
        Precision::Int8 => INT8_TOLERANCE,
        _ => FP32_TOLERANCE,
    }
}

/// A file that an engine loads.
pub(crate) struct File {
    pub(crate) bytes: Vec<u8>,
    quantized: Option<Quantized>,
}

impl File {
    /// The file of a workload at its precision.
    pub(crate) fn of(workload: &Workload, weights: &Weights, format: ModelFormat) -> Result<Self, String> {
        match workload.precision {
            Precision::Fp32 => {
                let bytes = match format {
                    ModelFormat::Onnx => encode_onnx(&workload.graph, weights).map_err(words)?,
                    ModelFormat::Tflite => encode_tflite(&workload.graph, weights).map_err(words)?,
                };
                Ok(Self { bytes, quantized: None })
            }
            Precision::Int8 => {
                let quantized = Quantized::of(&workload.graph, weights, NUMBERS_SEED).map_err(words)?;
                let bytes = match format {
                    ModelFormat::Onnx => encode_onnx_int8(&quantized).map_err(words)?,
                    ModelFormat::Tflite => encode_tflite_int8(&quantized).map_err(words)?,
                };
                Ok(Self { bytes, quantized: Some(quantized) })
            }
            other => Err(format!("no file can be written at precision {other}")),
        }
    }

    /// What the file must compute of the seeded input, by the reference interpreter of its precision.
    pub(crate) fn output(&self, graph: &Graph, weights: &Weights, shape: Shape) -> Result<Vec<f32>, String> {
        let input = seeded_input(shape, NUMBERS_SEED);
        let output = match &self.quantized {
            Some(quantized) => quantized.evaluate(&input),
            None => evaluate(graph, weights, &input),
        };
        output.map_err(|error| format!("failed to {error}"))
    }
}

fn words(error: impl std::fmt::Display) -> String {
    format!("failed to {error}")
}
