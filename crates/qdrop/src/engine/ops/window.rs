//! Geometry of sliding windows, shared by convolution and pooling.

use crate::error::{Error, Result};
use crate::graph::{Padding, Window};
use std::ops::Range;

/// Largest kernel size, stride, dilation or pad that is accepted; keeps all arithmetic far from overflow.
const LIMIT: i64 = 1 << 24;

/// One spatial axis of a sliding window: output o and kernel element k meet input o·stride + k·dilation - begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::engine) struct Axis {
    pub input: usize,
    pub output: usize,
    pub kernel: usize,
    pub stride: usize,
    pub dilation: usize,
    pub begin: usize,
    pub end: usize,
}

impl Axis {
    /// An axis of one element under a kernel of one: what a window without this axis has there.
    pub const ONE: Axis = Axis { input: 1, output: 1, kernel: 1, stride: 1, dilation: 1, begin: 0, end: 0 };

    /// Input size with its padding.
    pub fn padded(&self) -> usize {
        self.input + self.begin + self.end
    }

    /// The outputs for which kernel element `k` meets the input: `low..high`.
    pub fn valid(&self, k: usize) -> (usize, usize) {
        let shift = k * self.dilation;
        let low = self.begin.saturating_sub(shift).div_ceil(self.stride).min(self.output);
        let high = match (self.input + self.begin).checked_sub(shift + 1) {
            Some(last) => (last / self.stride + 1).min(self.output),
            None => 0,
        };
        (low, high.max(low))
    }

    /// The kernel elements that meet the input for some output; beside wide padding few of many.
    fn taps(&self) -> Range<usize> {
        let last = self.output.saturating_sub(1) * self.stride;
        let low = self.begin.saturating_sub(last).div_ceil(self.dilation).min(self.kernel);
        let high = (self.input + self.begin).div_ceil(self.dilation).min(self.kernel);
        low..high.max(low)
    }

    /// How many kernel elements meet the padded input for output `o`.
    pub(super) fn covered(&self, o: usize) -> usize {
        self.padded().saturating_sub(o * self.stride).div_ceil(self.dilation).min(self.kernel)
    }
}

/// A list of `n` attribute entries in `1..=LIMIT` (or from 0), `default` when empty.
fn list(what: &str, given: &[i64], n: usize, default: usize, low: i64) -> Result<Vec<usize>> {
    if given.is_empty() {
        return Ok(vec![default; n]);
    }
    if given.len() != n {
        return Err(Error::model(format!("{what} must have {n} entries, got {given:?}")));
    }
    if let Some(bad) = given.iter().find(|&&v| v < low || v > LIMIT) {
        return Err(Error::model(format!("{what} must lie in {low}..={LIMIT}, got {bad}")));
    }
    Ok(given.iter().map(|&v| v as usize).collect())
}

/// Kernel size: the attribute, or `weight` (spatial sizes of the weight); both must agree where both are given.
fn kernel(window: &Window, weight: Option<&[usize]>, n: usize) -> Result<Vec<usize>> {
    let kernel = match weight {
        Some(w) if window.kernel.is_empty() => w.to_vec(),
        Some(w) => {
            let kernel = list("kernel_shape", &window.kernel, n, 1, 1)?;
            if kernel != w {
                return Err(Error::model(format!("kernel_shape is {kernel:?}, the weight's is {w:?}")));
            }
            kernel
        }
        None if window.kernel.is_empty() => return Err(Error::model("kernel_shape is missing")),
        None => list("kernel_shape", &window.kernel, n, 1, 1)?,
    };
    match kernel.iter().find(|&&k| k == 0 || k > LIMIT as usize) {
        Some(bad) => Err(Error::model(format!("kernel size must lie in 1..={LIMIT}, got {bad}"))),
        None => Ok(kernel),
    }
}

/// Everything but sizes and padding.
fn base(window: &Window, spatial: &[usize], weight: Option<&[usize]>) -> Result<Vec<Axis>> {
    let n = spatial.len();
    let kernel = kernel(window, weight, n)?;
    let strides = list("strides", &window.strides, n, 1, 1)?;
    let dilations = list("dilations", &window.dilations, n, 1, 1)?;
    if let Some(bad) = spatial.iter().find(|&&d| d as u64 > 1 << 32) {
        return Err(Error::model(format!("spatial size {bad} is out of reach")));
    }
    Ok((0..n)
        .map(|k| Axis {
            input: spatial[k],
            output: 0,
            kernel: kernel[k],
            stride: strides[k],
            dilation: dilations[k],
            begin: 0,
            end: 0,
        })
        .collect())
}

/// Explicit pads as (begin, end) pairs.
fn pads(pads: &[i64], n: usize) -> Result<Vec<(usize, usize)>> {
    let flat = list("pads", pads, 2 * n, 0, 0)?;
    Ok((0..n).map(|k| (flat[k], flat[n + k])).collect())
}

fn split_pad(total: usize, upper: bool) -> (usize, usize) {
    let small = total / 2;
    if upper { (small, total - small) } else { (total - small, small) }
}

