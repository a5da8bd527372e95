//! From single operators of an ONNX file to nodes of a graph.

use super::{
    Reader, Step,
    constants::resolve,
    values::{Attributes, Known, Value},
};
use crate::{BATCH_NORM_EPSILON, Function, NodeId, OpSpec, Shape, onnx::message::NodeMessage};

impl Reader {
    /// What becomes of one node whose inputs are all there; the error is a contradiction inside the file.
    pub(super) fn step(&mut self, node: &NodeMessage, name: &str) -> Result<Step, String> {
        if let Some(known) = self.fold(node)? {
            return Ok(Step::Value(Value::Known(known)));
        }
        let attributes = Attributes(node);
        let unknown = |reason: &str| Ok(Step::Unknown(reason.to_owned()));
        let kind = node.kind.as_str();
        if let Some(step) = self.partial(node, name) {
            return step;
        }
        if matches!(kind, "Add" | "Sum" | "Mean" | "Mul" | "Concat") {
            return self.several(node, name);
        }
        let Some((x, dims)) = self.operand(node, 0) else {
            return unknown(match self.value(node, 0) {
                Some(Value::Partial(partial)) => partial.reason(),
                _ => "of constants or other shapes",
            });
        };
        let elementwise = match self.elementwise(node) {
            Ok(op) => op,
            Err(reason) => return Ok(Step::Unknown(reason)),
        };
        if let Some(op) = elementwise {
            let (id, _) = self.add(name, op, &[x])?;
            return Ok(Step::Value(Value::Node { id, dims }));
        }
        let image = dims.len() == 4;
        match kind {
            "Identity" | "Dropout" | "Cast" => Ok(Step::Value(Value::Node { id: x, dims })),
            "Conv" if image => self.convolution(node, name, x),
            "BatchNormalization" => self.batch_norm(node, name, x, dims),
            "MaxPool" | "AveragePool" if image => self.pool(node, name, x),
            "GlobalAveragePool" if image => self.place(name, OpSpec::GlobalAvgPool, &[x]),
            "ReduceMean" if image => self.mean(node, name, x),
            "Gemm" | "MatMul" => self.linear(node, name, x, &dims),
            "Flatten" if matches!(attributes.int("axis", 1), 1 | -3) && !dims.is_empty() => {
                let dims = vec![dims[0], dims[1..].iter().product()];
                Ok(Step::Value(Value::Node { id: x, dims }))
            }
            "Squeeze" if image && dims[2..] == [1, 1] => {
                Ok(Step::Value(Value::Node { id: x, dims: dims[..2].to_vec() }))
            }
            "Unsqueeze" if dims.len() == 2 && self.shapes[x].dims()[2..] == [1, 1] => {
                Ok(Step::Value(Value::Node { id: x, dims: self.shapes[x].dims().to_vec() }))
            }
            "Reshape" => Ok(self.reshape(node, x, &dims)),
            "Slice" if image => self.slice(node, name, x),
            "Pad" if image => self.pad(node, name, x),
            "PRelu" if image => self.prelu(node, name, x),
            "DepthToSpace" if image => self.depth_to_space(node, name, x),
            "ConvTranspose" if image => self.conv_transpose(node, name, x),
            _ => unknown(""),
        }
    }

