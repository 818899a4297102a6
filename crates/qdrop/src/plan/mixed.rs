//! Mixed precision: chooses the bits of each layer so that the error of the network's outputs is smallest within a
//! target.
//!
//! Bits are chosen for weights that follow the recipe's `weights.bits` and, with a target for bit operations, for
//! activations that follow `activations.bits`; also for first and last layers and embedding tables, unless the recipe
//! keeps them at their own bits. Everything else, such as a layer with an override, counts with its own bits. Values
//! that one layer or product multiplies get the same bits, as integer kernels require: values that are joined before a
//! layer, the two factors of attention's products, and values that are read with one weight. The errors of all choices
//! add up; see `knapsack` for how the smallest sum is found.

use super::cost::{Factor, Work};
use super::knapsack::{self, Choice, add, undominated};
use super::layers::names_any;
use super::names::names_of;
use super::view::View;
use super::{
    BitopsTarget, ByteSize, Cost, Curve, Layer, LayerId, Mixed, Override, Plan, Recipe, Sensitivity, SiteId, SizeTarget,
};
use crate::engine::facts::Facts;
use crate::error::{Error, Result};
use crate::graph::{Graph, NodeId};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Most that an error counts, so that sums stay finite.
const MOST: f64 = 1e30;

/// The measurements that are needed before bits can be chosen: numbers of bits per layer and site of the plan.
#[derive(Debug, Clone, PartialEq)]
pub struct Measure {
    /// Per layer of the plan.
    pub layers: Vec<Vec<u32>>,
    /// Per site of the plan.
    pub sites: Vec<Vec<u32>>,
}

/// A choice of bits.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Chosen {
    /// The cost of the choice.
    pub cost: Cost,
    /// Maximum size of the weights, in bytes; `None` without a target for it.
    pub most_weight_bytes: Option<u64>,
    /// Maximum number of bit operations; `None` without a target for it.
    pub most_bit_operations: Option<u64>,
    /// Sum of the measured errors of all layers and activations, each alone with its bits.
    pub predicted_error: f64,
    /// The choice as overrides for a recipe, one for each layer and activation whose bits were chosen.
    pub exceptions: Vec<Override>,
}

/// What must be measured of `graph` before bits can be chosen as `recipe` asks: the candidates where there is a choice,
/// else the bits that are given.
pub fn measure(graph: &Graph, facts: &Facts, recipe: &Recipe) -> Result<Measure> {
    let mixing = Mixing::new(graph, facts, recipe)?;
    let bits = |open: &bool, given: u32| if *open { recipe.mixed.bits() } else { vec![given] };
    let layers = mixing.layers.iter().zip(&mixing.plan.layers).map(|(open, l)| bits(open, l.grid.bits));
    let sites = mixing.sites.iter().zip(&mixing.plan.sites).map(|(open, s)| bits(open, s.grid.bits));
    Ok(Measure { layers: layers.collect(), sites: sites.collect() })
}

