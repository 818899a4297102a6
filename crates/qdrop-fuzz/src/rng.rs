//! Random choices that follow from a number alone.

/// Integers at which sizes and counts go wrong.
const EDGES: [i64; 20] = [
    0,
    1,
    -1,
    2,
    3,
    7,
    8,
    -2,
    16,
    127,
    128,
    255,
    65536,
    i32::MAX as i64,
    i32::MIN as i64,
    1 << 32,
    1 << 40,
    1 << 62,
    i64::MAX,
    i64::MIN,
];

/// A stream of random numbers (SplitMix64).
pub(crate) struct Rng(u64);

impl Rng {
    pub fn new(seed: u64) -> Self {
        Rng(seed)
    }

    pub fn word(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `n`; 0 where `n` is 0.
    pub fn below(&mut self, n: usize) -> usize {
        ((u128::from(self.word()) * n as u128) >> 64) as usize
    }

    /// True once in `n` times.
    pub fn once_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }

    /// One of `all`, which are not empty.
    pub fn one<'a, T>(&mut self, all: &'a [T]) -> &'a T {
        &all[self.below(all.len())]
    }

    /// A range within `0..len` of at most `most` elements, empty only where there are none.
    pub fn range(&mut self, len: usize, most: usize) -> std::ops::Range<usize> {
        let start = self.below(len);
        let length = (1 + self.below(most)).min(len - start);
        start..start + length
    }

    /// An integer near `old`, small, or at an edge.
    pub fn integer(&mut self, old: i64) -> i64 {
        match self.below(4) {
            0 => old.wrapping_add(*self.one(&[1, -1, 2, -2])),
            1 => self.below(12) as i64,
            2 => old.wrapping_mul(*self.one(&[-1, 2, 3, 1 << 20])),
            _ => *self.one(&EDGES),
        }
    }
}
