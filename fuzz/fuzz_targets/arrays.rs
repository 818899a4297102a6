//! Arrays in .npy, .npz and .safetensors files.
#![no_main]

use libfuzzer_sys::fuzz_target;
use qdrop_fuzz::Target;

fuzz_target!(|bytes: &[u8]| drop(Target::Arrays.run(bytes)));
