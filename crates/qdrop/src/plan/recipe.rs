//! The recipe: every option of a run, with its default, unit and meaning. Unknown keys are refused.

use super::budget::{BitopsTarget, SizeTarget};
use super::input::Input;
use super::output::Output;
use super::size::ByteSize;
use crate::tensor::Precision;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::fmt;

/// A complete recipe. In its TOML form every part may be left out.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct Recipe {
    /// How weights are quantized.
    pub weights: Weights,
    /// How activations are quantized.
    pub activations: Activations,
    /// Bits chosen layer by layer for a target.
    pub mixed: Mixed,
    /// The method and its schedule.
    pub method: Method,
    /// How the network is divided into units, the parts that are learned at once.
    pub units: Units,
    /// The part of the network that is quantized.
    pub scope: Scope,
    /// How samples become network input.
    pub input: Input,
    /// The written file.
    pub output: Output,
    /// Exceptions by name of the layer or activation; later entries win.
    #[serde(rename = "override")]
    pub overrides: Vec<Override>,
}

/// The rule that finds the range of a first grid.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Observer {
    /// The range with the smallest mean |x̂ - x|^2.4 out of 100 (for values on both sides of 0, combined with every
    /// zero point).
    #[default]
    Mse,
    /// From the smallest to the largest value seen.
    MinMax,
    /// From the quantile 100 − `percentile` to the quantile `percentile`.
    Percentile,
}

/// Options for weights.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct Weights {
    /// Bits: 2 to 8, or 32 for float. Default: 4.
    pub bits: u32,
    /// Whether the zero point is fixed in the middle of the grid. Default: false.
    pub symmetric: bool,
    /// Whether each output channel has its own step (scale), rather than the whole tensor. Default: true.
    pub per_channel: bool,
    /// How the range is found. Default: [`Observer::Mse`].
    pub observer: Observer,
    /// Quantile, in per cent, at which the percentile observer's range ends; it begins at 100 minus this. Default:
    /// 99.99.
    pub percentile: f64,
    /// Bits of the weights of the first and the last layer. Default: 8.
    pub first_last_bits: u32,
    /// Bits of embedding tables, which are rounded to nearest. Default: 8.
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

/// Where activations are quantized.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Placement {
    /// At the output of a layer, after its activation function, and at residual sums once, after the addition; as in
    /// the paper.
    Producer,
    /// At each activation operand of Conv, Gemm, MatMul and Add.
    Consumer,
    /// As [`Placement::Producer`], with additional 8-bit quantizers wherever the integer kernels of ONNX Runtime need
    /// them; 8-bit weights are symmetric, as those kernels require.
    Integer,
}

/// Options for activations.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct Activations {
    /// Bits: 2 to 8, 16, or 32 for float. Default: 4.
    pub bits: u32,
    /// Whether the zero point is fixed in the middle of the grid. Default: false.
    pub symmetric: bool,
    /// How the range is found. Default: [`Observer::Mse`].
    pub observer: Observer,
    /// Quantile, in per cent, at which the percentile observer's range ends; it begins at 100 minus this. Default:
    /// 99.99.
    pub percentile: f64,
    /// Where quantizers are placed. Default: `integer` for ONNX Runtime; `producer` for other targets and with the
    /// preset `paper`.
    pub placement: Option<Placement>,
    /// Bits of the tensor that enters the last weight layer; with placement `consumer` also of the network input.
    /// Default: 8, or 16 if `bits` is 16; see [`Activations::last`].
    pub last_bits: Option<u32>,
    /// Whether the first layer's output has 8 bits too (the BRECQ setting). Default: false.
    pub first_output_8bit: bool,
    /// Calibration samples to which the first grids are fitted. Default: 256.
    pub samples: usize,
    /// Calibration samples on which channel factors are chosen, which bring the channels of an activation to a common
    /// width; see [`super::factor_sites`]. 0 gives all channels one step, as published. Default: 32, 0 with the preset
    /// `paper`.
    #[serde(alias = "equalize_samples")]
    pub factor_samples: Option<usize>,
    /// Calibration samples on which the first activation steps are checked against the network's outputs: another step
    /// is taken if it lowers the error there by a tenth. 0 keeps the observer's steps, as published. Default: 32, 0
    /// with the preset `paper`.
    pub refine_samples: Option<usize>,
    /// Noise that an activation of 8 bits or more may cause in the network's outputs alone, as a share of their energy; one
    /// that causes more stays float. Only where all activations have 8 bits or more, for ONNX Runtime, and with
    /// `refine_samples`. 0 quantizes all of them. Default: 0.002, 0 with the preset `paper`.
    pub noise_limit: Option<f64>,
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
            noise_limit: None,
        }
    }
}

impl Activations {
    /// Bits of the tensor that enters the last weight layer.
    pub fn last(&self) -> u32 {
        self.last_bits.unwrap_or(if self.bits == 16 { 16 } else { 8 })
    }
}