/// Chooses bits for `graph` as `recipe` asks, by what was measured about it. What no output depends on keeps the
/// recipe's bits. An error when `measured` is of another network, a share, or lacks candidates.
pub fn choose(graph: &Graph, facts: &Facts, recipe: &Recipe, measured: &Sensitivity) -> Result<Chosen> {
    measured.require_whole()?;
    let mut mixing = Mixing::new(graph, facts, recipe)?;
    mixing.check()?;
    mixing.check_activations()?;
    let names = mixing.addresses()?;
    let limits = mixing.limits();
    let layers = curves(&mixing.plan.layers, &measured.layers, "layer", |l| [&l.name, &graph.value(l.weight).name])?;
    let sites = curves(&mixing.plan.sites, &measured.activations, "activation", |s| [&s.name, &s.name])?;
    keep_unmeasured(&mut mixing.layers, &layers, recipe)?;
    keep_unmeasured(&mut mixing.sites, &sites, recipe)?;
    let plan = mixing.solve(limits, &layers, &sites)?;

    let of_layer = |l: LayerId| {
        let (layer, weight_bits) = (names[l.index()].clone(), Some(plan.layer(l).grid.bits));
        mixing.is_open(&Member::Layer(l)).then_some(Override { layer, weight_bits, ..Override::default() })
    };
    let mut exceptions: Vec<Override> = plan.layer_ids().filter_map(of_layer).collect();
    for s in plan.site_ids().filter(|&s| mixing.is_open(&Member::Site(s))) {
        exceptions.push(mixing.activation(s, plan.site(s).grid.bits)?);
    }
    let weights = layers.iter().zip(&plan.layers).map(|(curve, l)| error(curve, l.grid.bits));
    let activations = sites.iter().zip(&plan.sites).map(|(curve, s)| error(curve, s.grid.bits));
    Ok(Chosen {
        cost: super::cost(graph, facts, &plan),
        most_weight_bytes: limits[0].map(|bits| bits / 8),
        most_bit_operations: limits[1],
        predicted_error: weights.chain(activations).sum(),
        exceptions,
    })
}

/// The error of `bits`; 0 where it was not measured.
fn error(curve: &Curve, bits: u32) -> f64 {
    curve.error(bits).unwrap_or(0.0).min(MOST)
}

/// Takes the choice from what no output depends on; an error where a candidate was not measured.
fn keep_unmeasured(open: &mut [bool], curves: &[&Curve], recipe: &Recipe) -> Result<()> {
    let candidates = recipe.mixed.bits();
    for (open, curve) in open.iter_mut().zip(curves).filter(|(open, _)| **open) {
        *open = !curve.errors.is_empty();
        if let Some(bits) = candidates.iter().find(|&&bits| *open && curve.error(bits).is_none()) {
            let error = Error::data(format!("expected the error with {bits} bits, which was not measured"));
            return Err(error
                .at(format!("sensitivity of `{}`", curve.name))
                .hint("measure with the same --candidates"));
        }
    }
    Ok(())
}

/// Refuses targets that cannot be reached.
pub(super) fn check(graph: &Graph, facts: &Facts, recipe: &Recipe) -> Result<()> {
    let mixing = Mixing::new(graph, facts, recipe)?;
    mixing.check()?;
    mixing.check_activations()?;
    mixing.addresses().map(drop)
}

/// `recipe` with those of the `noisy` sites of `plan` left float whose bits it does not name itself, and without a limit of
/// noise, so that it repeats the run; and these sites. `graph` and `facts` are those of the plan.
pub(crate) fn leave_float(
    graph: &Graph,
    facts: &Facts,
    recipe: &Recipe,
    plan: &Plan,
    noisy: &[SiteId],
) -> Result<(Recipe, Vec<SiteId>)> {
    let exception = |&s: &SiteId| Some((s, Override::of_activation(plan.site(s), 32, &plan.sites)?));
    let mut exceptions: Vec<(SiteId, Override)> = noisy.iter().filter_map(exception).collect();
    let mut with = recipe.clone();
    with.activations.noise_limit = Some(0.0);
    // Later exceptions win: in front of the recipe's own, these are for what it does not name.
    let own = std::mem::take(&mut with.overrides);
    with.overrides = exceptions.iter().map(|(_, o)| o.clone()).chain(own.iter().cloned()).collect();
    let left = super::decide(graph, facts, &with)?;
    exceptions.retain(|(s, _)| left.sites.iter().all(|site| site.value != plan.site(*s).value));
    let (sites, exceptions): (Vec<SiteId>, Vec<Override>) = exceptions.into_iter().unzip();
    with.overrides = own.into_iter().chain(exceptions).collect();
    Ok((with, sites))
}

impl Recipe {
    /// The recipe with bits as `chosen`, and nothing left to choose.
    pub fn with(&self, chosen: &Chosen) -> Recipe {
        let mut recipe = Recipe { mixed: Mixed { size: None, bitops: None, ..self.mixed.clone() }, ..self.clone() };
        recipe.overrides.extend(chosen.exceptions.iter().cloned());
        recipe
    }
}

