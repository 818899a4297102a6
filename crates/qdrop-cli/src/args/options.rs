//! Options that several commands take.

use super::values::{fixed, names, shape};
use clap::{Args, ValueEnum};
use qdrop::plan::{
    BitopsTarget, ByteSize, Cache, Color, EncodingsVersion, Format, Granularity, Layout, MethodName, Observer,
    Placement, Preset, SizeTarget, Target, Task,
};
use std::path::PathBuf;

/// The shape of the network's inputs where the file leaves it open.
#[derive(Debug, Args)]
pub struct Shape {
    /// Shape of an input where the file leaves it open, batch first (1,3,224,224); once per input, in order
    #[arg(long = "shape", value_name = "N,C,H,W", value_parser = shape)]
    pub shapes: Vec<Vec<usize>>,
    #[command(flatten)]
    pub fix: Fix,
}

/// Inputs and sizes that are given once and for all.
#[derive(Debug, Default, Args)]
pub struct Fix {
    /// Give an input one value for good, a number for all its elements or one each, so that samples need not hold it and
    /// a written file has no such input; or give a size that the file names a value (gain=1.5, seq=128); repeatable
    #[arg(long = "fix", value_name = "NAME=VALUE", value_parser = fixed, help_heading = None)]
    pub values: Vec<(String, Vec<f64>)>,
}

/// Options of commands that only run a network.
#[derive(Debug, Args)]
pub struct Run {
    /// Use at most this many samples, spread over the set
    #[arg(long, value_name = "N", help_heading = None)]
    pub samples: Option<usize>,
    /// Threads; 0 takes all cores
    #[arg(long, value_name = "N", default_value_t = 0, help_heading = None)]
    pub threads: usize,
    /// Recipe whose [input] part says how images are prepared
    #[arg(long, value_name = "FILE", help_heading = None)]
    pub recipe: Option<PathBuf>,
    #[command(flatten)]
    pub fix: Fix,
}

/// A runtime to run files in.
#[derive(Debug, Default, Args)]
#[command(next_help_heading = "Runtime")]
pub struct InRuntime {
    /// Run files in this runtime in place of qdrop's own engine: ONNX Runtime (ort), on the CPU, at its default
    /// optimisation level
    #[arg(long, value_enum)]
    pub runtime: Option<RuntimeName>,
    /// Shared library of the runtime [default: the environment variable ORT_DYLIB_PATH, else that of the Python package
    /// onnxruntime in the environment in use]
    #[arg(long, value_name = "FILE", requires = "runtime")]
    pub runtime_library: Option<PathBuf>,
}

/// Runtimes that files can be run in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum RuntimeName {
    /// ONNX Runtime
    Ort,
}

/// Order of rows.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum Sort {
    /// As in the network
    #[default]
    Network,
    /// The largest error of the fewest bits first
    Error,
}

/// Bits that were chosen or are to be, for the next run.
#[derive(Debug, Default, Args)]
#[command(next_help_heading = "Mixed precision")]
pub struct Bits {
    /// What `qdrop sensitivity -o FILE.json` measured about this network, so that a target measures nothing
    #[arg(long, value_name = "FILE")]
    pub sensitivity: Option<PathBuf>,
    /// Write the recipe in effect to this file, chosen bits as exceptions: it repeats the run without measuring
    #[arg(long, value_name = "FILE")]
    pub save_recipe: Option<PathBuf>,
}

