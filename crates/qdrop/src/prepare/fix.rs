//! Inputs and sizes that get one value for good.

use crate::error::{Error, Result};
use crate::graph::{Dim, Graph};
use crate::tensor::{DType, Tensor};
use std::sync::Arc;

/// Gives the input of `graph` that is called `name` the content `values` for good, one number for all its elements or one
/// each, so that samples need not hold it; or gives every size that is called `name` the one value. An error when there is
/// no such input or size, when an input's sizes beside the batch are open, or when `values` do not fit.
pub fn fix(graph: &mut Graph, name: &str, values: &[f64]) -> Result<()> {
    let place = || format!("--fix {name}");
    let Some(index) = graph.inputs.iter().position(|&v| graph.value(v).name == name) else {
        return fix_size(graph, name, values).map_err(|e| e.at(place()));
    };
    let (axis, input) = (graph.batch_axes()[index], graph.inputs[index]);
    let fact = graph.value(input).fact.clone();
    let size = |(i, dim): (usize, &Dim)| match dim {
        Dim::Known(n) => Ok(*n),
        _ if Some(i) == axis => Ok(1),
        Dim::Symbol(symbol) => {
            let error = Error::data(format!("the file leaves size {i} (`{symbol}`) of the input open"));
            Err(error.at(place()).hint(format!("fix that size first: --fix {symbol}=1")))
        }
        Dim::Unknown => Err(Error::data(format!("the file leaves size {i} of the input open")).at(place())),
    };
    let shape: Vec<usize> = fact.shape.iter().flatten().enumerate().map(size).collect::<Result<_>>()?;
    let numel: usize = crate::tensor::checked_numel(&shape)?;
    let values = match values {
        &[value] => vec![value; numel],
        many if many.len() == numel => many.to_vec(),
        many => {
            let message = format!("expected one number or {numel}, for the shape {shape:?}, got {}", many.len());
            return Err(Error::data(message).at(place()));
        }
    };
    let tensor = Tensor::from_f64(fact.dtype.unwrap_or(DType::F32), &shape, &values).map_err(|e| e.at(place()))?;
    graph.inputs.remove(index);
    let value = graph.value_mut(input);
    value.fact.shape = Some(shape.into_iter().map(Dim::Known).collect());
    (value.constant, value.origin) = (Some(Arc::new(tensor)), None);
    Ok(())
}

/// Gives every size that is called `name` the one of `values`.
fn fix_size(graph: &mut Graph, name: &str, values: &[f64]) -> Result<()> {
    let symbols = graph.inputs.iter().flat_map(|&v| graph.value(v).fact.shape.iter().flatten());
    let mut symbols: Vec<String> =
        symbols.filter_map(|d| if let Dim::Symbol(s) = d { Some(s.clone()) } else { None }).collect();
    if !symbols.iter().any(|s| s == name) {
        let inputs = graph.inputs.iter().map(|&v| graph.value(v).name.clone());
        let mut known: Vec<String> = inputs.collect();
        known.append(&mut symbols);
        known.dedup();
        let error = Error::data(format!("the network has no input or size `{name}`"));
        return Err(error.hint(format!("it has `{}`", known.join("`, `"))));
    }
    let size = match values {
        &[n] if n >= 1.0 && n.fract() == 0.0 && n <= f64::from(u32::MAX) => n as usize,
        _ => return Err(Error::data("expected a whole number above 0 for a size")),
    };
    for dim in graph.values.iter_mut().flat_map(|v| v.fact.shape.iter_mut().flatten()) {
        if matches!(dim, Dim::Symbol(s) if s == name) {
            *dim = Dim::Known(size);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::Fact;

    #[test]
    fn inputs_and_sizes_are_fixed() {
        let mut graph = Graph::default();
        for (name, dims) in [("x", vec![Dim::Symbol("n".into()), Dim::Symbol("t".into())]), ("gain", vec![])] {
            let v = graph.add_value(name, Fact { dtype: Some(DType::F32), shape: Some(dims) });
            graph.inputs.push(v);
        }
        let error = fix(&mut graph, "x", &[1.0]).unwrap_err();
        assert_eq!(error.advice(), Some("fix that size first: --fix t=1"));
        let error = fix(&mut graph, "y", &[1.0]).unwrap_err();
        assert_eq!(error.to_string(), "--fix y: the network has no input or size `y`; it has `x`, `gain`, `n`, `t`");
        fix(&mut graph, "gain", &[1.5]).unwrap();
        assert_eq!(graph.inputs.len(), 1);
        fix(&mut graph, "t", &[2.0]).unwrap();
        assert!(fix(&mut graph, "n", &[0.5]).is_err());
        assert!(fix(&mut graph, "x", &[1.0, 2.0, 3.0]).unwrap_err().message().contains("one number or 2"));
        fix(&mut graph, "x", &[1.0, 2.0]).unwrap();
        let content: Vec<_> = graph.values.iter().map(|v| v.constant.as_deref().cloned()).collect();
        assert_eq!(content, [Some(Tensor::f32(&[1, 2], vec![1.0, 2.0])), Some(Tensor::scalar(1.5))]);
    }
}
