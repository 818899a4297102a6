//! Where the inputs of a graph have their batch axis.

use super::{Dim, Graph, Op, ValueId};
use std::collections::BTreeSet;

/// Names that exporters and people give the batch.
const BATCH: [&str; 4] = ["n", "b", "bs", "bsz"];

impl Graph {
    /// For each input the axis along which samples lie side by side; `None` where the file declares none.
    ///
    /// It is the axis of the symbol that inputs share and that stands first in one of them (`[n, 8]` beside
    /// `[2, n, 8]`). Without a symbol, it is the first axis of inputs that begin with the same size, but of none that gets
    /// its batch axis inside the network (`[3, h, w]` in front of an Unsqueeze).
    pub fn batch_axes(&self) -> Vec<Option<usize>> {
        let shapes: Vec<Option<&[Dim]>> = self.inputs.iter().map(|&v| self.value(v).fact.shape.as_deref()).collect();
        let known: Vec<&[Dim]> = shapes.iter().copied().flatten().collect();
        let symbol = batch_symbol(&known);
        let size = known.iter().find(|d| d.len() > 1).map_or(Some(&Dim::Known(1)), |d| d.first());
        let axis = |(&v, dims): (&ValueId, &Option<&[Dim]>)| {
            let Some(dims) = dims else { return Some(0) };
            if let Some(axis) = symbol.and_then(|s| position(dims, s)) {
                return Some(axis);
            }
            match dims.first()? {
                Dim::Unknown => Some(0),
                // Exporters name the batch of each input anew.
                Dim::Symbol(s) => known.iter().all(|d| position(d, s).is_none_or(|a| a == 0)).then_some(0),
                Dim::Known(1) => (symbol.is_none() && size == Some(&Dim::Known(1))).then_some(0),
                first => (symbol.is_none() && size == Some(first) && !self.is_one_sample(v)).then_some(0),
            }
        };
        self.inputs.iter().zip(&shapes).map(axis).collect()
    }

    /// Whether a batch axis is put in front of the input `v` inside the network, in front of every layer.
    fn is_one_sample(&self, v: ValueId) -> bool {
        let mut same = BTreeSet::from([v]);
        for node in &self.nodes {
            if !node.input(0).is_some_and(|v| same.contains(&v)) {
                continue;
            }
            let ints = || node.input(1).and_then(|v| self.constant(v)).and_then(|t| t.to_i64().ok());
            match &node.op {
                Op::Unsqueeze if ints().is_some_and(|axes| axes.contains(&0)) => return true,
                Op::Unary(_) | Op::Binary(_) | Op::Clip | Op::Cast { .. } | Op::Identity | Op::Transpose { .. } => {
                    same.extend(node.outputs.iter().flatten());
                }
                _ => {}
            }
        }
        false
    }

    /// The shape of input `index` for one sample of `shape`, batch size 1 included. A sample with as many axes as the file
    /// declares has its batch axis already, or the input has none.
    pub fn input_shape(&self, index: usize, shape: &[usize]) -> Vec<usize> {
        let declared = self.inputs.get(index).and_then(|&v| self.value(v).fact.shape.as_ref());
        if declared.is_some_and(|d| d.len() == shape.len()) {
            return shape.to_vec();
        }
        let axis = self.batch_axes().get(index).copied().flatten().unwrap_or(0).min(shape.len());
        let mut whole = shape.to_vec();
        whole.insert(axis, 1);
        whole
    }
}

fn position(dims: &[Dim], symbol: &str) -> Option<usize> {
    dims.iter().position(|d| matches!(d, Dim::Symbol(s) if s == symbol))
}

/// The symbol that stands for the batch in `shapes`.
fn batch_symbol<'a>(shapes: &[&'a [Dim]]) -> Option<&'a str> {
    let mut symbols: Vec<&str> = Vec::new();
    for dim in shapes.iter().copied().flatten() {
        if let Dim::Symbol(s) = dim
            && !symbols.contains(&s.as_str())
        {
            symbols.push(s);
        }
    }
    let leads = |s: &str| shapes.iter().any(|d| position(d, s) == Some(0));
    let count = |s: &str| shapes.iter().filter(|d| position(d, s).is_some()).count();
    let named = |s: &str| s.to_lowercase().contains("batch") || BATCH.contains(&s.to_lowercase().as_str());
    // A size of 1 in front is a batch that is fixed.
    let fixed = shapes.iter().any(|d| d.len() > 1 && d[0] == Dim::Known(1));
    if let Some(&symbol) = symbols.iter().find(|s| named(s) && (leads(s) || !fixed)) {
        return Some(symbol);
    }
    let leader = shapes.iter().find_map(|d| match d.first() {
        Some(Dim::Symbol(s)) => Some(s.as_str()),
        _ => None,
    });
    let shared = symbols.iter().copied().filter(|s| !leads(s) && !fixed).max_by_key(|s| count(s));
    match (leader, shared) {
        (Some(leader), Some(shared)) if count(shared) > count(leader) && leader_is_time(shapes, shared) => Some(shared),
        (Some(leader), _) => Some(leader),
        (None, Some(shared)) if count(shared) > 1 || symbols.len() == 1 => Some(shared),
        _ => None,
    }
}

