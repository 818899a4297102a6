//! Views of samples: selections, and samples as inputs of a network.

use super::{Geometry, Pixels, Samples, Target, forward_labels};
use crate::error::{Error, Result};
use crate::tensor::{DType, Tensor};
use std::collections::BTreeSet;

/// The fractional part of the golden ratio, of 2^64.
const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;

/// The positions of at most `limit` of `len` items, ascending; all of them without a limit.
///
/// One item is taken from each of `limit` intervals of nearly equal length, so that every class of a set sorted by
/// class is represented. Its place within the interval follows the fractional parts of multiples of the golden ratio,
/// so that every class is also represented if classes alternate.
pub fn spread(len: usize, limit: Option<usize>) -> impl Iterator<Item = usize> {
    let count = limit.unwrap_or(len).min(len);
    // 128 bits hold the product of any two lengths.
    let begin = move |i: usize| (i as u128 * len as u128 / count as u128) as usize;
    (0..count).map(move |i| {
        let fraction = (i as u64).wrapping_mul(GOLDEN);
        begin(i) + ((u128::from(fraction) * (begin(i + 1) - begin(i)) as u128) >> 64) as usize
    })
}

/// Indices of the parts of `samples` samples that [`Subset::spread`] yields for each of `counts`.
pub(crate) fn spreads(samples: usize, counts: &[usize]) -> BTreeSet<usize> {
    counts.iter().flat_map(|&n| spread(samples, Some(n))).collect()
}

/// Some of the samples of another set, in a given order.
#[derive(Debug, Clone)]
pub struct Subset<S> {
    samples: S,
    indices: Vec<usize>,
}

impl<S: Samples> Subset<S> {
    /// The first `n` samples, or all if there are fewer.
    pub fn first(samples: S, n: usize) -> Self {
        let indices = (0..samples.len().min(n)).collect();
        Subset { samples, indices }
    }

    /// The samples at `indices`, which may repeat; an error if one is out of range.
    pub fn new(samples: S, indices: Vec<usize>) -> Result<Self> {
        match indices.iter().find(|&&i| i >= samples.len()) {
            Some(i) => Err(Error::data(format!("expected sample indices below {}, got {i}", samples.len()))),
            None => Ok(Subset { samples, indices }),
        }
    }

    /// At most `limit` samples, spread over the set as by [`spread`]; all of them without a limit.
    pub fn spread(samples: S, limit: Option<usize>) -> Result<Self> {
        let indices = spread(samples.len(), limit).collect();
        Self::new(samples, indices)
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

    fn tokens(&self, index: usize) -> Option<usize> {
        self.samples.tokens(*self.indices.get(index)?)
    }

    fn geometry(&self, index: usize) -> Option<Geometry> {
        self.samples.geometry(*self.indices.get(index)?)
    }

    fn picture(&self, index: usize) -> Result<Option<Pixels>> {
        self.samples.picture(self.indices[index])
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

    fn source(&self) -> Option<String> {
        self.samples.source()
    }
}

/// What a network expects at one of its inputs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InputSpec {
    /// The input's name.
    pub name: String,
    /// Element type.
    pub dtype: DType,
    /// Dimensions without the batch axis; `None` where any size is accepted.
    pub shape: Vec<Option<usize>>,
    /// Another shape that samples may have, such as that with a batch axis of 1.
    pub other: Option<Vec<Option<usize>>>,
}

impl InputSpec {
    /// An input `name` of type `dtype` whose dimensions after the batch axis are `shape`.
    pub fn new(name: impl Into<String>, dtype: DType, shape: impl Into<Vec<Option<usize>>>) -> Self {
        InputSpec { name: name.into(), dtype, shape: shape.into(), other: None }
    }

    /// The same, which takes samples of the shape `other` too.
    #[must_use]
    pub fn or(self, other: impl Into<Vec<Option<usize>>>) -> Self {
        InputSpec { other: Some(other.into()), ..self }
    }