/// Bits chosen layer by layer, so that the error of the network's outputs is smallest within a target. Without a target
/// the bits are those of [`Weights`] and [`Activations`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct Mixed {
    /// Maximum size of all weights at their true bits. Default: no limit.
    pub size: Option<SizeTarget>,
    /// Maximum number of bit operations: multiply-adds of a sample times the bits of both factors. With this target the
    /// bits of activations are chosen too. Default: no limit.
    pub bitops: Option<BitopsTarget>,
    /// Bits to choose from, 2 to 8 each. Default: 2, 3, 4, 6, 8.
    pub candidates: Vec<u32>,
    /// Whether the bits of the first and last layers and of embedding tables are chosen too; otherwise they keep the
    /// bits that `weights` and `activations` give them. Default: true.
    pub first_last: bool,
    /// Calibration samples on which the effect of each layer's bits on the outputs is measured. Default: 64.
    pub samples: usize,
}

impl Default for Mixed {
    fn default() -> Self {
        Mixed { size: None, bitops: None, candidates: vec![2, 3, 4, 6, 8], first_last: true, samples: 64 }
    }
}

impl Mixed {
    /// Whether there is a target, so that bits have to be chosen.
    pub fn wanted(&self) -> bool {
        self.size.is_some() || self.bitops.is_some()
    }

    /// The candidates in ascending order, without duplicates.
    pub fn bits(&self) -> Vec<u32> {
        let bits: BTreeSet<u32> = self.candidates.iter().copied().collect();
        bits.into_iter().collect()
    }
}

/// A published method. Each is a set of defaults for [`Method`] and [`Units`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum MethodName {
    /// Rounding to nearest on the first grids; nothing is learned.
    Rtn,
    /// Rounding learned layer by layer with float activations, from inputs of the layers rounded before it.
    Adaround,
    /// Rounding learned block by block with float activations, from inputs of the blocks rounded before it; then, in a
    /// second pass, the steps of activations.
    Brecq,
    /// Rounding and activation steps learned block by block, with activation quantization dropped at random.
    #[default]
    Qdrop,
}

impl fmt::Display for MethodName {
    /// The name as it is printed.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            MethodName::Rtn => "nearest rounding",
            MethodName::Adaround => "AdaRound",
            MethodName::Brecq => "BRECQ",
            MethodName::Qdrop => "QDrop",
        })
    }
}

/// Defaults for the options that are not set: how long a run learns, and whether it follows the paper exactly.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Preset {
    /// The published method and schedule: 20 000 iterations and the published learning rates. The only addition is that
    /// a unit whose loss rises by learning keeps nearest rounding.
    Paper,
    /// 2000 iterations, enough for most networks.
    #[default]
    Balanced,
    /// 300 iterations, for a quick first result.
    Fast,
}

