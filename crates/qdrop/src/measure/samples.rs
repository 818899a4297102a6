//! What a run demands of its samples, and a view of them that is checked.

use crate::data::{Geometry, Pixels, Samples, Target};
use crate::engine::facts;
use crate::error::{Error, Result};
use crate::graph::Graph;
use crate::probe::input_shapes;
use crate::tensor::{DType, Tensor};

/// That every sample has a label within the classes of `graph` (simplified), counted in its first output; `shapes` are
/// those of one sample, without the batch axis. No sample is decoded for it.
pub fn check_labels(graph: &Graph, shapes: &[Vec<usize>], samples: &dyn Samples) -> Result<()> {
    let facts = facts::infer(graph, &input_shapes(graph, Some(shapes))?)?;
    let Some(&scores) = graph.outputs.first() else {
        return Err(Error::model("the network has no output"));
    };
    check_classes(facts.require(graph, scores)?.numel(), samples)
}

/// That every sample has a label within so many `classes`.
pub(super) fn check_classes(classes: usize, samples: &dyn Samples) -> Result<()> {
    for i in 0..samples.len() {
        let place = || format!("sample `{}`", samples.name(i));
        match samples.label(i) {
            None => {
                let hint = "give one sub-folder per class, a CSV file with lines file,label, or an integer array `labels` in an .npz file";
                return Err(Error::data("expected a label, got none").at(place()).hint(hint));
            }
            Some(label) if label >= classes => {
                let last = classes.saturating_sub(1);
                let message = format!("label {label} is out of range, the network has {classes} classes (0 to {last})");
                return Err(Error::data(message).at(place()));
            }
            Some(_) => {}
        }
    }
    Ok(())
}

/// A sample set whose every sample is checked when it is read: shapes and types as the network wants them.
pub struct Checked<'a> {
    inner: &'a dyn Samples,
    shapes: Vec<Vec<usize>>,
    dtypes: Vec<Option<DType>>,
    inputs: Vec<String>,
    /// Bytes that count as held beside those of the set.
    beside: u64,
}

impl<'a> Checked<'a> {
    /// Checks `inner` against the inputs of `graph` and `shapes` (of one sample, no batch axis). An error when the
    /// set is empty or `shapes` do not fit the graph.
    pub fn new(graph: &Graph, shapes: &[Vec<usize>], inner: &'a dyn Samples) -> Result<Self> {
        if inner.is_empty() {
            return Err(Error::data("expected samples, got none"));
        }
        input_shapes(graph, Some(shapes))?;
        Ok(Checked {
            inner,
            shapes: shapes.to_vec(),
            dtypes: graph.inputs.iter().map(|&v| graph.value(v).fact.dtype).collect(),
            inputs: graph.inputs.iter().map(|&v| graph.value(v).name.clone()).collect(),
            beside: 0,
        })
    }

    /// The same, of which `bytes` more count as held: what the caller has in memory for as long.
    #[must_use]
    pub fn beside(self, bytes: u64) -> Self {
        Checked { beside: bytes, ..self }
    }

    fn check(&self, tensors: &[Tensor]) -> Result<()> {
        if tensors.len() != self.inputs.len() {
            let message = format!("the network has {} inputs, the sample has {}", self.inputs.len(), tensors.len());
            return Err(Error::data(message));
        }
        for (i, tensor) in tensors.iter().enumerate() {
            let place = || format!("input `{}`", self.inputs[i]);
            if tensor.shape() != self.shapes[i] {
                let message = format!("expected shape {:?}, got {:?}", self.shapes[i], tensor.shape());
                return Err(Error::data(message).at(place()));
            }
            if let Some(want) = self.dtypes[i]
                && want != tensor.dtype()
            {
                let message = format!("expected elements of type {want:?}, got {:?}", tensor.dtype());
                return Err(Error::data(message).at(place()));
            }
        }
        Ok(())
    }
}

impl Samples for Checked<'_> {
    fn len(&self) -> usize {
        self.inner.len()
    }

    fn get(&self, index: usize) -> Result<Vec<Tensor>> {
        let tensors = self.inner.get(index)?;
        self.check(&tensors).map_err(|e| e.at(format!("sample `{}`", self.inner.name(index))))?;
        Ok(tensors)
    }

    fn label(&self, index: usize) -> Option<usize> {
        self.inner.label(index)
    }

    fn target(&self, index: usize) -> Result<Option<Target>> {
        self.inner.target(index)
    }

    fn tokens(&self, index: usize) -> Option<usize> {
        self.inner.tokens(index)
    }

    fn geometry(&self, index: usize) -> Option<Geometry> {
        self.inner.geometry(index)
    }

    fn picture(&self, index: usize) -> Result<Option<Pixels>> {
        self.inner.picture(index)
    }

    fn name(&self, index: usize) -> String {
        self.inner.name(index)
    }

    fn skipped(&self) -> usize {
        self.inner.skipped()
    }

    fn held_bytes(&self) -> u64 {
        self.inner.held_bytes() + self.beside
    }

    fn input_names(&self) -> Option<Vec<String>> {
        self.inner.input_names()
    }

    fn source(&self) -> Option<String> {
        self.inner.source()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::Subset;
    use crate::data::testing::samples;
    use crate::graph::{Dim, Fact};

    #[test]
    fn bad_samples_are_named() {
        struct Wide;
        impl Samples for Wide {
            fn len(&self) -> usize {
                2
            }
            fn get(&self, index: usize) -> Result<Vec<Tensor>> {
                Ok(vec![Tensor::f32(&[index + 1], vec![0.0; index + 1])])
            }
            fn label(&self, _: usize) -> Option<usize> {
                None
            }
            fn name(&self, index: usize) -> String {
                format!("row {index}")
            }
        }
        let graph = graph();
        let checked = Checked::new(&graph, &[vec![1]], &Wide).unwrap();
        assert!(checked.get(0).is_ok());
        let error = checked.get(1).unwrap_err();
        assert_eq!(error.to_string(), "sample `row 1`: input `x`: expected shape [1], got [2]");
        assert!(Checked::new(&graph, &[vec![2]], &Wide).is_err());
        assert!(Checked::new(&graph, &[vec![1]], &Subset::first(Wide, 0)).is_err());
    }

    #[test]
    fn labels_must_be_classes() {
        // The network hands its one input out as its one class.
        let check = |labels| check_labels(&graph(), &[vec![1]], &samples(&[1], vec![0.0; 2], labels));
        assert!(check(Some(vec![0, 0])).is_ok());
        let error = check(Some(vec![0, 1])).unwrap_err();
        assert_eq!(error.to_string(), "sample `row 1`: label 1 is out of range, the network has 1 classes (0 to 0)");
        assert_eq!(check(None).unwrap_err().message(), "expected a label, got none");
    }

    fn graph() -> Graph {
        let mut graph = Graph::default();
        let fact = Fact { dtype: Some(DType::F32), shape: Some(vec![Dim::Symbol("n".into()), Dim::Known(1)]) };
        let x = graph.add_value("x", fact);
        graph.inputs.push(x);
        graph.outputs.push(x);
        graph
    }
}
