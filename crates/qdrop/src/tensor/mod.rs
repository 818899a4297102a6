//! Dense row-major arrays in main memory, with an element type and a shape.
//!
//! Elements of types that this library computes with are stored as Rust numbers. Elements of other types (float8, 4-
//! and 2-bit integers, complex numbers) are only carried, as the bytes into which ONNX packs them; strings are byte
//! strings.

mod bytes;
mod rows;

pub(crate) use rows::read_at;
pub use rows::{Precision, RowStore, Rows, RowsWriter};

use crate::error::{Error, Result};
use half::{bf16, f16};
use serde::{Deserialize, Serialize};

/// Element type of a tensor, with ONNX's names.
#[allow(missing_docs)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum DType {
    F32,
    F64,
    F16,
    BF16,
    I8,
    U8,
    I16,
    U16,
    I32,
    U32,
    I64,
    U64,
    Bool,
    String,
    Complex64,
    Complex128,
    F8E4M3FN,
    F8E4M3FNUZ,
    F8E5M2,
    F8E5M2FNUZ,
    F8E8M0,
    F4E2M1,
    I4,
    U4,
    I2,
    U2,
}

impl DType {
    /// Bits of one element in ONNX's packing; 0 for strings.
    pub fn bits(self) -> usize {
        use DType::*;
        match self {
            Complex128 => 128,
            F64 | I64 | U64 | Complex64 => 64,
            F32 | I32 | U32 => 32,
            F16 | BF16 | I16 | U16 => 16,
            I8 | U8 | Bool | F8E4M3FN | F8E4M3FNUZ | F8E5M2 | F8E5M2FNUZ | F8E8M0 => 8,
            I4 | U4 | F4E2M1 => 4,
            I2 | U2 => 2,
            String => 0,
        }
    }

    /// Whether this is a floating-point type.
    pub fn is_float(self) -> bool {
        use DType::*;
        matches!(self, F32 | F64 | F16 | BF16 | F8E4M3FN | F8E4M3FNUZ | F8E5M2 | F8E5M2FNUZ | F8E8M0 | F4E2M1)
    }

    /// Whether this is an integer type (bool excluded).
    pub fn is_int(self) -> bool {
        use DType::*;
        matches!(self, I8 | U8 | I16 | U16 | I32 | U32 | I64 | U64 | I4 | U4 | I2 | U2)
    }

    /// The smallest and the largest value of an integer type; `None` for other types.
    pub fn int_range(self) -> Option<(i128, i128)> {
        use DType::*;
        let bits = self.bits() as u32;
        match self {
            I2 | I4 | I8 | I16 | I32 | I64 => Some((-(1i128 << (bits - 1)), (1i128 << (bits - 1)) - 1)),
            U2 | U4 | U8 | U16 | U32 | U64 => Some((0, (1i128 << bits) - 1)),
            _ => None,
        }
    }
}

/// The elements of a [`Tensor`].
#[allow(missing_docs)]
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Data {
    F32(Vec<f32>),
    F64(Vec<f64>),
    F16(Vec<f16>),
    BF16(Vec<bf16>),
    I8(Vec<i8>),
    U8(Vec<u8>),
    I16(Vec<i16>),
    U16(Vec<u16>),
    I32(Vec<i32>),
    U32(Vec<u32>),
    I64(Vec<i64>),
    U64(Vec<u64>),
    Bool(Vec<bool>),
    /// Byte strings (that ONNX strings are UTF-8 is only a convention).
    String(Vec<Vec<u8>>),
    /// Elements of a type that is only carried: packed bytes, little endian, the first element in the lowest bits.
    Packed(DType, Vec<u8>),
}

/// A dense row-major array.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Tensor {
    shape: Vec<usize>,
    data: Data,
}

/// The product of the dimensions, or an error if it overflows.
pub fn checked_numel(shape: &[usize]) -> Result<usize> {
    shape
        .iter()
        .try_fold(1usize, |a, &d| a.checked_mul(d))
        .filter(|&n| n <= isize::MAX as usize)
        .ok_or_else(|| Error::model(format!("shape {shape:?} has more elements than memory can address")))
}

