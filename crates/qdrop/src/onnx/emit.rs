//! [`Op`] to NodeProto, and the form that a node takes at an opset.

use super::attrs::{float, int, ints, is_default, set, string, take, tensor as tensor_attr};
use super::parse::{SELU_ALPHA, SELU_GAMMA, reduction};
use super::proto::{AttributeProto, NodeProto};
use super::{qonnx, recurrent, schema, tensor};
use crate::error::{Error, Result};
use crate::graph::*;

/// Attributes that came later than their operator; before, only their default can be expressed.
const LATER: &[(&str, &str, u64)] = &[
    ("Shape", "start", 15),
    ("Shape", "end", 15),
    ("Reshape", "allowzero", 14),
    ("AveragePool", "dilations", 19),
    ("BatchNormalization", "training_mode", 14),
    ("Resize", "antialias", 18),
    ("Resize", "axes", 18),
    ("Resize", "keep_aspect_ratio_policy", 18),
    ("QuantizeLinear", "block_size", 21),
    ("QuantizeLinear", "output_dtype", 21),
    ("DequantizeLinear", "block_size", 21),
    ("DequantizeLinear", "output_dtype", 23),
    ("SpaceToDepth", "mode", 28),
    ("ScatterElements", "reduction", 16),
    ("ScatterND", "reduction", 16),
    ("Attention", "left_window_size", 25),
    ("Attention", "right_window_size", 25),
    ("RNN", "layout", 14),
    ("GRU", "layout", 14),
    ("LSTM", "layout", 14),
    ("LpPool", "dilations", 18),
    ("LpPool", "ceil_mode", 18),
];

/// A node for `op` without name, operands and results; attributes at their default are left out.
pub fn node(op: &Op) -> NodeProto {
    let domain = match op {
        Op::Opaque { domain, .. } if !domain.is_empty() => Some(domain.clone()),
        Op::Quant { .. } => Some(qonnx::DOMAIN.to_string()),
        _ => None,
    };
    NodeProto { op_type: Some(op.kind().to_string()), domain, attribute: attributes(op), ..Default::default() }
}

