//! Layers of the supernet: forward pass and multiply-accumulates.

use lathe_spaces::{BATCH_NORM_EPSILON, Shape};
use tch::Tensor;

use super::parameters::ParameterBuilder;

/// Momentum of the running statistics (`PyTorch`'s default).
const BATCH_NORM_MOMENTUM: f64 = 0.1;

/// A sequence of layers; empty for the identity.
#[derive(Debug, Default)]
pub(crate) struct Layers(Vec<Layer>);

#[derive(Debug)]
enum Layer {
    Relu,
    Conv(Conv),
    BatchNorm(BatchNorm),
    /// 3×3, padding 1, with this stride.
    MaxPool(i64),
    /// 3×3, padding 1, with this stride; the padding doesn't count.
    AvgPool(i64),
    /// Mean of 2×2 pixels.
    Quarter,
    /// Two 1×1 convolutions of stride 2, the second one shifted by a pixel, one above the other.
    Halve(Conv, Conv),
}

/// A convolution without bias.
#[derive(Debug)]
struct Conv {
    weight: Tensor,
    kernel: i64,
    stride: i64,
    padding: i64,
    dilation: i64,
    groups: i64,
}

#[derive(Debug)]
struct BatchNorm {
    /// Scale and shift; none in the cells of a search, where they would compete with α.
    learned: Option<(Tensor, Tensor)>,
    mean: Tensor,
    variance: Tensor,
}

/// Extents of a convolution besides its channels.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Window {
    /// Side of the kernel.
    pub kernel: usize,
    /// Stride.
    pub stride: usize,
    /// Dilation.
    pub dilation: usize,
}

impl Layers {
    /// Adds a `ReLU` that is not in place.
    pub fn relu(&mut self) {
        self.0.push(Layer::Relu);
    }

    /// Adds a dense convolution that keeps the size at stride 1.
    pub fn conv(&mut self, build: &mut ParameterBuilder, name: &str, channels: [usize; 2], window: Window) {
        self.0.push(Layer::Conv(Conv::new(build, self.path(name), channels, window, 1)));
    }

    /// Adds a depthwise convolution that keeps the size at stride 1.
    pub fn depthwise(&mut self, build: &mut ParameterBuilder, name: &str, channels: usize, window: Window) {
        self.0.push(Layer::Conv(Conv::new(build, self.path(name), [channels; 2], window, channels)));
    }

    /// Adds a batch norm.
    pub fn batch_norm(&mut self, build: &mut ParameterBuilder, name: &str, channels: usize, affine: bool) {
        let path = self.path(name);
        let learned = affine.then(|| {
            let scale = build.constant(format!("{path}.weight"), channels, 1.0);
            (scale, build.constant(format!("{path}.bias"), channels, 0.0))
        });
        let mean = build.statistic(format!("{path}.running_mean"), channels, 0.0);
        let variance = build.statistic(format!("{path}.running_var"), channels, 1.0);
        self.0.push(Layer::BatchNorm(BatchNorm { learned, mean, variance }));
    }

    /// Adds a 3×3 maximum.
    pub fn max_pool(&mut self, stride: usize) {
        self.0.push(Layer::MaxPool(stride as i64));
    }

    /// Adds a 3×3 mean that leaves the padding out.
    pub fn avg_pool(&mut self, stride: usize) {
        self.0.push(Layer::AvgPool(stride as i64));
    }

    /// Adds the mean of every 2×2 pixels.
    pub fn quarter(&mut self) {
        self.0.push(Layer::Quarter);
    }

    /// Adds the convolutions of a factorised reduction; `channels[1]` must be even.
    pub fn halve(&mut self, build: &mut ParameterBuilder, name: &str, channels: [usize; 2]) {
        let half = [channels[0], channels[1] / 2];
        let window = Window { kernel: 1, stride: 2, dilation: 1 };
        let path = self.path(name);
        let first = Conv::new(build, format!("{path}.first"), half, window, 1);
        let second = Conv::new(build, format!("{path}.second"), half, window, 1);
        self.0.push(Layer::Halve(first, second));
    }

