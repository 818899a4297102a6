//! TensorProto and SparseTensorProto to [`Tensor`] and back.

use super::proto::{SparseTensorProto, TensorProto};
use crate::error::{Error, Result};
use crate::tensor::{DType, Data, Tensor, checked_numel};
use half::{bf16, f16};
use prost::bytes::Bytes;

/// Largest dense form of a sparse initializer, in bytes.
const SPARSE_LIMIT: usize = 1 << 30;

/// Codes of TensorProto.DataType.
const CODES: &[(DType, i32)] = &[
    (DType::F32, 1),
    (DType::U8, 2),
    (DType::I8, 3),
    (DType::U16, 4),
    (DType::I16, 5),
    (DType::I32, 6),
    (DType::I64, 7),
    (DType::String, 8),
    (DType::Bool, 9),
    (DType::F16, 10),
    (DType::F64, 11),
    (DType::U32, 12),
    (DType::U64, 13),
    (DType::Complex64, 14),
    (DType::Complex128, 15),
    (DType::BF16, 16),
    (DType::F8E4M3FN, 17),
    (DType::F8E4M3FNUZ, 18),
    (DType::F8E5M2, 19),
    (DType::F8E5M2FNUZ, 20),
    (DType::U4, 21),
    (DType::I4, 22),
    (DType::F4E2M1, 23),
    (DType::F8E8M0, 24),
    (DType::U2, 25),
    (DType::I2, 26),
];

/// The element type that ONNX gives `code`.
pub fn dtype_from(code: i32) -> Option<DType> {
    CODES.iter().find(|c| c.1 == code).map(|c| c.0)
}

/// ONNX's code of `dtype`.
pub fn dtype_code(dtype: DType) -> i32 {
    // Every DType stands in the table; a test walks them.
    CODES.iter().find(|c| c.0 == dtype).map_or(0, |c| c.1)
}

/// How errors name a tensor.
pub fn describe(tensor: &TensorProto) -> String {
    format!("tensor `{}`", tensor.name())
}

/// The dimensions as sizes; an error for negative ones and for products that overflow.
pub fn dims(dims: &[i64]) -> Result<Vec<usize>> {
    let shape = dims
        .iter()
        .map(|&d| usize::try_from(d).map_err(|_| Error::model(format!("dimensions {dims:?} contain a negative size"))))
        .collect::<Result<Vec<_>>>()?;
    addressable(&shape)?;
    Ok(shape)
}

/// An error for shapes whose strides overflow, even where another axis is empty.
pub fn addressable(shape: &[usize]) -> Result<()> {
    checked_numel(&shape.iter().map(|&d| d.max(1)).collect::<Vec<_>>()).map(drop)
}

/// Bytes that `shape` elements of `dtype` take when packed as ONNX packs them.
pub fn packed_bytes(dtype: DType, shape: &[usize]) -> Result<usize> {
    checked_numel(shape)?
        .checked_mul(dtype.bits())
        .map(|bits| bits.div_ceil(8))
        .ok_or_else(|| Error::model(format!("shape {shape:?} of {dtype:?} has more bytes than memory can address")))
}

/// Type and shape that `proto` declares.
pub fn declared(proto: &TensorProto) -> Result<(DType, Vec<usize>)> {
    let code = proto.data_type();
    let dtype = dtype_from(code)
        .ok_or_else(|| Error::unsupported(format!("element type {code} is not known")).at(describe(proto)))?;
    Ok((dtype, dims(&proto.dims).map_err(|e| e.at(describe(proto)))?))
}

/// The tensor that `proto` holds; external data must have been loaded.
pub fn decode(mut proto: TensorProto) -> Result<Tensor> {
    let (dtype, shape) = declared(&proto)?;
    let place = describe(&proto);
    if proto.segment.is_some() {
        return Err(Error::unsupported("the tensor is stored in segments").at(place));
    }
    let raw = proto.raw_data.take().filter(|raw| !raw.is_empty());
    let data = match raw {
        Some(_) if dtype == DType::String => Err(Error::model("strings cannot be raw data")),
        Some(raw) => {
            let want = packed_bytes(dtype, &shape)?;
            if raw.len() == want {
                Data::from_le_bytes(dtype, &raw)
            } else {
                Err(Error::model(format!(
                    "shape {shape:?} of {dtype:?} needs {want} bytes, the file has {}",
                    raw.len()
                )))
            }
        }
        None => from_fields(dtype, proto),
    };
    data.and_then(|data| Tensor::new(shape, data))
        .map_err(|e| e.at(place).hint("the file is damaged; export the model again"))
}

