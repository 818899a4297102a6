//! The last stage: biases and activation steps of the whole quantized network are learned against the float network's
//! outputs. Integers stay.
//!
//! Units are solved one after the other, each for its own output; what is left of their errors adds up on the way. Here
//! all answer for the network's outputs at once. Few numbers are learned, so a few hundred samples suffice.

use super::curve::report;
use super::job::{Job, Pace};
use super::loss::Loss;
use super::network_solution::NetworkSolution;
use super::solve::Settings;
use super::unit::{bias, rounded};
use crate::engine::facts::{self, Facts};
use crate::engine::program::{Region, compile};
use crate::engine::train::{Problem, RandomDraws};
use crate::error::{Error, Result};
use crate::graph::{Graph, Node, Op, ValueId};
use crate::plan::{LayerId, Recipe, SiteId, learned_biases};
use crate::probe;
use crate::quant::Grid;
use crate::report::{Event, Sink, UnitReport};
use crate::tensor::Rows;
use std::time::Instant;

/// Number of the random streams, which separates them from those of units.
const STREAM: u32 = u32::MAX;
/// First learning rate of biases, in steps of their weights.
const BIAS_LR: f64 = 1e-1;
/// First learning rate of activation steps, as a share of each.
const SCALE_LR: f64 = 1e-2;

/// Multiply-adds of recurrent operators for one sample beyond which nothing is learned through them.
const RECURRENT: u64 = 1 << 20;

/// Iterations on the whole network; none, with a note, where gradients would pass large recurrent operators.
pub(crate) fn iterations(graph: &Graph, facts: &Facts, recipe: &Recipe, sink: &mut dyn Sink) -> usize {
    let wanted = recipe.resolved().tune_iterations;
    if wanted == 0 || recurrent(graph, facts) <= RECURRENT {
        return wanted;
    }
    let message = "tuning the whole network is left out: gradients would pass through large recurrent operators";
    sink.event(&Event::Note { message: message.into() });
    0
}

/// Multiply-adds of the recurrent operators of `graph` for one sample.
fn recurrent(graph: &Graph, facts: &Facts) -> u64 {
    let shape = |v: Option<ValueId>| v.and_then(|v| facts.get(v)).map_or(&[][..], |f| &f.shape);
    let size = |shape: &[usize]| shape.iter().map(|&d| d as u64).product::<u64>();
    let one = |node: &Node| {
        let x = shape(node.input(0));
        let steps = size(&x[..x.len().saturating_sub(1)]);
        steps * (size(shape(node.input(1))) + size(shape(node.input(2))))
    };
    graph.nodes.iter().filter(|n| matches!(n.op, Op::Recurrent(_))).map(one).sum()
}

/// The whole network as a problem.
struct Network {
    problem: Problem,
    /// Where its biases lie.
    biases: Vec<ValueId>,
    /// Its sites, in the plan.
    sites: Vec<SiteId>,
}

