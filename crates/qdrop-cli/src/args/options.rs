//! Options that several commands share.

use super::values::{family, fixed, names, shape};
use clap::{Args, ValueEnum};
use qdrop::plan::{
    BitopsTarget, ByteSize, Cache, Canvas, Color, EncodingsVersion, Format, Granularity, Layout, MethodName, Observer,
    PadPlace, Part, Placement, Preset, SizeTarget, Target, Task,
};
use std::path::PathBuf;

/// Shapes of inputs that the file leaves open.
#[derive(Debug, Args)]
pub struct Shape {
    /// Shape of an input that the file leaves open, batch first (1,3,224,224); once per input, in order
    #[arg(long = "shape", value_name = "N,C,H,W", value_parser = shape)]
    pub shapes: Vec<Vec<usize>>,
    #[command(flatten)]
    pub fix: Fix,
}

/// Inputs and sizes that are fixed to a value.
#[derive(Debug, Default, Args)]
pub struct Fix {
    /// Fix an input to a constant (one number for all elements, or one per element), so that samples need not contain
    /// it and the written file does not have it; or fix a size that the file names (gain=1.5, seq=128); repeatable
    #[arg(long = "fix", value_name = "NAME=VALUE", value_parser = fixed, help_heading = None)]
    pub values: Vec<(String, Vec<f64>)>,
}

/// Options of commands that only run a network.
#[derive(Debug, Args)]
pub struct Run {
    /// Use at most this many samples, spread over the set
    #[arg(long, value_name = "N", help_heading = None)]
    pub samples: Option<usize>,
    /// Number of threads; 0 uses all cores
    #[arg(long, value_name = "N", default_value_t = 0, help_heading = None)]
    pub threads: usize,
    /// Recipe whose [input] section says how images are prepared
    #[arg(long, value_name = "FILE", help_heading = None)]
    pub recipe: Option<PathBuf>,
    #[command(flatten)]
    pub fix: Fix,
}

/// The runtime to run files in.
#[derive(Debug, Default, Args)]
#[command(next_help_heading = "Runtime")]
pub struct InRuntime {
    /// Run files in this runtime instead of qdrop's own engine: ONNX Runtime (ort), on the CPU, at its default
    /// optimisation level
    #[arg(long, value_enum)]
    pub runtime: Option<RuntimeName>,
    /// Shared library of the runtime [default: the file that the environment variable ORT_DYLIB_PATH names, else that
    /// of the Python package onnxruntime in the active environment]
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
    /// By the error at the fewest bits, largest first
    Error,
}

/// Files for choosing bits, and for repeating a choice.
#[derive(Debug, Default, Args)]
#[command(next_help_heading = "Mixed precision")]
pub struct Bits {
    /// Measurements of this network by `qdrop sensitivity -o FILE.json`, from which bits are chosen without measuring
    /// again
    #[arg(long, value_name = "FILE")]
    pub sensitivity: Option<PathBuf>,
    /// Write the recipe in effect to this file, with the chosen bits as overrides: it repeats the run without measuring
    #[arg(long, value_name = "FILE")]
    pub save_recipe: Option<PathBuf>,
}

