//! Concrete types, shapes and known contents of every value of a graph, for given input shapes.

use super::channels;
pub use super::fact::{Facts, ValueFact};
use super::ops::{self, Known, View};
use crate::error::{Error, Result};
use crate::graph::{Dim, Graph, Node, Op, ValueId};
use crate::tensor::{DType, Tensor};
use std::sync::Arc;

/// Elements of results that are evaluated in any graph, and steps that it may take.
const FREE: Budget = Budget { elements: 1 << 26, steps: 1 << 29 };
/// How many more per element of the graph's constants: weights that are unpacked pass through a dozen nodes.
const PER_CONSTANT: usize = 32;

/// What evaluating may still cost; without a limit a small file could ask for any amount of memory and time.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Budget {
    elements: usize,
    steps: usize,
}

impl Budget {
    fn of(graph: &Graph) -> Self {
        let given = graph.values.iter().filter_map(|v| v.constant.as_ref()).map(|t| t.len());
        let more = given.fold(0usize, usize::saturating_add).saturating_mul(PER_CONSTANT);
        Budget { elements: FREE.elements.saturating_add(more), steps: FREE.steps.saturating_add(more) }
    }

    /// Pays for the results of `op`, if there is enough.
    fn pay(&mut self, op: &Op, operands: &[Option<&ValueFact>], shapes: &[(DType, Vec<usize>)]) -> bool {
        let size = |(_, shape): &(DType, Vec<usize>)| shape.iter().fold(1usize, |n, &d| n.saturating_mul(d));
        let elements = shapes.iter().map(size).fold(0usize, usize::saturating_add);
        let operand = |i: usize| operands.get(i).copied().flatten().map_or(&[][..], |f| &f.shape);
        // Steps of each element.
        let depth = match op {
            Op::MatMul | Op::Gemm { .. } => operand(0).iter().rev().take(2).max().copied().unwrap_or(1),
            Op::Conv { .. } | Op::ConvTranspose { .. } => operand(1).iter().skip(1).product(),
            Op::Einsum { .. } => operands.iter().flatten().map(|f| f.numel()).max().unwrap_or(1),
            _ => 1,
        };
        let steps = elements.saturating_mul(depth);
        match (self.elements.checked_sub(elements), self.steps.checked_sub(steps)) {
            (Some(elements), Some(steps)) => {
                *self = Budget { elements, steps };
                true
            }
            _ => false,
        }
    }

    /// Pays for the comparisons of a NonMaxSuppression, if there is enough. Its results have as many rows as it finds, so that
    /// their shape costs as much as their content.
    fn pay_search(&mut self, op: &Op, operands: &[Option<&ValueFact>]) -> bool {
        if !matches!(op, Op::NonMaxSuppression { .. }) {
            return true;
        }
        let scores = operands.get(1).copied().flatten().map_or(&[][..], |f| &f.shape);
        let [images, classes, boxes] = scores else { return true };
        let steps = [images, classes, boxes, boxes].into_iter().fold(1usize, |n, &d| n.saturating_mul(d));
        self.steps.checked_sub(steps).is_some_and(|steps| {
            self.steps = steps;
            true
        })
    }
}

/// The batch that an input declares, where `shapes` have another.
fn fixed_batch(graph: &Graph, shapes: &[Vec<usize>]) -> Option<usize> {
    let batch = |(&v, shape): (&ValueId, &Vec<usize>)| match graph.value(v).fact.shape.as_ref()?.first()? {
        Dim::Known(batch) => Some(*batch).filter(|b| shape.first().is_some_and(|s| s != b)),
        _ => None,
    };
    graph.inputs.iter().zip(shapes).find_map(batch)
}

/// Derives facts of every value from the shapes of the graph's inputs (in `graph.inputs` order, batch axis included).
/// Constants and shape arithmetic are evaluated. Values behind opaque operators have no fact.
pub fn infer(graph: &Graph, input_shapes: &[Vec<usize>]) -> Result<Facts> {
    infer_within(Budget::of(graph), graph, input_shapes, &mut |_, _| ())
}

/// As [`infer`] for other shapes of the inputs than those of `other`, with which this shares the contents that depend on no
/// input.
pub fn infer_beside(graph: &Graph, input_shapes: &[Vec<usize>], other: &Facts) -> Result<Facts> {
    let mut free: Vec<bool> = graph.values.iter().map(|v| v.constant.is_some()).collect();
    infer_within(Budget::of(graph), graph, input_shapes, &mut |facts, node| {
        if node.inputs.iter().flatten().all(|v| free[v.0 as usize]) && node.captures.is_empty() {
            for &v in node.outputs.iter().flatten() {
                free[v.0 as usize] = true;
                let known = other.get(v).and_then(|f| f.constant.clone());
                if let (Some(fact), Some(known)) = (&mut facts.values[v.0 as usize], known)
                    && fact.constant.is_some()
                {
                    fact.constant = Some(known);
                }
            }
        }
    })
}

