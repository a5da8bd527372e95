//! The C functions of `shim/collective.cpp` and `shim/cuda.cpp`, made safe.
#![expect(unsafe_code, reason = "the border to C++; nothing outside this file calls it unchecked")]

use std::{
    ffi::{CStr, CString, NulError, OsStr, c_char, c_void},
    os::unix::ffi::OsStrExt as _,
    path::{Path, PathBuf},
    ptr::{self, NonNull},
    time::Duration,
};

/// `LatheGroup` of the shim.
#[repr(C)]
struct RawGroup {
    _opaque: [u8; 0],
}

unsafe extern "C" {
    fn lathe_autocast_bfloat16();
    fn lathe_text_free(text: *mut c_char);
    fn lathe_group_create(
        host: *const c_char,
        port: u16,
        rank: i32,
        size: i32,
        timeout_ms: i64,
        serve: bool,
        prefix: *const c_char,
        address: *const c_char,
        out: *mut *mut RawGroup,
    ) -> *mut c_char;
    fn lathe_group_sum(group: *mut RawGroup, values: *mut c_void, count: i64, double: bool) -> *mut c_char;
    fn lathe_group_broadcast(
        group: *mut RawGroup,
        values: *mut c_void,
        count: i64,
        double: bool,
    ) -> *mut c_char;
    fn lathe_group_barrier(group: *mut RawGroup) -> *mut c_char;
    fn lathe_group_disconnect(group: *mut RawGroup) -> *mut c_char;
    fn lathe_group_note(group: *mut RawGroup, key: *const c_char) -> *mut c_char;
    fn lathe_group_noted(group: *mut RawGroup, key: *const c_char, noted: *mut bool) -> *mut c_char;
    fn lathe_group_destroy(group: *mut RawGroup);
    fn lathe_libtorch_folder(folder: *mut c_char, capacity: usize) -> bool;
    fn lathe_open_library(path: *const c_char) -> *mut c_char;
}

/// The library's words about a failure.
type Reason = String;

/// Takes the text that a function of the shim returned.
fn outcome(text: *mut c_char) -> Result<(), Reason> {
    let Some(text) = NonNull::new(text) else { return Ok(()) };
    // SAFETY: the shim returns null or a string of its own that ends with a null.
    let reason = unsafe { CStr::from_ptr(text.as_ptr()) }.to_string_lossy().trim().to_owned();
    // SAFETY: it was not given back yet, and nothing refers to it any more.
    unsafe { lathe_text_free(text.as_ptr()) };
    Err(reason)
}

fn with_null(text: &[u8]) -> Result<CString, Reason> {
    CString::new(text).map_err(|error: NulError| {
        format!("`{}` has a null in it", String::from_utf8_lossy(&error.into_vec()))
    })
}

/// How to reach the others.
#[derive(Clone, Debug)]
pub struct Meeting {
    /// Host of the store.
    pub host: String,
    /// Port of the store.
    pub port: u16,
    /// Number of this process.
    pub rank: usize,
    /// Number of processes.
    pub size: usize,
    /// Longest wait.
    pub timeout: Duration,
    /// Whether this process is the store.
    pub serve: bool,
    /// Begin of all keys in the store.
    pub prefix: String,
    /// Own address on the network of the others; libtorch's choice if absent.
    pub address: Option<String>,
}

/// Processes that are connected.
#[derive(Debug)]
pub struct Group {
    raw: NonNull<RawGroup>,
}

// SAFETY: c10d's objects belong to no thread: its own Python binding calls them from any.
unsafe impl Send for Group {}
// SAFETY: the store locks itself, and `ProcessGroup` holds a lock around everything else.
unsafe impl Sync for Group {}

/// A kind of number that is exchanged.
pub trait Real: Copy {
    /// Whether it has 64 bits (and not 32).
    const DOUBLE: bool;
}

impl Real for f32 {
    const DOUBLE: bool = false;
}

impl Real for f64 {
    const DOUBLE: bool = true;
}

