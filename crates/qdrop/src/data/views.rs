//! Samples seen through a selection, or as the inputs of a network.

use super::{Samples, Target};
use crate::error::{Error, Result};
use crate::tensor::{DType, Tensor};

/// The fractional part of the golden ratio, of 2^64.
const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;

/// Positions of at most `limit` of `len` things, ascending; all of them without a limit.
///
/// One is taken of each of `limit` runs of nearly equal length, so that sets sorted by class keep every class. Where in its
/// run it lies follows the fractional parts of multiples of the golden ratio, so that classes that come in turn are all
/// met as well.
pub fn spread(len: usize, limit: Option<usize>) -> impl Iterator<Item = usize> {
    let count = limit.unwrap_or(len).min(len);
    // 128 bits hold the product of any two lengths.
    let begin = move |i: usize| (i as u128 * len as u128 / count as u128) as usize;
    (0..count).map(move |i| {
        let fraction = (i as u64).wrapping_mul(GOLDEN);
        begin(i) + ((u128::from(fraction) * (begin(i + 1) - begin(i)) as u128) >> 64) as usize
    })
}

/// Some of the samples of another set, in a given order.
#[derive(Debug, Clone)]
pub struct Subset<S> {
    samples: S,
    indices: Vec<usize>,
}

impl<S: Samples> Subset<S> {
    /// The first `n` samples, or all when there are fewer.
    pub fn first(samples: S, n: usize) -> Self {
        let indices = (0..samples.len().min(n)).collect();
        Subset { samples, indices }
    }

    /// The samples at `indices`, repeats allowed; an error when one is out of range.
    pub fn new(samples: S, indices: Vec<usize>) -> Result<Self> {
        match indices.iter().find(|&&i| i >= samples.len()) {
            Some(i) => Err(Error::data(format!("expected sample indices below {}, got {i}", samples.len()))),
            None => Ok(Subset { samples, indices }),
        }
    }
}

impl<S: Samples> Samples for Subset<S> {
    fn len(&self) -> usize {
        self.indices.len()
    }

    fn get(&self, index: usize) -> Result<Vec<Tensor>> {
        self.samples.get(self.indices[index])
    }

    fn label(&self, index: usize) -> Option<usize> {
        self.samples.label(*self.indices.get(index)?)
    }

    fn target(&self, index: usize) -> Result<Option<Target>> {
        self.indices.get(index).map_or(Ok(None), |&i| self.samples.target(i))
    }

    fn name(&self, index: usize) -> String {
        self.samples.name(self.indices[index])
    }

    fn skipped(&self) -> usize {
        self.samples.skipped()
    }

    fn held_bytes(&self) -> u64 {
        self.samples.held_bytes()
    }

    fn input_names(&self) -> Option<Vec<String>> {
        self.samples.input_names()
    }
}

/// What a network wants at one of its inputs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InputSpec {
    /// The input's name.
    pub name: String,
    /// Element type.
    pub dtype: DType,
    /// Dimensions without the batch axis, `None` where any size will do.
    pub shape: Vec<Option<usize>>,
}

impl InputSpec {
    /// An input `name` of type `dtype` whose dimensions after the batch axis are `shape`.
    pub fn new(name: impl Into<String>, dtype: DType, shape: impl Into<Vec<Option<usize>>>) -> Self {
        InputSpec { name: name.into(), dtype, shape: shape.into() }
    }

    fn takes(&self, shape: &[usize]) -> bool {
        self.shape.len() == shape.len() && self.shape.iter().zip(shape).all(|(want, &d)| want.is_none_or(|w| w == d))
    }

    fn shape_text(&self) -> String {
        let dims: Vec<String> = self.shape.iter().map(|d| d.map_or("?".into(), |d| d.to_string())).collect();
        format!("[{}]", dims.join(", "))
    }

    /// `tensor` as this input takes it: floats in its float type, anything else unchanged.
    fn cast(&self, tensor: Tensor) -> Result<Tensor> {
        if tensor.dtype() == self.dtype || !(tensor.dtype().is_float() && self.dtype.is_float()) {
            return Ok(tensor);
        }
        Tensor::from_f64(self.dtype, tensor.shape(), &tensor.to_f64()?)
    }