fn attributes(op: &Op) -> Vec<AttributeProto> {
    let mut list = List::default();
    match op {
        Op::Conv { window, group } => list.window(window).int("group", *group, 1),
        Op::ConvTranspose { window, group, output_padding, output_shape } => list
            .window(window)
            .int("group", *group, 1)
            .ints("output_padding", output_padding)
            .ints("output_shape", output_shape),
        Op::Gemm { alpha, beta, trans_a, trans_b } => list
            .float("alpha", *alpha, 1.0)
            .float("beta", *beta, 1.0)
            .flag("transA", *trans_a, false)
            .flag("transB", *trans_b, false),
        Op::BatchNorm { epsilon } | Op::InstanceNorm { epsilon } => list.float("epsilon", *epsilon, 1e-5),
        Op::LayerNorm { axis, epsilon } | Op::RmsNorm { axis, epsilon } => {
            list.int("axis", *axis, -1).float("epsilon", *epsilon, 1e-5)
        }
        Op::GroupNorm { groups, epsilon } => list.put(int("num_groups", *groups)).float("epsilon", *epsilon, 1e-5),
        Op::LpNorm { axis, p } => list.int("axis", *axis, -1).int("p", *p, 2),
        Op::MeanVarianceNorm { axes } if axes[..] == [0, 2, 3] => &mut list,
        Op::MeanVarianceNorm { axes } => list.put(ints("axes", axes)),
        Op::Lrn { alpha, beta, bias, size } => list
            .put(int("size", *size))
            .float("alpha", *alpha, 1e-4)
            .float("beta", *beta, 0.75)
            .float("bias", *bias, 1.0),
        Op::Unary(u) => match u {
            Unary::LeakyRelu { alpha } => list.float("alpha", *alpha, 0.01),
            Unary::Elu { alpha } | Unary::Celu { alpha } | Unary::ThresholdedRelu { alpha } => {
                list.float("alpha", *alpha, 1.0)
            }
            Unary::IsInf { negative, positive } => {
                list.flag("detect_negative", *negative, true).flag("detect_positive", *positive, true)
            }
            Unary::Shrink { bias, lambd } => list.float("bias", *bias, 0.0).float("lambd", *lambd, 0.5),
            Unary::Swish { alpha } => list.float("alpha", *alpha, 1.0),
            Unary::Selu { alpha, gamma } => list.float("alpha", *alpha, SELU_ALPHA).float("gamma", *gamma, SELU_GAMMA),
            Unary::HardSigmoid { alpha, beta } => list.float("alpha", *alpha, 0.2).float("beta", *beta, 0.5),
            Unary::Gelu { tanh: true } => list.put(string("approximate", "tanh")),
            _ => &mut list,
        },
        Op::Binary(Binary::Mod { fmod }) => list.flag("fmod", *fmod, false),
        Op::Binary(Binary::BitShift { left }) => list.put(string("direction", if *left { "LEFT" } else { "RIGHT" })),
        Op::Softmax { axis, .. } | Op::Hardmax { axis } | Op::OneHot { axis } => list.int("axis", *axis, -1),
        Op::MaxPool { window, ceil_mode } => list.window(window).flag("ceil_mode", *ceil_mode, false),
        Op::LpPool { window, ceil_mode, p } => list.window(window).flag("ceil_mode", *ceil_mode, false).int("p", *p, 2),
        Op::GlobalLpPool { p } => list.int("p", *p, 2),
        Op::Cumulate { exclusive, reverse, .. } => {
            list.flag("exclusive", *exclusive, false).flag("reverse", *reverse, false)
        }
        Op::GatherNd { batch_dims } => list.int("batch_dims", *batch_dims, 0),
        Op::ScatterElements { axis, reduction } => list.int("axis", *axis, 0).scatter(*reduction),
        Op::ScatterNd { reduction } => list.scatter(*reduction),
        Op::Compress { axis: Some(axis) } => list.put(int("axis", *axis)),
        Op::TopK { axis, largest, sorted } => {
            list.int("axis", *axis, -1).flag("largest", *largest, true).flag("sorted", *sorted, true)
        }
        Op::NonMaxSuppression { centres } => list.flag("center_point_box", *centres, false),
        Op::Trilu { upper } => list.flag("upper", *upper, true),
        Op::EyeLike { k, to } => {
            list.int("k", *k, 0);
            match to {
                Some(to) => list.put(int("dtype", tensor::dtype_code(*to) as i64)),
                None => &mut list,
            }
        }
        Op::ReverseSequence { batch_axis, time_axis } => {
            list.int("batch_axis", *batch_axis, 1).int("time_axis", *time_axis, 0)
        }
        Op::Einsum { equation } => list.put(string("equation", equation)),
        Op::GridSample { mode, padding, align_corners } => {
            match mode {
                Sampling::Linear => {}
                Sampling::Nearest => list.0.push(string("mode", "nearest")),
                Sampling::Cubic => list.0.push(string("mode", "cubic")),
            }
            match padding {
                Outside::Zeros => {}
                Outside::Border => list.0.push(string("padding_mode", "border")),
                Outside::Reflection => list.0.push(string("padding_mode", "reflection")),
            }
            list.flag("align_corners", *align_corners, false)
        }
        Op::RoiAlign { size, sampling_ratio, spatial_scale, max, half_pixel } => {
            list.int("output_height", size[0], 1).int("output_width", size[1], 1);
            list.int("sampling_ratio", *sampling_ratio, 0).float("spatial_scale", *spatial_scale, 1.0);
            if *max {
                list.0.push(string("mode", "max"));
            }
            list.put(string(
                "coordinate_transformation_mode",
                if *half_pixel { "half_pixel" } else { "output_half_pixel" },
            ))
        }
        Op::Attention(a) => {
            list.flag("is_causal", a.causal, false).int("q_num_heads", a.q_heads, 0).int("kv_num_heads", a.kv_heads, 0);
            list.0.extend(a.scale.map(|scale| float("scale", scale)));
            list.float("softcap", a.softcap, 0.0).int("qk_matmul_output_mode", a.product, 0);
            list.int("left_window_size", a.window[0], -1).int("right_window_size", a.window[1], -1)
        }
        Op::RotaryEmbedding { interleaved, heads, dim } => list
            .flag("interleaved", *interleaved, false)
            .int("num_heads", *heads, 0)
            .int("rotary_embedding_dim", *dim, 0),
        Op::AveragePool { window, ceil_mode, count_include_pad } => list
            .window(window)
            .flag("ceil_mode", *ceil_mode, false)
            .flag("count_include_pad", *count_include_pad, false),
        Op::Reduce { keepdims, noop_with_empty_axes, .. } => {
            list.flag("keepdims", *keepdims, true).flag("noop_with_empty_axes", *noop_with_empty_axes, false)
        }
        Op::ArgReduce { axis, keepdims, select_last_index, .. } => list
            .int("axis", *axis, 0)
            .flag("keepdims", *keepdims, true)
            .flag("select_last_index", *select_last_index, false),
        Op::Concat { axis } => list.put(int("axis", *axis)),
        Op::Split { axis } | Op::Gather { axis } | Op::GatherElements { axis } => list.int("axis", *axis, 0),
        Op::Flatten { axis } => list.int("axis", *axis, 1),
        Op::QuantizeLinear { axis, block, to } | Op::DequantizeLinear { axis, block, to } => {
            list.0.extend(to.map(|to| int("output_dtype", tensor::dtype_code(to) as i64)));
            list.int("axis", *axis, 1).int("block_size", *block, 0)
        }
        Op::Quant { signed, narrow, rounding } => {
            list.0 = qonnx::attributes(*signed, *narrow, *rounding);
            &mut list
        }
        Op::Recurrent(r) => {
            list.0 = recurrent::attributes(r);
            &mut list
        }
        Op::Reshape { allowzero } => list.flag("allowzero", *allowzero, false),
        Op::Transpose { perm } => list.ints("perm", perm),
        Op::Shape { start, end } => {
            list.int("start", *start, 0);
            match end {
                Some(end) => list.put(int("end", *end)),
                None => &mut list,
            }
        }
        Op::ConstantOfShape { value } => {
            let unnamed = crate::onnx::proto::TensorProto { name: None, ..tensor::encode("", value) };
            list.put(tensor_attr("value", unnamed))
        }
        Op::Cast { to } => list.put(int("to", tensor::dtype_code(*to) as i64)),
        Op::Pad { mode } => match mode {
            PadMode::Constant => &mut list,
            PadMode::Reflect => list.put(string("mode", "reflect")),
            PadMode::Edge => list.put(string("mode", "edge")),
            PadMode::Wrap => list.put(string("mode", "wrap")),
        },
        Op::Resize(resize) => list.resize(resize),
        Op::DepthToSpace { block, dcr } => {
            list.put(int("blocksize", *block));
            if *dcr { &mut list } else { list.put(string("mode", "CRD")) }
        }
        Op::SpaceToDepth { block } => list.put(int("blocksize", *block)),
        Op::Binary(_)
        | Op::Variadic(_)
        | Op::MatMul
        | Op::Clip
        | Op::GlobalAveragePool
        | Op::GlobalMaxPool
        | Op::Slice
        | Op::Squeeze
        | Op::Unsqueeze
        | Op::Expand
        | Op::Tile
        | Op::Size
        | Op::Range
        | Op::Where
        | Op::Identity
        | Op::NonZero
        | Op::Det
        | Op::CastLike
        | Op::Compress { axis: None }
        | Op::Choice
        | Op::Opaque { .. } => &mut list,
    };
    list.0
}

