//! The runtimes for which files are written. `rules` says what they do not take; `accepts` refuses recipes that ask for it.

use serde::{Deserialize, Serialize};
use std::fmt;

/// The runtime that the written file is for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Target {
    /// ONNX Runtime: uint8 integers, any zero point.
    #[default]
    Ort,
    /// OpenVINO: weights symmetric in int8, as its 8-bit kernels require; activations as for ONNX Runtime.
    Openvino,
    /// TensorRT: 8 bits in int8, all zero points 0.
    Tensorrt,
    /// FINN, hls4ml and other readers of QONNX: `Quant` nodes with zero point 0 on float weights, any bits.
    Qonnx,
    /// Qualcomm's converters: a float network with an encodings file; weights symmetric in int4 or int8, activations in
    /// uint8 or uint16.
    Qnn,
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Target::Ort => "ort",
            Target::Openvino => "openvino",
            Target::Tensorrt => "tensorrt",
            Target::Qonnx => "qonnx",
            Target::Qnn => "qnn",
        })
    }
}
