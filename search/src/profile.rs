//! Where the time of a piece of work goes, by kernel.
#![expect(unsafe_code, reason = "the border to libtorch's profiling hooks")]

use std::{
    collections::BTreeMap,
    ffi::{c_char, c_void},
    sync::{
        Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Instant,
};

/// Calls of a kernel and the time in it, over all threads.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KernelTime {
    /// Name: libtorch's operator (`aten::convolution_backward`), or `lathe::` and Lathe's own kernel.
    pub name: String,
    /// Calls.
    pub calls: u64,
    /// Nanoseconds, added up over threads.
    pub nanoseconds: u64,
}

static ON: AtomicBool = AtomicBool::new(false);
static OWN: Mutex<BTreeMap<&'static str, [u64; 2]>> = Mutex::new(BTreeMap::new());
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

unsafe extern "C" {
    fn lathe_profile_begin() -> u64;
    fn lathe_profile_end(
        handle: u64,
        each: unsafe extern "C" fn(*mut c_void, *const c_char, usize, u64, u64),
        to: *mut c_void,
    );
}

unsafe extern "C" fn collect(
    to: *mut c_void,
    name: *const c_char,
    length: usize,
    calls: u64,
    nanoseconds: u64,
) {
    // SAFETY: `to` is the vector that `profile` lends for the call, the name is `length` bytes long.
    let (list, name) = unsafe {
        (&mut *to.cast::<Vec<KernelTime>>(), std::slice::from_raw_parts(name.cast::<u8>(), length))
    };
    list.push(KernelTime { name: String::from_utf8_lossy(name).into_owned(), calls, nanoseconds });
}

/// Runs `work` and lists the innermost libtorch operators and Lathe's own kernels that ran, most time
/// first. Timing every call costs time itself: shares are to be trusted, not the total.
pub fn profile(work: impl FnOnce()) -> Vec<KernelTime> {
    let _alone = ONE_AT_A_TIME.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    own().clear();
    ON.store(true, Ordering::SeqCst);
    // SAFETY: the hooks are global; the lock keeps a second profile out.
    let handle = unsafe { lathe_profile_begin() };
    work();
    let mut list: Vec<KernelTime> = Vec::new();
    // SAFETY: the handle is the one from above, the vector outlives the call.
    unsafe { lathe_profile_end(handle, collect, (&raw mut list).cast()) };
    ON.store(false, Ordering::SeqCst);
    list.extend(own().iter().map(|(name, [calls, nanoseconds])| KernelTime {
        name: format!("lathe::{name}"),
        calls: *calls,
        nanoseconds: *nanoseconds,
    }));
    list.sort_by(|a, b| b.nanoseconds.cmp(&a.nanoseconds).then_with(|| a.name.cmp(&b.name)));
    list
}

/// Runs one of Lathe's kernels, timed while a profile is on.
pub(crate) fn kernel<R>(name: &'static str, work: impl FnOnce() -> R) -> R {
    if !ON.load(Ordering::Relaxed) {
        return work();
    }
    let began = Instant::now();
    let result = work();
    let nanoseconds = began.elapsed().as_nanos() as u64;
    let mut own = own();
    let total = own.entry(name).or_default();
    total[0] += 1;
    total[1] += nanoseconds;
    result
}

fn own() -> std::sync::MutexGuard<'static, BTreeMap<&'static str, [u64; 2]>> {
    OWN.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]
mod tests {
    use tch::{Device, Kind, Tensor};

    use super::*;

    #[test]
    fn innermost_operators_and_own_kernels_are_counted_and_nothing_afterwards() {
        tch::set_num_threads(1);
        let x = Tensor::ones([8, 8], (Kind::Float, Device::Cpu));
        let list = profile(|| {
            for _ in 0..3 {
                let _ = x.matmul(&x);
            }
            assert_eq!(kernel("test kernel", || 5), 5);
        });
        let calls = |name: &str| list.iter().find(|kernel| kernel.name == name).map(|kernel| kernel.calls);
        // matmul itself is not among them: it calls mm.
        assert_eq!((calls("aten::mm"), calls("aten::matmul")), (Some(3), None));
        assert_eq!(calls("lathe::test kernel"), Some(1));
        assert!(list.windows(2).all(|pair| pair[0].nanoseconds >= pair[1].nanoseconds));
        kernel("test kernel", || ());
        assert!(profile(|| ()).is_empty());
    }
}
