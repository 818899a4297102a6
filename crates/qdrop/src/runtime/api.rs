//! The part of ONNX Runtime's C interface that is used here, laid out as in `onnxruntime_c_api.h`.
//!
//! The interface is a table of functions that grows at its end. All functions listed here are in version 1, whose
//! layout every later version keeps (the header asserts that), so any ONNX Runtime works.

use std::ffi::{c_char, c_int, c_void};
use std::mem::offset_of;

/// The version of the table that is asked for.
pub const VERSION: u32 = 1;

/// A path as the interface takes it.
#[cfg(not(windows))]
pub type PathChar = c_char;
/// A path as the interface takes it.
#[cfg(windows)]
pub type PathChar = u16;

macro_rules! handles {
    ($($name:ident)*) => {
        $(
            #[repr(C)]
            pub struct $name {
                _private: [u8; 0],
            }
        )*
    };
}
handles!(Status Env Session SessionOptions RunOptions Value TypeInfo TensorInfo MemoryInfo Allocator);

/// What a function answers: null where all is well.
pub type Outcome = *mut Status;

/// What the library's one exported function hands out.
#[repr(C)]
pub struct Base {
    /// The table of a version; null where the library is older.
    pub api: unsafe extern "system" fn(version: u32) -> *const Api,
    /// The version of the library, such as `1.20.1`.
    pub version: unsafe extern "system" fn() -> *const c_char,
}

/// The exported function.
pub type GetBase = unsafe extern "system" fn() -> *const Base;

/// Places in the table that are not used.
type Skip<const N: usize> = [*const c_void; N];

/// The table.
#[repr(C)]
pub struct Api {
    _0: Skip<1>,
    pub error_code: unsafe extern "system" fn(*const Status) -> c_int,
    pub error_message: unsafe extern "system" fn(*const Status) -> *const c_char,
    pub create_env: unsafe extern "system" fn(severity: c_int, name: *const c_char, *mut *mut Env) -> Outcome,
    _4: Skip<2>,
    pub disable_telemetry: unsafe extern "system" fn(*const Env) -> Outcome,
    pub create_session:
        unsafe extern "system" fn(*const Env, *const PathChar, *const SessionOptions, *mut *mut Session) -> Outcome,
    pub create_session_from_array: unsafe extern "system" fn(
        *const Env,
        *const c_void,
        usize,
        *const SessionOptions,
        *mut *mut Session,
    ) -> Outcome,
    pub run: unsafe extern "system" fn(
        *mut Session,
        *const RunOptions,
        input_names: *const *const c_char,
        inputs: *const *const Value,
        input_len: usize,
        output_names: *const *const c_char,
        output_len: usize,
        outputs: *mut *mut Value,
    ) -> Outcome,
    pub create_options: unsafe extern "system" fn(*mut *mut SessionOptions) -> Outcome,
    _11: Skip<12>,
    pub set_optimization: unsafe extern "system" fn(*mut SessionOptions, level: c_int) -> Outcome,
    pub set_threads: unsafe extern "system" fn(*mut SessionOptions, threads: c_int) -> Outcome,
    _25: Skip<5>,
    pub input_count: unsafe extern "system" fn(*const Session, *mut usize) -> Outcome,
    pub output_count: unsafe extern "system" fn(*const Session, *mut usize) -> Outcome,
    _32: Skip<1>,
    pub input_type: unsafe extern "system" fn(*const Session, usize, *mut *mut TypeInfo) -> Outcome,
    pub output_type: unsafe extern "system" fn(*const Session, usize, *mut *mut TypeInfo) -> Outcome,
    _35: Skip<1>,
    pub input_name: unsafe extern "system" fn(*const Session, usize, *mut Allocator, *mut *mut c_char) -> Outcome,
    pub output_name: unsafe extern "system" fn(*const Session, usize, *mut Allocator, *mut *mut c_char) -> Outcome,
    _38: Skip<1>,
    pub create_run_options: unsafe extern "system" fn(*mut *mut RunOptions) -> Outcome,
    _40: Skip<6>,
    /// May be called from any thread while a run goes on.
    pub terminate: unsafe extern "system" fn(*mut RunOptions) -> Outcome,
    _47: Skip<2>,
    pub create_tensor: unsafe extern "system" fn(
        *const MemoryInfo,
        data: *mut c_void,
        bytes: usize,
        shape: *const i64,
        rank: usize,
        element: c_int,
        *mut *mut Value,
    ) -> Outcome,
    pub is_tensor: unsafe extern "system" fn(*const Value, *mut c_int) -> Outcome,
    pub tensor_data: unsafe extern "system" fn(*mut Value, *mut *mut c_void) -> Outcome,
    _52: Skip<3>,
    /// Null where the type is not a tensor's; the answer belongs to the type.
    pub cast_to_tensor: unsafe extern "system" fn(*const TypeInfo, *mut *const TensorInfo) -> Outcome,
    _56: Skip<4>,
    pub element: unsafe extern "system" fn(*const TensorInfo, *mut c_int) -> Outcome,
    pub rank: unsafe extern "system" fn(*const TensorInfo, *mut usize) -> Outcome,
    pub dimensions: unsafe extern "system" fn(*const TensorInfo, *mut i64, usize) -> Outcome,
    /// The names belong to the information.
    pub symbols: unsafe extern "system" fn(*const TensorInfo, *mut *const c_char, usize) -> Outcome,
    _64: Skip<1>,
    pub tensor_info: unsafe extern "system" fn(*const Value, *mut *mut TensorInfo) -> Outcome,
    _66: Skip<3>,
    pub create_cpu_memory: unsafe extern "system" fn(allocator: c_int, memory: c_int, *mut *mut MemoryInfo) -> Outcome,
    _70: Skip<6>,
    pub free: unsafe extern "system" fn(*mut Allocator, *mut c_void) -> Outcome,
    _77: Skip<1>,
    /// The allocator belongs to the library.
    pub default_allocator: unsafe extern "system" fn(*mut *mut Allocator) -> Outcome,
    _79: Skip<13>,
    pub release_env: unsafe extern "system" fn(*mut Env),
    pub release_status: unsafe extern "system" fn(*mut Status),
    pub release_memory: unsafe extern "system" fn(*mut MemoryInfo),
    pub release_session: unsafe extern "system" fn(*mut Session),
    pub release_value: unsafe extern "system" fn(*mut Value),
    pub release_run_options: unsafe extern "system" fn(*mut RunOptions),
    pub release_type: unsafe extern "system" fn(*mut TypeInfo),
    pub release_tensor_info: unsafe extern "system" fn(*mut TensorInfo),
    pub release_options: unsafe extern "system" fn(*mut SessionOptions),
    /// The last of version 1.
    _release_custom_domain: Skip<1>,
}

