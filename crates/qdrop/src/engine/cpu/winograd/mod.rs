//! Winograd's F(4×4, 3×3): a quarter of the multiplications of a 3×3 convolution with stride 1.
//!
//! Outputs are cut into tiles of 4×4, each from 6×6 inputs. With V = Bᵀ·d·B of the inputs d and U = G·g·Gᵀ of a filter
//! g, a tile is Aᵀ·(Σ U⊙V)·A, summed over input channels: 36 matrix products (Lavin and Gray, "Fast Algorithms for
//! Convolutional Neural Networks", CVPR 2016). The gradients are the adjoints of these steps: with dM = A·dy·Aᵀ,
//! dU = Σ dM⊙V over tiles, dg = Gᵀ·dU·G, and dV = Σ U⊙dM over output channels, dd = B·dV·Bᵀ.
//!
//! Rounding errors are about ten times those of the direct sum (a few 1e-6 of the largest value). This does not affect
//! learning; inference uses [`super::conv`]. The layout of x and y is the same as there. In the panels and strips that
//! [`super::matrix`] requires, V: [36, tiles / 32, IC, 32]; M: [36, tiles / 32, OC, 32]; U: [36, OC / 8, IC, 8];
//! dU: [36, IC / 32, OC, 32].

mod comb;
mod transform;

use super::conv::{Wanted, grow};
use super::math::vectorized;
use super::matrix::{Left, PANEL, Panels, STRIP, multiply};
use crate::engine::fused::Convolution;
use crate::engine::ops::window::Axis;
use comb::Comb;
use std::ops::Range;
use transform::{FilterBack, FilterIn, InputBack, InputIn, Line, Spread, TileBack, TileOut, transform};

/// Elements of the widest vector.
const LANES: usize = 16;
/// Outputs of a tile along an axis.
const STEP: usize = 4;
/// Points of a tile in the domain of the products.
const POINTS: usize = 36;
/// What keeps points apart that would else meet in few lines of a cache, where channels are a power of two.
const APART: usize = PANEL;
/// Fewest channels for which the products outweigh the transforms.
const CHANNELS: usize = 32;
/// Bytes that V and M of a block of tiles take, about.
const BLOCK: usize = 1 << 21;
/// Fewest tiles in a block, where there are as many.
pub(super) const TILES: usize = 64;

/// A 3×3 convolution with stride 1 in tiles.
#[derive(Debug, Clone)]
pub(super) struct Winograd {
    ic: usize,
    oc: usize,
    /// Height and width.
    input: [usize; 2],
    output: [usize; 2],
    /// Padding above and to the left.
    begin: [usize; 2],
    /// Tiles along height and width.
    tiles: [usize; 2],
}

impl Winograd {
    /// `conv` in this form, where it can and should be.
    pub fn of(conv: &Convolution) -> Option<Self> {
        let [depth, h, w] = &conv.axes;
        // Padding wider than the kernel reaches would leave whole tiles without an input.
        let narrow = |a: &Axis| a.begin < a.kernel && a.end < a.kernel;
        let tiled = |a: &Axis| a.kernel == 3 && a.stride == 1 && a.dilation == 1 && a.output > 0 && narrow(a);
        let fits = *depth == Axis::ONE && tiled(h) && tiled(w);
        (fits && conv.groups == 1 && conv.ic >= CHANNELS && conv.oc >= CHANNELS).then(|| Winograd {
            ic: conv.ic,
            oc: conv.oc,
            input: [h.input, w.input],
            output: [h.output, w.output],
            begin: [h.begin, w.begin],
            tiles: [h.output.div_ceil(STEP), w.output.div_ceil(STEP)],
        })
    }

    /// Elements of U of one point.
    fn weights(&self) -> usize {
        self.oc.next_multiple_of(STRIP) * self.ic + APART
    }

    /// Elements of the gradient of U of one point.
    fn slopes(&self) -> usize {
        self.ic.next_multiple_of(PANEL) * self.oc + APART
    }