/// As [`infer`] of a graph without inputs, but contents that are not `wanted` are kept no longer than until the last node has
/// read them; with them their sizes in bytes.
pub fn infer_briefly(graph: &Graph, wanted: &[bool]) -> Result<(Facts, Vec<Option<usize>>)> {
    let mut readers = vec![0usize; graph.values.len()];
    for v in graph.nodes.iter().flat_map(|n| n.inputs.iter().flatten().chain(&n.captures)) {
        readers[v.0 as usize] += 1;
    }
    let mut sizes = vec![None; graph.values.len()];
    let facts = infer_within(Budget::of(graph), graph, &[], &mut |facts, node| {
        for &v in node.outputs.iter().flatten() {
            let content = facts.get(v).and_then(|f| f.constant.as_ref());
            sizes[v.0 as usize] = content.map(|t| t.len().saturating_mul(t.dtype().bits()) / 8);
        }
        let read = || node.inputs.iter().flatten().chain(&node.captures);
        read().for_each(|v| readers[v.0 as usize] -= 1);
        for &v in read().chain(node.outputs.iter().flatten()) {
            let i = v.0 as usize;
            if readers[i] == 0
                && !wanted[i]
                && graph.values[i].constant.is_none()
                && let Some(fact) = &mut facts.values[i]
            {
                fact.constant = None;
            }
        }
    })?;
    Ok((facts, sizes))
}

/// Calls `after` behind each node whose facts were found.
fn infer_within(
    mut budget: Budget,
    graph: &Graph,
    input_shapes: &[Vec<usize>],
    after: &mut dyn FnMut(&mut Facts, &Node),
) -> Result<Facts> {
    if input_shapes.len() != graph.inputs.len() {
        return Err(Error::internal(format!(
            "the graph has {} inputs, {} shapes are given",
            graph.inputs.len(),
            input_shapes.len()
        )));
    }
    let mut facts = Facts { values: vec![None; graph.values.len()] };
    for (i, value) in graph.values.iter().enumerate() {
        facts.values[i] = value.constant.clone().map(ValueFact::of);
    }
    for (&id, shape) in graph.inputs.iter().zip(input_shapes) {
        let value = graph.value(id);
        let place = || format!("input `{}`", value.name);
        let dtype = value.fact.dtype.ok_or_else(|| Error::model("no element type is declared").at(place()))?;
        if let Some(declared) = value.fact.shape.as_ref().filter(|d| d.len() != shape.len()) {
            let message = format!("declared with {} dimensions, the shape given is {shape:?}", declared.len());
            return Err(Error::data(message).at(place()));
        }
        facts.set(id, ValueFact::new(dtype, shape.clone(), None));
    }
    for id in graph.node_ids() {
        let node = graph.node(id);
        let at = |e: Error| match fixed_batch(graph, input_shapes).filter(|_| e.advice().is_none()) {
            Some(batch) => e.at(graph.describe(id)).hint(format!(
                "the file is fixed to a batch of {batch}: export it with a batch of 1 or an open batch axis"
            )),
            None => e.at(graph.describe(id)),
        };
        if let Some(results) = node_facts(&facts, node, &mut budget).map_err(at)? {
            for (k, fact) in results.into_iter().enumerate() {
                if let Some(v) = node.output(k) {
                    facts.set(v, fact);
                }
            }
            after(&mut facts, node);
        }
    }
    let axes = channels::axes(graph, &facts);
    for (fact, axis) in facts.values.iter_mut().zip(axes) {
        if let (Some(fact), Some(axis)) = (fact, axis) {
            fact.channel_axis = axis;
        }
    }
    Ok(facts)
}

/// Facts of a node's results; `None` where it cannot be run or an operand has no fact.
fn node_facts(facts: &Facts, node: &Node, budget: &mut Budget) -> Result<Option<Vec<ValueFact>>> {
    if matches!(node.op, Op::Choice | Op::Opaque { .. }) {
        return Ok(None);
    }
    let mut operands = Vec::with_capacity(node.inputs.len());
    for input in &node.inputs {
        match input.map(|v| facts.get(v)) {
            None => operands.push(None),
            Some(Some(fact)) => operands.push(Some(fact)),
            Some(None) => return Ok(None),
        }
    }
    let computed = |i: &usize| operands.get(*i).copied().flatten().is_some_and(|f| f.constant.is_none());
    if ops::reads_sizes(&node.op).iter().any(computed) || !budget.pay_search(&node.op, &operands) {
        return Ok(None);
    }
    let known: Vec<Option<Known>> = operands.iter().map(|o| o.map(ValueFact::known)).collect();
    // A Split's part sizes follow from how many results it has; elsewhere trailing results nobody names do not count.
    let results = match node.op {
        Op::Split { .. } => node.outputs.len(),
        _ => node.outputs.iter().rposition(|o| o.is_some()).map_or(0, |k| k + 1),
    };
    let shapes = ops::infer(&node.op, &known, results)?;
    let constants = evaluate(&node.op, &operands, &shapes, budget)?;
    let mut list: Vec<ValueFact> =
        shapes.into_iter().map(|(dtype, shape)| ValueFact::new(dtype, shape, None)).collect();
    for (fact, constant) in list.iter_mut().zip(constants.into_iter().flatten()) {
        fact.constant = Some(constant);
    }
    Ok(Some(list))
}

