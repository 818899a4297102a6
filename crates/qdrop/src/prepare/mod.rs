//! A network as planning, running and measuring want it: bodies in place, chosen inputs fixed, simplified.

mod fix;
mod unfold;

pub use fix::fix;

use crate::error::Result;
use crate::graph::Graph;
use crate::onnx;
use crate::passes::{self, InputShapes};
use crate::probe::input_shapes;
use unfold::{UNFOLDED, inline, unfold};

/// A cleaned copy of `graph`: functions and decided branches in place, constants and shape arithmetic folded, BatchNorm
/// folded, identities and dead code removed. `sample_shapes` are the shapes of one sample, one per graph input, without
/// the batch axis; `None` takes what the file declares.
pub fn prepare(graph: &Graph, sample_shapes: Option<&[Vec<usize>]>) -> Result<Graph> {
    let shapes = match sample_shapes {
        None => InputShapes::declared(),
        Some(shapes) => {
            input_shapes(graph, sample_shapes)?;
            InputShapes::of_samples(shapes.iter().cloned().map(Some).collect())
        }
    };
    let mut graph = graph.clone();
    onnx::inline(&mut graph)?;
    passes::simplify(&mut graph, &shapes)?;
    let most = graph.nodes.len() + UNFOLDED;
    // A folded condition may have decided on a branch, a known size on the steps of a loop.
    while inline(&mut graph, &shapes)? || unfold(&mut graph, &shapes, most)? {
        passes::simplify(&mut graph, &shapes)?;
    }
    Ok(graph)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::facts;
    use crate::graph::testing::Builder;
    use crate::graph::{Cell, Dim, Direction, Op, Recurrent};
    use crate::plan::Recipe;

    #[test]
    fn weights_of_recurrent_operators_are_no_layers() {
        let mut b = Builder::new();
        let x = b.input("x", vec![Dim::Known(5), Dim::Symbol("n".into()), Dim::Known(3)]);
        let (w, r) = (b.constant("w", &[1, 6, 3]), b.constant("r", &[1, 6, 2]));
        let y = b.node(
            Op::Recurrent(Recurrent::new(Cell::Gru { linear_before_reset: false }, Direction::Forward)),
            &[x, w, r],
        );
        let graph = b.finish(&[y]);
        let graph = prepare(&graph, None).unwrap();
        let facts = facts::infer(&graph, &[vec![5, 1, 3]]).unwrap();
        assert_eq!(facts.get(graph.outputs[0]).unwrap().shape, [5, 1, 1, 2]);
        let error = crate::plan::plan(&graph, &facts, &Recipe::default()).unwrap_err();
        assert!(error.to_string().starts_with("the network has no Conv"), "{error}");
    }
}
