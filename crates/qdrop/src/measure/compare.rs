//! Distance between two networks, value by value.

use crate::data::Samples;
use crate::engine::device::{Device as _, Inference, Values, processors};
use crate::engine::facts::{self, Facts, ValueFact};
use crate::engine::program::{ProgramSite, compile};
use crate::error::{Error, Result};
use crate::eval::{Comparison, Difference};
use crate::graph::{Graph, ValueId};
use crate::plan::Recipe;
use crate::probe::{self, Network, Padding, each, input_shapes, is_real, shapes_of};
use crate::report::{Sink, Stage};
use crate::tensor::Rows;
use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

/// Distance of every float value that `a` (the reference) and `b` both compute under one name, in the order in which
/// `a` computes them. Values of different sizes are left out, and so is the padding of `samples` (whose preparation
/// `recipe` tells). Both graphs simplified.
pub fn compare(
    a: &Graph,
    b: &Graph,
    samples: &dyn Samples,
    recipe: &Recipe,
    sink: &mut dyn Sink,
) -> Result<Vec<Difference>> {
    let shapes = shapes_of(samples)?;
    let infer = |g: &Graph| facts::infer(g, &input_shapes(g, Some(&shapes))?);
    let (facts_a, facts_b) = (infer(a)?, infer(b)?);
    let (in_a, in_b) = shared((a, &facts_a), (b, &facts_b));
    let distances = in_a.iter().map(|&v| Mutex::new(Comparison::new(&a.value(v).name)));
    let distances: Vec<Mutex<Comparison>> = distances.collect();
    let padding = Padding::read(a, &facts_a, recipe, samples)?;
    let real = Real::new(padding.as_ref(), &facts_a, &in_a);
    let device = &processors(recipe.method.threads)?;
    let elements: usize = in_a.iter().filter_map(|&v| facts_a.get(v)).map(ValueFact::numel).sum();
    let ready =
        |g: &Graph, facts: &Facts, values: &[ValueId]| device.inference(&compile(g, facts, &probe::shown(g, values))?);
    let networks = [ready(a, &facts_a, &in_a)?, ready(b, &facts_b, &in_b)?];
    drop((facts_a, facts_b));
    each(
        samples,
        1..=probe::chunk(elements, device),
        device,
        Stage::Compare,
        sink,
        |first, inputs, sink| side_by_side(&networks, &probe::rows(inputs)?, (first, &real), &distances, sink),
        |first, failed| match failed {
            Some((sample, error)) => Err(error.at(format!("sample `{}`", samples.name(first + sample)))),
            None => Ok(()),
        },
    )?;
    let done = |d: Mutex<Comparison>| d.into_inner().unwrap_or_else(PoisonError::into_inner);
    Ok(finish(a, &in_a, &distances.into_iter().map(done).collect::<Vec<_>>()))
}

/// What a sample could not be compared for, with its place among the inputs.
type Failed = Option<(usize, Error)>;

/// Adds to `distances`, one a site, what the sites of both networks hold for `inputs`, those of sample `start` and the
/// following ones, as far as it is `real`. Only the values of the first network are kept, until those of the second arise.
/// The failure of the first site that has one.
fn side_by_side(
    networks: &[Box<dyn Inference>; 2],
    inputs: &[Rows],
    (start, real): (usize, &Real),
    distances: &[Mutex<Comparison>],
    sink: &dyn Sink,
) -> Result<Failed> {
    let held: Vec<Mutex<Vec<Vec<f32>>>> = distances.iter().map(|_| Mutex::default()).collect();
    networks[0].watch(inputs, &|ProgramSite(site), _, values: Values| {
        probe::go_on(sink)?;
        let mut held = held[site].lock().unwrap_or_else(PoisonError::into_inner);
        for sample in 0..values.samples() {
            let mut row = Vec::new();
            values.sample(sample, &mut row);
            held.push(row);
        }
        Ok(())
    })?;
    let failed: Vec<Mutex<Failed>> = distances.iter().map(|_| Mutex::default()).collect();
    networks[1].watch(inputs, &|ProgramSite(site), first, values: Values| {
        probe::go_on(sink)?;
        let mut failed = failed[site].lock().unwrap_or_else(PoisonError::into_inner);
        let mut held = held[site].lock().unwrap_or_else(PoisonError::into_inner);
        let mut distance = distances[site].lock().unwrap_or_else(PoisonError::into_inner);
        let mut row = Vec::new();
        for sample in 0..values.samples() {
            if failed.is_some() {
                break;
            }
            values.sample(sample, &mut row);
            let wanted = std::mem::take(&mut held[first + sample]);
            let added = real.of(site, start + first + sample, &wanted).and_then(|wanted| distance.add(&wanted, &row));
            *failed = added.err().map(|error| (first + sample, error));
        }
        Ok(())
    })?;
    Ok(failed.into_iter().find_map(|f| f.into_inner().unwrap_or_else(PoisonError::into_inner)))
}

