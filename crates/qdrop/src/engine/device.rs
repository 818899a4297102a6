//! What pipeline and method see of a device: something that runs programs, learns units, and answers questions about
//! programs. `ARCHITECTURE.md` says how to add one.

use super::cpu::Cpu;
use super::program::{Program, ProgramSite};
use super::train::{LossWeights, Problem, Trainer};
use crate::error::Result;
use crate::quant::Grid;
use crate::tensor::{RowStore, Rows, RowsWriter};

/// A device. Results must not depend on how much of it there is (threads, say), only on what is asked.
pub trait Device: Send + Sync {
    /// Samples that it works on best are a multiple of so many groups of [`Inference::group`].
    fn parallel(&self) -> usize;

    /// `program` ready for inference.
    fn inference(&self, program: &Program) -> Result<Box<dyn Inference>>;

    /// `problem` ready for its first iteration.
    fn trainer<'a>(&self, problem: &'a Problem) -> Result<Box<dyn Trainer + 'a>>;

    /// What the elements at every site of `program` should weigh in a squared error, so that it stands for the squared
    /// error of the outputs, summed as `outputs` says. A site that no output depends on has none.
    ///
    /// To first order an error e changes the outputs by J·e, and E[(J·e)²] is Σ (Jᵀ·J)ᵢᵢ·eᵢ² for errors that are
    /// independent. With random signs v at the outputs, the expectation of (Jᵀ·v)² is this diagonal. Of one draw per sample,
    /// means over channels and over samples and positions are kept: their product is the weight. Both have mean 1 and are at
    /// least 0.01.
    ///
    /// Now and then `progress` learns how many samples are done, and may stop it with an error.
    fn sensitivity(
        &self,
        program: &Program,
        inputs: &[Rows],
        outputs: &[OutputError],
        seed: u64,
        progress: Progress,
    ) -> Result<Vec<Option<LossWeights>>>;

    /// For every site of `program` and each of its `grids`: the squared error of the outputs, summed over outputs and
    /// samples as `outputs` says, when the site alone is quantized by that grid. A site that no output depends on has none.
    ///
    /// To first order an error e at a site changes the outputs by J·e. With random signs v at the outputs, (vᵀ·J·e)² has the
    /// expectation |J·e|²; one draw is taken a sample, the same for all grids. `progress` is as in
    /// [`Device::sensitivity`]. An error where an operator has no gradient.
    fn influence(
        &self,
        program: &Program,
        inputs: &[Rows],
        outputs: &[OutputError],
        grids: &[Vec<Grid>],
        seed: u64,
        progress: Progress,
    ) -> Result<Vec<Option<Vec<f64>>>>;

    /// Memory that it works in with `program`, of `samples` samples in all and batches of `batch`.
    fn footprint(&self, program: &Program, samples: usize, batch: usize) -> Result<Footprint>;

    /// Operations (multiplications and additions) of the products that one sample takes in an iteration of learning, counted
    /// as direct sums: the forward pass, the gradient of the weight, and that of the input where one is needed.
    fn operations(&self, program: &Program) -> Result<f64>;

    /// Speed of one large matrix product, in 10⁹ operations a second.
    fn ceiling(&self) -> f64;

    /// Does `work`, which is computed beside programs, with the threads that this device may use.
    fn beside(&self, work: &mut (dyn FnMut() + Send));
}

/// How the error of an output of a program is counted.
#[derive(Debug, Clone)]
pub struct OutputError {
    /// It is divided by this.
    pub size: f32,
    /// What the squared errors of its elements weigh; `None`: all the same, 1.
    pub weights: Option<LossWeights>,
}

/// Learns how many samples are done, and may stop with an error.
pub type Progress<'a> = &'a mut dyn FnMut(usize) -> Result<()>;

/// Takes the number of a group's first sample and, per output of the program, the rows of the group.
pub type Take<'a> = &'a mut dyn FnMut(usize, &[Vec<f32>]) -> Result<()>;

/// Is called with a site, the number of the group's first sample, and what the site holds.
pub type See<'a> = &'a (dyn Fn(ProgramSite, usize, Values) -> Result<()> + Sync);

/// A program ready for inference on a device.
pub trait Inference: Send + Sync {
    /// Samples that run together at most.
    fn group(&self) -> usize;

