//! Names of a graph's values, so that a new one is found without a look at all of them.

use super::Value;
use std::collections::HashMap;

/// What is known of the names: an index that is brought up to date when it is asked, and no part of what a graph says.
#[derive(Debug, Clone, Default)]
pub struct Names {
    /// Values that are in it.
    seen: usize,
    /// Per name: how many names were built from it.
    built: HashMap<String, usize>,
}

impl PartialEq for Names {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Names {
    /// A name built from `wanted` that none of `values` has.
    pub(super) fn fresh(&mut self, values: &[Value], wanted: &str) -> String {
        if values.len() < self.seen {
            *self = Self::default();
        }
        for value in &values[self.seen..] {
            self.built.entry(value.name.clone()).or_default();
        }
        self.seen = values.len();
        let Some(&(mut count)) = self.built.get(wanted) else { return wanted.to_string() };
        loop {
            count += 1;
            let name = format!("{wanted}_{count}");
            if !self.built.contains_key(&name) {
                self.built.insert(wanted.to_string(), count);
                return name;
            }
        }
    }

    /// Notes that a value got `name` that had another one.
    pub(super) fn take(&mut self, name: &str) {
        self.built.entry(name.to_string()).or_default();
    }
}

#[cfg(test)]
mod tests {
    use crate::graph::{Fact, Graph};

    #[test]
    fn names_are_counted_up_and_gaps_are_kept() {
        let mut g = Graph::default();
        let add = |g: &mut Graph, wanted: &str| {
            let v = g.add_value(wanted, Fact::default());
            g.value(v).name.clone()
        };
        assert_eq!(["a", "a_2", "a", "a", "b"].map(|w| add(&mut g, w)), ["a", "a_2", "a_1", "a_3", "b"]);
        let mut other = g.clone();
        assert_eq!((add(&mut other, "a"), add(&mut g, "a")), ("a_4".to_string(), "a_4".to_string()));
        // Values that someone added or took away are seen.
        let value = g.values[0].clone();
        g.values.push(crate::graph::Value { name: "c".into(), ..value });
        assert_eq!(add(&mut g, "c"), "c_1");
        g.values.truncate(1);
        assert_eq!(["b", "a"].map(|w| add(&mut g, w)), ["b", "a_1"]);
        g.rename_value(crate::graph::ValueId(0), "d");
        assert_eq!(g.values[0].name, "d");
        assert_eq!(add(&mut g, "d"), "d_1");
    }
}
