//! Annotations and detections of COCO.
#![no_main]

use libfuzzer_sys::fuzz_target;
use qdrop_fuzz::Target;

fuzz_target!(|bytes: &[u8]| drop(Target::Coco.run(bytes)));
