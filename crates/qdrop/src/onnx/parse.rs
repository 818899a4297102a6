//! NodeProto, in the form of opset 13 or later, to [`Op`].

use super::attrs::{Attrs, is_default};
use super::proto::NodeProto;
use super::{qonnx, recurrent, tensor};
use crate::error::{Error, Result};
use crate::graph::*;
use crate::tensor::{DType, Data, Tensor};
use std::sync::Arc;

/// The operator of `node`; [`Op::Opaque`] for what the IR cannot express.
pub fn op(node: &NodeProto) -> Result<Op> {
    let opaque = || Op::Opaque { domain: node.domain().to_string(), kind: node.op_type().to_string() };
    if qonnx::is_quant(node) {
        return Ok(qonnx::parse(node)?.unwrap_or_else(opaque));
    }
    if !is_default(node.domain()) || !node.overload().is_empty() {
        return Ok(opaque());
    }
    let attrs = Attrs::new(node);
    let parsed = modelled(node, &attrs)?;
    Ok(parsed.filter(|_| !attrs.unread()).unwrap_or_else(opaque))
}

/// The modelled operator, or `None` where an attribute has a value that the IR does not know.
fn modelled(node: &NodeProto, a: &Attrs) -> Result<Option<Op>> {
    let kind = node.op_type();
    if let Some(op) = unary(kind, a)?.map(Op::Unary).or(variadic(kind)).or(plain(kind)) {
        return Ok(Some(op));
    }
    if let Some(op) = binary(kind, a)? {
        return Ok(Some(Op::Binary(op)));
    }
    if let Some(kind) = reduction(kind) {
        let keepdims = a.flag("keepdims", true)?;
        return Ok(Some(Op::Reduce { kind, keepdims, noop_with_empty_axes: a.flag("noop_with_empty_axes", false)? }));
    }
    // Results beyond the first that some reader may use.
    let extra = node.output.iter().skip(1).any(|o| !o.is_empty());
    Ok(match kind {
        "Conv" => {
            window(a, true)?.map(|window| a.int("group", 1).map(|group| Op::Conv { window, group })).transpose()?
        }
        "ConvTranspose" => match window(a, true)? {
            Some(window) => Some(Op::ConvTranspose {
                window,
                group: group(a)?,
                output_padding: a.ints("output_padding")?,
                output_shape: a.ints("output_shape")?,
            }),
            None => None,
        },
        "Gemm" => Some(Op::Gemm {
            alpha: a.float("alpha", 1.0)?,
            beta: a.float("beta", 1.0)?,
            trans_a: a.flag("transA", false)?,
            trans_b: a.flag("transB", false)?,
        }),
        "BatchNormalization" => {
            a.float("momentum", 0.9)?;
            let training = a.flag("training_mode", false)?;
            let epsilon = a.float("epsilon", 1e-5)?;
            (!training && !extra).then_some(Op::BatchNorm { epsilon })
        }
        "InstanceNormalization" => Some(Op::InstanceNorm { epsilon: a.float("epsilon", 1e-5)? }),
        "LayerNormalization" => {
            let (axis, epsilon) = (a.int("axis", -1)?, a.float("epsilon", 1e-5)?);
            (a.int("stash_type", 1)? == 1).then_some(Op::LayerNorm { axis, epsilon })
        }
        "GroupNormalization" => match a.opt_int("num_groups")? {
            Some(groups) => {
                let epsilon = a.float("epsilon", 1e-5)?;
                (a.int("stash_type", 1)? == 1).then_some(Op::GroupNorm { groups, epsilon })
            }
            None => return Err(lacks("num_groups")),
        },
        "RMSNormalization" => {
            let (axis, epsilon) = (a.int("axis", -1)?, a.float("epsilon", 1e-5)?);
            (a.int("stash_type", 1)? == 1).then_some(Op::RmsNorm { axis, epsilon })
        }
        "LpNormalization" => {
            let (axis, p) = (a.int("axis", -1)?, a.int("p", 2)?);
            matches!(p, 1 | 2).then_some(Op::LpNorm { axis, p })
        }
        "MeanVarianceNormalization" => {
            Some(Op::MeanVarianceNorm { axes: a.opt_ints("axes")?.unwrap_or_else(|| vec![0, 2, 3]) })
        }
        "LRN" => match a.opt_int("size")? {
            Some(size) => Some(Op::Lrn {
                alpha: a.float("alpha", 1e-4)?,
                beta: a.float("beta", 0.75)?,
                bias: a.float("bias", 1.0)?,
                size,
            }),
            None => return Err(lacks("size")),
        },
        "Softmax" | "LogSoftmax" => Some(Op::Softmax { axis: a.int("axis", -1)?, log: kind == "LogSoftmax" }),
        "MaxPool" => {
            let plain = a.int("storage_order", 0)? == 0;
            let ceil_mode = a.flag("ceil_mode", false)?;
            window(a, false)?.filter(|_| plain).map(|window| Op::MaxPool { window, ceil_mode })
        }
        "LpPool" => {
            let (ceil_mode, p) = (a.flag("ceil_mode", false)?, a.int("p", 2)?);
            window(a, false)?.filter(|_| p > 0).map(|window| Op::LpPool { window, ceil_mode, p })
        }
        "GlobalLpPool" => Some(a.int("p", 2)?).filter(|&p| p > 0).map(|p| Op::GlobalLpPool { p }),
        "AveragePool" => {
            let (ceil_mode, count_include_pad) = (a.flag("ceil_mode", false)?, a.flag("count_include_pad", false)?);
            window(a, false)?.map(|window| Op::AveragePool { window, ceil_mode, count_include_pad })
        }
        "ArgMax" | "ArgMin" => Some(Op::ArgReduce {
            largest: kind == "ArgMax",
            axis: a.int("axis", 0)?,
            keepdims: a.flag("keepdims", true)?,
            select_last_index: a.flag("select_last_index", false)?,
        }),
        "Concat" => Some(Op::Concat { axis: a.opt_int("axis")?.ok_or_else(|| lacks("axis"))? }),
        "Split" => Some(Op::Split { axis: a.int("axis", 0)? }),
        "Reshape" => Some(Op::Reshape { allowzero: a.flag("allowzero", false)? }),
        "Flatten" => Some(Op::Flatten { axis: a.int("axis", 1)? }),
        "Transpose" => Some(Op::Transpose { perm: a.ints("perm")? }),
        "Gather" => Some(Op::Gather { axis: a.int("axis", 0)? }),
        "GatherElements" => Some(Op::GatherElements { axis: a.int("axis", 0)? }),
        "Hardmax" => Some(Op::Hardmax { axis: a.int("axis", -1)? }),
        "CumSum" | "CumProd" => Some(Op::Cumulate {
            product: kind == "CumProd",
            exclusive: a.flag("exclusive", false)?,
            reverse: a.flag("reverse", false)?,
        }),
        "GatherND" => Some(Op::GatherNd { batch_dims: a.int("batch_dims", 0)? }),
        "ScatterElements" => {
            let axis = a.int("axis", 0)?;
            scatter(a)?.map(|reduction| Op::ScatterElements { axis, reduction })
        }
        "ScatterND" => scatter(a)?.map(|reduction| Op::ScatterNd { reduction }),
        "Compress" => Some(Op::Compress { axis: a.opt_int("axis")? }),
        "OneHot" => Some(Op::OneHot { axis: a.int("axis", -1)? }),
        "TopK" => Some(Op::TopK {
            axis: a.int("axis", -1)?,
            largest: a.flag("largest", true)?,
            sorted: a.flag("sorted", true)?,
        }),
        "NonMaxSuppression" => Some(Op::NonMaxSuppression { centres: a.flag("center_point_box", false)? }),
        "Trilu" => Some(Op::Trilu { upper: a.flag("upper", true)? }),
        "EyeLike" => {
            let (k, to) = (a.int("k", 0)?, a.opt_int("dtype")?);
            match to.map(|to| i32::try_from(to).ok().and_then(tensor::dtype_from)) {
                None => Some(Op::EyeLike { k, to: None }),
                Some(to) => to.map(|to| Op::EyeLike { k, to: Some(to) }),
            }
        }
        "ReverseSequence" => {
            Some(Op::ReverseSequence { batch_axis: a.int("batch_axis", 1)?, time_axis: a.int("time_axis", 0)? })
        }
        "Einsum" => match a.string("equation", "")? {
            "" => return Err(lacks("equation")),
            equation => Some(Op::Einsum { equation: equation.to_string() }),
        },
        "GridSample" => grid_sample(a)?,
        "RoiAlign" => {
            let size = [a.int("output_height", 1)?, a.int("output_width", 1)?];
            let (sampling_ratio, spatial_scale) = (a.int("sampling_ratio", 0)?, a.float("spatial_scale", 1.0)?);
            let (mode, place) = (a.string("mode", "avg")?, a.string("coordinate_transformation_mode", "half_pixel")?);
            let known = matches!(mode, "avg" | "max") && matches!(place, "half_pixel" | "output_half_pixel");
            let (max, half_pixel) = (mode == "max", place == "half_pixel");
            known.then_some(Op::RoiAlign { size, sampling_ratio, spatial_scale, max, half_pixel })
        }
        "Attention" => {
            let scale = a.opt_float("scale")?;
            let product = a.int("qk_matmul_output_mode", 0)?;
            // The precision of the softmax is the engine's own.
            a.int("softmax_precision", 0)?;
            (0..=3).contains(&product).then_some(Op::Attention(Attention {
                causal: a.flag("is_causal", false)?,
                q_heads: a.int("q_num_heads", 0)?,
                kv_heads: a.int("kv_num_heads", 0)?,
                scale,
                softcap: a.float("softcap", 0.0)?,
                product,
                window: [a.int("left_window_size", -1)?, a.int("right_window_size", -1)?],
            }))
        }
        "RotaryEmbedding" => Some(Op::RotaryEmbedding {
            interleaved: a.flag("interleaved", false)?,
            heads: a.int("num_heads", 0)?,
            dim: a.int("rotary_embedding_dim", 0)?,
        }),
        "RNN" | "GRU" | "LSTM" => recurrent::parse(kind, a)?.map(Op::Recurrent),
        "CastLike" => {
            let plain = a.flag("saturate", true)? && a.string("round_mode", "up")? == "up";
            plain.then_some(Op::CastLike)
        }
        "Shape" => Some(Op::Shape { start: a.int("start", 0)?, end: a.opt_int("end")? }),
        "ConstantOfShape" => {
            let value = match a.tensor("value")? {
                Some(t) => tensor::decode(t.clone())?,
                None => Tensor::new(vec![1], Data::F32(vec![0.0]))?,
            };
            (value.len() == 1).then(|| Op::ConstantOfShape { value: Arc::new(value) })
        }
        "Cast" => {
            let to = a.opt_int("to")?.ok_or_else(|| lacks("to"))?;
            // Saturation and rounding matter only for 8-bit floating point.
            let plain = a.flag("saturate", true)? && a.string("round_mode", "up")? == "up";
            i32::try_from(to).ok().and_then(tensor::dtype_from).filter(|_| plain).map(|to| Op::Cast { to })
        }
        "Pad" => match a.string("mode", "constant")? {
            "constant" => Some(Op::Pad { mode: PadMode::Constant }),
            "reflect" => Some(Op::Pad { mode: PadMode::Reflect }),
            "edge" => Some(Op::Pad { mode: PadMode::Edge }),
            "wrap" => Some(Op::Pad { mode: PadMode::Wrap }),
            _ => None,
        },
        "Resize" => resize(a)?,
        "DepthToSpace" => {
            let block = a.opt_int("blocksize")?.ok_or_else(|| lacks("blocksize"))?;
            let mode = a.string("mode", "DCR")?;
            matches!(mode, "DCR" | "CRD").then(|| Op::DepthToSpace { block, dcr: mode == "DCR" })
        }
        "SpaceToDepth" => {
            let block = a.opt_int("blocksize")?.ok_or_else(|| lacks("blocksize"))?;
            (a.string("mode", "DCR")? == "DCR").then_some(Op::SpaceToDepth { block })
        }
        "QuantizeLinear" => {
            let axis = a.int("axis", 1)?;
            let (block, to) = (a.int("block_size", 0)?, quantized_type(a)?);
            let plain = a.int("precision", 0)? == 0 && a.flag("saturate", true)?;
            to.filter(|_| plain && block >= 0).map(|to| Op::QuantizeLinear { axis, block, to })
        }
        "DequantizeLinear" => {
            let axis = a.int("axis", 1)?;
            let (block, to) = (a.int("block_size", 0)?, quantized_type(a)?);
            to.filter(|_| block >= 0).map(|to| Op::DequantizeLinear { axis, block, to })
        }
        _ => None,
    })
}

