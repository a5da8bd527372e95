//! The C interface of `LiteRT`'s library, version 2.3, made safe: names, types and constants as its headers
//! declare them (`litert/c/*.h`).
#![expect(unsafe_code, reason = "the border to C; nothing outside this file calls it unchecked")]

use std::{
    ffi::{CString, c_char, c_int, c_void},
    os::unix::ffi::OsStrExt as _,
    path::Path,
    ptr,
    rc::Rc,
};

use libloading::{Library as Opened, Symbol};

/// Something of the library's, whose contents only it knows.
type Handle = *mut c_void;
type Status = c_int;

const OK: Status = 0;
const OUT_OF_MEMORY: Status = 2;
/// `kLiteRtHwAcceleratorCpu`.
const ON_CPU: c_int = 1;
/// Name of the options of the kernels for processors, which are a line of TOML.
const CPU_OPTIONS: &std::ffi::CStr = c"xnnpack";
const LOCK_TO_READ: c_int = 0;
const LOCK_TO_WRITE: c_int = 1;
/// `kLiteRtQuantizationPerTensor`.
const PER_TENSOR: c_int = 1;
const MOST_EXTENTS: usize = 8;

/// What the library answered.
#[derive(Debug)]
pub(super) struct Refusal {
    pub(super) message: String,
    pub(super) out_of_memory: bool,
}

impl Refusal {
    fn of(function: &str, status: Status) -> Self {
        let words = match status {
            1 => "invalid argument",
            OUT_OF_MEMORY => "out of memory",
            3 => "runtime failure",
            5 => "unsupported",
            500 | 501 => "the file is no TFLite model",
            504 => "compilation failed",
            _ => "see LiteRtStatus in its headers",
        };
        Self {
            message: format!("{function} answered {status} ({words})"),
            out_of_memory: status == OUT_OF_MEMORY,
        }
    }

    fn says(message: impl ToString) -> Self {
        Self { message: message.to_string(), out_of_memory: false }
    }
}

/// Type of a tensor's elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Element {
    Float32,
    Int8,
}

/// A tensor of a model.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Tensor {
    pub(super) element: Element,
    pub(super) dims: Vec<usize>,
    /// Scale and zero point, where the elements are integers.
    pub(super) affine: Option<(f32, i64)>,
}

impl Tensor {
    pub(super) fn elements(&self) -> usize {
        self.dims.iter().product()
    }

    fn bytes(&self) -> usize {
        self.elements() * if self.element == Element::Float32 { 4 } else { 1 }
    }
}

/// `LiteRtRankedTensorType`.
#[repr(C)]
#[derive(Clone, Copy)]
struct RankedType {
    element: c_int,
    /// The rank in the lowest seven bits.
    rank: u32,
    dims: [i32; MOST_EXTENTS],
    strides: [u32; MOST_EXTENTS],
}

/// `LiteRtQuantizationPerTensor`.
#[repr(C)]
struct PerTensor {
    scale: f32,
    zero_point: i64,
}

/// An opened library and its environment.
pub(super) struct LiteRt {
    environment: Handle,
    library: Opened,
}

impl LiteRt {
    /// Opens the library and makes an environment.
    pub(super) fn open(path: &Path) -> Result<Rc<Self>, Refusal> {
        // SAFETY: the caller has made sure that it is LiteRT's library, whose initialisers are harmless.
        let library = unsafe { Opened::new(path) }.map_err(Refusal::says)?;
        let mut this = Self { environment: ptr::null_mut(), library };
        let mut environment = ptr::null_mut();
        type Create = unsafe extern "C" fn(c_int, *const c_void, *mut Handle) -> Status;
        this.call::<Create>("LiteRtCreateEnvironment", |function| {
            // SAFETY: no options, and a place for the handle.
            unsafe { function(0, ptr::null(), &raw mut environment) }
        })?;
        this.environment = environment;
        Ok(Rc::new(this))
    }