    /// `[B, C, H, W]` → `[B, C', H', W']`; with `training` batch norms use and record the batch's statistics.
    pub fn forward(&self, input: &Tensor, training: bool) -> Tensor {
        let mut x = input.shallow_clone();
        for layer in &self.0 {
            x = match layer {
                Layer::Relu => x.relu(),
                Layer::Conv(conv) => conv.forward(&x),
                Layer::BatchNorm(norm) => norm.forward(&x, training),
                Layer::MaxPool(stride) => x.max_pool2d([3, 3], [*stride; 2], [1, 1], [1, 1], false),
                Layer::AvgPool(stride) => {
                    x.avg_pool2d([3, 3], [*stride; 2], [1, 1], false, false, None::<i64>)
                }
                Layer::Quarter => x.avg_pool2d([2, 2], [2, 2], [0, 0], false, false, None::<i64>),
                Layer::Halve(first, second) => {
                    let size = x.size();
                    let shifted = x.narrow(2, 1, size[2] - 1).narrow(3, 1, size[3] - 1);
                    Tensor::cat(&[first.forward(&x), second.forward(&shifted)], 1)
                }
            };
        }
        x
    }

    /// Shape of the output for this input; the layers' multiply-accumulates are added to `macs`.
    pub fn trace(&self, input: Shape, macs: &mut u64) -> Shape {
        let pooled = |shape: Shape, stride: i64| {
            let size = |size: usize| (size - 1) / stride as usize + 1;
            Shape { h: size(shape.h), w: size(shape.w), ..shape }
        };
        self.0.iter().fold(input, |x, layer| match layer {
            Layer::Relu | Layer::BatchNorm(_) => x,
            Layer::Conv(conv) => conv.trace(x, macs),
            Layer::MaxPool(stride) | Layer::AvgPool(stride) => pooled(x, *stride),
            Layer::Quarter => Shape { h: x.h / 2, w: x.w / 2, ..x },
            Layer::Halve(first, second) => {
                let a = first.trace(x, macs);
                let b = second.trace(Shape { h: x.h - 1, w: x.w - 1, ..x }, macs);
                Shape { c: a.c + b.c, ..a }
            }
        })
    }

    /// Position in the sequence, then the name.
    fn path(&self, name: &str) -> String {
        format!("{name}.{}", self.0.len())
    }
}

impl Conv {
    fn new(
        build: &mut ParameterBuilder,
        path: String,
        channels: [usize; 2],
        window: Window,
        groups: usize,
    ) -> Self {
        let Window { kernel, stride, dilation } = window;
        let per_group = channels[0] / groups;
        let dims = [channels[1], per_group, kernel, kernel];
        Self {
            weight: build.uniform(path + ".weight", &dims, per_group * kernel * kernel),
            kernel: kernel as i64,
            stride: stride as i64,
            padding: (dilation * (kernel - 1) / 2) as i64,
            dilation: dilation as i64,
            groups: groups as i64,
        }
    }

    fn forward(&self, x: &Tensor) -> Tensor {
        let (stride, padding, dilation) = ([self.stride; 2], [self.padding; 2], [self.dilation; 2]);
        x.conv2d(&self.weight, None::<Tensor>, stride, padding, dilation, self.groups)
    }

    fn trace(&self, x: Shape, macs: &mut u64) -> Shape {
        let extent = self.dilation * (self.kernel - 1) + 1;
        let size = |size: usize| ((size as i64 + 2 * self.padding - extent) / self.stride + 1) as usize;
        let weight = self.weight.size();
        let out = Shape::new(x.n, weight[0] as usize, size(x.h), size(x.w));
        *macs += (out.elements() * (weight[1] * self.kernel * self.kernel) as usize) as u64;
        out
    }
}

impl BatchNorm {
    fn forward(&self, x: &Tensor, training: bool) -> Tensor {
        let (scale, shift) = match &self.learned {
            Some((scale, shift)) => (Some(scale), Some(shift)),
            None => (None, None),
        };
        let (mean, variance) = (Some(&self.mean), Some(&self.variance));
        x.batch_norm(scale, shift, mean, variance, training, BATCH_NORM_MOMENTUM, BATCH_NORM_EPSILON, true)
    }
}
