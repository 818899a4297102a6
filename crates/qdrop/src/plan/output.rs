//! The part of the recipe that says how the file is written.

use super::target::Target;
use serde::{Deserialize, Serialize};
use std::fmt;

/// Form of the written file.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Format {
    /// 8-bit QuantizeLinear, Clip and DequantizeLinear: runs in every ONNX Runtime.
    #[default]
    Qcdq,
    /// Native 4-bit (opset 21) and 2-bit (opset 25) types.
    Qdq,
}

/// Options of the written file.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct Output {
    /// The runtime that the file is for. Default: ONNX Runtime.
    pub target: Target,
    /// How quantization is expressed for ONNX Runtime; other targets have one form each. Default: [`Format::Qcdq`].
    pub format: Format,
    /// Layout of the encodings file that target `qnn` writes next to the network. Default: 1.0.0.
    pub encodings_version: EncodingsVersion,
}

/// Layout of an encodings file, as AIMET numbers it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum EncodingsVersion {
    /// Entries by name, one per channel; AIMET up to 1.x.
    #[serde(rename = "0.6.1")]
    V0_6_1,
    /// Lists of activations and parameters; AIMET from 2.0 on.
    #[default]
    #[serde(rename = "1.0.0")]
    V1_0_0,
    /// One list in the terms of QuantizeLinear, with biases; AIMET from 2.3 on, and converters that support it.
    #[serde(rename = "2.0.0")]
    V2_0_0,
}

impl fmt::Display for EncodingsVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            EncodingsVersion::V0_6_1 => "0.6.1",
            EncodingsVersion::V1_0_0 => "1.0.0",
            EncodingsVersion::V2_0_0 => "2.0.0",
        })
    }
}