/// Attribute `output_dtype` where it decides; `None` for an unknown type.
fn quantized_type(a: &Attrs) -> Result<Option<Option<DType>>> {
    Ok(match a.int("output_dtype", 0)? {
        0 => Some(None),
        code => i32::try_from(code).ok().and_then(tensor::dtype_from).map(Some),
    })
}

fn lacks(name: &str) -> Error {
    Error::model(format!("required attribute `{name}` is missing"))
}

/// Operators without attributes.
fn plain(kind: &str) -> Option<Op> {
    Some(match kind {
        "MatMul" => Op::MatMul,
        "Clip" => Op::Clip,
        "GlobalAveragePool" => Op::GlobalAveragePool,
        "GlobalMaxPool" => Op::GlobalMaxPool,
        "Slice" => Op::Slice,
        "Squeeze" => Op::Squeeze,
        "Unsqueeze" => Op::Unsqueeze,
        "Expand" => Op::Expand,
        "Tile" => Op::Tile,
        "Size" => Op::Size,
        "Range" => Op::Range,
        "Where" => Op::Where,
        "Identity" => Op::Identity,
        "NonZero" => Op::NonZero,
        "Det" => Op::Det,
        _ => return None,
    })
}

fn unary(kind: &str, a: &Attrs) -> Result<Option<Unary>> {
    Ok(Some(match kind {
        "Relu" => Unary::Relu,
        "Sigmoid" => Unary::Sigmoid,
        "Tanh" => Unary::Tanh,
        "Exp" => Unary::Exp,
        "Log" => Unary::Log,
        "Sqrt" => Unary::Sqrt,
        "Reciprocal" => Unary::Reciprocal,
        "Neg" => Unary::Neg,
        "Abs" => Unary::Abs,
        "Floor" => Unary::Floor,
        "Ceil" => Unary::Ceil,
        "Round" => Unary::Round,
        "Sign" => Unary::Sign,
        "Erf" => Unary::Erf,
        "HardSwish" => Unary::HardSwish,
        "Softplus" => Unary::Softplus,
        "Softsign" => Unary::Softsign,
        "Mish" => Unary::Mish,
        "Not" => Unary::Not,
        "Sin" => Unary::Sin,
        "Cos" => Unary::Cos,
        "Tan" => Unary::Tan,
        "Asin" => Unary::Asin,
        "Acos" => Unary::Acos,
        "Atan" => Unary::Atan,
        "Sinh" => Unary::Sinh,
        "Cosh" => Unary::Cosh,
        "Asinh" => Unary::Asinh,
        "Acosh" => Unary::Acosh,
        "Atanh" => Unary::Atanh,
        "IsNaN" => Unary::IsNan,
        "IsInf" => {
            Unary::IsInf { negative: a.flag("detect_negative", true)?, positive: a.flag("detect_positive", true)? }
        }
        "BitwiseNot" => Unary::BitwiseNot,
        "Shrink" => Unary::Shrink { bias: a.float("bias", 0.0)?, lambd: a.float("lambd", 0.5)? },
        "Swish" => Unary::Swish { alpha: a.float("alpha", 1.0)? },
        "LeakyRelu" => Unary::LeakyRelu { alpha: a.float("alpha", 0.01)? },
        "Elu" => Unary::Elu { alpha: a.float("alpha", 1.0)? },
        "Celu" => Unary::Celu { alpha: a.float("alpha", 1.0)? },
        "Selu" => Unary::Selu { alpha: a.float("alpha", SELU_ALPHA)?, gamma: a.float("gamma", SELU_GAMMA)? },
        "ThresholdedRelu" => Unary::ThresholdedRelu { alpha: a.float("alpha", 1.0)? },
        "HardSigmoid" => Unary::HardSigmoid { alpha: a.float("alpha", 0.2)?, beta: a.float("beta", 0.5)? },
        "Gelu" => match a.string("approximate", "none")? {
            "none" => Unary::Gelu { tanh: false },
            "tanh" => Unary::Gelu { tanh: true },
            _ => return Ok(None),
        },
        _ => return Ok(None),
    }))
}