    fn symbol<F>(&self, name: &str) -> Result<Symbol<'_, F>, Refusal> {
        // SAFETY: the types beside the names are those of the headers.
        unsafe { self.library.get::<F>(name.as_bytes()) }.map_err(|_missing| {
            Refusal::says(format!("it has no {name} (hint: LiteRT 2.3, as in PyPI's wheel ai-edge-litert)"))
        })
    }

    /// Calls a function that answers with a status.
    fn call<F>(&self, name: &str, call: impl FnOnce(&F) -> Status) -> Result<(), Refusal> {
        match call(&*self.symbol::<F>(name)?) {
            OK => Ok(()),
            status => Err(Refusal::of(name, status)),
        }
    }

    fn destroy(&self, name: &str, handle: Handle) {
        type Function = unsafe extern "C" fn(Handle);
        if handle.is_null() {
            return;
        }
        if let Ok(function) = self.symbol::<Function>(name) {
            // SAFETY: it is alive, and nobody uses it after this.
            unsafe { function(handle) }
        }
    }
}

impl Drop for LiteRt {
    fn drop(&mut self) {
        self.destroy("LiteRtDestroyEnvironment", self.environment);
    }
}

/// A model that was compiled for the processor, with memory for its only input and its first output.
pub(super) struct Compiled {
    library: Rc<LiteRt>,
    model: Handle,
    compiled: Handle,
    buffers: [Handle; 2],
    pub(super) input: Tensor,
    pub(super) output: Tensor,
    /// Operators in the file.
    pub(super) operators: usize,
    /// Whether one accelerator (`XNNPACK`) took all of them.
    pub(super) whole: bool,
}

impl Compiled {
    /// Reads a TFLite file and compiles it for so many threads.
    pub(super) fn of(library: &Rc<LiteRt>, path: &Path, threads: usize) -> Result<Self, Refusal> {
        let nothing = Tensor { element: Element::Float32, dims: Vec::new(), affine: None };
        let mut this = Self {
            library: Rc::clone(library),
            model: ptr::null_mut(),
            compiled: ptr::null_mut(),
            buffers: [ptr::null_mut(); 2],
            input: nothing.clone(),
            output: nothing,
            operators: 0,
            whole: false,
        };
        this.read(path)?;
        this.compile(threads)?;
        this.look()?;
        Ok(this)
    }

    fn read(&mut self, path: &Path) -> Result<(), Refusal> {
        type Read = unsafe extern "C" fn(Handle, *const c_char, *mut Handle) -> Status;
        let path = CString::new(path.as_os_str().as_bytes()).map_err(Refusal::says)?;
        let (environment, model) = (self.library.environment, &raw mut self.model);
        // SAFETY: a string that ends with a null, and a place for the handle.
        self.library.call::<Read>("LiteRtCreateModelFromFile", |function| unsafe {
            function(environment, path.as_ptr(), model)
        })
    }

    fn compile(&mut self, threads: usize) -> Result<(), Refusal> {
        type Create = unsafe extern "C" fn(*mut Handle) -> Status;
        type Accelerate = unsafe extern "C" fn(Handle, c_int) -> Status;
        type Free = unsafe extern "C" fn(*mut c_void);
        type Opaque = unsafe extern "C" fn(*const c_char, *mut c_void, Free, *mut Handle) -> Status;
        type Add = unsafe extern "C" fn(Handle, Handle) -> Status;
        type Compile = unsafe extern "C" fn(Handle, Handle, Handle, *mut Handle) -> Status;
        /// Takes back the text that the options held.
        unsafe extern "C" fn free(text: *mut c_void) {
            // SAFETY: it is the text that was given to these options, once.
            drop(unsafe { CString::from_raw(text.cast()) });
        }

        let library = Rc::clone(&self.library);
        let mut options = ptr::null_mut();
        // SAFETY: a place for the handle.
        library.call::<Create>("LiteRtCreateOptions", |function| unsafe { function(&raw mut options) })?;
        // SAFETY: the options are alive.
        let mut done = library
            .call::<Accelerate>("LiteRtSetOptionsHardwareAccelerators", |function| unsafe {
                function(options, ON_CPU)
            });
        let text = CString::new(format!("num_threads = {threads}\n")).map_err(Refusal::says)?;
        let mut kernels = ptr::null_mut();
        done = done.and_then(|()| {
            // SAFETY: the text becomes the options', which give it back to `free`.
            library.call::<Opaque>("LiteRtCreateOpaqueOptions", |function| unsafe {
                function(CPU_OPTIONS.as_ptr(), text.into_raw().cast(), free, &raw mut kernels)
            })
        });
        done = done.and_then(|()| {
            // SAFETY: both are alive; the first takes the second.
            library.call::<Add>("LiteRtAddOpaqueOptions", |function| unsafe { function(options, kernels) })
        });
        let (model, compiled) = (self.model, &raw mut self.compiled);
        done = done.and_then(|()| {
            // SAFETY: all are alive, and there is a place for the result.
            library.call::<Compile>("LiteRtCreateCompiledModel", |function| unsafe {
                function(library.environment, model, options, compiled)
            })
        });
        library.destroy("LiteRtDestroyOptions", options);
        done
    }

