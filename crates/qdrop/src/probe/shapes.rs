//! Shapes of a network's inputs: what the file declares against what samples have.

use crate::error::{Error, Result};
use crate::graph::{Dim, Graph, ValueId};

/// Shapes of the graph's inputs for one sample, with a batch axis of 1 where [`Graph::batch_axes`] has one, from the shapes
/// of a sample or, without them, from what the file declares.
pub fn input_shapes(graph: &Graph, sample_shapes: Option<&[Vec<usize>]>) -> Result<Vec<Vec<usize>>> {
    let axes = graph.batch_axes();
    let Some(shapes) = sample_shapes else {
        return graph.inputs.iter().zip(axes).map(|(&v, axis)| declared(graph, v, axis)).collect();
    };
    if shapes.len() != graph.inputs.len() {
        let message = format!("the network has {} inputs, the samples have {}", graph.inputs.len(), shapes.len());
        return Err(Error::data(message));
    }
    let one = |(i, shape): (usize, &Vec<usize>)| {
        let whole = graph.input_shape(i, shape);
        fits(graph, graph.inputs[i], axes[i], shape, &whole)?;
        Ok(whole)
    };
    shapes.iter().enumerate().map(one).collect()
}

/// Shapes of one sample, without the batch axis, when the file declares every size but the batch's.
pub fn declared_shapes(graph: &Graph) -> Option<Vec<Vec<usize>>> {
    Some(sample_shapes(graph, &input_shapes(graph, None).ok()?))
}

/// Whether the file fixes a batch of several samples, or several are what it takes for one.
pub fn several_at_once(graph: &Graph) -> bool {
    let size = |(&v, axis): (&ValueId, Option<usize>)| graph.value(v).fact.shape.as_ref()?.get(axis?).cloned();
    graph.inputs.iter().zip(graph.batch_axes()).filter_map(size).any(|d| matches!(d, Dim::Known(n) if n != 1))
}

/// Shapes of one sample, without the batch axis, of inputs of the shapes `whole`.
pub fn sample_shapes(graph: &Graph, whole: &[Vec<usize>]) -> Vec<Vec<usize>> {
    let one = |(shape, axis): (&Vec<usize>, Option<usize>)| {
        let mut shape = shape.clone();
        if let Some(axis) = axis.filter(|&a| a < shape.len()) {
            shape.remove(axis);
        }
        shape
    };
    whole.iter().zip(graph.batch_axes()).map(one).collect()
}

/// The declared shape of `input` with a batch of 1 along `axis`.
fn declared(graph: &Graph, input: ValueId, axis: Option<usize>) -> Result<Vec<usize>> {
    let value = graph.value(input);
    let open = |what: &str| {
        let error = Error::unsupported(format!("the file leaves {what} open"));
        error.at(format!("input `{}`", value.name)).hint("give it with --shape, batch first, such as 1,3,224,224")
    };
    let Some(dims) = &value.fact.shape else { return Err(open("its shape")) };
    let size = |(i, dim): (usize, &Dim)| match dim {
        _ if Some(i) == axis => Ok(1),
        Dim::Known(n) => Ok(*n),
        Dim::Symbol(name) => Err(open(&format!("size {i} (`{name}`)"))),
        Dim::Unknown => Err(open(&format!("size {i}"))),
    };
    dims.iter().enumerate().map(size).collect()
}

/// That a sample of `shape`, with its batch along `axis` of the shape `whole`, fits what the file declares about `input`.
fn fits(graph: &Graph, input: ValueId, axis: Option<usize>, shape: &[usize], whole: &[usize]) -> Result<()> {
    let value = graph.value(input);
    let Some(dims) = &value.fact.shape else { return Ok(()) };
    let agree = |(i, (dim, &n)): (usize, (&Dim, &usize))| match dim {
        Dim::Known(k) => *k == n || (Some(i) == axis && n == 1),
        _ if Some(i) == axis => n == 1,
        _ => true,
    };
    if dims.len() == whole.len() && dims.iter().zip(whole).enumerate().all(agree) {
        return Ok(());
    }
    let show = |dim: &Dim| match dim {
        Dim::Known(n) => n.to_string(),
        Dim::Symbol(name) => name.clone(),
        Dim::Unknown => "?".into(),
    };
    let want: Vec<String> = dims.iter().enumerate().filter(|(i, _)| Some(*i) != axis).map(|(_, d)| show(d)).collect();
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
