//! Conversion between the runtime's tensors and [`Tensor`].

use super::api::{MemoryInfo, TensorInfo, Value};
use super::library::Library;
use crate::error::{Error, Result};
use crate::tensor::{DType, Data, Tensor, checked_numel};
use half::{bf16, f16};
use std::ffi::{c_int, c_void};
use std::marker::PhantomData;
use std::ptr::null_mut;

/// Codes of element types (`ONNXTensorElementDataType`), of those that tensors cross with.
const ELEMENTS: &[(c_int, DType)] = &[
    (1, DType::F32),
    (2, DType::U8),
    (3, DType::I8),
    (4, DType::U16),
    (5, DType::I16),
    (6, DType::I32),
    (7, DType::I64),
    (9, DType::Bool),
    (10, DType::F16),
    (11, DType::F64),
    (12, DType::U32),
    (13, DType::U64),
    (16, DType::BF16),
];

/// The type with this code; `None` for those that tensors cannot cross with.
pub fn dtype(code: c_int) -> Option<DType> {
    ELEMENTS.iter().find(|e| e.0 == code).map(|e| e.1)
}

/// A tensor of the runtime. One made of ours reads its elements in place, for the life `'a`.
pub struct Handle<'a> {
    library: &'a Library,
    value: *mut Value,
    elements: PhantomData<&'a Tensor>,
}

impl Drop for Handle<'_> {
    fn drop(&mut self) {
        // SAFETY: the value is this library's, or null, which it takes, and released once.
        unsafe { (self.library.api().release_value)(self.value) }
    }
}

impl<'a> Handle<'a> {
    /// The value that a run of `library` handed out; it is released with this.
    pub fn owned(library: &'a Library, value: *mut Value) -> Self {
        Handle { library, value, elements: PhantomData }
    }

    /// A view of `tensor` in `memory`, which must be the processor's own.
    pub fn view(library: &'a Library, memory: *const MemoryInfo, tensor: &'a Tensor) -> Result<Self> {
        let (data, bytes) = elements(tensor)?;
        let code = ELEMENTS.iter().find(|e| e.1 == tensor.dtype()).map(|e| e.0).ok_or_else(|| refused(tensor))?;
        let shape: Vec<i64> = tensor.shape().iter().map(|&d| d as i64).collect();
        let mut value = null_mut();
        // SAFETY: elements and shape have the stated lengths; the elements stay for `'a` and, as those of an input,
        // are only read.
        let outcome = unsafe {
            let data = data.cast_mut().cast();
            (library.api().create_tensor)(memory, data, bytes, shape.as_ptr(), shape.len(), code, &mut value)
        };
        let handle = Handle::owned(library, value);
        library.check(outcome).map(|()| handle)
    }

    /// The value.
    pub fn pointer(&self) -> *const Value {
        self.value
    }

    /// A copy of the elements.
    pub fn tensor(&self) -> Result<Tensor> {
        let (library, api) = (self.library, self.library.api());
        let (mut is_tensor, mut info, mut data) = (0, null_mut(), null_mut::<c_void>());
        // SAFETY: the value is alive; the answer goes to an integer of ours.
        library.check(unsafe { (api.is_tensor)(self.value, &mut is_tensor) })?;
        if is_tensor == 0 {
            return Err(Error::unsupported("expected a tensor, got a sequence, a map or no value"));
        }
        // SAFETY: the value is a tensor; the answer is ours to release, which `Info` does.
        library.check(unsafe { (api.tensor_info)(self.value, &mut info) })?;
        let (code, shape) = {
            let info = Info { library, info };
            // SAFETY: the information lives until the end of this block.
            unsafe { described(library, info.info) }?
        };
        let shape: Vec<usize> = shape
            .into_iter()
            .map(|d| usize::try_from(d).map_err(|_| Error::model(format!("expected a size, got {d}"))))
            .collect::<Result<_>>()?;
        let numel = checked_numel(&shape)?;
        let Some(dtype) = dtype(code) else {
            return Err(Error::unsupported(format!("elements of type {code} of ONNX Runtime cannot be read")));
        };
        // SAFETY: the value is a tensor; the answer points at its elements.
        library.check(unsafe { (api.tensor_data)(self.value, &mut data) })?;
        if numel == 0 {
            return Tensor::from_f64(dtype, &shape, &[]);
        }
        macro_rules! copied {
            ($t:ty) => {
                // SAFETY: the runtime holds so many elements of this type there, aligned, until the value is released.
                unsafe { std::slice::from_raw_parts(data.cast::<$t>(), numel) }.to_vec()
            };
        }
        let data = match dtype {
            DType::F32 => Data::F32(copied!(f32)),
            DType::F64 => Data::F64(copied!(f64)),
            DType::F16 => Data::F16(copied!(f16)),
            DType::BF16 => Data::BF16(copied!(bf16)),
            DType::I8 => Data::I8(copied!(i8)),
            DType::U8 => Data::U8(copied!(u8)),
            DType::I16 => Data::I16(copied!(i16)),
            DType::U16 => Data::U16(copied!(u16)),
            DType::I32 => Data::I32(copied!(i32)),
            DType::U32 => Data::U32(copied!(u32)),
            DType::I64 => Data::I64(copied!(i64)),
            DType::U64 => Data::U64(copied!(u64)),
            // A byte that is neither 0 nor 1 would be no `bool`.
            DType::Bool => Data::Bool(copied!(u8).into_iter().map(|b| b != 0).collect()),
            _ => return Err(Error::internal(format!("no elements of type {dtype:?} are read"))),
        };
        Tensor::new(shape, data)
    }
}

/// Information on a tensor that is ours to release.
struct Info<'a> {
    library: &'a Library,
    info: *mut TensorInfo,
}

impl Drop for Info<'_> {
    fn drop(&mut self) {
        // SAFETY: made by this library, released once.
        unsafe { (self.library.api().release_tensor_info)(self.info) }
    }
}

/// Code of the element type, and sizes; -1 for an open one.
///
/// # Safety
/// `info` is alive and of `library`.
pub unsafe fn described(library: &Library, info: *const TensorInfo) -> Result<(c_int, Vec<i64>)> {
    let api = library.api();
    let (mut code, mut rank) = (0, 0);
    // SAFETY: the caller's word on `info`; answers go to places of ours, of the stated length.
    unsafe {
        library.check((api.element)(info, &mut code))?;
        library.check((api.rank)(info, &mut rank))?;
        let mut shape = vec![0; rank];
        library.check((api.dimensions)(info, shape.as_mut_ptr(), rank))?;
        Ok((code, shape))
    }
}

fn refused(tensor: &Tensor) -> Error {
    Error::unsupported(format!("elements of type {:?} cannot be passed to ONNX Runtime", tensor.dtype()))
}

/// Where the elements of `tensor` lie, and their size in bytes.
fn elements(tensor: &Tensor) -> Result<(*const u8, usize)> {
    macro_rules! place {
        ($($variant:ident)*) => {
            match tensor.data() {
                $(Data::$variant(v) => Ok((v.as_ptr().cast(), size_of_val(v.as_slice()))),)*
                Data::String(_) | Data::Packed(..) => Err(refused(tensor)),
            }
        };
    }
    place!(F32 F64 F16 BF16 I8 U8 I16 U16 I32 U32 I64 U64 Bool)
}
