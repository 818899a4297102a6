//! Depthwise convolution: every channel has one filter of its own.
//!
//! A padded copy of the input plane is split by column phase (column modulo stride), so that every inner loop runs over
//! neighbouring elements whatever the stride. Layout as in [`super::conv`].

use super::conv::{Wanted, grow};
use super::math::vectorized;
use crate::engine::ops::window::Axis;

/// A depthwise two-dimensional convolution, w: [C, 1, KH, KW].
#[derive(Debug, Clone)]
pub(super) struct Depthwise {
    /// Rows and columns.
    pub axes: [Axis; 2],
}

impl Depthwise {
    /// Width of one phase, and elements of a phased plane.
    fn pitch(&self) -> (usize, usize) {
        let [h, w] = &self.axes;
        let width = w.padded().div_ceil(w.stride).max((w.kernel - 1) * w.dilation / w.stride + w.output);
        (width, h.padded() * w.stride * width)
    }

    /// Offset in a phased plane of what output (0, 0) reads through tap (ky, kx).
    fn offset(&self, ky: usize, kx: usize, width: usize) -> usize {
        let [h, w] = &self.axes;
        let column = kx * w.dilation;
        (ky * h.dilation * w.stride + column % w.stride) * width + column / w.stride
    }

    /// Offsets of the taps of a kernel of nine.
    fn nine_offsets(&self, width: usize) -> [usize; 9] {
        let across = self.axes[1].kernel;
        std::array::from_fn(|t| self.offset(t / across, t % across, width))
    }

    #[inline(always)]
    fn split(&self, x: &[f32], phased: &mut [f32], width: usize) {
        let [h, w] = &self.axes;
        for (iy, row) in x.chunks_exact(w.input).enumerate() {
            let line = &mut phased[(iy + h.begin) * w.stride * width..][..w.stride * width];
            if w.stride == 1 {
                line[w.begin..w.begin + w.input].copy_from_slice(row);
                continue;
            }
            if w.stride == 2 {
                let ((even, odd), (pairs, last)) = (self.halves(line, width), row.as_chunks::<2>());
                for ((even, odd), pair) in even.iter_mut().zip(odd).zip(pairs) {
                    (*even, *odd) = (pair[0], pair[1]);
                }
                even.iter_mut().skip(pairs.len()).zip(last).for_each(|(e, &v)| *e = v);
                continue;
            }
            for phase in 0..w.stride {
                let (first, to) = self.phase(phase);
                let line = &mut line[phase * width + to..];
                let picked = row[first.min(row.len())..].iter().step_by(w.stride);
                line.iter_mut().zip(picked).for_each(|(o, &v)| *o = v);
            }
        }
    }

