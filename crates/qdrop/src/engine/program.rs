//! A region of a graph as a device-neutral program of one sample: plain data, compiled once, run many times.

pub use super::fact::{around, transposed};

use super::facts::Facts;
use crate::error::Result;
use crate::graph::{Graph, NodeId, Op, ValueId};
use crate::tensor::{DType, Tensor};
use serde::{Serialize, Serializer};
use std::collections::BTreeMap;
use std::ops::Deref;
use std::sync::Arc;

/// A value of the program.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Slot {
    /// Element type the values stand for.
    pub dtype: DType,
    /// Dimensions, leading batch dimension 1.
    pub shape: Vec<usize>,
    /// Content when constant.
    pub constant: Option<Constant>,
    /// Whether a gradient must reach it: a learned weight or site lies before it.
    pub learned: bool,
    /// The axis that holds channels, or features: what losses sum over.
    pub channel_axis: usize,
}

/// The numbers of a constant slot. Programs and the graph share them where the graph has float32.
#[derive(Debug, Clone, PartialEq)]
pub struct Constant(Arc<Tensor>);

impl Constant {
    /// The content of `tensor`; an error where its type cannot be computed with.
    pub fn new(tensor: &Arc<Tensor>) -> Result<Self> {
        Ok(Constant(match tensor.as_f32() {
            Some(_) => tensor.clone(),
            None => Arc::new(Tensor::f32(tensor.shape(), tensor.to_f32()?)),
        }))
    }
}

impl Deref for Constant {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        self.0.as_f32().unwrap_or_default()
    }
}

impl Serialize for Constant {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        (**self).serialize(serializer)
    }
}

impl Slot {
    /// Elements of one sample.
    pub fn numel(&self) -> usize {
        self.shape.iter().product()
    }

    /// Elements in front of the channel axis, along it, and behind.
    pub fn around_channels(&self) -> [usize; 3] {
        around(&self.shape, self.channel_axis)
    }

    /// Elements that a mean over everything but the channel axis averages.
    pub fn positions(&self) -> usize {
        let [outer, _, inner] = self.around_channels();
        (outer * inner).max(1)
    }
}

/// Index into [`Program::sites`], and into the sites of the region that the program was compiled from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(transparent)]
pub struct ProgramSite(pub usize);

/// One step of the forward pass; the backward pass takes the steps in reverse.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub enum Step {
    /// An operator.
    Node {
        /// The operator.
        op: Op,
        /// Slots it reads.
        operands: Vec<Option<usize>>,
        /// Slots it writes.
        results: Vec<Option<usize>>,
        /// How errors name it.
        place: String,
    },
    /// An activation quantizer: slot `y` is slot `x`, fake-quantized and dropped.
    Site {
        /// The quantizer.
        site: ProgramSite,
        /// Slot read.
        x: usize,
        /// Slot written.
        y: usize,
    },
}

/// Operands that see a quantized value: node and position; `None`: all.
pub type Readers = Option<Vec<(NodeId, usize)>>;

/// What to compile: nodes in topological order, what enters and leaves, what is learned, where quantizers sit.
#[derive(Debug, Clone, Default)]
pub struct Region {
    /// Nodes in topological order.
    pub nodes: Vec<NodeId>,
    /// Values fed.
    pub inputs: Vec<ValueId>,
    /// Values handed out.
    pub outputs: Vec<ValueId>,
    /// Weights fed at every run instead of their constant content.
    pub weights: Vec<ValueId>,
    /// Quantized values with the readers that see the quantized form (`None`: all, and the region's outputs).
    pub sites: Vec<(ValueId, Readers)>,
}

/// A compiled [`Region`].
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Program {
    /// Values.
    pub slots: Vec<Slot>,
    /// Forward steps.
    pub steps: Vec<Step>,
    /// Slots fed, in the region's order.
    pub inputs: Vec<usize>,
    /// Slots handed out, in the region's order.
    pub outputs: Vec<usize>,
    /// Slots of the weights, in the region's order.
    pub weights: Vec<usize>,
    /// Slot each site reads, in the region's order.
    pub sites: Vec<usize>,
}

impl Program {
    /// Every site with the slot it reads.
    pub fn site_slots(&self) -> impl Iterator<Item = (ProgramSite, usize)> {
        (0..).map(ProgramSite).zip(self.sites.iter().copied())
    }

    /// Whether all samples have one content in `slot`: a constant or a weight.
    pub fn shared(&self, slot: usize) -> bool {
        self.slots[slot].constant.is_some() || self.weights.contains(&slot)
    }

    /// How often each slot is read, by steps and as an output.
    pub fn readers(&self) -> Vec<usize> {
        let mut readers = vec![0; self.slots.len()];
        for step in &self.steps {
            match step {
                Step::Node { operands, .. } => operands.iter().flatten().for_each(|&s| readers[s] += 1),
                Step::Site { x, .. } => readers[*x] += 1,
            }
        }
        self.outputs.iter().for_each(|&s| readers[s] += 1);
        readers
    }
}

