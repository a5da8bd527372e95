//! Operators that move numbers, and those with slopes and windows of their own.

use super::{
    Reader, Step,
    partial::per_channel,
    values::{Attributes, Known},
};
use crate::{NodeId, OpSpec, onnx::message::NodeMessage};

impl Reader {
    /// Rows and columns left out at one end, or some of the channels.
    pub(super) fn slice(&mut self, node: &NodeMessage, name: &str, x: NodeId) -> Result<Step, String> {
        let list = |index, name| self.integers(node, index, name);
        let dims = self.shapes[x].dims();
        let ranges = || {
            let (starts, ends) = (list(1, "starts")?, list(2, "ends")?);
            let axes = list(3, "axes").unwrap_or_else(|| (0..starts.len() as i64).collect());
            let whole = list(4, "steps").is_none_or(|steps| steps.iter().all(|&step| step == 1));
            if !whole || starts.len() != axes.len() || ends.len() != axes.len() {
                return None;
            }
            let mut ranges = dims.map(|extent| 0..extent);
            for ((&axis, &start), &end) in axes.iter().zip(&starts).zip(&ends) {
                let axis = usize::try_from(if axis < 0 { axis + 4 } else { axis }).ok()?;
                let extent = *dims.get(axis)? as i64;
                let at =
                    |value: i64| if value < 0 { value + extent } else { value }.clamp(0, extent) as usize;
                ranges[axis] = at(start)..at(end);
            }
            Some(ranges)
        };
        let Some([batch, channels, rows, columns]) = ranges() else {
            return Ok(Step::Unknown("in steps, or of places that are not known beforehand".into()));
        };
        let whole = [batch, channels.clone(), rows.clone(), columns.clone()];
        let whole = whole.iter().zip(dims).map(|(range, extent)| *range == (0..extent)).collect::<Vec<_>>();
        let op = match whole[..] {
            [true, _, true, true] => OpSpec::Slice { start: channels.start, channels: channels.len() },
            [true, true, ..] if rows.end == dims[2] && columns.end == dims[3] => {
                OpSpec::Crop { top: rows.start, left: columns.start }
            }
            [true, true, ..] if rows.start == 0 && columns.start == 0 => {
                OpSpec::CropEnd { bottom: dims[2] - rows.end, right: dims[3] - columns.end }
            }
            _ => return Ok(Step::Unknown("at several ends at once".into())),
        };
        self.place(name, op, &[x])
    }

    /// Zeros around maps.
    pub(super) fn pad(&mut self, node: &NodeMessage, name: &str, x: NodeId) -> Result<Step, String> {
        let mode = Attributes(node).text("mode");
        let zero = self.value(node, 2).is_none()
            || self.known(node, 2).and_then(|known| known.floats.as_ref()).is_some_and(|list| list == &[0.0]);
        let some_axes = self.value(node, 3).is_some();
        if !matches!(mode.as_str(), "" | "constant") || !zero || some_axes {
            return Ok(Step::Unknown("with other numbers than zeros, or of chosen axes".into()));
        }
        let pads = self.integers(node, 1, "pads").unwrap_or_default();
        let sizes: Option<Vec<usize>> = pads.iter().map(|&pad| usize::try_from(pad).ok()).collect();
        match sizes.as_deref() {
            Some(&[0, 0, top, left, 0, 0, bottom, right]) => {
                self.place(name, OpSpec::Pad { top, left, bottom, right }, &[x])
            }
            _ => Ok(Step::Unknown(format!("pads {pads:?}"))),
        }
    }

    pub(super) fn prelu(&mut self, node: &NodeMessage, name: &str, x: NodeId) -> Result<Step, String> {
        let channels = self.shapes[x].c;
        let Some(slope) = self.known(node, 1).cloned() else {
            return Ok(Step::Unknown("with computed slopes".into()));
        };
        let slopes = if slope.elements() == 1 {
            slope.floats.map(|list| vec![list[0]; channels])
        } else if per_channel(&slope, self.shapes[x]) {
            slope.floats
        } else {
            return Ok(Step::Unknown(format!("with slopes of {:?}", slope.dims)));
        };
        let (id, unique) = self.add(name, OpSpec::Prelu, &[x])?;
        self.keep(format!("{unique}.weight"), vec![channels], slopes);
        Ok(self.image(id))
    }

    pub(super) fn depth_to_space(
        &mut self,
        node: &NodeMessage,
        name: &str,
        x: NodeId,
    ) -> Result<Step, String> {
        let attributes = Attributes(node);
        let block =
            usize::try_from(attributes.int("blocksize", 0)).map_err(|_| "a negative block".to_owned())?;
        // The two orders are one where a single channel comes out.
        let one = self.shapes[x].c == block * block;
        match attributes.text("mode").as_str() {
            "CRD" => self.place(name, OpSpec::DepthToSpace { block }, &[x]),
            "" | "DCR" if one => self.place(name, OpSpec::DepthToSpace { block }, &[x]),
            _ => Ok(Step::Unknown("mode DCR".into())),
        }
    }

    pub(super) fn conv_transpose(
        &mut self,
        node: &NodeMessage,
        name: &str,
        x: NodeId,
    ) -> Result<Step, String> {
        let attributes = Attributes(node);
        let Some(weight) = self.known(node, 1).cloned() else {
            return Ok(Step::Unknown("with computed weights".into()));
        };
        let groups = attributes.int("group", 1).max(0) as usize;
        let &[inputs, each, rows, columns] = weight.dims.as_slice() else {
            return Ok(Step::Unknown(format!("with weights of {:?}", weight.dims)));
        };
        if inputs != self.shapes[x].c {
            return Err(format!("its weights {:?} don't fit {} channels", weight.dims, self.shapes[x].c));
        }
        let pads = attributes.ints("pads").unwrap_or(&[0; 4]);
        let plain = attributes.ints("output_padding").is_none_or(|list| list.iter().all(|&pad| pad == 0))
            && attributes.ints("output_shape").is_none()
            && attributes.square("dilations", 1) == Ok(1)
            && matches!(attributes.text("auto_pad").as_str(), "" | "NOTSET")
            && rows == columns;
        let stride = attributes.square("strides", 1);
        let (Ok(stride), &[padding, left, bottom, right], true) = (stride, pads, plain) else {
            return Ok(Step::Unknown("with windows, paddings or dilations that are not square".into()));
        };
        if padding < 0 || [left, bottom, right] != [padding; 3] {
            return Ok(Step::Unknown(format!("pads {pads:?}")));
        }
        let bias = self.known(node, 2).cloned();
        let op = OpSpec::ConvTranspose2d {
            out_channels: each * groups,
            kernel: rows,
            stride,
            padding: padding as usize,
            groups,
            bias: bias.is_some(),
        };
        let (id, unique) = self.add(name, op, &[x])?;
        self.keep(format!("{unique}.weight"), weight.dims, weight.floats);
        if let Some(Known { floats, .. }) = bias {
            self.keep(format!("{unique}.bias"), vec![each * groups], floats);
        }
        Ok(self.image(id))
    }
}