/// Whether `shared` stands behind the first axis of every input that has a symbol, as in `[T, n, 8]` beside `[2, n, 8]`.
fn leader_is_time(shapes: &[&[Dim]], shared: &str) -> bool {
    let open = |d: &&&[Dim]| d.iter().any(|d| matches!(d, Dim::Symbol(_)));
    shapes.iter().filter(open).all(|d| position(d, shared).is_some())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::{Binary, Fact, Node};
    use crate::tensor::Tensor;

    fn graph(inputs: &[&str]) -> Graph {
        let mut graph = Graph::default();
        for dims in inputs {
            let dim = |d: &str| match (d, d.parse()) {
                ("?", _) => Dim::Unknown,
                (_, Ok(n)) => Dim::Known(n),
                _ => Dim::Symbol(d.into()),
            };
            let shape = (*dims != "-").then(|| dims.split(' ').filter(|d| !d.is_empty()).map(dim).collect());
            let v = graph.add_value("x", Fact { dtype: None, shape });
            graph.inputs.push(v);
        }
        graph
    }

    #[test]
    fn the_batch_is_found() {
        for (inputs, want) in [
            (&["N 3 8 8"][..], &[Some(0)][..]),
            (&["1 3 h w"], &[Some(0)]),
            (&["8 3 4"], &[Some(0)]),
            (&["-"], &[Some(0)]),
            (&["? 3 ?"], &[Some(0)]),
            (&["n 8", "2 n 8"], &[Some(0), Some(1)]),
            (&["T n 8", "2 n 8"], &[Some(1), Some(1)]),
            (&["time batch 8"], &[Some(1)]),
            (&["4 n 8"], &[Some(1)]),
            (&["batch seq", "seq"], &[Some(0), None]),
            (&["a seq", "b seq"], &[Some(0), Some(0)]),
            (&["N 3 8 8", "", "3", "1 4"], &[Some(0), None, None, None]),
            (&["1 3 8 8", "", "3"], &[Some(0), None, None]),
            (&["8"], &[None]),
            (&["x_axis_0 3", "y_axis_0 4"], &[Some(0), Some(0)]),
        ] {
            assert_eq!(graph(inputs).batch_axes(), want, "{inputs:?}");
        }
    }

    #[test]
    fn an_image_that_gets_its_batch_axis_inside_has_none() {
        for (unsqueezed, want) in [(0, None), (1, Some(0))] {
            let mut graph = graph(&["3 8 8"]);
            let constants = [Tensor::f32(&[3, 1, 1], vec![0.5; 3]), Tensor::i64s(vec![unsqueezed])];
            let [mean, axes] = constants.map(|t| graph.add_constant("constant", t));
            let results = [0; 2].map(|_| graph.add_value("y", Fact::default()));
            let x = graph.inputs[0];
            graph.nodes.push(Node::new("", Op::Binary(Binary::Sub), &[x, mean], &results[..1]));
            graph.nodes.push(Node::new("", Op::Unsqueeze, &[results[0], axes], &results[1..]));
            assert_eq!(graph.batch_axes(), [want], "{unsqueezed}");
        }
    }

    #[test]
    fn samples_get_their_batch_axis() {
        let graph = graph(&["n 8", "2 n 8", "", "3", "1", "-"]);
        let of = |i, shape: &[usize]| graph.input_shape(i, shape);
        assert_eq!((of(0, &[8]), of(0, &[1, 8])), (vec![1, 8], vec![1, 8]));
        assert_eq!((of(1, &[2, 8]), of(1, &[2, 1, 8])), (vec![2, 1, 8], vec![2, 1, 8]));
        assert_eq!((of(2, &[]), of(3, &[3]), of(4, &[])), (vec![], vec![3], vec![1]));
        assert_eq!(of(5, &[4, 4]), [1, 4, 4]);
    }
}
