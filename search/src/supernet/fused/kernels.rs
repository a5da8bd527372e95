//! The kernels of `search/kernels/kernels.cpp`, behind functions that check every length.
#![expect(unsafe_code, reason = "the border to the kernels; all lengths are checked before a call")]

use super::lanes::{Element, LANES, Lanes};
use crate::profile::kernel;

/// Kernels of one kind of number for one instruction set, as the C++ file lists them.
#[repr(C)]
pub(crate) struct Table<T> {
    pad: unsafe extern "C" fn(*const Lanes<T>, *mut Lanes<T>, i32, i32, i32, i32, i32, *const T, *const T),
    combine: unsafe extern "C" fn(*mut Lanes<T>, i32, *const *const Lanes<T>, *const T, T, i64, i32),
    add_where_positive: unsafe extern "C" fn(*mut Lanes<T>, *const Lanes<T>, *const Lanes<T>, i64),
    dots: unsafe extern "C" fn(*const Lanes<T>, i32, *const *const Lanes<T>, i64, i32, *mut f64),
    separable: unsafe extern "C" fn(*const RawSeparable<T>),
    separable_back: unsafe extern "C" fn(*const RawSeparableBack<T>),
    pools: unsafe extern "C" fn(
        *const Lanes<T>,
        *mut Lanes<T>,
        *mut Lanes<T>,
        i32,
        i32,
        i32,
        i32,
        i32,
        *mut f64,
    ),
    pools_back: unsafe extern "C" fn(
        *const Lanes<T>,
        *const Lanes<T>,
        *const Lanes<T>,
        *const Lanes<T>,
        *mut Lanes<T>,
        i32,
        i32,
        i32,
        i32,
    ),
    halve: unsafe extern "C" fn(*const Lanes<T>, *mut Lanes<T>, i32, i32, i32),
    halve_back:
        unsafe extern "C" fn(*const Lanes<T>, *const Lanes<T>, *const Lanes<T>, *mut Lanes<T>, i32, i32, i32),
    dense: unsafe extern "C" fn(*const RawDense<T>),
    dense_back: unsafe extern "C" fn(*const RawDense<T>),
}

#[repr(C)]
struct RawSeparable<T> {
    kind: i32,
    channels: i32,
    height: i32,
    width: i32,
    images: i32,
    pitch: i32,
    padded: *const Lanes<T>,
    depthwise: *const T,
    pointwise: *const T,
    z: *mut Lanes<T>,
    scratch: *mut Lanes<T>,
    sums: *mut f64,
}

#[repr(C)]
struct RawSeparableBack<T> {
    kind: i32,
    channels: i32,
    height: i32,
    width: i32,
    images: i32,
    pitch: i32,
    padded: *const Lanes<T>,
    depthwise: *const T,
    pointwise: *const T,
    z: *const Lanes<T>,
    g: *const Lanes<T>,
    g_pitch: i64,
    factors: *const T,
    input: *mut Lanes<T>,
    accumulate: i32,
    step: i32,
    scratch: *mut Lanes<T>,
    depthwise_gradient: *mut f64,
    pointwise_gradient: *mut f64,
}

#[repr(C)]
struct RawDense<T> {
    kernel: i32,
    stride: i32,
    offset: i32,
    rectify: i32,
    inputs: i32,
    outputs: i32,
    height: i32,
    width: i32,
    rows: i32,
    columns: i32,
    images: i32,
    first: i32,
    count: i32,
    reserved: i32,
    x: *const Lanes<T>,
    weight: *const T,
    z: *mut Lanes<T>,
    scratch: *mut Lanes<T>,
    sums: *mut f64,
    g: *const Lanes<T>,
    g_pitch: i64,
    factors: *const T,
    input: *mut Lanes<T>,
    gradient: *mut f64,
}

// The C++ side instantiates exactly these.
unsafe extern "C" {
    static lathe_kernels_f32_baseline: Table<f32>;
    static lathe_kernels_f64_baseline: Table<f64>;
    #[cfg(target_arch = "x86_64")]
    static lathe_kernels_f32_avx2: Table<f32>;
    #[cfg(target_arch = "x86_64")]
    static lathe_kernels_f64_avx2: Table<f64>;
    #[cfg(target_arch = "x86_64")]
    static lathe_kernels_f32_avx512: Table<f32>;
    #[cfg(target_arch = "x86_64")]
    static lathe_kernels_f64_avx512: Table<f64>;
}