    fn check(&self, tensor: &Tensor) -> Result<()> {
        let InputSpec { name, dtype, .. } = self;
        if !self.takes(tensor.shape()) {
            let (got, want) = (tensor.shape(), self.shape_text());
            let error = Error::data(format!("samples have shape {got:?}, network input `{name}` wants {want}"));
            return Err(match (got, &self.shape[..]) {
                ([c @ (1 | 3), _, _], [.., Some(last)]) if last == c => error.hint("use --layout nhwc"),
                ([_, _, _], [_, _, _]) => error.hint("resize or crop images (--resize, --crop), or give other samples"),
                _ => error,
            });
        }
        if tensor.dtype() != *dtype {
            let got = tensor.dtype();
            return Err(Error::data(format!("samples have type {got:?}, network input `{name}` wants {dtype:?}"))
                .hint("convert the array before saving it"));
        }
        Ok(())
    }
}

/// For each input, which tensor of a sample goes there: by name where the samples name all inputs, else by order.
fn assign(samples: &dyn Samples, inputs: &[InputSpec]) -> Result<Vec<usize>> {
    let names = samples.input_names().unwrap_or_default();
    let by_name: Option<Vec<usize>> = inputs.iter().map(|i| names.iter().position(|n| *n == i.name)).collect();
    if let Some(order) = by_name {
        return Ok(order);
    }
    let count = if names.is_empty() { 1 } else { names.len() };
    if count == inputs.len() {
        return Ok((0..count).collect());
    }
    let wanted: Vec<String> = inputs.iter().map(|i| format!("`{}`", i.name)).collect();
    let found = if names.is_empty() { "images".into() } else { format!("`{}`", names.join("`, `")) };
    let n = inputs.len();
    Err(Error::data(format!(
        "each sample has {count} tensors ({found}), the network has {n} inputs ({})",
        wanted.join(", ")
    ))
    .hint("save one array per input, named like it, in a .npz file"))
}

/// The samples as the inputs of a network take them: tensors mapped to inputs by name, or by order where names do not
/// match, and floats converted to the input's float type. The first sample is checked now, every other when it is read.
pub fn fit(samples: Box<dyn Samples + Send + Sync>, inputs: &[InputSpec]) -> Result<Box<dyn Samples + Send + Sync>> {
    let order = assign(&samples, inputs)?;
    let fitted = Fitted { samples, order, inputs: inputs.to_vec() };
    if !fitted.is_empty() {
        fitted.get(0)?;
    }
    Ok(Box::new(fitted))
}

/// That the first sample has the type and shape the network wants, without changing anything.
pub fn check_against(samples: &dyn Samples, inputs: &[InputSpec]) -> Result<()> {
    if samples.is_empty() {
        return Err(Error::data("there are no samples"));
    }
    let tensors = samples.get(0)?;
    for (input, at) in inputs.iter().zip(assign(samples, inputs)?) {
        match tensors.get(at) {
            Some(tensor) => input.check(tensor)?,
            None => {
                return Err(Error::internal(format!(
                    "sample 0 has {} tensors, expected more than {at}",
                    tensors.len()
                )));
            }
        }
    }
    Ok(())
}

struct Fitted {
    samples: Box<dyn Samples + Send + Sync>,
    /// For each input, the tensor of a sample that goes there.
    order: Vec<usize>,
    inputs: Vec<InputSpec>,
}

impl Samples for Fitted {
    fn len(&self) -> usize {
        self.samples.len()
    }

    fn get(&self, index: usize) -> Result<Vec<Tensor>> {
        let mut tensors: Vec<Option<Tensor>> = self.samples.get(index)?.into_iter().map(Some).collect();
        let at = |e: Error| e.at(self.name(index));
        let take = |(input, &from): (&InputSpec, &usize)| {
            let tensor = tensors.get_mut(from).and_then(Option::take);
            let tensor =
                tensor.ok_or_else(|| at(Error::data(format!("there is no tensor for input `{}`", input.name))))?;
            let tensor = input.cast(tensor).map_err(at)?;
            input.check(&tensor).map_err(at)?;
            Ok(tensor)
        };
        self.inputs.iter().zip(&self.order).map(take).collect()
    }

    fn label(&self, index: usize) -> Option<usize> {
        self.samples.label(index)
    }

    fn target(&self, index: usize) -> Result<Option<Target>> {
        self.samples.target(index)
    }

    fn name(&self, index: usize) -> String {
        self.samples.name(index)
    }

    fn skipped(&self) -> usize {
        self.samples.skipped()
    }

    fn held_bytes(&self) -> u64 {
        self.samples.held_bytes()
    }

    fn input_names(&self) -> Option<Vec<String>> {
        Some(self.inputs.iter().map(|i| i.name.clone()).collect())
    }
}
