//! Solving the units one after the other, then tuning the whole network.

use super::curve::report;
use super::job::{Job, Pace};
use super::network_solution::NetworkSolution;
use super::solve::{SCALED_LR, Settings};
use super::unit::Units;
use crate::engine::train::RandomDraws;
use crate::error::Result;
use crate::graph::ValueId;
use crate::plan::{LayerId, Unit};
use crate::probe::Cache;
use crate::report::{Event, Sink, UnitReport};
use std::time::Instant;

/// What a pass through all units learns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Pass {
    /// Roundings, and with them steps and biases where the method learns any.
    Together,
    /// Roundings alone, in a network whose activations are float everywhere (AdaRound, BRECQ).
    Weights,
    /// Steps of activations, behind weights that are rounded (the second pass of BRECQ).
    Steps,
}

impl Job<'_> {
    /// Solves the units in order, from what nearest rounding gives, and tunes the network. Both streams advance through
    /// each unit once a pass, when it is solved. Where only a share of the units is solved, the rest stays as it is.
    pub fn reconstruct(
        &self,
        start: NetworkSolution,
        reports: &mut Vec<UnitReport>,
        sink: &mut dyn Sink,
    ) -> Result<NetworkSolution> {
        let effective = self.recipe.resolved();
        let mut found = start;
        let mut pace = Pace::new(self);
        if effective.weights_first {
            self.pass(Pass::Weights, &self.plan.units, &mut found, &mut pace, reports, sink)?;
            if effective.step_iterations > 0 {
                let rounded: Vec<Unit> = self.plan.units.iter().map(with_rounded_weights).collect();
                self.pass(Pass::Steps, &rounded, &mut found, &mut pace, reports, sink)?;
            }
        } else {
            self.pass(Pass::Together, &self.plan.units, &mut found, &mut pace, reports, sink)?;
        }
        if pace.iterations() > 0 {
            reports.extend(self.tune(&mut found, &mut pace, sink)?);
        }
        Ok(found)
    }

    /// One pass through `units`.
    fn pass(
        &self,
        pass: Pass,
        units: &[Unit],
        found: &mut NetworkSolution,
        pace: &mut Pace,
        reports: &mut Vec<UnitReport>,
        sink: &mut dyn Sink,
    ) -> Result<()> {
        let effective = self.recipe.resolved();
        // Units that learn from the float network alone are judged by what they learn from.
        let alone = pass == Pass::Weights && effective.input_keep == 0.0;
        let float_only = alone || self.share.is_some();
        let mut float = self.inputs.clone();
        let mut quantized = if float_only { Cache::new() } else { float.clone() };
        let kept_in = (!float_only).then_some(self.store);
        let mut solved = 0;
        // Weights that learn from float activations in the middle of quantized ones learn for another loss.
        // Steps that were learned are judged where all units are known.
        let comparable = match pass {
            Pass::Together => effective.activation_keep > 0.0,
            Pass::Weights => true,
            Pass::Steps => self.share.is_none(),
        };
        let &Job { graph, facts, plan, device, .. } = self;
        // Where activations stay float, nothing can be learned of what divides them.
        let learn_factors = effective.learn_weight_scales && pass == Pass::Together;
        let context = Units { graph, facts, plan, learn_biases: effective.learn_biases, learn_factors, device };
        for (number, unit) in units.iter().enumerate() {
            let compiled = context.compile(unit, &self.loss_weights, Some(found))?;
            let targets = compiled.float_outputs(&float, self.store, sink)?;
            let quantize = |cache: &Cache, found: &NetworkSolution, keep, sink: &dyn Sink| {
                compiled.quantized(cache, found, pass != Pass::Weights, &targets, keep, sink)
            };
            let read_later = |v: &ValueId| units[number + 1..].iter().any(|u| u.inputs.contains(v));
            let planned = &plan.units[number];
            let learns = !planned.layers.is_empty() && self.solves(solved);
            solved += usize::from(!planned.layers.is_empty());
            let next = if !learns {
                match kept_in {
                    Some(store) => quantize(&quantized, found, Some(store), sink)?.1,
                    None => Vec::new(),
                }
            } else {
                let start = Instant::now();
                let name = match pass {
                    Pass::Steps => format!("{}, activations", unit.name),
                    _ => unit.name.clone(),
                };
                let layer = |&l: &LayerId| plan.layer(l).name.clone();
                let layers: Vec<String> = planned.layers.iter().map(layer).collect();
                let settings = self.settings(pass);
                sink.event(&pace.started(&name, layers.len()));
                let first = quantize(if float_only { &float } else { &quantized }, found, None, sink)?.0;
                let draws = self.draws(pass, number);
                // The quantized network's inputs are no part of a problem that draws none of them.
                let drawn = if draws.input_keep == 0.0 { &float } else { &quantized };
                let problem = compiled.problem(self.weight_grids, &found.grids, &float, drawn, targets.clone())?;
                let draws = RandomDraws { samples: problem.samples(), ..draws };
                let (mut solution, resumed) = self
                    .solve(&problem, &settings, &draws, pace, sink)
                    .map_err(|e| e.at(format!("unit `{}`", unit.name)))?;
                drop(problem);
                if !float_only {
                    float.retain(|v, _| read_later(v));
                }
                let before = found.clone();
                compiled.keep_constants(&mut solution, &mut found.constants);
                for weight in solution.weights {
                    let at = weight.layer.index();
                    found.weights[at] = weight;
                }
                for (site, grid) in compiled.sites.iter().zip(solution.grids) {
                    found.grids[site.index()] = grid;
                }
                let judged = if float_only { &float } else { &quantized };
                let (mut last, mut next) = quantize(judged, found, kept_in, sink)?;
                let reverted = (last.loss > first.loss || last.loss.is_nan()) && comparable;
                if reverted {
                    let name = &unit.name;
                    let message = match pass {
                        Pass::Steps => format!("unit `{name}`: learning steps raised the loss, so the first are kept"),
                        _ => format!("unit `{name}`: learning raised the loss, so nearest rounding is kept"),
                    };
                    sink.event(&Event::Note { message });
                    drop(next);
                    *found = before;
                    (last, next) = quantize(judged, found, kept_in, sink)?;
                }
                let unit = (pass != Pass::Steps).then_some(number);
                let report = report(&name, unit, layers, [first, last], &solution.losses, &settings, start);
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
        Ok(())
    }

    /// How units are solved.
    fn settings(&self, pass: Pass) -> Settings {
        let method = &self.recipe.method;
        let effective = self.recipe.resolved();
        Settings {
            iterations: if pass == Pass::Steps { effective.step_iterations } else { effective.iterations },
            rounding_lr: effective.rounding_lr,
            bias_lr: effective.rounding_lr,
            scale_lr: if pass == Pass::Weights { 0.0 } else { effective.scale_lr },
            scaled_lr: SCALED_LR,
            lambda: if pass == Pass::Steps { 0.0 } else { method.lambda },
            warmup: method.warmup,
            beta_start: method.beta_start,
            beta_end: method.beta_end,
            stop_settled: effective.stop_settled,
        }
    }

    /// What is drawn while a unit is solved, from no samples yet.
    fn draws(&self, pass: Pass, unit: usize) -> RandomDraws {
        let method = &self.recipe.method;
        let effective = self.recipe.resolved();
        let (unit, input_keep, activation_keep) = match pass {
            // The published code learns steps from the float network's inputs.
            Pass::Steps => (self.plan.units.len() + unit, 0.0, 1.0),
            _ => (unit, effective.input_keep, effective.activation_keep),
        };
        RandomDraws {
            seed: method.seed,
            unit: unit as u32,
            batch: method.batch,
            samples: 0,
            input_keep,
            activation_keep,
        }
    }
}

/// `unit` whose weights nobody learns any more.
fn with_rounded_weights(unit: &Unit) -> Unit {
    let fixed = unit.fixed.iter().chain(&unit.layers).copied().collect();
    Unit { layers: Vec::new(), fixed, ..unit.clone() }
}
