//! Constants that stay float in files of half precision.

use crate::graph::{Graph, Node, Op, ValueId};
use crate::tensor::{DType, Tensor};
use std::collections::BTreeSet;

/// Fewest elements of a constant for which a node is worth it.
const FEWEST: usize = 1024;

/// Stores constants of float32 in the half precision that `graph` converts inputs from or outputs to, where that loses no
/// bit, with a Cast before their readers: the network is computed in float32, and runtimes convert constants once.
pub fn halve(graph: &mut Graph) {
    let Some(half) = half_type(graph) else { return };
    let captured: BTreeSet<ValueId> = graph.nodes.iter().flat_map(|n| n.captures.iter().copied()).collect();
    let read: BTreeSet<ValueId> = graph.nodes.iter().flat_map(|n| n.inputs.iter().flatten().copied()).collect();
    let mut casts = Vec::new();
    for v in read.into_iter().filter(|v| !captured.contains(v)) {
        if graph.outputs.contains(&v) {
            continue;
        }
        let Some(tensor) = graph.constant(v).filter(|t| t.len() >= FEWEST).cloned() else { continue };
        let Some(stored) = tensor.as_f32().and_then(|x| exact(half, tensor.shape(), x)) else { continue };
        let name = graph.value(v).name.clone();
        let constant = graph.add_constant(&format!("{name}_half"), stored);
        let value = graph.value_mut(v);
        (value.constant, value.origin) = (None, None);
        casts.push(Node::new(format!("{name}_float32"), Op::Cast { to: DType::F32 }, &[constant], &[v]));
    }
    casts.append(&mut graph.nodes);
    graph.nodes = casts;
}

/// The half precision of the network's inputs or outputs.
fn half_type(graph: &Graph) -> Option<DType> {
    let mut types = graph.inputs.iter().chain(&graph.outputs).filter_map(|&v| graph.value(v).fact.dtype);
    types.find(|t| matches!(t, DType::F16 | DType::BF16))
}

/// `values` in `half` precision, where all of them have it.
fn exact(half: DType, shape: &[usize], values: &[f32]) -> Option<Tensor> {
    let wide: Vec<f64> = values.iter().map(|&x| f64::from(x)).collect();
    let tensor = Tensor::from_f64(half, shape, &wide).ok()?;
    let back = tensor.to_f32().ok()?;
    back.iter().zip(values).all(|(a, b)| a.to_bits() == b.to_bits()).then_some(tensor)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::{Binary, Fact};

    #[test]
    fn only_what_loses_nothing_is_stored_in_half() {
        let mut g = Graph { opset: 17, ..Graph::default() };
        let fact = |dtype| Fact { dtype: Some(dtype), shape: None };
        let x = g.add_value("x", fact(DType::F16));
        let wide = g.add_value("wide", fact(DType::F32));
        let fits = g.add_constant("fits", Tensor::f32(&[1024], vec![0.5; 1024]));
        let lossy = g.add_constant("lossy", Tensor::f32(&[1024], vec![0.1; 1024]));
        let small = g.add_constant("small", Tensor::f32(&[2], vec![0.5; 2]));
        g.nodes.push(Node::new("", Op::Cast { to: DType::F32 }, &[x], &[wide]));
        let mut last = wide;
        for c in [fits, lossy, small] {
            let y = g.add_value("y", fact(DType::F32));
            g.nodes.push(Node::new("", Op::Binary(Binary::Add), &[last, c], &[y]));
            last = y;
        }
        (g.inputs, g.outputs) = (vec![x], vec![last]);
        halve(&mut g);
        g.check().unwrap();
        let stored = g.values.iter().find(|v| v.name == "fits_half").unwrap();
        assert_eq!(stored.constant.as_ref().unwrap().dtype(), DType::F16);
        assert!(g.constant(fits).is_none() && g.constant(lossy).is_some() && g.constant(small).is_some());
        assert_eq!((g.nodes.len(), &g.nodes[0].op), (5, &Op::Cast { to: DType::F32 }));
        g.value_mut(x).fact.dtype = Some(DType::F32);
        let before = g.clone();
        halve(&mut g);
        assert_eq!(g, before, "a network of float32 stays as it is");
    }
}
