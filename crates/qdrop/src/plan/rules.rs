//! What runtimes do not take, or answer wrongly, and what is done about it: one table.
//!
//! Code that decides by target asks a rule of this table whether it [applies](Rule::applies), so that what the table
//! says is what happens. [`Plan::hits`] checks a network against it before anything is written. `docs/deploy.md` shows
//! the table; `rules_tests` compares the two, and requires that code asks for each rule and that a test exercises it.

use super::{Format, Layer, Output, Plan, Target};
use crate::graph::{Graph, NodeId, Op};

/// Something that a runtime does not take, or answers wrongly, and what is done about it.
#[derive(Debug)]
#[non_exhaustive]
pub struct Rule {
    /// Its name.
    pub name: &'static str,
    /// The targets that it is about.
    pub targets: &'static [Target],
    /// The pattern: operators, bits, zero points.
    pub pattern: &'static str,
    /// What the runtime makes of the pattern.
    pub effect: &'static str,
    /// The versions in which that was seen, or the document that says so.
    pub versions: &'static str,
    /// What is written instead, refused or told.
    pub remedy: &'static str,
    /// The test in the source that exercises it.
    pub test: &'static str,
    /// Where a network has the pattern, as far as that is known before the file is written.
    places: Places,
}

/// Names of nodes and values, or the name of the whole file.
type Places = fn(&Graph, &Plan, Output) -> Vec<String>;

/// A node, a value or a file to which a rule applies.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Hit {
    /// Name of the node or value, or what else it is.
    pub place: String,
    /// The rule.
    pub rule: &'static Rule,
}

impl Rule {
    /// Whether it is about files for `target`.
    pub fn applies(&self, target: Target) -> bool {
        self.targets.contains(&target)
    }
}

impl Plan {
    /// Where rules of the target apply to `graph`, as far as that is known before the file is written. What depends on
    /// ranges, such as a bias that does not fit int32, is not; [`Layer::may_saturate`] says what concerns the processor.
    pub fn hits(&self, graph: &Graph, output: Output) -> Vec<Hit> {
        let rules = RULES.iter().copied().filter(|r| r.applies(output.target));
        let places = |rule: &'static Rule| (rule.places)(graph, self, output).into_iter().map(move |p| (p, rule));
        rules.flat_map(places).map(|(place, rule)| Hit { place, rule }).collect()
    }
}

/// Most that 8-bit kernels of x86 processors without VNNI hold of a sum of two products ([`PAIR_SUMS`]).
pub(crate) const PAIR_SUM: i32 = 32_767;
/// The first opset that not every ONNX Runtime from 1.17 on loads ([`NEW_OPSETS`]).
const NEW_OPSET: u64 = 21;

pub(super) const EVERY: &[Target] = &[Target::Ort, Target::Openvino, Target::Tensorrt, Target::Qonnx, Target::Qnn];

/// Places of rules whose pattern shows only when the file is written, or in a table of its own.
const LATER: Places = |_, _, _| Vec::new();

pub(crate) const STACKED_WEIGHTS: Rule = Rule {
    name: "stacked-weights",
    targets: &[Target::Ort],
    pattern: "DequantizeLinear with a step per channel on a constant of three or more axes, in front of a MatMul",
    effect: "throws when it runs",
    versions: "1.17.3 to 1.32.0",
    remedy: "nodes on constants make the weight float when the file is loaded, and the product runs in float",
    test: "stacks_of_matrices_have_float_weights_for_onnx_runtime",
    places: |graph, plan, _| stacks(graph, plan, |layer| layer.axis.is_some()),
};

pub(crate) const STACKED_STEPS: Rule = Rule {
    name: "stacked-steps",
    targets: &[Target::Openvino, Target::Tensorrt],
    pattern: "a step per channel for a constant of three or more axes that a MatMul reads",
    effect: "wrong values without a message (OpenVINO)",
    versions: "2026.4; TensorRT not tried",
    remedy: "such a weight has one step",
    test: "stacks_of_matrices_have_one_step_where_runtimes_need_it",
    places: |graph, plan, _| stacks(graph, plan, |_| true),
};

