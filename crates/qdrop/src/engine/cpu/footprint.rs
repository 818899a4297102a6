//! How much memory this device works in.

use super::code::{Code, Kernel, Place};
use super::rounds::TOGETHER;
use super::trainer::LANES;
use crate::engine::device::Footprint;
use crate::engine::heap::installed;
use crate::engine::program::Program;
use crate::error::{Error, Result};

/// [`Device::footprint`](crate::engine::device::Device::footprint) on `threads` threads.
pub(super) fn footprint(program: &Program, samples: usize, batch: usize, threads: usize) -> Result<Footprint> {
    let bytes = |elements: usize| elements as u64 * 4;
    let code = Code::new(program, false)?;
    let outputs: usize = program.outputs.iter().map(|&s| code.layouts[s].numel()).sum();
    let waiting = (TOGETHER * threads * code.group).min(samples);
    let frames = threads.min(samples.div_ceil(code.group)) as u64;
    let inference = frames * frame(&code, false) + bytes(waiting * outputs);

    let code = Code::new(program, true)?;
    let lanes = batch.div_ceil(code.group).min(LANES);
    let numel = |&slot: &usize| code.program.slots[slot].shape.iter().product::<usize>();
    let weights: usize = program.weights.iter().map(numel).sum();
    let tiled = code.kernels.iter().map(|k| match k {
        Kernel::Conv { tiled: Some(tiled), w, .. } if matches!(code.places[*w], Place::Weight(_)) => {
            tiled.all_weights()
        }
        _ => 0,
    });
    // Of every weight: float, rounding variable, soft content, two moments, base, step, two limits.
    let state = weights * (9 + lanes) + tiled.sum::<usize>();
    let learning = threads.min(lanes) as u64 * frame(&code, true) + bytes(state);
    Ok(Footprint { inference, learning })
}

/// An error where the machine cannot hold a single frame.
pub(super) fn fits(code: &Code, learn: bool) -> Result<()> {
    let (needed, installed) = (frame(code, learn), installed());
    let Some(installed) = installed.filter(|&i| needed > i) else { return Ok(()) };
    let largest = (0..code.places.len()).max_by_key(|&s| code.layouts[s].numel()).unwrap_or_default();
    let shape = &code.program.slots[largest].shape;
    let gib = |bytes: u64| bytes as f64 / (1u64 << 30) as f64;
    let message = format!(
        "values of one sample take {:.1} GiB, of which one has shape {shape:?}; this machine has {:.1} GiB",
        gib(needed),
        gib(installed)
    );
    Err(Error::unsupported(message).hint("check the sizes that the model computes, or give smaller inputs"))
}

/// Bytes of one frame.
fn frame(code: &Code, learn: bool) -> u64 {
    let scratch = code.kernels.iter().map(|k| match k {
        Kernel::Conv { tiled: Some(tiled), frames, w, .. } if learn && matches!(code.places[*w], Place::Weight(_)) => {
            tiled.working(code.group * frames)
        }
        Kernel::Conv { conv, frames, .. } => conv.working(code.group * frames, learn),
        Kernel::Depthwise { conv, .. } => conv.working(),
        _ => 0,
    });
    // Values of convolutions whose channels must be brought in front.
    let turned = code.kernels.iter().map(|k| match k {
        Kernel::Conv { frames, x, y, .. } | Kernel::Depthwise { frames, x, y, .. } => {
            let size = |s: usize| match code.samples_are_contiguous(s, code.group * frames) {
                true => code.layouts[s].numel() * code.group,
                false => 0,
            };
            (size(*x) + size(*y)) * if learn { 2 } else { 1 }
        }
        _ => 0,
    });
    let buffers = code.buffers.iter().sum::<usize>() * code.group;
    let masks = if learn { code.masks.iter().sum::<usize>() * code.group } else { 0 };
    (buffers + scratch.max().unwrap_or(0) + turned.max().unwrap_or(0)) as u64 * 4 + masks as u64
}
