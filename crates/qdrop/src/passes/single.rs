//! Networks of half or double precision computed in float32.
//!
//! Inputs and outputs keep the types that the file declares: a Cast stands behind each of those inputs and before each of
//! those outputs. So it is with operators that are only carried, since what is inside them is not known.

use super::{Context, constants};
use crate::engine::facts::Facts;
use crate::error::Result;
use crate::graph::{Binary, Fact, Graph, Node, Op, Unary, ValueId};
use crate::tensor::{DType, Tensor};
use std::collections::BTreeSet;
use std::sync::Arc;

/// Operators that are only carried, whose results have the type of the first operand.
const SAME_TYPE: [&str; 9] =
    ["LSTM", "GRU", "RNN", "DeformConv", "MaxRoiPool", "MaxUnpool", "Col2Im", "AffineGrid", "Bernoulli"];

/// Computes in float32 what the file computes in float16 or bfloat16, and in float64 where inputs or weights are.
pub(super) fn widen(graph: &mut Graph, context: &Context) -> Result<bool> {
    let wide = wide_types(graph);
    if wide.is_empty() {
        return Ok(false);
    }
    let facts = constants::facts(graph, context)?;
    let types = types(graph, facts.as_ref().map(|f| &f.0));
    let narrow = |v: ValueId| types[v.0 as usize].filter(|t| wide.contains(t));
    let computes = |node: &Node| {
        let touched = || node.inputs.iter().chain(&node.outputs).flatten().any(|&v| narrow(v).is_some());
        !carried(node) && !matches!(node.op, Op::Cast { .. }) && touched()
    };
    if !graph.nodes.iter().any(computes) {
        return Ok(false);
    }
    let narrow: Vec<Option<DType>> = graph.value_ids().map(narrow).collect();
    let kept = graph.nodes.iter().filter(|n| carried(n)).flat_map(|n| n.inputs.iter().flatten().chain(&n.captures));
    let kept: BTreeSet<ValueId> = kept.chain(&graph.outputs).chain(&graph.inputs).copied().collect();
    let nodes = std::mem::take(&mut graph.nodes);
    let singles = vec![None; narrow.len()];
    Widening { graph, narrow, wide, kept, singles, nodes: Vec::with_capacity(nodes.len()) }.run(nodes)
}

/// The float types of `graph` that are computed in float32.
fn wide_types(graph: &Graph) -> Vec<DType> {
    let made = graph.nodes.iter().filter_map(|n| match &n.op {
        Op::Cast { to } => Some(*to),
        Op::ConstantOfShape { value } => Some(value.dtype()),
        Op::EyeLike { to, .. } | Op::DequantizeLinear { to, .. } => *to,
        _ => None,
    });
    let half = |dtype: &DType| matches!(dtype, DType::F16 | DType::BF16);
    let declared = graph.values.iter().filter_map(|v| v.fact.dtype);
    let mut seen: Vec<DType> = declared.chain(made).filter(half).collect();
    // Double precision that only sizes are computed in stays.
    seen.extend(graph.inputs.iter().filter_map(|&v| graph.value(v).fact.dtype));
    let weight = |node: &Node| node.op.weight_index().and_then(|i| graph.constant(node.input(i)?));
    seen.extend(graph.nodes.iter().filter_map(weight).map(|t| t.dtype()));
    [DType::F16, DType::BF16, DType::F64].into_iter().filter(|dtype| seen.contains(dtype)).collect()
}

/// Whether a node is left as it is.
fn carried(node: &Node) -> bool {
    matches!(node.op, Op::Opaque { .. }) || !node.captures.is_empty()
}

/// Types of all values as far as known: from `facts`, what is declared, and else what operators make of their operands.
fn types(graph: &Graph, facts: Option<&Facts>) -> Vec<Option<DType>> {
    let told = |v: ValueId| facts.and_then(|f| f.get(v)).map(|f| f.dtype).or(graph.value(v).fact.dtype);
    let mut types: Vec<Option<DType>> =
        graph.value_ids().map(|v| graph.constant(v).map(|t| t.dtype()).or_else(|| told(v))).collect();
    for node in &graph.nodes {
        for (k, v) in node.outputs.iter().enumerate() {
            let Some(v) = v.filter(|v| types[v.0 as usize].is_none()) else { continue };
            let operand = |i: usize| node.input(i).and_then(|v| types[v.0 as usize]);
            types[v.0 as usize] = result(&node.op, k, operand);
        }
    }
    types
}

