//! Convolution of a group of samples as matrix products over tiles of output lines.
//!
//! x: [channels, samples, D, H, W], y: [channels, samples, OD, OH, OW], w: [OC, IC / groups, KD, KH, KW], where a
//! convolution of fewer axes has ones in front: with samples inside channels, one product serves the whole group.

use super::math::vectorized;
use super::matrix::{Left, PANEL, Panels, View, multiply, product};
use crate::engine::fused::Convolution;
use crate::engine::ops::window::Axis;
use std::ops::{Deref, Range};

/// Columns that a tile has at least.
const COLUMNS: usize = 256;
/// Elements of a column matrix that a tile may have beyond that.
const TILE: usize = 1 << 18;

/// A convolution as this file computes it.
#[derive(Debug, Clone)]
pub(super) struct Conv(pub Convolution);

impl Deref for Conv {
    type Target = Convolution;

    fn deref(&self) -> &Convolution {
        &self.0
    }
}

/// What one backward pass is asked for.
pub(super) struct Wanted<'a> {
    /// Gradient of the weight, added to.
    pub w: Option<&'a mut [f32]>,
    /// Gradient of x; added to if the flag says so, else written.
    pub x: Option<(&'a mut [f32], bool)>,
}

impl Conv {
    /// Output lines, of `samples` · OH, in tiles.
    fn tiles(&self, samples: usize) -> impl Iterator<Item = Range<usize>> + use<> {
        let [d, h, w] = &self.axes;
        let (lines, width) = (samples * d.output * h.output, w.output.max(1));
        let depth = (self.ic * self.taps()).max(1);
        let tile = (TILE / (depth * width)).max(COLUMNS.div_ceil(width)).clamp(1, lines.max(1));
        (0..lines).step_by(tile).map(move |start| start..(start + tile).min(lines))
    }

    /// Elements of working memory that passes over `samples` samples take, with gradients if `learn` says so.
    pub fn working(&self, samples: usize, learn: bool) -> usize {
        if self.pointwise() {
            return if learn { self.ic * self.oc } else { 0 };
        }
        let depth = self.ic * self.taps();
        let columns = self.tiles(samples).next().map_or(0, |lines| lines.len() * self.axes[2].output);
        let gathered = depth * columns.next_multiple_of(PANEL) + columns;
        if learn { gathered + depth * self.oc } else { gathered }
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
        let n = samples * self.planes().1;
        if let Some(bias) = bias {
            for (line, &b) in y.chunks_exact_mut(n.max(1)).zip(bias) {
                line.fill(b);
            }
        }
        self.convolve(samples, x, w, bias.is_some(), y, scratch);
    }

    /// y = conv(x, w), or y += conv(x, w) with `add`.
    fn convolve(&self, samples: usize, x: &[f32], w: &[f32], add: bool, y: &mut [f32], scratch: &mut Vec<f32>) {
        let (plane_in, plane_out) = self.planes();
        let (n_in, n) = (samples * plane_in, samples * plane_out);
        let depth = self.ic * self.taps();
        for group in 0..self.groups {
            let weight = (w, View::rows(group * self.oc * depth, self.oc, depth, depth));
            let out = group * self.oc * n;
            let x = &x[group * self.ic * n_in..][..self.ic * n_in];
            if self.pointwise() {
                product((y, View::rows(out, self.oc, n, n)), add, weight, (x, View::rows(0, depth, n, n)));
                continue;
            }
            for lines in self.tiles(samples) {
                let (start, columns) = (lines.start * self.axes[2].output, lines.len() * self.axes[2].output);
                let size = depth * columns.next_multiple_of(PANEL);
                grow(scratch, size + columns);
                let (panels, row) = scratch.split_at_mut(size);
                self.gather(samples, x, lines, panels, &mut row[..columns]);
                let to = Panels { start: out + start, panel: PANEL, pitch: n };
                let weight = (weight.0, weight.1.into());
                multiply([self.oc, depth, columns], (y, to), add, weight, (panels, Panels::new(0, depth)));
            }
        }
    }

    /// Gradients for the gradient `dy` of y.
    pub fn backward(&self, samples: usize, x: &[f32], w: &[f32], dy: &[f32], wanted: Wanted, scratch: &mut Vec<f32>) {
        if let Some(dw) = wanted.w {
            self.weight_gradient(samples, x, dy, dw, scratch);
        }
        let Some((dx, add)) = wanted.x else { return };
        match self.mirror() {
            Some(mirror) if !self.pointwise() => {
                mirror.convolve(samples, dy, &self.flip(w), add, dx, scratch);
            }
            _ => self.input_gradient(samples, w, dy, dx, add, scratch),
        }
    }

