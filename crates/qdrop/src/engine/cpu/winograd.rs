//! Winograd's F(4×4, 3×3): a quarter of the multiplications of a 3×3 convolution with stride 1.
//!
//! Outputs are cut into tiles of 4×4, each from 6×6 inputs. With V = Bᵀ·d·B of the inputs d and U = G·g·Gᵀ of a filter
//! g, a tile is Aᵀ·(Σ U⊙V)·A, summed over input channels: 36 matrix products (Lavin and Gray, "Fast Algorithms for
//! Convolutional Neural Networks", CVPR 2016). The gradients are the adjoints of these steps: with dM = A·dy·Aᵀ,
//! dU = Σ dM⊙V over tiles, dg = Gᵀ·dU·G, and dV = Σ U⊙dM over output channels, dd = B·dV·Bᵀ.
//!
//! Rounding errors are some ten times those of the direct sum (a few 1e-6 of the largest value), which learning does not
//! notice; inference keeps to [`super::conv`]. Layout of x and y as there. V: [IC, 36, tiles]; M: [OC, 36, tiles];
//! U: [OC, 36, IC], rows padded to whole vectors.

use super::conv::{Conv, Wanted, grow};
use super::math::vectorized;
use super::matrix::{View, product};
use std::ops::Range;

/// Elements of a vector that is computed with at a time.
const LANES: usize = 8;
/// Outputs of a tile along an axis.
const STEP: usize = 4;
/// Points of a tile in the domain of the products.
const POINTS: usize = 36;
/// Fewest channels for which the products outweigh the transforms.
const CHANNELS: usize = 32;
/// Bytes that V and M of a block of tiles take, about.
const BLOCK: usize = 1 << 23;
/// Fewest tiles in a block, where there are as many.
pub(super) const TILES: usize = 128;

