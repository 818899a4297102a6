//! The part of a network whose shapes depend on data, such as a suppression of boxes and what follows. It cannot be compiled:
//! it is run for one sample, node by node, by the specification of the operators, with the shapes that arise. Layers run on a
//! device. A Loop there runs its body as another such part.

use super::device::Device;
use super::fact::{Facts, ValueFact};
use super::ops::{self, Array, Known, View};
use super::program::{Region, compile};
use crate::error::{Error, Result};
use crate::graph::{Dim, Graph, LoopBodies, LoopBody, NodeId, Op, ValueId};
use crate::tensor::{DType, RowStore, Rows, Tensor};
use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Most elements of the results of a node: sizes that come from data may be anything.
const MOST_ELEMENTS: usize = 1 << 27;

/// Most iterations of all Loops for a sample: data may let them go on forever.
const MOST_ITERATIONS: usize = 1 << 16;

/// Contents of values.
type Arrays = BTreeMap<ValueId, Array<f64>>;

/// What is known while a part runs.
struct Values<'a> {
    /// What it computed, or was given for itself.
    own: Arrays,
    /// What holds for all iterations of the Loop whose body it is.
    given: &'a Arrays,
}

/// The body of a Loop.
struct Repeated {
    body: Stepwise,
    /// Values of the graph around it, which are the last inputs of the body.
    captures: Vec<ValueId>,
    /// Type and shape of what is handed out in each iteration, for a Loop without iterations. Sizes that the file does not
    /// declare are 0, as in ONNX Runtime.
    handed: Vec<(Option<DType>, Vec<usize>)>,
}

/// What some values of a graph need beyond what its facts tell.
pub struct Stepwise {
    graph: Graph,
    /// In order.
    nodes: Vec<NodeId>,
    /// Values fed, with their types and shapes.
    inputs: Vec<(ValueId, DType, Vec<usize>)>,
    outputs: Vec<ValueId>,
    /// Constants that nodes other than layers read, and outputs.
    constants: Arrays,
    /// Constants that layers read.
    weights: BTreeMap<ValueId, Arc<Tensor>>,
    loops: BTreeMap<NodeId, Repeated>,
}

/// What a run of all nodes shares, bodies of Loops included.
struct Running<'a> {
    device: &'a dyn Device,
    go_on: &'a dyn Fn() -> Result<()>,
    /// How many iterations of Loops may follow.
    left: Cell<usize>,
}

impl Stepwise {
    /// The nodes on which `outputs` depend and whose results have no `facts`; `loops` are those of the graph. An error where
    /// a node cannot be run.
    pub fn new(graph: Graph, facts: &Facts, outputs: &[ValueId], mut loops: LoopBodies) -> Result<Self> {
        let nodes = needed(&graph, facts, outputs, &loops)?;
        let operands = |&id: &NodeId| operands(&graph, id);
        // What is read by other nodes than layers.
        let plain = nodes.iter().filter(|id| !is_layer(&graph.node(**id).op));
        let read: BTreeSet<ValueId> = outputs.iter().copied().chain(plain.flat_map(operands)).collect();
        let needed: BTreeSet<ValueId> = outputs.iter().copied().chain(nodes.iter().flat_map(operands)).collect();
        let (mut inputs, mut constants, mut weights) = (Vec::new(), Arrays::new(), BTreeMap::new());
        for &v in &needed {
            match facts.get(v) {
                Some(ValueFact { constant: Some(tensor), .. }) if read.contains(&v) => {
                    let (dtype, shape, data) = (tensor.dtype(), tensor.shape().to_vec(), tensor.to_f64()?);
                    constants.insert(v, Array { dtype, shape, data });
                }
                Some(ValueFact { constant: Some(tensor), .. }) => drop(weights.insert(v, tensor.clone())),
                Some(fact) => inputs.push((v, fact.dtype, fact.shape.clone())),
                None => {}
            }
        }
        let bodies = nodes.iter().filter_map(|&id| Some((id, loops.remove(&id)?)));
        let loops = bodies.map(|(id, body)| Ok((id, Repeated::new(body)?))).collect::<Result<_>>()?;
        Ok(Stepwise { graph, nodes, inputs, outputs: outputs.to_vec(), constants, weights, loops })
    }

