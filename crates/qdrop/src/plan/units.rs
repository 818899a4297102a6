//! Cutting the network into units.
//!
//! Units are taken one after another from what is left of the network, each with everything it needs that has not
//! run yet, so that they are convex and can run in the order found. In this order of preference:
//! a branching region from a value with several readers to the first step where two ways meet; a chain of layers;
//! a step alone. The first and the last layers stand alone. Steps without weight between units form units of their own.

use super::atoms::{Atom, Atoms, Done};
use super::layers::Layers;
use super::names::{CHAIN, Scopes, matches, names_of};
use super::view::{Role, View};
use super::{Granularity, Recipe};
use crate::error::{Error, Result};
use crate::graph::{Binary, NodeId, Op, ValueId};
use std::collections::BTreeSet;

/// Nodes of each unit, in the order of running, with the unit's name.
pub(super) fn units(view: &View, layers: &Layers, recipe: &Recipe) -> Result<Vec<(String, Vec<NodeId>)>> {
    let atoms = Atoms::new(view);
    let gates = gate_layers(view, &atoms, recipe.units.max_layers);
    let scopes = Scopes::new(view, &layers.nodes, |id| !gates.contains(&id));
    let cuts = cuts(view, &atoms, recipe)?;
    let cutter = Cutter { view, layers, atoms: &atoms, scopes: &scopes, gates: &gates, cuts, recipe };
    let pieces = cutter.run();
    let mut names = BTreeSet::new();
    Ok(pieces
        .into_iter()
        .map(|piece| {
            let mut nodes: Vec<NodeId> = piece.iter().flat_map(|&i| atoms.list[i].nodes.iter().copied()).collect();
            nodes.sort();
            let name = cutter.name(&nodes, &mut names);
            (name, nodes)
        })
        .collect())
}

/// Steps after which a unit must end.
fn cuts(view: &View, atoms: &Atoms, recipe: &Recipe) -> Result<BTreeSet<usize>> {
    let mut cuts = BTreeSet::new();
    for pattern in &recipe.units.cut_after {
        let hit = |atom: &Atom| atom.nodes.iter().any(|&id| names_of(view, id).any(|name| matches(pattern, name)));
        let before = cuts.len();
        let found: Vec<usize> = (0..atoms.list.len()).filter(|&i| hit(&atoms.list[i])).collect();
        cuts.extend(found.iter().copied());
        if found.is_empty() && before == cuts.len() {
            return Err(Error::recipe(format!("units.cut_after: no node matches `{pattern}`"))
                .hint("`qdrop plan` lists the layers' names"));
        }
    }
    Ok(cuts)
}

/// Layers inside gates (squeeze and excitation): they do not count towards the length of a chain.
fn gate_layers(view: &View, atoms: &Atoms, most: usize) -> BTreeSet<NodeId> {
    let mut layers = BTreeSet::new();
    for (i, atom) in atoms.list.iter().enumerate() {
        let Some(tail) = atom.tail else { continue };
        // Everything up to this step counts as done, so that a gate contains only what follows it.
        if let Some(gate) = gate(view, atoms, tail, Done::below(i + 1), most) {
            let inner = gate.into_iter().filter(|&g| atoms.list[g].role == Role::Layer);
            layers.extend(inner.map(|g| atoms.list[g].nodes[0]));
        }
    }
    layers
}

/// The steps from `value` to a product of `value` with a function of it, when they read nothing else.
fn gate(view: &View, atoms: &Atoms, value: ValueId, done: Done, most: usize) -> Option<BTreeSet<usize>> {
    let join = atoms.join(value, done, &BTreeSet::new())?;
    let atom = &atoms.list[join];
    let product = matches!(view.graph.node(atom.nodes[0]).op, Op::Binary(Binary::Mul));
    if !product || !atom.inputs.contains(&value) {
        return None;
    }
    let needed = atoms.needed(join, done);
    let inner: BTreeSet<ValueId> = needed.iter().filter_map(|&i| atoms.list[i].tail).collect();
    let closed = needed.iter().all(|&i| atoms.list[i].inputs.iter().all(|v| *v == value || inner.contains(v)));
    let layers = needed.iter().filter(|&&i| atoms.list[i].role == Role::Layer).count();
    (closed && layers <= most).then_some(needed)
}