type Lane = [f32; LANES];

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
    pub fn of(conv: &Conv) -> Option<Self> {
        let fits = conv.axes.iter().all(|a| a.kernel == 3 && a.stride == 1 && a.dilation == 1 && a.output > 0);
        let [h, w] = &conv.axes;
        (fits && conv.groups == 1 && conv.ic >= CHANNELS && conv.oc >= CHANNELS).then(|| Winograd {
            ic: conv.ic,
            oc: conv.oc,
            input: [h.input, w.input],
            output: [h.output, w.output],
            begin: [h.begin, w.begin],
            tiles: [h.output.div_ceil(STEP), w.output.div_ceil(STEP)],
        })
    }

    /// Input channels in whole vectors.
    fn padded(&self) -> usize {
        self.ic.next_multiple_of(LANES)
    }

    /// Elements of U that belong to an output channel.
    fn filter(&self) -> usize {
        POINTS * self.padded()
    }

    /// U of `w` [OC, IC, 3, 3], into `u`.
    pub fn transform_weights(&self, w: &[f32], u: &mut Vec<f32>) {
        use rayon::prelude::*;
        let (row, padded) = (self.ic * 9, self.padded());
        u.resize(self.oc * self.filter(), 0.0);
        u.par_chunks_exact_mut(self.filter()).zip(w.par_chunks_exact(row)).for_each_init(
            || vec![0.0; 9 * padded],
            |taps, (u, w)| {
                for (i, filter) in w.chunks_exact(9).enumerate() {
                    filter.iter().enumerate().for_each(|(t, &v)| taps[t * padded + i] = v);
                }
                transform(filter_in, taps, u);
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
        let [height, width] = self.output;
        for lines in self.blocks(samples) {
            let n = self.columns(&lines);
            let [v, m, small, _] = self.parts(scratch, n, 0);
            self.inputs(samples, x, &lines, v, small);
            for p in 0..POINTS {
                product((m, points(p, self.oc, n)), false, (u, self.filters(p)), (v, points(p, self.ic, n)));
            }
            let (small, row) = small.split_at_mut(STEP * STEP * n);
            for (c, m) in m.chunks_exact(POINTS * n).enumerate() {
                transform(tile_out, m, small);
                let (y, bias) = (&mut y[c * samples * height * width..], bias.map_or(0.0, |b| b[c]));
                self.rows(STEP, height, 0, &lines, |i, at, source| {
                    weave(&small[i * STEP * n..][..STEP * n], at, self.tiles[1], row);
                    let to = &mut y[source * width..][..width];
                    to.iter_mut().zip(&*row).for_each(|(y, &v)| *y = v + bias);
                });
            }
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
        let total = if dw.is_some() { self.oc * self.filter() } else { 0 };
        for (number, lines) in self.blocks(samples).enumerate() {
            let n = self.columns(&lines);
            let [v, m, small, du] = self.parts(scratch, n, total);
            self.upstream(samples, dy, &lines, m, small);
            if dw.is_some() {
                self.inputs(samples, x, &lines, v, small);
                for p in 0..POINTS {
                    let (up, down) = ((&*m, points(p, self.oc, n)), (&*v, points(p, self.ic, n).t()));
                    product((du, self.filters(p)), number > 0, up, down);
                }
            }
            if let Some((dx, _)) = &mut dx {
                for p in 0..POINTS {
                    let (weights, up) = ((u, self.filters(p).t()), (&*m, points(p, self.oc, n)));
                    product((v, points(p, self.ic, n)), false, weights, up);
                }
                self.downstream(samples, v, &lines, dx, small);
            }
        }
        if let Some(dw) = dw {
            let [_, _, small, du] = self.parts(scratch, LANES, total);
            let padded = self.padded();
            let small = &mut small[..9 * padded];
            for (du, dw) in du.chunks_exact(self.filter()).zip(dw.chunks_exact_mut(self.ic * 9)) {
                transform(filter_back, du, small);
                for (i, filter) in dw.chunks_exact_mut(9).enumerate() {
                    filter.iter_mut().enumerate().for_each(|(t, g)| *g += small[t * padded + i]);
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

    /// Where U of point `p` lies.
    fn filters(&self, p: usize) -> View {
        View::rows(p * self.padded(), self.oc, self.ic, self.filter())
    }

    /// Working memory: V, M, the tiles of one channel with a row of x or y behind them, and `total` elements for the gradient of U.
    fn parts<'a>(&self, scratch: &'a mut Vec<f32>, n: usize, total: usize) -> [&'a mut [f32]; 4] {
        let row = STEP * (self.tiles[1] + 1) + LANES;
        let small = (POINTS * n).max(9 * self.padded()) + row;
        let sizes = [self.ic * POINTS * n, self.oc * POINTS * n, small];
        grow(scratch, total + sizes.iter().sum::<usize>());
        let (du, rest) = scratch.split_at_mut(total);
        let (v, rest) = rest.split_at_mut(sizes[0]);
        let (m, rest) = rest.split_at_mut(sizes[1]);
        [v, m, &mut rest[..sizes[2]], du]
    }

    /// V of the inputs under `lines`.
    fn inputs(&self, samples: usize, x: &[f32], lines: &Range<usize>, v: &mut [f32], small: &mut [f32]) {
        let ([height, width], [top, left], n) = (self.input, self.begin, self.columns(lines));
        let (small, row) = small.split_at_mut(POINTS * n);
        // What lies in the padding stays 0 for all channels.
        small.fill(0.0);
        row.fill(0.0);
        let (across, size) = (self.tiles[1], STEP + 2);
        let used = width.min(STEP * across + 2 - left);
        for (c, v) in v.chunks_exact_mut(POINTS * n).enumerate() {
            let x = &x[c * samples * height * width..];
            self.rows(size, height, top, lines, |i, at, source| {
                let tiles = &mut small[i * size * n..][..size * n];
                row[left..left + used].copy_from_slice(&x[source * width..][..used]);
                unweave(row, &mut tiles[..STEP * n], at, across);
                // The last two columns of a tile are the first two of the next.
                for j in 0..2 {
                    tiles.copy_within(j * n + at + 1..j * n + at + across, (STEP + j) * n + at);
                    tiles[(STEP + j) * n + at + across - 1] = row[STEP * across + j];
                }
            });
            transform(input_in, small, v);
        }
    }

    /// Gradient of M from that of y under `lines`.
    fn upstream(&self, samples: usize, dy: &[f32], lines: &Range<usize>, m: &mut [f32], small: &mut [f32]) {
        let ([height, width], n) = (self.output, self.columns(lines));
        let (small, row) = small.split_at_mut(STEP * STEP * n);
        small.fill(0.0);
        row.fill(0.0);
        for (c, m) in m.chunks_exact_mut(POINTS * n).enumerate() {
            let dy = &dy[c * samples * height * width..];
            self.rows(STEP, height, 0, lines, |i, at, source| {
                let tiles = &mut small[i * STEP * n..][..STEP * n];
                row[..width].copy_from_slice(&dy[source * width..][..width]);
                unweave(row, tiles, at, self.tiles[1]);
            });
            transform(tile_back, small, m);
        }
    }

    /// Adds what the gradient of V under `lines` comes to for x.
    fn downstream(&self, samples: usize, v: &[f32], lines: &Range<usize>, dx: &mut [f32], small: &mut [f32]) {
        let ([height, width], [top, left], n) = (self.input, self.begin, self.columns(lines));
        let (small, row) = small.split_at_mut(POINTS * n);
        let (across, size) = (self.tiles[1], STEP + 2);
        let used = width.min(STEP * across + 2 - left);
        for (c, v) in v.chunks_exact(POINTS * n).enumerate() {
            transform(input_back, v, small);
            let dx = &mut dx[c * samples * height * width..];
            self.rows(size, height, top, lines, |i, at, source| {
                let (first, last) = small[i * size * n..][..size * n].split_at_mut(STEP * n);
                for j in 0..2 {
                    let next = first[j * n + at + 1..j * n + at + across].iter_mut();
                    next.zip(&last[j * n + at..]).for_each(|(a, &b)| *a += b);
                    row[STEP * across + j] = last[j * n + at + across - 1];
                }
                weave(first, at, across, row);
                let to = dx[source * width..][..used].iter_mut();
                to.zip(&row[left..]).for_each(|(x, &v)| *x += v);
            });
        }
    }

    /// Calls `f` for every line of tiles and each of its `size` rows outside the padding: row, first tile of the line
    /// counted from the first of `lines`, and number of the row in a channel (of all samples).
    fn rows(
        &self,
        size: usize,
        height: usize,
        top: usize,
        lines: &Range<usize>,
        mut f: impl FnMut(usize, usize, usize),
    ) {
        for line in lines.clone() {
            let (sample, ty) = (line / self.tiles[0], line % self.tiles[0]);
            for i in 0..size {
                if let Some(row) = (STEP * ty + i).checked_sub(top).filter(|&r| r < height) {
                    f(i, (line - lines.start) * self.tiles[1], sample * height + row);
                }
            }
        }
    }
}

/// Point `p` of `channels` channels of n tiles.
fn points(p: usize, channels: usize, n: usize) -> View {
    View::rows(p * n, channels, n, POINTS * n)
}

/// Element k of the four rows of `to` (each from `at`) is element 4·k, 4·k + 1, ... of `row`, k < `count`.
fn unweave(row: &[f32], to: &mut [f32], at: usize, count: usize) {
    let n = to.len() / STEP;
    let (ab, cd) = to.split_at_mut(2 * n);
    let ((a, b), (c, d)) = (ab.split_at_mut(n), cd.split_at_mut(n));
    let (a, b, c, d) = (&mut a[at..at + count], &mut b[at..at + count], &mut c[at..at + count], &mut d[at..at + count]);
    for (k, v) in row[..STEP * count].chunks_exact(STEP).enumerate() {
        (a[k], b[k], c[k], d[k]) = (v[0], v[1], v[2], v[3]);
    }
}

/// The reverse of [`unweave`].
fn weave(from: &[f32], at: usize, count: usize, row: &mut [f32]) {
    let n = from.len() / STEP;
    let lane = |j: usize| &from[j * n + at..][..count];
    let (a, b, c, d) = (lane(0), lane(1), lane(2), lane(3));
    for (k, v) in row[..STEP * count].chunks_exact_mut(STEP).enumerate() {
        (v[0], v[1], v[2], v[3]) = (a[k], b[k], c[k], d[k]);
    }
}

/// Applies `line` along both axes of every tile: `from` [N·N, n] to `to` [M·M, n], n a multiple of [`LANES`].
fn transform<const N: usize, const M: usize>(line: impl Fn([Lane; N]) -> [Lane; M], from: &[f32], to: &mut [f32]) {
    let n = from.len() / (N * N);
    assert!(n.is_multiple_of(LANES) && to.len() == M * M * n, "tiles are no whole vectors");
    vectorized(
        #[inline(always)]
        || {
            for at in (0..n).step_by(LANES) {
                let mut half = [[[0.0; LANES]; N]; M];
                for j in 0..N {
                    let column: [Lane; N] = std::array::from_fn(|i| load(&from[(i * N + j) * n + at..]));
                    let column = line(column);
                    (0..M).for_each(|i| half[i][j] = column[i]);
                }
                for (i, half) in half.into_iter().enumerate() {
                    for (j, v) in line(half).iter().enumerate() {
                        to[(i * M + j) * n + at..][..LANES].copy_from_slice(v);
                    }
                }
            }
        },
    );
}

#[inline(always)]
fn load(from: &[f32]) -> Lane {
    let mut lane = [0.0; LANES];
    lane.copy_from_slice(&from[..LANES]);
    lane
}

/// The sum of vectors, each times a number.
#[inline(always)]
fn sum<const K: usize>(terms: [(f32, &Lane); K]) -> Lane {
    let mut out = [0.0; LANES];
    for (k, (factor, lane)) in terms.into_iter().enumerate() {
        for l in 0..LANES {
            out[l] = if k == 0 { factor * lane[l] } else { out[l] + factor * lane[l] };
        }
    }
    out
}

/// Bᵀ·d.
#[inline(always)]
fn input_in([a, b, c, d, e, f]: [Lane; 6]) -> [Lane; 6] {
    let (even, odd) = (sum([(1.0, &e), (-4.0, &c)]), sum([(1.0, &d), (-4.0, &b)]));
    let (even2, odd2) = (sum([(1.0, &e), (-1.0, &c)]), sum([(2.0, &d), (-2.0, &b)]));
    [
        sum([(4.0, &a), (-5.0, &c), (1.0, &e)]),
        sum([(1.0, &even), (1.0, &odd)]),
        sum([(1.0, &even), (-1.0, &odd)]),
        sum([(1.0, &even2), (1.0, &odd2)]),
        sum([(1.0, &even2), (-1.0, &odd2)]),
        sum([(4.0, &b), (-5.0, &d), (1.0, &f)]),
    ]
}

/// B·v.
#[inline(always)]
fn input_back([a, b, c, d, e, f]: [Lane; 6]) -> [Lane; 6] {
    let (plus, minus) = (sum([(1.0, &b), (1.0, &c)]), sum([(1.0, &c), (-1.0, &b)]));
    let (plus2, minus2) = (sum([(1.0, &d), (1.0, &e)]), sum([(2.0, &e), (-2.0, &d)]));
    [
        sum([(4.0, &a)]),
        sum([(4.0, &minus), (1.0, &minus2), (4.0, &f)]),
        sum([(-5.0, &a), (-4.0, &plus), (-1.0, &plus2)]),
        sum([(-1.0, &minus), (-1.0, &minus2), (-5.0, &f)]),
        sum([(1.0, &a), (1.0, &plus), (1.0, &plus2)]),
        f,
    ]
}

/// G·g.
#[inline(always)]
fn filter_in([a, b, c]: [Lane; 3]) -> [Lane; 6] {
    let (outer, inner) = (sum([(-1.0 / 6.0, &a), (-1.0 / 6.0, &c)]), sum([(1.0 / 6.0, &b)]));
    let (outer2, inner2) = (sum([(1.0 / 24.0, &a), (1.0 / 6.0, &c)]), sum([(1.0 / 12.0, &b)]));
    [
        sum([(0.25, &a)]),
        sum([(1.0, &outer), (-1.0, &inner)]),
        sum([(1.0, &outer), (1.0, &inner)]),
        sum([(1.0, &outer2), (1.0, &inner2)]),
        sum([(1.0, &outer2), (-1.0, &inner2)]),
        c,
    ]
}

/// Gᵀ·u.
#[inline(always)]
fn filter_back([a, b, c, d, e, f]: [Lane; 6]) -> [Lane; 3] {
    let (plus, minus) = (sum([(1.0, &b), (1.0, &c)]), sum([(1.0, &c), (-1.0, &b)]));
    let (plus2, minus2) = (sum([(1.0, &d), (1.0, &e)]), sum([(1.0, &d), (-1.0, &e)]));
    [
        sum([(0.25, &a), (-1.0 / 6.0, &plus), (1.0 / 24.0, &plus2)]),
        sum([(1.0 / 6.0, &minus), (1.0 / 12.0, &minus2)]),
        sum([(-1.0 / 6.0, &plus), (1.0 / 6.0, &plus2), (1.0, &f)]),
    ]
}

/// Aᵀ·m.
#[inline(always)]
fn tile_out([a, b, c, d, e, f]: [Lane; 6]) -> [Lane; 4] {
    let (plus, minus) = (sum([(1.0, &b), (1.0, &c)]), sum([(1.0, &b), (-1.0, &c)]));
    let (plus2, minus2) = (sum([(1.0, &d), (1.0, &e)]), sum([(1.0, &d), (-1.0, &e)]));
    [
        sum([(1.0, &a), (1.0, &plus), (1.0, &plus2)]),
        sum([(1.0, &minus), (2.0, &minus2)]),
        sum([(1.0, &plus), (4.0, &plus2)]),
        sum([(1.0, &minus), (8.0, &minus2), (1.0, &f)]),
    ]
}

/// A·y.
#[inline(always)]
fn tile_back([a, b, c, d]: [Lane; 4]) -> [Lane; 6] {
    let (even, odd) = (sum([(1.0, &a), (1.0, &c)]), sum([(1.0, &b), (1.0, &d)]));
    let (even2, odd2) = (sum([(1.0, &a), (4.0, &c)]), sum([(2.0, &b), (8.0, &d)]));
    [
        a,
        sum([(1.0, &even), (1.0, &odd)]),
        sum([(1.0, &even), (-1.0, &odd)]),
        sum([(1.0, &even2), (1.0, &odd2)]),
        sum([(1.0, &even2), (-1.0, &odd2)]),
        d,
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
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
            let conv = Conv { axes: [axis(h, pads[0], pads[1]), axis(w, pads[2], pads[3])], groups: 1, ic: 33, oc: 40 };
            let tiled = Winograd::of(&conv).unwrap();
            let (inputs, outputs) = (samples * h * w, samples * conv.axes[0].output * conv.axes[1].output);
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
        let conv = Conv { axes: [axis(8, 1, 1), axis(8, 1, 1)], groups: 1, ic: 64, oc: 64 };
        assert!(Winograd::of(&conv).is_some());
        let strided = Axis { stride: 2, output: 4, ..axis(8, 1, 1) };
        assert!(Winograd::of(&Conv { axes: [strided, axis(8, 1, 1)], ..conv.clone() }).is_none());
        assert!(Winograd::of(&Conv { groups: 2, ..conv.clone() }).is_none());
        assert!(Winograd::of(&Conv { ic: 8, ..conv }).is_none());
    }
}
