//! Operators with their attributes: the meaning of ONNX opset 13 and later.

use super::Recurrent;
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
    Tan,
    Asin,
    Acos,
    Atan,
    Sinh,
    Cosh,
    Asinh,
    Acosh,
    Atanh,
    IsNan,
    IsInf {
        negative: bool,
        positive: bool,
    },
    BitwiseNot,
    /// 0 within lambd of 0, else x moved by bias towards 0.
    Shrink {
        bias: f32,
        lambd: f32,
    },
    /// x·sigmoid(alpha·x).
    Swish {
        alpha: f32,
    },
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
    BitwiseAnd,
    BitwiseOr,
    BitwiseXor,
    BitShift {
        left: bool,
    },
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

/// How [`Op::Quant`] rounds.
#[allow(missing_docs)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Rounding {
    /// To nearest, halves to even.
    HalfEven,
    /// To nearest, halves away from 0.
    HalfUp,
    /// To nearest, halves towards 0.
    HalfDown,
    Ceil,
    Floor,
    /// Away from 0.
    Up,
    /// Towards 0.
    Down,
}

/// How [`Op::ScatterElements`] and [`Op::ScatterNd`] join an update with what is there.
#[allow(missing_docs)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Scatter {
    Replace,
    Add,
    Mul,
    Max,
    Min,
}

/// Interpolation of [`Op::GridSample`].
#[allow(missing_docs)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Sampling {
    Linear,
    Nearest,
    Cubic,
}

/// What [`Op::GridSample`] reads outside of its input.
#[allow(missing_docs)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outside {
    Zeros,
    Border,
    Reflection,
}

/// Settings of [`Op::Attention`].
#[allow(missing_docs)]
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Attention {
    pub causal: bool,
    /// Heads of operands of rank 3; 0 for operands of rank 4.
    pub q_heads: i64,
    pub kv_heads: i64,
    /// Factor of the products; 1/sqrt(head size) where absent.
    pub scale: Option<f32>,
    pub softcap: f32,
    /// What the fourth result holds: products, after the cap, after the mask, after the softmax.
    pub product: i64,
    /// Keys before and behind a query's own position that it sees; -1: all.
    pub window: [i64; 2],
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
    /// The region that the operand `roi` names, in whole sizes less one.
    CropAndResize,
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

/// How the sizes given to [`Op::Resize`] become those of the result.
#[allow(missing_docs)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Aspect {
    Stretch,
    NotLarger,
    NotSmaller,
}

/// Settings of [`Op::Resize`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Resize {
    /// Interpolation.
    pub mode: Interpolation,
    /// Where the result's elements lie in the operand.
    pub coordinates: Coordinates,
    /// Whether the interpolation widens where the result is smaller.
    pub antialias: bool,
    /// What keeps the ratio of the sizes.
    pub aspect: Aspect,
    /// The axes that scales and sizes speak of; none means all.
    pub axes: Vec<i64>,
    /// What stands outside of the operand in a crop.
    pub extrapolation: f32,
}