struct Cutter<'a> {
    view: &'a View<'a>,
    layers: &'a Layers,
    atoms: &'a Atoms,
    scopes: &'a Scopes,
    /// Layers inside gates.
    gates: &'a BTreeSet<NodeId>,
    cuts: BTreeSet<usize>,
    recipe: &'a Recipe,
}

type Piece = BTreeSet<usize>;

impl Cutter<'_> {
    /// All units in order.
    fn run(&self) -> Vec<Piece> {
        let by_layer = self.recipe.resolved().granularity == Granularity::Layer;
        let mut done = Piece::new();
        let mut pieces: Vec<Piece> = Vec::new();
        for start in 0..self.atoms.list.len() {
            if done.contains(&start) {
                continue;
            }
            let mut piece = None;
            if !by_layer && !self.alone(start) {
                piece = self.region_at(start, Done::of(&done)).or_else(|| self.chain(start, Done::of(&done)));
            }
            let mut piece = piece.unwrap_or_else(|| Piece::from([start]));
            if !self.alone(start) {
                self.attach_junction(&mut piece, Done::of(&done));
            }
            done.extend(&piece);
            let empty = |p: &Piece| self.count(p) == 0;
            let ended = |p: &Piece| p.iter().any(|i| self.cuts.contains(i));
            match pieces.last_mut() {
                Some(last) if empty(&piece) && empty(last) && !ended(last) => last.extend(piece),
                _ => pieces.push(piece),
            }
        }
        self.join(pieces)
    }

    /// Joins as many blocks in a row as the recipe asks for.
    fn join(&self, pieces: Vec<Piece>) -> Vec<Piece> {
        let mut joined: Vec<(usize, Piece)> = Vec::new();
        for piece in pieces {
            let end = piece.last().copied().unwrap_or_default();
            if let Some((blocks, last)) = joined.last_mut() {
                let whole: Piece = last.union(&piece).copied().collect();
                let open = last.iter().all(|i| !self.cuts.contains(i)) && self.fits(&whole, end);
                if *blocks < self.recipe.units.blocks && open && self.count(last) > 0 && self.count(&piece) > 0 {
                    (*blocks, *last) = (*blocks + 1, whole);
                    continue;
                }
            }
            joined.push((1, piece));
        }
        joined.into_iter().map(|(_, piece)| piece).collect()
    }

    fn atom(&self, i: usize) -> &Atom {
        &self.atoms.list[i]
    }

    /// Whether step `i` holds a first or last layer, which is a unit of its own.
    fn alone(&self, i: usize) -> bool {
        let lead = self.atom(i).nodes[0];
        self.layers.first.contains(&lead) || self.layers.last.contains(&lead)
    }

    /// Whether step `i` holds a recurrent operator: nothing is learned through its many steps.
    fn recurrent(&self, i: usize) -> bool {
        self.atom(i).nodes.iter().any(|&id| matches!(self.view.graph.node(id).op, Op::Recurrent(_)))
    }

    /// Number of layers and products in `piece`.
    fn count(&self, piece: &Piece) -> usize {
        piece.iter().filter(|&&i| matches!(self.atom(i).role, Role::Layer | Role::Product)).count()
    }

    /// Whether `piece` can be one unit: small enough, without layers that stand alone, and without a forced boundary
    /// before its end.
    fn fits(&self, piece: &Piece, end: usize) -> bool {
        let layers = piece.iter().filter(|&&i| self.atom(i).role == Role::Layer).count();
        let tables = piece.iter().any(|&i| self.atom(i).role == Role::Table);
        let steps = piece.iter().any(|&i| self.recurrent(i));
        layers <= self.recipe.units.max_layers
            && !(tables && layers > 0)
            && !(steps && self.count(piece) > 0)
            && piece.iter().all(|&i| !self.alone(i) && (i == end || !self.cuts.contains(&i)))
    }

    /// The branching region that step `start` opens: from a value it reads to where the ways from there meet.
    fn region_at(&self, start: usize, done: Done) -> Option<Piece> {
        self.atom(start)
            .inputs
            .iter()
            .filter(|v| self.view.signal[v.0 as usize])
            .filter_map(|&v| self.region(v, done))
            .filter(|(piece, _)| piece.contains(&start))
            .map(|(piece, _)| piece)
            .max_by_key(|piece| piece.len())
    }

    /// The region from `value` to the first meeting of its ways, and the step where it ends.
    fn region(&self, value: ValueId, done: Done) -> Option<(Piece, usize)> {
        let mut end = self.atoms.join(value, done, &Piece::new())?;
        let mut piece = self.atoms.needed(end, done);
        if !self.fits(&piece, end) {
            return None;
        }
        // Where ways meet in a product (attention), what it makes meets the rest further on.
        while self.atom(end).role == Role::Product {
            let Some(next) = self.atoms.join(value, done, &piece) else { break };
            let wider = self.atoms.needed(next, done);
            if !self.fits(&wider, next) {
                break;
            }
            (piece, end) = (wider, next);
        }
        // A sum of sums is one meeting.
        while let Some(next) = self.next_junction(end, done) {
            let wider = self.atoms.needed(next, done);
            if wider.len() <= piece.len() + 1 || !self.fits(&wider, next) {
                break;
            }
            (piece, end) = (wider, next);
        }
        if self.bare(value, end) && self.main(&piece) > CHAIN {
            return None;
        }
        // Where tensors from elsewhere are joined (dense connections, long skips) the joining is not part of the block.
        let inner: BTreeSet<ValueId> = piece.iter().flat_map(|&i| self.atom(i).made.iter().copied()).collect();
        if self.atom(end).role == Role::Movement && !self.atom(end).inputs.iter().all(|v| inner.contains(v)) {
            piece.remove(&end);
            end = *piece.last()?;
        }
        Some((piece, end))
    }

    /// Whether step `end` joins tensors, among them `value` as it is or a slice of it (a skip of a U-Net, the half of
    /// the channels that passes a stage by): a long way round is no block.
    fn bare(&self, value: ValueId, end: usize) -> bool {
        let slice = |i: usize| matches!(self.view.graph.node(self.atom(i).nodes[0]).op, Op::Slice | Op::Split { .. });
        let from_value = |i: usize| slice(i) && self.atom(i).inputs == [value];
        let whole_or_slice = |v: &ValueId| {
            let made = |&i: &usize| self.atom(i).made.contains(v) && from_value(i);
            *v == value || self.atom(end).before.iter().any(made)
        };
        self.atom(end).role == Role::Movement && self.atom(end).inputs.iter().any(whole_or_slice)
    }

    /// Number of layers in `piece` outside gates.
    fn main(&self, piece: &Piece) -> usize {
        let counts = |a: &Atom| a.role == Role::Layer && !self.gates.contains(&a.nodes[0]);
        piece.iter().filter(|&&i| counts(self.atom(i))).count()
    }

    /// The junction that alone reads the result of step `i`.
    fn next_junction(&self, i: usize, done: Done) -> Option<usize> {
        let tail = self.atom(i).tail.filter(|v| !self.view.leaves[v.0 as usize])?;
        match self.atoms.open_readers(tail, done)[..] {
            [next] if self.atom(next).role == Role::Junction && self.atoms.readers[tail.0 as usize].len() == 1 => {
                Some(next)
            }
            _ => None,
        }
    }

    /// A chain of layers from `start` on.
    fn chain(&self, start: usize, done: Done) -> Option<Piece> {
        let first = self.atom(start);
        if first.role != Role::Layer && !(first.pointwise && first.role == Role::Other) {
            return None;
        }
        let mut piece = Piece::from([start]);
        let mut end = start;
        let mut layers = (first.role == Role::Layer) as usize;
        while let Some((more, last)) = self.extension(&piece, end, layers, done.and(&piece)) {
            layers += more.iter().filter(|&&i| self.atom(i).role == Role::Layer).count();
            piece.extend(more);
            end = last;
        }
        (layers > 0).then_some(piece)
    }

    /// What a chain that ends in step `end` takes in next, with its new end.
    fn extension(&self, piece: &Piece, end: usize, layers: usize, all: Done) -> Option<(Piece, usize)> {
        let tail = self.atom(end).tail.filter(|v| !self.view.leaves[v.0 as usize])?;
        if self.cuts.contains(&end) {
            return None;
        }
        let gate = if layers > 0 { gate(self.view, self.atoms, tail, all, CHAIN) } else { None };
        if let Some(gate) = gate {
            let last = *gate.last()?;
            return self.fits(&gate, last).then_some((gate, last));
        }
        let (more, last) = match self.atoms.open_readers(tail, all)[..] {
            [next] if !self.atom(next).splits() => self.forward(next, all)?,
            _ => self.region(tail, all)?,
        };
        let ready = more.iter().flat_map(|&i| &self.atom(i).before).all(|b| all.contains(b) || more.contains(b));
        let whole: Piece = piece.union(&more).copied().collect();
        (ready && self.fits(&whole, last) && self.belongs(piece, &more, end)).then_some((more, last))
    }

    /// Steps from `next` up to the layer that follows it without branching.
    fn forward(&self, next: usize, all: Done) -> Option<(Piece, usize)> {
        let mut piece = Piece::new();
        let mut step = next;
        loop {
            piece.insert(step);
            match self.atom(step).role {
                Role::Layer => return Some((piece, step)),
                Role::Movement | Role::Other => {}
                Role::Product | Role::Junction | Role::Table => return None,
            }
            let tail = self.atom(step).tail.filter(|v| !self.view.leaves[v.0 as usize])?;
            match self.atoms.open_readers(tail, all)[..] {
                [reader] if !self.cuts.contains(&step) => step = reader,
                _ => return None,
            }
        }
    }

    /// Whether `more` continues the chain `piece` that ends in step `end`: by module names where they mark blocks,
    /// else up to three layers, ending at a linear layer, at pooling and at branches.
    fn belongs(&self, piece: &Piece, more: &Piece, end: usize) -> bool {
        let layers = |p: &Piece| -> Vec<NodeId> {
            p.iter().filter(|&&i| self.atom(i).role == Role::Layer).map(|&i| self.atom(i).nodes[0]).collect()
        };
        let (mine, theirs) = (layers(piece), layers(more));
        if mine.is_empty() {
            let direct = |&i: &usize| matches!(self.atom(i).role, Role::Layer | Role::Movement);
            return theirs.len() == 1 && more.iter().all(direct);
        }
        if self.scopes.informative {
            let group = self.scopes.group(mine[0]);
            return mine.iter().chain(&theirs).all(|&id| self.scopes.group(id) == group);
        }
        let gated = !matches!(self.atom(end).role, Role::Layer);
        theirs.len() == 1
            && more.len() == 1
            && mine.iter().filter(|id| !self.gates.contains(id)).count() < CHAIN
            && (self.atom(end).bends || gated)
    }

    /// Takes in the junction that alone reads the end of `piece`, when everything else it reads is there or only has to
    /// be moved.
    fn attach_junction(&self, piece: &mut Piece, done: Done) {
        let Some(&end) = piece.last() else { return };
        if self.count(piece) == 0 || self.cuts.contains(&end) {
            return;
        }
        let Some(next) = self.next_junction(end, done) else { return };
        let mut more = self.atoms.needed(next, done.and(piece));
        more.remove(&next);
        if more.iter().all(|&i| self.atom(i).role == Role::Movement) {
            piece.extend(more);
            piece.insert(next);
        }
    }

    /// A name that no unit has yet: the module of its layers, or the name of its first node.
    fn name(&self, nodes: &[NodeId], taken: &mut BTreeSet<String>) -> String {
        let layers: Vec<NodeId> = nodes.iter().copied().filter(|id| self.view.role(*id) == Role::Layer).collect();
        let mut wanted = self.scopes.name(&layers);
        if wanted.is_empty() || taken.contains(&wanted) {
            wanted = self.view.graph.node_name(*layers.first().unwrap_or(&nodes[0])).to_string();
        }
        let mut name = wanted.clone();
        let mut n = 1;
        while !taken.insert(name.clone()) {
            n += 1;
            name = format!("{wanted}#{n}");
        }
        name
    }
}
