//! What the user asks for: every option with its default, unit and meaning. Unknown keys are refused.

use super::budget::{BitopsTarget, SizeTarget};
use super::size::ByteSize;
use super::target::Target;
use super::task::Task;
use crate::tensor::Precision;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::fmt;

/// A whole recipe; every part may be left out.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Recipe {
    /// Weights.
    pub weights: Weights,
    /// Activations.
    pub activations: Activations,
    /// Bits chosen layer by layer.
    pub mixed: Mixed,
    /// The method and its schedule.
    pub method: Method,
    /// How the network is cut into units.
    pub units: Units,
    /// How samples become network input.
    pub input: Input,
    /// The written file.
    pub output: Output,
    /// Exceptions by layer name; later entries win.
    #[serde(rename = "override")]
    pub overrides: Vec<Override>,
}

/// How a range is found.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Observer {
    /// Smallest mean |x̂ - x|^2.4 over 100 ranges (times every zero point for two-sided data).
    #[default]
    Mse,
    /// From the smallest to the largest value seen.
    MinMax,
    /// From the `percentile` to its mirror image.
    Percentile,
}

/// Options for weights.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Weights {
    /// 2 to 8, or 32 for float.
    pub bits: u32,
    /// Zero point fixed in the middle of the grid.
    pub symmetric: bool,
    /// One step per output channel, else one per tensor.
    pub per_channel: bool,
    /// How the range is found.
    pub observer: Observer,
    /// Share of values inside the range for the percentile observer, in percent.
    pub percentile: f64,
    /// Bits of the first and of the last weight layer.
    pub first_last_bits: u32,
    /// Bits of tables that rows are looked up in (embeddings), rounded to nearest.
    pub embedding_bits: u32,
}

impl Default for Weights {
    fn default() -> Self {
        Weights {
            bits: 4,
            symmetric: false,
            per_channel: true,
            observer: Observer::Mse,
            percentile: 99.99,
            first_last_bits: 8,
            embedding_bits: 8,
        }
    }
}

/// Where activation quantizers sit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Placement {
    /// On the tensor a layer produces, after its activation function; residual sums once, after the addition. The paper's.
    Producer,
    /// On each activation operand of Conv, Gemm, MatMul and Add.
    Consumer,
    /// As `Producer`, and in 8 bits wherever the integer kernels of ONNX Runtime need a quantizer beside those; weights of
    /// 8 bits are symmetric, as those kernels want them.
    Integer,
}

/// Options for activations.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Activations {
    /// 2 to 8, 16, or 32 for float.
    pub bits: u32,
    /// Zero point fixed in the middle of the grid.
    pub symmetric: bool,
    /// How the range is found.
    pub observer: Observer,
    /// Share of values inside the range for the percentile observer, in percent.
    pub percentile: f64,
    /// Where quantizers sit. Default: `integer` for ONNX Runtime; `producer` for other targets and with the preset `paper`.
    pub placement: Option<Placement>,
    /// Bits of the tensor that reaches the last weight layer; with placement `consumer` of the network input too.
    /// Default: 8, and 16 where `bits` is 16; see [`Activations::last`].
    pub last_bits: Option<u32>,
    /// The first layer's output at 8 bit too (the BRECQ setting).
    pub first_output_8bit: bool,
    /// Calibration samples from which the first grids are fitted.
    pub samples: usize,
    /// Calibration samples on which factors are chosen that bring the channels of an activation to a common width, see
    /// [`super::factor_sites`]. 0 gives all channels one step, as published. Default: 32, 0 with the preset `paper`.
    #[serde(alias = "equalize_samples")]
    pub factor_samples: Option<usize>,
    /// Calibration samples on which the first grids are held against the network's outputs: where another step lowers
    /// the error there by a tenth, it is taken. 0 keeps the observer's, as published. Default: 32, 0 with the preset
    /// `paper`.
    pub refine_samples: Option<usize>,
}