/// How the network is quantized; each overrides the recipe.
#[derive(Debug, Default, Args)]
#[command(next_help_heading = "Quantization")]
pub struct RecipeFlags {
    /// Recipe with options; the ones typed here override it
    #[arg(long, value_name = "FILE")]
    pub recipe: Option<PathBuf>,
    /// Bits of weights: 2 to 8, or 32 for float [default: 4]
    #[arg(short, long = "weight-bits", value_name = "BITS")]
    pub weights: Option<u32>,
    /// Bits of activations: 2 to 8, 16, or 32 for float [default: 4]
    #[arg(short, long = "activation-bits", value_name = "BITS")]
    pub activations: Option<u32>,
    /// Choose bits of weights layer by layer, so that all take at most this: 128KiB, or w3 for what they take
    /// with -w 3
    #[arg(long, value_name = "SIZE", help_heading = "Mixed precision")]
    pub target_size: Option<SizeTarget>,
    /// Choose bits of weights and activations, so that all products take at most so many bit operations: 1.2G, or w4a4
    /// for those of -w 4 -a 4
    #[arg(long, value_name = "COUNT", help_heading = "Mixed precision")]
    pub target_bitops: Option<BitopsTarget>,
    /// Bits to choose from and to measure [default: 2,3,4,6,8]
    #[arg(long, value_name = "BITS", value_delimiter = ',', help_heading = "Mixed precision")]
    pub candidates: Option<Vec<u32>>,
    /// First and last layers, and embeddings, keep their own bits instead of choosing too
    #[arg(long, help_heading = "Mixed precision")]
    pub keep_first_last: bool,
    /// Samples on which it is measured what bits do to the outputs [default: 64]
    #[arg(long, value_name = "N", help_heading = "Mixed precision")]
    pub sensitivity_samples: Option<usize>,
    /// Method: nearest rounding, or learned rounding by one of three papers [default: qdrop]
    #[arg(long, value_parser = names::<MethodName>(&["rtn", "adaround", "brecq", "qdrop"]))]
    pub method: Option<MethodName>,
    /// Defaults for the options that are left out: the published method and schedule (paper, 20000 iterations per
    /// unit), what most networks need (balanced, 2000), a good first answer (fast, 300) [default: balanced]
    #[arg(long, value_parser = names::<Preset>(&["paper", "balanced", "fast"]))]
    pub preset: Option<Preset>,
    /// Iterations per unit [default: the preset's]
    #[arg(long, value_name = "N")]
    pub iters: Option<usize>,
    /// Samples per iteration [default: 32]
    #[arg(long, value_name = "N")]
    pub batch: Option<usize>,
    /// Weight of the rounding regulariser; 0.1 for MobileNetV2, 0.2 for MNASNet [default: 0.01]
    #[arg(long, value_name = "X")]
    pub lambda: Option<f64>,
    /// Probability that an element stays quantized while learning, 0 to 1 [default: 0.5 for qdrop]
    #[arg(long, value_name = "P")]
    pub keep_probability: Option<f64>,
    /// Seed of every random choice [default: 1005]
    #[arg(long, value_name = "N")]
    pub seed: Option<u64>,
    /// Threads; 0 takes all cores; never changes the result [default: 0]
    #[arg(long, value_name = "N")]
    pub threads: Option<usize>,
    /// Memory the run may take, such as 4GiB: samples' values that do not fit lie in files in the work directory; never
    /// changes the result [default: all that is needed]
    #[arg(long, value_name = "SIZE")]
    pub memory: Option<ByteSize>,
    /// How samples' values at the borders of units are kept: f16 takes half the memory, rounded to 11 bits [default: f32]
    #[arg(long, value_parser = names::<Cache>(&["f32", "f16"]))]
    pub cache: Option<Cache>,
    /// Use at most this many calibration samples, spread over the set [default: all]
    #[arg(long, value_name = "N")]
    pub samples: Option<usize>,
    /// Bits of the first and the last weight layer and of the tensor that reaches the last [default: 8; for that tensor
    /// 16 with -a 16]
    #[arg(long, value_name = "BITS")]
    pub first_last_bits: Option<u32>,
    /// Bits of embedding tables, rounded to nearest: 2 to 8, or 32 for float [default: 8]
    #[arg(long, value_name = "BITS")]
    pub embedding_bits: Option<u32>,
    /// Output of the first layer at 8 bit too
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub first_output_8bit: Option<bool>,
    /// Which grids have their zero point in the middle [default: none]
    #[arg(long, value_enum, num_args = 0..=1, require_equals = true, default_missing_value = "both")]
    pub symmetric: Option<Symmetric>,
    /// One step per output channel of a weight (true) or one per weight (false) [default: true]
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub per_channel: Option<bool>,
    /// How ranges are found, of weights and activations [default: mse]
    #[arg(long, value_parser = names::<Observer>(&["mse", "min-max", "percentile"]))]
    pub observer: Option<Observer>,
    /// Samples on which factors are chosen that bring the channels of an activation to a common width; 0: one step for all
    /// channels [default: 32]
    #[arg(long, alias = "equalize-samples", value_name = "N")]
    pub factor_samples: Option<usize>,
    /// Samples on which first activation steps are checked against the network's outputs; 0: never [default: 32]
    #[arg(long, value_name = "N")]
    pub refine_samples: Option<usize>,
    /// Where activation quantizers sit: on what layers produce, and in 8 bits where integer kernels need one beside those
    /// (integer); on what layers produce alone, as published (producer); on what layers read (consumer) [default: integer
    /// for target ort, else and with preset paper producer]
    #[arg(long, value_parser = names::<Placement>(&["integer", "producer", "consumer"]))]
    pub placement: Option<Placement>,
    /// Size of the pieces solved at once [default: block; layer for adaround]
    #[arg(long, value_parser = names::<Granularity>(&["block", "layer"]))]
    pub granularity: Option<Granularity>,
    /// Blocks that are solved as one unit, at most; 2 joins attention and feed-forward [default: 1]
    #[arg(long, value_name = "N")]
    pub blocks: Option<usize>,
    /// Runtime the file is for: ONNX Runtime (ort), openvino (symmetric weights), tensorrt (8 bits, symmetric), qonnx for
    /// FINN and hls4ml (symmetric, unsigned where no value can be negative), or qnn for Qualcomm's converters (a float
    /// network with encodings beside it: weights of 4 or 8 bits, activations of 8 or 16) [default: ort]
    #[arg(long, value_parser = names::<Target>(&["ort", "openvino", "tensorrt", "qonnx", "qnn"]))]
    pub target: Option<Target>,
    /// Form of the file for ort: packed weights that run in integers everywhere, or types of 4 bits (opset 21) [default: qcdq]
    #[arg(long, value_parser = names::<Format>(&["qcdq", "qdq"]))]
    pub file_format: Option<Format>,
    /// Layout of the encodings for qnn, by AIMET's numbers [default: 1.0.0]
    #[arg(long, value_parser = names::<EncodingsVersion>(&["0.6.1", "1.0.0", "2.0.0"]))]
    pub encodings_version: Option<EncodingsVersion>,
}

