//! The command line as typed: what may be written, what each word means, and examples.

use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{Args, Parser, Subcommand, ValueEnum};
use qdrop::plan::{
    ByteSize, Cache, Color, Format, Granularity, Layout, MethodName, Observer, Placement, Preset, Target, Task,
};
use std::path::PathBuf;

const ABOUT: &str = "Quantize a trained ONNX network to 2-8 bit weights and activations, without training data labels";

const EXAMPLES: &str = "\
Examples:
  qdrop demo                                        see the whole job on a built-in network
  qdrop plan model.onnx -w 4 -a 4                   what would be done, before any data is read
  qdrop quantize model.onnx --calib images/ --input imagenet -w 4 -a 4 -o model.w4a4.onnx
  qdrop eval model.w4a4.onnx --data test/ --input imagenet  measure the written file
  qdrop compare model.onnx model.w4a4.onnx --data images/ --input imagenet

Results go to stdout, progress to stderr.
Exit status: 0 done, 1 a stated threshold was missed, 2 error, 130 interrupted.";

/// Whole command line.
#[derive(Debug, Parser)]
#[command(name = "qdrop", version, about = ABOUT, after_help = EXAMPLES, max_term_width = 100)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,
    /// No progress on stderr
    #[arg(short, long, global = true)]
    pub quiet: bool,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Show a network's inputs, outputs, operators and size
    Inspect(Inspect),
    /// Show what quantize would do: units, layers, sites, bits, memory, what stays float and why
    Plan(Plan),
    /// Quantize a network
    Quantize(Box<Quantize>),
    /// Run a grid of bits, methods, seeds and any other options, and show the runs side by side
    Sweep(Sweep),
    /// Measure a network's accuracy on labelled samples
    Eval(Eval),
    /// Show how far the values of two networks, or of another runtime, lie apart
    Compare(Compare),
    /// Measure how fast this machine solves a network's units, without data
    Bench(Box<Bench>),
    /// Print a recipe with every option, its meaning and its default
    #[command(after_help = "\
Examples:
  qdrop recipe

Save what it prints, change what you like, and give the file to a command with --recipe. A recipe may leave out any \
option; what is typed on the command line overrides it.")]
    Recipe,
    /// Quantize a small built-in network by four methods and show the accuracies
    Demo(Demo),
    /// Print the completion script of a shell
    Completions(Completions),
    /// Print the manual page, or write one page per command into a directory
    Man(Man),
}

/// How results are printed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum Print {
    /// Tables for people
    #[default]
    Text,
    /// One JSON document for programs
    Json,
}

/// Arguments of `inspect`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  qdrop inspect model.onnx\n  qdrop inspect model.onnx --shape 1,3,224,224")]
pub struct Inspect {
    /// The ONNX file
    pub model: PathBuf,
    #[command(flatten)]
    pub shape: Shape,
    /// How to print the result
    #[arg(long, value_enum, default_value_t)]
    pub format: Print,
}

/// The shape of the network's inputs where the file leaves it open.
#[derive(Debug, Args)]
pub struct Shape {
    /// Shape of an input where the file leaves it open, batch first (1,3,224,224); once per input, in order
    #[arg(long = "shape", value_name = "N,C,H,W", value_parser = shape)]
    pub shapes: Vec<Vec<usize>>,
}

/// Arguments of `plan`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  qdrop plan resnet20.onnx -w 4 -a 4
  qdrop plan resnet20.onnx -w 4 -a 4 --format json
  qdrop plan model.onnx --shape 1,3,224,224 --granularity layer

The predicted memory is for --samples calibration samples (1024 unless told).")]
pub struct Plan {
    /// The ONNX file
    pub model: PathBuf,
    #[command(flatten)]
    pub shape: Shape,
    #[command(flatten)]
    pub wish: Wish,
    #[command(flatten)]
    pub input: Input,
    /// How to print the result
    #[arg(long, value_enum, default_value_t, help_heading = None)]
    pub format: Print,
}

/// Arguments of `quantize`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  qdrop quantize resnet20.onnx --calib calib/ --input imagenet-norm -w 2 -a 4 --eval test/
  qdrop quantize mobilenetv2.onnx --calib calib.csv --input imagenet -w 4 -a 4 --lambda 0.1 \\
      --eval eval.csv -o mobilenetv2.w4a4.onnx
  qdrop quantize model.onnx --calib samples.npy --recipe w2a4.toml
  qdrop quantize bert.onnx --task sst2 --calib SST-2/train.tsv --samples 512 --eval SST-2/dev.tsv
  qdrop quantize model.onnx --calib images/ --input imagenet --target tensorrt -w 8 -a 8