    /// dw += gradient of w. Of the two factors of the products, columns and dy, the larger is the left one, which can be
    /// taken as it lies: columns of more than one tap give the transpose.
    fn weight_gradient(&self, samples: usize, x: &[f32], dy: &[f32], dw: &mut [f32], scratch: &mut Vec<f32>) {
        let (plane_in, plane_out) = self.planes();
        let (n_in, n) = (samples * plane_in, samples * plane_out);
        let depth = self.ic * self.taps();
        let size = depth * self.oc;
        let direct = self.pointwise() && self.ic <= self.oc;
        for (group, dw) in dw.chunks_exact_mut(size.max(1)).enumerate() {
            let out = group * self.oc * n;
            let x = &x[group * self.ic * n_in..][..self.ic * n_in];
            for (tile, lines) in self.tiles(samples).enumerate() {
                let (start, columns) = (lines.start * self.axes[2].output, lines.len() * self.axes[2].output);
                let up = (dy, View::rows(out + start, self.oc, columns, n));
                if direct {
                    let (to, at) = (View::rows(0, self.oc, depth, depth), View::rows(start, depth, columns, n));
                    product((&mut *dw, to), true, up, (x, at.t()));
                    continue;
                }
                let up = (up.0, up.1.t());
                let gathered = if self.pointwise() { 0 } else { depth * columns.next_multiple_of(PANEL) };
                grow(scratch, size + gathered + columns);
                let (transposed, rest) = scratch.split_at_mut(size);
                let to = (transposed, View::rows(0, depth, self.oc, self.oc));
                if self.pointwise() {
                    product(to, tile > 0, (x, View::rows(start, depth, columns, n)), up);
                } else {
                    let (panels, row) = rest.split_at_mut(gathered);
                    self.gather(samples, x, lines, panels, &mut row[..columns]);
                    product(to, tile > 0, (panels, Left::panels(0, depth)), up);
                }
            }
            if n > 0 && !direct {
                for (o, row) in dw.chunks_exact_mut(depth.max(1)).enumerate() {
                    row.iter_mut().zip(scratch[o..size].iter().step_by(self.oc)).for_each(|(g, &v)| *g += v);
                }
            }
        }
    }

    /// dx = gradient of x, or dx += with `add`, by columns that are added back.
    fn input_gradient(&self, samples: usize, w: &[f32], dy: &[f32], dx: &mut [f32], add: bool, scratch: &mut Vec<f32>) {
        let (plane_in, plane_out) = self.planes();
        let (n_in, n) = (samples * plane_in, samples * plane_out);
        let depth = self.ic * self.taps();
        if !add && !self.pointwise() {
            dx.fill(0.0);
        }
        for group in 0..self.groups {
            let weight = (w, View::rows(group * self.oc * depth, self.oc, depth, depth).t());
            let out = group * self.oc * n;
            let dx = &mut dx[group * self.ic * n_in..][..self.ic * n_in];
            if self.pointwise() {
                product((dx, View::rows(0, depth, n, n)), add, weight, (dy, View::rows(out, self.oc, n, n)));
                continue;
            }
            for lines in self.tiles(samples) {
                let (start, columns) = (lines.start * self.axes[2].output, lines.len() * self.axes[2].output);
                grow(scratch, depth * columns);
                let up = (dy, View::rows(out + start, self.oc, columns, n));
                product((scratch, View::rows(0, depth, columns, columns)), false, weight, up);
                self.scatter(samples, scratch, lines, dx);
            }
        }
    }

    /// The convolution with flipped weights that takes the gradient of y to that of x, where strides are 1: its columns
    /// are as deep as the forward ones, and nothing need be added back.
    fn mirror(&self) -> Option<Conv> {
        let turn = |a: &Axis| {
            let reach = (a.kernel - 1) * a.dilation;
            let (begin, end) = (reach.checked_sub(a.begin)?, reach.checked_sub(a.end)?);
            (a.stride == 1).then_some(Axis { input: a.output, output: a.input, begin, end, ..*a })
        };
        let [d, h, w] = &self.axes;
        let axes = [turn(d)?, turn(h)?, turn(w)?];
        Some(Conv(Convolution { axes, groups: self.groups, ic: self.oc, oc: self.ic }))
    }

    /// Weights of [`Conv::mirror`]: [IC, OC, KD, KH, KW] of each group, taps in reverse.
    fn flip(&self, w: &[f32]) -> Vec<f32> {
        let taps = self.taps();
        let mut out = Vec::with_capacity(w.len());
        for group in w.chunks_exact((self.oc * self.ic * taps).max(1)) {
            for i in 0..self.ic {
                for filters in group.chunks_exact(self.ic * taps) {
                    out.extend(filters[i * taps..][..taps].iter().rev());
                }
            }
        }
        out
    }