/// Options of the method. An option that is not set takes its value from the preset and the method; see
/// [`Recipe::resolved`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct Method {
    /// The method. Default: [`MethodName::Qdrop`].
    pub name: MethodName,
    /// Defaults for the options that are not set. Default: [`Preset::Balanced`].
    pub preset: Preset,
    /// Iterations per unit. Default: the preset's.
    pub iterations: Option<usize>,
    /// Samples per iteration, drawn with replacement. Default: 32.
    pub batch: usize,
    /// Learning rate of the rounding variables (Adam). Default: 1e-3 for 20 000 iterations, as published;
    /// proportionally larger for fewer iterations, so that variables move as far, but at most 50 times as large (not
    /// with the preset `paper`).
    pub rounding_lr: Option<f64>,
    /// Initial learning rate of the activation steps (Adam, cosine to 0). Default: 4e-5 for 20 000 iterations, as
    /// published; larger for fewer iterations like `rounding_lr`, but at most ten times as large.
    pub scale_lr: Option<f64>,
    /// Weight of the rounding regulariser: 0.01 for ResNet and RegNet, 0.1 for MobileNetV2, 0.2 for MNASNet. Default:
    /// 0.01.
    pub lambda: f64,
    /// Share of the iterations before the regulariser starts, 0 to 1. Default: 0.2.
    pub warmup: f64,
    /// Exponent of the regulariser when it starts. Default: 20.
    pub beta_start: f64,
    /// Exponent of the regulariser at the end. Default: 2.
    pub beta_end: f64,
    /// Probability that an element of a unit's input comes from the quantized network rather than the float one, 0 to
    /// 1. Default: 0.5 for QDrop, 1 for AdaRound and BRECQ.
    pub input_keep: Option<f64>,
    /// Probability that an element of an activation inside the unit is quantized rather than dropped to float, 0 to 1.
    /// Default: 0.5 for QDrop, 0 for AdaRound and BRECQ.
    pub activation_keep: Option<f64>,
    /// Whether a unit ends early once all its roundings are settled. Default: true, false with the preset `paper`.
    pub stop_settled: Option<bool>,
    /// Whether activation steps are learned. Default: true for QDrop, false for the others.
    pub learn_scales: Option<bool>,
    /// Whether biases are learned together with the roundings of their layers. Otherwise rounding alone has to
    /// compensate for the average shift that quantized activations cause, as published. Default: true for QDrop, false
    /// for the others and with the preset `paper`.
    pub learn_biases: Option<bool>,
    /// Whether the elements of a unit's output count in its loss by how much the network's outputs depend on them.
    /// Otherwise all have the same weight, as published. Default: true for QDrop, false for the others and with the
    /// preset `paper`.
    pub weigh_outputs: Option<bool>,
    /// Calibration samples on which, where nothing is learned, biases are corrected so that the results of layers keep
    /// their means, and below 8 bits the steps of convolutions' weights, if that brings the network's outputs closer; 0
    /// leaves both as they are. Default: 32 for [`MethodName::Rtn`], 0 for the others and with the preset `paper`.
    pub correct_samples: Option<usize>,
    /// Iterations in which, after the last unit, biases and activation steps of the whole network are learned against
    /// its outputs; 0 leaves this stage out, as published. Default: for QDrop half of `iterations`, at most 1000; 0 for
    /// the others and with the preset `paper`.
    pub tune_iterations: Option<usize>,
    /// Whether the steps of weights are learned in these iterations too, where integers stay, and the factors of activations'
    /// channels in these and with each unit. Default: true for QDrop, false for the others and with the preset `paper`.
    pub learn_weight_scales: Option<bool>,
    /// Seed for all random choices. Default: 1005.
    pub seed: u64,
    /// Number of threads; 0 uses all cores. Affects the speed, not the result. Default: 0.
    pub threads: usize,
    /// Memory that a run may use. Values of the samples that do not fit are kept in files in the work directory.
    /// Affects the speed, not the result. Default: as much as needed.
    pub memory: Option<ByteSize>,
    /// Type in which values of the samples at the borders of units are kept: `f16` takes half the memory and disk space
    /// of `f32`, and rounds them to 11 bits. Default: `f32`.
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
            correct_samples: None,
            tune_iterations: None,
            learn_weight_scales: None,
            seed: 1005,
            threads: 0,
            memory: None,
            cache: Cache::default(),
        }
    }
}

/// Type in which values of samples are kept.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Cache {
    /// Single precision.
    #[default]
    F32,
    /// Half precision.
    F16,
}

impl Cache {
    /// The corresponding precision.
    pub fn precision(self) -> Precision {
        match self {
            Cache::F32 => Precision::Single,
            Cache::F16 => Precision::Half,
        }
    }
}

/// Size of a unit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Granularity {
    /// A residual or other branching region, or a chain of up to three weight layers.
    Block,
    /// A single weight layer.
    Layer,
}

/// How the network is divided into units, the parts that are learned at once.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct Units {
    /// Block or layer. Default: layer for AdaRound, block for the others.
    pub granularity: Option<Granularity>,
    /// Maximum number of weight layers in a unit. Default: 12.
    pub max_layers: usize,
    /// Maximum number of blocks in a unit: 2 joins the attention and the feed-forward part of an encoder layer.
    /// Default: 1.
    pub blocks: usize,
    /// Patterns of node names (`*` matches anything) after which a unit must end.
    pub cut_after: Vec<String>,
}

impl Default for Units {
    fn default() -> Self {
        Units { granularity: None, max_layers: 12, blocks: 1, cut_after: Vec::new() }
    }
}

/// A part of a network.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Part {
    /// All of it.
    #[default]
    Network,
    /// A detector without its heads, as in the paper: these stay float, and so does what only they read.
    BackboneNeck,
}

/// The part of the network that is quantized.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct Scope {
    /// The part. Default: [`Part::Network`].
    pub part: Part,
    /// Patterns of names of layers (`*` matches anything) with which heads begin; layers behind them are part of them.
    /// Default: heads are found by the structure of the network.
    pub heads: Vec<String>,
}

/// An exception for layers and activations with matching names.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct Override {
    /// Pattern of layer names; `*` matches anything.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub layer: String,
    /// Pattern of names of quantized values, in addition to `layer` or instead of it.
    pub activation: Option<String>,
    /// Bits of the layer's weight.
    pub weight_bits: Option<u32>,
    /// Bits of the activations that are named, and of what the layer produces (placement `producer`) or reads
    /// (`consumer`).
    pub activation_bits: Option<u32>,
    /// Whether the grid of the weight is symmetric.
    pub weight_symmetric: Option<bool>,
    /// Whether the grid of the activation is symmetric.
    pub activation_symmetric: Option<bool>,
}
