//! Shapes of a network's inputs: what the file declares against what samples have.

use crate::error::{Error, Result};
use crate::graph::{Dim, Graph, ValueId};

/// Shapes of the graph's inputs for one sample, batch axis 1 included, from the shapes of a sample or, without them,
/// from what the file declares.
pub fn input_shapes(graph: &Graph, sample_shapes: Option<&[Vec<usize>]>) -> Result<Vec<Vec<usize>>> {
    let Some(shapes) = sample_shapes else {
        return graph.inputs.iter().map(|&v| declared(graph, v)).collect();
    };
    if shapes.len() != graph.inputs.len() {
        let message = format!("the network has {} inputs, the samples have {}", graph.inputs.len(), shapes.len());
        return Err(Error::data(message));
    }
    let one = |(shape, &input): (&Vec<usize>, &ValueId)| {
        fits(graph, input, shape)?;
        Ok(std::iter::once(1).chain(shape.iter().copied()).collect())
    };
    shapes.iter().zip(&graph.inputs).map(one).collect()
}

/// Shapes of one sample, without the batch axis, when the file declares every size but the batch's.
pub fn declared_shapes(graph: &Graph) -> Option<Vec<Vec<usize>>> {
    let shapes = input_shapes(graph, None).ok()?;
    Some(shapes.into_iter().map(|s| s.get(1..).unwrap_or_default().to_vec()).collect())
}

/// The declared shape of `input` with batch 1.
fn declared(graph: &Graph, input: ValueId) -> Result<Vec<usize>> {
    let value = graph.value(input);
    let open = |what: &str| {
        let error = Error::unsupported(format!("the file leaves {what} open"));
        error.at(format!("input `{}`", value.name)).hint("give it with --shape, batch first, such as 1,3,224,224")
    };
    let Some(dims) = &value.fact.shape else { return Err(open("its shape")) };
    let size = |(i, dim): (usize, &Dim)| match dim {
        _ if i == 0 => Ok(1),
        Dim::Known(n) => Ok(*n),
        Dim::Symbol(name) => Err(open(&format!("size {i} (`{name}`)"))),
        Dim::Unknown => Err(open(&format!("size {i}"))),
    };
    dims.iter().enumerate().map(size).collect()
}

/// That a sample of `shape` (no batch axis) fits what the file declares about `input`.
fn fits(graph: &Graph, input: ValueId, shape: &[usize]) -> Result<()> {
    let value = graph.value(input);
    let Some(dims) = &value.fact.shape else { return Ok(()) };
    let agree = |(dim, &n): (&Dim, &usize)| !matches!(dim, Dim::Known(k) if *k != n);
    if dims.len() == shape.len() + 1 && dims.iter().skip(1).zip(shape).all(agree) {
        return Ok(());
    }
    let show = |dim: &Dim| match dim {
        Dim::Known(n) => n.to_string(),
        Dim::Symbol(name) => name.clone(),
        Dim::Unknown => "?".into(),
    };
    let want: Vec<String> = dims.iter().skip(1).map(show).collect();
    let message = format!("expected samples of shape [{}], got {shape:?}", want.join(", "));
    Err(Error::data(message)
        .at(format!("input `{}`", value.name))
        .hint("set the size with --resize and --crop, the order of axes with --layout, the channels with --color"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Kind;
    use crate::graph::Fact;
    use crate::tensor::DType;

    fn graph(dims: &[Dim]) -> Graph {
        let mut graph = Graph::default();
        let fact = Fact { dtype: Some(DType::F32), shape: Some(dims.to_vec()) };
        let input = graph.add_value("x", fact);
        graph.inputs.push(input);
        graph
    }

    #[test]
    fn shapes_come_from_the_file_or_the_sample() {
        let fixed = graph(&[Dim::Symbol("n".into()), Dim::Known(3), Dim::Known(8)]);
        assert_eq!(declared_shapes(&fixed), Some(vec![vec![3, 8]]));
        assert_eq!(input_shapes(&fixed, Some(&[vec![3, 8]])).unwrap(), [[1, 3, 8]]);
        let wrong = input_shapes(&fixed, Some(&[vec![3, 9]])).unwrap_err();
        assert_eq!((wrong.kind(), wrong.message()), (Kind::Data, "expected samples of shape [3, 8], got [3, 9]"));
        assert!(input_shapes(&fixed, Some(&[vec![3, 8], vec![1]])).is_err());
        let open = graph(&[Dim::Known(1), Dim::Known(3), Dim::Unknown]);
        assert_eq!(declared_shapes(&open), None);
        assert_eq!(input_shapes(&open, Some(&[vec![3, 9]])).unwrap(), [[1, 3, 9]]);
    }
}