    /// Column matrix [IC·KD·KH·KW, lines·OW] of the output `lines` (counted over samples, depth and rows), in panels; `row` has
    /// room for one of its rows.
    fn gather(&self, samples: usize, x: &[f32], lines: Range<usize>, panels: &mut [f32], row: &mut [f32]) {
        let [_, _, aw] = &self.axes;
        let (depth, last) = (self.ic * self.taps(), lines.len() - 1);
        vectorized(
            #[inline(always)]
            || {
                self.each(samples, lines, |k, line, source, tap: Tap| {
                    let out = &mut row[line * aw.output..][..aw.output];
                    out[..tap.low].fill(0.0);
                    out[tap.high..].fill(0.0);
                    match source {
                        None => out.fill(0.0),
                        Some(_) if tap.low == tap.high => {}
                        Some(source) => pick(&x[source + tap.first..], aw.stride, &mut out[tap.low..tap.high]),
                    }
                    if line == last {
                        for (panel, part) in row.chunks(PANEL).enumerate() {
                            panels[(panel * depth + k) * PANEL..][..part.len()].copy_from_slice(part);
                        }
                    }
                });
            },
        );
    }

    /// Adds a column matrix back to where [`Conv::gather`] reads.
    fn scatter(&self, samples: usize, cols: &[f32], lines: Range<usize>, x: &mut [f32]) {
        let [_, _, aw] = &self.axes;
        let columns = lines.len() * aw.output;
        self.each(samples, lines, |k, line, source, tap: Tap| {
            let Some(source) = source else { return };
            if tap.low == tap.high {
                return;
            }
            let values = &cols[k * columns + line * aw.output..][tap.low..tap.high];
            let row = &mut x[source + tap.first..];
            if aw.stride == 1 {
                row[..values.len()].iter_mut().zip(values).for_each(|(x, &v)| *x += v);
            } else {
                row.iter_mut().step_by(aw.stride).zip(values).for_each(|(x, &v)| *x += v);
            }
        });
    }

    /// Calls `f` with row of the column matrix, line (from 0), start of the input line it reads (`None`: padding) and
    /// the horizontal tap.
    #[inline(always)]
    fn each(&self, samples: usize, lines: Range<usize>, mut f: impl FnMut(usize, usize, Option<usize>, Tap)) {
        let [ad, ah, aw] = &self.axes;
        let plane = self.planes().0;
        let taps: Vec<Tap> = (0..aw.kernel).map(|k| Tap::new(aw, k)).collect();
        // Where output position `o` meets the input through kernel element `k`.
        let meets = |a: &Axis, o: usize, k: usize| {
            (o * a.stride + k * a.dilation).checked_sub(a.begin).filter(|&i| i < a.input)
        };
        for channel in 0..self.ic {
            for across in 0..ad.kernel * ah.kernel {
                let (kz, ky) = (across / ah.kernel, across % ah.kernel);
                for (kx, &tap) in taps.iter().enumerate() {
                    let k = (channel * ad.kernel * ah.kernel + across) * aw.kernel + kx;
                    for (line, global) in lines.clone().enumerate() {
                        let (slice, oy) = (global / ah.output, global % ah.output);
                        let (sample, oz) = (slice / ad.output, slice % ad.output);
                        let source = meets(ad, oz, kz)
                            .zip(meets(ah, oy, ky))
                            .map(|(iz, iy)| (channel * samples + sample) * plane + (iz * ah.input + iy) * aw.input);
                        f(k, line, source, tap);
                    }
                }
            }
        }
    }
}

/// One horizontal kernel element: outputs `low..high` meet the input, the first at column `first`.
#[derive(Clone, Copy)]
struct Tap {
    low: usize,
    high: usize,
    first: usize,
}

impl Tap {
    fn new(axis: &Axis, k: usize) -> Self {
        let (low, high) = axis.valid(k);
        Tap { low, high, first: (low * axis.stride + k * axis.dilation).saturating_sub(axis.begin) }
    }
}

/// Every `stride`-th element of `from`, as many as `to` has.
#[inline(always)]
fn pick(from: &[f32], stride: usize, to: &mut [f32]) {
    if stride == 1 {
        to.copy_from_slice(&from[..to.len()]);
    } else if stride == 2 {
        // The last one may have no neighbour.
        let Some((last, to)) = to.split_last_mut() else { return };
        *last = from[2 * to.len()];
        to.iter_mut().zip(from.as_chunks::<2>().0).for_each(|(t, f)| *t = f[0]);
    } else {
        to.iter_mut().zip(from.iter().step_by(stride)).for_each(|(t, &v)| *t = v);
    }
}

/// Makes `scratch` at least `len` long.
pub(super) fn grow(scratch: &mut Vec<f32>, len: usize) {
    if scratch.len() < len {
        scratch.resize(len, 0.0);
    }
}