impl Default for Activations {
    fn default() -> Self {
        Activations {
            bits: 4,
            symmetric: false,
            observer: Observer::Mse,
            percentile: 99.99,
            placement: None,
            last_bits: None,
            first_output_8bit: false,
            samples: 256,
            factor_samples: None,
            refine_samples: None,
        }
    }
}

impl Activations {
    /// Bits of the tensor that reaches the last weight layer.
    pub fn last(&self) -> u32 {
        self.last_bits.unwrap_or(if self.bits == 16 { 16 } else { 8 })
    }
}

/// Bits chosen layer by layer, so that the network's outputs suffer least within a target. Without a target all bits
/// are the recipe's.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Mixed {
    /// Most that all weights may take, at their true bits. Default: no limit.
    pub size: Option<SizeTarget>,
    /// Most bit operations: multiply-adds of a sample times the bits of both factors. With it the bits of activations are
    /// chosen too. Default: no limit.
    pub bitops: Option<BitopsTarget>,
    /// Bits to choose from, 2 to 8 each.
    pub candidates: Vec<u32>,
    /// Whether first and last layers, and tables that rows are looked up in, have the choice too; else they keep the bits
    /// that `weights` and `activations` give them.
    pub first_last: bool,
    /// Calibration samples on which it is measured what each layer's bits do to the outputs.
    pub samples: usize,
}

impl Default for Mixed {
    fn default() -> Self {
        Mixed { size: None, bitops: None, candidates: vec![2, 3, 4, 6, 8], first_last: true, samples: 64 }
    }
}

impl Mixed {
    /// Whether bits are to be chosen.
    pub fn wanted(&self) -> bool {
        self.size.is_some() || self.bitops.is_some()
    }

    /// Bits to choose from, ascending, each once.
    pub fn bits(&self) -> Vec<u32> {
        let bits: BTreeSet<u32> = self.candidates.iter().copied().collect();
        bits.into_iter().collect()
    }
}

/// A published method; each is a set of defaults for [`Method`] and [`Units`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum MethodName {
    /// Round to nearest on the first grids; nothing is learned.
    Rtn,
    /// Learned rounding layer by layer, on inputs from the layers rounded before it, activations float.
    Adaround,
    /// Learned rounding block by block, on inputs from the blocks rounded before it, activations float; then, in a second
    /// pass, the steps of activations.
    Brecq,
    /// Learned rounding and steps block by block, activation quantization dropped at random.
    #[default]
    Qdrop,
}

impl fmt::Display for MethodName {
    /// The name people read.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            MethodName::Rtn => "nearest rounding",
            MethodName::Adaround => "AdaRound",
            MethodName::Brecq => "BRECQ",
            MethodName::Qdrop => "QDrop",
        })
    }
}

/// How much time a run may spend and whether it keeps to the paper: defaults for the options that are left out.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Preset {
    /// The published method and schedule: 20 000 iterations, published learning rates, nothing beyond but that a unit which
    /// learning made worse keeps nearest rounding.
    Paper,
    /// What most networks need.
    #[default]
    Balanced,
    /// A good first answer.
    Fast,
}