    /// U of `w` [OC, IC, 3, 3], into `u`.
    pub fn transform_weights(&self, w: &[f32], u: &mut Vec<f32>) {
        use rayon::prelude::*;
        let (ic, padded) = (self.ic, self.ic.next_multiple_of(LANES));
        u.resize(POINTS * self.weights(), 0.0);
        // Per strip: where its points go.
        let mut strips: Vec<Vec<&mut [f32]>> = (0..self.oc.div_ceil(STRIP)).map(|_| Vec::new()).collect();
        for u in u.chunks_exact_mut(self.weights()) {
            strips.iter_mut().zip(u.chunks_exact_mut(ic * STRIP)).for_each(|(strip, u)| strip.push(u));
        }
        strips.into_par_iter().zip(w.par_chunks(STRIP * ic * 9)).for_each_init(
            || (vec![0.0; 9 * padded], vec![0.0; STRIP * POINTS * padded]),
            |(taps, rows), (u, w)| {
                for (row, w) in rows.chunks_exact_mut(POINTS * padded).zip(w.chunks_exact(ic * 9)) {
                    for (i, filter) in w.chunks_exact(9).enumerate() {
                        filter.iter().enumerate().for_each(|(t, &v)| taps[t * padded + i] = v);
                    }
                    transform(FilterIn, (taps, Spread::plain(padded)), (row, Spread::plain(padded)), padded);
                }
                let rows: [&[f32]; STRIP] = std::array::from_fn(|r| &rows[r * POINTS * padded..][..POINTS * padded]);
                for (p, u) in u.into_iter().enumerate() {
                    let rows = rows.map(|row| &row[p * padded..][..ic]);
                    for (i, u) in u.chunks_exact_mut(STRIP).enumerate() {
                        (0..STRIP).for_each(|r| u[r] = rows[r][i]);
                    }
                }
            },
        );
    }

    /// y = conv(x, U) + bias for `samples` samples; `scratch` is working memory.
    pub fn forward(
        &self,
        samples: usize,
        x: &[f32],
        u: &[f32],
        bias: Option<&[f32]>,
        y: &mut [f32],
        scratch: &mut Vec<f32>,
    ) {
        for lines in self.blocks(samples) {
            let n = self.columns(&lines);
            let [v, m, small, _] = self.parts(scratch, n, 0);
            self.inputs(samples, x, &lines, v, small);
            for p in 0..POINTS {
                let weights = Left { run: usize::MAX, row: 1, step: STRIP, jump: 0, ..self.filters(p) };
                let (to, from) = (point(p, self.oc, n), point(p, self.ic, n));
                multiply([self.oc, self.ic, n], (m, to), false, (u, weights), (v, from));
            }
            self.outputs(samples, m, bias, &lines, y, small);
        }
    }

    /// Gradients for the gradient `dy` of y.
    pub fn backward(&self, samples: usize, x: &[f32], u: &[f32], dy: &[f32], wanted: Wanted, scratch: &mut Vec<f32>) {
        let Wanted { w: dw, x: mut dx } = wanted;
        if let Some((dx, add)) = &mut dx
            && !*add
        {
            dx.fill(0.0);
        }
        let (oc, ic) = (self.oc, self.ic);
        let total = if dw.is_some() { POINTS * self.slopes() } else { 0 };
        for (number, lines) in self.blocks(samples).enumerate() {
            let n = self.columns(&lines);
            let [v, m, small, du] = self.parts(scratch, n, total);
            self.upstream(samples, dy, &lines, m, small);
            if dw.is_some() {
                self.inputs(samples, x, &lines, v, small);
                for p in 0..POINTS {
                    let up = Left::panels(point(p, oc, n).start, oc);
                    let turned = &mut small[..n.next_multiple_of(PANEL) * ic.next_multiple_of(PANEL)];
                    turn(&v[point(p, ic, n).start..], ic, turned);
                    let (to, from) = (Panels::new(p * self.slopes(), oc), Panels::new(0, n.next_multiple_of(PANEL)));
                    multiply([oc, n, ic], (du, to), number > 0, (m, up), (turned, from));
                }
            }
            if let Some((dx, _)) = &mut dx {
                for p in 0..POINTS {
                    let weights = Left { strip: STRIP * STRIP, row: STRIP, run: STRIP, step: 1, ..self.filters(p) };
                    let (to, from) = (point(p, ic, n), point(p, oc, n));
                    multiply([ic, oc, n], (v, to), false, (u, weights), (m, from));
                }
                self.downstream(samples, v, &lines, dx, small);
            }
        }
        if let Some(dw) = dw {
            let [_, _, small, du] = self.parts(scratch, LANES, total);
            let small = &mut small[..9 * PANEL];
            for (o, dw) in dw.chunks_exact_mut(ic * 9).enumerate() {
                for (panel, dw) in dw.chunks_mut(PANEL * 9).enumerate() {
                    let from = Spread { start: (panel * oc + o) * PANEL, point: self.slopes(), panel: 0 };
                    transform(FilterBack, (du, from), (small, Spread::plain(PANEL)), PANEL);
                    for (i, filter) in dw.chunks_exact_mut(9).enumerate() {
                        filter.iter_mut().enumerate().for_each(|(t, g)| *g += small[t * PANEL + i]);
                    }
                }
            }
        }
    }

