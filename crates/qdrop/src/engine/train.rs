//! Learning on a device: what a unit learns from, one iteration as plain data, and the interface of devices.

use super::philox::Stream;
use super::program::{Program, ProgramSite};
use crate::error::Result;
use crate::quant::lsq::{gradient_factor, step_floor};
use crate::quant::{Grid, LayerId};
use crate::tensor::Rows;
use serde::{Deserialize, Serialize};

/// A weight whose rounding is learned.
#[derive(Debug, Clone, Serialize)]
pub struct Weight {
    /// The layer, in the plan.
    pub layer: LayerId,
    /// Float content.
    pub float: Vec<f32>,
    /// Dimensions.
    pub shape: Vec<usize>,
    /// Its grid.
    pub grid: Grid,
}

/// A bias that is learned with the weight of its layer, in units of that weight's step.
#[derive(Debug, Clone, Serialize)]
pub struct Bias {
    /// The layer, in the plan.
    pub layer: LayerId,
    /// Float content.
    pub float: Vec<f32>,
    /// Step of the weight, per element.
    pub step: Vec<f32>,
}

/// One unit with everything it is solved from. What is listed per site is in the order of the program's sites; a unit has
/// no other numbers for them.
#[derive(Debug, Clone)]
pub struct Problem {
    /// The unit's program; its weights are `weights` and then `biases`, its sites `grids`.
    pub program: Program,
    /// Weights to round.
    pub weights: Vec<Weight>,
    /// Biases to learn; empty where they stay as they are.
    pub biases: Vec<Bias>,
    /// First grids of the sites.
    pub grids: Vec<Grid>,
    /// Per site: what the learning rate of its step is multiplied by.
    pub scale_rates: Vec<f64>,
    /// Inputs in the float network, per input of the program.
    pub float_inputs: Vec<Rows>,
    /// Inputs in the network quantized so far, per input of the program.
    pub quantized_inputs: Vec<Rows>,
    /// Outputs of the float network, per output of the program.
    pub targets: Vec<Rows>,
    /// Per output of the program: what its elements weigh in the loss; `None`: all the same.
    pub loss_weights: Vec<Option<LossWeights>>,
}

/// What the elements of an output weigh in the loss: the weight of their channel times that of their position.
#[derive(Debug, Clone)]
pub struct LossWeights {
    /// One a channel.
    pub channels: Vec<f32>,
    /// One an element of a channel, for every sample.
    pub positions: Rows,
    /// Positions in front of the channels; the others are behind.
    pub outer: usize,
}

impl LossWeights {
    /// Weights of the elements of `sample`, in their order, into `row`.
    pub fn expand(&self, sample: usize, row: &mut Vec<f32>) -> Result<()> {
        let positions = &*self.positions.row(sample)?;
        row.clear();
        for inner in positions.chunks((positions.len() / self.outer.max(1)).max(1)) {
            self.channels.iter().for_each(|&c| row.extend(inner.iter().map(|&p| c * p)));
        }
        Ok(())
    }
}

impl Problem {
    /// Number of calibration samples.
    pub fn samples(&self) -> usize {
        self.targets.first().map_or(0, Rows::len)
    }
}

/// What a keep mask is drawn for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// An input of the program: kept elements come from the network quantized so far, others from the float network.
    Input(usize),
    /// A site of the program: kept elements are quantized, others stay float.
    Site(ProgramSite),
}

/// Which elements keep the quantized value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keep {
    /// All of them; no mask was written.
    All,
    /// None of them; no mask was written.
    Nothing,
    /// Those whose byte in the mask is 1; all others are 0.
    Masked,
}

/// The random choices of a reconstruction.
pub trait Draws: Sync {
    /// Samples of the batch of `iteration` (from 1).
    fn batch(&self, iteration: usize) -> Vec<usize>;

    /// Which elements of the sample at `position` of the batch keep the quantized value; `mask` has the sample's size.
    fn keep(&self, iteration: usize, purpose: Purpose, position: usize, mask: &mut [u8]) -> Keep;
}

/// Counter-based choices: they depend on these fields and the iteration alone.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct RandomDraws {
    /// Seed of the run.
    pub seed: u64,
    /// Number of the unit, which separates its random streams from those of others.
    pub unit: u32,
    /// Batch size.
    pub batch: usize,
    /// Number of samples to draw from, with replacement.
    pub samples: usize,
    /// Probability that an input element comes from the network quantized so far.
    pub input_keep: f64,
    /// Probability that an element at a site is quantized.
    pub activation_keep: f64,
}

impl Draws for RandomDraws {
    fn batch(&self, iteration: usize) -> Vec<usize> {
        Stream::new(self.seed, self.unit, u32::MAX, iteration as u32).below(self.batch, self.samples)
    }

    fn keep(&self, iteration: usize, purpose: Purpose, position: usize, mask: &mut [u8]) -> Keep {
        let (keep, purpose) = match purpose {
            Purpose::Input(i) => (self.input_keep, u32::MAX - 1 - i as u32),
            Purpose::Site(ProgramSite(i)) => (self.activation_keep, i as u32),
        };
        if keep >= 1.0 {
            return Keep::All;
        }
        if keep <= 0.0 {
            return Keep::Nothing;
        }
        Stream::new(self.seed, self.unit, purpose, iteration as u32).mask(position, keep, mask);
        Keep::Masked
    }
}