/// What of compared values is no padding.
pub(super) struct Real<'a> {
    padding: Option<&'a Padding>,
    /// The values, and their shapes.
    values: Vec<(ValueId, Vec<usize>)>,
}

impl<'a> Real<'a> {
    /// Of `values`, of which `facts` tell.
    pub fn new(padding: Option<&'a Padding>, facts: &Facts, values: &[ValueId]) -> Self {
        let shape = |v: ValueId| facts.get(v).map_or(Vec::new(), |f| f.shape.clone());
        Real { padding, values: values.iter().map(|&v| (v, shape(v))).collect() }
    }

    /// The elements of `row`, content of the value number `place` in `sample`, that are no padding.
    pub fn part<'r>(&'r self, place: usize, sample: usize, row: &'r [f32]) -> Result<Cow<'r, [f32]>> {
        let (value, shape) = &self.values[place];
        self.padding.map_or(Ok(Cow::Borrowed(row)), |padding| Ok(padding.real_part(*value, shape, sample, row)?.0))
    }

    /// `row`, content of the value number `place` in `sample`, with NaN where there is padding.
    fn of<'r>(&self, place: usize, sample: usize, row: &'r [f32]) -> Result<Cow<'r, [f32]>> {
        let (value, shape) = &self.values[place];
        self.padding.map_or(Ok(Cow::Borrowed(row)), |padding| padding.blank_row(*value, shape, sample, row))
    }
}

/// Distance of every float value that `a` (the reference, simplified) computes and `recorded` holds under its name, as
/// arrays with one entry per sample, from what `a` computes for `samples`; in the order in which `a` computes them.
/// Nothing is compared where no name is shared. Errors: `recorded` has another number of samples, or an array whose samples
/// have another size.
pub fn compare_recorded(
    a: &Graph,
    recorded: &dyn Samples,
    samples: &dyn Samples,
    recipe: &Recipe,
    sink: &mut dyn Sink,
) -> Result<Vec<Difference>> {
    if recorded.len() != samples.len() {
        let message = format!("expected values of {} samples, got {}", samples.len(), recorded.len());
        return Err(Error::data(message).hint("record the values of the same samples"));
    }
    let names = recorded.input_names().unwrap_or_default();
    let shapes = shapes_of(samples)?;
    let facts = facts::infer(a, &input_shapes(a, Some(&shapes))?)?;
    let place = |v: &ValueId| names.iter().position(|n| *n == a.value(*v).name);
    let known = |v: &ValueId| facts.get(*v).is_some_and(|f| is_real(f.dtype) && f.constant.is_none());
    let values: Vec<ValueId> = computed(a).filter(|v| known(v) && place(v).is_some()).collect();
    let places: Vec<usize> = values.iter().filter_map(place).collect();
    let mut distances: Vec<Comparison> = values.iter().map(|&v| Comparison::new(&a.value(v).name)).collect();
    let padding = Padding::read(a, &facts, recipe, samples)?;
    let real = Real::new(padding.as_ref(), &facts, &values);
    let device = &processors(recipe.method.threads)?;
    let network = Network::new(a, &shapes, values.clone(), device)?;
    each(
        samples,
        1..=network.chunk,
        device,
        Stage::Compare,
        sink,
        |_, inputs, sink| network.run(inputs, sink),
        |first, ours| {
            for i in 0..ours.first().map_or(0, Rows::len) {
                let at = |e: Error| e.at(format!("sample `{}`", samples.name(first + i)));
                let theirs = recorded.get(first + i)?;
                for (k, ((d, x), &place)) in distances.iter_mut().zip(&ours).zip(&places).enumerate() {
                    let y = theirs[place].to_f32().map_err(at)?;
                    d.add(&real.of(k, first + i, &x.row(i)?)?, &y).map_err(at)?;
                }
            }
            Ok(())
        },
    )?;
    Ok(finish(a, &values, &distances))
}

/// Adds to `distances` the rows of values of two networks, those of the sample `first` before others, as far as they are
/// `real`.
pub(super) fn add(
    distances: &mut [Comparison],
    (samples, real): (&dyn Samples, &Real),
    first: usize,
    [x, y]: [&[Rows]; 2],
) -> Result<()> {
    for (k, (d, (x, y))) in distances.iter_mut().zip(x.iter().zip(y)).enumerate() {
        for (i, (x, y)) in x.iter().zip(y.iter()).enumerate() {
            let at = |e: Error| e.at(format!("sample `{}`", samples.name(first + i)));
            d.add(&real.of(k, first + i, &x?)?, &y?).map_err(at)?;
        }
    }
    Ok(())
}

