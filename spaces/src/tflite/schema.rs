//! The part of TFLite's flatbuffers that networks need, after `schema.fbs` (version 3).
//!
//! Tables are described by hand: the numbers beside the fields are their positions in the schema.

use flatbuffers::{FlatBufferBuilder, TableFinishedWIPOffset, VOffsetT, WIPOffset};

/// `TensorType`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Element {
    Float32 = 0,
    Int32 = 2,
    Int8 = 9,
}

/// `BuiltinOperator`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Builtin {
    Add = 0,
    AveragePool2d = 1,
    Concatenation = 2,
    Conv2d = 3,
    DepthwiseConv2d = 4,
    DepthToSpace = 5,
    FullyConnected = 9,
    Logistic = 14,
    MaxPool2d = 17,
    Mul = 18,
    Relu = 19,
    Relu6 = 21,
    Reshape = 22,
    Tanh = 28,
    Pad = 34,
    Transpose = 39,
    Mean = 40,
    Prelu = 54,
    PadV2 = 60,
    Slice = 65,
    HardSwish = 117,
}

impl Builtin {
    /// First version of the operator that knows 8-bit integers; older ones know floats only.
    const fn version(self) -> i32 {
        match self {
            Self::Conv2d | Self::DepthwiseConv2d => 3,
            Self::FullyConnected => 4,
            Self::Reshape | Self::HardSwish | Self::Prelu | Self::DepthToSpace => 1,
            _ => 2,
        }
    }
}

/// `ActivationFunctionType`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fused {
    None = 0,
    Relu = 1,
    Relu6 = 3,
}

/// `BuiltinOptions`: what an operator says besides its inputs.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Options {
    None,
    Conv2d { same: bool, stride: i32, dilation: i32, fused: Fused },
    DepthwiseConv2d { same: bool, stride: i32, dilation: i32, multiplier: i32, fused: Fused },
    Pool2d { same: bool, stride: i32, filter: i32 },
    FullyConnected { fused: Fused },
    Concatenation { axis: i32 },
    Add { fused: Fused },
    Mul,
    Reshape { dims: Vec<i32> },
    Reducer { keep_dims: bool },
    Pad,
    PadV2,
    Slice,
    Transpose,
    HardSwish,
    DepthToSpace { block: i32 },
}

/// Scales along one axis.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Scales {
    pub(super) factors: Vec<f32>,
    pub(super) zero_points: Vec<i64>,
    pub(super) axis: i32,
}

/// A tensor; one with data is a constant.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct TensorEntry {
    pub(super) name: String,
    pub(super) dims: Vec<i32>,
    pub(super) element: Element,
    pub(super) scales: Option<Scales>,
    pub(super) data: Option<Vec<u8>>,
}

/// An operator; inputs and outputs are positions among the tensors.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct OperatorEntry {
    pub(super) builtin: Builtin,
    pub(super) inputs: Vec<i32>,
    pub(super) output: i32,
    pub(super) options: Options,
}

/// A file in the making.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct File {
    pub(super) tensors: Vec<TensorEntry>,
    pub(super) operators: Vec<OperatorEntry>,
    pub(super) inputs: Vec<i32>,
    pub(super) outputs: Vec<i32>,
}

type Flat = FlatBufferBuilder<'static>;
type Table = WIPOffset<TableFinishedWIPOffset>;

impl File {
    /// The bytes.
    pub(super) fn finish(self) -> Vec<u8> {
        let mut flat = FlatBufferBuilder::new();
        let mut codes: Vec<Builtin> = Vec::new();
        for operator in &self.operators {
            if !codes.contains(&operator.builtin) {
                codes.push(operator.builtin);
            }
        }
        // Buffer 0 is empty by convention; tensors without data refer to it.
        let mut buffers = vec![table(&mut flat, |_| {})];
        let mut tensors = Vec::with_capacity(self.tensors.len());
        for entry in &self.tensors {
            let buffer = match &entry.data {
                Some(data) => {
                    let data = flat.create_vector(data);
                    buffers.push(table(&mut flat, |flat| flat.push_slot_always(slot(0), data)));
                    buffers.len() as u32 - 1
                }
                None => 0,
            };
            tensors.push(tensor(&mut flat, entry, buffer));
        }
        let mut operators = Vec::with_capacity(self.operators.len());
        for entry in &self.operators {
            let code = codes.iter().position(|code| *code == entry.builtin).unwrap_or_default();
            operators.push(operator(&mut flat, entry, code as u32));
        }
        let codes: Vec<Table> = codes
            .iter()
            .map(|&code| {
                table(&mut flat, |flat| {
                    flat.push_slot_always(slot(0), code as i8);
                    flat.push_slot_always(slot(2), code.version());
                    flat.push_slot_always(slot(3), code as i32);
                })
            })
            .collect();

        let (inputs, outputs) = (flat.create_vector(&self.inputs), flat.create_vector(&self.outputs));
        let (tensors, operators) = (flat.create_vector(&tensors), flat.create_vector(&operators));
        let name = flat.create_string("main");
        let subgraph = table(&mut flat, |flat| {
            flat.push_slot_always(slot(0), tensors);
            flat.push_slot_always(slot(1), inputs);
            flat.push_slot_always(slot(2), outputs);
            flat.push_slot_always(slot(3), operators);
            flat.push_slot_always(slot(4), name);
        });
        let (codes, subgraphs) = (flat.create_vector(&codes), flat.create_vector(&[subgraph]));
        let buffers = flat.create_vector(&buffers);
        let description = flat.create_string(concat!("lathe ", env!("CARGO_PKG_VERSION")));
        let model = table(&mut flat, |flat| {
            flat.push_slot_always(slot(0), 3_u32);
            flat.push_slot_always(slot(1), codes);
            flat.push_slot_always(slot(2), subgraphs);
            flat.push_slot_always(slot(3), description);
            flat.push_slot_always(slot(4), buffers);
        });
        flat.finish(model, Some("TFL3"));
        flat.finished_data().to_vec()
    }
}

