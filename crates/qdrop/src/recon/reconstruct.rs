//! Solving the units one after the other, then tuning the whole network.

use super::curve::report;
use super::job::{Job, Pace};
use super::network_solution::NetworkSolution;
use super::solve::{Settings, Solution};
use super::unit::Units;
use crate::engine::train::{Problem, RandomDraws};
use crate::error::Result;
use crate::graph::ValueId;
use crate::plan::LayerId;
use crate::probe::Cache;
use crate::report::{Event, Sink, UnitReport};
use std::time::Instant;

impl Job<'_> {
    /// Solves the units in order, from what nearest rounding gives, and tunes the network. Both streams advance through
    /// each unit once, when it is solved.
    pub fn reconstruct(
        &self,
        start: NetworkSolution,
        reports: &mut Vec<UnitReport>,
        sink: &mut dyn Sink,
    ) -> Result<NetworkSolution> {
        let units = &self.plan.units;
        let mut found = start;
        let mut float = self.inputs.clone();
        let mut quantized = float.clone();
        let mut pace = Pace::new(self);
        let learn_biases = self.recipe.resolved().learn_biases;
        let learned_quantized = self.recipe.resolved().activation_keep > 0.0;
        let &Job { graph, facts, plan, device, .. } = self;
        let context = Units { graph, facts, plan, learn_biases, device };
        for (number, unit) in units.iter().enumerate() {
            let compiled = context.compile(unit, &self.loss_weights, Some(&found))?;
            let targets = compiled.float_outputs(&float, self.store, sink)?;
            let quantize = |cache: &Cache, found: &NetworkSolution, keep, sink: &dyn Sink| {
                compiled.quantized(cache, found, &targets, keep, sink)
            };
            let read_later = |v: &ValueId| units[number + 1..].iter().any(|u| u.inputs.contains(v));
            let next = if unit.layers.is_empty() {
                quantize(&quantized, &found, Some(self.store), sink)?.1
            } else {
                let start = Instant::now();
                let name = |l: &LayerId| self.plan.layers[l.0 as usize].name.clone();
                let layers: Vec<String> = unit.layers.iter().map(name).collect();
                sink.event(&pace.started(&unit.name, layers.len()));
                let first = quantize(&quantized, &found, None, sink)?.0;
                let problem = compiled.problem(self.weight_grids, &found.grids, &float, &quantized, targets.clone())?;
                let settings = self.settings();
                let (mut solution, resumed) = self
                    .solve_unit(&problem, &settings, number as u32, &pace, sink)
                    .map_err(|e| e.at(format!("unit `{}`", unit.name)))?;
                drop(problem);
                float.retain(|v, _| read_later(v));
                let before = found.clone();
                compiled.keep_biases(&mut solution, &mut found.biases);
                for weight in solution.weights {
                    let layer = weight.layer;
                    found.weights[layer] = weight;
                }
                for (site, grid) in compiled.sites.iter().zip(solution.grids) {
                    found.grids[site.0 as usize] = grid;
                }
                let (mut last, mut next) = quantize(&quantized, &found, Some(self.store), sink)?;
                // Other methods learn without quantized activations, and so for another loss.
                let reverted = last.loss > first.loss && learned_quantized;
                if reverted {
                    let message =
                        format!("unit `{}`: learning raised the loss, so nearest rounding is kept", unit.name);
                    sink.event(&Event::Note { message });
                    drop(next);
                    found = before;
                    (last, next) = quantize(&quantized, &found, Some(self.store), sink)?;
                }
                let (distances, losses) = ([first, last], &solution.losses);
                let report = report(&unit.name, Some(number), layers, distances, losses, &settings, start);
                let report = UnitReport { reverted, resumed, ..report };
                sink.event(&pace.finished(&report));
                reports.push(report);
                next
            };
            compiled.store(&mut float, targets);
            compiled.store(&mut quantized, next);
            for cache in [&mut float, &mut quantized] {
                cache.retain(|v, _| read_later(v));
            }
        }
        drop((float, quantized));
        if pace.iterations() > 0 {
            reports.extend(self.tune(&mut found, &mut pace, sink)?);
        }
        Ok(found)
    }

    /// How units are solved.
    fn settings(&self) -> Settings {
        let method = &self.recipe.method;
        let effective = self.recipe.resolved();
        Settings {
            iterations: effective.iterations,
            rounding_lr: effective.rounding_lr,
            bias_lr: effective.rounding_lr,
            scale_lr: effective.scale_lr,
            lambda: method.lambda,
            warmup: method.warmup,
            beta_start: method.beta_start,
            beta_end: method.beta_end,
            stop_settled: effective.stop_settled,
        }
    }

    fn solve_unit(
        &self,
        problem: &Problem,
        settings: &Settings,
        unit: u32,
        pace: &Pace,
        sink: &mut dyn Sink,
    ) -> Result<(Solution, bool)> {
        let method = &self.recipe.method;
        let effective = self.recipe.resolved();
        let draws = RandomDraws {
            seed: method.seed,
            unit,
            batch: method.batch,
            samples: problem.samples(),
            input_keep: effective.input_keep,
            activation_keep: effective.activation_keep,
        };
        self.solve(problem, settings, &draws, pace, sink)
    }
}
