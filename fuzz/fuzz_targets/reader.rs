//! ONNX models: read, written, read again.
#![no_main]

use libfuzzer_sys::fuzz_target;
use qdrop_fuzz::Target;

fuzz_target!(|bytes: &[u8]| drop(Target::Reader.run(bytes)));