/// Options of the method; a missing option takes the value of the preset and of the named method; see
/// [`Recipe::resolved`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Method {
    /// Which method.
    pub name: MethodName,
    /// Defaults for the options that are left out.
    pub preset: Preset,
    /// Iterations per unit. Default: the preset's.
    pub iterations: Option<usize>,
    /// Samples per iteration, drawn with replacement.
    pub batch: usize,
    /// Learning rate of the rounding variables (Adam). Default: 1e-3 for 20 000 iterations, as published; fewer take
    /// larger steps, so that variables travel as far, at most 50 times as large (not with the preset `paper`).
    pub rounding_lr: Option<f64>,
    /// First learning rate of the activation steps (Adam, cosine to 0). Default: 4e-5 for 20 000 iterations, as
    /// published; larger for fewer like `rounding_lr`, at most ten times as large.
    pub scale_lr: Option<f64>,
    /// Weight of the rounding regulariser: 0.01 for ResNet and RegNet, 0.1 for MobileNetV2, 0.2 for MNASNet.
    pub lambda: f64,
    /// Share of the iterations before the regulariser starts, 0 to 1.
    pub warmup: f64,
    /// Exponent of the regulariser when it starts.
    pub beta_start: f64,
    /// Exponent of the regulariser at the end.
    pub beta_end: f64,
    /// Probability that an element of a unit's input is taken from the quantized network, 0 to 1. Default: 0.5 for QDrop, 1 for AdaRound and BRECQ.
    pub input_keep: Option<f64>,
    /// Probability that an activation inside the unit keeps its quantized value, 0 to 1. Default: 0.5 for QDrop, 0 for AdaRound and BRECQ.
    pub activation_keep: Option<f64>,
    /// Whether a unit ends before its iterations do when all roundings are settled. Default: not with the preset
    /// `paper`.
    pub stop_settled: Option<bool>,
    /// Whether activation steps are learned. Default: for QDrop.
    pub learn_scales: Option<bool>,
    /// Whether biases are learned with the roundings of their layers; without, rounding alone must make up for what
    /// quantized activations shift on average, as published. Default: for QDrop, not with the preset `paper`.
    pub learn_biases: Option<bool>,
    /// Whether elements of a unit's output count in its loss as much as the network's outputs depend on them; without,
    /// all count alike, as published. Default: for QDrop, not with the preset `paper`.
    pub weigh_outputs: Option<bool>,
    /// Iterations in which biases and activation steps of the whole network are learned against its outputs after the
    /// last unit; 0 leaves it at the units, as published. Default: for QDrop half of `iterations`, at most 1000, else and
    /// with the preset `paper` 0.
    pub tune_iterations: Option<usize>,
    /// Seed of every random choice.
    pub seed: u64,
    /// Threads; 0 takes all cores. Changes speed, never the result.
    pub threads: usize,
    /// Memory that a run may take. Values of the samples that do not fit lie in files in the work directory. Changes
    /// speed, never the result. Default: all that is needed.
    pub memory: Option<ByteSize>,
    /// How values of the samples at the borders of units are kept: `f16` takes half the memory and disk of `f32`, and
    /// rounds them to 11 bits.
    pub cache: Cache,
}

impl Default for Method {
    fn default() -> Self {
        Method {
            name: MethodName::Qdrop,
            preset: Preset::default(),
            iterations: None,
            batch: 32,
            rounding_lr: None,
            scale_lr: None,
            lambda: 0.01,
            warmup: 0.2,
            beta_start: 20.0,
            beta_end: 2.0,
            input_keep: None,
            activation_keep: None,
            stop_settled: None,
            learn_scales: None,
            learn_biases: None,
            weigh_outputs: None,
            tune_iterations: None,
            seed: 1005,
            threads: 0,
            memory: None,
            cache: Cache::default(),
        }
    }
}

/// How values of samples are kept.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Cache {
    /// Single precision.
    #[default]
    F32,
    /// Half precision.
    F16,
}

impl Cache {
    /// The precision it names.
    pub fn precision(self) -> Precision {
        match self {
            Cache::F32 => Precision::Single,
            Cache::F16 => Precision::Half,
        }
    }
}

/// Size of units.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Granularity {
    /// Residual or branching regions, and chains of up to three weight layers.
    Block,
    /// Every weight layer alone.
    Layer,
}

/// How the network is cut into units.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Units {
    /// Block or layer. Default: layer for AdaRound, block for the others.
    pub granularity: Option<Granularity>,
    /// Most weight layers in a unit.
    pub max_layers: usize,
    /// Blocks that are solved as one unit, at most: 2 joins the attention and the feed-forward part of an encoder layer.
    pub blocks: usize,
    /// Name patterns of nodes (`*` matches anything) after which a unit must end.
    pub cut_after: Vec<String>,
}

impl Default for Units {
    fn default() -> Self {
        Units { granularity: None, max_layers: 12, blocks: 1, cut_after: Vec::new() }
    }
}

