//! Activations that attention multiplies with each other, which have one vector of factors in pairs.
//!
//! - Queries and keys: their product sums over the channels of a head, so it stays the same where those of queries are
//!   divided and those of keys are multiplied by the same factors. The layer that makes the one divides, that of the
//!   other multiplies.
//! - Values and context: the product of shares with values has the channels of the values, and so has what reads it. The
//!   layer that makes values divides, the one that reads the context multiplies. As in residual groups one vector serves
//!   several activations, so the weights of that layer need 8 bits: with 4 MiniLM lost by it, rounded to nearest.
//!
//! Nothing is added to the network. In between elements are only moved or scaled by a number, and nothing else reads them:
//! rotary positions mix channels, and heads that are repeated for several queries are not followed. Where one layer makes
//! queries, keys and values, one quantizer mostly serves all three, and there are no factors either.

use super::SiteId;
use super::factors::{Carrier, FactorSite, MOST_NODES, Member, Pair, Reader, Search};
use super::held::Held;
use super::view::Role;
use crate::graph::{NodeId, Op, ValueId};
use std::collections::BTreeSet;

/// An activation on its way through nodes that only move or scale its elements.
struct Way {
    /// The values, in order, and where each holds the channels.
    values: Vec<(ValueId, Held)>,
    /// The layer or product at the end, and which of its operands it is.
    end: (NodeId, usize),
}

/// An operand of a product, from the layer that makes it.
struct Operand {
    way: Way,
    channels: usize,
    /// Weight and bias of the layer, each with the axis of the output channels.
    constants: Vec<(ValueId, usize)>,
    /// Values between the layer and the way.
    before: BTreeSet<ValueId>,
}

impl Way {
    /// Where the channels are at the end.
    fn held(&self) -> Option<&Held> {
        self.values.last().map(|(_, held)| held)
    }

    fn values(&self) -> impl Iterator<Item = ValueId> {
        self.values.iter().map(|&(v, _)| v)
    }
}

impl Operand {
    fn values(&self) -> impl Iterator<Item = ValueId> {
        self.before.iter().copied().chain(self.way.values())
    }
}