impl Job<'_> {
    /// Learns the biases and steps of `found`, which stays as it is where that does not bring the outputs closer.
    pub fn tune(
        &self,
        found: &mut NetworkSolution,
        pace: &mut Pace,
        sink: &mut dyn Sink,
    ) -> Result<Option<UnitReport>> {
        let start = Instant::now();
        let scale_lr = if self.recipe.resolved().scale_lr > 0.0 { SCALE_LR } else { 0.0 };
        let network = self.network(found, sink)?;
        let problem = &network.problem;
        if problem.targets.is_empty() || problem.biases.is_empty() && (problem.grids.is_empty() || scale_lr == 0.0) {
            return Ok(None);
        }
        let layers: Vec<String> = self.plan.layers.iter().map(|l| l.name.clone()).collect();
        sink.event(&pace.started("network", layers.len()));
        let method = &self.recipe.method;
        let settings = Settings {
            iterations: pace.iterations(),
            rounding_lr: 0.0,
            bias_lr: BIAS_LR,
            scale_lr,
            lambda: 0.0,
            warmup: method.warmup,
            beta_start: method.beta_start,
            beta_end: method.beta_end,
            stop_settled: false,
        };
        let draws = RandomDraws {
            seed: method.seed,
            unit: STREAM,
            batch: method.batch,
            samples: problem.samples(),
            input_keep: 1.0,
            activation_keep: 1.0,
        };
        let measure = |biases: &[&[f32]], grids: &[Grid], sink: &dyn Sink| {
            // What it works in is free while the network learns.
            let ready = self.device.inference(&problem.program)?;
            let grids: Vec<Option<&Grid>> = grids.iter().map(Some).collect();
            let mut loss = Loss::new(&problem.program, &problem.targets, &problem.loss_weights);
            let mut add = |first, outputs: &[Vec<f32>]| loss.add(first, outputs).and_then(|()| probe::go_on(sink));
            ready.run_each(biases, &grids, &problem.quantized_inputs, &mut add)?;
            Ok::<_, Error>(loss.distance())
        };
        let before: Vec<&[f32]> = problem.biases.iter().map(|b| b.float.as_slice()).collect();
        let first = measure(&before, &problem.grids, sink)?;
        let solved = self.solve(problem, &settings, &draws, pace, sink);
        let (solution, resumed) = solved.map_err(|e| e.at("the whole network"))?;
        let after: Vec<&[f32]> = solution.biases.iter().map(|b| b.1.as_slice()).collect();
        let mut last = measure(&after, &solution.grids, sink)?;
        let closer = last.loss < first.loss;
        if closer {
            found.biases.extend(network.biases.iter().copied().zip(solution.biases.into_iter().map(|b| b.1)));
            for (&site, grid) in network.sites.iter().zip(solution.grids) {
                found.grids[site.index()] = grid;
            }
        } else {
            last = first;
        }
        let report = report("network", None, layers, [first, last], &solution.losses, &settings, start);
        let report = UnitReport { reverted: !closer, resumed, ..report };
        sink.event(&pace.finished(&report));
        Ok(Some(report))
    }

    /// What the outputs depend on, with the integers of `found`, to be solved for its biases and steps.
    fn network(&self, found: &NetworkSolution, sink: &dyn Sink) -> Result<Network> {
        let region = probe::whole(self.graph, self.facts);
        let rows: Vec<Rows> = region.inputs.iter().map(|v| self.inputs[v].clone()).collect();
        let float = self.device.inference(&compile(self.graph, self.facts, &region)?)?;
        let targets = float.run_while(&[], &[], &rows, self.store, &mut || probe::go_on(sink))?;

        let mut biases = Vec::new();
        if self.recipe.resolved().learn_biases {
            let reached = |&l: &LayerId| self.plan.layer(l).nodes.iter().all(|n| region.nodes.contains(n));
            biases = learned_biases(self.graph, self.plan, self.plan.layer_ids().filter(reached))?;
        }
        let computed = |v: ValueId| region.nodes.iter().any(|&n| self.graph.node(n).outputs.contains(&Some(v)));
        let reached = |&s: &SiteId| {
            let value = self.plan.site(s).value;
            region.inputs.contains(&value) || computed(value)
        };
        let sites: Vec<SiteId> = self.plan.site_ids().filter(reached).collect();
        let rounded = rounded(self.graph, self.plan, found.weights.iter())?;
        let facts = facts::infer(&rounded, &probe::input_facts(self.graph, self.facts))?;
        let region = Region {
            weights: biases.iter().map(|b| b.1).collect(),
            sites: sites.iter().map(|&s| self.plan.site(s)).map(|s| (s.value, s.readers.clone())).collect(),
            ..region
        };
        let grids: Vec<Grid> = sites.iter().map(|s| found.grids[s.index()].clone()).collect();
        let start = |(layer, id, float): (LayerId, ValueId, Vec<f32>)| {
            bias(layer, found.biases.get(&id).cloned().unwrap_or(float), self.weight_grids)
        };
        let problem = Problem {
            program: compile(&rounded, &facts, &region)?,
            weights: Vec::new(),
            biases: biases.into_iter().map(start).collect(),
            scale_rates: grids.iter().map(|g| f64::from(g.scale[0])).collect(),
            grids,
            float_inputs: rows.clone(),
            quantized_inputs: rows,
            loss_weights: vec![None; targets.len()],
            targets,
        };
        Ok(Network { problem, biases: region.weights, sites })
    }
}
