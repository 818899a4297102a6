//! The network in steps that no unit may split: a node with the function of one tensor that follows it.

use super::view::{Role, View, bends, is_function};
use crate::graph::{NodeId, ValueId};
use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap};

/// A step.
pub(super) struct Atom {
    /// Nodes in topological order; the first one leads.
    pub nodes: Vec<NodeId>,
    /// The leading node's role.
    pub role: Role,
    /// Live values it reads from outside, each once.
    pub inputs: Vec<ValueId>,
    /// The value its function ends in, if it has a single one.
    pub tail: Option<ValueId>,
    /// All values it computes.
    pub made: BTreeSet<ValueId>,
    /// Atoms that compute `inputs`.
    pub before: BTreeSet<usize>,
    /// Whether a function other than scaling follows a layer.
    pub bends: bool,
    /// Whether the leading node works element by element (or normalises).
    pub pointwise: bool,
}

impl Atom {
    /// Whether it takes a tensor apart.
    pub fn splits(&self) -> bool {
        self.role == Role::Movement && self.made.len() > 1
    }
}

/// All steps in topological order.
pub(super) struct Atoms {
    pub list: Vec<Atom>,
    /// Per value: the steps that read it from outside, in order.
    pub readers: Vec<Vec<usize>>,
}

/// Steps that have run: all below a number, and those in up to two sets.
#[derive(Clone, Copy)]
pub(super) struct Done<'a> {
    below: usize,
    sets: [Option<&'a BTreeSet<usize>>; 2],
}

impl<'a> Done<'a> {
    /// All steps below `end`.
    pub fn below(end: usize) -> Self {
        Done { below: end, sets: [None; 2] }
    }

    /// The steps in `set`.
    pub fn of(set: &'a BTreeSet<usize>) -> Self {
        Done { below: 0, sets: [Some(set), None] }
    }

    /// Those in `set` too.
    pub fn and(self, set: &'a BTreeSet<usize>) -> Self {
        Done { sets: [self.sets[0], Some(set)], ..self }
    }

    pub fn contains(&self, step: &usize) -> bool {
        *step < self.below || self.sets.iter().flatten().any(|s| s.contains(step))
    }
}

impl Atoms {
    /// Groups the active nodes of `view`.
    pub fn new(view: &View) -> Self {
        let graph = view.graph;
        let mut taken = vec![false; graph.nodes.len()];
        let mut of_value: Vec<Option<usize>> = vec![None; graph.values.len()];
        let mut list: Vec<Atom> = Vec::new();
        for id in graph.node_ids().filter(|id| view.active[id.0 as usize]) {
            if std::mem::replace(&mut taken[id.0 as usize], true) {
                continue;
            }
            let lead = graph.node(id);
            let mut nodes = vec![id];
            let mut tail = view.single_output(lead);
            // What follows a movement belongs to the layer behind it (normalisation before a layer), not to the movement;
            // and what masks are made of belongs to no function.
            let function = |out: &ValueId| view.role(id) != Role::Movement && !view.mask[out.0 as usize];
            if let Some(out) = tail.filter(function) {
                let (function, end) = view.function(out);
                nodes.extend(function);
                tail = Some(end);
            }
            nodes.sort();
            for n in &nodes {
                taken[n.0 as usize] = true;
                for v in graph.node(*n).outputs.iter().flatten() {
                    of_value[v.0 as usize] = Some(list.len());
                }
            }
            let made: BTreeSet<ValueId> =
                nodes.iter().flat_map(|&n| &graph.node(n).outputs).flatten().copied().collect();
            let read = nodes.iter().flat_map(|&n| view.operands(n)).filter(|v| !made.contains(v));
            let inputs = read.collect::<BTreeSet<_>>().into_iter().collect();
            let bends = nodes[1..].iter().any(|&n| bends(&graph.node(n).op));
            list.push(Atom {
                role: view.role(id),
                inputs,
                tail,
                made,
                before: BTreeSet::new(),
                bends,
                pointwise: is_function(&lead.op),
                nodes,
            });
        }
        Atoms::ordered(list, &of_value)
    }

