//! ValueInfoProto and [`Fact`], and the messages in which a graph's [`Origin`]s are written.

use super::proto::*;
use super::tensor::{dtype_code, dtype_from};
use crate::error::{Error, Result};
use crate::graph::{Dim, Fact, Origin};
use prost::Message;

/// What the file says of a value beyond the IR.
#[derive(Clone, PartialEq, Message)]
pub struct ValueOrigin {
    /// Its declaration.
    #[prost(message, optional, tag = "1")]
    pub info: Option<ValueInfoProto>,
    /// Documentation and metadata of an initializer; no data, no name.
    #[prost(message, optional, tag = "2")]
    pub tensor: Option<TensorProto>,
    /// The sparse form of an initializer.
    #[prost(message, optional, tag = "3")]
    pub sparse: Option<SparseTensorProto>,
    /// Whether a constant is also listed as graph input.
    #[prost(bool, tag = "4")]
    pub listed: bool,
    /// Whether nothing in the file read this constant.
    #[prost(bool, tag = "5")]
    pub unread: bool,
}

/// Keeps a message.
pub fn keep(message: &impl Message) -> Origin {
    Origin(message.encode_to_vec().into())
}

/// Reads a kept message back; the default where nothing was kept.
pub fn kept<M: Message + Default>(origin: &Option<Origin>) -> Result<M> {
    match origin {
        Some(o) => M::decode(&*o.0).map_err(|e| Error::internal(format!("an origin cannot be read back: {e}"))),
        None => Ok(M::default()),
    }
}

/// What `info` declares about a tensor; nothing for other types.
pub fn fact(info: &ValueInfoProto) -> Fact {
    let Some(TypeValue::Tensor(t)) = info.r#type.as_ref().and_then(|t| t.value.as_ref()) else {
        return Fact::default();
    };
    let dim = |d: &Dimension| match &d.value {
        Some(DimensionValue::DimValue(n)) => usize::try_from(*n).map_or(Dim::Unknown, Dim::Known),
        Some(DimensionValue::DimParam(s)) if !s.is_empty() => Dim::Symbol(s.clone()),
        _ => Dim::Unknown,
    };
    Fact { dtype: dtype_from(t.elem_type()), shape: t.shape.as_ref().map(|s| s.dim.iter().map(dim).collect()) }
}

/// The declaration of value `name`: the file's own where it still says what `fact` says.
pub fn declare(name: &str, value: &Fact, origin: Option<ValueInfoProto>) -> ValueInfoProto {
    let mut info = origin.unwrap_or_default();
    info.name = Some(name.to_string());
    if fact(&info) != *value {
        let dim = |d: &Dim| Dimension {
            value: match d {
                Dim::Known(n) => Some(DimensionValue::DimValue(*n as i64)),
                Dim::Symbol(s) => Some(DimensionValue::DimParam(s.clone())),
                Dim::Unknown => None,
            },
            denotation: None,
        };
        let shape = value.shape.as_ref().map(|s| TensorShapeProto { dim: s.iter().map(dim).collect() });
        let elem_type = value.dtype.map(dtype_code);
        info.r#type =
            Some(TypeProto { value: Some(TypeValue::Tensor(TypeProtoTensor { elem_type, shape })), denotation: None });
    }
    info
}