pub(crate) const CHANNEL_ZERO_POINTS: Rule = Rule {
    name: "channel-zero-points",
    targets: &[Target::Ort],
    pattern: "zero points that differ between the channels of a convolution's weight",
    effect: "throws when it runs",
    versions: "1.17.3 to 1.26.0",
    remedy: "int8 with zero point 0: 8 bits are symmetric; with fewer, integers less their zero points are stored. With \
             free zero points at 8 bits the weight is float once loaded",
    test: "layers_that_do_not_run_in_integers_have_float_weights_once_loaded",
    places: LATER,
};

pub(crate) const ROUNDED_WEIGHTS: Rule = Rule {
    name: "rounded-weights",
    targets: &[Target::Ort],
    pattern: "a float weight of a Conv, ConvTranspose or Gemm between DequantizeLinear and QuantizeLinear",
    effect: "rounds the weight to 8 bits with one step",
    versions: "1.21.1 to 1.32.0",
    remedy: "half the weight times twice the operand, which changes no bit of the result",
    test: "layers_that_do_not_run_in_integers_have_float_weights_once_loaded",
    places: LATER,
};

pub(crate) const BLOCK_PRODUCTS: Rule = Rule {
    name: "block-products",
    targets: &[Target::Ort],
    pattern: "DequantizeLinear on the weight of a MatMul whose operand is float",
    effect: "rounds the operand to 8 bits in blocks; before, dequantizes in every inference",
    versions: "1.25.1 to 1.32.0",
    remedy: "nodes on constants make the weight float when the file is loaded",
    test: "layers_that_do_not_run_in_integers_have_float_weights_once_loaded",
    places: LATER,
};

pub(crate) const FLOAT_BIASES: Rule = Rule {
    name: "float-biases",
    targets: &[Target::Ort],
    pattern: "a float bias of a convolution between quantizers",
    effect: "before 1.21 the convolution runs in float; later versions make the bias int32 without checking that it fits",
    versions: "1.17.3 to 1.32.0",
    remedy: "int32 biases in units of both steps",
    test: "biases_are_integers_in_units_of_both_steps",
    places: LATER,
};

pub(crate) const BIAS_RANGE: Rule = Rule {
    name: "bias-range",
    targets: &[Target::Ort, Target::Qnn],
    pattern: "a bias that overflows int32 in units of the steps of operand and weight (channels that are dead or nearly so)",
    effect: "wrong values without a message (ONNX Runtime)",
    versions: "1.21.1 to 1.32.0",
    remedy: "ONNX Runtime: a larger step for the channel, or an Add after the layer; QNN: no encoding for the bias",
    test: "biases_that_do_not_fit_widen_dead_channels_or_stand_apart",
    places: LATER,
};

pub(crate) const SMALL_STEPS: Rule = Rule {
    name: "small-steps",
    targets: &[Target::Ort],
    pattern: "a product of the steps of operand and weight below the smallest normal number of float32",
    effect: "loses digits, or counts as 0",
    versions: "IEEE 754",
    remedy: "a larger step for the channel, or an Add for the bias",
    test: "steps_of_biases_are_normal_numbers",
    places: LATER,
};

pub(crate) const PAIR_SUMS: Rule = Rule {
    name: "pair-sums",
    targets: &[Target::Ort, Target::Openvino],
    pattern: "two products of 8-bit integers that together exceed 32767: 255·(|w0| + |w1|)",
    effect: "x86 processors without VNNI clip the sum",
    versions: "documentation of ONNX Runtime (`reduce_range`) and OpenVINO",
    remedy: "`qdrop plan` names the layers (`may saturate`); `-w 7 --symmetric=weights` cannot saturate",
    test: "layers_that_may_saturate_are_named",
    places: LATER,
};