/// Place of a field in a table's index.
const fn slot(field: VOffsetT) -> VOffsetT {
    4 + 2 * field
}

fn table(flat: &mut Flat, fill: impl FnOnce(&mut Flat)) -> Table {
    let start = flat.start_table();
    fill(flat);
    flat.end_table(start)
}

fn tensor(flat: &mut Flat, entry: &TensorEntry, buffer: u32) -> Table {
    let dims = flat.create_vector(&entry.dims);
    let name = flat.create_string(&entry.name);
    let scales = entry.scales.as_ref().map(|scales| {
        let numbers = flat.create_vector(&scales.factors);
        let zero_points = flat.create_vector(&scales.zero_points);
        table(flat, |flat| {
            flat.push_slot_always(slot(2), numbers);
            flat.push_slot_always(slot(3), zero_points);
            flat.push_slot_always(slot(6), scales.axis);
        })
    });
    table(flat, |flat| {
        flat.push_slot_always(slot(0), dims);
        flat.push_slot_always(slot(1), entry.element as i8);
        flat.push_slot_always(slot(2), buffer);
        flat.push_slot_always(slot(3), name);
        if let Some(scales) = scales {
            flat.push_slot_always(slot(4), scales);
        }
    })
}

fn operator(flat: &mut Flat, entry: &OperatorEntry, code: u32) -> Table {
    let inputs = flat.create_vector(&entry.inputs);
    let outputs = flat.create_vector(&[entry.output]);
    let (kind, options) = options(flat, &entry.options);
    table(flat, |flat| {
        flat.push_slot_always(slot(0), code);
        flat.push_slot_always(slot(1), inputs);
        flat.push_slot_always(slot(2), outputs);
        flat.push_slot_always(slot(3), kind);
        if let Some(options) = options {
            flat.push_slot_always(slot(4), options);
        }
    })
}

/// Number of the kind of options, and their table.
fn options(flat: &mut Flat, options: &Options) -> (u8, Option<Table>) {
    let padding = |same: bool| i8::from(!same);
    let dims = match options {
        Options::Reshape { dims } => Some(flat.create_vector(dims)),
        _ => None,
    };
    let mut kind = 0;
    let table = table(flat, |flat| match *options {
        Options::None => {}
        Options::Conv2d { same, stride, dilation, fused } => {
            kind = 1;
            flat.push_slot_always(slot(0), padding(same));
            flat.push_slot_always(slot(1), stride);
            flat.push_slot_always(slot(2), stride);
            flat.push_slot_always(slot(3), fused as i8);
            flat.push_slot_always(slot(4), dilation);
            flat.push_slot_always(slot(5), dilation);
        }
        Options::DepthwiseConv2d { same, stride, dilation, multiplier, fused } => {
            kind = 2;
            flat.push_slot_always(slot(0), padding(same));
            flat.push_slot_always(slot(1), stride);
            flat.push_slot_always(slot(2), stride);
            flat.push_slot_always(slot(3), multiplier);
            flat.push_slot_always(slot(4), fused as i8);
            flat.push_slot_always(slot(5), dilation);
            flat.push_slot_always(slot(6), dilation);
        }
        Options::Pool2d { same, stride, filter } => {
            kind = 5;
            flat.push_slot_always(slot(0), padding(same));
            flat.push_slot_always(slot(1), stride);
            flat.push_slot_always(slot(2), stride);
            flat.push_slot_always(slot(3), filter);
            flat.push_slot_always(slot(4), filter);
        }
        Options::FullyConnected { fused } => {
            kind = 8;
            flat.push_slot_always(slot(0), fused as i8);
        }
        Options::Concatenation { axis } => {
            kind = 10;
            flat.push_slot_always(slot(0), axis);
        }
        Options::Add { fused } => {
            kind = 11;
            flat.push_slot_always(slot(0), fused as i8);
        }
        Options::Reshape { .. } => {
            kind = 17;
            if let Some(dims) = dims {
                flat.push_slot_always(slot(0), dims);
            }
        }
        Options::Mul => kind = 21,
        Options::Pad => kind = 22,
        Options::Transpose => kind = 26,
        Options::Reducer { keep_dims } => {
            kind = 27;
            flat.push_slot_always(slot(0), keep_dims);
        }
        Options::PadV2 => kind = 43,
        Options::Slice => kind = 48,
        Options::HardSwish => kind = 91,
        Options::DepthToSpace { block } => {
            kind = 94;
            flat.push_slot_always(slot(0), block);
        }
    });
    (kind, (kind != 0).then_some(table))
}