/// Default `alpha` of Selu.
pub const SELU_ALPHA: f32 = 1.673_263_2;
/// Default `gamma` of Selu.
pub const SELU_GAMMA: f32 = 1.050_701;

fn binary(kind: &str, a: &Attrs) -> Result<Option<Binary>> {
    Ok(Some(match kind {
        "Add" => Binary::Add,
        "Sub" => Binary::Sub,
        "Mul" => Binary::Mul,
        "Div" => Binary::Div,
        "Pow" => Binary::Pow,
        "PRelu" => Binary::PRelu,
        "Mod" => Binary::Mod { fmod: a.flag("fmod", false)? },
        "Equal" => Binary::Equal,
        "Less" => Binary::Less,
        "LessOrEqual" => Binary::LessOrEqual,
        "Greater" => Binary::Greater,
        "GreaterOrEqual" => Binary::GreaterOrEqual,
        "And" => Binary::And,
        "Or" => Binary::Or,
        "Xor" => Binary::Xor,
        "BitwiseAnd" => Binary::BitwiseAnd,
        "BitwiseOr" => Binary::BitwiseOr,
        "BitwiseXor" => Binary::BitwiseXor,
        "BitShift" => match a.string("direction", "")? {
            "LEFT" => Binary::BitShift { left: true },
            "RIGHT" => Binary::BitShift { left: false },
            "" => return Err(lacks("direction")),
            _ => return Ok(None),
        },
        _ => return Ok(None),
    }))
}

