//! Python's shuffle, which fixes the order of NAS-Bench-201.

/// Words of the generator's state.
const WORDS: usize = 624;
/// Distance of the words that a step mixes.
const SHIFT: usize = 397;

/// Shuffles in place exactly as Python's `random.seed(seed); random.shuffle(items)` does.
pub(crate) fn shuffle<T>(items: &mut [T], seed: u32) {
    let mut twister = Twister::new(seed);
    for last in (1..items.len()).rev() {
        items.swap(last, twister.below(last as u32 + 1) as usize);
    }
}

/// The Mersenne Twister MT19937 (Matsumoto & Nishimura 1998).
struct Twister {
    state: [u32; WORDS],
    next: usize,
}

impl Twister {
    /// Seeded with a key of one word, as Python does for small integers.
    fn new(seed: u32) -> Self {
        let mut state = [0_u32; WORDS];
        state[0] = 19_650_218;
        for index in 1..WORDS {
            let before = state[index - 1];
            state[index] = 1_812_433_253_u32.wrapping_mul(before ^ (before >> 30)).wrapping_add(index as u32);
        }
        let mut index = 1;
        let mut step = |factor: u32, add: &dyn Fn(usize) -> u32, state: &mut [u32; WORDS]| {
            let before = state[index - 1];
            let mixed = state[index] ^ (before ^ (before >> 30)).wrapping_mul(factor);
            state[index] = mixed.wrapping_add(add(index));
            index += 1;
            if index == WORDS {
                state[0] = state[WORDS - 1];
                index = 1;
            }
        };
        for _ in 0..WORDS {
            step(1_664_525, &|_| seed, &mut state);
        }
        for _ in 1..WORDS {
            step(1_566_083_941, &|index| (index as u32).wrapping_neg(), &mut state);
        }
        state[0] = 0x8000_0000;
        Self { state, next: WORDS }
    }

    fn word(&mut self) -> u32 {
        if self.next == WORDS {
            for index in 0..WORDS {
                let joined =
                    (self.state[index] & 0x8000_0000) | (self.state[(index + 1) % WORDS] & 0x7fff_ffff);
                let twist = if joined & 1 == 1 { 0x9908_b0df } else { 0 };
                self.state[index] = self.state[(index + SHIFT) % WORDS] ^ (joined >> 1) ^ twist;
            }
            self.next = 0;
        }
        let mut word = self.state[self.next];
        self.next += 1;
        word ^= word >> 11;
        word ^= (word << 7) & 0x9d2c_5680;
        word ^= (word << 15) & 0xefc6_0000;
        word ^ (word >> 18)
    }

    /// A uniform number below `limit`, by rejection of as few bits as hold it.
    fn below(&mut self, limit: u32) -> u32 {
        let bits = limit.ilog2() + 1;
        loop {
            let number = self.word() >> (32 - bits);
            if number < limit {
                return number;
            }
        }
    }
}
