//! Random streams that depend on nothing but their name.

use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use sha2::{Digest, Sha256};

/// Derives independent, portable random streams from one seed.
///
/// ```
/// use lathe_spaces::Stream;
/// use rand::RngExt;
///
/// let first: u64 = Stream::new(7, "sample", 0).random();
/// assert_eq!(first, Stream::new(7, "sample", 0).random::<u64>());
/// assert_ne!(first, Stream::new(7, "sample", 1).random::<u64>());
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Stream;

impl Stream {
    /// The `ChaCha8` stream whose key is the SHA-256 of (seed, purpose, index).
    #[expect(clippy::new_ret_no_self, reason = "a stream is the generator itself")]
    pub fn new(seed: u64, purpose: &str, index: u64) -> ChaCha8Rng {
        let mut hash = Sha256::new();
        hash.update(seed.to_le_bytes());
        // The length keeps ("a", …) and ("ab", …) from ever meeting.
        hash.update((purpose.len() as u64).to_le_bytes());
        hash.update(purpose.as_bytes());
        hash.update(index.to_le_bytes());
        ChaCha8Rng::from_seed(hash.finalize().into())
    }
}