    /// Functions of single numbers; `None` for other operators, the error for unknown parameters.
    fn elementwise(&self, node: &NodeMessage) -> Result<Option<OpSpec>, String> {
        let attributes = Attributes(node);
        let function = |function| OpSpec::Activation { function };
        Ok(match node.kind.as_str() {
            "Relu" => Some(OpSpec::Relu),
            "Sigmoid" => Some(function(Function::Sigmoid)),
            "Tanh" => Some(function(Function::Tanh)),
            "HardSwish" => Some(function(Function::HardSwish)),
            "Gelu" => match attributes.text("approximate").as_str() {
                "" | "none" => Some(function(Function::Gelu)),
                other => return Err(format!("approximate {other}")),
            },
            "Swish" if (attributes.float("alpha", 1.0) - 1.0).abs() < 1e-6 => Some(function(Function::Swish)),
            "HardSigmoid" => {
                let (alpha, beta) = (attributes.float("alpha", 0.2), attributes.float("beta", 0.5));
                if (alpha - 1.0 / 6.0).abs() > 1e-4 || (beta - 0.5).abs() > 1e-6 {
                    return Err(format!("alpha {alpha}, beta {beta}"));
                }
                Some(function(Function::HardSigmoid))
            }
            "Clip" => {
                let bound = |index, name| {
                    let listed = self.known(node, index).and_then(|known| known.floats.as_ref()?.first());
                    listed.copied().or_else(|| attributes.get(name).and_then(|found| found.float))
                };
                match (bound(1, "min"), bound(2, "max")) {
                    (Some(0.0), Some(6.0)) => Some(function(Function::Relu6)),
                    (Some(0.0), None) => Some(OpSpec::Relu),
                    (low, high) => return Err(format!("from {low:?} to {high:?}")),
                }
            }
            _ => None,
        })
    }

    /// A mean over rows and columns.
    fn mean(&mut self, node: &NodeMessage, name: &str, x: NodeId) -> Result<Step, String> {
        let attributes = Attributes(node);
        let axes = self.integers(node, 1, "axes").unwrap_or_default();
        let mut axes: Vec<i64> =
            axes.into_iter().map(|axis| if axis < 0 { axis + 4 } else { axis }).collect();
        axes.sort_unstable();
        if axes != [2, 3] {
            return Ok(Step::Unknown(format!("over axes {axes:?}")));
        }
        let (id, _) = self.add(name, OpSpec::GlobalAvgPool, &[x])?;
        let shape = self.shapes[id];
        let keeps = attributes.int("keepdims", 1) == 1;
        let dims = if keeps { shape.dims().to_vec() } else { vec![shape.n, shape.c] };
        Ok(Step::Value(Value::Node { id, dims }))
    }

    /// Reshapes that keep the order of numbers where a graph can say so.
    fn reshape(&self, node: &NodeMessage, x: NodeId, dims: &[usize]) -> Step {
        let listed = self.integers(node, 1, "shape");
        let Some(wanted) = listed.and_then(|wanted| resolve(&wanted, dims)) else {
            return Step::Unknown("to a shape that is not known beforehand".into());
        };
        let shape = self.shapes[x];
        match wanted[..] {
            [n, _] if n == shape.n => Step::Value(Value::Node { id: x, dims: wanted }),
            [_, _, _, _] if wanted == shape.dims() => Step::Value(Value::Node { id: x, dims: wanted }),
            _ => Step::Unknown(format!("from {dims:?} to {wanted:?}")),
        }
    }