    /// Elements of each output of the program, for one sample.
    fn widths(&self) -> Vec<usize>;

    /// Hands the outputs for `inputs` (per input of the program) to `take`, group after group in order. `weights` are
    /// the contents of the program's weights; `grids` has one entry per site, `None` leaves it float.
    fn run_each(&self, weights: &[&[f32]], grids: &[Option<&Grid>], inputs: &[Rows], take: Take) -> Result<()>;

    /// Shows `see` what every site of the program holds for `inputs` when nothing is quantized. Of one site groups are shown
    /// one after the other in order; of several, `see` may be called at the same time.
    fn watch(&self, inputs: &[Rows], see: See) -> Result<()>;

    /// The outputs for `inputs`, put in `store`; as [`Inference::run_each`].
    fn run(&self, weights: &[&[f32]], grids: &[Option<&Grid>], inputs: &[Rows], store: &RowStore) -> Result<Vec<Rows>> {
        self.run_while(weights, grids, inputs, store, &mut || Ok(()))
    }

    /// Like [`Inference::run`], but ends with the error of `go_on`, which is asked after each group.
    fn run_while(
        &self,
        weights: &[&[f32]],
        grids: &[Option<&Grid>],
        inputs: &[Rows],
        store: &RowStore,
        go_on: &mut dyn FnMut() -> Result<()>,
    ) -> Result<Vec<Rows>> {
        let n = inputs.first().map_or(0, Rows::len);
        let mut all = self.widths().into_iter().map(|width| store.rows(n, width)).collect::<Result<Vec<_>>>()?;
        self.run_each(weights, grids, inputs, &mut |_, group| {
            all.iter_mut().zip(group).try_for_each(|(to, part)| to.push(part))?;
            go_on()
        })?;
        Ok(all.into_iter().map(RowsWriter::finish).collect())
    }
}

/// What a site holds for a group of samples.
#[derive(Debug, Clone, Copy)]
pub struct Values<'a> {
    all: &'a [f32],
    samples: usize,
    outer: usize,
}

impl<'a> Values<'a> {
    /// Of `samples` samples, whose elements lie as [outer, samples, rest].
    pub fn new(all: &'a [f32], samples: usize, outer: usize) -> Self {
        Values { all, samples, outer: outer.max(1) }
    }

    /// The elements of all samples, as [outer, samples, rest].
    pub fn all(&self) -> &'a [f32] {
        self.all
    }

    /// Samples of the group.
    pub fn samples(&self) -> usize {
        self.samples
    }

    /// Parts in which the elements of each sample lie.
    pub fn outer(&self) -> usize {
        self.outer
    }

    /// Elements of a sample that lie side by side.
    pub fn inner(&self) -> usize {
        self.all.len() / (self.samples * self.outer).max(1)
    }

    /// The elements of one sample (row-major), instead of what `out` holds.
    pub fn sample(&self, sample: usize, out: &mut Vec<f32>) {
        let inner = self.inner();
        out.clear();
        for part in 0..self.outer {
            out.extend_from_slice(&self.all[(part * self.samples + sample) * inner..][..inner]);
        }
    }

    /// The first sample that holds `value`.
    pub fn holder(&self, value: f32) -> Option<usize> {
        let at = self.all.iter().position(|&v| v == value)?;
        Some(at / self.inner().max(1) % self.samples)
    }
}

/// Bytes that running a program takes, without its inputs and what comes of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Footprint {
    /// Inference, with the outputs that wait to be handed on.
    pub inference: u64,
    /// Learning with all its state: roundings, optimisers, gradients.
    pub learning: u64,
}

/// This machine's processors, `threads` of them (0: all); an error where threads cannot be started.
pub fn processors(threads: usize) -> Result<Cpu> {
    Cpu::new(threads)
}

/// What `work` returns, done [beside](Device::beside) the programs of `device`.
pub fn beside<T: Send>(device: &dyn Device, work: impl FnOnce() -> T + Send) -> T {
    let (mut work, mut result) = (Some(work), None);
    device.beside(&mut || result = work.take().map(|work| work()));
    match result {
        Some(result) => result,
        None => unreachable!("a device does the work that it is given"),
    }
}
