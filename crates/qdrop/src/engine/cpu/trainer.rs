//! Learning on this device.

use super::code::{Code, Kernel, Place};
use super::pass::{self, Quantizer};
use super::rounding::Rounding;
use super::run::{Frame, Shared, Sums};
use super::{Frames, Threads, check, footprint};
use crate::engine::fused::MaskIndex;
use crate::engine::optimiser::{LearnedBias, LearnedScaled, LearnedScales};
use crate::engine::train::{Keep, Losses, Problem, Purpose, Record, Step, Times, Trainer};
use crate::error::{Error, Result};
use crate::quant::Grid;
use rayon::prelude::*;
use std::time::Instant;

/// Partial sums of gradients at most; groups are dealt to them in turn.
pub(super) const LANES: usize = 8;

/// Learns one unit.
pub struct CpuTrainer<'a> {
    problem: &'a Problem,
    code: Code,
    /// Mask of the pass that holds each site.
    masks: Vec<MaskIndex>,
    weights: Vec<Rounding>,
    biases: Vec<LearnedBias>,
    scaled: Vec<LearnedScaled<'a>>,
    scales: LearnedScales,
    /// Weights of tiled convolutions in their domain; empty where no kernel wants them.
    tiled: Vec<Vec<f32>>,
    lanes: Vec<Lane>,
    frames: Frames,
    record: Record,
    times: Times,
    threads: Threads,
}

struct Lane {
    reconstruction: f64,
    weights: Vec<Vec<f32>>,
    scales: Vec<f64>,
    /// Time of this thread in forward and backward passes.
    seconds: [f64; 2],
}

/// The gradient of weight `i` of the program, of all `lanes` in order.
fn summed(lanes: &[Lane], i: usize) -> Vec<f32> {
    let mut sum = vec![0f32; lanes.first().map_or(0, |l| l.weights[i].len())];
    lanes.iter().for_each(|l| sum.iter_mut().zip(&l.weights[i]).for_each(|(s, g)| *s += g));
    sum
}

impl<'a> CpuTrainer<'a> {
    /// Ready for the first iteration of `problem`, each in the pool of threads in which it is asked for.
    pub fn new(problem: &'a Problem) -> Result<Self> {
        Self::on(Threads::default(), problem)
    }

    pub(super) fn on(threads: Threads, problem: &'a Problem) -> Result<Self> {
        let code = Code::new(&problem.program, true)?;
        footprint::fits(&code, true)?;
        let n = problem.samples();
        check(&code, &problem.float_inputs, n)?;
        check(&code, &problem.quantized_inputs, n)?;
        let mut masks = vec![MaskIndex(usize::MAX); problem.program.sites.len()];
        for kernel in &code.kernels {
            if let Kernel::Pass { site: Some(site), mask, .. } = kernel {
                masks[site.0] = *mask;
            }
        }
        Ok(CpuTrainer {
            problem,
            code,
            masks,
            weights: problem.weights.iter().map(Rounding::new).collect::<Result<_>>()?,
            biases: problem.biases.iter().map(LearnedBias::new).collect(),
            scaled: problem.scaled.iter().map(LearnedScaled::new).collect(),
            scales: LearnedScales::new(problem),
            tiled: vec![Vec::new(); problem.program.weights.len()],
            lanes: Vec::new(),
            frames: Frames::default(),
            record: Record::default(),
            times: Times::default(),
            threads,
        })
    }

    /// Gradients of the last step: of the program's weights, and of the steps without their factor.
    #[cfg(test)]
    pub(super) fn gradients(&self) -> (Vec<Vec<f32>>, Vec<f64>) {
        let sum = |i: usize| summed(&self.lanes, i);
        let scale = |i: usize| self.lanes.iter().map(|l| l.scales[i]).sum();
        ((0..self.contents().len()).map(sum).collect(), (0..self.scales.grids.len()).map(scale).collect())
    }

