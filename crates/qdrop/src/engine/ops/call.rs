//! The operands of one call as the operator families see them.

use super::{Known, Real, View};
use crate::error::{Error, Result};
use crate::graph::Op;
use crate::tensor::DType;

/// Element type and shape of a result.
pub(super) type Shaped = (DType, Vec<usize>);

/// What shape derivation knows of one operand.
pub(super) struct Operand<'a> {
    pub dtype: DType,
    pub shape: &'a [usize],
    /// Content, read only where it decides a shape.
    values: Option<Vec<f64>>,
}

/// What shape derivation knows of all operands.
pub(super) struct Operands<'a>(Vec<Option<Operand<'a>>>);

/// Whether the content of operand `i` decides result shapes.
fn decides_shape(op: &Op, i: usize) -> bool {
    match op {
        Op::Reduce { .. }
        | Op::Split { .. }
        | Op::Slice
        | Op::Reshape { .. }
        | Op::Squeeze
        | Op::Unsqueeze
        | Op::Expand
        | Op::Tile => i >= 1,
        Op::Compress { .. } | Op::TopK { .. } | Op::OneHot { .. } => i == 1,
        Op::NonZero | Op::NonMaxSuppression { .. } => true,
        Op::Pad { .. } => i == 1 || i == 3,
        Op::Resize(_) => i == 2 || i == 3,
        Op::ConstantOfShape { .. } | Op::Range => true,
        _ => false,
    }
}

impl<'a> Operands<'a> {
    pub fn from_known(op: &Op, operands: &[Option<Known<'a>>]) -> Result<Self> {
        let mut list = Vec::with_capacity(operands.len());
        for (i, known) in operands.iter().enumerate() {
            list.push(match known {
                None => None,
                Some(k) => {
                    let values = match k.constant {
                        Some(t) if decides_shape(op, i) => Some(t.to_f64()?),
                        _ => None,
                    };
                    Some(Operand { dtype: k.dtype, shape: k.shape, values })
                }
            });
        }
        Ok(Operands(list))
    }

    pub fn from_views<R: Real>(op: &Op, operands: &[Option<View<'a, R>>]) -> Self {
        let one = |(i, view): (usize, &Option<View<'a, R>>)| {
            view.as_ref().map(|v| Operand {
                dtype: v.dtype,
                shape: v.shape,
                values: decides_shape(op, i).then(|| v.data.iter().map(|x| x.f64()).collect()),
            })
        };
        Operands(operands.iter().enumerate().map(one).collect())
    }

    /// Number of operands up to the last one present.
    pub fn count(&self) -> usize {
        self.0.iter().rposition(|o| o.is_some()).map_or(0, |i| i + 1)
    }

    pub fn opt(&self, i: usize) -> Option<&Operand<'a>> {
        self.0.get(i).and_then(|o| o.as_ref())
    }

    pub fn need(&self, i: usize) -> Result<&Operand<'a>> {
        self.opt(i).ok_or_else(|| Error::model(format!("operand {i} is missing, {} are present", self.count())))
    }

    /// Content of operand `i` as numbers; `None` when the operand is absent.
    pub fn numbers(&self, i: usize) -> Result<Option<&[f64]>> {
        match self.opt(i) {
            None => Ok(None),
            Some(o) => match &o.values {
                Some(v) => Ok(Some(v)),
                None => Err(Error::unsupported(format!("operand {i} decides the result's shape, but is not constant"))
                    .hint("export the model with constant shapes or simplify it first")),
            },
        }
    }

    /// Content of operand `i` as integers; `None` when the operand is absent.
    pub fn ints(&self, i: usize) -> Result<Option<Vec<i64>>> {
        Ok(self.numbers(i)?.map(|v| v.iter().map(|&x| x as i64).collect()))
    }

    /// Content of operand `i`, which must be present, as integers.
    pub fn need_ints(&self, i: usize) -> Result<Vec<i64>> {
        self.need(i)?;
        Ok(self.ints(i)?.unwrap_or_default())
    }

    /// Refuses operands of different element types among `which` (absent ones are skipped).
    pub fn same_dtype(&self, which: impl IntoIterator<Item = usize>) -> Result<()> {
        let mut first: Option<(usize, DType)> = None;
        for i in which {
            let Some(o) = self.opt(i) else { continue };
            match first {
                None => first = Some((i, o.dtype)),
                Some((j, d)) if d != o.dtype => {
                    return Err(Error::model(format!(
                        "operands must have the same element type, operand {j} is {d:?} and operand {i} is {:?}",
                        o.dtype
                    )));
                }
                Some(_) => {}
            }
        }
        Ok(())
    }

    /// Refuses operand `i` unless it is absent or of shape `want`.
    pub fn expect_shape(&self, i: usize, want: &[usize]) -> Result<()> {
        match self.opt(i) {
            Some(o) if o.shape != want => {
                Err(Error::model(format!("operand {i} must have shape {want:?}, got {:?}", o.shape)))
            }
            _ => Ok(()),
        }
    }
}

/// A forward call whose shapes have been derived and checked.
pub(super) struct Call<'a, R> {
    pub operands: &'a [Option<View<'a, R>>],
    /// The operands as shape derivation sees them.
    pub sig: Operands<'a>,
    /// Types and shapes of the results.
    pub out: Vec<Shaped>,
}

impl<'a, R: Real> Call<'a, R> {
    pub fn opt(&self, i: usize) -> Option<View<'a, R>> {
        self.operands.get(i).copied().flatten()
    }

    pub fn x(&self, i: usize) -> Result<View<'a, R>> {
        self.opt(i).ok_or_else(|| Error::model(format!("operand {i} is missing")))
    }

    /// Shape of the first result.
    pub fn shape(&self) -> &[usize] {
        &self.out[0].1
    }
}

/// A backward call. Gradients and what is wanted are already masked: only float operands that are present are wanted.
pub(super) struct Back<'a, R> {
    pub call: Call<'a, R>,
    pub results: &'a [View<'a, R>],
    pub gradients: &'a [Option<&'a [R]>],
    pub wanted: Vec<bool>,
    /// Gradients found so far.
    pub found: Vec<Option<Vec<R>>>,
}

impl<'a, R: Real> Back<'a, R> {
    /// Gradient of the first result.
    pub fn g(&self) -> Result<&'a [R]> {
        self.gradients
            .first()
            .copied()
            .flatten()
            .ok_or_else(|| Error::internal("gradient of the first result is missing"))
    }

    pub fn y(&self) -> Result<View<'a, R>> {
        self.results.first().copied().ok_or_else(|| Error::internal("first result is missing"))
    }

    pub fn wants(&self, i: usize) -> bool {
        self.wanted.get(i).copied().unwrap_or(false)
    }

    /// Stores the gradient of operand `i` if it is wanted.
    pub fn set(&mut self, i: usize, gradient: Vec<R>) {
        if self.wants(i) {
            self.found[i] = Some(gradient);
        }
    }
}