    fn takes(&self, shape: &[usize]) -> bool {
        let fits = |s: &Vec<Option<usize>>| {
            s.len() == shape.len() && s.iter().zip(shape).all(|(want, &d)| want.is_none_or(|w| w == d))
        };
        fits(&self.shape) || self.other.as_ref().is_some_and(fits)
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

    /// `tensor` as this input takes it, checked.
    pub(super) fn fitted(&self, tensor: Tensor) -> Result<Tensor> {
        let tensor = self.cast(tensor)?;
        self.check(&tensor)?;
        Ok(tensor)
    }

    fn check(&self, tensor: &Tensor) -> Result<()> {
        let InputSpec { name, dtype, .. } = self;
        if !self.takes(tensor.shape()) {
            let (got, want) = (tensor.shape(), self.shape_text());
            let error = Error::data(format!("samples have shape {got:?}, network input `{name}` expects {want}"));
            let advice = misfit(got, &self.shape);
            return Err(if advice.is_empty() { error } else { error.hint(advice) });
        }
        if tensor.dtype() != *dtype {
            let got = tensor.dtype();
            return Err(Error::data(format!("samples have type {got:?}, network input `{name}` expects {dtype:?}"))
                .hint("convert the array before saving it"));
        }
        Ok(())
    }
}

/// What to do about samples of the shape `got` where `want` is wanted; empty where nothing is known.
fn misfit(got: &[usize], want: &[Option<usize>]) -> &'static str {
    let channels = |c: &Option<usize>| matches!(c, Some(1 | 3));
    match (got, want) {
        (&[h, w], [Some(1), a, b]) if a.is_none_or(|a| a == h) && b.is_none_or(|b| b == w) => {
            "add a channel axis before saving: x[:, None]"
        }
        (&[c @ (1 | 3), _, last], [_, _, Some(n)]) if *n == c && c != last => {
            "channels come last in this network: --layout nhwc for images, x.transpose(0, 2, 3, 1) for arrays before saving"
        }
        (&[first, _, c @ (1 | 3)], [Some(n), _, _]) if *n == c && c != first => {
            "channels come first in this network: --layout nchw for images, x.transpose(0, 3, 1, 2) for arrays before saving"
        }
        ([3, ..] | [.., 3], [Some(1), _, _] | [_, _, Some(1)]) if got.len() == 3 => {
            "the network takes gray images: give --color gray"
        }
        ([1, ..] | [.., 1], [Some(3), _, _] | [_, _, Some(3)]) if got.len() == 3 => {
            "the network takes colour images: --color rgb for images, np.repeat(x, 3, 1) for arrays before saving"
        }
        ([_, _, _], [first, _, last]) if channels(first) || channels(last) => {
            "resize or crop images (--resize, --crop, --letterbox network), or give other samples"
        }
        ([_, rest @ ..], want) if rest.len() == want.len() => {
            "save one sample per entry of the first axis, and the same number in every array"
        }
        _ => "",
    }
}

/// For each input, which tensor of a sample goes there: by name, or the only one there is.
fn assign(samples: &dyn Samples, inputs: &[InputSpec]) -> Result<Vec<usize>> {
    let names = samples.input_names().unwrap_or_default();
    let by_name: Option<Vec<usize>> = inputs.iter().map(|i| names.iter().position(|n| *n == i.name)).collect();
    if let Some(order) = by_name {
        return Ok(order);
    }
    let count = if names.is_empty() { 1 } else { names.len() };
    if (count, inputs.len()) == (1, 1) {
        return Ok(vec![0]);
    }
    let list = |names: &[&str]| format!("`{}`", names.join("`, `"));
    let wanted: Vec<&str> = inputs.iter().map(|i| i.name.as_str()).collect();
    if names.is_empty() {
        let n = inputs.len();
        let message = format!("each sample has 1 tensor (images), the network has {n} inputs ({})", list(&wanted));
        return Err(Error::data(message).hint(NAMED));
    }
    let missing: Vec<&str> = wanted.iter().copied().filter(|i| !names.iter().any(|n| n == i)).collect();
    let spare: Vec<&str> = names.iter().map(String::as_str).filter(|n| !wanted.contains(n)).collect();
    let rest =
        if spare.is_empty() { "none is left".into() } else { format!("the arrays {} match no input", list(&spare)) };
    let message = format!("no array is named like the network's inputs {}, and {rest}", list(&missing));
    Err(Error::data(message).hint(NAMED))
}

/// What to do where names do not tell which array goes where.
const NAMED: &str =
    "save one array per input, with the input's name, in an .npz file; --fix NAME=VALUE fixes an input to a value";

/// The samples as the inputs of a network take them: tensors mapped to inputs by name, or the only one to the only
/// input, and floats converted to the input's float type. The first sample is checked now, every other when it is read.
pub fn fit(samples: Box<dyn Samples + Send + Sync>, inputs: &[InputSpec]) -> Result<Box<dyn Samples + Send + Sync>> {
    let order = assign(&samples, inputs)?;
    let mut fitted = Fitted { samples, order, inputs: inputs.to_vec(), first: None };
    if !fitted.is_empty() {
        fitted.first = Some(fitted.get(0)?);
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
    /// The first sample, which was checked.
    first: Option<Vec<Tensor>>,
}

impl Samples for Fitted {
    fn len(&self) -> usize {
        self.samples.len()
    }

    fn get(&self, index: usize) -> Result<Vec<Tensor>> {
        if let Some(first) = self.first.as_ref().filter(|_| index == 0) {
            return Ok(first.clone());
        }
        let mut tensors: Vec<Option<Tensor>> = self.samples.get(index)?.into_iter().map(Some).collect();
        let at = |e: Error| e.at(self.name(index));
        let take = |(input, &from): (&InputSpec, &usize)| {
            let tensor = tensors.get_mut(from).and_then(Option::take);
            let tensor =
                tensor.ok_or_else(|| at(Error::data(format!("there is no tensor for input `{}`", input.name))))?;
            input.fitted(tensor).map_err(at)
        };
        self.inputs.iter().zip(&self.order).map(take).collect()
    }

    forward_labels!(samples);

    fn input_names(&self) -> Option<Vec<String>> {
        Some(self.inputs.iter().map(|i| i.name.clone()).collect())
    }
}
