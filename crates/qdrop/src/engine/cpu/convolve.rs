//! Runs convolutions of a compiled program on a frame.
//!
//! Their kernels want the channels of all samples in front (see [`super::conv`]). Values of images lie so; where samples
//! are contiguous (one spatial axis, or a batch axis inside a sample), channels are brought in front and back.

use super::code::{Code, Kernel};
use super::conv::Wanted;
use super::run::{Frame, Shared, Sums};
use crate::error::Result;

/// `x` [a, b, n / a / b] as [b, a, n / a / b].
fn turned(x: &[f32], a: usize, b: usize) -> Vec<f32> {
    let inner = x.len() / (a * b);
    let mut out = Vec::with_capacity(x.len());
    for j in 0..b {
        (0..a).for_each(|i| out.extend_from_slice(&x[(i * b + j) * inner..][..inner]));
    }
    out
}

impl Code {
    /// Whether a slot [batch, channels, ...] has `images` in all that lie one after the other, channels inside.
    pub fn samples_are_contiguous(&self, slot: usize, images: usize) -> bool {
        self.layouts[slot].channels == 1 && images > 1 && self.channels(slot) > 1
    }

    /// Elements of axis 1.
    fn channels(&self, slot: usize) -> usize {
        self.program.slots[slot].shape[1]
    }

    /// `data` of a slot with its channels in front, where they are not.
    fn in_front(&self, slot: usize, images: usize, data: &[f32]) -> Option<Vec<f32>> {
        let turn = self.samples_are_contiguous(slot, images);
        turn.then(|| turned(data, images, self.channels(slot)))
    }
}

impl Frame {
    /// y of a convolution.
    pub fn convolve(&mut self, shared: &Shared, kernel: &Kernel) -> Result<()> {
        let (Kernel::Conv { frames, x, w, bias, y, .. } | Kernel::Depthwise { frames, x, w, bias, y, .. }) = kernel
        else {
            return Ok(());
        };
        let code = shared.code;
        let (at, mut out) = self.take(code, *y)?;
        let mut scratch = std::mem::take(&mut self.scratch);
        let (n, images) = (code.layouts[*y].numel() * self.samples, self.samples * frames);
        let (xs, bias) = (self.read(shared, *x), bias.map(|b| self.read(shared, b)));
        let front = code.in_front(*x, images, xs);
        let xs = front.as_deref().unwrap_or(xs);
        let mut own = code.samples_are_contiguous(*y, images).then(|| vec![0.0; n]);
        let ys = own.as_deref_mut().unwrap_or(&mut out[..n]);
        match kernel {
            Kernel::Conv { conv, tiled, .. } => match shared.tiled(tiled, *w) {
                Some((tiled, u)) => tiled.forward(images, xs, u, bias, ys, &mut scratch),
                None => conv.forward(images, xs, self.read(shared, *w), bias, ys, &mut scratch),
            },
            Kernel::Depthwise { conv, .. } => {
                conv.forward(images, xs, self.read(shared, *w), bias, ys, &mut scratch);
            }
            _ => {}
        }
        if let Some(own) = own {
            out[..n].copy_from_slice(&turned(&own, code.channels(*y), images));
        }
        (self.buffers[at], self.scratch) = (out, scratch);
        Ok(())
    }

    /// Gradients of a convolution.
    pub fn convolve_back(&mut self, shared: &Shared, kernel: &Kernel, sums: &mut Sums) {
        let (Kernel::Conv { frames, x, w, bias, y, .. } | Kernel::Depthwise { frames, x, w, bias, y, .. }) = kernel
        else {
            return;
        };
        let code = shared.code;
        let Some(mut taken) = self.take_gradients(code, *x, *y) else { return };
        let images = self.samples * frames;
        let mut scratch = std::mem::take(&mut self.scratch);
        let (dys, dx) = taken.parts();
        let up = code.in_front(*y, images, dys);
        let dys = up.as_deref().unwrap_or(dys);
        let (xs, ws) = (self.read_learned(shared, *x, *w), self.read(shared, *w));
        let front = code.in_front(*x, images, xs).filter(|_| !xs.is_empty());
        let xs = front.as_deref().unwrap_or(xs);
        sums.add_bias(code, *bias, dys, false);
        let turns = code.samples_are_contiguous(*x, images);
        let mut own = dx.as_ref().filter(|_| turns).map(|(dx, _)| vec![0.0; dx.len()]);
        let (dx, down) = match &mut own {
            Some(own) => (Some((own.as_mut_slice(), false)), dx),
            None => (dx, None),
        };
        let wanted = Wanted { w: sums.weight(code, *w), x: dx };
        match kernel {
            Kernel::Conv { conv, tiled, .. } => match shared.tiled(tiled, *w) {
                Some((tiled, u)) => tiled.backward(images, xs, u, dys, wanted, &mut scratch),
                None => conv.backward(images, xs, ws, dys, wanted, &mut scratch),
            },
            Kernel::Depthwise { conv, .. } => conv.backward(images, xs, ws, dys, wanted, &mut scratch),
            _ => {}
        }
        if let (Some(own), Some((down, add))) = (own, down) {
            let own = turned(&own, code.channels(*x), images);
            match add {
                true => down.iter_mut().zip(&own).for_each(|(d, &g)| *d += g),
                false => down.copy_from_slice(&own),
            }
        }
        self.scratch = scratch;
        self.put_back(taken);
    }
}
