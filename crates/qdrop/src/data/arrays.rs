//! Samples held in memory as arrays `[N, ...]`.

use super::{Pixels, Prepare, Samples};
use crate::error::{Error, Kind, Result};
use crate::tensor::{Data, Tensor};

/// Names under which an integer array of rank 1 is taken for class labels.
const LABELS: [&str; 3] = ["labels", "label", "y"];

/// Samples in memory: one array `[N, ...]` per network input, and perhaps labels.
///
/// ```
/// use qdrop::data::{Arrays, Samples};
/// use qdrop::tensor::Tensor;
///
/// let points = Tensor::f32(&[3, 2], vec![0.0, 1.0, 2.0, 3.0, 4.0, 5.0]);
/// let samples = Arrays::new(vec![("x".into(), points)], Some(vec![0, 1, 0]))?;
/// assert_eq!(samples.len(), 3);
/// assert_eq!(samples.get(1)?, [Tensor::f32(&[2], vec![2.0, 3.0])]);
/// assert_eq!(samples.label(1), Some(1));
///
/// let bad = Tensor::f32(&[2, 1], vec![0.0, f32::NAN]);
/// let error = Arrays::new(vec![("x".into(), bad)], None).unwrap_err();
/// assert_eq!(error.to_string(), "array `x`: row 1: expected finite numbers, got NaN");
/// # Ok::<(), qdrop::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct Arrays {
    arrays: Vec<(String, Tensor)>,
    labels: Option<Vec<usize>>,
    prepare: Option<Prepare>,
}

impl Arrays {
    /// Samples from named arrays `[N, ...]`, one per network input, and `N` class labels. An error when the arrays
    /// differ in `N`, are empty, or hold NaN or infinity.
    pub fn new(arrays: Vec<(String, Tensor)>, labels: Option<Vec<usize>>) -> Result<Self> {
        let Some((first, tensor)) = arrays.first() else {
            return Err(Error::data("no arrays found, expected one per network input"));
        };
        let rows = tensor.shape().first().copied().unwrap_or_default();
        for (name, tensor) in &arrays {
            let at = |e: Error| e.at(format!("array `{name}`"));
            match tensor.shape() {
                [] => return Err(at(Error::data("expected shape [N, ...], got a scalar"))),
                shape if shape.contains(&0) => {
                    return Err(at(Error::data(format!("expected samples, got the empty shape {shape:?}"))));
                }
                [n, ..] if *n != rows => {
                    return Err(at(Error::data(format!("expected {rows} samples as in `{first}`, got {n}"))));
                }
                _ => check_finite(tensor).map_err(at)?,
            }
        }
        if let Some(labels) = labels.as_ref().filter(|l| l.len() != rows) {
            return Err(Error::data(format!("expected {rows} labels, got {}", labels.len())));
        }
        Ok(Arrays { arrays, labels, prepare: None })
    }

    /// Samples from the arrays of a file: next to others, an integer array `labels`, `label` or `y` gives the labels.
    pub(super) fn from_file(mut arrays: Vec<(String, Tensor)>) -> Result<Self> {
        let is_label = |(name, t): &(String, Tensor)| LABELS.contains(&name.as_str()) && t.dtype().is_int();
        let labels = match arrays.iter().position(is_label) {
            Some(at) if arrays.len() > 1 => Some(read_labels(arrays.remove(at))?),
            _ => None,
        };
        Arrays::new(arrays, labels)
    }

    /// The same samples, where `uint8` images go through `prepare` if it does anything.
    pub(super) fn prepared(mut self, prepare: &Prepare) -> Result<Self> {
        let images = self.arrays.iter().filter(|(_, t)| matches!(t.data(), Data::U8(_)) && t.rank() == 4);
        if prepare.is_identity() || images.count() == 0 {
            return Ok(self);
        }
        self.prepare = Some(prepare.clone());
        // All rows of an array have one shape: the first speaks for all.
        self.get(0)?;
        Ok(self)
    }
}

