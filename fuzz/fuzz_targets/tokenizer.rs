//! The file tokenizer.json.
#![no_main]

use libfuzzer_sys::fuzz_target;
use qdrop_fuzz::Target;

fuzz_target!(
    init: {
        // The tokenizers panic on some files, which the library turns into errors; libFuzzer must not end there. A panic
        // that nobody catches still ends it.
        std::panic::set_hook(Box::new(|_| {}));
    },
    |bytes: &[u8]| drop(Target::Tokenizer.run(bytes))
);