    /// Sums, products and concatenations.
    fn several(&mut self, node: &NodeMessage, name: &str) -> Result<Step, String> {
        let unknown = |reason: String| Ok(Step::Unknown(reason));
        let mut operands = Vec::new();
        for index in 0..node.inputs.len() {
            match self.value(node, index).cloned() {
                Some(Value::Node { id, dims }) => operands.push((id, dims)),
                Some(Value::Known(known)) => {
                    // A bias that stands by itself behind a product of matrices.
                    if node.kind == "Add"
                        && known.elements() > 0
                        && let Some((id, dims)) = self.operand(node, 1 - index.min(1))
                        && let Some(value) = self.bias_after(id, dims, &known)
                    {
                        return Ok(Step::Value(value));
                    }
                    match self.zeros(&format!("{name}.zero{index}"), &known) {
                        Some(id) => operands.push((id, known.dims)),
                        None => return unknown(format!("with a constant of {:?}", known.dims)),
                    }
                }
                Some(Value::Partial(partial)) => return unknown(partial.reason().into()),
                _ => return unknown("of an input that is left out".into()),
            }
        }
        let ids: Vec<NodeId> = operands.iter().map(|(id, _)| *id).collect();
        let Some((_, dims)) = operands.first().cloned() else { return Err("it has no inputs".into()) };
        let shapes: Vec<Shape> = ids.iter().map(|&id| self.shapes[id]).collect();
        let op = match node.kind.as_str() {
            "Concat" => {
                let axis = Attributes(node).int("axis", 1);
                if dims.len() != 4 || !matches!(axis, 1 | -3) {
                    return unknown(format!("along axis {axis} of {} extents", dims.len()));
                }
                OpSpec::Concat
            }
            "Mul" => {
                if ids.len() == 2 && shapes[0] != shapes[1] && OpSpec::Mul.infer(&shapes).is_err() {
                    let swapped = [shapes[1], shapes[0]];
                    if OpSpec::Mul.infer(&swapped).is_err() {
                        return unknown(format!("of {} and {}", shapes[0], shapes[1]));
                    }
                    return self.place(name, OpSpec::Mul, &[ids[1], ids[0]]);
                }
                OpSpec::Mul
            }
            "Mean" => OpSpec::Mean,
            _ => {
                // What is broadcast stands behind what it is added to.
                operands.sort_by_key(|(id, _)| std::cmp::Reverse(self.shapes[*id].c));
                OpSpec::Add
            }
        };
        let ids: Vec<NodeId> = operands.iter().map(|(id, _)| *id).collect();
        let shapes: Vec<Shape> = ids.iter().map(|&id| self.shapes[id]).collect();
        if matches!(op, OpSpec::Add | OpSpec::Mean) && op.infer(&shapes).is_err() {
            return unknown(format!("of unequal shapes ({} and others)", shapes[0]));
        }
        let (id, _) = self.add(name, op, &ids)?;
        let dims = match op {
            OpSpec::Concat => self.shapes[id].dims().to_vec(),
            OpSpec::Add => operands.swap_remove(0).1,
            _ => dims,
        };
        Ok(Step::Value(Value::Node { id, dims }))
    }

    /// A constant added to the output of a linear layer costs what a bias costs, which is nothing that
    /// can be measured: it is noted, and left out.
    fn bias_after(&mut self, id: NodeId, dims: Vec<usize>, known: &Known) -> Option<Value> {
        let vector = dims.len() == 2 && known.elements() == dims[1];
        if !vector {
            return None;
        }
        self.whole = false;
        self.notes
            .push(format!("a bias of {} is added behind its layer, it is not a node", known.elements()));
        Some(Value::Node { id, dims })
    }

    /// Symmetric padding of a window; asymmetric padding becomes the nearest symmetric one of the same
    /// output, with a note.
    fn padding(
        &mut self,
        node: &NodeMessage,
        name: &str,
        shape: Shape,
        (kernel, stride, dilation): (usize, usize, usize),
    ) -> Result<usize, String> {
        let attributes = Attributes(node);
        let extent = dilation * kernel.saturating_sub(1) + 1;
        let pads: Vec<i64> = match attributes.text("auto_pad").as_str() {
            "" | "NOTSET" => attributes.ints("pads").map_or_else(|| vec![0; 4], <[i64]>::to_vec),
            "VALID" => vec![0; 4],
            mode @ ("SAME_UPPER" | "SAME_LOWER") => {
                let total = |size: usize| {
                    ((size.div_ceil(stride.max(1)).saturating_sub(1)) * stride + extent).saturating_sub(size)
                        as i64
                };
                let (h, w) = (total(shape.h), total(shape.w));
                let less = [h / 2, w / 2];
                let more = [h - less[0], w - less[1]];
                let [first, second] = if mode == "SAME_UPPER" { [less, more] } else { [more, less] };
                [first, second].concat()
            }
            other => return Err(format!("auto_pad {other}")),
        };
        let &[top, left, bottom, right] = pads.as_slice() else { return Err(format!("pads {pads:?}")) };
        if top < 0 || left < 0 || bottom < 0 || right < 0 {
            return Err(format!("pads {pads:?}"));
        }
        if top == left && top == bottom && top == right {
            return Ok(top as usize);
        }
        let out = |size: usize, total: usize| {
            (size + total).checked_sub(extent).map(|rest| rest / stride.max(1) + 1)
        };
        let real = (out(shape.h, (top + bottom) as usize), out(shape.w, (left + right) as usize));
        for padding in 0..=extent {
            if (out(shape.h, 2 * padding), out(shape.w, 2 * padding)) == real && real.0.is_some() {
                self.whole = false;
                self.notes.push(format!("{name}: padding {pads:?} is taken as {padding} on every side"));
                return Ok(padding);
            }
        }
        Err(format!("pads {pads:?}"))
    }