    /// Where the even and the odd columns of a row lie in its line, with stride 2.
    #[inline(always)]
    fn halves<'a>(&self, line: &'a mut [f32], width: usize) -> (&'a mut [f32], &'a mut [f32]) {
        let (zero, one) = line.split_at_mut(width);
        let (zero, one) = (&mut zero[self.phase(0).1..], &mut one[self.phase(1).1..]);
        if self.phase(0).0 == 0 { (zero, one) } else { (one, zero) }
    }

    /// First input column of a phase, and where it lies in the phase's line.
    fn phase(&self, phase: usize) -> (usize, usize) {
        let w = &self.axes[1];
        let first = (phase + w.stride - w.begin % w.stride) % w.stride;
        (first, (first + w.begin) / w.stride)
    }

    #[inline(always)]
    fn join(&self, phased: &mut [f32], dx: &mut [f32], add: bool, width: usize) {
        let [h, w] = &self.axes;
        for (iy, row) in dx.chunks_exact_mut(w.input).enumerate() {
            let line = &mut phased[(iy + h.begin) * w.stride * width..][..w.stride * width];
            if w.stride == 2 {
                if !add {
                    row.fill(0.0);
                }
                let ((even, odd), (pairs, last)) = (self.halves(line, width), row.as_chunks_mut::<2>());
                last.iter_mut().zip(&even[pairs.len().min(even.len())..]).for_each(|(x, &g)| *x += g);
                for ((&mut even, &mut odd), pair) in even.iter_mut().zip(odd).zip(pairs) {
                    *pair = [pair[0] + even, pair[1] + odd];
                }
                continue;
            }
            for phase in 0..w.stride {
                let (first, from) = self.phase(phase);
                let line = &line[phase * width + from..];
                let start = first.min(row.len());
                let picked = row[start..].iter_mut().step_by(w.stride);
                if add {
                    picked.zip(line).for_each(|(x, &g)| *x += g);
                } else {
                    picked.zip(line).for_each(|(x, &g)| *x = g);
                }
            }
        }
    }

    /// Elements of working memory that every pass takes.
    pub fn working(&self) -> usize {
        self.pitch().1
    }

    /// y = conv(x, w) + bias for `samples` samples; `scratch` is working memory.
    pub fn forward(
        &self,
        samples: usize,
        x: &[f32],
        w: &[f32],
        bias: Option<&[f32]>,
        y: &mut [f32],
        scratch: &mut Vec<f32>,
    ) {
        let [ah, aw] = &self.axes;
        let (width, size) = self.pitch();
        let taps = ah.kernel * aw.kernel;
        grow(scratch, size);
        let phased = &mut scratch[..size];
        phased.fill(0.0);
        let offsets = self.nine_offsets(width);
        let planes = (x.chunks_exact(ah.input * aw.input)).zip(y.chunks_exact_mut(ah.output * aw.output));
        for (plane, (x, y)) in planes.enumerate() {
            let channel = plane / samples;
            vectorized(
                #[inline(always)]
                || self.split(x, phased, width),
            );
            y.fill(bias.map_or(0.0, |b| b[channel]));
            let filter = &w[channel * taps..][..taps];
            vectorized(
                #[inline(always)]
                || {
                    for (oy, out) in y.chunks_exact_mut(aw.output).enumerate() {
                        let base = oy * ah.stride * aw.stride * width;
                        if let Ok(filter) = <&[f32; 9]>::try_from(filter) {
                            nine(filter, nine_lines(&phased[base..], &offsets, aw.output), out);
                            continue;
                        }
                        for ky in 0..ah.kernel {
                            for kx in 0..aw.kernel {
                                let input = &phased[base + self.offset(ky, kx, width)..][..aw.output];
                                axpy(filter[ky * aw.kernel + kx], input, out);
                            }
                        }
                    }
                },
            );
        }
    }

    /// Gradients for the gradient `dy` of y.
    pub fn backward(&self, samples: usize, x: &[f32], w: &[f32], dy: &[f32], wanted: Wanted, scratch: &mut Vec<f32>) {
        let [ah, aw] = &self.axes;
        let (width, size) = self.pitch();
        let taps = ah.kernel * aw.kernel;
        grow(scratch, size);
        let phased = &mut scratch[..size];
        let Wanted { w: mut dw, x: mut dx } = wanted;
        phased.fill(0.0);
        let offsets = self.nine_offsets(width);
        if let Some(dw) = &mut dw {
            let planes = x.chunks_exact(ah.input * aw.input).zip(dy.chunks_exact(ah.output * aw.output));
            for (plane, (x, dy)) in planes.enumerate() {
                vectorized(
                    #[inline(always)]
                    || self.split(x, phased, width),
                );
                let sums = &mut dw[plane / samples * taps..][..taps];
                vectorized(
                    #[inline(always)]
                    || {
                        if taps == 9 {
                            let mut lanes = [[0f32; 8]; 9];
                            for (oy, up) in dy.chunks_exact(aw.output).enumerate() {
                                let base = oy * ah.stride * aw.stride * width;
                                nine_dots(nine_lines(&phased[base..], &offsets, aw.output), up, &mut lanes);
                            }
                            sums.iter_mut().zip(lanes).for_each(|(s, l)| *s += l.iter().sum::<f32>());
                            return;
                        }
                        for ky in 0..ah.kernel {
                            for kx in 0..aw.kernel {
                                let offset = self.offset(ky, kx, width);
                                let mut lanes = [0f32; 8];
                                let mut rest = 0f32;
                                for (oy, up) in dy.chunks_exact(aw.output).enumerate() {
                                    let input = &phased[oy * ah.stride * aw.stride * width + offset..][..aw.output];
                                    dot(input, up, &mut lanes, &mut rest);
                                }
                                sums[ky * aw.kernel + kx] += lanes.iter().sum::<f32>() + rest;
                            }
                        }
                    },
                );
            }
        }
        if let Some((dx, add)) = &mut dx {
            let planes = dx.chunks_exact_mut(ah.input * aw.input).zip(dy.chunks_exact(ah.output * aw.output));
            for (plane, (dx, dy)) in planes.enumerate() {
                let filter = &w[plane / samples * taps..][..taps];
                phased.fill(0.0);
                vectorized(
                    #[inline(always)]
                    || {
                        for (oy, up) in dy.chunks_exact(aw.output).enumerate() {
                            let base = oy * ah.stride * aw.stride * width;
                            for ky in 0..ah.kernel {
                                for kx in 0..aw.kernel {
                                    let out = &mut phased[base + self.offset(ky, kx, width)..][..aw.output];
                                    axpy(filter[ky * aw.kernel + kx], up, out);
                                }
                            }
                        }
                    },
                );
                vectorized(
                    #[inline(always)]
                    || self.join(phased, dx, *add, width),
                );
            }
        }
    }
}

