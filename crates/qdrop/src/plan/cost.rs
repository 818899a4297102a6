//! The cost of a plan where it runs: size of the weights and number of bit operations.

use super::sites::hands_on;
use super::view::View;
use super::{LayerId, Plan, SiteId, multiply_adds};
use crate::engine::facts::Facts;
use crate::graph::{Graph, NodeId, ValueId};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// Bits of what is not quantized.
const FLOAT: u32 = 32;

/// The cost of quantized weights and activations.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cost {
    /// Size, in bytes, of the weights of all layers and embedding tables at their true bits (32 for those that stay
    /// float), without steps, zero points and biases.
    pub weight_bytes: u64,
    /// Number of bit operations: for all products of a sample, the sum of multiply-adds times the bits of both factors
    /// (Baskin et al., "UNIQ", 2018). Values that are not quantized, such as the network's input, count 32 bits.
    pub bit_operations: u64,
}

/// The cost of `plan`, which was made from `graph` with `facts` of one sample.
pub fn cost(graph: &Graph, facts: &Facts, plan: &Plan) -> Cost {
    let work = Work::new(&View::new(graph, facts).0, plan);
    let layer = |l: LayerId| f64::from(plan.layer(l).grid.bits);
    let site = |s: SiteId| f64::from(plan.site(s).grid.bits);
    Cost { weight_bytes: (work.size(layer) / 8.0).ceil() as u64, bit_operations: work.bitops(layer, site) as u64 }
}

/// One factor of a product.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Factor {
    /// The weight of this layer of the plan.
    Weight(LayerId),
    /// A value made of what these sites quantize; it is as wide as the widest.
    Sites(Vec<SiteId>),
    /// Not quantized.
    Float,
}

impl Factor {
    fn bits(&self, layer: impl Fn(LayerId) -> f64, site: impl Fn(SiteId) -> f64) -> f64 {
        match self {
            Factor::Weight(l) => layer(*l),
            Factor::Sites(sites) => sites.iter().map(|&s| site(s)).fold(0.0, f64::max),
            Factor::Float => FLOAT.into(),
        }
    }
}

/// A node that multiplies.
#[derive(Debug, Clone)]
pub(super) struct Product {
    /// Of one sample.
    pub multiply_adds: u64,
    pub factors: [Factor; 2],
}

impl Product {
    /// Bit operations, with the bits of layers and sites of the plan.
    pub fn bitops(&self, layer: impl Fn(LayerId) -> f64, site: impl Fn(SiteId) -> f64) -> f64 {
        let [a, b] = &self.factors;
        self.multiply_adds as f64 * a.bits(&layer, &site) * b.bits(&layer, &site)
    }
}

/// What a plan's cost depends on besides bits.
#[derive(Debug, Clone)]
pub(super) struct Work {
    /// In network order.
    pub products: Vec<Product>,
    /// Elements of each layer's weight, in the plan's order.
    pub elements: Vec<u64>,
    /// Elements of weights that stay float.
    pub float_elements: u64,
}

impl Work {
    pub fn new(view: &View, plan: &Plan) -> Self {
        let weights: BTreeSet<ValueId> = plan.layers.iter().map(|l| l.weight).collect();
        let active = || view.graph.node_ids().filter(|id| view.active[id.0 as usize]);
        let carried = active().filter_map(|id| view.weight(id).or_else(|| view.table(id)));
        let float: BTreeSet<ValueId> = carried.filter(|w| !weights.contains(w)).collect();
        let mut sites: BTreeMap<ValueId, Vec<SiteId>> = BTreeMap::new();
        plan.site_ids().for_each(|s| sites.entry(plan.site(s).value).or_default().push(s));
        let product = |node: NodeId| {
            let multiply_adds = multiply_adds(view, node);
            let factors = || [0, 1].map(|i| factor(view, plan, &sites, node, i));
            (multiply_adds > 0).then(|| Product { multiply_adds, factors: factors() })
        };
        Work {
            products: active().filter_map(product).collect(),
            elements: plan.layers.iter().map(|l| l.shape.iter().map(|&d| d as u64).product()).collect(),
            float_elements: float.iter().filter_map(|&v| view.graph.constant(v)).map(|t| t.len() as u64).sum(),
        }
    }

    /// Bits that all weights take, with the bits of each layer.
    pub fn size(&self, layer: impl Fn(LayerId) -> f64) -> f64 {
        let quantized: f64 = (0..).map(LayerId).zip(&self.elements).map(|(l, &n)| n as f64 * layer(l)).sum();
        quantized + self.float_elements as f64 * f64::from(FLOAT)
    }

    /// Bit operations of all products, with the bits of layers and sites.
    pub fn bitops(&self, layer: impl Fn(LayerId) -> f64, site: impl Fn(SiteId) -> f64) -> f64 {
        self.products.iter().map(|p| p.bitops(&layer, &site)).sum()
    }
}

/// What operand `i` of `node` is. `sites` are those of the plan by their values.
fn factor(view: &View, plan: &Plan, sites: &BTreeMap<ValueId, Vec<SiteId>>, node: NodeId, i: usize) -> Factor {
    let Some(value) = view.graph.node(node).input(i) else { return Factor::Float };
    if !view.is_live(value) {
        return plan.layer_ids().find(|&l| plan.layer(l).weight == value).map_or(Factor::Float, Factor::Weight);
    }
    // Back to the sites that quantize all elements.
    let (mut found, mut seen) = (BTreeSet::new(), BTreeSet::new());
    let mut open = vec![((node, i), value)];
    while let Some((reader, value)) = open.pop() {
        let seen_here = |&&s: &&SiteId| plan.site(s).readers.as_ref().is_none_or(|r| r.contains(&reader));
        if let Some(&site) = sites.get(&value).and_then(|of| of.iter().find(seen_here)) {
            found.insert(site);
            continue;
        }
        if !seen.insert(value) {
            continue;
        }
        let Some(id) = view.producers[value.0 as usize].filter(|&id| hands_on(view, id)) else { return Factor::Float };
        let operands = view.graph.node(id).inputs.iter().enumerate();
        let live = operands.filter_map(|(i, v)| Some((i, v.filter(|&v| view.is_live(v) && view.is_float(v))?)));
        open.extend(live.map(|(i, v)| ((id, i), v)));
    }
    if found.is_empty() { Factor::Float } else { Factor::Sites(found.into_iter().collect()) }
}