/// The type of result `k`, by those of the operands.
fn result(op: &Op, k: usize, operand: impl Fn(usize) -> Option<DType>) -> Option<DType> {
    use Binary::{And, Equal, Greater, GreaterOrEqual, Less, LessOrEqual, Or, Xor};
    match op {
        Op::Cast { to } => Some(*to),
        Op::ConstantOfShape { value } => Some(value.dtype()),
        Op::EyeLike { to, .. } => to.or_else(|| operand(0)),
        Op::QuantizeLinear { to, .. } => operand(2).or(*to).or(Some(DType::U8)),
        Op::DequantizeLinear { to, .. } => to.or_else(|| operand(1)),
        Op::CastLike | Op::Where => operand(1),
        Op::OneHot { .. } => operand(2),
        Op::Shape { .. } | Op::Size | Op::NonZero | Op::NonMaxSuppression { .. } | Op::ArgReduce { .. } => {
            Some(DType::I64)
        }
        Op::MaxPool { .. } | Op::TopK { .. } if k == 1 => Some(DType::I64),
        Op::Unary(Unary::Not | Unary::IsNan | Unary::IsInf { .. }) => Some(DType::Bool),
        Op::Binary(Equal | Less | LessOrEqual | Greater | GreaterOrEqual | And | Or | Xor) => Some(DType::Bool),
        Op::Opaque { domain, kind } => {
            let default = domain.is_empty() || domain == "ai.onnx";
            operand(0).filter(|_| !default || SAME_TYPE.contains(&kind.as_str()))
        }
        _ => operand(0),
    }
}

/// A graph whose nodes are being rewritten in their order.
struct Widening<'a> {
    graph: &'a mut Graph,
    /// Per value of the file: the type that is computed in float32.
    narrow: Vec<Option<DType>>,
    wide: Vec<DType>,
    /// Values whose own type is needed.
    kept: BTreeSet<ValueId>,
    /// Per value of the file: the same in float32.
    singles: Vec<Option<ValueId>>,
    nodes: Vec<Node>,
}