/// A set of vector instructions that the kernels were compiled for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum InstructionSet {
    /// What every processor of the architecture has.
    Baseline,
    /// AVX2 with fused multiply-add.
    Avx2,
    /// AVX-512 with its F, VL, DQ and BW parts.
    Avx512,
}

impl InstructionSet {
    /// The best that this machine's processor has.
    #[cfg(target_arch = "x86_64")]
    pub fn best() -> Self {
        let wide = is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512vl")
            && is_x86_feature_detected!("avx512dq")
            && is_x86_feature_detected!("avx512bw");
        let fused = is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma");
        match (wide, fused) {
            (true, _) => Self::Avx512,
            (false, true) => Self::Avx2,
            (false, false) => Self::Baseline,
        }
    }

    /// The best that this machine's processor has.
    #[cfg(not(target_arch = "x86_64"))]
    pub fn best() -> Self {
        Self::Baseline
    }

    /// The set that is used: the best one, but none better than `LATHE_INSTRUCTION_SET` says
    /// (`baseline`, `avx2` or `avx512`), which gives machines of different age the same bits.
    pub fn chosen() -> Self {
        static CHOSEN: std::sync::OnceLock<InstructionSet> = std::sync::OnceLock::new();
        *CHOSEN.get_or_init(|| {
            let wanted = match std::env::var("LATHE_INSTRUCTION_SET").as_deref() {
                Ok("baseline") => Self::Baseline,
                Ok("avx2") => Self::Avx2,
                Ok("avx512") | Err(_) => Self::Avx512,
                Ok(other) => {
                    tracing::warn!(
                        "LATHE_INSTRUCTION_SET is `{other}`, expected `baseline`, `avx2` or `avx512`: ignored"
                    );
                    Self::Avx512
                }
            };
            wanted.min(Self::best())
        })
    }
}

macro_rules! table {
    ($name:ident, $kind:ty, $baseline:ident, $avx2:ident, $avx512:ident) => {
        /// Kernels of a set of instructions, which the processor must have.
        pub(super) fn $name(set: InstructionSet) -> &'static Table<$kind> {
            // SAFETY: constant tables that are never written.
            unsafe {
                match set.min(InstructionSet::best()) {
                    #[cfg(target_arch = "x86_64")]
                    InstructionSet::Avx512 => &$avx512,
                    #[cfg(target_arch = "x86_64")]
                    InstructionSet::Avx2 => &$avx2,
                    _ => &$baseline,
                }
            }
        }
    };
}

table!(table_f32, f32, lathe_kernels_f32_baseline, lathe_kernels_f32_avx2, lathe_kernels_f32_avx512);
table!(table_f64, f64, lathe_kernels_f64_baseline, lathe_kernels_f64_avx2, lathe_kernels_f64_avx512);

/// Channels, height and width.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Extent {
    /// Channels.
    pub channels: usize,
    /// Rows.
    pub height: usize,
    /// Columns.
    pub width: usize,
}

impl Extent {
    /// Pixels of a channel.
    pub fn area(self) -> usize {
        self.height * self.width
    }

    /// Pixels of all channels.
    pub fn volume(self) -> usize {
        self.channels * self.area()
    }

    /// The same with another number of channels.
    pub fn with_channels(self, channels: usize) -> Self {
        Self { channels, ..self }
    }
}

/// A depthwise convolution of this kernel, stride and dilation, then a pointwise one, of as many
/// channels as there are. With `step` 2 only every other row and column of the input takes part:
/// that is what a dilation of 2 at stride 2 comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Window {
    /// Side of the kernel: 3 or 5.
    pub kernel: usize,
    /// Stride on what `step` leaves.
    pub stride: usize,
    /// Dilation on what `step` leaves.
    pub dilation: usize,
    /// Every how many pixels of the input.
    pub step: usize,
}

impl Window {
    /// The window of an operation; `None` if there is no kernel for it.
    pub fn new(kernel: usize, stride: usize, dilation: usize) -> Option<Self> {
        let window = if stride == 2 && dilation == 2 {
            Self { kernel, stride: 1, dilation: 1, step: 2 }
        } else {
            Self { kernel, stride, dilation, step: 1 }
        };
        window.kind().map(|_| window)
    }

