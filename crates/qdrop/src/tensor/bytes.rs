//! Tensors as bytes: elements in little-endian order, as files and other programs have them.

use super::{DType, Data, Tensor};
use crate::error::{Error, Result};
use half::{bf16, f16};

impl Data {
    /// The elements of type `dtype` that lie in `bytes`, little endian; 4- and 2-bit ones packed as ONNX does. Bytes behind the
    /// last whole element are left out. It is an error for strings.
    pub fn from_le_bytes(dtype: DType, bytes: &[u8]) -> Result<Self> {
        macro_rules! read {
            ($variant:ident, $t:ty) => {
                Data::$variant(bytes.as_chunks().0.iter().map(|b| <$t>::from_le_bytes(*b)).collect())
            };
        }
        Ok(match dtype {
            DType::F32 => read!(F32, f32),
            DType::F64 => read!(F64, f64),
            DType::F16 => read!(F16, f16),
            DType::BF16 => read!(BF16, bf16),
            DType::I8 => read!(I8, i8),
            DType::U8 => Data::U8(bytes.to_vec()),
            DType::I16 => read!(I16, i16),
            DType::U16 => read!(U16, u16),
            DType::I32 => read!(I32, i32),
            DType::U32 => read!(U32, u32),
            DType::I64 => read!(I64, i64),
            DType::U64 => read!(U64, u64),
            DType::Bool => Data::Bool(bytes.iter().map(|&b| b != 0).collect()),
            DType::String => return Err(Error::model("strings cannot be raw data")),
            _ => Data::Packed(dtype, bytes.to_vec()),
        })
    }
}

impl Tensor {
    /// The tensor of type `dtype` and shape `shape` whose elements lie in `bytes` as [`Data::from_le_bytes`] reads them; an
    /// error if their sizes differ.
    pub fn from_le_bytes(dtype: DType, shape: Vec<usize>, bytes: &[u8]) -> Result<Self> {
        Tensor::new(shape, Data::from_le_bytes(dtype, bytes)?)
    }

    /// The elements as [`Data::from_le_bytes`] reads them; `None` for strings.
    pub fn to_le_bytes(&self) -> Option<Vec<u8>> {
        macro_rules! write {
            ($v:expr) => {{
                let mut bytes = Vec::with_capacity(std::mem::size_of_val($v.as_slice()));
                $v.iter().for_each(|x| bytes.extend_from_slice(&x.to_le_bytes()));
                bytes
            }};
        }
        Some(match self.data() {
            Data::F32(v) => write!(v),
            Data::F64(v) => write!(v),
            Data::F16(v) => write!(v),
            Data::BF16(v) => write!(v),
            Data::I8(v) => write!(v),
            Data::U8(v) => v.clone(),
            Data::I16(v) => write!(v),
            Data::U16(v) => write!(v),
            Data::I32(v) => write!(v),
            Data::U32(v) => write!(v),
            Data::I64(v) => write!(v),
            Data::U64(v) => write!(v),
            Data::Bool(v) => v.iter().map(|&b| u8::from(b)).collect(),
            Data::Packed(_, bytes) => bytes.clone(),
            Data::String(_) => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_give_the_same_tensor_again() {
        for (dtype, bytes) in [(DType::F32, 4), (DType::BF16, 2), (DType::I64, 8), (DType::Bool, 1), (DType::U8, 1)] {
            let tensor = Tensor::from_f64(dtype, &[2, 1], &[1.0, 0.0]).unwrap();
            let written = tensor.to_le_bytes().unwrap();
            assert_eq!(written.len(), 2 * bytes);
            assert_eq!(Tensor::from_le_bytes(dtype, vec![2, 1], &written).unwrap(), tensor);
            assert!(Tensor::from_le_bytes(dtype, vec![3], &written).is_err());
        }
        assert_eq!(Tensor::i64s(vec![-2]).to_le_bytes().unwrap(), [254, 255, 255, 255, 255, 255, 255, 255]);
    }
}