/// Numbers from the typed fields, each narrowed with a check.
fn from_fields(dtype: DType, proto: TensorProto) -> Result<Data> {
    fn narrow<S: Copy + std::fmt::Display, T: TryFrom<S>>(values: &[S], dtype: DType) -> Result<Vec<T>> {
        let one = |&v| T::try_from(v).map_err(|_| Error::model(format!("{v} does not fit {dtype:?}")));
        values.iter().map(one).collect()
    }
    let ints = &proto.int32_data;
    Ok(match dtype {
        DType::F32 => Data::F32(proto.float_data),
        DType::F64 => Data::F64(proto.double_data),
        DType::I64 => Data::I64(proto.int64_data),
        DType::U64 => Data::U64(proto.uint64_data),
        DType::U32 => Data::U32(narrow(&proto.uint64_data, dtype)?),
        DType::I32 => Data::I32(proto.int32_data),
        DType::I16 => Data::I16(narrow(ints, dtype)?),
        DType::U16 => Data::U16(narrow(ints, dtype)?),
        DType::I8 => Data::I8(narrow(ints, dtype)?),
        DType::U8 => Data::U8(narrow(ints, dtype)?),
        DType::Bool => Data::Bool(ints.iter().map(|&v| v != 0).collect()),
        DType::F16 => Data::F16(narrow(ints, dtype)?.into_iter().map(f16::from_bits).collect()),
        DType::BF16 => Data::BF16(narrow(ints, dtype)?.into_iter().map(bf16::from_bits).collect()),
        DType::String => Data::String(proto.string_data),
        DType::Complex64 => Data::Packed(dtype, proto.float_data.iter().flat_map(|v| v.to_le_bytes()).collect()),
        DType::Complex128 => Data::Packed(dtype, proto.double_data.iter().flat_map(|v| v.to_le_bytes()).collect()),
        // Signed small types may be stored as sign-extended words: the low byte is the packed one.
        _ => Data::Packed(dtype, ints.iter().map(|&v| v as u8).collect()),
    })
}

/// A TensorProto without data: name, type and dimensions.
pub fn header(name: &str, tensor: &Tensor) -> TensorProto {
    TensorProto {
        name: Some(name.to_string()),
        data_type: Some(dtype_code(tensor.dtype())),
        dims: tensor.shape().iter().map(|&d| d as i64).collect(),
        ..Default::default()
    }
}

/// A TensorProto holding `tensor`.
pub fn encode(name: &str, tensor: &Tensor) -> TensorProto {
    let mut proto = header(name, tensor);
    match tensor.data() {
        Data::String(strings) => proto.string_data = strings.clone(),
        _ => proto.raw_data = tensor.to_le_bytes().map(Bytes::from),
    }
    proto
}