    fn kind(self) -> Option<i32> {
        match (self.kernel, self.stride, self.dilation) {
            (3, 1, 1) => Some(0),
            (5, 1, 1) => Some(1),
            (3, 1, 2) => Some(2),
            (5, 1, 2) => Some(3),
            (3, 2, 1) => Some(4),
            (5, 2, 1) => Some(5),
            _ => None,
        }
    }

    /// Zeros left and right of a row.
    pub fn padding(self) -> usize {
        self.dilation * (self.kernel - 1) / 2
    }

    /// Extent of the output.
    pub fn output(self, input: Extent) -> Extent {
        let by = self.step * self.stride;
        Extent { channels: input.channels, height: input.height / by, width: input.width / by }
    }

    /// Scratch of [`separable`].
    pub fn scratch(self, input: Extent) -> usize {
        let Extent { channels, width, .. } = self.output(input);
        // The sums are doubles, twice as wide as floats.
        channels * width + 4 * channels
    }

    /// Scratch of [`separable_back`].
    pub fn scratch_back(self, input: Extent) -> usize {
        let Extent { channels, height, width } = self.output(input);
        channels * height * (width + 2 * self.padding())
            + 2 * channels * width.max(input.width)
            + channels * channels
    }
}

/// Which pixels of an input take part in a convolution, and how many zeros stand left and right of a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Padding {
    /// Every how many rows and columns.
    pub step: usize,
    /// Zeros on each side.
    pub zeros: usize,
}

impl Padding {
    /// Extent of the padded input.
    pub fn of(self, input: Extent) -> Extent {
        let Extent { channels, height, width } = input;
        Extent { channels, height: height / self.step, width: width / self.step + 2 * self.zeros }
    }
}

/// max(scale·x + shift, 0), or max(x, 0) without `affine`, of the pixels that take part, padded.
pub(super) fn pad<T: Element>(
    x: &[Lanes<T>],
    extent: Extent,
    padding: Padding,
    affine: Option<(&[T], &[T])>,
    out: &mut [Lanes<T>],
) {
    assert!(x.len() == extent.volume() && out.len() == padding.of(extent).volume(), "a tensor's length");
    let (scale, shift) = affine.map_or((std::ptr::null(), std::ptr::null()), |(scale, shift)| {
        assert!(scale.len() == extent.channels && shift.len() == extent.channels, "a factor per channel");
        (scale.as_ptr(), shift.as_ptr())
    });
    let Extent { channels, height, width } = extent;
    // SAFETY: the lengths are those that the kernel walks.
    kernel("pad", || unsafe {
        (T::kernels().pad)(
            x.as_ptr(),
            out.as_mut_ptr(),
            channels as i32,
            height as i32,
            width as i32,
            padding.zeros as i32,
            padding.step as i32,
            scale,
            shift,
        );
    });
}

/// A weighted sum of tensors.
#[derive(Debug)]
pub(super) struct Combination<'a, T> {
    sources: Vec<*const Lanes<T>>,
    factors: Vec<T>,
    constant: f64,
    length: usize,
    borrowed: std::marker::PhantomData<&'a [Lanes<T>]>,
}

impl<'a, T: Element> Combination<'a, T> {
    /// An empty sum of tensors of this length.
    pub fn new(length: usize) -> Self {
        Self {
            sources: Vec::new(),
            factors: Vec::new(),
            constant: 0.0,
            length,
            borrowed: std::marker::PhantomData,
        }
    }

    /// Adds `factor`·`source`.
    pub fn add(&mut self, factor: f64, source: &'a [Lanes<T>]) {
        assert!(source.len() == self.length, "a tensor's length");
        self.sources.push(source.as_ptr());
        self.factors.push(T::of(factor));
    }

    /// Adds a number everywhere.
    pub fn shift(&mut self, constant: f64) {
        self.constant += constant;
    }

    /// Writes the sum.
    pub fn write(&self, out: &mut [Lanes<T>]) {
        self.run(out, 0);
    }

    /// Adds the sum.
    pub fn add_to(&self, out: &mut [Lanes<T>]) {
        self.run(out, 1);
    }

    fn run(&self, out: &mut [Lanes<T>], accumulate: i32) {
        assert!(out.len() == self.length, "a tensor's length");
        // SAFETY: every source lives for 'a and is as long as the output.
        kernel("weighted sum", || unsafe {
            (T::kernels().combine)(
                out.as_mut_ptr(),
                self.sources.len() as i32,
                self.sources.as_ptr(),
                self.factors.as_ptr(),
                T::of(self.constant),
                self.length as i64,
                accumulate,
            );
        });
    }
}

