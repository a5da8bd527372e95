//! Where a block is built, and what blocks are built of.

use super::{Block, BlockError};
use crate::{Function, GraphBuilder, NodeId, OpSpec, Shape, network::NORM};

/// A graph in the making, the block that is added to it, and what the place asks for.
pub(crate) struct Site<'a> {
    pub(super) builder: &'a mut GraphBuilder,
    pub(super) prefix: &'a str,
    pub(super) block: &'a Block,
    /// Output channels.
    pub(super) channels: usize,
    /// Stride.
    pub(super) stride: usize,
}

/// A convolution with what usually stands around it.
#[derive(Clone, Copy)]
#[expect(clippy::struct_excessive_bools, reason = "each is there or not, independently")]
pub(super) struct Conv {
    out: usize,
    kernel: usize,
    stride: usize,
    groups: usize,
    padding: Option<usize>,
    bias: bool,
    norm: bool,
    activation: Option<OpSpec>,
    same: bool,
    scaled: bool,
}

impl Conv {
    /// `kernel × kernel` to `out` channels, zeros around so that stride 1 keeps the size; with a batch norm.
    pub(super) const fn square(out: usize, kernel: usize, stride: usize) -> Self {
        Self {
            out,
            kernel,
            stride,
            groups: 1,
            padding: None,
            bias: false,
            norm: true,
            activation: None,
            same: false,
            scaled: false,
        }
    }

    /// 1×1.
    pub(super) const fn pointwise(out: usize) -> Self {
        Self::square(out, 1, 1)
    }

    /// One channel at a time.
    pub(super) const fn depthwise(channels: usize, kernel: usize, stride: usize) -> Self {
        Self { groups: channels, ..Self::square(channels, kernel, stride) }
    }

    pub(super) const fn grouped(self, groups: usize) -> Self {
        Self { groups, ..self }
    }

    /// So many zeros on every side.
    pub(super) const fn padded(self, padding: usize) -> Self {
        Self { padding: Some(padding), ..self }
    }

    pub(super) const fn biased(self, bias: bool) -> Self {
        Self { bias, ..self }
    }

    /// Without the batch norm.
    pub(super) const fn plain(self) -> Self {
        Self { norm: false, ..self }
    }

    /// With or without the batch norm.
    pub(super) const fn normed(self, norm: bool) -> Self {
        Self { norm, ..self }
    }

    pub(super) const fn then(self, activation: Option<OpSpec>) -> Self {
        Self { activation, ..self }
    }

    /// Padded as `TensorFlow`'s `SAME`: what is missing below and to the right.
    pub(super) const fn same(self, same: bool) -> Self {
        Self { same, ..self }
    }

    /// With a learned scale and shift behind the activation (`HGNetv2`'s LAB).
    pub(super) const fn scaled(self, scaled: bool) -> Self {
        Self { scaled, ..self }
    }
}

pub(super) const RELU: Option<OpSpec> = Some(OpSpec::Relu);
pub(super) const SIGMOID: OpSpec = OpSpec::Activation { function: Function::Sigmoid };
pub(super) const GELU: Option<OpSpec> = Some(OpSpec::Activation { function: Function::Gelu });

/// Words for activations; [`activation`] reads them.
pub(super) const ACTIVATIONS: &[&str] =
    &["relu", "relu6", "swish", "hard_swish", "gelu", "prelu", "sigmoid", "none"];

fn activation(word: &str) -> Option<OpSpec> {
    let function = |function| Some(OpSpec::Activation { function });
    match word {
        "relu" => RELU,
        "relu6" => function(Function::Relu6),
        "swish" => function(Function::Swish),
        "hard_swish" => function(Function::HardSwish),
        "gelu" => GELU,
        "prelu" => Some(OpSpec::Prelu),
        "sigmoid" => Some(SIGMOID),
        _ => None,
    }
}