    /// The graph.
    pub fn graph(&self) -> &Graph {
        &self.graph
    }

    /// The values that must be known, in the order in which [`Stepwise::run`] takes them.
    pub fn inputs(&self) -> impl Iterator<Item = ValueId> {
        self.inputs.iter().map(|input| input.0)
    }

    /// The outputs, in the order in which [`Stepwise::run`] returns them.
    pub fn outputs(&self) -> &[ValueId] {
        &self.outputs
    }

    /// The outputs of a sample for which the inputs hold `values`. Ends with the error of `go_on`, which is asked often.
    pub fn run(
        &self,
        values: &[&[f32]],
        device: &dyn Device,
        go_on: &dyn Fn() -> Result<()>,
    ) -> Result<Vec<Array<f64>>> {
        let mut known = Arrays::new();
        for ((v, dtype, shape), values) in self.inputs.iter().zip(values) {
            let data = values.iter().map(|&x| f64::from(x)).collect();
            known.insert(*v, Array { dtype: *dtype, shape: shape.clone(), data });
        }
        let known = Values { own: known, given: &Arrays::new() };
        self.compute(known, &Running { device, go_on, left: Cell::new(MOST_ITERATIONS) })
    }

    /// The outputs where `known` holds the inputs.
    fn compute(&self, mut known: Values, running: &Running) -> Result<Vec<Array<f64>>> {
        let made: BTreeMap<ValueId, NodeId> = self.nodes.iter().flat_map(|&id| self.results_of(id)).collect();
        let mut readers = self.readers();
        // Values to compute, the next one last: what no chosen branch reads is left out.
        let mut wanted: Vec<ValueId> = self.outputs.iter().rev().copied().collect();
        while let Some(&v) = wanted.last() {
            if self.content(&known, v).is_ok() {
                wanted.pop();
                continue;
            }
            let &id = made.get(&v).ok_or_else(|| self.missing(v))?;
            let node = self.graph.node(id);
            let read = self.read(id, &known).map_err(|e| e.at(self.graph.describe(id)))?;
            let asked = wanted.len();
            wanted.extend(read.iter().rev().filter(|v| made.contains_key(v) && !known.own.contains_key(v)));
            if wanted.len() > asked {
                continue;
            }
            (running.go_on)()?;
            let results = match is_layer(&node.op) {
                _ if node.op == Op::Choice => self.content(&known, read[0]).map(|chosen| vec![chosen.clone()]),
                _ if self.loops.contains_key(&id) => self.repeat(id, &known, running),
                true => self.layer(id, &known, running.device),
                false => self.node(id, &known, running.go_on),
            };
            let results = results.map_err(|e| e.at(self.graph.describe(id)))?;
            known.own.extend(node.outputs.iter().zip(results).filter_map(|(v, array)| Some(((*v)?, array))));
            for v in operands(&self.graph, id) {
                let left = readers.entry(v).or_default();
                *left = left.saturating_sub(1);
                if *left == 0 {
                    known.own.remove(&v);
                }
            }
        }
        self.outputs.iter().map(|&v| self.content(&known, v).cloned()).collect()
    }

    fn results_of(&self, id: NodeId) -> impl Iterator<Item = (ValueId, NodeId)> {
        self.graph.node(id).outputs.iter().flatten().map(move |&v| (v, id))
    }

