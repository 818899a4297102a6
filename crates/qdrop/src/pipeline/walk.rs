//! The float network on a few samples, walked through once from value to value.

use super::run;
use super::unit::Cache;
use crate::engine::cpu::Runner;
use crate::engine::facts::Facts;
use crate::engine::program::{Readers, Region, compile};
use crate::error::Result;
use crate::graph::{Graph, NodeId, ValueId};
use crate::quant::Grid;
use crate::tensor::{Rows, Shelf};
use rayon::ThreadPool;
use std::collections::BTreeSet;

/// The float network walked through once, with the values that later nodes read.
pub(super) struct Walk<'a> {
    graph: &'a Graph,
    facts: &'a Facts,
    pool: &'a ThreadPool,
    /// What the outputs depend on, in order.
    nodes: Vec<NodeId>,
    outputs: Vec<ValueId>,
    /// Nodes walked through.
    at: usize,
    values: Cache,
}

/// A compiled part of the network.
pub(super) struct Part {
    runner: Runner,
    inputs: Vec<ValueId>,
}

impl<'a> Walk<'a> {
    /// At the start of what the outputs of real numbers depend on, with the samples' `inputs`.
    pub fn new(graph: &'a Graph, facts: &'a Facts, inputs: Cache, pool: &'a ThreadPool) -> Self {
        let outputs = run::real_outputs(graph, facts);
        let nodes = run::behind(graph, &outputs);
        Walk { graph, facts, pool, nodes, outputs, at: 0, values: inputs }
    }

    /// What comes with values that the outputs depend on, in the order in which the walk meets them.
    pub fn order<T>(&self, items: impl Iterator<Item = (ValueId, T)>) -> Vec<T> {
        let mut met: Vec<(usize, T)> = items.filter_map(|(v, item)| Some((self.position(v)?, item))).collect();
        met.sort_by_key(|m| m.0);
        met.into_iter().map(|m| m.1).collect()
    }

    /// Walks on until `value` is known; its values, where an output depends on it.
    pub fn until(&mut self, value: ValueId) -> Result<Option<&Rows>> {
        if let Some(position) = self.position(value) {
            self.advance(position)?;
        }
        Ok(self.values.get(&value))
    }

    /// Nodes to walk through until `value` is known; none where no output depends on it.
    fn position(&self, value: ValueId) -> Option<usize> {
        let computes = |&id: &NodeId| self.graph.node(id).outputs.contains(&Some(value));
        if self.values.contains_key(&value) { Some(0) } else { self.nodes.iter().position(computes).map(|i| i + 1) }
    }

    /// Walks on until `position` nodes are behind.
    fn advance(&mut self, position: usize) -> Result<()> {
        if position > self.at {
            let after = self.read_after(position);
            let made =
                self.nodes[self.at..position].iter().flat_map(|&id| self.graph.node(id).outputs.iter().flatten());
            let made: Vec<ValueId> = made.copied().filter(|v| after.contains(v)).collect();
            let part = self.part(self.nodes[self.at..position].to_vec(), made.clone(), None)?;
            let values = self.run(&part, None)?;
            self.values.extend(made.into_iter().zip(values));
            self.values.retain(|v, _| after.contains(v));
            self.at = position;
        }
        Ok(())
    }

    /// Values read after `position`.
    fn read_after(&self, position: usize) -> BTreeSet<ValueId> {
        let read = self.nodes[position..].iter().flat_map(|&id| self.graph.node(id).inputs.iter().flatten());
        read.chain(&self.outputs).copied().collect()
    }

    /// The rest of the network, from here to the outputs.
    pub fn tail(&self, site: Option<(ValueId, Readers)>) -> Result<Part> {
        self.part(self.nodes[self.at..].to_vec(), self.outputs.clone(), site)
    }

    fn part(&self, nodes: Vec<NodeId>, outputs: Vec<ValueId>, site: Option<(ValueId, Readers)>) -> Result<Part> {
        let inputs: Vec<ValueId> = self.values.keys().copied().collect();
        let sites = site.into_iter().collect();
        let region = Region { nodes, inputs: inputs.clone(), outputs, sites, ..Region::default() };
        Ok(Part { runner: Runner::new(&compile(self.graph, self.facts, &region)?)?, inputs })
    }

    pub fn run(&self, part: &Part, grid: Option<&Grid>) -> Result<Vec<Rows>> {
        let grids: Vec<Option<&Grid>> = grid.into_iter().map(Some).collect();
        let inputs: Vec<Rows> = part.inputs.iter().map(|v| self.values[v].clone()).collect();
        self.pool.install(|| part.runner.run(&[], &grids, &inputs, &Shelf::memory()))
    }
}