    /// What the program's weights hold now.
    fn contents(&self) -> Vec<&[f32]> {
        let soft = self.weights.iter().map(|w| w.soft.as_slice());
        let biases = self.biases.iter().map(|b| b.content.as_slice());
        soft.chain(biases).chain(self.scaled.iter().map(|s| s.content.as_slice())).collect()
    }

    /// Loss and gradients of the samples `batch[first..]` of one group, added to `lane`.
    fn group(&self, step: &Step, shared: &Shared, batch: &[usize], first: usize, lane: &mut Lane) -> Result<()> {
        let start = Instant::now();
        let code = &self.code;
        let samples = (batch.len() - first).min(code.group);
        let mut frame = self.frames.take(code, true);
        frame.start(samples);
        self.feed(step, &mut frame, &batch[first..first + samples], first)?;
        let mut keeps = Vec::with_capacity(self.masks.len());
        for (site, slot) in self.problem.program.site_slots() {
            let mut keep = Keep::All;
            for sample in 0..samples {
                let draw =
                    |mask: &mut [u8]| step.choices.keep(step.iteration, Purpose::Site(site), first + sample, mask);
                keep = frame.draw(code, self.masks[site.0], slot, sample, draw);
            }
            keeps.push(keep);
        }
        frame.forward(shared, Some(&keeps), None)?;
        for (i, &slot) in code.program.outputs.iter().enumerate() {
            let (target, weights) = (&self.problem.targets[i], &self.problem.loss_weights[i]);
            let mut rows = vec![Vec::new(); if weights.is_some() { samples } else { 0 }];
            if let Some(weights) = weights {
                rows.iter_mut().zip(&batch[first..]).try_for_each(|(row, &sample)| weights.expand(sample, row))?;
            }
            let wanted = batch[first..first + samples].iter().map(|&s| target.row(s)).collect::<Result<Vec<_>>>()?;
            let rest = (code.program.slots[slot].positions() * batch.len()) as f64;
            let mut sum = 0.0;
            frame.upstream(shared, slot, |sample, range, values| {
                let weights = rows.get(sample).map(|row| &row[range.clone()]);
                sum += pass::loss(values, &wanted[sample][range], weights, (2.0 / rest) as f32);
            });
            lane.reconstruction += sum / rest;
        }
        let forward = start.elapsed().as_secs_f64();
        frame.backward(shared, &mut Sums { weights: &mut lane.weights, scales: &mut lane.scales, watch: None })?;
        self.frames.give(frame);
        lane.seconds[0] += forward;
        lane.seconds[1] += start.elapsed().as_secs_f64() - forward;
        Ok(())
    }

    /// Fills the inputs with the mix of both networks.
    fn feed(&self, step: &Step, frame: &mut Frame, samples: &[usize], first: usize) -> Result<()> {
        for (input, &slot) in self.code.program.inputs.iter().enumerate() {
            let (float, quantized) = (&self.problem.float_inputs[input], &self.problem.quantized_inputs[input]);
            let mut mask = vec![0; float.width()];
            for (position, &sample) in samples.iter().enumerate() {
                let keep = step.choices.keep(step.iteration, Purpose::Input(input), first + position, &mut mask);
                let (q, f) = (quantized.row(sample)?, float.row(sample)?);
                frame.fill(&self.code, slot, position, |range, x| {
                    pass::mix(keep, &mask[range.clone()], &q[range.clone()], &f[range], x);
                });
            }
        }
        Ok(())
    }

    /// Brings the weights of tiled convolutions into their domain.
    fn transform_weights(&mut self) {
        let mut all = std::mem::take(&mut self.tiled);
        let contents = self.contents();
        for kernel in &self.code.kernels {
            if let Kernel::Conv { tiled: Some(tiled), w, .. } = kernel
                && let Place::Weight(i) = self.code.places[*w]
            {
                tiled.transform_weights(contents[i], &mut all[i]);
            }
        }
        self.tiled = all;
    }