pub(crate) const NATIVE_TYPES: Rule = Rule {
    name: "native-types",
    targets: &[Target::Ort],
    pattern: "QuantizeLinear to a 4-bit type behind Clip or in front of MaxPool (`--file-format qdq`)",
    effect: "does not load at the default level; there is no Clip of 4-bit integers either",
    versions: "1.20.1 to 1.23.2 (Clip), to 1.32.0 (MaxPool)",
    remedy: "uint8 and a Clip of the integers",
    test: "native_types_are_left_out_before_max_pool_and_behind_clip",
    places: pooled,
};

pub(crate) const WIDE_ACTIVATIONS: Rule = Rule {
    name: "wide-activations",
    targets: &[Target::Ort],
    pattern: "activations of 16 bits",
    effect: "there are no integer kernels, and a Clip of uint16 does not load",
    versions: "1.20.1 to 1.32.0",
    remedy: "no quantizers for kernels are added; a Relu or Clip in front of the quantizer stays",
    test: "sixteen_bits_keep_their_rectifier_and_get_no_kernels",
    places: LATER,
};

pub(crate) const NEW_OPSETS: Rule = Rule {
    name: "new-opsets",
    targets: &[Target::Ort],
    pattern: "opset 21 or later",
    effect: "loads only from some version on: opset 21 from 1.20, 22 from 1.21, 23 from 1.24",
    versions: "1.17.3 to 1.24.4",
    remedy: "a file keeps its opset, and needs 13, or 21 for types of 4 and 16 bits; for older versions export with opset \
             13 to 20",
    test: "networks_are_checked_against_the_table",
    places: new_opset,
};

pub(crate) const MOVED_OPERANDS: Rule = Rule {
    name: "moved-operands",
    targets: &[Target::Ort, Target::Openvino, Target::Tensorrt],
    pattern: "an operand that was cut, joined, repeated, padded or scaled between its quantizer and a layer",
    effect: "the layer runs in float",
    versions: "ONNX Runtime 1.17.3 (Slice)",
    remedy: "the same quantizer again in front of the layer, which changes no value",
    test: "operands_that_were_cut_are_quantized_again",
    places: LATER,
};

pub(crate) const WEIGHT_ZERO_POINTS: Rule = Rule {
    name: "weight-zero-points",
    targets: &[Target::Openvino, Target::Tensorrt, Target::Qonnx, Target::Qnn],
    pattern: "a weight with a zero point other than 0",
    effect: "OpenVINO: the layer runs in float; the others do not take it",
    versions: "OpenVINO 2026.4; documentation of TensorRT, FINN and QNN",
    remedy: "symmetric weights; a recipe that sets `weight_symmetric = false` is refused",
    test: "targets_decide_which_grids_are_symmetric",
    places: LATER,
};

pub(crate) const ACTIVATION_ZERO_POINTS: Rule = Rule {
    name: "activation-zero-points",
    targets: &[Target::Tensorrt],
    pattern: "an activation with a zero point other than 0",
    effect: "the parser refuses the file",
    versions: "documentation",
    remedy: "symmetric activations in int8; a recipe that sets `activation_symmetric = false` is refused",
    test: "targets_decide_which_grids_are_symmetric",
    places: LATER,
};

pub(crate) const ACTIVATION_SIGNS: Rule = Rule {
    name: "activation-signs",
    targets: &[Target::Qonnx],
    pattern: "zero points other than 0; a signed quantizer after ReLU, an unsigned one elsewhere",
    effect: "FINN does not take it",
    versions: "requirements of FINN",
    remedy: "unsigned where no value can be negative, else signed; a recipe that sets either is refused",
    test: "targets_decide_which_grids_are_symmetric",
    places: LATER,
};

pub(crate) const EIGHT_BITS: Rule = Rule {
    name: "eight-bits",
    targets: &[Target::Tensorrt],
    pattern: "bits other than 8, or 32 for float",
    effect: "there are int8 layers, and int4 only for weights with float activations",
    versions: "documentation",
    remedy: "refused, with the key of the recipe",
    test: "tensorrt_refuses_other_bits_by_their_key",
    places: LATER,
};