impl Site<'_> {
    pub(super) fn number(&self, key: &str) -> usize {
        self.block.value(key)
    }

    pub(super) fn flag(&self, key: &str) -> bool {
        self.block.value(key) == 1
    }

    /// The activation that the parameter `act` names.
    pub(super) fn activation(&self) -> Option<OpSpec> {
        self.block.word("act").and_then(activation)
    }

    pub(super) fn shape(&self, x: NodeId) -> Shape {
        self.builder.shape(x)
    }

    /// The place can't be served.
    pub(super) fn refuse(&self, x: NodeId, why: impl Into<String>) -> BlockError {
        BlockError::Place {
            block: self.block.to_string(),
            input: self.shape(x),
            channels: self.channels,
            stride: self.stride,
            why: why.into(),
        }
    }

    /// Refuses places that change channels or size.
    pub(super) fn keeps(&self, x: NodeId) -> Result<(), BlockError> {
        if self.stride == 1 && self.shape(x).c == self.channels {
            return Ok(());
        }
        Err(self.refuse(x, "it keeps channels and size"))
    }

    pub(super) fn add(&mut self, name: &str, op: OpSpec, inputs: &[NodeId]) -> Result<NodeId, BlockError> {
        let name = format!("{}.{name}", self.prefix);
        self.builder
            .add(&name, op, inputs)
            .map_err(|source| BlockError::Graph { block: self.block.to_string(), source })
    }

    /// Adds an activation if there is one.
    pub(super) fn activate(
        &mut self,
        name: &str,
        x: NodeId,
        activation: Option<OpSpec>,
    ) -> Result<NodeId, BlockError> {
        activation.map_or(Ok(x), |op| self.add(name, op, &[x]))
    }

    /// `<name>` and, where wanted, `<name>.pad`, `.norm`, `.act` and `.scale`.
    pub(super) fn conv(&mut self, name: &str, x: NodeId, conv: Conv) -> Result<NodeId, BlockError> {
        let Conv { out, kernel, stride, groups, bias, .. } = conv;
        let shape = self.shape(x);
        let missing = |size: usize| {
            (size.div_ceil(stride.max(1)).saturating_sub(1) * stride + kernel).saturating_sub(size)
        };
        let (rows, columns) = (missing(shape.h), missing(shape.w));
        let mut y = x;
        let padding = match conv.padding {
            Some(padding) => padding,
            None if !conv.same => kernel / 2,
            None if rows == columns && rows.is_multiple_of(2) => rows / 2,
            None => {
                let (top, left) = (rows / 2, columns / 2);
                let pad = OpSpec::Pad { top, left, bottom: rows - top, right: columns - left };
                y = self.add(&format!("{name}.pad"), pad, &[x])?;
                0
            }
        };
        let op = OpSpec::Conv2d { out_channels: out, kernel, stride, padding, dilation: 1, groups, bias };
        y = self.add(name, op, &[y])?;
        if conv.norm {
            y = self.add(&format!("{name}.norm"), NORM, &[y])?;
        }
        y = self.activate(&format!("{name}.act"), y, conv.activation)?;
        if conv.scaled {
            y = self.add(&format!("{name}.scale"), OpSpec::ScalarAffine, &[y])?;
        }
        Ok(y)
    }

    /// Squeeze-and-excite (Hu et al. 2018): a gate per channel from the means of all channels.
    pub(super) fn squeeze_excite(
        &mut self,
        name: &str,
        x: NodeId,
        hidden: usize,
        activation: Option<OpSpec>,
    ) -> Result<NodeId, BlockError> {
        let channels = self.shape(x).c;
        let mean = self.add(&format!("{name}.mean"), OpSpec::GlobalAvgPool, &[x])?;
        let reduce = Conv::pointwise(hidden).plain().biased(true).then(activation);
        let squeezed = self.conv(&format!("{name}.reduce"), mean, reduce)?;
        let expand = Conv::pointwise(channels).plain().biased(true).then(Some(SIGMOID));
        let gate = self.conv(&format!("{name}.expand"), squeezed, expand)?;
        self.add(&format!("{name}.gated"), OpSpec::Mul, &[x, gate])
    }

    /// `x + y` under a name.
    pub(super) fn sum(&mut self, name: &str, x: NodeId, y: NodeId) -> Result<NodeId, BlockError> {
        self.add(name, OpSpec::Add, &[x, y])
    }

    /// `x + y` where the shapes agree and nobody said `nores`; else `y`.
    pub(super) fn residual(&mut self, x: NodeId, y: NodeId) -> Result<NodeId, BlockError> {
        if self.flag("nores") || self.shape(x) != self.shape(y) { Ok(y) } else { self.sum("sum", x, y) }
    }
}

/// The nearest multiple of 8, halves up, at least 8 (`MobileDets`' `_scale_filters`, `MobileNet`'s
/// `make_divisible` without its lower limit).
pub(super) const fn in_eights(channels: usize) -> usize {
    let rounded = (channels + 4) / 8 * 8;
    if rounded < 8 { 8 } else { rounded }
}
