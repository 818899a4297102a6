//! How far outputs are from the float ones over all samples: what decides whether something learned is kept.
//!
//! It is the loss that a trainer learns by ([`crate::engine::train::Losses`]), of the same elements with the same weights.
//! A trainer computes it of a batch with its gradient, in the arithmetic of its device. Here it is summed in f64 over
//! all samples, so that it depends on no device's sums.

use crate::engine::program::Program;
use crate::engine::train::LossWeights;
use crate::error::Result;
use crate::report::decibels;
use crate::tensor::Rows;

/// The reconstruction loss over all samples, summed up while they come.
pub(crate) struct Loss<'a> {
    targets: &'a [Rows],
    weights: &'a [Option<LossWeights>],
    /// Per output: elements that its mean averages.
    rest: Vec<f64>,
    /// Per output.
    sums: Vec<f64>,
    /// Squares of the float outputs and of the errors, without weights.
    signal: f64,
    noise: f64,
}

/// How far quantized outputs are from the float ones.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Distance {
    /// The reconstruction loss.
    pub loss: f64,
    /// Signal to noise in dB; none without noise.
    pub snr: Option<f64>,
}

impl<'a> Loss<'a> {
    /// Of the outputs of `program` against `targets`.
    pub fn new(program: &Program, targets: &'a [Rows], weights: &'a [Option<LossWeights>]) -> Self {
        let rest = |(&slot, rows): (&usize, &Rows)| (program.slots[slot].positions() * rows.len()) as f64;
        let rest = program.outputs.iter().zip(targets).map(rest).collect();
        Loss { targets, weights, rest, sums: vec![0.0; targets.len()], signal: 0.0, noise: 0.0 }
    }

    /// Adds samples from `first` on: their rows, per output.
    pub fn add(&mut self, first: usize, outputs: &[Vec<f32>]) -> Result<()> {
        for (i, (rows, target)) in outputs.iter().zip(self.targets).enumerate() {
            let mut weights = vec![1.0; target.width()];
            for (sample, row) in (first..).zip(rows.chunks_exact(target.width().max(1))) {
                if let Some(some) = &self.weights[i] {
                    some.expand(sample, &mut weights)?;
                }
                let (mut sum, mut signal, mut noise) = (0.0, 0.0, 0.0);
                let target = target.row(sample)?;
                // What is no number in the float network, as in padding, has no error.
                for ((&a, &b), &w) in row.iter().zip(&*target).zip(&weights).filter(|((_, b), _)| b.is_finite()) {
                    let error = f64::from(a - b);
                    sum += f64::from(w) * error * error;
                    signal += f64::from(b) * f64::from(b);
                    noise += error * error;
                }
                self.sums[i] += sum;
                self.signal += signal;
                self.noise += noise;
            }
        }
        Ok(())
    }