/// Adds `g` to `d` where `x` is positive.
pub(super) fn add_where_positive<T: Element>(d: &mut [Lanes<T>], g: &[Lanes<T>], x: &[Lanes<T>]) {
    assert!(d.len() == g.len() && d.len() == x.len(), "a tensor's length");
    // SAFETY: all three are equally long.
    kernel("add where positive", || unsafe {
        (T::kernels().add_where_positive)(d.as_mut_ptr(), g.as_ptr(), x.as_ptr(), d.len() as i64);
    });
}

/// Sum over the first `images` of `g`·source, for every source; `None` counts as ones.
pub(super) fn dots<T: Element>(g: &[Lanes<T>], sources: &[Option<&[Lanes<T>]>], images: usize) -> Vec<f64> {
    let pointers: Vec<*const Lanes<T>> = (sources.iter())
        .map(|source| {
            source.map_or(std::ptr::null(), |source| {
                assert!(source.len() == g.len(), "a tensor's length");
                source.as_ptr()
            })
        })
        .collect();
    assert!(images <= LANES, "images of a block");
    let mut sums = vec![0.0; sources.len()];
    // SAFETY: all sources are as long as `g`.
    kernel("dot products", || unsafe {
        (T::kernels().dots)(
            g.as_ptr(),
            pointers.len() as i32,
            pointers.as_ptr(),
            g.len() as i64,
            images as i32,
            sums.as_mut_ptr(),
        );
    });
    sums
}

/// What a separable convolution works on.
#[derive(Clone, Copy, Debug)]
pub(super) struct SeparableInput<'a, T> {
    /// Its window.
    pub window: Window,
    /// Extent of the input, before `step` and padding.
    pub extent: Extent,
    /// The rectified input with at least the window's padding; `None` where nothing depends on it: in a
    /// backward pass without the weights' gradients that adds to a sum.
    pub padded: Option<&'a [Lanes<T>]>,
    /// How it is padded.
    pub padding: Padding,
    /// `[C, K·K]`.
    pub depthwise: &'a [T],
    /// `[C, C]`.
    pub pointwise: &'a [T],
    /// Images of the block.
    pub images: usize,
}

impl<T: Element> SeparableInput<'_, T> {
    /// Checks all lengths; returns the kernel's number, the padded input where its own padding begins, and
    /// the length of a padded row.
    fn check(&self) -> (i32, *const Lanes<T>, i32) {
        let Self { window, extent, padding, .. } = self;
        let channels = extent.channels;
        let padded = padding.of(*extent);
        assert!(padding.step == window.step && padding.zeros >= window.padding(), "a window's padding");
        assert!(self.padded.is_none_or(|input| input.len() == padded.volume()), "a tensor's length");
        assert!(
            self.depthwise.len() == channels * window.kernel * window.kernel,
            "a depthwise kernel's length"
        );
        assert!(self.pointwise.len() == channels * channels, "a pointwise kernel's length");
        assert!(self.images <= LANES, "images of a block");
        let kind = window.kind().unwrap_or_else(|| unreachable!("a window is only made for a kernel"));
        let start = padding.zeros - window.padding();
        let pointer = self.padded.map_or(std::ptr::null(), |input| input[start..].as_ptr());
        (kind, pointer, padded.width as i32)
    }
}

/// Writes the convolution to `z`; returns `[C, 2]`: sum and sum of squares.
pub(super) fn separable<T: Element>(input: SeparableInput<'_, T>, z: &mut [Lanes<T>]) -> Vec<f64> {
    let (kind, padded, pitch) = input.check();
    let SeparableInput { window, extent, .. } = input;
    assert!(input.padded.is_some(), "an input");
    assert!(z.len() == window.output(extent).volume(), "a tensor's length");
    let mut sums = vec![0.0; 2 * extent.channels];
    T::scratch(window.scratch(extent), |scratch| {
        let raw = RawSeparable {
            kind,
            channels: extent.channels as i32,
            height: (extent.height / window.step) as i32,
            width: (extent.width / window.step) as i32,
            images: input.images as i32,
            pitch,
            padded,
            depthwise: input.depthwise.as_ptr(),
            pointwise: input.pointwise.as_ptr(),
            z: z.as_mut_ptr(),
            scratch: scratch.as_mut_ptr(),
            sums: sums.as_mut_ptr(),
        };
        // SAFETY: all lengths were checked against the extents that the kernel walks.
        kernel("separable convolution", || unsafe { (T::kernels().separable)(&raw const raw) });
    });
    sums
}

