//! The fast device for processors: a few samples at a time pass through the whole program while they stay in the
//! caches. Convolutions are matrix products over tiles of columns; activation, fake quantization and dropping are one
//! pass; rounding, regulariser and Adam are one pass over the weights. Operators without a kernel here run by their
//! specification in `ops`.
//!
//! Results do not depend on the number of threads: samples are dealt to groups and groups to lanes by their position,
//! and lanes are summed in order. Work runs on the rayon pool of the caller.

mod buffers;
mod code;
mod conv;
mod convolve;
mod depthwise;
mod direct;
mod footprint;
mod gradients;
mod influence;
mod math;
mod matrix;
mod pass;
mod rounding;
mod run;
mod sensitivity;
#[cfg(test)]
mod tests;
mod trainer;
mod watch;
mod winograd;

pub use footprint::{Footprint, flops, footprint};
pub use influence::influence;
pub use matrix::ceiling;
pub use sensitivity::sensitivity;
pub use trainer::{CpuTrainer, Times};
pub use watch::Values;

use crate::engine::program::Program;
use crate::error::{Error, Result};
use crate::quant::Grid;
use crate::tensor::{Rows, RowsWriter, Shelf};
use code::Code;
use pass::Quantizer;
use rayon::prelude::*;
use run::{Frame, Shared};
use std::sync::{Mutex, PoisonError};

/// Groups a thread that run before their outputs are handed on.
const TOGETHER: usize = 4;

/// Takes the number of a group's first sample and, per output of the program, the rows of the group.
type Take<'a> = &'a mut dyn FnMut(usize, &[Vec<f32>]) -> Result<()>;

/// A program ready for inference; may be run from several threads.
#[derive(Debug)]
pub struct Runner {
    code: Code,
    frames: Frames,
}

impl Runner {
    /// Compiles `program`.
    pub fn new(program: &Program) -> Result<Self> {
        let code = Code::new(program, false)?;
        footprint::fits(&code, false)?;
        Ok(Runner { code, frames: Frames::default() })
    }

    /// Samples that run together at most.
    pub fn group(&self) -> usize {
        self.code.group
    }

    /// Outputs for `inputs` (per input of the program), put on `shelf`. `grids` has one entry per site; `None` leaves it
    /// float. Groups of samples run in parallel.
    pub fn run(
        &self,
        weights: &[&[f32]],
        grids: &[Option<&Grid>],
        inputs: &[Rows],
        shelf: &Shelf,
    ) -> Result<Vec<Rows>> {
        self.run_while(weights, grids, inputs, shelf, &|| Ok(()))
    }

    /// Like [`Runner::run`], but ends with the error of `go_on`, which is asked after each group.
    pub fn run_while(
        &self,
        weights: &[&[f32]],
        grids: &[Option<&Grid>],
        inputs: &[Rows],
        shelf: &Shelf,
        go_on: &(dyn Fn() -> Result<()> + Sync),
    ) -> Result<Vec<Rows>> {
        let n = inputs.first().map_or(0, Rows::len);
        let outputs = self.code.program.outputs.iter();
        let mut all =
            outputs.map(|&slot| shelf.rows(n, self.code.layouts[slot].numel())).collect::<Result<Vec<_>>>()?;
        self.run_each(weights, grids, inputs, &mut |_, group| {
            all.iter_mut().zip(group).try_for_each(|(to, part)| to.push(part))?;
            go_on()
        })?;
        Ok(all.into_iter().map(RowsWriter::finish).collect())
    }

    /// Like [`Runner::run`], but hands the outputs to `take`, group after group.
    pub fn run_each(&self, weights: &[&[f32]], grids: &[Option<&Grid>], inputs: &[Rows], take: Take) -> Result<()> {
        let n = inputs.first().map_or(0, Rows::len);
        let sites: Vec<Option<Quantizer>> = grids.iter().map(|g| g.map(Quantizer::new)).collect();
        let shared = Shared { code: &self.code, weights, tiled: &[], sites: &sites };
        check(&self.code, inputs, n)?;
        let group = |first: usize| {
            let samples = (n - first).min(self.code.group);
            let mut frame = self.frames.take(&self.code, false);
            frame.feed(&self.code, inputs, first, samples)?;
            frame.forward(&shared, None, None)?;
            let mut outputs = Vec::with_capacity(self.code.program.outputs.len());
            for &slot in &self.code.program.outputs {
                let mut values = Vec::with_capacity(samples * self.code.layouts[slot].numel());
                (0..samples).for_each(|sample| frame.append(&shared, slot, sample, &mut values));
                outputs.push(values);
            }
            self.frames.give(frame);
            Ok(outputs)
        };
        let firsts: Vec<usize> = (0..n).step_by(self.code.group).collect();
        for some in firsts.chunks(TOGETHER * rayon::current_num_threads()) {
            let groups = some.par_iter().map(|&first| group(first)).collect::<Result<Vec<Vec<Vec<f32>>>>>()?;
            some.iter().zip(&groups).try_for_each(|(&first, outputs)| take(first, outputs))?;
        }
        Ok(())
    }
}

fn check(code: &Code, inputs: &[Rows], n: usize) -> Result<()> {
    let fits = |(&slot, rows): (&usize, &Rows)| rows.len() == n && rows.width() == code.layouts[slot].numel();
    if inputs.len() == code.program.inputs.len() && code.program.inputs.iter().zip(inputs).all(fits) {
        return Ok(());
    }
    Err(Error::internal("inputs do not have the sizes of the program"))
}

/// Frames that are not in use.
#[derive(Debug, Default)]
struct Frames(Mutex<Vec<Frame>>);

impl Frames {
    fn take(&self, code: &Code, learn: bool) -> Frame {
        let free = self.0.lock().unwrap_or_else(PoisonError::into_inner).pop();
        free.unwrap_or_else(|| Frame::new(code, learn))
    }

    fn give(&self, frame: Frame) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(frame);
    }
}