pub(crate) const PROCESSOR_BITS: Rule = Rule {
    name: "processor-bits",
    targets: &[Target::Qnn],
    pattern: "weights of other bits than 4 or 8, activations of other bits than 8 or 16, float included",
    effect: "the processor has no such layers",
    versions: "documentation (AIMET)",
    remedy: "refused, with the key of the recipe",
    test: "qnn_takes_weights_of_4_and_8_bits_and_activations_of_8_and_16",
    places: LATER,
};

pub(crate) const UNROUNDED_SUMS: Rule = Rule {
    name: "unrounded-sums",
    targets: &[Target::Openvino],
    pattern: "a quantizer between a convolution and an addition (placement `consumer`)",
    effect: "clips but does not round: 2 % of the outputs at 8 bits, 20 % at 4 bits",
    versions: "2026.4",
    remedy: "fewer than 8 bits with `consumer` are refused",
    test: "openvino_takes_few_bits_where_layers_produce_them",
    places: LATER,
};

pub(crate) const FEW_BITS: Rule = Rule {
    name: "few-bits",
    targets: &[Target::Openvino],
    pattern: "fewer than 8 bits",
    effect: "run in the 8-bit kernels: the outputs are those of the file, the speed is that of 8 bits",
    versions: "2026.4",
    remedy: "a note says so",
    test: "notes_come_where_they_matter",
    places: LATER,
};

pub(crate) const COARSE_BIASES: Rule = Rule {
    name: "coarse-biases",
    targets: &[Target::Openvino, Target::Tensorrt],
    pattern: "a bias inside a layer whose weights have fewer than 8 bits",
    effect: "may be rounded to multiples of the product of both steps, which is coarse at few bits",
    versions: "not tried",
    remedy: "an Add after the layer",
    test: "biases_beside_few_bits_are_added_by_nodes_of_their_own",
    places: LATER,
};

pub(crate) const SHARED_WEIGHTS: Rule = Rule {
    name: "shared-weights",
    targets: &[Target::Qonnx],
    pattern: "one quantizer for several readers of a weight",
    effect: "FINN does not take it",
    versions: "requirements of FINN",
    remedy: "a quantizer for each reader",
    test: "qonnx_has_one_quantizer_a_reader_and_zero_points_0",
    places: shared,
};

pub(crate) const WHOLE_VALUES: Rule = Rule {
    name: "whole-values",
    targets: &[Target::Qnn],
    pattern: "a value that only some of its readers see quantized",
    effect: "cannot be expressed: encodings belong to tensors",
    versions: "documentation (AIMET)",
    remedy: "all readers see it quantized, pooling and outputs included",
    test: "encodings_leave_no_choice_to_readers_and_tables",
    places: LATER,
};

pub(crate) const CHANNEL_AXES: Rule = Rule {
    name: "channel-axes",
    targets: &[Target::Qnn],
    pattern: "a step per row of an embedding table, or per group of a transposed convolution",
    effect: "cannot be expressed: encodings have no field for the axis",
    versions: "documentation (AIMET)",
    remedy: "one step for the whole weight",
    test: "encodings_leave_no_choice_to_readers_and_tables",
    places: LATER,
};

pub(crate) const UNENCODED_VALUES: Rule = Rule {
    name: "unencoded-values",
    targets: &[Target::Qnn],
    pattern: "a value without an encoding",
    effect: "the converter calibrates it by itself",
    versions: "documentation",
    remedy: "a note says so; `--placement consumer` includes encodings for the input and for operands of sums",
    test: "notes_come_where_they_matter",
    places: LATER,
};

pub(crate) const CHANNEL_FACTORS: Rule = Rule {
    name: "channel-factors",
    targets: &[Target::Openvino, Target::Tensorrt, Target::Qonnx, Target::Qnn],
    pattern: "channel factors that no layer can carry, which need a Mul in front of the quantizer",
    effect: "quantizers of activations have one step, and a Mul in front of one may not fuse",
    versions: "not tried",
    remedy: "only factors that a layer carries",
    test: "quantizers_divide_behind_gates_and_layers_before",
    places: LATER,
};