impl Widening<'_> {
    fn run(mut self, nodes: Vec<Node>) -> Result<bool> {
        for mut node in nodes {
            if carried(&node) {
                self.nodes.push(node);
                continue;
            }
            for v in node.inputs.iter_mut().flatten() {
                *v = self.single(*v)?;
            }
            self.retype(&mut node)?;
            let mut casts = Vec::new();
            for v in node.outputs.iter_mut().flatten() {
                casts.extend(self.result(v));
            }
            self.nodes.push(node);
            self.nodes.append(&mut casts);
        }
        self.graph.nodes = self.nodes;
        Ok(true)
    }

    /// `v` in float32.
    fn single(&mut self, v: ValueId) -> Result<ValueId> {
        let i = v.0 as usize;
        if self.narrow.get(i).copied().flatten().is_none() {
            return Ok(v);
        }
        if let Some(single) = self.singles[i] {
            return Ok(single);
        }
        let name = format!("{}_float32", self.graph.value(v).name);
        let single = match self.graph.constant(v).cloned() {
            Some(tensor) => {
                let tensor = Tensor::from_f64(DType::F32, tensor.shape(), &tensor.to_f64()?)?;
                if self.kept.contains(&v) {
                    self.graph.add_constant(&name, tensor)
                } else {
                    let value = self.graph.value_mut(v);
                    (value.fact.dtype, value.origin) = (Some(DType::F32), None);
                    value.constant = Some(Arc::new(tensor));
                    v
                }
            }
            None => {
                let fact = Fact { dtype: Some(DType::F32), ..self.graph.value(v).fact.clone() };
                let single = self.graph.add_value(&name, fact);
                self.nodes.push(Node::new(name, Op::Cast { to: DType::F32 }, &[v], &[single]));
                single
            }
        };
        self.singles[i] = Some(single);
        Ok(single)
    }

    /// Makes `node` compute in float32 whatever its attributes have in another type.
    fn retype(&self, node: &mut Node) -> Result<()> {
        let wide = |dtype: &DType| self.wide.contains(dtype);
        match &mut node.op {
            Op::Cast { to } if wide(to) => *to = DType::F32,
            Op::EyeLike { to: Some(to), .. } if wide(to) => *to = DType::F32,
            Op::DequantizeLinear { to, .. } if to.as_ref().is_some_and(wide) => *to = None,
            Op::ConstantOfShape { value } if wide(&value.dtype()) => {
                *value = Arc::new(Tensor::from_f64(DType::F32, value.shape(), &value.to_f64()?)?);
            }
            _ => return Ok(()),
        }
        node.origin = None;
        Ok(())
    }

    /// Makes `v`, which a node computes, float32. Where its own type is needed, it keeps its name and becomes the result
    /// of the Cast that is returned; the node then computes another value.
    fn result(&mut self, v: &mut ValueId) -> Option<Node> {
        let i = v.0 as usize;
        let dtype = self.narrow[i]?;
        let fact = Fact { dtype: Some(DType::F32), ..self.graph.value(*v).fact.clone() };
        if !self.kept.contains(v) {
            let value = self.graph.value_mut(*v);
            (value.fact, value.origin) = (fact, None);
            self.singles[i] = Some(*v);
            return None;
        }
        self.graph.value_mut(*v).fact.dtype = Some(dtype);
        let name = format!("{}_float32", self.graph.value(*v).name);
        let single = self.graph.add_value(&name, fact);
        self.singles[i] = Some(single);
        let kept = std::mem::replace(v, single);
        Some(Node::new(format!("{name}_cast"), Op::Cast { to: dtype }, &[single], &[kept]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::{Dim, NodeId};
    use crate::passes::{InputShapes, simplify};

    fn half(graph: &mut Graph, name: &str) -> ValueId {
        let shape = Some(vec![Dim::Symbol("n".into()), Dim::Known(2)]);
        graph.add_value(name, Fact { dtype: Some(DType::F16), shape })
    }

    /// y = relu(x + c), and z = y in float32, all in half precision.
    fn network() -> Graph {
        let mut g = Graph { opset: 17, ..Graph::default() };
        let [x, s, y] = ["x", "s", "y"].map(|n| half(&mut g, n));
        let z = g.add_value("z", Fact { dtype: Some(DType::F32), shape: None });
        let c = g.add_constant("c", Tensor::from_f64(DType::F16, &[2], &[0.5, -2.0]).unwrap());
        g.nodes = vec![
            Node::new("", Op::Binary(Binary::Add), &[x, c], &[s]),
            Node::new("", Op::Unary(Unary::Relu), &[s], &[y]),
            Node::new("", Op::Cast { to: DType::F32 }, &[y], &[z]),
        ];
        (g.inputs, g.outputs) = (vec![x], vec![y, z]);
        g
    }

    #[test]
    fn only_the_border_keeps_its_type() {
        let mut g = network();
        simplify(&mut g, &InputShapes::of_samples(vec![Some(vec![2])])).unwrap();
        let kinds: Vec<&str> = g.nodes.iter().map(|n| n.op.kind()).collect();
        assert_eq!(kinds, ["Cast", "Add", "Relu", "Cast"]);
        let fact = |v: ValueId| (g.value(v).name.as_str(), g.value(v).fact.dtype);
        let border: Vec<_> = g.inputs.iter().chain(&g.outputs).map(|&v| fact(v)).collect();
        assert_eq!(border, [("x", Some(DType::F16)), ("y", Some(DType::F16)), ("z", Some(DType::F32))]);
        let constant = g.nodes[1].input(1).and_then(|v| g.constant(v)).unwrap();
        assert_eq!(constant.as_f32(), Some(&[0.5, -2.0][..]));
        assert_eq!(g.nodes[3].op, Op::Cast { to: DType::F16 });
        let again = g.clone();
        assert!(!widen(&mut g, &Context { shapes: InputShapes::declared() }).unwrap());
        assert_eq!(g, again, "once is enough");
    }

    #[test]
    fn what_is_carried_keeps_its_types() {
        let mut g = network();
        let r = g.add_value("r", Fact::default());
        let carried = Op::Opaque { domain: "other".into(), kind: "Thing".into() };
        let s = g.nodes[0].outputs[0].unwrap();
        g.nodes.insert(1, Node::new("", carried, &[s], &[r]));
        g.nodes[2].inputs[0] = Some(r);
        assert!(widen(&mut g, &Context { shapes: InputShapes::declared() }).unwrap());
        g.check().unwrap();
        let kinds: Vec<&str> = g.nodes.iter().map(|n| n.op.kind()).collect();
        assert_eq!(kinds, ["Cast", "Add", "Cast", "Thing", "Cast", "Relu", "Cast", "Cast"]);
        assert_eq!(g.node(NodeId(3)).input(0).map(|v| g.value(v).fact.dtype), Some(Some(DType::F16)));
    }
}