/// How the network is quantized; each option overrides the recipe.
#[derive(Debug, Default, Args)]
#[command(next_help_heading = "Quantization")]
pub struct RecipeFlags {
    /// Recipe (a TOML file) with options; the command line overrides it
    #[arg(long, value_name = "FILE")]
    pub recipe: Option<PathBuf>,
    /// Bits of weights: 2 to 8, or 32 for float [default: 4]
    #[arg(short, long = "weight-bits", value_name = "BITS")]
    pub weights: Option<u32>,
    /// Bits of activations: 2 to 8, 16, or 32 for float [default: 4]
    #[arg(short, long = "activation-bits", value_name = "BITS")]
    pub activations: Option<u32>,
    /// Choose the bits of weights layer by layer, so that all weights together take at most this size: 128KiB, or w3
    /// for their size with -w 3
    #[arg(long, value_name = "SIZE", help_heading = "Mixed precision")]
    pub target_size: Option<SizeTarget>,
    /// Choose the bits of weights and activations, so that a sample takes at most this many bit operations
    /// (multiply-adds times the bits of both factors): 1.2G, or w4a4 for their number with -w 4 -a 4
    #[arg(long, value_name = "COUNT", help_heading = "Mixed precision")]
    pub target_bitops: Option<BitopsTarget>,
    /// Bits to choose from and to measure [default: 2,3,4,6,8]
    #[arg(long, value_name = "BITS", value_delimiter = ',', help_heading = "Mixed precision")]
    pub candidates: Option<Vec<u32>>,
    /// Leave the first and last layers and embeddings out of the choice; they keep their own bits
    #[arg(long, help_heading = "Mixed precision")]
    pub keep_first_last: bool,
    /// Samples on which the effect of bits on the outputs is measured [default: 64]
    #[arg(long, value_name = "N", help_heading = "Mixed precision")]
    pub sensitivity_samples: Option<usize>,
    /// Method: nearest rounding (rtn), or learned rounding as in one of three papers [default: qdrop]
    #[arg(long, value_parser = names::<MethodName>(&["rtn", "adaround", "brecq", "qdrop"]))]
    pub method: Option<MethodName>,
    /// Defaults for options that are not given: the published method and schedule (paper, 20000 iterations per unit),
    /// enough for most networks (balanced, 2000), or a quick first result (fast, 300) [default: balanced]
    #[arg(long, value_parser = names::<Preset>(&["paper", "balanced", "fast"]))]
    pub preset: Option<Preset>,
    /// Iterations per unit (a block that is learned at once) [default: the preset's]
    #[arg(long, value_name = "N")]
    pub iters: Option<usize>,
    /// Samples per iteration [default: 32]
    #[arg(long, value_name = "N")]
    pub batch: Option<usize>,
    /// Weight of the rounding regulariser, which drives roundings to a decision; 0.1 for MobileNetV2, 0.2 for MNASNet
    /// [default: 0.01]
    #[arg(long, value_name = "X")]
    pub lambda: Option<f64>,
    /// Probability that an element of an activation is quantized, not dropped to float, while learning, 0 to 1
    /// [default: 0.5 for qdrop]
    #[arg(long, value_name = "P")]
    pub keep_probability: Option<f64>,
    /// Seed for all random choices [default: 1005]
    #[arg(long, value_name = "N")]
    pub seed: Option<u64>,
    /// Number of threads; 0 uses all cores; does not affect the result [default: 0]
    #[arg(long, value_name = "N")]
    pub threads: Option<usize>,
    /// Memory that the run may use, such as 4GiB; values of samples that do not fit are kept in files in the work
    /// directory; does not affect the result [default: as much as needed]
    #[arg(long, value_name = "SIZE")]
    pub memory: Option<ByteSize>,
    /// Type in which values of samples at the borders of units are kept: f16 takes half the memory and rounds them to
    /// 11 bits [default: f32]
    #[arg(long, value_parser = names::<Cache>(&["f32", "f16"]))]
    pub cache: Option<Cache>,
    /// Use at most this many calibration samples, spread over the set [default: all]
    #[arg(long, value_name = "N")]
    pub samples: Option<usize>,
    /// Bits of the weights of the first and the last layer, and of the tensor that enters the last [default: 8; for
    /// that tensor 16 with -a 16]
    #[arg(long, value_name = "BITS")]
    pub first_last_bits: Option<u32>,
    /// Bits of embedding tables, rounded to nearest: 2 to 8, or 32 for float [default: 8]
    #[arg(long, value_name = "BITS")]
    pub embedding_bits: Option<u32>,
    /// Quantize the output of the first layer with 8 bits too
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub first_output_8bit: Option<bool>,
    /// Which grids are symmetric, with the zero point in the middle [default: none]
    #[arg(long, value_enum, num_args = 0..=1, require_equals = true, default_missing_value = "both")]
    pub symmetric: Option<Symmetric>,
    /// One step (scale) per output channel of a weight (true), or one per weight (false) [default: true]
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub per_channel: Option<bool>,
    /// Observer: how the ranges of weights and activations are found [default: mse]
    #[arg(long, value_parser = names::<Observer>(&["mse", "min-max", "percentile"]))]
    pub observer: Option<Observer>,
    /// Samples on which channel factors are chosen, which bring the channels of an activation to a common width; 0: no
    /// factors [default: 32]
    #[arg(long, alias = "equalize-samples", value_name = "N")]
    pub factor_samples: Option<usize>,
    /// Samples on which the first activation steps, from calibration, are checked against the network's outputs and
    /// corrected; 0: no check [default: 32]
    #[arg(long, value_name = "N")]
    pub refine_samples: Option<usize>,
    /// Noise that an activation may cause in the network's outputs alone, as a share of their energy: one that causes
    /// more stays float. With -a 8 or more, for target ort; 0: all are quantized [default: 0.002]
    #[arg(long, value_name = "SHARE")]
    pub noise_limit: Option<f64>,
    /// Samples on which, with --method rtn, biases are corrected so that the results of layers keep their means, and
    /// below 8 bits the steps of convolutions; 0: no correction [default: 32]
    #[arg(long, value_name = "N")]
    pub correct_samples: Option<usize>,
    /// Where activations are quantized: at the outputs of layers, as published (producer); there and, with 8 bits,
    /// where integer kernels need further quantizers (integer); at the inputs of layers (consumer) [default: integer
    /// for target ort; producer for other targets and with preset paper]
    #[arg(long, value_parser = names::<Placement>(&["integer", "producer", "consumer"]))]
    pub placement: Option<Placement>,
    /// Part of the network that is quantized: all of it (network), or a detector without its heads, as published
    /// (backbone-neck): heads stay float, with what only they read [default: network]
    #[arg(long, value_parser = names::<Part>(&["network", "backbone-neck"]))]
    pub scope: Option<Part>,
    /// Pattern of names of layers with which heads begin (`*` matches anything); repeatable [default: heads are found by
    /// the structure of the network]
    #[arg(long, value_name = "PATTERN")]
    pub heads: Option<Vec<String>>,
    /// Size of a unit, the part of the network that is learned at once [default: block; layer for adaround]
    #[arg(long, value_parser = names::<Granularity>(&["block", "layer"]))]
    pub granularity: Option<Granularity>,
    /// Maximum number of blocks in a unit; 2 joins attention and feed-forward [default: 1]
    #[arg(long, value_name = "N")]
    pub blocks: Option<usize>,
    /// Runtime that the file is for: ONNX Runtime (ort), openvino (symmetric weights), tensorrt (8 bits, symmetric),
    /// qonnx for FINN and hls4ml (symmetric, unsigned where no value can be negative), or qnn for Qualcomm's converters
    /// (a float network with a file of encodings: weights of 4 or 8 bits, activations of 8 or 16) [default: ort]
    #[arg(long, value_parser = names::<Target>(&["ort", "openvino", "tensorrt", "qonnx", "qnn"]))]
    pub target: Option<Target>,
    /// Form of the file for ort: packed weights that run in the integer kernels of ONNX Runtime from 1.17 on (qcdq), or
    /// 4-bit types (qdq, opset 21) [default: qcdq]
    #[arg(long, value_parser = names::<Format>(&["qcdq", "qdq"]))]
    pub file_format: Option<Format>,
    /// Layout of the encodings file for qnn, as AIMET numbers it [default: 1.0.0]
    #[arg(long, value_parser = names::<EncodingsVersion>(&["0.6.1", "1.0.0", "2.0.0"]))]
    pub encodings_version: Option<EncodingsVersion>,
}