/// Grids with the zero point in the middle.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Symmetric {
    /// Weights
    Weights,
    /// Activations
    Activations,
    /// Weights and activations
    Both,
    /// Neither
    None,
}

/// How images and text become network input; each overrides the recipe.
#[derive(Debug, Default, Args)]
#[command(next_help_heading = "Images")]
pub struct Input {
    /// Preset: imagenet (resize 256, crop 224, mean and std), imagenet-norm (mean and std only), none
    #[arg(long, value_name = "PRESET")]
    pub input: Option<String>,
    /// Resize the shorter side to this many pixels; 0 for no resize
    #[arg(long, value_name = "PIXELS")]
    pub resize: Option<usize>,
    /// Cut a square of this many pixels from the centre; 0 for no crop
    #[arg(long, value_name = "PIXELS")]
    pub crop: Option<usize>,
    /// Divide the 0 to 255 pixel values by this
    #[arg(long, value_name = "X")]
    pub divisor: Option<f32>,
    /// Mean per channel, after the division
    #[arg(long, value_name = "R,G,B", value_delimiter = ',', allow_hyphen_values = true)]
    pub mean: Option<Vec<f32>>,
    /// Standard deviation per channel, after the division
    #[arg(long, value_name = "R,G,B", value_delimiter = ',')]
    pub std: Option<Vec<f32>>,
    /// Order of axes
    #[arg(long, value_parser = names::<Layout>(&["nchw", "nhwc"]))]
    pub layout: Option<Layout>,
    /// Order of colour channels
    #[arg(long, value_parser = names::<Color>(&["rgb", "bgr", "gray"]))]
    pub color: Option<Color>,
    /// Leave out images that cannot be read, counting them, instead of stopping
    #[arg(long)]
    pub skip_bad: bool,
    #[command(flatten)]
    pub text: Text,
}

/// How text becomes network input; each overrides the recipe.
#[derive(Debug, Default, Args)]
#[command(next_help_heading = "Text")]
pub struct Text {
    /// Samples are text: how its files are read and what is measured (sst2, mrpc, cola, rte, qnli, qqp, mnli, stsb, squad)
    #[arg(long, value_name = "NAME")]
    pub task: Option<Task>,
    /// The network's tokenizer.json [default: tokenizer.json beside the model, else beside the samples]
    #[arg(long, value_name = "FILE")]
    pub tokenizer: Option<String>,
    /// Tokens of a sample, longer texts are cut [default: what the network declares, else as many as the longest text
    /// needs, at most 128; 384 for squad]
    #[arg(long, value_name = "N")]
    pub max_length: Option<usize>,
    /// Tokens that neighbouring windows over a long text share, for squad [default: 128]
    #[arg(long, value_name = "N")]
    pub doc_stride: Option<usize>,
}