    /// Tensors, their memory, and what became of the operators.
    fn look(&mut self) -> Result<(), Refusal> {
        type Count = unsafe extern "C" fn(Handle, *mut usize) -> Status;
        type Whole = unsafe extern "C" fn(Handle, *mut bool) -> Status;
        type At = unsafe extern "C" fn(Handle, usize, *mut Handle) -> Status;
        let library = Rc::clone(&self.library);
        let count = |name: &str, of: Handle| {
            let mut count = 0;
            // SAFETY: the handle is alive, and there is a place for the number.
            library.call::<Count>(name, |function| unsafe { function(of, &raw mut count) })?;
            Ok::<_, Refusal>(count)
        };
        let at = |name: &str, of: Handle| {
            let mut found = ptr::null_mut();
            // SAFETY: the handle is alive, and there is a place for the first of its parts.
            library.call::<At>(name, |function| unsafe { function(of, 0, &raw mut found) })?;
            Ok::<_, Refusal>(found)
        };
        let signature = at("LiteRtGetModelSignature", self.model)?;
        let inputs = count("LiteRtGetNumSignatureInputs", signature)?;
        if inputs != 1 {
            return Err(Refusal::says(format!("it has {inputs} inputs, wanted is one input")));
        }
        if count("LiteRtGetNumSignatureOutputs", signature)? != 1 {
            return Err(Refusal::says("it has several outputs, wanted is one output"));
        }
        let subgraph = at("LiteRtGetModelSubgraph", self.model)?;
        self.operators = count("LiteRtGetNumSubgraphOps", subgraph)?;
        let whole = &raw mut self.whole;
        // SAFETY: the model is alive, and there is a place for the answer.
        library.call::<Whole>("LiteRtCompiledModelIsFullyAccelerated", |function| unsafe {
            function(self.compiled, whole)
        })?;
        let (tensor, raw) = self.tensor(at("LiteRtGetSignatureInputTensorByIndex", signature)?)?;
        self.input = tensor;
        self.buffers[0] = self.memory("LiteRtGetCompiledModelInputBufferRequirements", &raw)?;
        let (tensor, raw) = self.tensor(at("LiteRtGetSignatureOutputTensorByIndex", signature)?)?;
        self.output = tensor;
        self.buffers[1] = self.memory("LiteRtGetCompiledModelOutputBufferRequirements", &raw)?;
        Ok(())
    }

    fn tensor(&self, handle: Handle) -> Result<(Tensor, RankedType), Refusal> {
        type Ranked = unsafe extern "C" fn(Handle, *mut RankedType) -> Status;
        type Kind = unsafe extern "C" fn(Handle, *mut c_int) -> Status;
        type Quantization = unsafe extern "C" fn(Handle, *mut PerTensor) -> Status;
        let library = &self.library;
        let mut raw = RankedType { element: 0, rank: 0, dims: [0; MOST_EXTENTS], strides: [0; MOST_EXTENTS] };
        // SAFETY: the tensor is alive, and there is a place for its type.
        library.call::<Ranked>("LiteRtGetRankedTensorType", |function| unsafe {
            function(handle, &raw mut raw)
        })?;
        let element = match raw.element {
            1 => Element::Float32,
            9 => Element::Int8,
            other => {
                let message =
                    format!("its input or output is of element type {other}, wanted is float32 or int8");
                return Err(Refusal::says(message));
            }
        };
        let extents = raw.dims.iter().take((raw.rank & 127) as usize);
        let dims = extents.map(|&extent| usize::try_from(extent)).collect::<Result<_, _>>();
        let dims =
            dims.map_err(|_negative| Refusal::says("it has dynamic extents, wanted are static ones"))?;
        let mut affine = None;
        if element == Element::Int8 {
            let mut kind = 0;
            // SAFETY: the tensor is alive, and there are places for the answers.
            library.call::<Kind>("LiteRtGetQuantizationTypeId", |function| unsafe {
                function(handle, &raw mut kind)
            })?;
            if kind != PER_TENSOR {
                return Err(Refusal::says("its integer input or output has no scale of its own"));
            }
            let mut scales = PerTensor { scale: 0.0, zero_point: 0 };
            // SAFETY: as above.
            library.call::<Quantization>("LiteRtGetPerTensorQuantization", |function| unsafe {
                function(handle, &raw mut scales)
            })?;
            affine = Some((scales.scale, scales.zero_point));
        }
        Ok((Tensor { element, dims, affine }, raw))
    }

