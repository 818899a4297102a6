//! Counter-based random numbers: Philox 4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", 2011).
//! A number depends on its key and counter alone, so neither on thread count nor on device.

use pulp::{Simd, WithSimd};

const M0: u32 = 0xD251_1F53;
const M1: u32 = 0xCD9E_8D57;
const W0: u32 = 0x9E37_79B9;
const W1: u32 = 0xBB67_AE85;
/// Blocks whose half-words alternate in a mask.
const LANES: usize = 8;
/// Elements of a mask that they give.
const SPAN: usize = 8 * LANES;
/// Spans computed together: as many blocks as the widest vectors hold, twice.
const TOGETHER: usize = 4;

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
        let first = (position * mask.len().div_ceil(SPAN) * LANES) as u32;
        pulp::Arch::new().dispatch(Masks { stream: *self, first, limit, mask });
    }
}

/// Fills `mask` with half-words below `limit` as 1, from block `first` on.
struct Masks<'a> {
    stream: Stream,
    first: u32,
    limit: u32,
    mask: &'a mut [u8],
}

impl WithSimd for Masks<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Masks { stream, first, limit, mask } = self;
        for (i, part) in mask.chunks_mut(SPAN * TOGETHER).enumerate() {
            let words = stream.blocks(simd, first.wrapping_add((i * TOGETHER * LANES) as u32));
            let mut bytes = [0u8; SPAN * TOGETHER];
            for (span, out) in bytes.chunks_exact_mut(SPAN).enumerate() {
                for (words, out) in words.iter().zip(out.chunks_exact_mut(2 * LANES)) {
                    let (low, high) = out.split_at_mut(LANES);
                    for (l, &word) in words[span * LANES..][..LANES].iter().enumerate() {
                        low[l] = u8::from(word & 0xFFFF < limit);
                        high[l] = u8::from(word >> 16 < limit);
                    }
                }
            }
            part.copy_from_slice(&bytes[..part.len()]);
        }
    }
}

impl Stream {
    /// The four words of the blocks from `first` on.
    #[inline(always)]
    fn blocks<S: Simd>(&self, simd: S, first: u32) -> [[u32; LANES * TOGETHER]; 4] {
        let mut words = [[0u32; LANES * TOGETHER]; 4];
        for (l, index) in words[0].iter_mut().enumerate() {
            *index = first.wrapping_add(l as u32);
        }
        let (m0, m1) = (simd.splat_u32s(M0), simd.splat_u32s(M1));
        for at in (0..LANES * TOGETHER).step_by(S::U32_LANES) {
            let at = at..at + S::U32_LANES;
            let mut c0 = S::as_simd_u32s(&words[0][at.clone()]).0[0];
            let mut c1 = simd.splat_u32s(self.iteration);
            let mut c2 = simd.splat_u32s(self.purpose);
            let mut c3 = simd.splat_u32s(self.unit);
            let [mut k0, mut k1] = self.key;
            for _ in 0..10 {
                let (low0, high0) = simd.widening_mul_u32s(c0, m0);
                let (low1, high1) = simd.widening_mul_u32s(c2, m1);
                c0 = simd.xor_u32s(simd.xor_u32s(high1, c1), simd.splat_u32s(k0));
                c1 = low1;
                c2 = simd.xor_u32s(simd.xor_u32s(high0, c3), simd.splat_u32s(k1));
                c3 = low0;
                k0 = k0.wrapping_add(W0);
                k1 = k1.wrapping_add(W1);
            }
            for (words, c) in words.iter_mut().zip([c0, c1, c2, c3]) {
                S::as_mut_simd_u32s(&mut words[at.clone()]).0[0] = c;
            }
        }
        words
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