macro_rules! each_data {
    ($data:expr, $v:ident => $body:expr, packed($t:ident, $b:ident) => $packed:expr) => {
        match $data {
            Data::F32($v) => $body,
            Data::F64($v) => $body,
            Data::F16($v) => $body,
            Data::BF16($v) => $body,
            Data::I8($v) => $body,
            Data::U8($v) => $body,
            Data::I16($v) => $body,
            Data::U16($v) => $body,
            Data::I32($v) => $body,
            Data::U32($v) => $body,
            Data::I64($v) => $body,
            Data::U64($v) => $body,
            Data::Bool($v) => $body,
            Data::String($v) => $body,
            Data::Packed($t, $b) => $packed,
        }
    };
}

impl Tensor {
    /// A tensor with shape `shape` and elements `data`; an error if their sizes differ.
    pub fn new(shape: Vec<usize>, data: Data) -> Result<Self> {
        let want = checked_numel(&shape)?;
        let fits = each_data!(&data, v => v.len() == want,
            packed(t, b) => want.checked_mul(t.bits()).is_some_and(|n| n.div_ceil(8) == b.len()));
        if fits {
            Ok(Tensor { shape, data })
        } else {
            Err(Error::model(format!("shape {shape:?} has {want} elements, the data has another number")))
        }
    }

    /// A float32 tensor. Panics if the number of `values` does not match `shape`: this is an error of the caller, never
    /// of a file.
    pub fn f32(shape: &[usize], values: Vec<f32>) -> Self {
        assert_eq!(shape.iter().product::<usize>(), values.len());
        Tensor { shape: shape.to_vec(), data: Data::F32(values) }
    }

    /// An int64 tensor of rank 1.
    pub fn i64s(values: Vec<i64>) -> Self {
        Tensor { shape: vec![values.len()], data: Data::I64(values) }
    }

    /// A float32 scalar (rank 0).
    pub fn scalar(value: f32) -> Self {
        Tensor { shape: Vec::new(), data: Data::F32(vec![value]) }
    }

    /// The dimensions.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// Number of dimensions.
    pub fn rank(&self) -> usize {
        self.shape.len()
    }

    /// Number of elements.
    pub fn len(&self) -> usize {
        self.shape.iter().product()
    }

    /// Whether there are no elements.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The elements.
    pub fn data(&self) -> &Data {
        &self.data
    }

    /// Converts into the elements.
    pub fn into_data(self) -> Data {
        self.data
    }

    /// The element type.
    pub fn dtype(&self) -> DType {
        match &self.data {
            Data::F32(_) => DType::F32,
            Data::F64(_) => DType::F64,
            Data::F16(_) => DType::F16,
            Data::BF16(_) => DType::BF16,
            Data::I8(_) => DType::I8,
            Data::U8(_) => DType::U8,
            Data::I16(_) => DType::I16,
            Data::U16(_) => DType::U16,
            Data::I32(_) => DType::I32,
            Data::U32(_) => DType::U32,
            Data::I64(_) => DType::I64,
            Data::U64(_) => DType::U64,
            Data::Bool(_) => DType::Bool,
            Data::String(_) => DType::String,
            Data::Packed(t, _) => *t,
        }
    }

    /// The same elements with another shape of the same size.
    pub fn reshaped(self, shape: &[usize]) -> Result<Self> {
        if checked_numel(shape)? != self.len() {
            return Err(Error::model(format!("cannot view shape {:?} as {shape:?}", self.shape)));
        }
        Ok(Tensor { shape: shape.to_vec(), data: self.data })
    }

    /// Stacks `parts`, which have one shape and type, along a new first axis. It is an error if there are none, if
    /// their shapes or types differ, or if their type is only carried.
    pub fn stack(parts: &[&Tensor]) -> Result<Self> {
        let Some((first, rest)) = parts.split_first() else {
            return Err(Error::data("expected tensors to stack, got none"));
        };
        let mut data = first.data.clone();
        for part in rest {
            if part.shape != first.shape || part.dtype() != first.dtype() {
                let (want, got) = ((first.dtype(), &first.shape), (part.dtype(), &part.shape));
                let message =
                    format!("expected {:?} of shape {:?}, got {:?} of shape {:?}", want.0, want.1, got.0, got.1);
                return Err(Error::data(message));
            }
            macro_rules! extend {
                ($($variant:ident)*) => {
                    match (&mut data, &part.data) {
                        $((Data::$variant(all), Data::$variant(more)) => all.extend_from_slice(more),)*
                        _ => {
                            let message = format!("cannot stack tensors with elements of type {:?}", first.dtype());
                            return Err(Error::unsupported(message));
                        }
                    }
                };
            }
            extend!(F32 F64 F16 BF16 I8 U8 I16 U16 I32 U32 I64 U64 Bool String);
        }
        Ok(Tensor { shape: std::iter::once(parts.len()).chain(first.shape.iter().copied()).collect(), data })
    }