    /// What node `id` reads: of a choice its condition and, once that is known, what it decides on alone.
    fn read(&self, id: NodeId, known: &Values) -> Result<Vec<ValueId>> {
        let node = self.graph.node(id);
        if node.op != Op::Choice {
            return Ok(operands(&self.graph, id).collect());
        }
        let operand = |i: usize| node.input(i).ok_or_else(|| Error::internal("a choice without operands"));
        let condition = operand(0)?;
        let Ok(array) = self.content(known, condition) else { return Ok(vec![condition]) };
        let condition = single(array, "the condition of an If")?;
        Ok(vec![operand(if condition != 0.0 { 1 } else { 2 })?])
    }

    /// How often each value is read; outputs once more.
    fn readers(&self) -> BTreeMap<ValueId, usize> {
        let mut readers = BTreeMap::new();
        let read = self.nodes.iter().flat_map(|&id| operands(&self.graph, id));
        read.chain(self.outputs.iter().copied()).for_each(|v| *readers.entry(v).or_default() += 1);
        readers
    }

    fn content<'k>(&'k self, known: &'k Values, v: ValueId) -> Result<&'k Array<f64>> {
        let found = known.own.get(&v).or_else(|| known.given.get(&v)).or_else(|| self.constants.get(&v));
        found.ok_or_else(|| self.missing(v))
    }

    /// What the Loop `id` computes.
    fn repeat(&self, id: NodeId, known: &Values, running: &Running) -> Result<Vec<Array<f64>>> {
        let (node, repeated) = (self.graph.node(id), &self.loops[&id]);
        let formal = &repeated.body.graph.inputs;
        let content = |&v: &ValueId| self.content(known, v).cloned();
        let one = |i: usize, what| node.input(i).map(|v| single(self.content(known, v)?, what)).transpose();
        let most = one(0, "the number of iterations of a Loop")?;
        let mut open = one(1, "the condition of a Loop")?.is_none_or(|c| c != 0.0);
        let mut states = node.inputs.iter().skip(2).flatten().map(content).collect::<Result<Vec<_>>>()?;
        let captured = repeated.captures.iter().map(content).collect::<Result<Vec<_>>>()?;
        let own = formal.len() - captured.len();
        let given: Arrays = formal[own..].iter().copied().zip(captured).collect();
        let mut handed: Vec<Option<Array<f64>>> = vec![None; repeated.handed.len()];
        let mut count = 0.0;
        while open && most.is_none_or(|most| count < most) {
            let message =
                || format!("the Loops take more than {MOST_ITERATIONS} iterations, which are not computed here");
            let fewer = running
                .left
                .get()
                .checked_sub(1)
                .ok_or_else(|| Error::unsupported(message()).hint("try `--runtime ort`"))?;
            running.left.set(fewer);
            let number = Array { dtype: DType::I64, shape: Vec::new(), data: vec![count] };
            let condition = Array { dtype: DType::Bool, shape: Vec::new(), data: vec![1.0] };
            let inputs = [number, condition].into_iter().chain(std::mem::take(&mut states));
            let known = Values { own: formal[..own].iter().copied().zip(inputs).collect(), given: &given };
            let results = repeated.body.compute(known, running);
            let mut results = results.map_err(|e| e.at(format!("iteration {count}")))?.into_iter();
            open = results.next().map_or(Ok(0.0), |c| single(&c, "the condition of a Loop"))? != 0.0;
            states = results.by_ref().take(own - 2).collect();
            for (all, array) in handed.iter_mut().zip(results) {
                hand(all, array)?;
            }
            count += 1.0;
        }
        let name = |k: usize| repeated.body.graph.value(repeated.body.outputs[own - 1 + k]).name.clone();
        for (k, (all, (dtype, shape))) in
            handed.iter_mut().zip(&repeated.handed).enumerate().filter(|h| h.1.0.is_none())
        {
            let message = || format!("a Loop without iterations hands out `{}`, whose type is not declared", name(k));
            let dtype = dtype.ok_or_else(|| Error::unsupported(message()).hint("try `--runtime ort`"))?;
            *all = Some(Array { dtype, shape: [&[0], &shape[..]].concat(), data: Vec::new() });
        }
        Ok(states.into_iter().chain(handed.into_iter().flatten()).collect())
    }