    /// Lines of tiles of `samples` samples, in blocks of about equal size.
    fn blocks(&self, samples: usize) -> impl Iterator<Item = Range<usize>> + use<> {
        let (total, across) = (samples * self.tiles[0], self.tiles[1]);
        let most = (BLOCK / (4 * POINTS * (self.ic + self.oc) * across)).max(TILES.div_ceil(across));
        let count = total.div_ceil(most).max(1);
        let block = total.div_ceil(count).max(1);
        (0..total).step_by(block).map(move |start| start..(start + block).min(total))
    }

    /// Columns of the products for `lines` of tiles: the tiles, in whole vectors.
    fn columns(&self, lines: &Range<usize>) -> usize {
        (lines.len() * self.tiles[1]).next_multiple_of(LANES)
    }

    /// Columns that one sample gives.
    pub fn columns_of_a_sample(&self) -> usize {
        self.tiles[0] * self.tiles[1]
    }

    /// Where U of point `p` lies; strides inside a strip are for output channels in runs.
    fn filters(&self, p: usize) -> Left {
        let strip = self.ic * STRIP;
        Left { start: p * self.weights(), strip, row: 0, run: STRIP, jump: strip, step: 0 }
    }

    /// Elements of working memory that the passes of learning over `samples` samples take.
    pub fn working(&self, samples: usize) -> usize {
        let columns = self.blocks(samples).next().map_or(0, |lines| self.columns(&lines));
        POINTS * self.slopes() + self.sizes(columns).iter().sum::<usize>()
    }

    /// Elements of U of all points.
    pub fn all_weights(&self) -> usize {
        POINTS * self.weights()
    }

    /// Elements of V, M, and room for one channel, for `n` columns.
    fn sizes(&self, n: usize) -> [usize; 3] {
        let whole = n.next_multiple_of(PANEL);
        // Tiles of one channel, or a panel of V turned.
        let small = ((POINTS + 6 * STEP + 12) * n).max(whole * self.ic.next_multiple_of(PANEL)).max(9 * PANEL);
        [point(POINTS, self.ic, n).start, point(POINTS, self.oc, n).start, small]
    }