/// Gradient of a plain sum's input: where it goes.
#[derive(Debug)]
pub(super) enum Into<'a, T> {
    /// Written, zero where the rectified input is zero (`step` 1 and stride 1 only).
    Rectified(&'a mut [Lanes<T>]),
    /// Added, not yet rectified.
    Sum(&'a mut [Lanes<T>]),
}

/// Gradients of the weights of a separable convolution.
#[derive(Clone, Debug, Default)]
pub(super) struct SeparableGradient {
    /// `[C, K·K]`.
    pub depthwise: Vec<f64>,
    /// `[C, C]`.
    pub pointwise: Vec<f64>,
}

/// The gradient of the output is factors·(g, z, 1) per channel; `factors`: `[3, C]`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Flow<'a, T> {
    /// Gradient that flows in, channel planes `pitch` apart.
    pub g: &'a [Lanes<T>],
    /// Distance of the channels of `g`.
    pub pitch: usize,
    /// What was normalised.
    pub z: &'a [Lanes<T>],
    /// `[3, C]`.
    pub factors: &'a [T],
}

impl<T: Element> Flow<'_, T> {
    fn check(&self, output: Extent) {
        assert!(self.z.len() == output.volume(), "a tensor's length");
        assert!(self.factors.len() == 3 * output.channels, "factors per channel");
        let end = self.pitch * (output.channels - 1) + output.area();
        assert!(self.pitch >= output.area() && self.g.len() >= end, "a gradient's length");
    }
}

/// Gradients of [`separable`]; of the weights only on demand.
pub(super) fn separable_back<T: Element>(
    input: SeparableInput<'_, T>,
    flow: Flow<'_, T>,
    into: Into<'_, T>,
    weights: bool,
) -> Option<SeparableGradient> {
    let (kind, padded, pitch) = input.check();
    let SeparableInput { window, extent, .. } = input;
    flow.check(window.output(extent));
    let (to, accumulate) = match into {
        Into::Rectified(to) => {
            assert!(window.step == 1 && window.stride == 1, "a stride of one");
            (to, 0)
        }
        Into::Sum(to) => (to, 1),
    };
    assert!(to.len() == extent.volume(), "a tensor's length");
    assert!(input.padded.is_some() || (accumulate == 1 && !weights), "an input");
    let mut gradient = weights.then(|| SeparableGradient {
        depthwise: vec![0.0; input.depthwise.len()],
        pointwise: vec![0.0; input.pointwise.len()],
    });
    let [depthwise, pointwise] = gradient.as_mut().map_or([std::ptr::null_mut(); 2], |gradient| {
        [gradient.depthwise.as_mut_ptr(), gradient.pointwise.as_mut_ptr()]
    });
    T::scratch(window.scratch_back(extent), |scratch| {
        let raw = RawSeparableBack {
            kind,
            channels: extent.channels as i32,
            height: (extent.height / window.step) as i32,
            width: (extent.width / window.step) as i32,
            images: input.images as i32,
            pitch,
            padded,
            depthwise: input.depthwise.as_ptr(),
            pointwise: input.pointwise.as_ptr(),
            z: flow.z.as_ptr(),
            g: flow.g.as_ptr(),
            g_pitch: flow.pitch as i64,
            factors: flow.factors.as_ptr(),
            input: to.as_mut_ptr(),
            accumulate,
            step: window.step as i32,
            scratch: scratch.as_mut_ptr(),
            depthwise_gradient: depthwise,
            pointwise_gradient: pointwise,
        };
        // SAFETY: all lengths were checked against the extents that the kernel walks.
        kernel("separable convolution, back", || unsafe { (T::kernels().separable_back)(&raw const raw) });
    });
    gradient
}

/// Extent of a 3×3 pool's output.
pub(super) fn pooled(extent: Extent, stride: usize) -> Extent {
    let size = |size: usize| (size - 1) / stride + 1;
    Extent { height: size(extent.height), width: size(extent.width), ..extent }
}

