//! Counter-based random numbers: Philox 4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", 2011).
//! A number depends on its key and counter alone, so neither on thread count nor on device.

const M0: u32 = 0xD251_1F53;
const M1: u32 = 0xCD9E_8D57;
const W0: u32 = 0x9E37_79B9;
const W1: u32 = 0xBB67_AE85;
/// Blocks computed together.
const LANES: usize = 8;
/// Elements of a mask that they give.
const SPAN: usize = 8 * LANES;

/// Four words for `counter` under `key`.
pub fn philox(key: [u32; 2], counter: [u32; 4]) -> [u32; 4] {
    let ([mut k0, mut k1], mut c) = (key, counter);
    for _ in 0..10 {
        let p0 = u64::from(c[0]) * u64::from(M0);
        let p1 = u64::from(c[2]) * u64::from(M1);
        c = [(p1 >> 32) as u32 ^ c[1] ^ k0, p1 as u32, (p0 >> 32) as u32 ^ c[3] ^ k1, p0 as u32];
        k0 = k0.wrapping_add(W0);
        k1 = k1.wrapping_add(W1);
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

    /// Fills `mask` with 1 where the element is kept, with probability `keep` in steps of 1/65536, else 0: the mask of
    /// the sample at `position` of a batch. Element n is half-word `n % 64 / 8` of block `n / 64 · 8 + n % 8`.
    pub fn mask(&self, position: usize, keep: f64, mask: &mut [u8]) {
        let limit = (keep * 65536.0).round() as u32;
        let per_sample = mask.len().div_ceil(SPAN) * LANES;
        let start = (position * per_sample) as u32;
        pulp::Arch::new().dispatch(
            #[inline(always)]
            || {
                for (i, part) in mask.chunks_mut(SPAN).enumerate() {
                    let first = start.wrapping_add((i * LANES) as u32);
                    let bytes = self.span(first, limit);
                    part.copy_from_slice(&bytes[..part.len()]);
                }
            },
        );
    }

    /// [`LANES`] blocks from `first`, each half-word below `limit` as 1.
    #[inline(always)]
    fn span(&self, first: u32, limit: u32) -> [u8; SPAN] {
        let mut c = [[0u32; LANES], [self.iteration; LANES], [self.purpose; LANES], [self.unit; LANES]];
        for (l, c) in c[0].iter_mut().enumerate() {
            *c = first.wrapping_add(l as u32);
        }
        let [mut k0, mut k1] = self.key;
        for _ in 0..10 {
            let mut next = [[0u32; LANES]; 4];
            for l in 0..LANES {
                let p0 = u64::from(c[0][l]) * u64::from(M0);
                let p1 = u64::from(c[2][l]) * u64::from(M1);
                next[0][l] = (p1 >> 32) as u32 ^ c[1][l] ^ k0;
                next[1][l] = p1 as u32;
                next[2][l] = (p0 >> 32) as u32 ^ c[3][l] ^ k1;
                next[3][l] = p0 as u32;
            }
            c = next;
            k0 = k0.wrapping_add(W0);
            k1 = k1.wrapping_add(W1);
        }
        let mut out = [0u8; SPAN];
        for (word, out) in c.iter().zip(out.chunks_exact_mut(2 * LANES)) {
            let (low, high) = out.split_at_mut(LANES);
            for l in 0..LANES {
                low[l] = u8::from(word[l] & 0xFFFF < limit);
                high[l] = u8::from(word[l] >> 16 < limit);
            }
        }
        out
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
    fn masks_are_the_halves_of_the_generators_words() {
        let stream = Stream::new(7, 1, 2, 3);
        let n = 200;
        for position in [0, 5] {
            let mut mask = vec![9; n];
            stream.mask(position, 0.25, &mut mask);
            for (i, &m) in mask.iter().enumerate() {
                let block = position * n.div_ceil(64) * 8 + i / 64 * 8 + i % 8;
                let half = i % 64 / 8;
                let word = stream.block(block as u32)[half / 2];
                let value = if half % 2 == 0 { word & 0xFFFF } else { word >> 16 };
                assert_eq!(m, u8::from(value < 16384), "element {i}");
            }
        }
        let mut mask = vec![0; 100_000];
        stream.mask(1, 0.25, &mut mask);
        let kept = mask.iter().filter(|&&m| m == 1).count();
        assert!((24_500..25_500).contains(&kept), "{kept}");
    }
}
