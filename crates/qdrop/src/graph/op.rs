//! Operators with their attributes: the meaning of ONNX opset 13 and later.

use crate::tensor::{DType, Tensor};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// How spatial padding is given.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Padding {
    /// Begin of every axis, then end of every axis; empty means none.
    Explicit(Vec<i64>),
    /// Output size = ceil(input / stride), the odd element at the end.
    SameUpper,
    /// Output size = ceil(input / stride), the odd element at the begin.
    SameLower,
}

/// Window geometry shared by convolution and pooling; empty lists mean ones (kernel: taken from the weight).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Window {
    /// Kernel size per spatial axis.
    pub kernel: Vec<i64>,
    /// Step per spatial axis.
    pub strides: Vec<i64>,
    /// Distance between kernel elements per spatial axis.
    pub dilations: Vec<i64>,
    /// Padding.
    pub padding: Padding,
}

/// Element-wise functions of one tensor.
#[allow(missing_docs)]
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub enum Unary {
    Relu,
    Sigmoid,
    Tanh,
    Exp,
    Log,
    Sqrt,
    Reciprocal,
    Neg,
    Abs,
    Floor,
    Ceil,
    Round,
    Sign,
    Erf,
    HardSwish,
    Softplus,
    Softsign,
    Mish,
    Not,
    Sin,
    Cos,
    LeakyRelu {
        alpha: f32,
    },
    Elu {
        alpha: f32,
    },
    Celu {
        alpha: f32,
    },
    Selu {
        alpha: f32,
        gamma: f32,
    },
    ThresholdedRelu {
        alpha: f32,
    },
    HardSigmoid {
        alpha: f32,
        beta: f32,
    },
    /// x·Φ(x); with `tanh` its tanh approximation.
    Gelu {
        tanh: bool,
    },
}

/// Element-wise functions of two broadcast tensors.
#[allow(missing_docs)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Binary {
    Add,
    Sub,
    Mul,
    Div,
    Pow,
    PRelu,
    /// Remainder; with `fmod` the sign of the dividend, else of the divisor.
    Mod {
        fmod: bool,
    },
    Equal,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
    And,
    Or,
    Xor,
}

/// Element-wise functions of any number of broadcast tensors.
#[allow(missing_docs)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Variadic {
    Min,
    Max,
    Sum,
    Mean,
}

/// Reductions.
#[allow(missing_docs)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reduction {
    Sum,
    Mean,
    Max,
    Min,
    Prod,
    L1,
    L2,
    SumSquare,
    LogSum,
    LogSumExp,
}

/// How [`Op::Pad`] fills.
#[allow(missing_docs)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum PadMode {
    Constant,
    Reflect,
    Edge,
    Wrap,
}

/// How [`Op::Resize`] maps output to input coordinates.
#[allow(missing_docs)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Coordinates {
    HalfPixel,
    HalfPixelSymmetric,
    PytorchHalfPixel,
    AlignCorners,
    Asymmetric,
}

/// How [`Op::Resize`] in nearest mode rounds a coordinate.
#[allow(missing_docs)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Nearest {
    RoundPreferFloor,
    RoundPreferCeil,
    Floor,
    Ceil,
}

/// Interpolation of [`Op::Resize`].
#[allow(missing_docs)]
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub enum Interpolation {
    Nearest(Nearest),
    Linear,
    Cubic { coeff_a: f32, exclude_outside: bool },
}

