//! Samples held in memory as arrays `[N, ...]`.

use super::{Geometry, Pixels, Prepare, Samples};
use crate::error::{Error, Result};
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
/// let bad = Tensor::f32(&[0, 1], Vec::new());
/// let error = Arrays::new(vec![("x".into(), bad)], None).unwrap_err();
/// assert_eq!(error.to_string(), "array `x`: expected samples, got the empty shape [0, 1]");
/// # Ok::<(), qdrop::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct Arrays {
    arrays: Vec<(String, Tensor)>,
    /// For each array, whether it is one value for all samples.
    shared: Vec<bool>,
    labels: Option<Vec<usize>>,
    prepare: Option<Prepare>,
    /// Where images lie in the network's input, if one array of images is prepared.
    geometry: Option<Geometry>,
}

impl Arrays {
    /// Samples from named arrays `[N, ...]`, one per network input, and `N` class labels. An error when the arrays
    /// differ in `N` or are empty.
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
                _ => {}
            }
        }
        if let Some(labels) = labels.as_ref().filter(|l| l.len() != rows) {
            return Err(Error::data(format!("expected {rows} labels, got {}", labels.len())));
        }
        Ok(Arrays { shared: vec![false; arrays.len()], arrays, labels, prepare: None, geometry: None })
    }

    /// Samples from the arrays of a file: next to others, an integer array `labels`, `label` or `y` gives the labels, and
    /// a number alone is one value for all samples.
    pub(super) fn from_file(mut arrays: Vec<(String, Tensor)>) -> Result<Self> {
        let is_label = |(name, t): &(String, Tensor)| LABELS.contains(&name.as_str()) && t.dtype().is_int();
        let labels = match arrays.iter().position(is_label) {
            Some(at) if arrays.len() > 1 => Some(read_labels(arrays.remove(at))?),
            _ => None,
        };
        if arrays.iter().all(|(_, t)| t.rank() == 0) {
            return Arrays::new(arrays, labels);
        }
        let numbers: Vec<(usize, (String, Tensor))> =
            arrays.iter().enumerate().filter(|(_, (_, t))| t.rank() == 0).map(|(i, a)| (i, a.clone())).collect();
        arrays.retain(|(_, t)| t.rank() > 0);
        let mut samples = Arrays::new(arrays, labels)?;
        for (at, number) in numbers {
            samples.arrays.insert(at, number);
            samples.shared.insert(at, true);
        }
        Ok(samples)
    }

    /// The same samples, where `uint8` images go through `prepare` if it does anything; those prepared at a time may take
    /// `memory` bytes.
    pub(super) fn prepared(mut self, prepare: &Prepare, memory: u64) -> Result<Self> {
        let images = self.arrays.iter().filter(|(_, t)| matches!(t.data(), Data::U8(_)) && t.rank() == 4);
        let shapes: Vec<&[usize]> = images.map(|(_, t)| &t.shape()[1..]).collect();
        if prepare.is_identity() || shapes.is_empty() {
            return Ok(self);
        }
        let mut geometries = Vec::new();
        for shape in shapes {
            if let &[height, width, 1 | 3] | &[1 | 3, height, width] = shape {
                prepare.fits(height, width, memory)?;
                geometries.push(prepare.geometry(height, width)?);
            }
        }
        self.geometry = (geometries.len() == 1).then(|| geometries[0]);
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
                    return Err(Error::unsupported(format!("samples of type {:?} are not supported", tensor.dtype())));
                }
            }
        };
    }
    let data = cut!(F32 F64 F16 BF16 I8 U8 I16 U16 I32 U32 I64 U64 Bool String);
    Tensor::new(shape.to_vec(), data)
}

/// A `uint8` tensor of rank 3 as an image: `[H, W, C]` where the last axis has 1 or 3 entries, else `[C, H, W]`.
pub(super) fn pixels(shape: &[usize], data: &[u8]) -> Result<Pixels> {
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
        let mut own = self.arrays.iter().zip(&self.shared).filter(|(_, shared)| !**shared);
        own.next().and_then(|((_, array), _)| array.shape().first().copied()).unwrap_or_default()
    }

    fn get(&self, index: usize) -> Result<Vec<Tensor>> {
        let one = |((name, array), &shared): (&(String, Tensor), &bool)| {
            if shared {
                return Ok(array.clone());
            }
            let tensor = row(array, index)?;
            match (&self.prepare, tensor.data()) {
                (Some(prepare), Data::U8(v)) if tensor.rank() == 3 => {
                    prepare.apply(pixels(tensor.shape(), v)?).map_err(|e| e.at(format!("array `{name}`")))
                }
                _ => Ok(tensor),
            }
        };
        self.arrays.iter().zip(&self.shared).map(one).collect()
    }

    fn held_bytes(&self) -> u64 {
        let bytes = |t: &Tensor| t.len() as u64 * t.dtype().bits() as u64 / 8;
        self.arrays.iter().map(|(_, tensor)| bytes(tensor)).sum()
    }

    fn label(&self, index: usize) -> Option<usize> {
        self.labels.as_ref()?.get(index).copied()
    }

    fn geometry(&self, index: usize) -> Option<Geometry> {
        self.geometry.filter(|_| index < self.len())
    }

    fn name(&self, index: usize) -> String {
        format!("row {index}")
    }

    fn input_names(&self) -> Option<Vec<String>> {
        Some(self.arrays.iter().map(|(name, _)| name.clone()).collect())
    }
}