    /// What it came to.
    pub fn distance(&self) -> Distance {
        let loss = self.sums.iter().zip(&self.rest).map(|(sum, rest)| sum / rest).sum();
        Distance { loss, snr: decibels(self.signal, self.noise) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::device::{Device, processors};
    use crate::engine::facts;
    use crate::engine::naive::NaiveTrainer;
    use crate::engine::program::{Region, compile};
    use crate::engine::train::{Bias, Choices, Draws, Keep, Problem, Purpose, Step, Trainer};
    use crate::graph::Op;
    use crate::graph::testing::{Builder, window};
    use crate::plan::LayerId;
    use crate::quant::Grid;

    /// Difference between two computations of one loss, as a share of it, that f32 explains.
    const CLOSE: f64 = 1e-5;
    const SAMPLES: usize = 6;
    const CHANNELS: usize = 4;
    const POSITIONS: usize = 16;

    /// All samples, everything quantized.
    struct Everything;

    impl Draws for Everything {
        fn batch(&self, _: usize) -> Vec<usize> {
            (0..SAMPLES).collect()
        }

        fn keep(&self, _: usize, _: Purpose, _: usize, _: &mut [u8]) -> Keep {
            Keep::All
        }
    }

    fn rows(width: usize, of: impl Fn(usize) -> f32) -> Rows {
        Rows::new(SAMPLES, (0..SAMPLES * width).map(of).collect())
    }

    /// A convolution whose operand is quantized and whose bias is learned, for targets of which a few are padding.
    fn problem(weighted: bool) -> Problem {
        let mut b = Builder::new();
        let x = b.images(3, 4);
        let (weight, bias) = (b.constant("weight", &[CHANNELS, 3, 1, 1]), b.constant("bias", &[CHANNELS]));
        let y = b.node(Op::Conv { window: window(vec![0; 4]), group: 1 }, &[x, weight, bias]);
        let graph = b.finish(&[y]);
        let region = Region {
            nodes: graph.node_ids().collect(),
            inputs: vec![x],
            outputs: vec![y],
            weights: vec![bias],
            sites: vec![(x, None)],
        };
        let program = compile(&graph, &facts::infer(&graph, &[vec![1, 3, 4, 4]]).unwrap(), &region).unwrap();
        let float = graph.constant(bias).unwrap().to_f32().unwrap();
        let images = rows(48, |i| (i * 37 % 101) as f32 / 50.0 - 1.0);
        let padding = |i: usize| i % 61 == 7;
        let target = |i: usize| if padding(i) { f32::NAN } else { (i * 29 % 97) as f32 / 60.0 - 0.8 };
        let weights = LossWeights {
            channels: (0..CHANNELS).map(|c| 0.5 + c as f32).collect(),
            positions: rows(POSITIONS, |i| 0.25 + (i % 5) as f32),
            outer: 1,
        };
        Problem {
            program,
            weights: Vec::new(),
            biases: vec![Bias { layer: LayerId(0), step: vec![0.1; float.len()], float }],
            scaled: Vec::new(),
            // No value of the images lies between two steps.
            grids: vec![Grid::per_tensor(4, 0.19, 8).unwrap()],
            scale_rates: vec![1.0],
            float_inputs: vec![images.clone()],
            quantized_inputs: vec![images],
            targets: vec![rows(CHANNELS * POSITIONS, target)],
            loss_weights: vec![weighted.then_some(weights)],
        }
    }

    #[test]
    fn what_is_measured_is_what_every_device_learns_by() {
        let device = processors(2).unwrap();
        for weighted in [false, true] {
            let problem = problem(weighted);
            let mut loss = Loss::new(&problem.program, &problem.targets, &problem.loss_weights);
            let ready = device.inference(&problem.program).unwrap();
            let grids = [Some(&problem.grids[0])];
            let biases = [&problem.biases[0].float[..]];
            ready.run_each(&biases, &grids, &problem.quantized_inputs, &mut |first, o| loss.add(first, o)).unwrap();
            let measured = loss.distance().loss;
            let learned = |mut trainer: Box<dyn Trainer + '_>| {
                let step = Step {
                    iteration: 1,
                    choices: Choices::Replayed(&Everything),
                    lambda: 0.0,
                    beta: 2.0,
                    rounding_lr: 0.0,
                    bias_lr: 0.0,
                    scale_lr: 0.0,
                    scaled_lr: 0.0,
                    settled_below: None,
                };
                trainer.step(&step).unwrap();
                trainer.losses().unwrap()[0].reconstruction
            };
            let specified = learned(Box::new(NaiveTrainer::<f64>::new(&problem).unwrap()));
            let fast = learned(device.trainer(&problem).unwrap());
            assert!(measured > 0.1, "{measured}");
            for (name, other) in [("the specification", specified), ("the processors", fast)] {
                assert!((other - measured).abs() < CLOSE * measured, "{name}: {other}, measured {measured}");
            }
        }
    }

    #[test]
    fn padding_is_neither_signal_nor_noise() {
        let program = problem(false).program;
        let distance = |padding: Option<f32>| {
            let mut row = vec![2.2; CHANNELS * POSITIONS];
            let mut wanted = vec![2.0; CHANNELS * POSITIONS];
            for at in 0..POSITIONS / 2 {
                (wanted[at], row[at]) = padding.map_or((2.0, 2.2), |v| (v, 100.0));
            }
            let targets = [Rows::new(1, wanted)];
            let mut loss = Loss::new(&program, &targets, &[None]);
            loss.add(0, &[row]).unwrap();
            loss.distance()
        };
        let (all, some) = (distance(None), distance(Some(f32::INFINITY)));
        assert!((all.loss - 0.04 * CHANNELS as f64).abs() < CLOSE, "{all:?}");
        let counted = 1.0 - 0.5 / CHANNELS as f64;
        assert!((some.loss - counted * all.loss).abs() < CLOSE, "{some:?}");
        assert!((some.snr.unwrap() - 20.0).abs() < 1e-3, "{some:?}");
    }
}