Samples: a folder of images (flat, or one sub-folder per class), a CSV with lines file,label, or arrays in a \
.npy, .npz or .safetensors file, used as they are; with --task the task's .tsv, .csv or .jsonl file, SQuAD's .json. Every option can also stand in a recipe (`qdrop recipe`); \
what is typed here overrides it.")]
pub struct Quantize {
    /// The float ONNX file
    pub model: PathBuf,
    /// Calibration samples, a few hundred without labels: image folder, CSV, .npy, .npz or .safetensors
    #[arg(long, value_name = "PATH")]
    pub calib: PathBuf,
    /// File to write [default: MODEL's name with the bits, and the target unless it is ort, in the current directory:
    /// model.w4a4.onnx]
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// Labelled samples on which float, nearest rounding and the written file are measured
    #[arg(long, value_name = "PATH")]
    pub eval: Option<PathBuf>,
    /// Where finished units are kept, so that a stopped run goes on after the last of them, by the same command
    /// [default: OUTPUT.work, removed when the file is written; a directory named here stays]
    #[arg(long, value_name = "DIR")]
    pub work_dir: Option<PathBuf>,
    #[command(flatten)]
    pub wish: Wish,
    #[command(flatten)]
    pub input: Input,
    /// How to print the report (the format of the written file is --file-format)
    #[arg(long, value_enum, default_value_t, help_heading = None)]
    pub format: Print,
}

/// Arguments of `sweep`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  qdrop sweep sweep.toml
  qdrop sweep sweep.toml --list
  qdrop sweep sweep.toml --index 3     one run alone, for a cluster's job array