    fn missing(&self, v: ValueId) -> Error {
        Error::internal(format!("value `{}` is not computed", self.graph.value(v).name))
    }

    fn node(&self, id: NodeId, known: &Values, go_on: &dyn Fn() -> Result<()>) -> Result<Vec<Array<f64>>> {
        let node = self.graph.node(id);
        let operand = |v: ValueId| {
            let array = self.content(known, v)?;
            Ok(View { dtype: array.dtype, shape: &array.shape, data: &array.data })
        };
        let operands = node.inputs.iter().map(|v| v.map(operand).transpose()).collect::<Result<Vec<_>>>()?;
        ops::forward_while(&node.op, &operands, self.results(id), MOST_ELEMENTS, go_on)
    }

    /// A layer, compiled for operands of these shapes.
    fn layer(&self, id: NodeId, known: &Values, device: &dyn Device) -> Result<Vec<Array<f64>>> {
        let node = self.graph.node(id);
        let mut facts = Facts { values: vec![None; self.graph.values.len()] };
        let mut inputs = Vec::new();
        for &v in node.inputs.iter().flatten().filter(|v| facts.get(**v).is_none()).collect::<Vec<_>>() {
            match self.weights.get(&v) {
                Some(weight) => facts.set(v, ValueFact::of(weight.clone())),
                None => {
                    let array = self.content(known, v)?;
                    facts.set(v, ValueFact::new(array.dtype, array.shape.clone(), None));
                    inputs.push(v);
                }
            }
        }
        let operands: Vec<Option<Known>> = node.inputs.iter().map(|v| facts.get((*v)?).map(ValueFact::known)).collect();
        let shapes = ops::infer(&node.op, &operands, self.results(id))?;
        let empty = |(dtype, shape)| Array { dtype, shape, data: Vec::new() };
        let mut arrays: Vec<Array<f64>> = shapes.into_iter().map(empty).collect();
        if arrays.iter().all(|a| a.shape.contains(&0)) {
            return Ok(arrays);
        }
        let outputs: Vec<ValueId> = node.outputs.iter().copied().flatten().collect();
        for (&v, array) in outputs.iter().zip(&arrays) {
            facts.set(v, ValueFact::new(array.dtype, array.shape.clone(), None));
        }
        let row = |&v: &ValueId| Ok(Rows::new(1, self.content(known, v)?.data.iter().map(|&x| x as f32).collect()));
        let rows = inputs.iter().map(row).collect::<Result<Vec<_>>>()?;
        let region = Region { nodes: vec![id], inputs, outputs, ..Region::default() };
        let ready = device.inference(&compile(&self.graph, &facts, &region)?)?;
        for (array, rows) in arrays.iter_mut().zip(ready.run(&[], &[], &rows, &RowStore::memory())?) {
            array.data = rows.row(0)?.iter().map(|&x| f64::from(x)).collect();
        }
        Ok(arrays)
    }

    /// Results of node `id` that have a name, and those in front of them.
    fn results(&self, id: NodeId) -> usize {
        let outputs = &self.graph.node(id).outputs;
        match self.graph.node(id).op {
            Op::Split { .. } => outputs.len(),
            _ => outputs.iter().rposition(Option::is_some).map_or(0, |k| k + 1),
        }
    }
}

impl Repeated {
    fn new(body: LoopBody) -> Result<Self> {
        let (facts, outputs) = (constants(&body.graph), body.graph.outputs.clone());
        let size = |d: &Dim| if let Dim::Known(n) = d { *n } else { 0 };
        let declared = |&v: &ValueId| {
            let fact = &body.graph.value(v).fact;
            (fact.dtype, fact.shape.iter().flatten().map(size).collect())
        };
        // Behind the condition there are as many states as the body has inputs of its own beyond two.
        let states = body.graph.inputs.len().saturating_sub(2 + body.captures.len());
        let handed = outputs.iter().skip(1 + states).map(declared).collect();
        Ok(Repeated { captures: body.captures, handed, body: Stepwise::new(body.graph, &facts, &outputs, body.inner)? })
    }
}

