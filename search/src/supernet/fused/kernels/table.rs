//! What the C++ file lists, and which of its tables this processor takes.

use crate::supernet::fused::lanes::Lanes;

/// Kernels of one kind of number for one instruction set, as the C++ file lists them.
#[repr(C)]
pub(crate) struct Table<T> {
    pub(super) pad:
        unsafe extern "C" fn(*const Lanes<T>, *mut Lanes<T>, i32, i32, i32, i32, i32, *const T, *const T),
    pub(super) combine:
        unsafe extern "C" fn(*mut Lanes<T>, i32, *const *const Lanes<T>, *const T, T, i64, i32),
    pub(super) add_where_positive: unsafe extern "C" fn(*mut Lanes<T>, *const Lanes<T>, *const Lanes<T>, i64),
    pub(super) dots: unsafe extern "C" fn(*const Lanes<T>, i32, *const *const Lanes<T>, i64, i32, *mut f64),
    pub(super) separable: unsafe extern "C" fn(*const RawSeparable<T>),
    pub(super) separable_back: unsafe extern "C" fn(*const RawSeparableBack<T>),
    pub(super) pools: unsafe extern "C" fn(
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
    pub(super) pools_back: unsafe extern "C" fn(
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
    pub(super) halve: unsafe extern "C" fn(*const Lanes<T>, *mut Lanes<T>, i32, i32, i32),
    pub(super) halve_back:
        unsafe extern "C" fn(*const Lanes<T>, *const Lanes<T>, *const Lanes<T>, *mut Lanes<T>, i32, i32, i32),
    pub(super) dense: unsafe extern "C" fn(*const RawDense<T>),
    pub(super) dense_back: unsafe extern "C" fn(*const RawDense<T>),
}

#[repr(C)]
pub(super) struct RawSeparable<T> {
    pub(super) kind: i32,
    pub(super) channels: i32,
    pub(super) height: i32,
    pub(super) width: i32,
    pub(super) images: i32,
    pub(super) pitch: i32,
    pub(super) padded: *const Lanes<T>,
    pub(super) depthwise: *const T,
    pub(super) pointwise: *const T,
    pub(super) z: *mut Lanes<T>,
    pub(super) scratch: *mut Lanes<T>,
    pub(super) sums: *mut f64,
}

#[repr(C)]
pub(super) struct RawSeparableBack<T> {
    pub(super) kind: i32,
    pub(super) channels: i32,
    pub(super) height: i32,
    pub(super) width: i32,
    pub(super) images: i32,
    pub(super) pitch: i32,
    pub(super) padded: *const Lanes<T>,
    pub(super) depthwise: *const T,
    pub(super) pointwise: *const T,
    pub(super) z: *const Lanes<T>,
    pub(super) g: *const Lanes<T>,
    pub(super) g_pitch: i64,
    pub(super) factors: *const T,
    pub(super) input: *mut Lanes<T>,
    pub(super) accumulate: i32,
    pub(super) step: i32,
    pub(super) scratch: *mut Lanes<T>,
    pub(super) depthwise_gradient: *mut f64,
    pub(super) pointwise_gradient: *mut f64,
}

#[repr(C)]
pub(super) struct RawDense<T> {
    pub(super) kernel: i32,
    pub(super) stride: i32,
    pub(super) offset: i32,
    pub(super) rectify: i32,
    pub(super) inputs: i32,
    pub(super) outputs: i32,
    pub(super) height: i32,
    pub(super) width: i32,
    pub(super) rows: i32,
    pub(super) columns: i32,
    pub(super) images: i32,
    pub(super) first: i32,
    pub(super) count: i32,
    pub(super) reserved: i32,
    pub(super) x: *const Lanes<T>,
    pub(super) weight: *const T,
    pub(super) z: *mut Lanes<T>,
    pub(super) scratch: *mut Lanes<T>,
    pub(super) sums: *mut f64,
    pub(super) g: *const Lanes<T>,
    pub(super) g_pitch: i64,
    pub(super) factors: *const T,
    pub(super) input: *mut Lanes<T>,
    pub(super) gradient: *mut f64,
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
pub(crate) enum InstructionSet {
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
        pub(crate) fn $name(set: InstructionSet) -> &'static Table<$kind> {
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