fn variadic(kind: &str) -> Option<Op> {
    Some(Op::Variadic(match kind {
        "Min" => Variadic::Min,
        "Max" => Variadic::Max,
        "Sum" => Variadic::Sum,
        "Mean" => Variadic::Mean,
        _ => return None,
    }))
}

/// The reduction that `kind` names.
pub fn reduction(kind: &str) -> Option<Reduction> {
    Some(match kind {
        "ReduceSum" => Reduction::Sum,
        "ReduceMean" => Reduction::Mean,
        "ReduceMax" => Reduction::Max,
        "ReduceMin" => Reduction::Min,
        "ReduceProd" => Reduction::Prod,
        "ReduceL1" => Reduction::L1,
        "ReduceL2" => Reduction::L2,
        "ReduceSumSquare" => Reduction::SumSquare,
        "ReduceLogSum" => Reduction::LogSum,
        "ReduceLogSumExp" => Reduction::LogSumExp,
        _ => return None,
    })
}

fn group(a: &Attrs) -> Result<i64> {
    match a.int("group", 1)? {
        group @ 1.. => Ok(group),
        group => Err(Error::model(format!("attribute `group` is {group}, expected 1 or more"))),
    }
}

/// Geometry; `None` for an unknown padding mode. Pooling must state its kernel.
fn window(a: &Attrs, kernel_optional: bool) -> Result<Option<Window>> {
    let kernel = a.ints("kernel_shape")?;
    if kernel.is_empty() && !kernel_optional {
        return Err(lacks("kernel_shape"));
    }
    let (strides, dilations, pads) = (a.ints("strides")?, a.ints("dilations")?, a.ints("pads")?);
    let positive = |v: &[i64]| v.iter().all(|&x| x > 0);
    if !(positive(&kernel) && positive(&strides) && positive(&dilations)) {
        return Err(Error::model(format!(
            "kernel {kernel:?}, strides {strides:?} and dilations {dilations:?} must be positive"
        )));
    }
    let padding = match a.string("auto_pad", "NOTSET")? {
        "NOTSET" | "" => Padding::Explicit(pads),
        "VALID" => Padding::Explicit(Vec::new()),
        "SAME_UPPER" => Padding::SameUpper,
        "SAME_LOWER" => Padding::SameLower,
        _ => return Ok(None),
    };
    Ok(Some(Window { kernel, strides, dilations, padding }))
}