/// An operator. Operands are listed in ONNX's order; attributes absent from the file hold ONNX's default.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Op {
    /// `x, w, b?` of any spatial rank.
    Conv {
        /// Geometry; `kernel` may be empty.
        window: Window,
        /// Number of groups.
        group: i64,
    },
    /// `x, w, b?`: the gradient of Conv as an operator.
    ConvTranspose {
        /// Geometry.
        window: Window,
        /// Number of groups.
        group: i64,
        /// Extra size added at the end of each spatial axis.
        output_padding: Vec<i64>,
        /// Output size that decides the padding; empty when not given.
        output_shape: Vec<i64>,
    },
    /// `a, b, c?`: alpha·a·b + beta·c.
    #[allow(missing_docs)]
    Gemm { alpha: f32, beta: f32, trans_a: bool, trans_b: bool },
    /// `a, b`: numpy's matmul.
    MatMul,
    /// `x, scale, bias, mean, var`, inference form.
    #[allow(missing_docs)]
    BatchNorm { epsilon: f32 },
    /// `x, scale, bias`.
    #[allow(missing_docs)]
    InstanceNorm { epsilon: f32 },
    /// `x, scale, bias?` over the axes from `axis` on.
    #[allow(missing_docs)]
    LayerNorm { axis: i64, epsilon: f32 },
    /// Local response normalisation across channels.
    #[allow(missing_docs)]
    Lrn { alpha: f32, beta: f32, bias: f32, size: i64 },
    /// Element-wise function of one tensor.
    Unary(Unary),
    /// Element-wise function of two tensors.
    Binary(Binary),
    /// Element-wise function of any number of tensors.
    Variadic(Variadic),
    /// `x, min?, max?`.
    Clip,
    /// Normalised exponential along `axis`; `log` takes its logarithm.
    #[allow(missing_docs)]
    Softmax { axis: i64, log: bool },
    /// Largest element of each window; only the first result is computed.
    #[allow(missing_docs)]
    MaxPool { window: Window, ceil_mode: bool },
    /// Mean of each window.
    #[allow(missing_docs)]
    AveragePool { window: Window, ceil_mode: bool, count_include_pad: bool },
    /// Mean over all spatial axes.
    GlobalAveragePool,
    /// Maximum over all spatial axes.
    GlobalMaxPool,
    /// `x, axes?`; no axes means all, or none with `noop_with_empty_axes`.
    #[allow(missing_docs)]
    Reduce { kind: Reduction, keepdims: bool, noop_with_empty_axes: bool },
    /// Index of the largest (smallest) element along `axis`.
    #[allow(missing_docs)]
    ArgReduce { largest: bool, axis: i64, keepdims: bool, select_last_index: bool },
    /// Joins along `axis`.
    #[allow(missing_docs)]
    Concat { axis: i64 },
    /// `x, split?`: cuts along `axis` into as many parts as there are results.
    #[allow(missing_docs)]
    Split { axis: i64 },
    /// `x, starts, ends, axes?, steps?`.
    Slice,
    /// `x, shape`.
    #[allow(missing_docs)]
    Reshape { allowzero: bool },
    /// To two dimensions, split at `axis`.
    #[allow(missing_docs)]
    Flatten { axis: i64 },
    /// Axes in the order `perm`; empty reverses them.
    #[allow(missing_docs)]
    Transpose { perm: Vec<i64> },
    /// `x, axes?`.
    Squeeze,
    /// `x, axes`.
    Unsqueeze,
    /// `x, shape`.
    Expand,
    /// `x, repeats`.
    Tile,
    /// `x, indices`.
    #[allow(missing_docs)]
    Gather { axis: i64 },
    /// `x, indices`.
    #[allow(missing_docs)]
    GatherElements { axis: i64 },
    /// The dimensions of a tensor from `start` to `end`.
    #[allow(missing_docs)]
    Shape { start: i64, end: Option<i64> },
    /// The number of elements of a tensor.
    Size,
    /// `shape`: a tensor filled with `value` (one element).
    #[allow(missing_docs)]
    ConstantOfShape { value: Arc<Tensor> },
    /// `start, limit, delta`.
    Range,
    /// `condition, a, b`.
    Where,
    /// The operand itself (Identity, and Dropout at inference).
    Identity,
    /// Conversion of the element type.
    #[allow(missing_docs)]
    Cast { to: DType },
    /// `x, pads, value?, axes?`.
    #[allow(missing_docs)]
    Pad { mode: PadMode },
    /// `x, roi?, scales?, sizes?` (linear and nearest over any axes).
    #[allow(missing_docs)]
    Resize { mode: Interpolation, coordinates: Coordinates },
    /// `[N, C·b², H, W]` to `[N, C, H·b, W·b]`; `dcr` is depth-column-row order, else column-row-depth.
    #[allow(missing_docs)]
    DepthToSpace { block: i64, dcr: bool },
    /// Inverse of [`Op::DepthToSpace`] in depth-column-row order.
    #[allow(missing_docs)]
    SpaceToDepth { block: i64 },
    /// `x, scale, zero_point?`; the result has the zero point's type (uint8 without one).
    #[allow(missing_docs)]
    QuantizeLinear { axis: i64 },
    /// `x, scale, zero_point?`.
    #[allow(missing_docs)]
    DequantizeLinear { axis: i64 },
    /// An operator that is carried unchanged and cannot be run here; its attributes live in the node's origin.
    #[allow(missing_docs)]
    Opaque { domain: String, kind: String },
}