/// Attributes in the making; defaults are dropped.
#[derive(Default)]
struct List(Vec<AttributeProto>);

impl List {
    fn put(&mut self, attribute: AttributeProto) -> &mut Self {
        self.0.push(attribute);
        self
    }

    fn int(&mut self, name: &str, value: i64, default: i64) -> &mut Self {
        if value == default { self } else { self.put(int(name, value)) }
    }

    fn flag(&mut self, name: &str, value: bool, default: bool) -> &mut Self {
        self.int(name, value as i64, default as i64)
    }

    fn float(&mut self, name: &str, value: f32, default: f32) -> &mut Self {
        if value == default { self } else { self.put(float(name, value)) }
    }

    fn ints(&mut self, name: &str, values: &[i64]) -> &mut Self {
        if values.is_empty() { self } else { self.put(ints(name, values)) }
    }

    fn scatter(&mut self, reduction: Scatter) -> &mut Self {
        match reduction {
            Scatter::Replace => self,
            Scatter::Add => self.put(string("reduction", "add")),
            Scatter::Mul => self.put(string("reduction", "mul")),
            Scatter::Max => self.put(string("reduction", "max")),
            Scatter::Min => self.put(string("reduction", "min")),
        }
    }

    fn window(&mut self, window: &Window) -> &mut Self {
        self.ints("kernel_shape", &window.kernel).ints("strides", &window.strides);
        if window.dilations.iter().any(|&d| d != 1) {
            self.ints("dilations", &window.dilations);
        }
        match &window.padding {
            Padding::Explicit(pads) => self.ints("pads", pads),
            Padding::SameUpper => self.put(string("auto_pad", "SAME_UPPER")),
            Padding::SameLower => self.put(string("auto_pad", "SAME_LOWER")),
        }
    }