    /// Memory for a tensor, as the compiled model wants it.
    fn memory(&self, requirements: &str, raw: &RankedType) -> Result<Handle, Refusal> {
        type Requirements = unsafe extern "C" fn(Handle, usize, usize, *mut Handle) -> Status;
        type Create = unsafe extern "C" fn(Handle, *const RankedType, Handle, *mut Handle) -> Status;
        let library = &self.library;
        let (mut wanted, mut buffer) = (ptr::null_mut(), ptr::null_mut());
        // SAFETY: the model is alive, and there are places for the handles.
        library.call::<Requirements>(requirements, |function| unsafe {
            function(self.compiled, 0, 0, &raw mut wanted)
        })?;
        library.call::<Create>("LiteRtCreateManagedTensorBufferFromRequirements", |function| unsafe {
            function(library.environment, raw, wanted, &raw mut buffer)
        })?;
        Ok(buffer)
    }

    /// Writes the input's elements, as bytes.
    pub(super) fn write(&mut self, bytes: &[u8]) -> Result<(), Refusal> {
        if bytes.len() != self.input.bytes() {
            let message = format!("its input is {:?}, got {} bytes", self.input.dims, bytes.len());
            return Err(Refusal::says(message));
        }
        // SAFETY: the locked memory holds the whole tensor, and nobody else uses it.
        self.locked(0, LOCK_TO_WRITE, |memory| unsafe {
            ptr::copy_nonoverlapping(bytes.as_ptr(), memory, bytes.len());
        })
    }

    /// The output's elements, as bytes.
    pub(super) fn bytes(&mut self) -> Result<Vec<u8>, Refusal> {
        let mut bytes = vec![0; self.output.bytes()];
        // SAFETY: as in `write`.
        self.locked(1, LOCK_TO_READ, |memory| unsafe {
            ptr::copy_nonoverlapping(memory, bytes.as_mut_ptr(), bytes.len());
        })?;
        Ok(bytes)
    }

    fn locked(&self, buffer: usize, mode: c_int, job: impl FnOnce(*mut u8)) -> Result<(), Refusal> {
        type Lock = unsafe extern "C" fn(Handle, *mut *mut c_void, c_int) -> Status;
        type Unlock = unsafe extern "C" fn(Handle) -> Status;
        let mut memory = ptr::null_mut();
        // SAFETY: the buffer is alive, and there is a place for the address.
        self.library.call::<Lock>("LiteRtLockTensorBuffer", |function| unsafe {
            function(self.buffers[buffer], &raw mut memory, mode)
        })?;
        job(memory.cast());
        self.library.call::<Unlock>("LiteRtUnlockTensorBuffer", |function| unsafe {
            // SAFETY: it was locked above.
            function(self.buffers[buffer])
        })
    }

    /// What runs the model, found once: nothing is looked up while time is taken.
    pub(super) fn runner(&self) -> Result<Run, Refusal> {
        let function = *self.library.symbol::<RunFunction>("LiteRtRunCompiledModel")?;
        Ok(Run(function))
    }

    /// Runs once.
    pub(super) fn run(&mut self, run: Run) -> Result<(), Refusal> {
        let [input, output] = &mut self.buffers;
        // SAFETY: the model and its buffers are alive, and there is one of each.
        match unsafe { (run.0)(self.compiled, 0, 1, input, 1, output) } {
            OK => Ok(()),
            status => Err(Refusal::of("LiteRtRunCompiledModel", status)),
        }
    }
}

type RunFunction = unsafe extern "C" fn(Handle, usize, usize, *mut Handle, usize, *mut Handle) -> Status;

/// The function that runs a compiled model.
#[derive(Clone, Copy)]
pub(super) struct Run(RunFunction);

impl Drop for Compiled {
    fn drop(&mut self) {
        for buffer in self.buffers {
            self.library.destroy("LiteRtDestroyTensorBuffer", buffer);
        }
        self.library.destroy("LiteRtDestroyCompiledModel", self.compiled);
        self.library.destroy("LiteRtDestroyModel", self.model);
    }
}
