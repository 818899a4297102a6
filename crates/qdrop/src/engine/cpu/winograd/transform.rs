//! The transforms of inputs, filters and outputs, and their adjoints.

use super::{LANES, PANEL, point};
use crate::engine::cpu::matrix::Panels;
use pulp::{Simd, WithSimd};

/// Where the points of n tiles lie: tile t of point p at `start + p·point + t / PANEL · panel + t % PANEL`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Spread {
    pub start: usize,
    pub point: usize,
    pub panel: usize,
}

impl Spread {
    /// One point after the other.
    pub fn plain(n: usize) -> Self {
        Spread { start: 0, point: n, panel: PANEL }
    }

    /// Channel `c` of V or M with `channels` of them.
    pub fn channel(c: usize, channels: usize, n: usize) -> Self {
        let Panels { start: point, panel, pitch } = point(1, channels, n);
        Spread { start: c * pitch, point, panel }
    }
}

/// A linear map of N numbers to M.
pub(super) trait Line<const N: usize, const M: usize>: Copy {
    fn apply<S: Simd>(self, of: Terms<S>, from: [S::f32s; N]) -> [S::f32s; M];
}

/// Applies `line` along both axes of n tiles, N·N points to M·M points, n a multiple of [`LANES`].
pub(super) fn transform<const N: usize, const M: usize>(
    line: impl Line<N, M>,
    (from, source): (&[f32], Spread),
    (to, target): (&mut [f32], Spread),
    n: usize,
) {
    assert!(n.is_multiple_of(LANES), "tiles are no whole vectors");
    pulp::Arch::new().dispatch(Transform { line, from, source, to, target, n });
}

struct Transform<'a, L, const N: usize, const M: usize> {
    line: L,
    from: &'a [f32],
    source: Spread,
    to: &'a mut [f32],
    target: Spread,
    n: usize,
}

impl<L: Line<N, M>, const N: usize, const M: usize> WithSimd for Transform<'_, L, N, M> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Transform { line, from, source, to, target, n } = self;
        let (lanes, of) = (S::F32_LANES, Terms(simd));
        for t in (0..n).step_by(lanes) {
            let at = |s: Spread| s.start + t / PANEL * s.panel + t % PANEL;
            let (source_at, target_at) = (at(source), at(target));
            let mut half = [[simd.splat_f32s(0.0); N]; M];
            for j in 0..N {
                let mut column = [simd.splat_f32s(0.0); N];
                for (i, v) in column.iter_mut().enumerate() {
                    *v = S::as_simd_f32s(&from[source_at + (i * N + j) * source.point..][..lanes]).0[0];
                }
                for (half, v) in half.iter_mut().zip(line.apply(of, column)) {
                    half[j] = v;
                }
            }
            for (i, half) in half.into_iter().enumerate() {
                for (j, v) in line.apply(of, half).into_iter().enumerate() {
                    S::as_mut_simd_f32s(&mut to[target_at + (i * M + j) * target.point..][..lanes]).0[0] = v;
                }
            }
        }
    }
}

/// Sums of vectors, each times a number.
#[derive(Clone, Copy)]
pub(super) struct Terms<S>(S);

impl<S: Simd> Terms<S> {
    #[inline(always)]
    fn sum<const K: usize>(self, terms: [(f32, S::f32s); K]) -> S::f32s {
        let simd = self.0;
        let (factor, mut sum) = terms[0];
        if factor != 1.0 {
            sum = simd.mul_f32s(simd.splat_f32s(factor), sum);
        }
        for &(factor, v) in &terms[1..] {
            sum = if factor == 1.0 {
                simd.add_f32s(sum, v)
            } else if factor == -1.0 {
                simd.sub_f32s(sum, v)
            } else {
                simd.mul_add_e_f32s(simd.splat_f32s(factor), v, sum)
            };
        }
        sum
    }
}

/// Bᵀ·d.
#[derive(Clone, Copy)]
pub(super) struct InputIn;

impl Line<6, 6> for InputIn {
    #[inline(always)]
    fn apply<S: Simd>(self, of: Terms<S>, [a, b, c, d, e, f]: [S::f32s; 6]) -> [S::f32s; 6] {
        let (even, odd) = (of.sum([(1.0, e), (-4.0, c)]), of.sum([(1.0, d), (-4.0, b)]));
        let (even2, odd2) = (of.sum([(1.0, e), (-1.0, c)]), of.sum([(2.0, d), (-2.0, b)]));
        [
            of.sum([(4.0, a), (-5.0, c), (1.0, e)]),
            of.sum([(1.0, even), (1.0, odd)]),
            of.sum([(1.0, even), (-1.0, odd)]),
            of.sum([(1.0, even2), (1.0, odd2)]),
            of.sum([(1.0, even2), (-1.0, odd2)]),
            of.sum([(4.0, b), (-5.0, d), (1.0, f)]),
        ]
    }
}