    /// The elements, if they are float32.
    pub fn as_f32(&self) -> Option<&[f32]> {
        match &self.data {
            Data::F32(v) => Some(v),
            _ => None,
        }
    }

    /// The elements as f64 (integers above 2^53 lose digits; bool is 0 or 1). 4- and 2-bit integers are unpacked. It is
    /// an error for strings, complex numbers and float8.
    pub fn to_f64(&self) -> Result<Vec<f64>> {
        Ok(match &self.data {
            Data::F32(v) => v.iter().map(|&x| x as f64).collect(),
            Data::F64(v) => v.clone(),
            Data::F16(v) => v.iter().map(|x| x.to_f64()).collect(),
            Data::BF16(v) => v.iter().map(|x| x.to_f64()).collect(),
            Data::I8(v) => v.iter().map(|&x| x as f64).collect(),
            Data::U8(v) => v.iter().map(|&x| x as f64).collect(),
            Data::I16(v) => v.iter().map(|&x| x as f64).collect(),
            Data::U16(v) => v.iter().map(|&x| x as f64).collect(),
            Data::I32(v) => v.iter().map(|&x| x as f64).collect(),
            Data::U32(v) => v.iter().map(|&x| x as f64).collect(),
            Data::I64(v) => v.iter().map(|&x| x as f64).collect(),
            Data::U64(v) => v.iter().map(|&x| x as f64).collect(),
            Data::Bool(v) => v.iter().map(|&x| x as u8 as f64).collect(),
            Data::Packed(t @ (DType::I4 | DType::U4 | DType::I2 | DType::U2), bytes) => {
                unpack_small(*t, bytes, self.len()).into_iter().map(|x| x as f64).collect()
            }
            Data::String(_) | Data::Packed(..) => {
                return Err(Error::unsupported(format!("cannot compute with elements of type {:?}", self.dtype())));
            }
        })
    }

    /// The elements as f32; errors as for [`Tensor::to_f64`].
    pub fn to_f32(&self) -> Result<Vec<f32>> {
        match &self.data {
            Data::F32(v) => Ok(v.clone()),
            Data::F16(v) => Ok(v.iter().map(|x| x.to_f32()).collect()),
            Data::BF16(v) => Ok(v.iter().map(|x| x.to_f32()).collect()),
            _ => Ok(self.to_f64()?.into_iter().map(|x| x as f32).collect()),
        }
    }

    /// The elements as i64, for shapes, axes and indices; an error unless the type is integer or bool.
    pub fn to_i64(&self) -> Result<Vec<i64>> {
        match &self.data {
            Data::I64(v) => Ok(v.clone()),
            Data::U64(v) => Ok(v.iter().map(|&x| x as i64).collect()),
            _ if self.dtype().is_int() || self.dtype() == DType::Bool => {
                Ok(self.to_f64()?.into_iter().map(|x| x as i64).collect())
            }
            _ => Err(Error::model(format!("expected integers, got {:?}", self.dtype()))),
        }
    }