impl Search<'_> {
    /// The site of the two activations that a product of attention joins, where that of `id` is one of its operands.
    pub(super) fn attention(&self, id: SiteId) -> Option<FactorSite> {
        let operand = self.operand(self.plan.site(id).value)?;
        let (product, index) = operand.way.end;
        let node = self.view.graph.node(product);
        if self.view.role(product) != Role::Product || node.op != Op::MatMul {
            return None;
        }
        let rank = self.rank(node.input(index)?)?;
        let (last, batch) = operand.way.held()?.axes.split_last()?;
        let alike = node.inputs.iter().flatten().all(|&v| self.rank(v) == Some(rank));
        if !alike || batch.iter().any(|a| a + 2 >= rank) {
            return None;
        }
        match (index, rank - last) {
            (0, 1) | (1, 2) => self.queries_and_keys(product),
            (1, 1) => self.values_and_context(product, operand),
            _ => None,
        }
    }

    /// Both operands of a product that sums over their channels.
    fn queries_and_keys(&self, product: NodeId) -> Option<FactorSite> {
        let node = self.view.graph.node(product);
        let [queries, keys] = [self.operand(node.input(0)?)?, self.operand(node.input(1)?)?];
        if queries.way.end != (product, 0) || keys.way.end != (product, 1) {
            return None;
        }
        let (mine, theirs) = (queries.way.held()?, keys.way.held()?);
        let batch = |held: &Held| held.axes[..held.axes.len() - 1].to_vec();
        let summed = [mine, theirs].map(|h| h.axes.last().copied());
        let rank = self.rank(node.input(0)?)?;
        let meet = batch(mine) == batch(theirs) && mine.channels == theirs.channels;
        if !meet || summed != [Some(rank - 1), Some(rank - 2)] {
            return None;
        }
        let channels = queries.channels;
        let members = vec![self.member(&queries.way, Vec::new())?, self.member(&keys.way, Vec::new())?];
        let divided = queries.values().chain(keys.values()).collect();
        let pair = Some(Pair::Sums { multiplied: keys.constants });
        let carrier = Carrier::Layer { constants: queries.constants, cap: None };
        Some(FactorSite { members, channels, carrier, pair, operands: Vec::new(), before: None, divided })
    }

    /// The right operand of a product that keeps its channels, and the result.
    fn values_and_context(&self, product: NodeId, values: Operand) -> Option<FactorSite> {
        let node = self.view.graph.node(product);
        let (result, held) = (self.view.single_output(node)?, values.way.held()?);
        let shape = |v: ValueId| self.view.facts.get(v).map(|f| &f.shape);
        let (from, to) = (shape(node.input(1)?)?, shape(result)?);
        if from.len() != to.len() || held.axes.iter().any(|&a| from[a] != to[a]) {
            return None;
        }
        let context = self.way(result, held.clone())?;
        let reader = self.reader(context.end.0, context.end.1, context.held()?).filter(|r| self.takes_shared(r))?;
        let channels = values.channels;
        let divided = values.values().chain(context.values()).collect();
        let members = vec![self.member(&values.way, Vec::new())?, self.member(&context, vec![reader])?];
        let carrier = Carrier::Layer { constants: values.constants, cap: None };
        let pair = Some(Pair::Keeps);
        Some(FactorSite { members, channels, carrier, pair, operands: Vec::new(), before: None, divided })
    }

    /// What `value` is a part of, from the layer that makes it to the next layer or product.
    fn operand(&self, value: ValueId) -> Option<Operand> {
        let view = self.view;
        let mut at = value;
        for _ in 0..MOST_NODES {
            let id = view.producers[at.0 as usize]?;
            let op = &view.graph.node(id).op;
            if !(matches!(op, Op::Transpose { .. }) || op.reshapes() || view.scales(id)) {
                break;
            }
            at = view.operands(id).next()?;
        }
        let fact = view.facts.get(at)?;
        let channels = *fact.shape.get(fact.channel_axis).filter(|&&c| c > 1)?;
        let (Carrier::Layer { constants, cap: None }, before) = self.carrier(at, fact.channel_axis).ok()? else {
            return None;
        };
        let way = self.way(at, Held::along(fact.channel_axis, channels))?;
        Some(Operand { way, channels, constants, before })
    }

    /// The way of `value`, which holds channels as `held` says, to the layer or product that alone reads it.
    fn way(&self, value: ValueId, held: Held) -> Option<Way> {
        let view = self.view;
        let (mut value, mut held) = (value, held);
        let mut values = Vec::new();
        for _ in 0..MOST_NODES {
            let id = view.only_reader(value).filter(|id| view.active[id.0 as usize])?;
            let index = view.consumers[value.0 as usize].first()?.1;
            values.push((value, held.clone()));
            if matches!(view.role(id), Role::Layer | Role::Product) {
                return Some(Way { values, end: (id, index) });
            }
            let moved = self.moved(id, index, &held)?;
            [(value, held)] = moved.try_into().ok()?;
        }
        None
    }

    /// The only quantized activation on a way.
    fn member(&self, way: &Way, readers: Vec<Reader>) -> Option<Member> {
        let at = |id: SiteId| way.values.iter().find(|(v, _)| *v == self.plan.site(id).value).map(|found| (id, found));
        let mut sites = self.plan.site_ids().filter_map(at);
        let (site, (value, held)) = sites.next()?;
        let alone = sites.next().is_none() && held.in_order();
        alone.then(|| Member { site, value: *value, axes: held.axes.clone(), readers })
    }

    fn rank(&self, value: ValueId) -> Option<usize> {
        self.view.facts.get(value).map(|f| f.shape.len())
    }
}
