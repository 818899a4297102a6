//! Simplification of a graph without changing what it computes: an ordered list of passes, with a check of the graph
//! after each.

mod affine;
mod constants;
mod edit;
mod noops;
mod order;
mod pads;
mod products;
mod single;

use crate::engine::facts::Facts;
use crate::error::{Error, Kind, Result};
use crate::graph::{Dim, Graph, ValueId};
use crate::tensor::DType;

/// Shapes of the network inputs for one sample, as far as known.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct InputShapes {
    samples: Vec<Option<Vec<usize>>>,
}

impl InputShapes {
    /// Nothing is known but what the model declares.
    pub fn declared() -> Self {
        Self::default()
    }

    /// Shapes of one sample, in the order of the graph's inputs; `None` where unknown.
    pub fn of_samples(samples: Vec<Option<Vec<usize>>>) -> Self {
        InputShapes { samples }
    }

    /// Shapes of all inputs of `graph`, batch axis included, for `batch` samples where the model leaves the batch open.
    /// `None` when a dimension is neither declared nor known from a sample.
    pub fn concrete(&self, graph: &Graph, batch: usize) -> Option<Vec<Vec<usize>>> {
        self.changed(graph, batch, |size| size)
    }

    /// The same, with other sizes where the model leaves more than the batch open.
    pub(super) fn changed(
        &self,
        graph: &Graph,
        batch: usize,
        change: impl Fn(usize) -> usize,
    ) -> Option<Vec<Vec<usize>>> {
        let axes = graph.batch_axes();
        let one = |i: usize, v| {
            let sample = self.samples.get(i).and_then(|s| s.as_ref()).map(|s| graph.input_shape(i, s));
            let declared = graph.value(v).fact.shape.as_ref();
            let size = |axis: usize, n: usize| if Some(axis) == axes[i] { batch } else { change(n) };
            let Some(declared) = declared else {
                return sample.map(|s| s.iter().enumerate().map(|(axis, &n)| size(axis, n)).collect());
            };
            let dim = |(axis, dim): (usize, &Dim)| match dim {
                Dim::Known(n) => Some(*n),
                _ if Some(axis) == axes[i] => Some(batch),
                _ => sample.as_ref()?.get(axis).map(|&n| size(axis, n)),
            };
            declared.iter().enumerate().map(dim).collect()
        };
        graph.inputs.iter().enumerate().map(|(i, &v)| one(i, v)).collect()
    }

    /// Whether `graph` leaves a size open at one of its inputs.
    pub fn open(graph: &Graph) -> bool {
        graph.inputs.iter().any(|&v| match &graph.value(v).fact.shape {
            Some(shape) => shape.iter().any(|d| !matches!(d, Dim::Known(_))),
            None => true,
        })
    }
}

/// What passes may know besides the graph.
pub struct Context {
    /// Input shapes.
    pub shapes: InputShapes,
}

/// A pass: changes the graph without changing what it computes, and says whether it changed anything.
pub type Pass = fn(&mut Graph, &Context) -> Result<bool>;

/// All passes in the order of running.
pub const PASSES: &[(&str, Pass)] = &[
    ("compute in float32", single::widen),
    ("fold constants", constants::fold),
    ("make reshapes constant", constants::fix_reshapes),
    ("remove dead code", edit::remove_dead_code),
    ("remove no-ops", noops::remove),
    ("fold padding into convolutions", pads::fold),
    ("split normalisation of joined branches", affine::split_over_concat),
    ("fold scales and shifts into layers", affine::fold),
    ("make matrix products with a bias Gemm", products::unify),
    ("remove dead code again", edit::remove_dead_code),
    ("put nodes in order", order::depth_first),
];

/// Runs all passes over `graph`. What cannot be derived because input shapes are unknown is left as it is.
pub fn simplify(graph: &mut Graph, shapes: &InputShapes) -> Result<()> {
    let context = Context { shapes: shapes.clone() };
    for (name, pass) in PASSES {
        pass(graph, &context).map_err(|e| e.at(format!("pass `{name}`")))?;
        graph.check().map_err(|e| {
            Error::new(Kind::Internal, format!("the graph is broken after it: {e}")).at(format!("pass `{name}`"))
        })?;
    }
    Ok(())
}

/// Element types of all values of `graph` and their sizes, as far as they are the same for every batch and open size;
/// nothing where input shapes are unknown.
pub fn fixed(graph: &Graph, shapes: &InputShapes) -> Result<Option<Fixed>> {
    let found = constants::facts(graph, &Context { shapes: shapes.clone() })?;
    Ok(found.map(|(one, two)| Fixed { one, two }))
}

/// What [`fixed`] found.
pub struct Fixed {
    one: Facts,
    two: Facts,
}

impl Fixed {
    /// Element type and sizes of `value`, if it can be computed.
    pub fn get(&self, value: ValueId) -> Option<(DType, Vec<Option<usize>>)> {
        let (one, two) = (self.one.get(value)?, self.two.get(value)?);
        let same = |(&a, &b): (&usize, &usize)| (a == b).then_some(a);
        let alike = one.shape.len() == two.shape.len();
        alike.then(|| (one.dtype, one.shape.iter().zip(&two.shape).map(same).collect()))
    }

    /// Whether two values can be computed and have one type and one shape, whatever sizes are open.
    pub fn alike(&self, [a, b]: [ValueId; 2]) -> bool {
        [&self.one, &self.two].into_iter().all(|facts| match (facts.get(a), facts.get(b)) {
            (Some(a), Some(b)) => (a.dtype, &a.shape) == (b.dtype, &b.shape),
            _ => false,
        })
    }
}

#[cfg(test)]
mod tests;