    fn resize(&mut self, resize: &Resize) -> &mut Self {
        self.flag("antialias", resize.antialias, false).ints("axes", &resize.axes);
        self.float("extrapolation_value", resize.extrapolation, 0.0);
        match resize.aspect {
            Aspect::Stretch => {}
            Aspect::NotLarger => self.0.push(string("keep_aspect_ratio_policy", "not_larger")),
            Aspect::NotSmaller => self.0.push(string("keep_aspect_ratio_policy", "not_smaller")),
        }
        match resize.mode {
            Interpolation::Nearest(nearest) => {
                let name = match nearest {
                    Nearest::RoundPreferFloor => "round_prefer_floor",
                    Nearest::RoundPreferCeil => "round_prefer_ceil",
                    Nearest::Floor => "floor",
                    Nearest::Ceil => "ceil",
                };
                self.put(string("mode", "nearest")).put(string("nearest_mode", name));
            }
            Interpolation::Linear => {
                self.put(string("mode", "linear"));
            }
            Interpolation::Cubic { coeff_a, exclude_outside } => {
                self.put(string("mode", "cubic")).float("cubic_coeff_a", coeff_a, -0.75).flag(
                    "exclude_outside",
                    exclude_outside,
                    false,
                );
            }
        }
        let name = match resize.coordinates {
            Coordinates::HalfPixel => "half_pixel",
            Coordinates::HalfPixelSymmetric => "half_pixel_symmetric",
            Coordinates::PytorchHalfPixel => "pytorch_half_pixel",
            Coordinates::AlignCorners => "align_corners",
            Coordinates::Asymmetric => "asymmetric",
            Coordinates::CropAndResize => "tf_crop_and_resize",
        };
        self.put(string("coordinate_transformation_mode", name))
    }
}