    /// Working memory: V, M, room for one channel, and `total` elements for the gradient of U.
    fn parts<'a>(&self, scratch: &'a mut Vec<f32>, n: usize, total: usize) -> [&'a mut [f32]; 4] {
        let sizes = self.sizes(n);
        grow(scratch, total + sizes.iter().sum::<usize>());
        let (du, rest) = scratch.split_at_mut(total);
        let (v, rest) = rest.split_at_mut(sizes[0]);
        let (m, rest) = rest.split_at_mut(sizes[1]);
        [v, m, &mut rest[..sizes[2]], du]
    }

    /// V of the inputs under `lines`.
    fn inputs(&self, samples: usize, x: &[f32], lines: &Range<usize>, v: &mut [f32], small: &mut [f32]) {
        self.apart(InputIn, STEP + 2, samples * self.input[0] * self.input[1], x, lines, (v, self.ic), small);
    }

    /// Gradient of M from that of y under `lines`.
    fn upstream(&self, samples: usize, dy: &[f32], lines: &Range<usize>, m: &mut [f32], small: &mut [f32]) {
        self.apart(TileBack, STEP, samples * self.output[0] * self.output[1], dy, lines, (m, self.oc), small);
    }

    /// Takes tiles of `size` rows under `lines` out of channels of `plane` elements and transforms them by `line`.
    #[allow(clippy::too_many_arguments)]
    fn apart<const N: usize>(
        &self,
        line: impl Line<N, 6>,
        size: usize,
        plane: usize,
        from: &[f32],
        lines: &Range<usize>,
        (to, channels): (&mut [f32], usize),
        small: &mut [f32],
    ) {
        let n = self.columns(lines);
        let comb = Comb::new(self, lines, size);
        let (small, [rows, ends]) = comb.split(small, n);
        for c in 0..channels {
            let from = &from[c * plane..];
            vectorized(
                #[inline(always)]
                || comb.part(from, [rows, ends], small, n),
            );
            transform(line, (small, Spread::plain(n)), (to, Spread::channel(c, channels, n)), n);
        }
    }

    /// y of M under `lines`.
    fn outputs(
        &self,
        samples: usize,
        m: &[f32],
        bias: Option<&[f32]>,
        lines: &Range<usize>,
        y: &mut [f32],
        small: &mut [f32],
    ) {
        let ([height, width], n) = (self.output, self.columns(lines));
        let comb = Comb::new(self, lines, STEP);
        let (small, [rows, ends]) = comb.split(small, n);
        for c in 0..self.oc {
            transform(TileOut, (m, Spread::channel(c, self.oc, n)), (small, Spread::plain(n)), n);
            let (y, bias) = (&mut y[c * samples * height * width..], bias.map_or(0.0, |b| b[c]));
            vectorized(
                #[inline(always)]
                || comb.join(small, n, [rows, ends], y, |y, v| *y = v + bias),
            );
        }
    }

    /// Adds what the gradient of V under `lines` comes to for x.
    fn downstream(&self, samples: usize, v: &[f32], lines: &Range<usize>, dx: &mut [f32], small: &mut [f32]) {
        let ([height, width], n) = (self.input, self.columns(lines));
        let comb = Comb::new(self, lines, STEP + 2);
        let (small, [rows, ends]) = comb.split(small, n);
        for c in 0..self.ic {
            transform(InputBack, (v, Spread::channel(c, self.ic, n)), (small, Spread::plain(n)), n);
            let dx = &mut dx[c * samples * height * width..];
            vectorized(
                #[inline(always)]
                || comb.join(small, n, [rows, ends], dx, |x, v| *x += v),
            );
        }
    }
}

/// Point `p` of `channels` channels of n tiles.
fn point(p: usize, channels: usize, n: usize) -> Panels {
    Panels::new(p * (channels * n.next_multiple_of(PANEL) + APART), channels)
}