pub(crate) const NODE_NAMES: Rule = Rule {
    name: "node-names",
    targets: EVERY,
    pattern: "two nodes of one name",
    effect: "does not load (ONNX Runtime)",
    versions: "1.17.3 to 1.32.0",
    remedy: "a number after the name of the later node",
    test: "names_of_nodes_differ",
    places: LATER,
};

/// The writer of ONNX files follows it for every file, knowing no target.
const EMPTY_SCALES: Rule = Rule {
    name: "empty-scales",
    targets: EVERY,
    pattern: "Resize with `sizes` and an empty `scales`, as opset 11 wants it, at a later opset",
    effect: "an error: only one of both may be there",
    versions: "ONNX, Resize from opset 13 on",
    remedy: "`scales` is left out",
    test: "empty_scales_beside_sizes_are_left_out",
    places: LATER,
};

/// All rules, in the order in which the documentation shows them.
pub(crate) const RULES: &[&Rule] = &[
    &STACKED_WEIGHTS,
    &CHANNEL_ZERO_POINTS,
    &ROUNDED_WEIGHTS,
    &BLOCK_PRODUCTS,
    &FLOAT_BIASES,
    &BIAS_RANGE,
    &SMALL_STEPS,
    &PAIR_SUMS,
    &NATIVE_TYPES,
    &WIDE_ACTIVATIONS,
    &NEW_OPSETS,
    &MOVED_OPERANDS,
    &STACKED_STEPS,
    &WEIGHT_ZERO_POINTS,
    &UNROUNDED_SUMS,
    &FEW_BITS,
    &COARSE_BIASES,
    &ACTIVATION_ZERO_POINTS,
    &EIGHT_BITS,
    &PROCESSOR_BITS,
    &WHOLE_VALUES,
    &CHANNEL_AXES,
    &UNENCODED_VALUES,
    &ACTIVATION_SIGNS,
    &SHARED_WEIGHTS,
    &CHANNEL_FACTORS,
    &NODE_NAMES,
    &EMPTY_SCALES,
];

/// Whether any of `nodes`, which read a weight of `shape`, multiplies with a stack of matrices.
pub(super) fn stacked(graph: &Graph, nodes: &[NodeId], shape: &[usize]) -> bool {
    shape.len() > 2 && nodes.iter().any(|&id| graph.node(id).op == Op::MatMul)
}

/// Nodes of layers that multiply with a stack of matrices, of those for which `wanted` holds.
fn stacks(graph: &Graph, plan: &Plan, wanted: fn(&Layer) -> bool) -> Vec<String> {
    let layers = plan.layers.iter().filter(|l| stacked(graph, &l.nodes, &l.shape) && wanted(l));
    names(graph, layers.flat_map(|l| &l.nodes))
}

/// Values with 4 bits that MaxPool reads, in a file with native types.
fn pooled(graph: &Graph, plan: &Plan, output: Output) -> Vec<String> {
    let pools = |v| graph.nodes.iter().any(|n| matches!(n.op, Op::MaxPool { .. }) && n.inputs.contains(&Some(v)));
    let sites = plan.sites.iter().filter(|s| output.format == Format::Qdq && s.grid.bits == 4 && pools(s.value));
    sites.map(|s| s.name.clone()).collect()
}

fn new_opset(graph: &Graph, _: &Plan, _: Output) -> Vec<String> {
    (graph.opset >= NEW_OPSET).then(|| format!("the file, of opset {}", graph.opset)).into_iter().collect()
}

/// Nodes that share their weight.
fn shared(graph: &Graph, plan: &Plan, _: Output) -> Vec<String> {
    names(graph, plan.layers.iter().filter(|l| l.nodes.len() > 1).flat_map(|l| &l.nodes))
}

fn names<'a>(graph: &Graph, nodes: impl Iterator<Item = &'a NodeId>) -> Vec<String> {
    nodes.map(|&id| graph.node_name(id).to_string()).collect()
}