/// A layer or site of the plan; layers come first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Member {
    Layer(LayerId),
    Site(SiteId),
}

/// Layers and sites whose bits are chosen together.
#[derive(Debug, Default)]
struct Group {
    layers: Vec<LayerId>,
    /// They all get the same bits.
    sites: Vec<SiteId>,
    /// What they are factors of.
    products: Vec<usize>,
}

/// Bits of a group.
#[derive(Debug, Clone)]
struct Bits {
    choice: Choice,
    layers: Vec<u32>,
    sites: u32,
}

/// A choice to be made.
struct Mixing<'a> {
    view: View<'a>,
    recipe: &'a Recipe,
    /// With the recipe's bits everywhere.
    plan: Plan,
    work: Work,
    /// Layers and sites of the plan that have a choice.
    layers: Vec<bool>,
    sites: Vec<bool>,
    /// Those that follow the recipe's bits, so that targets of uniform bits speak of them.
    follow: [Vec<bool>; 2],
}

impl<'a> Mixing<'a> {
    fn new(graph: &'a Graph, facts: &'a Facts, recipe: &'a Recipe) -> Result<Self> {
        let base = Recipe { mixed: Mixed::default(), ..recipe.clone() };
        let plan = super::plan(graph, facts, &base)?;
        let follow = moving(graph, facts, &base, false)?;
        let [layers, mut sites] = moving(graph, facts, &base, recipe.mixed.first_last)?;
        if recipe.mixed.bitops.is_none() {
            sites.fill(false);
        }
        let view = View::new(graph, facts).0;
        Ok(Mixing { work: Work::new(&view, &plan), view, recipe, plan, layers, sites, follow })
    }

    /// Bits of layer `l` when those that have a choice get `bits`.
    fn layer(&self, l: LayerId, bits: f64) -> f64 {
        if self.layers[l.index()] { bits } else { self.plan.layer(l).grid.bits.into() }
    }

    /// Bits of site `s` when those that have a choice get `bits`.
    fn site(&self, s: SiteId, bits: f64) -> f64 {
        if self.sites[s.index()] { bits } else { self.plan.site(s).grid.bits.into() }
    }

    /// Bits of all weights and bit operations when everything that has a choice gets `bits`.
    fn all(&self, bits: u32) -> [u64; 2] {
        let layer = |l| self.layer(l, bits.into());
        [self.work.size(layer) as u64, self.work.bitops(layer, |s| self.site(s, bits.into())) as u64]
    }

    /// Bits of all weights and bit operations with these bits in place of the recipe's.
    fn uniform(&self, weights: f64, activations: f64) -> [u64; 2] {
        let [layers, sites] = &self.follow;
        let layer = |l: LayerId| if layers[l.index()] { weights } else { self.plan.layer(l).grid.bits.into() };
        let site = |s: SiteId| if sites[s.index()] { activations } else { self.plan.site(s).grid.bits.into() };
        [self.work.size(layer) as u64, self.work.bitops(layer, site) as u64]
    }

    /// What the targets allow, of bits of all weights and of bit operations.
    fn limits(&self) -> [Option<u64>; 2] {
        let size = self.recipe.mixed.size.map(|target| match target {
            SizeTarget::Bytes(ByteSize(bytes)) => bytes.saturating_mul(8),
            SizeTarget::Bits(bits) => self.uniform(bits, 0.0)[0],
        });
        let bitops = self.recipe.mixed.bitops.map(|target| match target {
            BitopsTarget::Count(count) => count,
            BitopsTarget::Bits(weights, activations) => self.uniform(weights, activations)[1],
        });
        [size, bitops]
    }