A sweep's file names what all runs share, and axes: every combination of their cases is a run.

  model = \"resnet20.onnx\"              paths are relative to the file
  calib = \"calib\"
  eval = \"test\"
  average = [\"seed\"]                   tables take the mean over it [default: axes over method.seed]
  [recipe]                             what all runs share, as `qdrop recipe` prints it
  input.preset = \"imagenet-norm\"
  [[axis]]
  name = \"bits\"
  case = [
    { name = \"W2A2\", weights.bits = 2, activations.bits = 2 },
    { name = \"W4A4\", weights.bits = 4, activations.bits = 4 },
  ]
  [[axis]]
  name = \"seed\"
  key = \"method.seed\"
  values = [0, 1, 2]

A case may set any option of a recipe, and model, calib and eval. Runs that are done are not run again; a run that was \
stopped goes on after its last finished unit.")]
pub struct Sweep {
    /// The sweep's file
    pub sweep: PathBuf,
    /// Where results go: runs/NAME.json, sweep.csv, sweep.html [default: the file's name with .sweep, in the current
    /// directory]
    #[arg(short, long, value_name = "DIR")]
    pub output_dir: Option<PathBuf>,
    /// Only the run with this number, from 0
    #[arg(long, value_name = "N")]
    pub index: Option<usize>,
    /// Show the runs and which are done, and run none
    #[arg(long, conflicts_with = "index")]
    pub list: bool,
    /// Keep the quantized networks, as runs/NAME.onnx
    #[arg(long)]
    pub keep_models: bool,
    /// Threads; 0 takes all cores; never changes the result [default: the recipe's]
    #[arg(long, value_name = "N")]
    pub threads: Option<usize>,
    /// How to print the result
    #[arg(long, value_enum, default_value_t)]
    pub format: Print,
}

/// Arguments of `eval`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  qdrop eval resnet20.w2a4.onnx --data test/ --input imagenet-norm --format json
  qdrop eval mobilenetv2.w4a4.onnx --data eval.csv --input imagenet --min top1=70
  qdrop eval bert.onnx --task mrpc --data MRPC/dev.tsv --min accuracy=85 --min f1=90

With --min the exit status is 1 where a metric is below. Metrics, all in per cent: top1 and top5; of tasks accuracy (sst2, rte, qnli, mnli), accuracy and f1 (mrpc, qqp), matthews \
(cola), pearson and spearman (stsb), exact_match and f1 (squad).")]
pub struct Eval {
    /// The ONNX file, float or quantized
    pub model: PathBuf,
    /// Labelled samples: one sub-folder per class, CSV with lines file,label, .npz or .safetensors with labels; with
    /// --task the task's file
    #[arg(long, value_name = "PATH")]
    pub data: PathBuf,
    #[command(flatten)]
    pub input: Input,
    #[command(flatten)]
    pub run: Run,
    /// Exit with status 1 when a metric is below this percentage; may be given for several metrics
    #[arg(long, value_name = "METRIC=PERCENT", value_parser = threshold, help_heading = None)]
    pub min: Vec<(String, f64)>,
    /// The same as --min top1=PERCENT
    #[arg(long, value_name = "PERCENT", value_parser = percent, help_heading = None)]
    pub min_top1: Option<f64>,
    /// How to print the result
    #[arg(long, value_enum, default_value_t, help_heading = None)]
    pub format: Print,
}

/// Arguments of `compare`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  qdrop compare model.onnx model.w4a4.onnx --data calib/ --input imagenet --samples 64

Values of the same name are compared, so both files should come from one export. An .npz file holds values that another \
runtime computed for the same samples: arrays named after them, samples along the first axis.")]
pub struct Compare {
    /// The reference, usually the float network
    pub a: PathBuf,
    /// The other network, or an .npz file with values of another runtime
    pub b: PathBuf,
    /// Samples; labels are not needed
    #[arg(long, value_name = "PATH")]
    pub data: PathBuf,
    #[command(flatten)]
    pub input: Input,
    #[command(flatten)]
    pub run: Run,
    /// How to print the result
    #[arg(long, value_enum, default_value_t, help_heading = None)]
    pub format: Print,
}

/// Arguments of `bench`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  qdrop bench model.onnx
  qdrop bench model.onnx -w 2 -a 4 --batch 64 --threads 4
  qdrop bench model.onnx --shape 1,3,224,224

An iteration of every unit is measured on noise. GFLOP/s count a convolution's direct sums, however it is computed, \
over the whole iteration; the ceiling is one large matrix product on every thread.")]
pub struct Bench {
    /// The float ONNX file
    pub model: PathBuf,
    #[command(flatten)]
    pub shape: Shape,
    #[command(flatten)]
    pub wish: Wish,
    /// How to print the result
    #[arg(long, value_enum, default_value_t, help_heading = None)]
    pub format: Print,
}

/// Arguments of `demo`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  qdrop demo\n  qdrop demo --draw 100 --output-dir pictures")]
pub struct Demo {
    /// Where pictures and networks go; made if missing
    #[arg(long, value_name = "DIR", default_value = "qdrop-demo")]
    pub output_dir: PathBuf,
    /// Iterations per unit; the default fits two cores and two minutes
    #[arg(long, value_name = "N")]
    pub iters: Option<usize>,
    /// Seed of every random choice
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub seed: u64,
    /// Threads; 0 takes all cores
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub threads: usize,
    /// Only draw this many labelled pictures, of the stream that --seed names, and stop
    #[arg(long, value_name = "N")]
    pub draw: Option<usize>,
    /// How to print the result
    #[arg(long, value_enum, default_value_t)]
    pub format: Print,
}

/// Arguments of `completions`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  qdrop completions bash
  qdrop completions zsh

Save what it prints where your shell looks for completions: for bash in \
~/.local/share/bash-completion/completions/qdrop, for zsh as _qdrop in a directory of $fpath, for fish in \
~/.config/fish/completions/qdrop.fish; in PowerShell and Elvish run it from the profile.")]
pub struct Completions {
    /// The shell
    #[arg(value_enum)]
    pub shell: clap_complete::Shell,
}

/// Arguments of `man`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  qdrop man
  qdrop man man1

Written into a directory man1 below a directory of your MANPATH (~/.local/share/man/man1), pages are found by \
`man qdrop` and `man qdrop-quantize`.")]
pub struct Man {
    /// Where one page per command goes; made if missing [default: the page of qdrop itself, to stdout]
    pub dir: Option<PathBuf>,
}

/// Options of commands that only run a network.
#[derive(Debug, Args)]
pub struct Run {
    /// Use at most this many samples, spread evenly over the set
    #[arg(long, value_name = "N", help_heading = None)]
    pub samples: Option<usize>,
    /// Threads; 0 takes all cores
    #[arg(long, value_name = "N", default_value_t = 0, help_heading = None)]
    pub threads: usize,
    /// Recipe whose [input] part says how images are prepared
    #[arg(long, value_name = "FILE", help_heading = None)]
    pub recipe: Option<PathBuf>,
}

/// How the network is quantized; each overrides the recipe.
#[derive(Debug, Default, Args)]
#[command(next_help_heading = "Quantization")]
pub struct Wish {
    /// Recipe with options; the ones typed here override it
    #[arg(long, value_name = "FILE")]
    pub recipe: Option<PathBuf>,
    /// Bits of weights: 2 to 8, or 32 for float [default: 4]
    #[arg(short, long = "weight-bits", value_name = "BITS")]
    pub weights: Option<u32>,
    /// Bits of activations: 2 to 8, or 32 for float [default: 4]
    #[arg(short, long = "activation-bits", value_name = "BITS")]
    pub activations: Option<u32>,
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
    /// Use at most this many calibration samples, spread evenly over the set [default: all]
    #[arg(long, value_name = "N")]
    pub samples: Option<usize>,
    /// Bits of the first and the last weight layer and of the tensor that reaches the last [default: 8]
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
    /// Samples on which channels before depthwise layers are brought to a common width; 0: never [default: 32]
    #[arg(long, value_name = "N")]
    pub equalize_samples: Option<usize>,
    /// Samples on which first activation steps are checked against the network's outputs; 0: never [default: 32]
    #[arg(long, value_name = "N")]
    pub refine_samples: Option<usize>,
    /// Where activation quantizers sit: on what layers produce, or on what they read [default: producer]
    #[arg(long, value_parser = names::<Placement>(&["producer", "consumer"]))]
    pub placement: Option<Placement>,
    /// Size of the pieces solved at once [default: block; layer for adaround]
    #[arg(long, value_parser = names::<Granularity>(&["block", "layer"]))]
    pub granularity: Option<Granularity>,
    /// Blocks that are solved as one unit, at most; 2 joins attention and feed-forward [default: 1]
    #[arg(long, value_name = "N")]
    pub blocks: Option<usize>,
    /// Runtime the file is for: ONNX Runtime (ort), openvino (symmetric weights), tensorrt (8 bits, symmetric), or
    /// qonnx for FINN and hls4ml (symmetric, unsigned where no value can be negative) [default: ort]
    #[arg(long, value_parser = names::<Target>(&["ort", "openvino", "tensorrt", "qonnx"]))]
    pub target: Option<Target>,
    /// Form of the file for ort: 8-bit operators that run everywhere, or native 4- and 2-bit types [default: qcdq]
    #[arg(long, value_parser = names::<Format>(&["qcdq", "qdq"]))]
    pub file_format: Option<Format>,
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

/// Parses one of `names`, the names that `T` has in recipes.
fn names<T>(names: &'static [&'static str]) -> impl TypedValueParser<Value = T>
where
    T: serde::de::DeserializeOwned + Clone + Send + Sync + 'static,
{
    PossibleValuesParser::new(names).try_map(|s| serde_json::from_value::<T>(serde_json::Value::String(s)))
}

fn shape(text: &str) -> Result<Vec<usize>, String> {
    let parsed: Result<Vec<usize>, _> = text.split(',').map(|d| d.trim().parse::<usize>()).collect();
    match parsed {
        Ok(shape) if shape.iter().all(|&d| d > 0) => Ok(shape),
        _ => Err("expected sizes above 0 separated by commas, such as 1,3,224,224".into()),
    }
}

fn percent(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(p) if (0.0..=100.0).contains(&p) => Ok(p),
        _ => Err("expected a percentage from 0 to 100".into()),
    }
}

fn threshold(text: &str) -> Result<(String, f64), String> {
    let (metric, least) = text.split_once('=').ok_or("expected a metric and a percentage, such as accuracy=85")?;
    // Correlations may be negative.
    match least.parse::<f64>() {
        Ok(least) if (-100.0..=100.0).contains(&least) => Ok((metric.to_string(), least)),
        _ => Err("expected a percentage from -100 to 100".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_definition_is_consistent() {
        Cli::command().debug_assert();
    }

    /// Titles stick to all that follows.
    #[test]
    fn options_stand_below_their_titles() {
        for command in Cli::command().get_subcommands() {
            let title = |name: &str| command.get_arguments().find(|a| a.get_id() == name).map(|a| a.get_help_heading());
            for (name, want) in [
                ("format", None),
                ("threads", Some("Quantization").filter(|_| title("weights").is_some())),
                ("min", None),
                ("samples", Some("Quantization").filter(|_| title("weights").is_some())),
                ("resize", Some("Images")),
                ("task", Some("Text")),
                ("weights", Some("Quantization")),
            ] {
                assert!(title(name).is_none_or(|got| got == want), "{} {name}: {:?}", command.get_name(), title(name));
            }
        }
    }

    #[test]
    fn the_documented_forms_parse() {
        for line in [
            "quantize resnet20.onnx --calib calib/ --input imagenet-norm -w 2 -a 4 --method qdrop --iters 2000 --seed 0 -o out.onnx",
            "quantize mobilenetv2.onnx --calib calib.csv --input imagenet -w 4 -a 4 --lambda 0.1 -o out.onnx --eval eval.csv",
            "eval out.onnx --data test/ --input imagenet-norm --format json",
            "plan resnet20.onnx -w 4 -a 4 --format json",
            "quantize m.onnx --calib c --symmetric --first-output-8bit --mean -0.5,0,0.5 --color bgr --file-format qdq",
            "quantize m.onnx --calib train.tsv --task SST-2 --tokenizer t.json --max-length 64 --eval dev.tsv",
            "eval m.onnx --data dev.json --task squad --doc-stride 64 --min f1=80 --min exact_match=70",
            "quantize m.onnx --calib c --symmetric=weights --first-output-8bit=false --observer min-max -q",
        ] {
            let words = std::iter::once("qdrop").chain(line.split(' '));
            Cli::try_parse_from(words).unwrap_or_else(|e| panic!("{line}: {e}"));
        }
    }
}