    /// A tensor with elements of type `dtype` made from f64 values: floats are rounded to nearest, integers truncated
    /// and saturated, and bool is true for values other than 0. 4- and 2-bit integers are packed. It is an error for
    /// types that are only carried.
    pub fn from_f64(dtype: DType, shape: &[usize], values: &[f64]) -> Result<Self> {
        let data = match dtype {
            DType::F32 => Data::F32(values.iter().map(|&x| x as f32).collect()),
            DType::F64 => Data::F64(values.to_vec()),
            DType::F16 => Data::F16(values.iter().map(|&x| f16::from_f64(x)).collect()),
            DType::BF16 => Data::BF16(values.iter().map(|&x| bf16::from_f64(x)).collect()),
            DType::I8 => Data::I8(values.iter().map(|&x| x as i8).collect()),
            DType::U8 => Data::U8(values.iter().map(|&x| x as u8).collect()),
            DType::I16 => Data::I16(values.iter().map(|&x| x as i16).collect()),
            DType::U16 => Data::U16(values.iter().map(|&x| x as u16).collect()),
            DType::I32 => Data::I32(values.iter().map(|&x| x as i32).collect()),
            DType::U32 => Data::U32(values.iter().map(|&x| x as u32).collect()),
            DType::I64 => Data::I64(values.iter().map(|&x| x as i64).collect()),
            DType::U64 => Data::U64(values.iter().map(|&x| x as u64).collect()),
            DType::Bool => Data::Bool(values.iter().map(|&x| x != 0.0).collect()),
            DType::I4 | DType::U4 | DType::I2 | DType::U2 => {
                let ints: Vec<i64> = values.iter().map(|&x| x as i64).collect();
                Data::Packed(dtype, pack_small(dtype, &ints))
            }
            _ => return Err(Error::unsupported(format!("cannot compute elements of type {dtype:?}"))),
        };
        Tensor::new(shape.to_vec(), data)
    }
}

/// Unpacks `n` 4- or 2-bit integers, first element in the lowest bits (ONNX packing).
fn unpack_small(dtype: DType, bytes: &[u8], n: usize) -> Vec<i64> {
    let bits = dtype.bits();
    let per = 8 / bits;
    let signed = matches!(dtype, DType::I4 | DType::I2);
    (0..n)
        .map(|i| {
            let raw = (bytes[i / per] >> ((i % per) * bits)) & ((1 << bits) - 1);
            if signed && raw >> (bits - 1) == 1 { raw as i64 - (1 << bits) } else { raw as i64 }
        })
        .collect()
}

/// Packs integers into 4 or 2 bits each, saturating, first element in the lowest bits (ONNX packing).
fn pack_small(dtype: DType, values: &[i64]) -> Vec<u8> {
    let bits = dtype.bits();
    let per = 8 / bits;
    let (low, high) = match dtype.int_range() {
        Some((low, high)) => (low as i64, high as i64),
        None => (0, 0),
    };
    let mut bytes = vec![0u8; values.len().div_ceil(per)];
    for (i, &v) in values.iter().enumerate() {
        let raw = (v.clamp(low, high) as u8) & ((1 << bits) - 1);
        bytes[i / per] |= raw << ((i % per) * bits);
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_integers_pack_first_element_lowest() {
        let t = Tensor::from_f64(DType::I4, &[3], &[-1.0, 7.0, -8.0]).unwrap();
        assert_eq!(t.data(), &Data::Packed(DType::I4, vec![0x7f, 0x08]));
        assert_eq!(t.to_i64().unwrap(), [-1, 7, -8]);
        let t = Tensor::from_f64(DType::U2, &[5], &[0.0, 1.0, 2.0, 3.0, 9.0]).unwrap();
        assert_eq!(t.to_i64().unwrap(), [0, 1, 2, 3, 3]);
    }

    #[test]
    fn tensors_of_one_kind_stand_side_by_side() {
        let (a, b) = (Tensor::i64s(vec![1, 2]), Tensor::i64s(vec![3, 4]));
        let both = Tensor::stack(&[&a, &b]).unwrap();
        assert_eq!((both.shape(), both.data()), (&[2, 2][..], &Data::I64(vec![1, 2, 3, 4])));
        let one = Tensor::stack(&[&Tensor::scalar(2.0)]).unwrap();
        assert_eq!((one.shape(), one.as_f32()), (&[1][..], Some(&[2.0][..])));
        let error = Tensor::stack(&[&a, &Tensor::i64s(vec![3])]).unwrap_err();
        assert_eq!(error.message(), "expected I64 of shape [2], got I64 of shape [1]");
        assert!(Tensor::stack(&[&a, &Tensor::f32(&[2], vec![0.0; 2])]).is_err());
        assert!(Tensor::stack(&[]).is_err());
    }

    #[test]
    fn size_mismatch_and_overflow_are_errors() {
        assert!(Tensor::new(vec![2, 2], Data::F32(vec![0.0; 3])).is_err());
        assert!(Tensor::new(vec![usize::MAX, 2], Data::F32(vec![])).is_err());
        assert!(Tensor::new(vec![3], Data::Packed(DType::U4, vec![0; 2])).is_ok());
    }
}