impl Group {
    /// Waits for all processes.
    pub fn create(meeting: &Meeting) -> Result<Self, Reason> {
        let host = with_null(meeting.host.as_bytes())?;
        let prefix = with_null(meeting.prefix.as_bytes())?;
        let address = meeting.address.as_ref().map(|address| with_null(address.as_bytes())).transpose()?;
        let mut raw = ptr::null_mut();
        // SAFETY: the strings outlive the call; the shim writes `raw` only if it made a group.
        outcome(unsafe {
            lathe_group_create(
                host.as_ptr(),
                meeting.port,
                meeting.rank as i32,
                meeting.size as i32,
                meeting.timeout.as_millis() as i64,
                meeting.serve,
                prefix.as_ptr(),
                address.as_ref().map_or(ptr::null(), |address| address.as_ptr()),
                &raw mut raw,
            )
        })?;
        NonNull::new(raw).map(|raw| Self { raw }).ok_or_else(|| "no group was made".to_owned())
    }

    /// Replaces the values by their sums over all processes.
    pub fn sum<R: Real>(&self, values: &mut [R]) -> Result<(), Reason> {
        let pointer = values.as_mut_ptr().cast();
        // SAFETY: `Real` says what the slice holds; the shim reads and writes it during the call only.
        outcome(unsafe { lathe_group_sum(self.raw.as_ptr(), pointer, values.len() as i64, R::DOUBLE) })
    }

    /// Replaces the values by rank 0's.
    pub fn broadcast<R: Real>(&self, values: &mut [R]) -> Result<(), Reason> {
        let pointer = values.as_mut_ptr().cast();
        // SAFETY: as in `sum`.
        outcome(unsafe { lathe_group_broadcast(self.raw.as_ptr(), pointer, values.len() as i64, R::DOUBLE) })
    }

    /// Waits for all processes.
    pub fn barrier(&self) -> Result<(), Reason> {
        // SAFETY: `raw` is a group until `drop`.
        outcome(unsafe { lathe_group_barrier(self.raw.as_ptr()) })
    }

    /// Closes the connections; only the words of [`note`](Self::note) still pass.
    pub fn disconnect(&self) -> Result<(), Reason> {
        // SAFETY: as in `barrier`; every later exchange is refused by the shim.
        outcome(unsafe { lathe_group_disconnect(self.raw.as_ptr()) })
    }

    /// Leaves a word in the store.
    pub fn note(&self, key: &str) -> Result<(), Reason> {
        let key = with_null(key.as_bytes())?;
        // SAFETY: the string outlives the call.
        outcome(unsafe { lathe_group_note(self.raw.as_ptr(), key.as_ptr()) })
    }

    /// Whether any process left this word.
    pub fn noted(&self, key: &str) -> Result<bool, Reason> {
        let key = with_null(key.as_bytes())?;
        let mut noted = false;
        // SAFETY: string and flag outlive the call.
        outcome(unsafe { lathe_group_noted(self.raw.as_ptr(), key.as_ptr(), &raw mut noted) })?;
        Ok(noted)
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // SAFETY: made by `create`, destroyed once.
        unsafe { lathe_group_destroy(self.raw.as_ptr()) };
    }
}

/// Folder of the `libtorch_cpu.so` that this program runs with.
pub fn libtorch_folder() -> Option<PathBuf> {
    let mut folder = vec![0u8; 4096];
    // SAFETY: the shim writes at most as many bytes as it is told.
    let known = unsafe { lathe_libtorch_folder(folder.as_mut_ptr().cast(), folder.len()) };
    let folder = CStr::from_bytes_until_nul(&folder).ok().filter(|_| known)?;
    Some(PathBuf::from(OsStr::from_bytes(folder.to_bytes())))
}

/// Loads a library for the rest of the process, its symbols visible to all.
///
/// The library's initialisers run: it must be one that the user trusts as libtorch itself.
pub fn open_library(path: &Path) -> Result<(), Reason> {
    let path = with_null(path.as_os_str().as_bytes())?;
    // SAFETY: the string outlives the call.
    outcome(unsafe { lathe_open_library(path.as_ptr()) })
}
/// Makes bfloat16 the numbers of autocast on GPUs.
pub fn autocast_bfloat16() {
    // SAFETY: sets a number of libtorch's own.
    unsafe { lathe_autocast_bfloat16() }
}