/// One iteration.
#[derive(Clone, Copy)]
pub struct Step<'a> {
    /// Its number, from 1.
    pub iteration: usize,
    /// The random choices.
    pub draws: &'a dyn Draws,
    /// Weight of the rounding regulariser; 0 during warm-up.
    pub lambda: f64,
    /// Exponent of the regulariser.
    pub beta: f64,
    /// Learning rate of the rounding variables.
    pub rounding_lr: f64,
    /// Learning rate of the biases, in units of their weights' steps.
    pub bias_lr: f64,
    /// Learning rate of the steps; 0 leaves them as they are.
    pub scale_lr: f64,
}

/// Losses of one iteration, before its update.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Losses {
    /// Σ over the channel axis of the squared difference, mean over the rest.
    pub reconstruction: f64,
    /// Together with the weighted regulariser.
    pub total: f64,
}

/// Where the time of all iterations of a trainer went so far, in seconds.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Times {
    /// Mixing, masks, forward passes, losses.
    pub forward: f64,
    /// Backward passes.
    pub backward: f64,
    /// Roundings, biases, steps and their optimisers.
    pub update: f64,
}

/// A device that learns one unit: it holds the rounding variables, the steps and the state of their optimisers (Adam
/// with β 0.9 and 0.999, ε 1e-8).
pub trait Trainer {
    /// One iteration: forward, backward, update.
    fn step(&mut self, step: &Step) -> Result<Losses>;

    /// Rounding variables so far, per weight.
    fn alpha(&self) -> Vec<Vec<f32>>;

    /// Biases so far.
    fn biases(&self) -> Vec<Vec<f32>>;

    /// Grids of the sites with their steps so far.
    fn grids(&self) -> Vec<Grid>;

    /// Where the time went, where that is measured.
    fn times(&self) -> Times {
        Times::default()
    }
}

/// Adam (Kingma and Ba, ICLR 2015) on some variables.
#[derive(Debug, Clone)]
pub(super) struct Adam {
    m: Vec<f32>,
    v: Vec<f32>,
}

impl Adam {
    /// Before the first of its iterations on `n` variables.
    pub fn new(n: usize) -> Self {
        Adam { m: vec![0.0; n], v: vec![0.0; n] }
    }

    /// How far each variable must go down for the gradients `g` in iteration `t` (from 1).
    pub fn changes<'a>(&'a mut self, g: &'a [f32], lr: f64, t: usize) -> impl Iterator<Item = f32> + 'a {
        let (c1, c2) = (1.0 - 0.9f64.powi(t as i32), 1.0 - 0.999f64.powi(t as i32));
        let (size, root) = ((lr / c1) as f32, c2.sqrt() as f32);
        g.iter().zip(&mut self.m).zip(&mut self.v).map(move |((&g, m), v)| {
            *m += (g - *m) * 0.1;
            *v = *v * 0.999 + g * g * 0.001;
            size * *m / (v.sqrt() / root + 1e-8)
        })
    }
}

/// The steps of a problem's sites while they are learned (learned step size quantization: Esser et al., ICLR 2020).
#[derive(Debug, Clone)]
pub(super) struct LearnedScales {
    pub grids: Vec<Grid>,
    /// What the learning rate of each is multiplied by.
    rates: Vec<f64>,
    /// None becomes smaller.
    floors: Vec<f32>,
    /// Of Adam.
    moments: Vec<[f64; 2]>,
    /// Elements of one sample at each site.
    numel: Vec<usize>,
}

impl LearnedScales {
    pub fn new(problem: &Problem) -> Self {
        let slots = &problem.program.slots;
        LearnedScales {
            grids: problem.grids.clone(),
            rates: problem.scale_rates.clone(),
            floors: problem.grids.iter().map(|g| step_floor(g.scale[0])).collect(),
            moments: vec![[0.0; 2]; problem.grids.len()],
            numel: problem.program.sites.iter().map(|&s| slots[s].shape.iter().product()).collect(),
        }
    }

    /// One update for the gradients of the steps, each summed over a batch of `batch` samples.
    pub fn update(&mut self, gradients: &[f64], batch: usize, step: &Step) {
        let t = step.iteration as i32;
        let (c1, c2) = (1.0 - 0.9f64.powi(t), 1.0 - 0.999f64.powi(t));
        for (i, grid) in self.grids.iter_mut().enumerate() {
            let g = gradients[i] * gradient_factor(batch * self.numel[i], grid.qmax);
            let [m, v] = &mut self.moments[i];
            *m += (g - *m) * 0.1;
            *v = *v * 0.999 + g * g * 0.001;
            let change = step.scale_lr * self.rates[i] / c1 * *m / ((*v / c2).sqrt() + 1e-8);
            grid.scale[0] = ((f64::from(grid.scale[0]) - change) as f32).abs().max(self.floors[i]);
        }
    }
}

/// A [`Bias`] while it is learned.
#[derive(Debug, Clone)]
pub(super) struct LearnedBias {
    pub content: Vec<f32>,
    step: Vec<f32>,
    adam: Adam,
}

impl LearnedBias {
    pub fn new(bias: &Bias) -> Self {
        LearnedBias { content: bias.float.clone(), step: bias.step.clone(), adam: Adam::new(bias.float.len()) }
    }

    /// One update for the gradient `g` of the content.
    pub fn update(&mut self, g: &[f32], step: &Step) {
        let g: Vec<f32> = g.iter().zip(&self.step).map(|(g, s)| g * s).collect();
        let changes = self.adam.changes(&g, step.bias_lr, step.iteration);
        for ((b, s), change) in self.content.iter_mut().zip(&self.step).zip(changes) {
            *b -= s * change;
        }
    }
}