/// Windows over `spatial`. With `ceil_mode` a last, partly covered window counts if it starts inside the input or
/// its begin padding.
pub(in crate::engine) fn resolve(
    window: &Window,
    spatial: &[usize],
    weight: Option<&[usize]>,
    ceil_mode: bool,
) -> Result<Vec<Axis>> {
    let mut axes = base(window, spatial, weight)?;
    let explicit = match &window.padding {
        Padding::Explicit(p) => Some(pads(p, spatial.len())?),
        _ => None,
    };
    for (k, a) in axes.iter_mut().enumerate() {
        let extent = (a.kernel - 1) * a.dilation + 1;
        match &explicit {
            Some(pads) => {
                (a.begin, a.end) = pads[k];
                let Some(room) = a.padded().checked_sub(extent) else {
                    return Err(Error::model(format!(
                        "window of extent {extent} is larger than the padded input of size {}",
                        a.padded()
                    )));
                };
                a.output = if ceil_mode { room.div_ceil(a.stride) } else { room / a.stride } + 1;
                if ceil_mode && a.output > 1 && (a.output - 1) * a.stride >= a.input + a.begin {
                    a.output -= 1;
                }
            }
            None => {
                a.output = a.input.div_ceil(a.stride);
                let covered = (a.output.max(1) - 1) * a.stride + extent;
                (a.begin, a.end) = split_pad(covered.saturating_sub(a.input), window.padding == Padding::SameUpper);
            }
        }
    }
    Ok(axes)
}

/// Windows of a transposed convolution of an input of size `spatial`: `output` of each axis is the size of that input
/// (the output of the convolution it transposes) and `input` the size of the result.
pub(super) fn resolve_transposed(
    window: &Window,
    spatial: &[usize],
    weight: &[usize],
    output_padding: &[i64],
    output_shape: &[i64],
) -> Result<Vec<Axis>> {
    let n = spatial.len();
    let mut axes = base(window, spatial, Some(weight))?;
    let extra = list("output_padding", output_padding, n, 0, 0)?;
    // A full-rank list names batch and channels too.
    let shape = if output_shape.len() == n + 2 { &output_shape[2..] } else { output_shape };
    let shape = list("output_shape", shape, n, 0, 1)?;
    let explicit = match &window.padding {
        Padding::Explicit(p) => pads(p, n)?,
        _ => Vec::new(),
    };
    for (k, a) in axes.iter_mut().enumerate() {
        if spatial[k] == 0 {
            return Err(Error::model("spatial size 0 cannot be transposed"));
        }
        a.output = spatial[k];
        let full = (a.output - 1) * a.stride + (a.kernel - 1) * a.dilation + 1 + extra[k];
        let wanted = match (output_shape.is_empty(), &window.padding) {
            (false, _) => Some(shape[k]),
            (true, Padding::Explicit(_)) => None,
            (true, _) => Some(a.output * a.stride),
        };
        match wanted {
            Some(size) => {
                (a.begin, a.end) = split_pad(full.saturating_sub(size), window.padding == Padding::SameUpper);
                a.input = size;
            }
            None => {
                (a.begin, a.end) = explicit[k];
                a.input = full.checked_sub(a.begin + a.end).filter(|&s| s > 0).ok_or_else(|| {
                    Error::model(format!("pads {} and {} leave nothing of size {full}", a.begin, a.end))
                })?;
            }
        }
    }
    Ok(axes)
}

/// A stretch of outputs along the last axis that one kernel element joins with inputs: output `output + i` meets
/// input `input + i·stride` for i below `len`. Positions are within one channel's plane.
#[derive(Debug, Clone, Copy)]
pub(super) struct Run {
    /// Kernel element, row-major.
    pub tap: usize,
    pub output: usize,
    pub input: usize,
    pub len: usize,
}

/// All runs, by kernel element, then by output position. Their inputs advance by the last axis' stride.
pub(super) fn runs(axes: &[Axis]) -> Vec<Run> {
    let mut runs = vec![Run { tap: 0, output: 0, input: 0, len: 1 }];
    if axes.iter().any(|a| a.input == 0 || a.output == 0) {
        return Vec::new();
    }
    for (k, a) in axes.iter().enumerate() {
        let last = k + 1 == axes.len();
        let mut next = Vec::new();
        for r in &runs {
            for tap in a.taps() {
                let (low, high) = a.valid(tap);
                let input = |o: usize| r.input * a.input + o * a.stride + tap * a.dilation - a.begin;
                let make = |o: usize, len: usize| Run {
                    // Of kernels without a weight nobody asks for it.
                    tap: r.tap.saturating_mul(a.kernel).saturating_add(tap),
                    output: r.output * a.output + o,
                    input: input(o),
                    len,
                };
                if last && high > low {
                    next.push(make(low, high - low));
                } else if !last {
                    next.extend((low..high).map(|o| make(o, 1)));
                }
            }
        }
        runs = next;
    }
    runs.sort_by_key(|r| (r.tap, r.output));
    let contiguous = axes.last().is_none_or(|a| a.stride == 1);
    let mut merged: Vec<Run> = Vec::with_capacity(runs.len());
    for r in runs {
        match merged.last_mut() {
            Some(m) if contiguous && m.tap == r.tap && m.output + m.len == r.output && m.input + m.len == r.input => {
                m.len += r.len;
            }
            _ => merged.push(r),
        }
    }
    merged
}

/// Number of elements of a channel's plane on the input and on the output side, and of kernel elements.
pub(super) fn planes(axes: &[Axis]) -> (usize, usize, usize) {
    (
        axes.iter().map(|a| a.input).product(),
        axes.iter().map(|a| a.output).product(),
        axes.iter().fold(1, |n, a| n.saturating_mul(a.kernel)),
    )
}