/// 3×3 maximum and mean; returns `[C, 4]`: sum and sum of squares of the maximum, then of the mean.
pub(super) fn pools<T: Element>(
    x: &[Lanes<T>],
    extent: Extent,
    stride: usize,
    images: usize,
    maximum: &mut [Lanes<T>],
    mean: &mut [Lanes<T>],
) -> Vec<f64> {
    let volume = pooled(extent, stride).volume();
    assert!(
        x.len() == extent.volume() && maximum.len() == volume && mean.len() == volume,
        "a tensor's length"
    );
    assert!(images <= LANES, "images of a block");
    let Extent { channels, height, width } = extent;
    let mut sums = vec![0.0; 4 * channels];
    // SAFETY: the lengths are those that the kernel walks.
    kernel("pools", || unsafe {
        (T::kernels().pools)(
            x.as_ptr(),
            maximum.as_mut_ptr(),
            mean.as_mut_ptr(),
            channels as i32,
            height as i32,
            width as i32,
            stride as i32,
            images as i32,
            sums.as_mut_ptr(),
        );
    });
    sums
}

/// Adds to `d` the gradients of both pools of [`pools`].
pub(super) fn pools_back<T: Element>(
    x: &[Lanes<T>],
    extent: Extent,
    stride: usize,
    maximum: &[Lanes<T>],
    gradients: [&[Lanes<T>]; 2],
    d: &mut [Lanes<T>],
) {
    let volume = pooled(extent, stride).volume();
    assert!(x.len() == extent.volume() && d.len() == x.len(), "a tensor's length");
    assert!(maximum.len() == volume && gradients.iter().all(|g| g.len() == volume), "a tensor's length");
    let Extent { channels, height, width } = extent;
    // SAFETY: the lengths are those that the kernel walks.
    kernel("pools, back", || unsafe {
        (T::kernels().pools_back)(
            x.as_ptr(),
            maximum.as_ptr(),
            gradients[0].as_ptr(),
            gradients[1].as_ptr(),
            d.as_mut_ptr(),
            channels as i32,
            height as i32,
            width as i32,
            stride as i32,
        );
    });
}

/// 2×2 maximum with stride 2.
pub(super) fn halve<T: Element>(x: &[Lanes<T>], extent: Extent, out: &mut [Lanes<T>]) {
    assert!(x.len() == extent.volume() && 4 * out.len() == x.len(), "a tensor's length");
    let Extent { channels, height, width } = extent;
    // SAFETY: the lengths are those that the kernel walks; height and width are even.
    kernel("2x2 maximum", || unsafe {
        (T::kernels().halve)(x.as_ptr(), out.as_mut_ptr(), channels as i32, height as i32, width as i32);
    });
}

/// Adds to `d` the gradient of [`halve`].
pub(super) fn halve_back<T: Element>(
    x: &[Lanes<T>],
    extent: Extent,
    maximum: &[Lanes<T>],
    g: &[Lanes<T>],
    d: &mut [Lanes<T>],
) {
    assert!(x.len() == extent.volume() && d.len() == x.len(), "a tensor's length");
    assert!(4 * maximum.len() == x.len() && g.len() == maximum.len(), "a tensor's length");
    let Extent { channels, height, width } = extent;
    // SAFETY: the lengths are those that the kernel walks; height and width are even.
    kernel("2x2 maximum, back", || unsafe {
        (T::kernels().halve_back)(
            x.as_ptr(),
            maximum.as_ptr(),
            g.as_ptr(),
            d.as_mut_ptr(),
            channels as i32,
            height as i32,
            width as i32,
        );
    });
}

/// A dense convolution: 1×1 that may start at (`offset`, `offset`), or larger with the padding that
/// keeps the size at stride 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Dense {
    /// Side of the kernel.
    pub kernel: usize,
    /// Stride.
    pub stride: usize,
    /// First row and column, for a 1×1 kernel.
    pub offset: usize,
    /// Whether the input is rectified first.
    pub rectify: bool,
    /// Channels that come out.
    pub outputs: usize,
    /// What goes in.
    pub input: Extent,
}

/// Positions that the kernel handles at once.
const BLOCK: usize = 32;

impl Dense {
    /// What comes out.
    pub fn output(self) -> Extent {
        let size =
            |size: usize| if self.kernel == 1 { size / self.stride } else { (size - 1) / self.stride + 1 };
        Extent { channels: self.outputs, height: size(self.input.height), width: size(self.input.width) }
    }