    /// One iteration.
    fn iterate(&mut self, step: &Step) -> Result<()> {
        let batch = step.choices.batch(step.iteration);
        let starts: Vec<usize> = (0..batch.len()).step_by(self.code.group).collect();
        let count = starts.len().min(LANES);
        if count == 0 {
            return Err(Error::data("expected a batch of samples, got none"));
        }
        let mut lanes = std::mem::take(&mut self.lanes);
        lanes.resize_with(count, || Lane {
            reconstruction: 0.0,
            weights: self.contents().iter().map(|w| vec![0.0; w.len()]).collect(),
            scales: vec![0.0; self.scales.grids.len()],
            seconds: [0.0; 2],
        });
        let start = Instant::now();
        self.transform_weights();
        let contents = self.contents();
        let sites: Vec<Option<Quantizer>> = self.scales.grids.iter().map(|g| Some(Quantizer::new(g))).collect();
        let shared = Shared { code: &self.code, weights: &contents, tiled: &self.tiled, sites: &sites };
        lanes.par_iter_mut().with_max_len(1).enumerate().try_for_each(|(i, lane)| {
            lane.reconstruction = 0.0;
            lane.scales.fill(0.0);
            lane.seconds = [0.0; 2];
            lane.weights.iter_mut().for_each(|w| w.fill(0.0));
            starts.iter().skip(i).step_by(count).try_for_each(|&first| self.group(step, &shared, &batch, first, lane))
        })?;
        let passes = start.elapsed().as_secs_f64();
        let reconstruction: f64 = lanes.iter().map(|l| l.reconstruction).sum();
        let mut total = reconstruction;
        for (i, weight) in self.weights.iter_mut().enumerate() {
            let parts: Vec<&[f32]> = lanes.iter().map(|l| l.weights[i].as_slice()).collect();
            total += step.lambda * weight.update(&parts, step);
        }
        let sum = |i: usize| summed(&lanes, i);
        let (biases, scaled) = (self.weights.len(), self.weights.len() + self.biases.len());
        self.biases.iter_mut().zip(biases..).for_each(|(bias, i)| bias.update(&sum(i), step));
        self.scaled.iter_mut().zip(scaled..).for_each(|(constant, i)| constant.update(sum(i), step));
        if step.scale_lr > 0.0 {
            let sum = |i: usize| lanes.iter().map(|l| l.scales[i]).sum();
            let gradients: Vec<f64> = (0..self.scales.grids.len()).map(sum).collect();
            self.scales.update(&gradients, batch.len(), step);
        }
        let threads = |i: usize| lanes.iter().map(|l| l.seconds[i]).sum::<f64>();
        let forward = threads(0) / (threads(0) + threads(1)).max(f64::MIN_POSITIVE);
        self.times.forward += passes * forward;
        self.times.backward += passes * (1.0 - forward);
        self.times.update += start.elapsed().as_secs_f64() - passes;
        self.lanes = lanes;
        self.record.note(Losses { reconstruction, total }, step);
        Ok(())
    }
}

impl Trainer for CpuTrainer<'_> {
    fn step(&mut self, step: &Step) -> Result<()> {
        if self.record.settled() {
            return Ok(());
        }
        let threads = self.threads.clone();
        threads.run(|| self.iterate(step))
    }

    fn losses(&mut self) -> Result<Vec<Losses>> {
        Ok(self.record.read())
    }

    fn alpha(&self) -> Vec<Vec<f32>> {
        self.weights.iter().map(|w| w.alpha.clone()).collect()
    }

    fn biases(&self) -> Vec<Vec<f32>> {
        self.biases.iter().map(|b| b.content.clone()).collect()
    }

    fn scaled(&self) -> Vec<Vec<f32>> {
        self.scaled.iter().map(|s| s.scale.clone()).collect()
    }

    fn grids(&self) -> Vec<Grid> {
        self.scales.grids.clone()
    }

    fn times(&self) -> Times {
        self.times
    }
}
