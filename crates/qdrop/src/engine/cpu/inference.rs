//! Programs run for their outputs.

use super::code::Code;
use super::pass::Quantizer;
use super::rounds::in_rounds;
use super::run::Shared;
use super::{Frames, Threads, check, footprint};
use crate::engine::device::{Inference, See, Take};
use crate::engine::program::Program;
use crate::error::Result;
use crate::quant::Grid;
use crate::tensor::Rows;

/// A program ready for inference; may be run from several threads.
#[derive(Debug)]
pub struct CpuInference {
    pub(super) code: Code,
    pub(super) frames: Frames,
    pub(super) threads: Threads,
}

impl CpuInference {
    /// Compiles `program`, to run in the pool of threads in which it is asked to.
    pub fn new(program: &Program) -> Result<Self> {
        Self::on(Threads::default(), program)
    }

    pub(super) fn on(threads: Threads, program: &Program) -> Result<Self> {
        let code = Code::new(program, false)?;
        footprint::fits(&code, false)?;
        Ok(CpuInference { code, frames: Frames::default(), threads })
    }
}

impl Inference for CpuInference {
    fn group(&self) -> usize {
        self.code.group
    }

    fn widths(&self) -> Vec<usize> {
        self.code.program.outputs.iter().map(|&slot| self.code.layouts[slot].numel()).collect()
    }

    /// Groups of samples run in parallel.
    fn run_each(&self, weights: &[&[f32]], grids: &[Option<&Grid>], inputs: &[Rows], take: Take) -> Result<()> {
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
        in_rounds(&self.threads, &firsts, group, |some, groups: Vec<Vec<Vec<f32>>>| {
            some.iter().zip(&groups).try_for_each(|(&first, outputs)| take(first, outputs))
        })
    }

    fn watch(&self, inputs: &[Rows], see: See) -> Result<()> {
        super::watch::watch(self, inputs, see)
    }
}