    /// That the fewest bits reach the targets.
    fn check(&self) -> Result<()> {
        if !self.layers.iter().chain(&self.sites).any(|&open| open) {
            return Err(Error::recipe("mixed: no layer has a choice of bits")
                .hint("all layers have fixed bits, from [[override]] or as first and last layers"));
        }
        let fewest = self.recipe.mixed.bits().first().copied().unwrap_or(2);
        let least = self.all(fewest);
        let [size, bitops] = self.limits();
        let why = format!("with {fewest} bits wherever there is a choice");
        let hint = "raise the target, or allow fewer bits in `candidates` or for layers with bits of their own";
        if let Some(size) = size.filter(|&s| s < least[0]) {
            let (least, size) = (ByteSize(least[0].div_ceil(8)), ByteSize(size / 8));
            return Err(Error::recipe(format!("mixed.size: expected at least {least}, {why}, got {size}")).hint(hint));
        }
        if let Some(bitops) = bitops.filter(|&b| b < least[1]) {
            let least = least[1];
            return Err(
                Error::recipe(format!("mixed.bitops: expected at least {least}, {why}, got {bitops}")).hint(hint)
            );
        }
        Ok(())
    }

    /// A name for each layer that no other one answers to, so that an exception can name it; empty where there is no
    /// choice.
    fn addresses(&self) -> Result<Vec<String>> {
        let view = &self.view;
        let carries = |id: &NodeId| view.weight(*id).is_some() || view.table(*id).is_some();
        let carriers: Vec<NodeId> = view.graph.node_ids().filter(carries).collect();
        let address = |(layer, open): (&Layer, &bool)| {
            let alone = |name: &&str| {
                let named = Override { layer: name.to_string(), ..Override::default() };
                !name.is_empty()
                    && carriers.iter().all(|&id| layer.nodes.contains(&id) || !names_any(view, &named, &[id]))
            };
            match layer.nodes.iter().flat_map(|&id| names_of(view, id)).find(alone) {
                _ if !open => Ok(String::new()),
                Some(name) => Ok(name.to_string()),
                None => Err(unnamed("layer", &layer.name)),
            }
        };
        self.plan.layers.iter().zip(&self.layers).map(address).collect()
    }

    /// That every activation with a choice has a name by which an exception can name it alone.
    fn check_activations(&self) -> Result<()> {
        self.plan
            .site_ids()
            .filter(|&s| self.is_open(&Member::Site(s)))
            .try_for_each(|s| self.activation(s, 0).map(drop))
    }

    /// The exception that gives activation `s` these `bits`.
    fn activation(&self, s: SiteId, bits: u32) -> Result<Override> {
        let (site, sites) = (self.plan.site(s), &self.plan.sites);
        Override::of_activation(site, bits, sites).ok_or_else(|| unnamed("activation", &site.name))
    }

    /// What those parts take that have no choice, of bits of all weights and of bit operations.
    fn given(&self) -> [u64; 2] {
        let layer = |l: LayerId| self.layer(l, 0.0);
        let closed = self.work.products.iter().filter(|p| !self.members(&p.factors).any(|_| true));
        let bitops: f64 = closed.map(|p| p.bitops(layer, |s| self.site(s, 0.0))).sum();
        [self.work.size(layer) as u64, bitops as u64]
    }

    /// The plan with the bits of least error within `limits`, by what was measured of its layers and sites.
    fn solve(&self, limits: [Option<u64>; 2], layers: &[&Curve], sites: &[&Curve]) -> Result<Plan> {
        let groups = self.groups();
        let of_layer = |l: LayerId, bits| error(layers[l.index()], bits);
        let of_site = |s: SiteId, bits| error(sites[s.index()], bits);
        let options: Vec<Vec<Bits>> = groups.iter().map(|g| self.options(g, of_layer, of_site)).collect();
        let choices: Vec<Vec<Choice>> = options.iter().map(|o| o.iter().map(|b| b.choice).collect()).collect();
        let given = self.given();
        let left = |i: usize| limits[i].map_or(Some(u64::MAX), |limit| limit.checked_sub(given[i]));
        let budgets = left(0).zip(left(1));
        let found = budgets.and_then(|(size, bitops)| knapsack::solve(&choices, [size, bitops]));
        let found = found.ok_or_else(|| {
            Error::recipe("mixed: the targets cannot be reached because of layers that no output depends on")
                .hint("raise a target, or give those layers fewer bits with [[override]]")
        })?;
        let mut plan = self.plan.clone();
        for ((group, options), found) in groups.iter().zip(&options).zip(found) {
            let Bits { layers, sites, .. } = &options[found];
            group.layers.iter().zip(layers).for_each(|(l, &bits)| plan.layers[l.index()].grid.bits = bits);
            group.sites.iter().for_each(|s| plan.sites[s.index()].grid.bits = *sites);
        }
        Ok(plan)
    }