/// Contents of all results, if they follow from what is known and the budget suffices.
fn evaluate(
    op: &Op,
    operands: &[Option<&ValueFact>],
    shapes: &[(DType, Vec<usize>)],
    budget: &mut Budget,
) -> Result<Option<Vec<Arc<Tensor>>>> {
    let sizes = |dims: &[usize]| Tensor::i64s(dims.iter().map(|&d| d as i64).collect());
    match (op, operands.first().copied().flatten()) {
        (Op::Shape { start, end }, Some(x)) => {
            return Ok(Some(vec![Arc::new(sizes(ops::shape_dims(&x.shape, *start, *end)))]));
        }
        (Op::Size, Some(x)) => {
            return Ok(Some(vec![Arc::new(sizes(&[x.numel()]).reshaped(&[])?)]));
        }
        (Op::Identity, Some(x)) => return Ok(x.constant.clone().map(|c| vec![c])),
        _ => {}
    }
    let known = |fact: &&ValueFact| fact.constant.is_some() && computable(fact.dtype);
    let all = shapes.iter().all(|s| computable(s.0)) && operands.iter().flatten().all(known);
    if !all || !budget.pay(op, operands, shapes) {
        return Ok(None);
    }
    // Weights stored in half precision are widened at once: tables of embeddings are large.
    if let (Op::Cast { to: DType::F32 }, [Some(x)]) = (op, operands)
        && matches!(x.dtype, DType::F16 | DType::BF16)
        && let Some(content) = &x.constant
    {
        return Ok(Some(vec![Arc::new(Tensor::f32(&x.shape, content.to_f32()?))]));
    }
    let mut data = Vec::with_capacity(operands.len());
    for operand in operands {
        let content = operand.and_then(|fact| Some((fact, fact.constant.as_ref()?)));
        data.push(content.map(|(fact, t)| Ok::<_, Error>((fact, t.to_f64()?))).transpose()?);
    }
    let views: Vec<Option<View<f64>>> = data
        .iter()
        .map(|d| d.as_ref().map(|(fact, data)| View { dtype: fact.dtype, shape: &fact.shape, data }))
        .collect();
    let arrays = ops::forward::<f64>(op, &views, shapes.len())?;
    let tensor = |a: ops::Array<f64>| Tensor::from_f64(a.dtype, &a.shape, &a.data).map(Arc::new);
    arrays.into_iter().map(tensor).collect::<Result<_>>().map(Some)
}