/// Brings a node in the IR's form (operands as of opset 18) to the form of `opset`.
/// `constant` gives the integers of a constant operand by name.
pub fn fit(node: &mut NodeProto, opset: u64, constant: impl Fn(&str) -> Option<Vec<i64>>) -> Result<()> {
    if !is_default(node.domain()) {
        return Ok(());
    }
    let newer = |what: String, since: u64| {
        Error::unsupported(format!("{what} exists since opset {since}, the graph has opset {opset}"))
            .hint("raise the graph's opset first")
    };
    let kind = node.op_type().to_string();
    if let Some((since, _)) = schema::history(&kind).filter(|h| h.0 > opset) {
        return Err(newer(format!("operator {kind}"), since));
    }
    for &(_, name, since) in LATER.iter().filter(|l| l.0 == kind && l.2 > opset) {
        if node.attribute.iter().any(|a| a.name() == name) {
            return Err(newer(format!("attribute `{name}` of {kind}"), since));
        }
    }
    let given = |node: &NodeProto, i: usize| node.input.get(i).filter(|n| !n.is_empty()).cloned();
    if reduction(&kind).is_some() && kind != "ReduceSum" && opset < 18 {
        if take(node, "noop_with_empty_axes")?.is_some_and(|a| a.i() != 0) {
            return Err(newer(format!("attribute `noop_with_empty_axes` of {kind}"), 18));
        }
        if let Some(name) = given(node, 1) {
            let axes = constant(&name).ok_or_else(|| newer(format!("{kind} with computed axes"), 18))?;
            node.attribute.retain(|a| a.name() != "axes");
            if !axes.is_empty() {
                set(node, ints("axes", &axes));
            }
        }
        node.input.truncate(1);
    }
    if kind == "Split" {
        node.attribute.retain(|a| a.name() != "num_outputs");
        if opset >= 18 && given(node, 1).is_none() {
            set(node, int("num_outputs", node.output.len() as i64));
        }
    }
    if kind == "GridSample"
        && let Some(mode) = node.attribute.iter().find(|a| a.name() == "mode").and_then(|a| a.s.clone())
    {
        let names = [("linear", "bilinear"), ("cubic", "bicubic")];
        if let Some((new, old)) = names.into_iter().find(|(n, o)| [n, o].iter().any(|s| s.as_bytes() == mode)) {
            set(node, string("mode", if opset < 20 { old } else { new }));
        }
    }
    if kind == "RoiAlign" && opset < 16 {
        let mode = take(node, "coordinate_transformation_mode")?;
        if mode.is_none_or(|a| a.s.as_deref() != Some(b"output_half_pixel")) {
            return Err(newer("half-pixel RoiAlign".to_string(), 16));
        }
    }
    if kind == "GroupNormalization" && opset < 21 {
        return Err(newer("GroupNormalization with a scale per channel".to_string(), 21));
    }
    if kind == "Pad" && opset < 18 && given(node, 3).is_some() {
        return Err(newer("operand `axes` of Pad".to_string(), 18));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tensor::DType;

    #[test]
    fn ops_survive_becoming_nodes() {
        let window = |padding| Window { kernel: vec![3, 3], strides: vec![2, 1], dilations: vec![2, 2], padding };
        let ops = [
            Op::Conv { window: window(Padding::Explicit(vec![1, 1, 0, 0])), group: 4 },
            Op::Conv { window: window(Padding::SameLower), group: 1 },
            Op::ConvTranspose {
                window: window(Padding::SameUpper),
                group: 1,
                output_padding: vec![1, 0],
                output_shape: vec![7, 8],
            },
            Op::Gemm { alpha: 0.5, beta: 2.0, trans_a: true, trans_b: true },
            Op::BatchNorm { epsilon: 1e-3 },
            Op::LayerNorm { axis: 1, epsilon: 1e-12 },
            Op::GroupNorm { groups: 3, epsilon: 1e-3 },
            Op::RmsNorm { axis: 1, epsilon: 1e-6 },
            Op::LpNorm { axis: 1, p: 1 },
            Op::MeanVarianceNorm { axes: vec![1] },
            Op::Hardmax { axis: 0 },
            Op::Cumulate { product: true, exclusive: true, reverse: true },
            Op::LpPool { window: window(Padding::SameUpper), ceil_mode: true, p: 3 },
            Op::GlobalLpPool { p: 1 },
            Op::GatherNd { batch_dims: 1 },
            Op::ScatterElements { axis: 1, reduction: Scatter::Max },
            Op::ScatterNd { reduction: Scatter::Mul },
            Op::Compress { axis: Some(1) },
            Op::OneHot { axis: 0 },
            Op::TopK { axis: 0, largest: false, sorted: false },
            Op::NonMaxSuppression { centres: true },
            Op::Trilu { upper: false },
            Op::EyeLike { k: -1, to: Some(DType::I32) },
            Op::ReverseSequence { batch_axis: 0, time_axis: 1 },
            Op::Einsum { equation: "ij,jk".into() },
            Op::GridSample { mode: Sampling::Cubic, padding: Outside::Reflection, align_corners: true },
            Op::RoiAlign { size: [2, 3], sampling_ratio: 2, spatial_scale: 0.5, max: true, half_pixel: false },
            Op::Attention(Attention {
                causal: true,
                q_heads: 4,
                kv_heads: 2,
                scale: Some(0.5),
                softcap: 2.0,
                product: 3,
                window: [4, 0],
            }),
            Op::RotaryEmbedding { interleaved: true, heads: 2, dim: 4 },
            Op::Unary(Unary::IsInf { negative: false, positive: true }),
            Op::Unary(Unary::Shrink { bias: 0.1, lambd: 1.5 }),
            Op::Unary(Unary::Swish { alpha: 2.0 }),
            Op::Binary(Binary::BitShift { left: false }),
            Op::CastLike,
            Op::Lrn { alpha: 1.0, beta: 2.0, bias: 3.0, size: 5 },
            Op::Unary(Unary::Selu { alpha: 1.0, gamma: 2.0 }),
            Op::Unary(Unary::Selu { alpha: SELU_ALPHA, gamma: SELU_GAMMA }),
            Op::Unary(Unary::HardSigmoid { alpha: 1.0 / 6.0, beta: 0.5 }),
            Op::Unary(Unary::Gelu { tanh: true }),
            Op::Binary(Binary::Mod { fmod: true }),
            Op::Softmax { axis: 2, log: true },
            Op::MaxPool { window: window(Padding::Explicit(vec![])), ceil_mode: true },
            Op::AveragePool { window: window(Padding::SameUpper), ceil_mode: true, count_include_pad: true },
            Op::Reduce { kind: Reduction::LogSumExp, keepdims: false, noop_with_empty_axes: true },
            Op::ArgReduce { largest: false, axis: 3, keepdims: false, select_last_index: true },
            Op::Concat { axis: -1 },
            Op::Split { axis: 2 },
            Op::Reshape { allowzero: true },
            Op::Flatten { axis: 0 },
            Op::Transpose { perm: vec![1, 0] },
            Op::Gather { axis: 1 },
            Op::Shape { start: 1, end: Some(-1) },
            Op::ConstantOfShape { value: crate::tensor::Tensor::i64s(vec![3]).into() },
            Op::Cast { to: DType::F16 },
            Op::Pad { mode: PadMode::Wrap },
            Op::Resize(Resize::new(Interpolation::Nearest(Nearest::Ceil), Coordinates::AlignCorners)),
            Op::Resize(Resize {
                antialias: true,
                aspect: Aspect::NotLarger,
                axes: vec![2, 3],
                extrapolation: 0.5,
                ..Resize::new(Interpolation::Cubic { coeff_a: -0.5, exclude_outside: true }, Coordinates::CropAndResize)
            }),
            Op::DepthToSpace { block: 2, dcr: false },
            Op::SpaceToDepth { block: 3 },
            Op::QuantizeLinear { axis: 0, block: 2, to: Some(DType::I4) },
            Op::DequantizeLinear { axis: -1, block: 0, to: None },
            Op::Quant { signed: false, narrow: false, rounding: Rounding::HalfEven },
            Op::Quant { signed: true, narrow: true, rounding: Rounding::Floor },
        ];
        for op in ops {
            assert_eq!(super::super::parse::op(&node(&op)).unwrap(), op);
        }
    }
}