    /// Whether `member` has a choice.
    fn is_open(&self, member: &Member) -> bool {
        match member {
            Member::Layer(l) => self.layers[l.index()],
            Member::Site(s) => self.sites[s.index()],
        }
    }

    /// Layers and sites with a choice among `factors`.
    fn members(&self, factors: &[Factor; 2]) -> impl Iterator<Item = Member> {
        let of = |factor: &Factor| match factor {
            Factor::Weight(l) => vec![Member::Layer(*l)],
            Factor::Sites(sites) => sites.iter().copied().map(Member::Site).collect(),
            Factor::Float => Vec::new(),
        };
        factors.iter().flat_map(of).filter(|m| self.is_open(m))
    }

    /// What is chosen together. Where activations have a choice, that is what meets in products; else it is every layer
    /// alone.
    fn groups(&self) -> Vec<Group> {
        let (layers, sites) = (self.plan.layer_ids().map(Member::Layer), self.plan.site_ids().map(Member::Site));
        let open: Vec<Member> = layers.chain(sites).filter(|m| self.is_open(m)).collect();
        let mut parents: BTreeMap<Member, Member> = open.iter().map(|&m| (m, m)).collect();
        fn root(parents: &BTreeMap<Member, Member>, mut m: Member) -> Member {
            while parents[&m] != m {
                m = parents[&m];
            }
            m
        }
        for product in &self.work.products {
            let members: Vec<Member> = self.members(&product.factors).collect();
            for pair in members.windows(2) {
                let (a, b) = (root(&parents, pair[0]), root(&parents, pair[1]));
                parents.insert(a.max(b), a.min(b));
            }
        }
        let mut groups: BTreeMap<Member, Group> = BTreeMap::new();
        for &member in &open {
            let group = groups.entry(root(&parents, member)).or_default();
            match member {
                Member::Layer(l) => group.layers.push(l),
                Member::Site(s) => group.sites.push(s),
            }
        }
        for (i, product) in self.work.products.iter().enumerate() {
            let group = self.members(&product.factors).next().and_then(|m| groups.get_mut(&root(&parents, m)));
            group.into_iter().for_each(|g| g.products.push(i));
        }
        groups.into_values().collect()
    }