/// B·v.
#[derive(Clone, Copy)]
pub(super) struct InputBack;

impl Line<6, 6> for InputBack {
    #[inline(always)]
    fn apply<S: Simd>(self, of: Terms<S>, [a, b, c, d, e, f]: [S::f32s; 6]) -> [S::f32s; 6] {
        let (plus, minus) = (of.sum([(1.0, b), (1.0, c)]), of.sum([(1.0, c), (-1.0, b)]));
        let (plus2, minus2) = (of.sum([(1.0, d), (1.0, e)]), of.sum([(2.0, e), (-2.0, d)]));
        [
            of.sum([(4.0, a)]),
            of.sum([(4.0, minus), (1.0, minus2), (4.0, f)]),
            of.sum([(-5.0, a), (-4.0, plus), (-1.0, plus2)]),
            of.sum([(-1.0, minus), (-1.0, minus2), (-5.0, f)]),
            of.sum([(1.0, a), (1.0, plus), (1.0, plus2)]),
            f,
        ]
    }
}

/// G·g.
#[derive(Clone, Copy)]
pub(super) struct FilterIn;

impl Line<3, 6> for FilterIn {
    #[inline(always)]
    fn apply<S: Simd>(self, of: Terms<S>, [a, b, c]: [S::f32s; 3]) -> [S::f32s; 6] {
        let (outer, inner) = (of.sum([(-1.0 / 6.0, a), (-1.0 / 6.0, c)]), of.sum([(1.0 / 6.0, b)]));
        let (outer2, inner2) = (of.sum([(1.0 / 24.0, a), (1.0 / 6.0, c)]), of.sum([(1.0 / 12.0, b)]));
        [
            of.sum([(0.25, a)]),
            of.sum([(1.0, outer), (-1.0, inner)]),
            of.sum([(1.0, outer), (1.0, inner)]),
            of.sum([(1.0, outer2), (1.0, inner2)]),
            of.sum([(1.0, outer2), (-1.0, inner2)]),
            c,
        ]
    }
}

/// Gᵀ·u.
#[derive(Clone, Copy)]
pub(super) struct FilterBack;

impl Line<6, 3> for FilterBack {
    #[inline(always)]
    fn apply<S: Simd>(self, of: Terms<S>, [a, b, c, d, e, f]: [S::f32s; 6]) -> [S::f32s; 3] {
        let (plus, minus) = (of.sum([(1.0, b), (1.0, c)]), of.sum([(1.0, c), (-1.0, b)]));
        let (plus2, minus2) = (of.sum([(1.0, d), (1.0, e)]), of.sum([(1.0, d), (-1.0, e)]));
        [
            of.sum([(0.25, a), (-1.0 / 6.0, plus), (1.0 / 24.0, plus2)]),
            of.sum([(1.0 / 6.0, minus), (1.0 / 12.0, minus2)]),
            of.sum([(-1.0 / 6.0, plus), (1.0 / 6.0, plus2), (1.0, f)]),
        ]
    }
}

/// Aᵀ·m.
#[derive(Clone, Copy)]
pub(super) struct TileOut;

impl Line<6, 4> for TileOut {
    #[inline(always)]
    fn apply<S: Simd>(self, of: Terms<S>, [a, b, c, d, e, f]: [S::f32s; 6]) -> [S::f32s; 4] {
        let (plus, minus) = (of.sum([(1.0, b), (1.0, c)]), of.sum([(1.0, b), (-1.0, c)]));
        let (plus2, minus2) = (of.sum([(1.0, d), (1.0, e)]), of.sum([(1.0, d), (-1.0, e)]));
        [
            of.sum([(1.0, a), (1.0, plus), (1.0, plus2)]),
            of.sum([(1.0, minus), (2.0, minus2)]),
            of.sum([(1.0, plus), (4.0, plus2)]),
            of.sum([(1.0, minus), (8.0, minus2), (1.0, f)]),
        ]
    }
}

/// A·y.
#[derive(Clone, Copy)]
pub(super) struct TileBack;

impl Line<4, 6> for TileBack {
    #[inline(always)]
    fn apply<S: Simd>(self, of: Terms<S>, [a, b, c, d]: [S::f32s; 4]) -> [S::f32s; 6] {
        let (even, odd) = (of.sum([(1.0, a), (1.0, c)]), of.sum([(1.0, b), (1.0, d)]));
        let (even2, odd2) = (of.sum([(1.0, a), (4.0, c)]), of.sum([(2.0, b), (8.0, d)]));
        [
            a,
            of.sum([(1.0, even), (1.0, odd)]),
            of.sum([(1.0, even), (-1.0, odd)]),
            of.sum([(1.0, even2), (1.0, odd2)]),
            of.sum([(1.0, even2), (-1.0, odd2)]),
            d,
        ]
    }
}
