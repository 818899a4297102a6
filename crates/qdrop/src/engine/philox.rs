//! Counter-based random numbers: Philox 4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", 2011).
//! A number depends on its key and counter alone, so neither on thread count nor on device.

/// Four words for `counter` under `key`.
pub fn philox(key: [u32; 2], counter: [u32; 4]) -> [u32; 4] {
    let ([mut k0, mut k1], mut c) = (key, counter);
    for _ in 0..10 {
        let p0 = u64::from(c[0]) * 0xD251_1F53;
        let p1 = u64::from(c[2]) * 0xCD9E_8D57;
        c = [(p1 >> 32) as u32 ^ c[1] ^ k0, p1 as u32, (p0 >> 32) as u32 ^ c[3] ^ k1, p0 as u32];
        k0 = k0.wrapping_add(0x9E37_79B9);
        k1 = k1.wrapping_add(0xBB67_AE85);
    }
    c
}

/// A stream of random numbers named by seed, unit, purpose and iteration.
#[derive(Debug, Clone, Copy)]
pub struct Stream {
    key: [u32; 2],
    unit: u32,
    purpose: u32,
    iteration: u32,
}

impl Stream {
    /// The stream of `purpose` (a site, the input, the batch) in `iteration` of `unit`.
    pub fn new(seed: u64, unit: u32, purpose: u32, iteration: u32) -> Self {
        Stream { key: [seed as u32, (seed >> 32) as u32], unit, purpose, iteration }
    }

    fn block(&self, index: u32) -> [u32; 4] {
        philox(self.key, [index, self.iteration, self.purpose, self.unit])
    }

    /// Numbers in `0..bound` at positions `0..n`.
    pub fn below(&self, n: usize, bound: usize) -> Vec<usize> {
        let word = |i: usize| self.block((i / 4) as u32)[i % 4];
        (0..n).map(|i| ((u64::from(word(i)) * bound as u64) >> 32) as usize).collect()
    }

    /// For elements `start..start + n`: true with probability `keep`, in steps of 1/65536.
    pub fn mask(&self, start: usize, n: usize, keep: f64) -> Vec<bool> {
        let limit = (keep * 65536.0).round() as u32;
        let mut mask = Vec::with_capacity(n + 8);
        let first = start / 8;
        for block in first..(start + n).div_ceil(8) {
            for word in self.block(block as u32) {
                mask.push(word & 0xFFFF < limit);
                mask.push(word >> 16 < limit);
            }
        }
        mask.drain(..start - first * 8);
        mask.truncate(n);
        mask
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_answers_of_the_published_generator() {
        assert_eq!(philox([0, 0], [0; 4]), [0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8]);
        let ones = u32::MAX;
        assert_eq!(philox([ones; 2], [ones; 4]), [0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd]);
    }

    #[test]
    fn masks_do_not_depend_on_how_they_are_cut() {
        let stream = Stream::new(7, 1, 2, 3);
        let whole = stream.mask(0, 1000, 0.25);
        assert_eq!(stream.mask(13, 100, 0.25), whole[13..113]);
        let kept = whole.iter().filter(|&&k| k).count();
        assert!((180..320).contains(&kept), "{kept}");
    }
}