fn scatter(a: &Attrs) -> Result<Option<Scatter>> {
    Ok(Some(match a.string("reduction", "none")? {
        "none" => Scatter::Replace,
        "add" => Scatter::Add,
        "mul" => Scatter::Mul,
        "max" => Scatter::Max,
        "min" => Scatter::Min,
        _ => return Ok(None),
    }))
}

fn grid_sample(a: &Attrs) -> Result<Option<Op>> {
    let mode = match a.string("mode", "linear")? {
        "linear" | "bilinear" => Sampling::Linear,
        "nearest" => Sampling::Nearest,
        "cubic" | "bicubic" => Sampling::Cubic,
        _ => return Ok(None),
    };
    let padding = match a.string("padding_mode", "zeros")? {
        "zeros" => Outside::Zeros,
        "border" => Outside::Border,
        "reflection" => Outside::Reflection,
        _ => return Ok(None),
    };
    Ok(Some(Op::GridSample { mode, padding, align_corners: a.flag("align_corners", false)? }))
}

fn resize(a: &Attrs) -> Result<Option<Op>> {
    let nearest = match a.string("nearest_mode", "round_prefer_floor")? {
        "round_prefer_floor" => Nearest::RoundPreferFloor,
        "round_prefer_ceil" => Nearest::RoundPreferCeil,
        "floor" => Nearest::Floor,
        "ceil" => Nearest::Ceil,
        _ => return Ok(None),
    };
    let exclude_outside = a.flag("exclude_outside", false)?;
    let coeff_a = a.float("cubic_coeff_a", -0.75)?;
    let mode = match a.string("mode", "nearest")? {
        "nearest" => Interpolation::Nearest(nearest),
        "linear" if !exclude_outside => Interpolation::Linear,
        "cubic" => Interpolation::Cubic { coeff_a, exclude_outside },
        _ => return Ok(None),
    };
    let coordinates = match a.string("coordinate_transformation_mode", "half_pixel")? {
        "half_pixel" => Coordinates::HalfPixel,
        "half_pixel_symmetric" => Coordinates::HalfPixelSymmetric,
        "pytorch_half_pixel" => Coordinates::PytorchHalfPixel,
        "align_corners" => Coordinates::AlignCorners,
        "asymmetric" => Coordinates::Asymmetric,
        "tf_crop_and_resize" => Coordinates::CropAndResize,
        _ => return Ok(None),
    };
    let aspect = match a.string("keep_aspect_ratio_policy", "stretch")? {
        "stretch" => Aspect::Stretch,
        "not_larger" => Aspect::NotLarger,
        "not_smaller" => Aspect::NotSmaller,
        _ => return Ok(None),
    };
    Ok(Some(Op::Resize(Resize {
        mode,
        coordinates,
        antialias: a.flag("antialias", false)?,
        aspect,
        axes: a.ints("axes")?,
        extrapolation: a.float("extrapolation_value", 0.0)?,
    })))
}