    /// `list` in an order in which it can run, as close to its own as can be: a function may read masks whose nodes come
    /// behind the node that leads it. `of_value` says which step computes a value.
    fn ordered(mut list: Vec<Atom>, of_value: &[Option<usize>]) -> Self {
        let mut waits = vec![0; list.len()];
        let mut behind = vec![Vec::new(); list.len()];
        for (i, atom) in list.iter_mut().enumerate() {
            atom.before = atom.inputs.iter().filter_map(|v| of_value[v.0 as usize]).collect();
            waits[i] = atom.before.len();
            atom.before.iter().for_each(|&b| behind[b].push(i));
        }
        let mut ready: BinaryHeap<Reverse<usize>> = (0..list.len()).filter(|&i| waits[i] == 0).map(Reverse).collect();
        let mut place = vec![usize::MAX; list.len()];
        let mut count = 0;
        while let Some(Reverse(i)) = ready.pop() {
            place[i] = count;
            count += 1;
            for &b in &behind[i] {
                waits[b] -= 1;
                if waits[b] == 0 {
                    ready.push(Reverse(b));
                }
            }
        }
        debug_assert_eq!(count, list.len(), "steps that wait for each other");
        let mut placed: Vec<(usize, Atom)> = place.iter().copied().zip(list).collect();
        placed.sort_by_key(|p| p.0);
        let mut atoms = Atoms { list: Vec::with_capacity(placed.len()), readers: vec![Vec::new(); of_value.len()] };
        for (index, mut atom) in placed {
            atom.before = atom.before.iter().map(|&b| place[b]).collect();
            atom.inputs.iter().for_each(|v| atoms.readers[v.0 as usize].push(index));
            atoms.list.push(atom);
        }
        atoms
    }

    /// The steps outside `done` that must run for step `index`, itself included.
    pub fn needed(&self, index: usize, done: Done) -> BTreeSet<usize> {
        let mut needed = BTreeSet::from([index]);
        let mut open = vec![index];
        while let Some(i) = open.pop() {
            for &b in &self.list[i].before {
                if !done.contains(&b) && needed.insert(b) {
                    open.push(b);
                }
            }
        }
        needed
    }

    /// The first step at which two of the ways that leave `value` through steps outside `done` meet; ways into `met`
    /// count as one.
    pub fn join(&self, value: ValueId, done: Done, met: &BTreeSet<usize>) -> Option<usize> {
        let ways = self.ways(value, done);
        if ways.len() < 2 {
            return None;
        }
        // For each later step the first way that leads to it; meeting a second way ends the search.
        let mut way: Vec<Option<usize>> = vec![None; self.list.len()];
        for i in *ways.iter().flatten().min()?..self.list.len() {
            if met.contains(&i) {
                way[i] = Some(usize::MAX);
                continue;
            }
            let mut from: BTreeSet<usize> = self.list[i].before.iter().filter_map(|&b| way[b]).collect();
            from.extend((0..ways.len()).filter(|&k| ways[k].contains(&i)));
            match from.len() {
                0 => {}
                1 => way[i] = from.pop_first(),
                _ => return Some(i),
            }
        }
        None
    }

    /// The ways that leave `value` through steps outside `done`, each with its first steps: one through each reader,
    /// or, where the only reader splits `value`, one from each part.
    fn ways(&self, value: ValueId, done: Done) -> Vec<Vec<usize>> {
        let readers = self.open_readers(value, done);
        match readers[..] {
            [only] if self.list[only].splits() => {
                let parts = self.list[only].made.iter().map(|&v| self.open_readers(v, done));
                parts.filter(|steps| !steps.is_empty()).collect()
            }
            _ => readers.into_iter().map(|i| vec![i]).collect(),
        }
    }

    /// Steps outside `done` that read `value`.
    pub fn open_readers(&self, value: ValueId, done: Done) -> Vec<usize> {
        self.readers[value.0 as usize].iter().copied().filter(|i| !done.contains(i)).collect()
    }
}