/// Symmetric grids: the zero point is in the middle.
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

/// How images and text become network input; each option overrides the recipe.
#[derive(Debug, Default, PartialEq, Args)]
#[command(next_help_heading = "Images")]
pub struct Input {
    /// Preset: for classifiers imagenet (resize 256, crop 224, mean and std) or imagenet-norm (mean and std only); for
    /// detectors yolox, yolov5 (also v8 and later), torchvision-detection, nanodet, nanodet-plus or detr; or none
    #[arg(long, value_name = "PRESET")]
    pub input: Option<String>,
    /// Resize the shorter side to this many pixels; 0 for no resize
    #[arg(long, value_name = "PIXELS")]
    pub resize: Option<usize>,
    /// With --resize: make the image smaller where its longer side would have more pixels than this; 0 for no limit
    #[arg(long, value_name = "PIXELS")]
    pub max_size: Option<usize>,
    /// Cut a square with sides of this many pixels from the centre; 0 for no crop
    #[arg(long, value_name = "PIXELS")]
    pub crop: Option<usize>,
    /// Fit the image into a canvas of this size, keep its aspect ratio and pad the rest: 640, 480x640 (height first), or
    /// network for the size of the network's input; 0 for none
    #[arg(long, value_name = "SIZE")]
    pub letterbox: Option<Canvas>,
    /// Resize the image to this size whatever its aspect ratio: 320, 240x320 (height first), or network; 0 for none
    #[arg(long, value_name = "SIZE")]
    pub stretch: Option<Canvas>,
    /// Pad images to one canvas: that of the network's input if it is fixed, else the smallest that holds all of them and
    /// whose sides are multiples of this; 0 for no padding
    #[arg(long, value_name = "PIXELS")]
    pub pad_multiple: Option<usize>,
    /// Values of padding as those of pixels, one or one per channel [default: 0]
    #[arg(long, value_name = "R,G,B", value_delimiter = ',', allow_hyphen_values = true)]
    pub pad_value: Option<Vec<f32>>,
    /// Where the image lies on its canvas [default: top-left]
    #[arg(long, value_parser = names::<PadPlace>(&["top-left", "center"]))]
    pub pad_place: Option<PadPlace>,
    /// Average over the pixels that are left out where an image becomes smaller, as Pillow does (true), or interpolate
    /// between the nearest ones, as OpenCV does (false) [default: the preset's, else true]
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub antialias: Option<bool>,
    /// Divide the pixel values (0 to 255) by this
    #[arg(long, value_name = "X")]
    pub divisor: Option<f32>,
    /// Mean per channel, after the division
    #[arg(long, value_name = "R,G,B", value_delimiter = ',', allow_hyphen_values = true)]
    pub mean: Option<Vec<f32>>,
    /// Standard deviation per channel, after the division
    #[arg(long, value_name = "R,G,B", value_delimiter = ',')]
    pub std: Option<Vec<f32>>,
    /// Order of the axes
    #[arg(long, value_parser = names::<Layout>(&["nchw", "nhwc"]))]
    pub layout: Option<Layout>,
    /// Order of the colour channels
    #[arg(long, value_parser = names::<Color>(&["rgb", "bgr", "gray"]))]
    pub color: Option<Color>,
    /// Skip images that cannot be read, and count them, instead of stopping
    #[arg(long)]
    pub skip_bad: bool,
    #[command(flatten)]
    pub text: Text,
    #[command(flatten)]
    pub detection: Detection,
    #[command(flatten)]
    pub segmentation: Segmentation,
}