/// The lines of `n` elements at nine offsets.
#[inline(always)]
fn nine_lines<'a>(phased: &'a [f32], offsets: &[usize; 9], n: usize) -> [&'a [f32]; 9] {
    let mut lines: [&[f32]; 9] = [&[]; 9];
    for (line, &offset) in lines.iter_mut().zip(offsets) {
        *line = &phased[offset..][..n];
    }
    lines
}

/// y += Σ w·x over nine taps.
#[inline(always)]
fn nine(w: &[f32; 9], x: [&[f32]; 9], y: &mut [f32]) {
    let n = y.len();
    let [a, b, c, d, e, f, g, h, k] = x;
    let (a, b, c, d, e) = (&a[..n], &b[..n], &c[..n], &d[..n], &e[..n]);
    let (f, g, h, k) = (&f[..n], &g[..n], &h[..n], &k[..n]);
    for i in 0..n {
        let top = w[0] * a[i] + w[1] * b[i] + w[2] * c[i];
        let middle = w[3] * d[i] + w[4] * e[i] + w[5] * f[i];
        let bottom = w[6] * g[i] + w[7] * h[i] + w[8] * k[i];
        y[i] += top + middle + bottom;
    }
}

/// Adds the products of each of nine lines with `up` to its lanes, element i to lane i % 8.
#[inline(always)]
fn nine_dots(x: [&[f32]; 9], up: &[f32], lanes: &mut [[f32; 8]; 9]) {
    let n = up.len();
    let whole = n / 8 * 8;
    for (lanes, x) in lanes.iter_mut().zip(x) {
        let x = &x[..n];
        for (a, b) in x[..whole].chunks_exact(8).zip(up[..whole].chunks_exact(8)) {
            for l in 0..8 {
                lanes[l] += a[l] * b[l];
            }
        }
        for (l, (&a, &b)) in x[whole..].iter().zip(&up[whole..]).enumerate() {
            lanes[l] += a * b;
        }
    }
}

/// y += a·x.
#[inline(always)]
fn axpy(a: f32, x: &[f32], y: &mut [f32]) {
    for (y, &x) in y.iter_mut().zip(x) {
        *y += a * x;
    }
}

/// Adds the products of `a` and `b` to `lanes`, the last few to `rest`.
#[inline(always)]
fn dot(a: &[f32], b: &[f32], lanes: &mut [f32; 8], rest: &mut f32) {
    let (a8, b8) = (a.chunks_exact(8), b.chunks_exact(8));
    for (&a, &b) in a8.remainder().iter().zip(b8.remainder()) {
        *rest += a * b;
    }
    for (a, b) in a8.zip(b8) {
        for l in 0..8 {
            lanes[l] += a[l] * b[l];
        }
    }
}