    /// Bits that a group can have, without those that others beat in every respect; `layer_error` and `site_error` give
    /// the errors of layers and sites with some bits.
    fn options(
        &self,
        group: &Group,
        layer_error: impl Fn(LayerId, u32) -> f64,
        site_error: impl Fn(SiteId, u32) -> f64,
    ) -> Vec<Bits> {
        let candidates = self.recipe.mixed.bits();
        // What is not limited costs nothing.
        let (size, bitops) = (self.recipe.mixed.size.is_some(), self.recipe.mixed.bitops.is_some());
        let (size, bitops) = (u64::from(size), u64::from(bitops));
        let products = |layer: Option<LayerId>| {
            let of = move |p: &&super::cost::Product| {
                let weight = p.factors.iter().find_map(|f| match f {
                    Factor::Weight(l) if self.layers[l.index()] => Some(*l),
                    _ => None,
                });
                weight == layer
            };
            group.products.iter().map(|&i| &self.work.products[i]).filter(of)
        };
        let cost = |layer: Option<LayerId>, bits: u32, sites: u32| -> u64 {
            let of =
                |p: &super::cost::Product| p.bitops(|l| self.layer(l, bits.into()), |s| self.site(s, sites.into()));
            bitops * products(layer).map(of).sum::<f64>() as u64
        };
        let mut all = Vec::new();
        // Without sites in it their bits do not matter.
        for &sites in candidates.iter().take(if group.sites.is_empty() { 1 } else { candidates.len() }) {
            let error = group.sites.iter().map(|&s| site_error(s, sites)).sum();
            let choice = Choice { error, costs: [0, cost(None, 0, sites)] };
            let mut some = vec![Bits { choice, layers: Vec::new(), sites }];
            for &l in &group.layers {
                let extended = some.iter().flat_map(|before| candidates.iter().map(move |&bits| (before, bits)));
                let extended = extended.map(|(before, bits)| {
                    let costs = [size * self.work.elements[l.index()] * u64::from(bits), cost(Some(l), bits, sites)];
                    let error = before.choice.error + layer_error(l, bits);
                    let layers = before.layers.iter().copied().chain([bits]).collect();
                    Bits { choice: Choice { error, costs: add(before.choice.costs, costs) }, layers, sites }
                });
                some = undominated(extended.collect(), |b| b.choice);
            }
            all.extend(some);
        }
        undominated(all, |b| b.choice)
    }
}

/// Layers and sites whose bits follow those of `recipe`; with `special` also those of first and last layers and tables,
/// unless these stay float.
fn moving(graph: &Graph, facts: &Facts, recipe: &Recipe, special: bool) -> Result<[Vec<bool>; 2]> {
    let with = |bits: u32| {
        let mut recipe = recipe.clone();
        let last = recipe.activations.last();
        let (w, a) = (&mut recipe.weights, &mut recipe.activations);
        let last = a.last_bits.insert(last);
        let all = [&mut w.bits, &mut w.first_last_bits, &mut w.embedding_bits, &mut a.bits, last];
        let moved = [true, special, special, true, special];
        all.into_iter().zip(moved).filter(|(own, moved)| *moved && **own != 32).for_each(|(own, _)| *own = bits);
        super::decide(graph, facts, &recipe)
    };
    let (two, three) = (with(2)?, with(3)?);
    let layers = two.layers.iter().zip(&three.layers).map(|(a, b)| a.grid.bits != b.grid.bits);
    let sites = two.sites.iter().zip(&three.sites).map(|(a, b)| a.grid.bits != b.grid.bits);
    Ok([layers.collect(), sites.collect()])
}

fn unnamed(what: &str, name: &str) -> Error {
    let error = Error::unsupported(format!("another {what} has the same name, so it cannot be given bits of its own"));
    error.at(format!("{what} `{name}`")).hint("rename it in the model")
}

/// The curve of each of `items`, which have a name for people and that of their value.
fn curves<'c, 'i, T>(
    items: &'i [T],
    measured: &'c [Curve],
    what: &str,
    names: impl Fn(&'i T) -> [&'i str; 2],
) -> Result<Vec<&'c Curve>> {
    let by_value: BTreeMap<&str, &Curve> = measured.iter().map(|c| (c.value.as_str(), c)).collect();
    let one = |item: &'i T| {
        let [name, value] = names(item);
        let at = |e: Error| e.at(format!("{what} `{name}`"));
        let curve = *by_value.get(value).ok_or_else(|| {
            at(Error::data("its sensitivity was not measured")).hint("measure this model, with the same recipe")
        })?;
        match curve.errors.iter().find(|e| e.error.is_nan() || e.error < 0.0) {
            Some(e) => {
                Err(at(Error::data(format!("expected errors of 0 or more, got {} for {} bits", e.error, e.bits))))
            }
            None => Ok(curve),
        }
    };
    items.iter().map(one).collect()
}