    fn convolution(&mut self, node: &NodeMessage, name: &str, x: NodeId) -> Result<Step, String> {
        let attributes = Attributes(node);
        let Some(weight) = self.known(node, 1).cloned() else {
            return Ok(Step::Unknown("with computed weights".into()));
        };
        let &[out_channels, each, rows, columns] = weight.dims.as_slice() else {
            return Ok(Step::Unknown(format!("with weights of {:?}", weight.dims)));
        };
        if rows != columns {
            return Ok(Step::Unknown(format!("kernel {rows}x{columns}")));
        }
        let sizes = attributes
            .square("strides", 1)
            .and_then(|stride| Ok((rows, stride, attributes.square("dilations", 1)?)));
        let groups = attributes.int("group", 1).max(0) as usize;
        let shape = self.shapes[x];
        let padding = sizes.clone().and_then(|sizes| self.padding(node, name, shape, sizes));
        let ((kernel, stride, dilation), padding) = match (sizes, padding) {
            (Ok(sizes), Ok(padding)) => (sizes, padding),
            (Err(reason), _) | (_, Err(reason)) => return Ok(Step::Unknown(reason)),
        };
        if each * groups != shape.c {
            return Err(format!(
                "its weights {:?} in {groups} groups don't fit {} channels",
                weight.dims, shape.c
            ));
        }
        let bias = self.known(node, 2).cloned();
        let op =
            OpSpec::Conv2d { out_channels, kernel, stride, padding, dilation, groups, bias: bias.is_some() };
        let (id, unique) = self.add(name, op, &[x])?;
        self.keep(format!("{unique}.weight"), weight.dims, weight.floats);
        if let Some(bias) = bias {
            self.keep(format!("{unique}.bias"), vec![out_channels], bias.floats);
        }
        Ok(Step::Value(Value::Node { id, dims: self.shapes[id].dims().to_vec() }))
    }

    fn batch_norm(
        &mut self,
        node: &NodeMessage,
        name: &str,
        x: NodeId,
        dims: Vec<usize>,
    ) -> Result<Step, String> {
        let channels = self.shapes[x].c;
        let mut tensors = Vec::new();
        for index in 1..5 {
            match self.known(node, index) {
                Some(known) if known.elements() == channels => tensors.push(known.floats.clone()),
                Some(known) => return Err(format!("{:?} values for {channels} channels", known.dims)),
                None => return Ok(Step::Unknown("with computed statistics".into())),
            }
        }
        let (id, unique) = self.add(name, OpSpec::BatchNorm { affine: true }, &[x])?;
        let epsilon = f64::from(Attributes(node).float("epsilon", BATCH_NORM_EPSILON as f32));
        let extra =
            if (epsilon - BATCH_NORM_EPSILON).abs() < 1e-9 { 0.0 } else { epsilon - BATCH_NORM_EPSILON };
        let suffixes = ["weight", "bias", "running_mean", "running_var"];
        for (suffix, values) in suffixes.into_iter().zip(tensors) {
            let values = if suffix == "running_var" && extra != 0.0 {
                values.map(|list| list.into_iter().map(|value| (f64::from(value) + extra) as f32).collect())
            } else {
                values
            };
            self.keep(format!("{unique}.{suffix}"), vec![channels], values);
        }
        Ok(Step::Value(Value::Node { id, dims }))
    }