/// The facts of constants alone: what a body is given may have other sizes in each iteration.
fn constants(graph: &Graph) -> Facts {
    Facts { values: graph.values.iter().map(|v| v.constant.clone().map(ValueFact::of)).collect() }
}

/// The single element of `array`.
fn single(array: &Array<f64>, what: &str) -> Result<f64> {
    match array.data[..] {
        [x] => Ok(x),
        _ => Err(Error::data(format!("{what} has {} elements, expected one", array.data.len()))),
    }
}

/// Puts `array` behind those of earlier iterations, along a new first axis.
fn hand(all: &mut Option<Array<f64>>, array: Array<f64>) -> Result<()> {
    let all = all.get_or_insert_with(|| {
        let shape = [&[0], &array.shape[..]].concat();
        Array { dtype: array.dtype, shape, data: Vec::new() }
    });
    if all.shape[1..] != array.shape || all.dtype != array.dtype {
        let message =
            format!("a Loop hands out an array of shape {:?} after one of {:?}", array.shape, &all.shape[1..]);
        return Err(Error::data(message));
    }
    if all.data.len() + array.data.len() > MOST_ELEMENTS {
        let message = format!("a Loop hands out more than {MOST_ELEMENTS} elements, which are not computed here");
        return Err(Error::unsupported(message).hint("try `--runtime ort`"));
    }
    all.shape[0] += 1;
    all.data.extend(array.data);
    Ok(())
}

/// What node `id` reads, its body included.
fn operands(graph: &Graph, id: NodeId) -> impl Iterator<Item = ValueId> {
    let node = graph.node(id);
    node.inputs.iter().flatten().chain(&node.captures).copied()
}

/// The nodes on which `outputs` depend and whose results have no `facts`, in order; `loops` are those of the graph. An error
/// where a node cannot be run.
pub fn needed(graph: &Graph, facts: &Facts, outputs: &[ValueId], loops: &LoopBodies) -> Result<Vec<NodeId>> {
    let mut needed: BTreeSet<ValueId> = outputs.iter().copied().collect();
    let mut nodes = Vec::new();
    for id in graph.node_ids().rev() {
        let node = graph.node(id);
        if !node.outputs.iter().flatten().any(|v| needed.contains(v) && facts.get(*v).is_none()) {
            continue;
        }
        if let Some(LoopBody { graph: body, inner, .. }) = loops.get(&id) {
            needed_of(body, inner).map_err(|e| e.at(graph.describe(id)))?;
        } else if let Op::Opaque { kind, .. } = &node.op {
            let error = Error::unsupported(format!("operator {kind} cannot be run here")).at(graph.describe(id));
            return Err(error.hint("try `--runtime ort`; detections made elsewhere are measured with --detections"));
        }
        needed.extend(operands(graph, id));
        nodes.push(id);
    }
    nodes.reverse();
    Ok(nodes)
}

/// An error where a body cannot be run.
fn needed_of(body: &Graph, inner: &LoopBodies) -> Result<()> {
    needed(body, &constants(body), &body.outputs, inner).map(drop)
}