/// Compiles `region` with the facts of its graph at batch 1.
pub fn compile(graph: &Graph, facts: &Facts, region: &Region) -> Result<Program> {
    let mut sites = BTreeMap::new();
    (0..).map(ProgramSite).zip(&region.sites).for_each(|(site, of)| {
        sites.entry(of.0).or_insert(site);
    });
    let (map, seen) = (BTreeMap::new(), BTreeMap::new());
    let mut b = Builder { graph, facts, region, sites, map, seen, program: Program::default() };
    for &w in &region.weights {
        let slot = b.slot(w, true)?;
        b.program.slots[slot].constant = None;
        b.program.weights.push(slot);
    }
    b.program.sites = vec![usize::MAX; region.sites.len()];
    for &v in &region.inputs {
        let slot = b.slot(v, false)?;
        // What is fed counts, also where the content is known at this size.
        b.program.slots[slot].constant = None;
        b.program.inputs.push(slot);
        b.quantize(v, slot)?;
    }
    for &id in &region.nodes {
        b.node(id)?;
    }
    for &v in &region.outputs {
        let whole = b.seen.get(&v).copied().filter(|&(site, _)| region.sites[site.0].1.is_none());
        let slot = match whole {
            Some((_, y)) => y,
            None => b.slot(v, false)?,
        };
        b.program.outputs.push(slot);
    }
    Ok(b.program)
}

struct Builder<'a> {
    graph: &'a Graph,
    facts: &'a Facts,
    region: &'a Region,
    /// Site of each quantized value.
    sites: BTreeMap<ValueId, ProgramSite>,
    /// Slot of each value before quantization.
    map: BTreeMap<ValueId, usize>,
    /// Site and quantized slot of each value that has one.
    seen: BTreeMap<ValueId, (ProgramSite, usize)>,
    program: Program,
}

impl Builder<'_> {
    fn slot(&mut self, v: ValueId, learned: bool) -> Result<usize> {
        if let Some(&slot) = self.map.get(&v) {
            return Ok(slot);
        }
        let fact = self.facts.require(self.graph, v)?;
        let constant = fact.constant.as_ref().map(Constant::new).transpose()?;
        self.program.slots.push(Slot {
            dtype: fact.dtype,
            shape: fact.shape.clone(),
            constant,
            learned,
            channel_axis: fact.channel_axis,
        });
        let slot = self.program.slots.len() - 1;
        self.map.insert(v, slot);
        Ok(slot)
    }

    fn quantize(&mut self, v: ValueId, x: usize) -> Result<()> {
        let Some(&site) = self.sites.get(&v) else { return Ok(()) };
        let mut slot = self.program.slots[x].clone();
        slot.learned = true;
        self.program.slots.push(slot);
        let y = self.program.slots.len() - 1;
        self.program.sites[site.0] = x;
        self.program.steps.push(Step::Site { site, x, y });
        self.seen.insert(v, (site, y));
        Ok(())
    }

    fn node(&mut self, id: NodeId) -> Result<()> {
        let node = self.graph.node(id);
        // What only a constant is made of is not read: an integer weight would become numbers beside its real values.
        let folded = node.outputs.iter().flatten().all(|v| match self.map.get(v) {
            Some(&slot) => self.program.slots[slot].constant.is_some(),
            None => self.facts.get(*v).is_some_and(|f| f.constant.is_some()),
        });
        let mut operands = Vec::with_capacity(node.inputs.len());
        for (i, v) in node.inputs.iter().enumerate() {
            let slot = match *v {
                None => None,
                Some(v) if folded && !self.map.contains_key(&v) => None,
                Some(v) => {
                    let plain = self.slot(v, false)?;
                    let quantized = self.seen.get(&v).filter(|&&(site, _)| {
                        self.region.sites[site.0].1.as_ref().is_none_or(|readers| readers.contains(&(id, i)))
                    });
                    Some(quantized.map_or(plain, |&(_, y)| y))
                }
            };
            operands.push(slot);
        }
        let learned = operands.iter().flatten().any(|&s| self.program.slots[s].learned);
        let mut results = Vec::with_capacity(node.outputs.len());
        for v in &node.outputs {
            results.push(v.map(|v| self.slot(v, learned)).transpose()?);
        }
        let constant = results.iter().flatten().all(|&s| self.program.slots[s].constant.is_some());
        if !constant {
            let (op, place) = (node.op.clone(), self.graph.describe(id));
            self.program.steps.push(Step::Node { op, operands, results: results.clone(), place });
        }
        for (v, slot) in node.outputs.iter().zip(results) {
            if let (Some(v), Some(slot)) = (*v, slot) {
                self.quantize(v, slot)?;
            }
        }
        Ok(())
    }
}
