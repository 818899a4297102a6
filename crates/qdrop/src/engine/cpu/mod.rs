//! The fast device for CPUs. It runs the fused form of programs; a few samples at a time pass through the whole program,
//! so that they stay in the caches. Convolutions are matrix products over tiles of columns; activation function, fake
//! quantization and dropping are one pass; rounding, regulariser and Adam are one pass over the weights. Operators without
//! a kernel here are run by their specification in `ops`.
//!
//! Results do not depend on the number of threads: samples are assigned to groups, and groups to lanes, by their
//! position, and lanes are summed in order.

mod buffers;
mod code;
mod conv;
mod convolve;
mod depthwise;
mod direct;
mod footprint;
mod gradients;
mod inference;
mod influence;
mod math;
mod matrix;
mod pass;
mod rounding;
mod rounds;
mod run;
mod sensitivity;
#[cfg(test)]
mod tests;
mod trainer;
mod watch;
mod winograd;

pub use inference::CpuInference;
pub use trainer::CpuTrainer;

use super::device::{Device, Footprint, Inference, OutputError, Progress};
use super::fused::Fused;
use super::train::{LossWeights, Problem, Trainer};
use crate::engine::program::Program;
use crate::error::{Error, Kind, Result};
use crate::quant::Grid;
use crate::tensor::Rows;
use code::Code;
use rayon::ThreadPool;
use run::Frame;
use std::sync::{Arc, Mutex, PoisonError};

/// Threads that work runs on.
#[derive(Debug, Clone, Default)]
struct Threads {
    /// None: the pool in which it is asked for.
    pool: Option<Arc<ThreadPool>>,
}

impl Threads {
    fn count(&self) -> usize {
        self.pool.as_ref().map_or_else(rayon::current_num_threads, |pool| pool.current_num_threads())
    }

    fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        match &self.pool {
            Some(pool) => pool.install(work),
            None => work(),
        }
    }
}

/// The processors of this machine.
#[derive(Debug)]
pub struct Cpu {
    threads: Threads,
}

impl Cpu {
    /// `threads` of them; 0 takes all.
    pub fn new(threads: usize) -> Result<Self> {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build();
        let pool = pool.map_err(|e| Error::new(Kind::Io, format!("cannot start threads: {e}")))?;
        Ok(Cpu { threads: Threads { pool: Some(Arc::new(pool)) } })
    }
}

impl Device for Cpu {
    fn parallel(&self) -> usize {
        self.threads.count()
    }

    fn inference(&self, program: &Program) -> Result<Box<dyn Inference>> {
        Ok(Box::new(CpuInference::on(self.threads.clone(), program)?))
    }

    fn trainer<'a>(&self, problem: &'a Problem) -> Result<Box<dyn Trainer + 'a>> {
        Ok(Box::new(CpuTrainer::on(self.threads.clone(), problem)?))
    }

    fn sensitivity(
        &self,
        program: &Program,
        inputs: &[Rows],
        outputs: &[OutputError],
        seed: u64,
        progress: Progress,
    ) -> Result<Vec<Option<LossWeights>>> {
        sensitivity::sensitivity(&self.threads, program, inputs, outputs, seed, progress)
    }

    fn influence(
        &self,
        program: &Program,
        inputs: &[Rows],
        outputs: &[OutputError],
        grids: &[Vec<Grid>],
        seed: u64,
        progress: Progress,
    ) -> Result<Vec<Option<Vec<f64>>>> {
        influence::influence(&self.threads, program, inputs, outputs, grids, seed, progress)
    }

    fn footprint(&self, program: &Program, samples: usize, batch: usize) -> Result<Footprint> {
        footprint::footprint(program, samples, batch, self.parallel())
    }

    fn operations(&self, program: &Program) -> Result<f64> {
        Ok(Fused::new(program)?.products())
    }

    fn ceiling(&self) -> f64 {
        self.threads.run(matrix::ceiling)
    }

    fn beside(&self, work: &mut (dyn FnMut() + Send)) {
        self.threads.run(work);
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
