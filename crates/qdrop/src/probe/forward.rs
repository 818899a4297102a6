//! The float network on a few samples, run forward once, from value to value.

use super::deviation::Deviation;
use super::padding::Padding;
use super::run::{self, Cache};
use crate::engine::device::{Device, Inference};
use crate::engine::facts::Facts;
use crate::engine::program::{Readers, Region, compile};
use crate::error::Result;
use crate::graph::{Graph, NodeId, ValueId};
use crate::quant::Grid;
use crate::report::Sink;
use crate::tensor::{RowStore, Rows};
use std::collections::BTreeSet;

/// One pass forward through the float network, with the values that later nodes read. Whatever runs it stops, between groups
/// of samples, when a sink asks to.
pub(crate) struct ForwardPass<'a> {
    graph: &'a Graph,
    facts: &'a Facts,
    device: &'a dyn Device,
    /// Where values are put.
    store: &'a RowStore,
    /// What the outputs depend on, in order.
    nodes: Vec<NodeId>,
    outputs: Vec<ValueId>,
    /// Nodes that have run.
    at: usize,
    values: Cache,
}

/// A compiled part of the network.
pub(crate) struct Part {
    ready: Box<dyn Inference>,
    inputs: Vec<ValueId>,
}

/// What a part does otherwise than the float network.
#[derive(Debug, Clone, Default)]
pub(crate) struct Change {
    /// Constants whose content is given at every run.
    pub weights: Vec<ValueId>,
    /// A value that is quantized, with the readers that see it so.
    pub site: Option<(ValueId, Readers)>,
}

impl Change {
    /// `value` is quantized for `readers`.
    pub fn site(value: ValueId, readers: Readers) -> Self {
        Change { site: Some((value, readers)), ..Change::default() }
    }

    /// `weights` have other contents.
    pub fn weights(weights: Vec<ValueId>) -> Self {
        Change { weights, ..Change::default() }
    }
}

impl<'a> ForwardPass<'a> {
    /// At the start of what the outputs of real numbers depend on, with the samples' `inputs`; values on the way are put on
    /// `store`.
    pub fn new(graph: &'a Graph, facts: &'a Facts, inputs: Cache, device: &'a dyn Device, store: &'a RowStore) -> Self {
        let Region { nodes, outputs, .. } = run::whole(graph, facts);
        ForwardPass { graph, facts, device, store, nodes, outputs, at: 0, values: inputs }
    }

    /// What comes with values that the outputs depend on, in the order in which the pass meets them.
    pub fn order<T>(&self, items: impl Iterator<Item = (ValueId, T)>) -> Vec<T> {
        let mut met: Vec<(usize, T)> = items.filter_map(|(v, item)| Some((self.until_known(v)?, item))).collect();
        met.sort_by_key(|m| m.0);
        met.into_iter().map(|m| m.1).collect()
    }

    /// Runs on until `value` is known; its values, where an output depends on it.
    pub fn until(&mut self, value: ValueId, sink: &dyn Sink) -> Result<Option<&Rows>> {
        if let Some(position) = self.until_known(value) {
            self.advance(position, sink)?;
        }
        Ok(self.values.get(&value))
    }

    /// Nodes to run in all.
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Nodes to run until one of `nodes` is next; none where no output depends on them.
    pub fn until_reader(&self, nodes: &[NodeId]) -> Option<usize> {
        self.nodes.iter().position(|id| nodes.contains(id))
    }

    /// Nodes to run until `value` is known; none where no output depends on it.
    pub fn until_known(&self, value: ValueId) -> Option<usize> {
        let computes = |&id: &NodeId| self.graph.node(id).outputs.contains(&Some(value));
        if self.values.contains_key(&value) { Some(0) } else { self.nodes.iter().position(computes).map(|i| i + 1) }
    }

    /// Runs on until `position` nodes are behind.
    pub fn advance(&mut self, position: usize, sink: &dyn Sink) -> Result<()> {
        if position > self.at {
            let after = self.read_after(position);
            let made =
                self.nodes[self.at..position].iter().flat_map(|&id| self.graph.node(id).outputs.iter().flatten());
            let made: Vec<ValueId> = made.copied().filter(|v| after.contains(v)).collect();
            let part = self.part(self.nodes[self.at..position].to_vec(), made.clone(), Change::default())?;
            let values = self.run(&part, sink)?;
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
    pub fn tail(&self, change: Change) -> Result<Part> {
        self.part(self.nodes[self.at..].to_vec(), self.outputs.clone(), change)
    }

    fn part(&self, nodes: Vec<NodeId>, outputs: Vec<ValueId>, change: Change) -> Result<Part> {
        let inputs: Vec<ValueId> = self.values.keys().copied().collect();
        let (weights, sites) = (change.weights, change.site.into_iter().collect());
        let region = Region { nodes, inputs: inputs.clone(), outputs, weights, sites };
        Ok(Part { ready: self.device.inference(&compile(self.graph, self.facts, &region)?)?, inputs })
    }

    /// What the network's outputs are when nothing is changed, from here on; NaN where they are `padding`.
    pub fn outputs(&self, padding: Option<&Padding>, sink: &dyn Sink) -> Result<Vec<Rows>> {
        let outputs = self.run(&self.tail(Change::default())?, sink)?;
        let Some(padding) = padding else { return Ok(outputs) };
        let blank = |(&v, rows)| padding.blank(v, &self.facts.require(self.graph, v)?.shape, rows);
        self.outputs.iter().zip(outputs).map(blank).collect()
    }

    /// The values of `value`, which is known here.
    pub fn value(&self, value: ValueId) -> Option<&Rows> {
        self.values.get(&value)
    }

    /// What `part`, which changes nothing, computes.
    fn run(&self, part: &Part, sink: &dyn Sink) -> Result<Vec<Rows>> {
        part.ready.run_while(&[], &[], &self.inputs(part), self.store, &mut || run::go_on(sink))
    }

    /// How far what `part`, a tail, computes is from `wanted`.
    pub fn deviation(
        &self,
        part: &Part,
        weights: &[&[f32]],
        grid: Option<&Grid>,
        wanted: &[Rows],
        sink: &dyn Sink,
    ) -> Result<Deviation> {
        let grids: Vec<Option<&Grid>> = grid.into_iter().map(Some).collect();
        let mut deviation = Deviation::new(wanted.len());
        let mut add = |first, outputs: &[Vec<f32>]| {
            deviation.add(first, outputs, wanted)?;
            run::go_on(sink)
        };
        part.ready.run_each(weights, &grids, &self.inputs(part), &mut add)?;
        Ok(deviation)
    }

    fn inputs(&self, part: &Part) -> Vec<Rows> {
        part.inputs.iter().map(|v| self.values[v].clone()).collect()
    }
}