/// Whether `op` takes long enough to be compiled for its operands.
fn is_layer(op: &Op) -> bool {
    op.weight_index().is_some()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::device::processors;
    use crate::engine::facts;
    use crate::error::Kind;
    use crate::graph::testing::Builder;
    use crate::graph::{Binary, Dim};
    use crate::tensor::Data;
    use std::cell::Cell;

    /// Rows of x with a first element above 0, times a matrix; and how many they are.
    fn network(opaque: bool) -> Graph {
        let mut b = Builder::new();
        let x = b.input("x", vec![Dim::Known(4), Dim::Known(2)]);
        let [zero, one, axis] = [0, 1, 1].map(|i| Tensor::i64s(vec![i]));
        let [zero, one, axis] = [("zero", zero), ("one", one), ("axis", axis)].map(|(n, t)| b.graph.add_constant(n, t));
        let first = b.node(Op::Slice, &[x, zero, one, axis]);
        let first = b.node(Op::Squeeze, &[first, axis]);
        let nothing = b.graph.add_constant("nothing", Tensor::scalar(0.0));
        let mask = b.node(Op::Binary(Binary::Greater), &[first, nothing]);
        let found = b.node(Op::NonZero, &[mask]);
        let index = b.node(Op::Squeeze, &[found, zero]);
        let rows = b.node(Op::Gather { axis: 0 }, &[x, index]);
        let w = b.graph.add_constant("w", Tensor::f32(&[2, 3], vec![1.0, 2.0, 3.0, 10.0, 20.0, 30.0]));
        let op = if opaque { Op::Opaque { domain: String::new(), kind: "Strange".into() } } else { Op::MatMul };
        let y = b.node(op, &[rows, w]);
        let count = b.node(Op::Shape { start: 0, end: Some(1) }, &[y]);
        b.finish(&[y, count, first])
    }

    #[test]
    fn shapes_are_those_that_arise() {
        let graph = network(false);
        let facts = facts::infer(&graph, &[vec![4, 2]]).unwrap();
        let stepwise = Stepwise::new(graph.clone(), &facts, &graph.outputs, LoopBodies::new()).unwrap();
        let device = processors(1).unwrap();
        let run = |x: [f32; 8]| {
            let first: Vec<f32> = x.iter().step_by(2).copied().collect();
            let mask: Vec<f32> = first.iter().map(|&v| f32::from(u8::from(v > 0.0))).collect();
            let of = |v: ValueId| match graph.value(v).name.as_str() {
                "x" => x.to_vec(),
                _ if v == graph.outputs[2] => first.clone(),
                _ => mask.clone(),
            };
            let values: Vec<Vec<f32>> = stepwise.inputs().map(of).collect();
            stepwise.run(&values.iter().map(|v| &v[..]).collect::<Vec<_>>(), &device, &|| Ok(())).unwrap()
        };
        let found = run([-1.0, 5.0, 2.0, 1.0, 0.0, 0.0, 3.0, -1.0]);
        assert_eq!(
            (&found[0].shape[..], &found[0].data[..]),
            (&[2, 3][..], &[12.0, 24.0, 36.0, -7.0, -14.0, -21.0][..])
        );
        assert_eq!(
            (found[1].dtype, &found[1].data[..], &found[2].data[..]),
            (DType::I64, &[2.0][..], &[-1.0, 2.0, 0.0, 3.0][..])
        );
        let none = run([0.0; 8]);
        assert_eq!((&none[0].shape[..], none[0].data.len(), &none[1].data[..]), (&[0, 3][..], 0, &[0.0][..]));
    }

    #[test]
    fn only_the_branch_that_is_chosen_is_computed() {
        // The elements of x above 0 times the first of them; x where there are none.
        let mut b = Builder::new();
        let x = b.input("x", vec![Dim::Known(3)]);
        let nothing = b.graph.add_constant("nothing", Tensor::scalar(0.0));
        let mask = b.node(Op::Binary(Binary::Greater), &[x, nothing]);
        let found = b.node(Op::NonZero, &[mask]);
        let axis = b.graph.add_constant("axis", Tensor::i64s(vec![0]));
        let index = b.node(Op::Squeeze, &[found, axis]);
        let above = b.node(Op::Gather { axis: 0 }, &[x, index]);
        let size = b.node(Op::Shape { start: 0, end: None }, &[above]);
        let none = b.graph.add_constant("none", Tensor::i64s(vec![0]));
        let empty = b.node(Op::Binary(Binary::Equal), &[size, none]);
        let zero = b.graph.add_constant("zero", Tensor::new(vec![], Data::I64(vec![0])).unwrap());
        let first = b.node(Op::Gather { axis: 0 }, &[above, zero]);
        let first = b.node(Op::Binary(Binary::Mul), &[above, first]);
        let y = b.node(Op::Choice, &[empty, x, first]);
        let again = b.node(Op::Choice, &[empty, y, above]);
        let graph = b.finish(&[y, again]);
        let facts = facts::infer(&graph, &[vec![3]]).unwrap();
        let stepwise = Stepwise::new(graph.clone(), &facts, &graph.outputs, LoopBodies::new()).unwrap();
        let device = processors(1).unwrap();
        let run = |x: [f32; 3]| {
            let mask: Vec<f32> = x.iter().map(|&v| f32::from(u8::from(v > 0.0))).collect();
            let of = |v: ValueId| if v == graph.inputs[0] { x.to_vec() } else { mask.clone() };
            let values: Vec<Vec<f32>> = stepwise.inputs().map(of).collect();
            let found = stepwise.run(&values.iter().map(|v| &v[..]).collect::<Vec<_>>(), &device, &|| Ok(())).unwrap();
            found.into_iter().map(|array| array.data).collect::<Vec<_>>()
        };
        assert_eq!(run([-1.0, 2.0, 3.0]), [[4.0, 6.0], [2.0, 3.0]]);
        // There is no first element.
        assert_eq!(run([-1.0, -2.0, -3.0]), [[-1.0, -2.0, -3.0], [-1.0, -2.0, -3.0]]);
    }

    #[test]
    fn sizes_that_data_ask_for_have_an_end() {
        // Zeros, 2³⁶ for each element of x above 0.
        let mut b = Builder::new();
        let x = b.input("x", vec![Dim::Known(2)]);
        let nothing = b.graph.add_constant("nothing", Tensor::scalar(0.0));
        let mask = b.node(Op::Binary(Binary::Greater), &[x, nothing]);
        let found = b.node(Op::NonZero, &[mask]);
        let size = b.node(Op::Shape { start: 0, end: None }, &[found]);
        let many = b.graph.add_constant("many", Tensor::i64s(vec![1, 1 << 36]));
        let size = b.node(Op::Binary(Binary::Mul), &[size, many]);
        let y = b.node(Op::ConstantOfShape { value: Arc::new(Tensor::f32(&[1], vec![0.0])) }, &[size]);
        let graph = b.finish(&[y]);
        let facts = facts::infer(&graph, &[vec![2]]).unwrap();
        let stepwise = Stepwise::new(graph.clone(), &facts, &graph.outputs, LoopBodies::new()).unwrap();
        let device = processors(1).unwrap();
        let run = |mask: [f32; 2]| stepwise.run(&vec![&mask[..]; stepwise.inputs().count()], &device, &|| Ok(()));
        assert_eq!(run([0.0, 0.0]).unwrap()[0].shape, [1, 0]);
        let error = run([1.0, 1.0]).err().unwrap().to_string();
        assert!(error.contains("the results would have 137438953472 elements, more than 134217728 "), "{error}");
    }

    /// x doubled while `condition` holds, in a Loop without a number of iterations.
    fn endless(condition: bool) -> (Graph, LoopBodies) {
        let mut b = Builder::new();
        let [_, on, s] = ["i", "on", "s"].map(|name| b.input(name, Vec::new()));
        let next = b.node(Op::Binary(Binary::Add), &[s, s]);
        let on = b.node(Op::Identity, &[on]);
        let body = b.finish(&[on, next]);
        let mut b = Builder::new();
        let x = b.input("x", Vec::new());
        let zero = b.graph.add_constant("zero", Tensor::scalar(f32::from(u8::from(!condition))));
        let none = b.graph.add_constant("nothing", Tensor::scalar(0.0));
        let on = b.node(Op::Binary(Binary::Equal), &[zero, none]);
        let looped = b.node(Op::Opaque { domain: String::new(), kind: "Loop".into() }, &[on, on, x]);
        let mut graph = b.finish(&[looped]);
        graph.nodes[1].inputs[0] = None;
        let body = LoopBody { graph: body, captures: Vec::new(), inner: LoopBodies::new() };
        (graph, LoopBodies::from([(NodeId(1), body)]))
    }

    #[test]
    fn loops_end() {
        let device = processors(1).unwrap();
        let run = |condition| {
            let (graph, loops) = endless(condition);
            let facts = facts::infer(&graph, &[Vec::new()]).unwrap();
            let stepwise = Stepwise::new(graph.clone(), &facts, &graph.outputs, loops).unwrap();
            stepwise.run(&[&[3.0]], &device, &|| Ok(()))
        };
        assert_eq!(run(false).unwrap()[0].data, [3.0]);
        let error = run(true).err().unwrap().to_string();
        assert!(
            error.contains("the Loops take more than 65536 iterations, which are not computed here; try"),
            "{error}"
        );
    }

    #[test]
    fn a_search_among_boxes_can_be_stopped() {
        // Boxes beside each other, all of which stay: each is compared with those before it.
        const BOXES: usize = 200;
        let mut b = Builder::new();
        let boxes: Vec<f32> = (0..BOXES).flat_map(|i| [0.0, 2.0 * i as f32, 1.0, 2.0 * i as f32 + 1.0]).collect();
        let boxes = b.graph.add_constant("boxes", Tensor::f32(&[1, BOXES, 4], boxes));
        let scores = b.input("scores", [1, 1, BOXES].map(Dim::Known).to_vec());
        let most = b.graph.add_constant("most", Tensor::i64s(vec![BOXES as i64]));
        let overlap = b.graph.add_constant("overlap", Tensor::f32(&[1], vec![0.5]));
        let found = b.node(Op::NonMaxSuppression { centres: false }, &[boxes, scores, most, overlap]);
        let graph = b.finish(&[found]);
        let facts = facts::infer(&graph, &[vec![1, 1, BOXES]]).unwrap();
        let stepwise = Stepwise::new(graph.clone(), &facts, &graph.outputs, LoopBodies::new()).unwrap();
        let device = processors(1).unwrap();
        let asked = Cell::new(0);
        let run = |last: usize| {
            asked.set(0);
            let scores: Vec<f32> = (0..BOXES).map(|i| i as f32).collect();
            stepwise.run(&[&scores], &device, &|| match asked.replace(asked.get() + 1) < last {
                true => Ok(()),
                false => Err(Error::new(Kind::Interrupted, "stopped on request")),
            })
        };
        let rows = run(usize::MAX).unwrap().remove(0);
        assert_eq!((rows.dtype, &rows.shape[..], rows.data[2]), (DType::I64, &[BOXES, 3][..], BOXES as f64 - 1.0));
        assert_eq!(asked.get(), 1 + BOXES, "before the node and before each box");
        assert_eq!(run(50).err().unwrap().kind(), Kind::Interrupted);
        assert_eq!(asked.get(), 51);
    }

    #[test]
    fn what_cannot_be_run_is_named() {
        let graph = network(true);
        let facts = facts::infer(&graph, &[vec![4, 2]]).unwrap();
        let error = Stepwise::new(graph.clone(), &facts, &graph.outputs, LoopBodies::new()).err().unwrap().to_string();
        assert!(error.contains("(Strange): operator Strange cannot be run here; try `--runtime ort`; "), "{error}");
        assert!(Stepwise::new(graph.clone(), &facts, &graph.outputs[2..], LoopBodies::new()).is_ok(), "not needed");
    }
}