/// Order of colour channels the network expects.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Color {
    /// Red, green, blue.
    #[default]
    Rgb,
    /// Blue, green, red.
    Bgr,
    /// One channel.
    Gray,
}

/// Order of axes the network expects.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Layout {
    /// `[N, C, H, W]`.
    #[default]
    Nchw,
    /// `[N, H, W, C]`.
    Nhwc,
}

/// How images become network input (resize, crop, divide by `divisor`, subtract `mean`, divide by `std`), and text.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Input {
    /// `imagenet`, `imagenet-norm`, or `none`; the options below change it one by one.
    pub preset: Option<String>,
    /// Length of the shorter side after resizing, in pixels; 0 for no resize.
    pub resize: Option<usize>,
    /// Side of the square cut from the centre, in pixels; 0 for no crop.
    pub crop: Option<usize>,
    /// Divisor of the 0 to 255 pixel values.
    pub divisor: Option<f32>,
    /// Mean per channel, after the division.
    pub mean: Option<Vec<f32>>,
    /// Standard deviation per channel, after the division.
    pub std: Option<Vec<f32>>,
    /// Order of axes.
    pub layout: Option<Layout>,
    /// Order of colour channels.
    pub color: Option<Color>,
    /// Network input that marks real tokens by 1 and padding by 0; padding takes no part in first grids and losses.
    /// Default: the input `attention_mask` if there is one.
    pub mask: Option<String>,
    /// Most calibration samples to use, spread over the set. Default: all.
    pub samples: Option<usize>,
    /// Leave out images that cannot be read, counting them, instead of stopping.
    pub skip_bad: bool,
    /// Task on text: how its files are read and what is measured. Default: none, samples are images or arrays.
    pub task: Option<Task>,
    /// File of the tokenizer. Default: `tokenizer.json` beside the model, else beside the samples.
    pub tokenizer: Option<String>,
    /// Tokens of a sample: longer texts are cut, shorter ones padded. Default: what the network declares, else
    /// what the longest text of the set needs, at most 128; 384 for SQuAD.
    pub max_length: Option<usize>,
    /// Tokens that neighbouring windows over a long text share (SQuAD). Default: 128.
    pub doc_stride: Option<usize>,
}

/// How the result is written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Format {
    /// 8-bit QuantizeLinear, Clip, DequantizeLinear: runs in every ONNX Runtime.
    #[default]
    Qcdq,
    /// Native 4-bit (opset 21) and 2-bit (opset 25) types.
    Qdq,
}

/// Options of the written file.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Output {
    /// The runtime it is for.
    pub target: Target,
    /// How quantization is expressed for ONNX Runtime; other targets have one form each.
    pub format: Format,
    /// Layout of the file of encodings that target `qnn` has beside the network.
    pub encodings_version: EncodingsVersion,
}

/// Layout of a file of encodings, by AIMET's numbers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum EncodingsVersion {
    /// Entries by name, one a channel; AIMET up to 1.x.
    #[serde(rename = "0.6.1")]
    V0_6_1,
    /// Lists of activations and parameters; AIMET from 2.0.
    #[default]
    #[serde(rename = "1.0.0")]
    V1_0_0,
    /// One list in the terms of QuantizeLinear, with biases; AIMET from 2.3, and converters that know it.
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

/// An exception for the layers whose node name, or the activations whose name matches.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Override {
    /// Pattern of node names; `*` matches anything.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub layer: String,
    /// Pattern of names of quantized values, beside `layer` or instead of it.
    pub activation: Option<String>,
    /// Bits of its weight.
    pub weight_bits: Option<u32>,
    /// Bits of the activation: of those named, and of what the layer produces (placement `producer`) or reads
    /// (`consumer`).
    pub activation_bits: Option<u32>,
    /// Symmetric weight grid.
    pub weight_symmetric: Option<bool>,
    /// Symmetric activation grid.
    pub activation_symmetric: Option<bool>,
}