/// Values that nodes compute, in their order.
pub(super) fn computed(graph: &Graph) -> impl Iterator<Item = ValueId> {
    graph.nodes.iter().flat_map(|n| n.outputs.iter().flatten().copied())
}

/// The `distances` of `values`, with the operators of `reference` that compute these.
pub(super) fn finish(reference: &Graph, values: &[ValueId], distances: &[Comparison]) -> Vec<Difference> {
    let producers = reference.producers();
    let operator =
        |v: &ValueId| producers[v.0 as usize].map_or(String::new(), |id| reference.node(id).op.kind().to_string());
    values.iter().zip(distances).map(|(v, d)| Difference { operator: operator(v), ..d.finish() }).collect()
}

/// Values that both graphs compute under one name with one size.
fn shared((a, facts_a): (&Graph, &Facts), (b, facts_b): (&Graph, &Facts)) -> (Vec<ValueId>, Vec<ValueId>) {
    let by_name: HashMap<&str, ValueId> = computed(b).map(|v| (b.value(v).name.as_str(), v)).collect();
    let pair = |v: ValueId| {
        let other = *by_name.get(a.value(v).name.as_str())?;
        let (x, y) = (facts_a.get(v)?, facts_b.get(other)?);
        let comparable = x.shape == y.shape && is_real(x.dtype) && is_real(y.dtype) && x.constant.is_none();
        comparable.then_some((v, other))
    };
    computed(a).filter_map(pair).unzip()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::Arrays;
    use crate::data::testing::samples;
    use crate::graph::{Dim, Fact, Node, Op, Unary};
    use crate::report::Silent;
    use crate::tensor::{DType, Tensor};

    /// relu(x · w).
    fn graph(w: [f32; 4]) -> Graph {
        let mut g = Graph { opset: 13, ..Graph::default() };
        let shape = vec![Dim::Symbol("n".into()), Dim::Known(2)];
        let x = g.add_value("x", Fact { dtype: Some(DType::F32), shape: Some(shape) });
        let w = g.add_constant("w", Tensor::f32(&[2, 2], w.to_vec()));
        let (y, z) = (g.add_value("y", Fact::default()), g.add_value("z", Fact::default()));
        g.nodes.push(Node::new("product", Op::MatMul, &[x, w], &[y]));
        g.nodes.push(Node::new("relu", Op::Unary(Unary::Relu), &[y], &[z]));
        (g.inputs, g.outputs) = (vec![x], vec![z]);
        g
    }

    fn pairs() -> Arrays {
        samples(&[2], [1.0, 2.0].repeat(40), None)
    }

    #[test]
    fn shared_values_are_compared_by_name() {
        let (a, b) = (graph([1.0, 0.0, 0.0, 1.0]), graph([1.0, 0.0, 0.0, -1.0]));
        let same = compare(&a, &a, &pairs(), &Recipe::default(), &mut Silent).unwrap();
        assert_eq!(same.iter().map(|d| d.name.as_str()).collect::<Vec<_>>(), ["y", "z"]);
        assert!(same.iter().all(|d| d.max_abs == 0.0));
        let other = compare(&a, &b, &pairs(), &Recipe::default(), &mut Silent).unwrap();
        assert_eq!((other[0].max_abs, other[1].max_abs), (4.0, 2.0));
        assert_eq!((other[0].operator.as_str(), other[1].operator.as_str()), ("MatMul", "Relu"));
    }

    #[test]
    fn recorded_values_are_found_by_name() {
        let recorded = |n: usize, names: &[&str]| {
            let values = || Tensor::f32(&[n, 2], [1.0, 1.5].repeat(n));
            Arrays::new(names.iter().map(|name| (name.to_string(), values())).collect(), None).unwrap()
        };
        let g = graph([1.0, 0.0, 0.0, 1.0]);
        let run =
            |n, names: &[&str]| compare_recorded(&g, &recorded(n, names), &pairs(), &Recipe::default(), &mut Silent);
        let found = run(40, &["z", "other"]).unwrap();
        assert_eq!(found.iter().map(|d| (d.name.as_str(), d.max_abs)).collect::<Vec<_>>(), [("z", 0.5)]);
        assert!(run(40, &["other"]).unwrap().is_empty());
        assert!(run(39, &["z"]).unwrap_err().to_string().contains("40 samples, got 39"));
    }
}
