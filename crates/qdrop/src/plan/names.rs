//! Names: patterns with `*`, and the module scopes that exporters leave in them.

use super::view::View;
use super::{Override, Site};
use crate::graph::{NodeId, ValueId};
use std::collections::BTreeMap;

/// Most layers of a chain that form one unit.
pub(super) const CHAIN: usize = 3;

/// Whether `name` matches `pattern`, in which `*` stands for any run of characters.
pub fn matches(pattern: &str, name: &str) -> bool {
    let (p, n) = (pattern.as_bytes(), name.as_bytes());
    let (mut i, mut j) = (0, 0);
    let mut retry = None;
    while j < n.len() {
        if i < p.len() && p[i] == b'*' {
            retry = Some((i + 1, j));
            i += 1;
        } else if i < p.len() && p[i] == n[j] {
            i += 1;
            j += 1;
        } else if let Some((after, from)) = retry {
            i = after;
            j = from + 1;
            retry = Some((after, from + 1));
        } else {
            return false;
        }
    }
    p[i..].iter().all(|&b| b == b'*')
}

impl Override {
    /// An exception that gives the activation of `site` these `bits`; `None` where its name means others of `sites` as well.
    pub(super) fn of_activation(site: &Site, bits: u32, sites: &[Site]) -> Option<Override> {
        let activation = Some(site.name.clone());
        let exception = Override { activation, activation_bits: Some(bits), ..Override::default() };
        (sites.iter().filter(|s| exception.names(&s.name)).count() == 1).then_some(exception)
    }

    /// Whether it is an exception for the activation `name`.
    pub(super) fn names(&self, name: &str) -> bool {
        self.activation.as_deref().is_some_and(|pattern| matches(pattern, name))
    }
}

/// The names a node answers to in patterns: its own, its weight's and its bias's.
pub(super) fn names_of<'a>(view: &View<'a>, id: NodeId) -> impl Iterator<Item = &'a str> {
    let graph = view.graph;
    let weight = view.weight(id).map(|w| graph.value(w).name.as_str());
    let bias = view.bias(id).map(|b| graph.value(b).name.as_str());
    std::iter::once(graph.node_name(id)).chain(weight).chain(bias)
}

/// Where each layer sits among the modules of the program that made the model.
///
/// Exporters leave module paths either in node names (`/layer1/layer1.0/conv1/Conv`) or in weight names
/// (`layer1.0.conv1.weight`), where those were lost in names of biases; the source that groups more layers is used.
pub(super) struct Scopes {
    paths: BTreeMap<NodeId, Vec<String>>,
    groups: BTreeMap<NodeId, usize>,
    /// Whether the names mark blocks: at least half of the layers share a scope with one or two others.
    pub informative: bool,
}

impl Scopes {
    /// Scopes of `layers`; those for which `counted` is false do not count towards the size of a group.
    pub fn new(view: &View, layers: &[NodeId], counted: impl Fn(NodeId) -> bool) -> Self {
        let node_path = |id: NodeId| split(view.graph.node_name(id), &['/']);
        let weight_path = |id: NodeId| {
            let path = |v: Option<ValueId>| v.map(|v| split(&view.graph.value(v).name, &['.', '/']));
            let weight = path(view.weight(id)).unwrap_or_default();
            if weight.len() > 1 { weight } else { path(view.bias(id)).unwrap_or(weight) }
        };
        let by_node = Self::of(layers.iter().map(|&id| (id, node_path(id))).collect(), &counted);
        let by_weight = Self::of(layers.iter().map(|&id| (id, weight_path(id))).collect(), &counted);
        let depth = |s: &Self| s.paths.values().filter(|p| p.len() > 1).count();
        if (by_weight.grouped(), depth(&by_weight)) > (by_node.grouped(), depth(&by_node)) {
            by_weight
        } else {
            by_node
        }
    }

    fn of(paths: BTreeMap<NodeId, Vec<String>>, counted: &impl Fn(NodeId) -> bool) -> Self {
        let mut sizes: BTreeMap<&[String], usize> = BTreeMap::new();
        for (&id, path) in &paths {
            for depth in 1..path.len() {
                *sizes.entry(&path[..depth]).or_default() += counted(id) as usize;
            }
        }
        // The group of a layer is the widest scope around it that holds at most `CHAIN` counted layers.
        let mut known: BTreeMap<&[String], usize> = BTreeMap::new();
        let mut groups = BTreeMap::new();
        for (&id, path) in &paths {
            let scope = (1..path.len()).map(|d| &path[..d]).find(|s| sizes[s] <= CHAIN);
            let next = known.len();
            let group = *known.entry(scope.unwrap_or(path)).or_insert(next);
            groups.insert(id, group);
        }
        let mut scopes = Scopes { groups, paths, informative: false };
        scopes.informative = 2 * scopes.grouped() >= scopes.groups.len().max(1);
        scopes
    }

    /// Number of layers that share their group with another.
    fn grouped(&self) -> usize {
        let mut members: BTreeMap<usize, usize> = BTreeMap::new();
        for &g in self.groups.values() {
            *members.entry(g).or_default() += 1;
        }
        members.values().filter(|&&n| n > 1).sum()
    }

    /// The group of a layer.
    pub fn group(&self, id: NodeId) -> Option<usize> {
        self.groups.get(&id).copied()
    }

    /// A name for a unit of `layers`: the widest module that holds them and no other layer, else their first and last
    /// module; empty when names tell nothing.
    pub fn name(&self, layers: &[NodeId]) -> String {
        let module = |id: &NodeId| self.paths.get(id).and_then(|p| p.split_last()).map(|(_, module)| module);
        let modules: Vec<&[String]> = layers.iter().filter_map(module).filter(|m| !m.is_empty()).collect();
        let ([first, ..], [.., last]) = (&modules[..], &modules[..]) else { return String::new() };
        let common = |a: &[String], b: &[String]| a.iter().zip(b).take_while(|(a, b)| a == b).count();
        let shared = modules.iter().fold(first.len(), |n, m| n.min(common(first, m)));
        let exclusive =
            |depth: &usize| self.paths.values().filter(|p| p.starts_with(&first[..*depth])).count() == modules.len();
        match (1..=shared).find(exclusive) {
            Some(depth) => first[..depth].concat(),
            None if first == last => first.concat(),
            None => format!("{}..{}", first.concat(), last.concat()),
        }
    }
}

/// Splits a name into path components, each with the separator before it, so that joining them gives the name back.
fn split(name: &str, separators: &[char]) -> Vec<String> {
    let mut parts: Vec<String> = vec![String::new()];
    for c in name.chars() {
        match parts.last_mut() {
            Some(last) if !separators.contains(&c) || last.is_empty() => last.push(c),
            _ => parts.push(c.to_string()),
        }
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns() {
        for (p, n, want) in [
            ("*", "", true),
            ("conv*", "conv1/x", true),
            ("*layer1*Conv", "/layer1/layer1.0/Conv", true),
            ("a*b*c", "aXbYbZc", true),
            ("a*b", "abc", false),
            ("conv1", "conv10", false),
            ("", "a", false),
        ] {
            assert_eq!(matches(p, n), want, "{p} {n}");
        }
    }

    #[test]
    fn split_joins_back() {
        assert_eq!(split("/a/b.c/Conv", &['/']), ["/a", "/b.c", "/Conv"]);
        assert_eq!(split("a.b.weight", &['.', '/']), ["a", ".b", ".weight"]);
    }
}