fn read_labels((name, tensor): (String, Tensor)) -> Result<Vec<usize>> {
    let at = |e: Error| e.at(format!("array `{name}`"));
    if !matches!(tensor.shape(), [_] | [_, 1]) {
        return Err(at(Error::data(format!("expected labels of shape [N], got {:?}", tensor.shape()))));
    }
    let values = tensor.to_i64().map_err(at)?;
    let label = |(i, &v): (usize, &i64)| {
        usize::try_from(v).map_err(|_| {
            at(Error::data(format!("label {v} is negative, expected a class from 0")).at(format!("row {i}")))
        })
    };
    values.iter().enumerate().map(label).collect()
}

fn check_finite(tensor: &Tensor) -> Result<()> {
    let bad = match tensor.data() {
        Data::F32(v) => v.iter().position(|x| !x.is_finite()),
        Data::F64(v) => v.iter().position(|x| !x.is_finite()),
        Data::F16(v) => v.iter().position(|x| !x.is_finite()),
        Data::BF16(v) => v.iter().position(|x| !x.is_finite()),
        _ => None,
    };
    let Some(at) = bad else { return Ok(()) };
    let what = match tensor.data() {
        Data::F32(v) => v[at] as f64,
        Data::F64(v) => v[at],
        Data::F16(v) => v[at].to_f64(),
        Data::BF16(v) => v[at].to_f64(),
        _ => return Ok(()),
    };
    let row = tensor.len() / tensor.shape()[0];
    Err(Error::new(Kind::Numeric, format!("expected finite numbers, got {what}")).at(format!("row {}", at / row)))
}

/// Row `index` of an array `[N, ...]`.
fn row(tensor: &Tensor, index: usize) -> Result<Tensor> {
    let shape = &tensor.shape()[1..];
    let n: usize = shape.iter().product();
    let range = index * n..(index + 1) * n;
    macro_rules! cut {
        ($($kind:ident)*) => {
            match tensor.data() {
                $(Data::$kind(v) => Data::$kind(v[range].to_vec()),)*
                Data::Packed(..) => {
                    return Err(Error::unsupported(format!("samples of type {:?} are not read", tensor.dtype())));
                }
            }
        };
    }
    let data = cut!(F32 F64 F16 BF16 I8 U8 I16 U16 I32 U32 I64 U64 Bool String);
    Tensor::new(shape.to_vec(), data)
}

/// A `uint8` tensor of rank 3 as an image: `[H, W, C]` where the last axis has 1 or 3 entries, else `[C, H, W]`.
fn pixels(shape: &[usize], data: &[u8]) -> Result<Pixels> {
    match *shape {
        [height, width, channels @ (1 | 3)] => Ok(Pixels { height, width, channels, data: data.to_vec() }),
        [channels @ (1 | 3), height, width] => {
            let plane = height * width;
            let data = (0..plane * channels).map(|i| data[i % channels * plane + i / channels]).collect();
            Ok(Pixels { height, width, channels, data })
        }
        _ => Err(Error::data(format!(
            "expected images of shape [H, W, C] or [C, H, W] with 1 or 3 channels, got {shape:?}"
        ))),
    }
}

impl Samples for Arrays {
    fn len(&self) -> usize {
        self.arrays[0].1.shape()[0]
    }

    fn get(&self, index: usize) -> Result<Vec<Tensor>> {
        let one = |(name, array): &(String, Tensor)| {
            let tensor = row(array, index)?;
            match (&self.prepare, tensor.data()) {
                (Some(prepare), Data::U8(v)) if tensor.rank() == 3 => {
                    prepare.apply(pixels(tensor.shape(), v)?).map_err(|e| e.at(format!("array `{name}`")))
                }
                _ => Ok(tensor),
            }
        };
        self.arrays.iter().map(one).collect()
    }

    fn held_bytes(&self) -> u64 {
        let bytes = |t: &Tensor| t.len() as u64 * t.dtype().bits() as u64 / 8;
        self.arrays.iter().map(|(_, tensor)| bytes(tensor)).sum()
    }

    fn label(&self, index: usize) -> Option<usize> {
        self.labels.as_ref()?.get(index).copied()
    }

    fn name(&self, index: usize) -> String {
        format!("row {index}")
    }

    fn input_names(&self) -> Option<Vec<String>> {
        Some(self.arrays.iter().map(|(name, _)| name.clone()).collect())
    }
}