/// Where annotated images lie, and how a detector's outputs are read; each option overrides the recipe.
#[derive(Debug, Default, PartialEq, Args)]
#[command(next_help_heading = "Detection")]
pub struct Detection {
    /// Folder with the images of annotation files, or with such folders named as the files [default: the folder named as
    /// the file beside it, or the file's own]
    #[arg(long, value_name = "DIR")]
    pub images: Option<String>,
    /// Family of the network as a detector: yolox, yolox-decoded, yolov5, yolov8, nanodet, picodet, retinanet, fcos, detr,
    /// rt-detr, end-to-end [default: as the shapes of its outputs tell]
    #[arg(long, value_name = "FAMILY", value_parser = family)]
    pub detector: Option<String>,
}

/// Where label maps lie, and which of their numbers count; each option overrides the recipe.
#[derive(Debug, Default, PartialEq, Args)]
#[command(next_help_heading = "Segmentation")]
pub struct Segmentation {
    /// Folder with the label maps of images, PNG files with the images' names [default: the column labels of a CSV file
    /// with lines file,labels]
    #[arg(long, value_name = "DIR")]
    pub labels: Option<String>,
    /// Do not count pixels with this number in label maps, as those with 255; repeatable
    #[arg(long, value_name = "N")]
    pub ignore_label: Vec<u16>,
}

/// How text becomes network input; each option overrides the recipe.
#[derive(Debug, Default, PartialEq, Args)]
#[command(next_help_heading = "Text")]
pub struct Text {
    /// Samples are of this task, which decides how files are read and what is measured: text (sst2, mrpc, cola, rte, qnli,
    /// qqp, mnli, stsb, squad), annotated images (coco), or images with label maps (segmentation)
    #[arg(long, value_name = "NAME")]
    pub task: Option<Task>,
    /// The network's tokenizer.json [default: tokenizer.json next to the model, else next to the samples]
    #[arg(long, value_name = "FILE")]
    pub tokenizer: Option<String>,
    /// Tokens per sample; longer texts are cut [default: what the network declares, else as many as the longest text
    /// needs, at most 128; 384 for squad]
    #[arg(long, value_name = "N")]
    pub max_length: Option<usize>,
    /// Tokens shared by neighbouring windows over a long text, for squad [default: 128]
    #[arg(long, value_name = "N")]
    pub doc_stride: Option<usize>,
}