/// Places in the header, counted there.
const _: () = {
    const ONE: usize = size_of::<usize>();
    assert!(offset_of!(Api, create_env) == 3 * ONE);
    assert!(offset_of!(Api, run) == 9 * ONE);
    assert!(offset_of!(Api, set_optimization) == 23 * ONE);
    assert!(offset_of!(Api, input_count) == 30 * ONE);
    assert!(offset_of!(Api, input_name) == 36 * ONE);
    assert!(offset_of!(Api, create_run_options) == 39 * ONE);
    assert!(offset_of!(Api, terminate) == 46 * ONE);
    assert!(offset_of!(Api, create_tensor) == 49 * ONE);
    assert!(offset_of!(Api, cast_to_tensor) == 55 * ONE);
    assert!(offset_of!(Api, element) == 60 * ONE);
    assert!(offset_of!(Api, tensor_info) == 65 * ONE);
    assert!(offset_of!(Api, create_cpu_memory) == 69 * ONE);
    assert!(offset_of!(Api, free) == 76 * ONE);
    assert!(offset_of!(Api, release_env) == 92 * ONE);
    assert!(offset_of!(Api, release_run_options) == 97 * ONE);
    assert!(offset_of!(Api, _release_custom_domain) == 101 * ONE);
};

/// `ORT_LOGGING_LEVEL_FATAL`: what goes wrong is told by errors.
pub const FATAL: c_int = 4;
/// `ORT_DISABLE_ALL` of the optimisation levels.
pub const OPTIMIZE_NOTHING: c_int = 0;
/// `ORT_ENABLE_ALL`, the default.
pub const OPTIMIZE_ALL: c_int = 99;
/// `OrtDeviceAllocator`.
pub const DEVICE_ALLOCATOR: c_int = 0;
/// `OrtMemTypeDefault`.
pub const DEFAULT_MEMORY: c_int = 0;
/// `ORT_NO_SUCHFILE`.
pub const NO_SUCH_FILE: c_int = 3;
/// `ORT_NOT_IMPLEMENTED`.
pub const NOT_IMPLEMENTED: c_int = 9;