/// Transposes panels of `rows` rows: row j of panel k becomes column j of row 32·k and those behind it.
fn turn(from: &[f32], rows: usize, to: &mut [f32]) {
    let height = to.len() / rows.next_multiple_of(PANEL);
    for (panel, to) in to.chunks_exact_mut(height * PANEL).enumerate() {
        let count = PANEL.min(rows - panel * PANEL);
        for (from, to) in from.chunks(rows * PANEL).zip(to.chunks_exact_mut(PANEL * PANEL)) {
            let from = &from[panel * PANEL * PANEL..][..count * PANEL];
            for (i, row) in from.chunks_exact(PANEL).enumerate() {
                (0..PANEL).for_each(|j| to[j * PANEL + i] = row[j]);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::cpu::conv::Conv;
    use crate::engine::ops::window::Axis;
    use crate::engine::philox::philox;

    /// Largest difference, as a share of the largest value.
    const SHARE: f32 = 1e-5;

    fn axis(input: usize, begin: usize, end: usize) -> Axis {
        let output = input + begin + end - 2;
        Axis { input, output, kernel: 3, stride: 1, dilation: 1, begin, end }
    }

    fn noise(n: usize, stream: u32) -> Vec<f32> {
        (0..n).map(|i| philox([7, stream], [i as u32, 0, 0, 0])[0] as i32 as f32 / 2f32.powi(31)).collect()
    }

    fn near(got: &[f32], want: &[f32]) {
        let largest = want.iter().fold(0.0f32, |m, v| m.max(v.abs()));
        assert_eq!(got.len(), want.len());
        for (i, (g, w)) in got.iter().zip(want).enumerate() {
            assert!((g - w).abs() <= SHARE * largest, "element {i}: {g} instead of {w}, the largest is {largest}");
        }
    }

    #[test]
    fn tiles_and_columns_agree() {
        for (h, w, pads, samples) in [(8, 8, [1, 1, 1, 1], 3), (7, 5, [0, 2, 1, 0], 2), (15, 30, [1, 1, 1, 1], 9)] {
            let axes = [Axis::ONE, axis(h, pads[0], pads[1]), axis(w, pads[2], pads[3])];
            let conv = Conv(Convolution { axes, groups: 1, ic: 33, oc: 40 });
            let tiled = Winograd::of(&conv).unwrap();
            let (inputs, outputs) = (samples * h * w, samples * conv.planes().1);
            let (x, weights, bias) = (noise(33 * inputs, 1), noise(40 * 33 * 9, 2), noise(40, 3));
            let (mut u, mut scratch) = (Vec::new(), Vec::new());
            tiled.transform_weights(&weights, &mut u);

            let (mut y, mut direct) = (vec![0.0; 40 * outputs], vec![0.0; 40 * outputs]);
            tiled.forward(samples, &x, &u, Some(&bias), &mut y, &mut scratch);
            conv.forward(samples, &x, &weights, Some(&bias), &mut direct, &mut scratch);
            near(&y, &direct);

            let dy = noise(40 * outputs, 4);
            let mut gradients = [noise(weights.len(), 5), noise(weights.len(), 5)];
            let mut downs = [noise(x.len(), 6), noise(x.len(), 6)];
            let [dw, direct_dw] = &mut gradients;
            let [dx, direct_dx] = &mut downs;
            for add in [false, true] {
                let wanted = Wanted { w: Some(dw), x: Some((dx, add)) };
                tiled.backward(samples, &x, &u, &dy, wanted, &mut scratch);
                let wanted = Wanted { w: Some(direct_dw), x: Some((direct_dx, add)) };
                conv.backward(samples, &x, &weights, &dy, wanted, &mut scratch);
                near(dw, direct_dw);
                near(dx, direct_dx);
            }
            tiled.backward(samples, &x, &u, &dy, Wanted { w: None, x: Some((dx, false)) }, &mut scratch);
            conv.backward(samples, &x, &weights, &dy, Wanted { w: None, x: Some((direct_dx, false)) }, &mut scratch);
            near(dx, direct_dx);
        }
    }

    #[test]
    fn only_what_fits_is_tiled() {
        let conv = Convolution { axes: [Axis::ONE, axis(8, 1, 1), axis(8, 1, 1)], groups: 1, ic: 64, oc: 64 };
        assert!(Winograd::of(&conv).is_some());
        let strided = Axis { stride: 2, output: 4, ..axis(8, 1, 1) };
        assert!(Winograd::of(&Convolution { axes: [Axis::ONE, strided, axis(8, 1, 1)], ..conv.clone() }).is_none());
        assert!(Winograd::of(&Convolution { groups: 2, ..conv.clone() }).is_none());
        assert!(Winograd::of(&Convolution { ic: 8, ..conv }).is_none());
    }
}