    /// Weights of an output channel.
    pub fn terms(self) -> usize {
        self.input.channels * self.kernel * self.kernel
    }

    fn raw<T: Element>(self, images: usize, first: usize, count: usize) -> RawDense<T> {
        let output = self.output();
        RawDense {
            kernel: self.kernel as i32,
            stride: self.stride as i32,
            offset: self.offset as i32,
            rectify: i32::from(self.rectify),
            inputs: self.input.channels as i32,
            outputs: self.outputs as i32,
            height: self.input.height as i32,
            width: self.input.width as i32,
            rows: output.height as i32,
            columns: output.width as i32,
            images: images as i32,
            first: first as i32,
            count: count as i32,
            reserved: 0,
            x: std::ptr::null(),
            weight: std::ptr::null(),
            z: std::ptr::null_mut(),
            scratch: std::ptr::null_mut(),
            sums: std::ptr::null_mut(),
            g: std::ptr::null(),
            g_pitch: 0,
            factors: std::ptr::null(),
            input: std::ptr::null_mut(),
            gradient: std::ptr::null_mut(),
        }
    }

    fn check<T: Element>(self, x: &[Lanes<T>], weight: &[T], images: usize) {
        assert!(x.len() == self.input.volume(), "a tensor's length");
        assert!(weight.len() == self.outputs * self.terms(), "a kernel's length");
        assert!(images <= LANES, "images of a block");
    }

    /// Writes output channels from `first` on, as many as `z` has room for; returns `[count, 2]`: sum and
    /// sum of squares.
    pub fn forward<T: Element>(
        self,
        x: &[Lanes<T>],
        weight: &[T],
        images: usize,
        first: usize,
        z: &mut [Lanes<T>],
    ) -> Vec<f64> {
        self.check(x, weight, images);
        let area = self.output().area();
        let count = z.len() / area;
        assert!(z.len() == count * area && first + count <= self.outputs, "a tensor's length");
        let mut sums = vec![0.0; 2 * count];
        T::scratch(self.terms() * BLOCK + 4 * count, |scratch| {
            let mut raw = self.raw(images, first, count);
            raw.x = x.as_ptr();
            raw.weight = weight.as_ptr();
            raw.z = z.as_mut_ptr();
            raw.scratch = scratch.as_mut_ptr();
            raw.sums = sums.as_mut_ptr();
            // SAFETY: all lengths were checked against the extents that the kernel walks.
            kernel("dense convolution", || unsafe { (T::kernels().dense)(&raw const raw) });
        });
        sums
    }

    /// Adds to `input` the gradient of input channels from `first` on, `count` of them, and returns the
    /// gradient of their weights `[O, count·K·K]` on demand.
    #[expect(clippy::too_many_arguments, reason = "a kernel's operands")]
    pub fn backward<T: Element>(
        self,
        x: &[Lanes<T>],
        weight: &[T],
        images: usize,
        flow: Flow<'_, T>,
        [first, count]: [usize; 2],
        input: Option<&mut [Lanes<T>]>,
        weights: bool,
    ) -> Vec<f64> {
        self.check(x, weight, images);
        flow.check(self.output());
        assert!(first + count <= self.input.channels, "channels of the input");
        let taps = self.kernel * self.kernel;
        let mine = count * taps;
        let mut gradient = vec![0.0; if weights { self.outputs * mine } else { 0 }];
        let length = (self.outputs + 2 * mine) * BLOCK + self.outputs * mine;
        T::scratch(length, |scratch| {
            let mut raw = self.raw(images, first, count);
            raw.x = x.as_ptr();
            raw.weight = weight.as_ptr();
            raw.z = flow.z.as_ptr().cast_mut();
            raw.scratch = scratch.as_mut_ptr();
            raw.g = flow.g.as_ptr();
            raw.g_pitch = flow.pitch as i64;
            raw.factors = flow.factors.as_ptr();
            raw.input = input.map_or(std::ptr::null_mut(), |input| {
                assert!(input.len() == count * self.input.area(), "a tensor's length");
                input.as_mut_ptr()
            });
            if weights {
                raw.gradient = gradient.as_mut_ptr();
            }
            // SAFETY: all lengths were checked against the extents that the kernel walks; `z` is only read.
            kernel("dense convolution, back", || unsafe { (T::kernels().dense_back)(&raw const raw) });
        });
        gradient
    }
}