impl Resize {
    /// All other settings at their default.
    pub fn new(mode: Interpolation, coordinates: Coordinates) -> Self {
        Resize { mode, coordinates, antialias: false, aspect: Aspect::Stretch, axes: Vec::new(), extrapolation: 0.0 }
    }
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
    /// `x, scale, bias` over the spatial axes and the channels of one of `groups` groups; scale and bias per channel.
    #[allow(missing_docs)]
    GroupNorm { groups: i64, epsilon: f32 },
    /// `x, scale` over the axes from `axis` on, by the root of the mean square.
    #[allow(missing_docs)]
    RmsNorm { axis: i64, epsilon: f32 },
    /// x over its `p`-norm along `axis`; 0 where the norm is 0.
    #[allow(missing_docs)]
    LpNorm { axis: i64, p: i64 },
    /// x less its mean over `axes`, over its standard deviation.
    #[allow(missing_docs)]
    MeanVarianceNorm { axes: Vec<i64> },
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
    /// 1 at the first largest element along `axis`, else 0.
    #[allow(missing_docs)]
    Hardmax { axis: i64 },
    /// `x, axis`: running sum or product.
    #[allow(missing_docs)]
    Cumulate { product: bool, exclusive: bool, reverse: bool },
    /// Largest element of each window, and where it lies in the whole tensor.
    #[allow(missing_docs)]
    MaxPool { window: Window, ceil_mode: bool },
    /// Mean of each window.
    #[allow(missing_docs)]
    AveragePool { window: Window, ceil_mode: bool, count_include_pad: bool },
    /// `p`-norm of each window.
    #[allow(missing_docs)]
    LpPool { window: Window, ceil_mode: bool, p: i64 },
    /// `p`-norm over all spatial axes.
    #[allow(missing_docs)]
    GlobalLpPool { p: i64 },
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
    /// `x, indices`: the last axis of the indices names positions in x behind `batch_dims` axes.
    #[allow(missing_docs)]
    GatherNd { batch_dims: i64 },
    /// `x, indices, updates`.
    #[allow(missing_docs)]
    ScatterElements { axis: i64, reduction: Scatter },
    /// `x, indices, updates`.
    #[allow(missing_docs)]
    ScatterNd { reduction: Scatter },
    /// `x, condition`: slices along `axis` (elements of the flattened tensor without one) where the condition holds.
    #[allow(missing_docs)]
    Compress { axis: Option<i64> },
    /// Positions of the elements that are not 0, one column each.
    NonZero,
    /// `boxes, scores, most?, overlap?, least score?`: for every image and class the boxes that overlap no better one too
    /// much, the best first: rows of image, class and box. Boxes are two corners, or centre, width and height.
    #[allow(missing_docs)]
    NonMaxSuppression { centres: bool },
    /// `indices, depth, [off, on]`.
    #[allow(missing_docs)]
    OneHot { axis: i64 },
    /// `x, k`: the k largest (smallest) elements along `axis` and where they lie.
    #[allow(missing_docs)]
    TopK { axis: i64, largest: bool, sorted: bool },
    /// `x, k?`: the triangle above (below) the k-th diagonal, else 0.
    #[allow(missing_docs)]
    Trilu { upper: bool },
    /// Ones on the k-th diagonal of a matrix of x's shape.
    #[allow(missing_docs)]
    EyeLike { k: i64, to: Option<DType> },
    /// `x, lengths`: the first elements of each sequence in reverse.
    #[allow(missing_docs)]
    ReverseSequence { batch_axis: i64, time_axis: i64 },
    /// Determinants of square matrices.
    Det,
    /// Sum of products of operands along named axes.
    #[allow(missing_docs)]
    Einsum { equation: String },
    /// `x, grid`.
    #[allow(missing_docs)]
    GridSample { mode: Sampling, padding: Outside, align_corners: bool },
    /// `x, rois, batch indices`: the mean (largest) of samples in the cells of each region.
    #[allow(missing_docs)]
    RoiAlign { size: [i64; 2], sampling_ratio: i64, spatial_scale: f32, max: bool, half_pixel: bool },
    /// `q, k, v, mask?, past key?, past value?, lengths?`; the results are y, the keys, the values and the products.
    Attention(Attention),
    /// `x, cos, sin, positions?`; `dim` 0 rotates whole heads.
    #[allow(missing_docs)]
    RotaryEmbedding { interleaved: bool, heads: i64, dim: i64 },
    /// `x, weights, recurrent weights, biases?, lengths?, state?, memory?, peepholes?` of an RNN, a GRU or an LSTM; the
    /// results are all states, the last one and (of an LSTM) the last memory.
    Recurrent(Recurrent),
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
    /// `x, like`: conversion to the other's element type.
    CastLike,
    /// `x, pads, value?, axes?`.
    #[allow(missing_docs)]
    Pad { mode: PadMode },
    /// `x, roi?, scales?, sizes?`.
    Resize(Resize),
    /// `[N, C·b², H, W]` to `[N, C, H·b, W·b]`; `dcr` is depth-column-row order, else column-row-depth.
    #[allow(missing_docs)]
    DepthToSpace { block: i64, dcr: bool },
    /// Inverse of [`Op::DepthToSpace`] in depth-column-row order.
    #[allow(missing_docs)]
    SpaceToDepth { block: i64 },
    /// `x, scale, zero_point?`; the result has the zero point's type, or that of `to` (uint8 without both). A scale
    /// holds for `block` elements along the axis; 0 means one for all elements, or one an element of the axis.
    #[allow(missing_docs)]
    QuantizeLinear { axis: i64, block: i64, to: Option<DType> },
    /// `x, scale, zero_point?`; the result has the scale's type, or that of `to`.
    #[allow(missing_docs)]
    DequantizeLinear { axis: i64, block: i64, to: Option<DType> },
    /// QONNX's quantizer: `x, scale, zero_point, bits`, float (`bits` may be an integer) and each broadcast to x;
    /// (round(clip(x / scale + zero_point, low, high)) - zero_point) · scale, where low and high are the ends of the
    /// integers of that many bits, 2 to 32.
    Quant {
        /// From -2^(bits-1) to 2^(bits-1) - 1, else from 0 to 2^bits - 1.
        signed: bool,
        /// Without the lowest integer where signed, without the highest where unsigned.
        narrow: bool,
        /// What happens to fractions.
        rounding: Rounding,
    },
    /// The second operand where the first, a single element, is true, else the third; of these only the one that is chosen
    /// is computed. An If becomes this in a graph that is run, not written; no file has it.
    Choice,
    /// An operator that is carried unchanged and cannot be run here; its attributes live in the node's origin.
    #[allow(missing_docs)]
    Opaque { domain: String, kind: String },
}
