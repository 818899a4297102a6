//! Where a runtime leaves the values of this library's own engine.

use super::compare::{Real, add, computed, finish};
use super::deployed::Deployed;
use crate::data::Samples;
use crate::engine::device::processors;
use crate::engine::facts;
use crate::error::{Error, Result};
use crate::eval::{Comparison, Difference};
use crate::graph::{Fact, Graph, ValueId};
use crate::onnx;
use crate::plan::Recipe;
use crate::probe::{Network, Padding, each, input_shapes, is_real, shapes_of};
use crate::report::{Event, Sink, Stage};
use crate::tensor::Tensor;
use std::collections::{HashMap, HashSet};

/// The difference between a file's values in a runtime and those of a reference in this library's own engine.
#[derive(Debug, Clone, PartialEq)]
pub struct Divergence {
    /// For every value of the same name, measured on a simplified copy of the file in which all of them are outputs.
    /// Operators around an output are not fused, so the runtime may compute some of them differently than in the file
    /// itself.
    pub values: Vec<Difference>,
    /// For the outputs of the unchanged file, with operators fused as usual.
    pub outputs: Vec<Difference>,
}

/// How far the values of `deployed` are from those that the engine computes for `reference` (simplified) under the same
/// names. Values of other sizes are left out; those inside are, all of them, where the file cannot be copied, which
/// `sink` is told, and so is the padding of `samples` (whose preparation `recipe` tells).
pub fn divergence(
    reference: &Graph,
    deployed: &Deployed,
    samples: &dyn Samples,
    recipe: &Recipe,
    sink: &mut dyn Sink,
) -> Result<Divergence> {
    let shapes = shapes_of(samples)?;
    let facts = facts::infer(reference, &input_shapes(reference, Some(&shapes))?)?;
    let (want, got) = (names_of(reference, &reference.inputs), deployed.inputs().map(|i| i.0).collect::<Vec<_>>());
    if want != got {
        let message = format!("expected the inputs {} of the reference, got {}", want.join(", "), got.join(", "));
        return Err(Error::unsupported(message)
            .at(deployed.path().display())
            .hint("compare files made from the same export"));
    }
    let known = |v: &ValueId| facts.get(*v).is_some_and(|f| is_real(f.dtype) && f.constant.is_none());
    let ours: HashMap<&str, ValueId> =
        computed(reference).filter(known).map(|v| (reference.value(v).name.as_str(), v)).collect();
    let open = match open_copy(deployed, &ours, &shapes) {
        Ok(open) => Some(open),
        Err(error) => {
            let message = format!("values inside `{}` are not compared: {error}", deployed.path().display());
            sink.event(&Event::Note { message });
            None
        }
    };
    // The engine's values in their order, then the outputs.
    let width = |v: &ValueId| facts.get(*v).map(facts::ValueFact::numel);
    let first = [samples.get(0)?];
    let shared = |d: &Deployed, names: &HashSet<&str>, sink: &dyn Sink| -> Result<Vec<ValueId>> {
        let found: Vec<ValueId> =
            computed(reference).filter(|v| known(v) && names.contains(reference.value(*v).name.as_str())).collect();
        // Nothing is asked for where nothing can be computed here.
        if found.is_empty() {
            return Ok(found);
        }
        let rows = d.rows(&first, &names_of(reference, &found), d.batch().unwrap_or(1), sink)?;
        Ok(found.into_iter().zip(rows).filter(|(v, r)| width(v) == Some(r.width())).map(|(v, _)| v).collect())
    };
    let outputs = shared(deployed, &deployed.outputs().into_iter().collect(), sink)?;
    let values = match &open {
        Some(open) => shared(open, &open.outputs().into_iter().collect(), sink)?,
        None => Vec::new(),
    };
    let wanted: Vec<ValueId> = values.iter().chain(&outputs).copied().collect();
    let mut distances: Vec<Comparison> = wanted.iter().map(|&v| Comparison::new(&reference.value(v).name)).collect();
    let device = &processors(recipe.method.threads)?;
    let padding = Padding::read(reference, &facts, recipe, samples)?;
    let real = Real::new(padding.as_ref(), &facts, &wanted);
    let network = Network::new(reference, &shapes, wanted, device)?;
    let run = |d: &Deployed, values: &[ValueId], samples: &[Vec<Tensor>], sink: &dyn Sink| {
        d.rows(samples, &names_of(reference, values), d.batch().unwrap_or(1), sink)
    };
    each(
        samples,
        network.chunk..=network.chunk,
        device,
        Stage::Compare,
        sink,
        |_, inputs, sink| {
            let mut theirs = match &open {
                Some(open) => run(open, &values, inputs, sink)?,
                None => Vec::new(),
            };
            if !outputs.is_empty() {
                theirs.extend(run(deployed, &outputs, inputs, sink)?);
            }
            Ok((network.run(inputs, sink)?, theirs))
        },
        |first, (x, y)| add(&mut distances, (samples, &real), first, [&x, &y]),
    )?;
    let (inside, outside) = distances.split_at(values.len());
    Ok(Divergence { values: finish(reference, &values, inside), outputs: finish(reference, &outputs, outside) })
}

fn names_of<'a>(graph: &'a Graph, values: &[ValueId]) -> Vec<&'a str> {
    values.iter().map(|&v| graph.value(v).name.as_str()).collect()
}

/// A copy of the file that hands out every value named in `ours`. It is of the simplified network, as the reference is:
/// a convolution that a BatchNorm was folded into computes another value under its name.
fn open_copy(deployed: &Deployed, ours: &HashMap<&str, ValueId>, shapes: &[Vec<usize>]) -> Result<Deployed> {
    let mut graph = crate::prepare::prepare(&onnx::read(deployed.path())?, Some(shapes))?;
    let added: Vec<ValueId> = computed(&graph)
        .filter(|v| !graph.outputs.contains(v) && ours.contains_key(graph.value(*v).name.as_str()))
        .filter(|&v| graph.value(v).fact.dtype.is_none_or(is_real))
        .collect();
    for &v in &added {
        // The runtime infers types; what the file declares of values inside may be wrong without doing harm there.
        let value = &mut graph.values[v.0 as usize];
        (value.fact, value.origin) = (Fact::default(), None);
    }
    graph.outputs.extend(added);
    let name = format!("a copy of {} with every value as an output", deployed.path().display());
    Deployed::of_graph(deployed.library(), &graph, &name, deployed.threads())
}