/// Whether elements of this type can be computed with.
fn computable(dtype: DType) -> bool {
    use DType::*;
    dtype.is_int() || matches!(dtype, F64 | F32 | F16 | BF16 | Bool)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::testing::Builder;
    use crate::graph::{Binary, Fact, Unary};

    fn declared(dtype: DType, dims: &[usize]) -> Fact {
        Fact { dtype: Some(dtype), shape: Some(dims.iter().map(|&d| Dim::Known(d)).collect()) }
    }

    #[test]
    fn a_fixed_batch_is_named() {
        let refused = |batch: Dim, target: Vec<i64>| {
            let mut b = Builder::new();
            let x = b.input("x", vec![batch, Dim::Known(4)]);
            let shape = b.graph.add_constant("shape", Tensor::i64s(target));
            let x = b.node(Op::Reshape { allowzero: false }, &[x, shape]);
            let w = b.constant("w", &[4, 3]);
            let x = b.node(Op::MatMul, &[x, w]);
            infer(&b.finish(&[x]), &[vec![1, 4]]).unwrap_err().to_string()
        };
        let fixed = "; the file is fixed to a batch of 2: export it with a batch of 1 or an open batch axis";
        let found = refused(Dim::Known(2), vec![2, -1]);
        assert!(found.contains("inner sizes differ") && found.ends_with(fixed), "{found}");
        let found = refused(Dim::Unknown, vec![2, 4]);
        let open = "; if 2 is a batch, export the network with a batch of 1 or an open batch axis";
        assert!(found.contains("cannot reshape [1, 4] to [2, 4]") && found.ends_with(open), "{found}");
        assert!(!refused(Dim::Known(1), vec![1, 2, 2]).contains("batch"));
    }

    /// x [N, 6] -> Shape -> Slice -> Concat(.., -1) -> Reshape of x, as exporters write a flatten.
    #[test]
    fn shape_arithmetic_is_evaluated() {
        let mut g = Graph::default();
        let x = g.add_value("x", declared(DType::F32, &[1, 2, 3]));
        g.inputs.push(x);
        let [zero, one, minus] = [0, 1, -1].map(|v| g.add_constant("c", Tensor::i64s(vec![v])));
        let [shape, batch, target, y] = ["shape", "batch", "target", "y"].map(|n| g.add_value(n, Fact::default()));
        g.nodes.push(Node::new("", Op::Shape { start: 0, end: None }, &[x], &[shape]));
        g.nodes.push(Node::new("", Op::Slice, &[shape, zero, one], &[batch]));
        g.nodes.push(Node::new("", Op::Concat { axis: 0 }, &[batch, minus], &[target]));
        g.nodes.push(Node::new("", Op::Reshape { allowzero: false }, &[x, target], &[y]));
        let facts = infer(&g, &[vec![5, 2, 3]]).unwrap();
        assert_eq!(facts.require(&g, y).unwrap().shape, [5, 6]);
        assert_eq!(facts.get(target).unwrap().constant.as_deref(), Some(&Tensor::i64s(vec![5, -1])));
        assert!(facts.get(y).unwrap().constant.is_none());
    }

    #[test]
    fn weights_behind_dequantize_are_folded() {
        let mut g = Graph::default();
        let w = g.add_constant("w", Tensor::from_f64(DType::I8, &[3], &[-1.0, 0.0, 5.0]).unwrap());
        let scale = g.add_constant("s", Tensor::scalar(0.1));
        let y = g.add_value("y", Fact::default());
        g.nodes.push(Node::new("", Op::DequantizeLinear { axis: 0, block: 0, to: None }, &[w, scale], &[y]));
        let facts = infer(&g, &[]).unwrap();
        let folded = facts.get(y).unwrap().constant.clone().unwrap();
        assert_eq!(folded.as_f32(), Some(&[-0.1f32, 0.0, 0.5][..]));
    }

    #[test]
    fn large_constants_out_of_nothing_stay_unknown() {
        let mut b = Builder::new();
        let sides = b.graph.add_constant("sides", Tensor::i64s(vec![16, 16]));
        let fill = Op::ConstantOfShape { value: Arc::new(Tensor::f32(&[1], vec![0.5])) };
        let mut all = vec![b.node(fill, &[sides])];
        let product = b.node(Op::MatMul, &[all[0], all[0]]);
        for _ in 0..8 {
            all.push(b.node(Op::Unary(Unary::Neg), &all[all.len() - 1..]));
        }
        let graph = b.finish(&[all[8], product]);
        let known = |budget| {
            let facts = infer_within(budget, &graph, &[], &mut |_, _| ()).unwrap();
            assert_eq!(facts.get(product).unwrap().shape, [16, 16]);
            let known = |v: ValueId| facts.get(v).unwrap().constant.is_some();
            (all.iter().filter(|v| known(**v)).count(), known(product))
        };
        assert_eq!(known(Budget { elements: 1024, steps: 2048 }), (4, false));
        assert_eq!(known(Budget { elements: 1024, steps: 8192 }), (3, true));
        assert_eq!(known(Budget::of(&graph)), (9, true));
        assert!(!Budget { elements: usize::MAX, steps: 1 << 40 }.pay(
            &Op::MatMul,
            &[Some(&ValueFact::new(DType::F32, vec![1 << 14, 1 << 14], None)); 2],
            &[(DType::F32, vec![1 << 14, 1 << 14])],
        ));
    }

    #[test]
    fn opaque_operators_hide_what_follows_and_bad_nodes_are_named() {
        let mut g = Graph::default();
        let x = g.add_value("x", declared(DType::F32, &[2]));
        g.inputs.push(x);
        let [a, b, c] = ["a", "b", "c"].map(|n| g.add_value(n, Fact::default()));
        let opaque = Op::Opaque { domain: "".into(), kind: "Loop".into() };
        g.nodes.push(Node::new("", opaque, &[x], &[a]));
        g.nodes.push(Node::new("", Op::Binary(Binary::Add), &[a, x], &[b]));
        let facts = infer(&g, &[vec![2]]).unwrap();
        assert!(facts.get(a).is_none() && facts.get(b).is_none());
        assert!(facts.require(&g, b).unwrap_err().to_string().contains("`b`"));
        g.nodes.push(Node::new("bad", Op::Transpose { perm: vec![0, 1] }, &[x], &[c]));
        let error = infer(&g, &[vec![2]]).unwrap_err().to_string();
        assert!(error.starts_with("node `bad` (Transpose): "), "{error}");
    }
}