impl Op {
    /// The operator's ONNX name.
    pub fn kind(&self) -> &str {
        match self {
            Op::Conv { .. } => "Conv",
            Op::ConvTranspose { .. } => "ConvTranspose",
            Op::Gemm { .. } => "Gemm",
            Op::MatMul => "MatMul",
            Op::BatchNorm { .. } => "BatchNormalization",
            Op::InstanceNorm { .. } => "InstanceNormalization",
            Op::LayerNorm { .. } => "LayerNormalization",
            Op::Lrn { .. } => "LRN",
            Op::Unary(u) => match u {
                Unary::Relu => "Relu",
                Unary::Sigmoid => "Sigmoid",
                Unary::Tanh => "Tanh",
                Unary::Exp => "Exp",
                Unary::Log => "Log",
                Unary::Sqrt => "Sqrt",
                Unary::Reciprocal => "Reciprocal",
                Unary::Neg => "Neg",
                Unary::Abs => "Abs",
                Unary::Floor => "Floor",
                Unary::Ceil => "Ceil",
                Unary::Round => "Round",
                Unary::Sign => "Sign",
                Unary::Erf => "Erf",
                Unary::HardSwish => "HardSwish",
                Unary::Softplus => "Softplus",
                Unary::Softsign => "Softsign",
                Unary::Mish => "Mish",
                Unary::Not => "Not",
                Unary::Sin => "Sin",
                Unary::Cos => "Cos",
                Unary::LeakyRelu { .. } => "LeakyRelu",
                Unary::Elu { .. } => "Elu",
                Unary::Celu { .. } => "Celu",
                Unary::Selu { .. } => "Selu",
                Unary::ThresholdedRelu { .. } => "ThresholdedRelu",
                Unary::HardSigmoid { .. } => "HardSigmoid",
                Unary::Gelu { .. } => "Gelu",
            },
            Op::Binary(b) => match b {
                Binary::Add => "Add",
                Binary::Sub => "Sub",
                Binary::Mul => "Mul",
                Binary::Div => "Div",
                Binary::Pow => "Pow",
                Binary::PRelu => "PRelu",
                Binary::Mod { .. } => "Mod",
                Binary::Equal => "Equal",
                Binary::Less => "Less",
                Binary::LessOrEqual => "LessOrEqual",
                Binary::Greater => "Greater",
                Binary::GreaterOrEqual => "GreaterOrEqual",
                Binary::And => "And",
                Binary::Or => "Or",
                Binary::Xor => "Xor",
            },
            Op::Variadic(v) => match v {
                Variadic::Min => "Min",
                Variadic::Max => "Max",
                Variadic::Sum => "Sum",
                Variadic::Mean => "Mean",
            },
            Op::Clip => "Clip",
            Op::Softmax { log: false, .. } => "Softmax",
            Op::Softmax { log: true, .. } => "LogSoftmax",
            Op::MaxPool { .. } => "MaxPool",
            Op::AveragePool { .. } => "AveragePool",
            Op::GlobalAveragePool => "GlobalAveragePool",
            Op::GlobalMaxPool => "GlobalMaxPool",
            Op::Reduce { kind, .. } => match kind {
                Reduction::Sum => "ReduceSum",
                Reduction::Mean => "ReduceMean",
                Reduction::Max => "ReduceMax",
                Reduction::Min => "ReduceMin",
                Reduction::Prod => "ReduceProd",
                Reduction::L1 => "ReduceL1",
                Reduction::L2 => "ReduceL2",
                Reduction::SumSquare => "ReduceSumSquare",
                Reduction::LogSum => "ReduceLogSum",
                Reduction::LogSumExp => "ReduceLogSumExp",
            },
            Op::ArgReduce { largest: true, .. } => "ArgMax",
            Op::ArgReduce { largest: false, .. } => "ArgMin",
            Op::Concat { .. } => "Concat",
            Op::Split { .. } => "Split",
            Op::Slice => "Slice",
            Op::Reshape { .. } => "Reshape",
            Op::Flatten { .. } => "Flatten",
            Op::Transpose { .. } => "Transpose",
            Op::Squeeze => "Squeeze",
            Op::Unsqueeze => "Unsqueeze",
            Op::Expand => "Expand",
            Op::Tile => "Tile",
            Op::Gather { .. } => "Gather",
            Op::GatherElements { .. } => "GatherElements",
            Op::Shape { .. } => "Shape",
            Op::Size => "Size",
            Op::ConstantOfShape { .. } => "ConstantOfShape",
            Op::Range => "Range",
            Op::Where => "Where",
            Op::Identity => "Identity",
            Op::Cast { .. } => "Cast",
            Op::Pad { .. } => "Pad",
            Op::Resize { .. } => "Resize",
            Op::DepthToSpace { .. } => "DepthToSpace",
            Op::SpaceToDepth { .. } => "SpaceToDepth",
            Op::QuantizeLinear { .. } => "QuantizeLinear",
            Op::DequantizeLinear { .. } => "DequantizeLinear",
            Op::Opaque { kind, .. } => kind,
        }
    }

    /// Operand index of the weight for operators that carry one when it is constant (Conv, ConvTranspose, Gemm, MatMul).
    pub fn weight_index(&self) -> Option<usize> {
        matches!(self, Op::Conv { .. } | Op::ConvTranspose { .. } | Op::Gemm { .. } | Op::MatMul).then_some(1)
    }
}