/// The dense form of a sparse tensor.
pub fn densify(sparse: &SparseTensorProto) -> Result<Tensor> {
    let missing = || Error::model("a sparse tensor lacks its values or its indices");
    let (values, indices) = (sparse.values.as_ref().ok_or_else(missing)?, sparse.indices.as_ref().ok_or_else(missing)?);
    let place = describe(values);
    let run = || -> Result<Tensor> {
        let shape = dims(&sparse.dims)?;
        let (dtype, _) = declared(values)?;
        let bits = dtype.bits();
        if bits < 8 {
            return Err(Error::unsupported(format!("sparse tensor of {dtype:?}")));
        }
        let size = packed_bytes(dtype, &shape)?;
        if size > SPARSE_LIMIT {
            let what = format!("sparse tensor of shape {shape:?} takes {size} bytes when dense");
            return Err(Error::unsupported(what).hint(format!("at most {SPARSE_LIMIT} bytes are made dense")));
        }
        let source = decode(values.clone())?;
        let index = decode(indices.clone())?;
        let (positions, count) = (index.to_i64()?, source.len());
        let per = match index.shape() {
            [n] if *n == count => 1,
            [n, rank] if *n == count && *rank == shape.len() => *rank,
            other => {
                return Err(Error::model(format!("{count} sparse values cannot have indices of shape {other:?}")));
            }
        };
        let bytes = source.to_le_bytes().ok_or_else(|| Error::unsupported("sparse tensor of strings"))?;
        let (width, total) = (bits / 8, checked_numel(&shape)?);
        let mut dense = vec![0u8; size];
        for i in 0..count {
            let bad = || Error::model(format!("sparse index {i} lies outside shape {shape:?}"));
            let mut at = 0usize;
            for k in 0..per {
                let p = usize::try_from(positions[i * per + k]).map_err(|_| bad())?;
                let extent = if index.rank() == 1 { total } else { shape[k] };
                if p >= extent {
                    return Err(bad());
                }
                at = at * extent + p;
            }
            dense[at * width..(at + 1) * width].copy_from_slice(&bytes[i * width..(i + 1) * width]);
        }
        Tensor::new(shape.clone(), Data::from_le_bytes(dtype, &dense)?)
    };
    run().map_err(|e| e.at(place))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_type_survives_raw_bytes() {
        for &(dtype, code) in CODES.iter().filter(|c| c.0 != DType::String) {
            assert_eq!(dtype_from(code), Some(dtype));
            let n = packed_bytes(dtype, &[3]).unwrap();
            let bytes: Vec<u8> = (0..n as u8).map(|b| b & 1).collect();
            let data = Data::from_le_bytes(dtype, &bytes).unwrap();
            let tensor = Tensor::new(vec![3], data).unwrap();
            assert_eq!(decode(encode("t", &tensor)).unwrap(), tensor);
        }
        let strings = Tensor::new(vec![2], Data::String(vec![b"a".to_vec(), vec![0xff]])).unwrap();
        assert_eq!(decode(encode("t", &strings)).unwrap(), strings);
    }

    #[test]
    fn typed_fields_are_read() {
        let base = |code| TensorProto { dims: vec![2], data_type: Some(code), ..Default::default() };
        let t = |p| decode(p).unwrap().into_data();
        assert_eq!(t(TensorProto { float_data: vec![1.0, 2.0], ..base(1) }), Data::F32(vec![1.0, 2.0]));
        assert_eq!(t(TensorProto { int32_data: vec![-1, 2], ..base(3) }), Data::I8(vec![-1, 2]));
        assert_eq!(t(TensorProto { int32_data: vec![0x3c00, 0], ..base(10) }), Data::F16(vec![f16::ONE, f16::ZERO]));
        assert_eq!(t(TensorProto { uint64_data: vec![1, 2], ..base(12) }), Data::U32(vec![1, 2]));
        assert_eq!(t(TensorProto { int32_data: vec![0x21], ..base(22) }), Data::Packed(DType::I4, vec![0x21]));
        assert!(decode(TensorProto { int32_data: vec![300, 0], ..base(3) }).is_err());
    }

    #[test]
    fn wrong_sizes_are_named() {
        let short = TensorProto { name: Some("w".into()), raw_data: Some(vec![0; 3].into()), ..base(vec![2]) };
        let text = decode(short).unwrap_err().to_string();
        assert!(text.contains("tensor `w`") && text.contains("8 bytes") && text.contains("has 3"), "{text}");
        assert!(decode(base(vec![-1])).unwrap_err().to_string().contains("negative"));
        assert!(decode(base(vec![1 << 40, 1 << 40])).is_err());
    }

    fn base(dims: Vec<i64>) -> TensorProto {
        TensorProto { dims, data_type: Some(1), ..Default::default() }
    }

    #[test]
    fn sparse_tensors_become_dense() {
        let values = TensorProto { name: Some("s".into()), float_data: vec![5.0, 7.0], ..base(vec![2]) };
        let at = |dims, v: &[i64]| TensorProto { dims, data_type: Some(7), int64_data: v.into(), ..Default::default() };
        let make =
            |indices| SparseTensorProto { values: Some(values.clone()), indices: Some(indices), dims: vec![2, 3] };
        let want = [0.0, 5.0, 0.0, 0.0, 0.0, 7.0];
        assert_eq!(densify(&make(at(vec![2], &[1, 5]))).unwrap().as_f32().unwrap(), want);
        assert_eq!(densify(&make(at(vec![2, 2], &[0, 1, 1, 2]))).unwrap().as_f32().unwrap(), want);
        assert!(densify(&make(at(vec![2], &[1, 6]))).is_err());
        let huge = SparseTensorProto { dims: vec![1 << 40], ..make(at(vec![2], &[1, 5])) };
        assert!(densify(&huge).unwrap_err().to_string().contains("dense"));
    }
}
