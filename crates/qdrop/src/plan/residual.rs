//! Activations that residual sums join, which have one vector of factors or none.
//!
//! A sum computes the same with factors if both operands and the result have the same ones. So they reach from sum to sum:
//! a residual group is a sum, everything it is joined with through sums and rectifiers, the layers that feed it, whose
//! weights and biases are divided, and the layers that read it, whose weights are multiplied. Nothing is added to the
//! network.
//!
//! One vector for so many activations suits none of them exactly and makes the weights of all readers uneven. With weights
//! of 8 bits that costs nothing; with 4 bits MobileNetV2 lost more by it than it gained, rounded and learned.

use super::SiteId;
use super::factors::{Carrier, End, FactorSite, MOST_NODES, Member, Reader, Search};
use super::held::Held;
use super::view::Role;
use crate::graph::{Binary, NodeId, Op, Unary, ValueId, Variadic};
use std::collections::{BTreeMap, BTreeSet};

/// What is known of a residual group while it is followed.
#[derive(Default)]
struct Group {
    values: BTreeSet<ValueId>,
    /// Values to look at.
    open: Vec<ValueId>,
    /// Weights and biases of the layers that feed it.
    constants: Vec<(ValueId, usize)>,
    readers: BTreeMap<ValueId, Vec<Reader>>,
    /// Values outside the group that hold its channels moved.
    moved: BTreeSet<ValueId>,
    sums: usize,
}

impl Search<'_> {
    /// The residual group that the activation of site `id` is part of, where all that feeds and reads it takes factors.
    pub(super) fn residual(&self, id: SiteId) -> Option<FactorSite> {
        let value = self.plan.site(id).value;
        let fact = self.view.facts.get(value)?;
        let (axis, shape) = (fact.channel_axis, &fact.shape);
        let channels = *shape.get(axis).filter(|&&c| c > 1)?;
        let own = Held::along(axis, channels);
        let mut group = Group { open: vec![value], ..Group::default() };
        while let Some(value) = group.open.pop() {
            let alike = self.view.facts.get(value).is_some_and(|f| f.shape == *shape && f.channel_axis == axis);
            if !alike || self.view.leaves[value.0 as usize] || group.values.len() > MOST_NODES {
                return None;
            }
            if group.values.insert(value) {
                self.feeds(&mut group, value, axis)?;
                self.reads(&mut group, value, &own)?;
            }
        }
        (group.sums > 0).then(|| self.joined(group, axis, channels)).flatten()
    }

    /// Adds what makes `value`; `None` where that takes no factors.
    fn feeds(&self, group: &mut Group, value: ValueId, axis: usize) -> Option<()> {
        let id = self.view.producers[value.0 as usize]?;
        if self.sums(id) {
            group.sums += 1;
            group.open.extend(self.view.graph.node(id).inputs.iter().flatten());
        } else if self.keeps(id) {
            group.open.extend(self.view.graph.node(id).input(0));
        } else {
            match self.carrier(value, axis).ok()? {
                (Carrier::Layer { constants, cap: None }, divided) => {
                    group.constants.extend(constants);
                    group.moved.extend(divided);
                }
                _ => return None,
            }
        }
        Some(())
    }

    /// Adds all that read `value`; `None` where something takes no factors.
    fn reads(&self, group: &mut Group, value: ValueId, own: &Held) -> Option<()> {
        for &(id, index) in &self.view.consumers[value.0 as usize] {
            if index != usize::MAX && (self.sums(id) || self.keeps(id)) {
                group.open.push(self.view.single_output(self.view.graph.node(id))?);
                continue;
            }
            match self.follow(id, index, own) {
                End::Layers(found, on_the_way) => {
                    group.readers.entry(value).or_default().extend(found);
                    group.moved.extend(on_the_way);
                }
                End::Other | End::Stop(_) => return None,
            }
        }
        Some(())
    }

    /// The site of a whole group, where layers read only what is quantized, each once.
    fn joined(&self, mut group: Group, axis: usize, channels: usize) -> Option<FactorSite> {
        let sites = self.plan.site_ids().filter(|&id| group.values.contains(&self.plan.site(id).value));
        let member = |site: SiteId| {
            let value = self.plan.site(site).value;
            Member { site, value, axes: vec![axis], readers: group.readers.remove(&value).unwrap_or_default() }
        };
        let members: Vec<Member> = sites.map(member).collect();
        let mut weights = BTreeSet::new();
        let once = members.iter().flat_map(|m| &m.readers).all(|r| weights.insert(r.weight));
        let fine = members.iter().flat_map(|m| &m.readers).all(|r| self.takes_shared(r));
        if !once || !fine || weights.is_empty() || !group.readers.is_empty() {
            return None;
        }
        let carrier = Carrier::Layer { constants: group.constants, cap: None };
        let divided = group.values.into_iter().chain(group.moved).collect();
        Some(FactorSite { members, channels, carrier, pair: None, operands: Vec::new(), before: None, divided })
    }

    /// Whether node `id` adds activations, and nothing else.
    fn sums(&self, id: NodeId) -> bool {
        let node = self.view.graph.node(id);
        let adds = matches!(node.op, Op::Binary(Binary::Add) | Op::Variadic(Variadic::Sum));
        let live = || node.inputs.iter().flatten().all(|&v| self.view.is_live(v));
        adds && self.view.active[id.0 as usize] && self.view.role(id) == Role::Junction && live()
    }

    /// Whether node `id` is a rectifier r with r(x·f) = r(x)·f for every f > 0.
    fn keeps(&self, id: NodeId) -> bool {
        let rectifies = matches!(self.view.graph.node(id).op, Op::Unary(Unary::Relu | Unary::LeakyRelu { .. }));
        rectifies && self.view.active[id.0 as usize]
    }
}