    fn pool(&mut self, node: &NodeMessage, name: &str, x: NodeId) -> Result<Step, String> {
        let attributes = Attributes(node);
        let shape = self.shapes[x];
        let sizes = attributes.square("kernel_shape", 0).and_then(|kernel| {
            let dilation = attributes.square("dilations", 1)?;
            if attributes.int("ceil_mode", 0) != 0 {
                let floor = |size: usize| {
                    (size.saturating_sub(kernel)) % attributes.square("strides", 1).unwrap_or(1).max(1)
                };
                if floor(shape.h) != 0 || floor(shape.w) != 0 {
                    return Err("ceil_mode".to_owned());
                }
            }
            if dilation != 1 {
                return Err(format!("dilations {dilation}"));
            }
            Ok((kernel, attributes.square("strides", 1)?, 1))
        });
        let padding = sizes.clone().and_then(|sizes| self.padding(node, name, shape, sizes));
        let ((kernel, stride, _), padding) = match (sizes, padding) {
            (Ok(sizes), Ok(padding)) => (sizes, padding),
            (Err(reason), _) | (_, Err(reason)) => return Ok(Step::Unknown(reason)),
        };
        let op = if node.kind == "MaxPool" {
            OpSpec::MaxPool { kernel, stride, padding }
        } else {
            let count_include_pad = attributes.int("count_include_pad", 0) == 1;
            OpSpec::AvgPool { kernel, stride, padding, count_include_pad }
        };
        self.place(name, op, &[x])
    }

    fn linear(&mut self, node: &NodeMessage, name: &str, x: NodeId, dims: &[usize]) -> Result<Step, String> {
        let attributes = Attributes(node);
        let unknown = |reason: String| Ok(Step::Unknown(reason));
        let Some(weight) = self.known(node, 1).cloned() else {
            return unknown("with computed weights".into());
        };
        let &[rows, columns] = weight.dims.as_slice() else {
            return unknown(format!("with weights of {:?}", weight.dims));
        };
        let gemm = node.kind == "Gemm";
        let transposed = gemm && attributes.int("transB", 0) == 1;
        if gemm {
            let scaled = [("alpha", 1.0), ("beta", 1.0)]
                .iter()
                .any(|&(name, one)| (attributes.float(name, one) - one).abs() > 1e-9);
            if scaled || attributes.int("transA", 0) == 1 {
                return unknown("scaled or of a transposed input".into());
            }
        }
        let (inputs, out_features) = if transposed { (columns, rows) } else { (rows, columns) };
        let shape = self.shapes[x];
        if dims.len() != 2 {
            return unknown(format!("of {} extents", dims.len()));
        }
        if shape.elements() != inputs * shape.n {
            return Err(format!("its weights {:?} don't fit an input of {dims:?}", weight.dims));
        }
        let bias = if gemm { self.known(node, 2).cloned() } else { None };
        if bias.as_ref().is_some_and(|bias| bias.elements() != out_features) {
            return unknown("with a bias that is broadcast".into());
        }
        let op = OpSpec::Linear { out_features, bias: bias.is_some() };
        let (id, unique) = self.add(name, op, &[x])?;
        let values = weight.floats.map(|values| {
            if transposed {
                return values;
            }
            (0..out_features)
                .flat_map(|o| (0..inputs).map(move |i| (o, i)))
                .map(|(o, i)| values[i * columns + o])
                .collect()
        });
        self.keep(format!("{unique}.weight"), vec![out_features, inputs], values);
        if let Some(bias) = bias {
            self.keep(format!("{unique}.bias"), vec![out_features], bias.floats);
        }
        Ok(Step::Value(Value::Node { id, dims: vec![shape.n, out_features] }))
    }
}
