//! What each command takes, with the examples of its help.

use super::Print;
use super::options::{Bits, Fix, InRuntime, Input, RecipeFlags, Run, Shape, Sort};
use super::values::{percent, threshold};
use clap::Args;
use std::path::PathBuf;

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

/// Arguments of `plan`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  qdrop plan resnet20.onnx -w 4 -a 4
  qdrop plan resnet20.onnx -w 4 -a 4 --format json
  qdrop plan model.onnx --shape 1,3,224,224 --granularity layer
  qdrop plan resnet20.onnx --sensitivity sensitivity.json --target-size w3 --save-recipe w3.toml

The predicted memory is for --samples calibration samples (1024 unless told).")]
pub struct Plan {
    /// The ONNX file
    pub model: PathBuf,
    #[command(flatten)]
    pub shape: Shape,
    #[command(flatten)]
    pub bits: Bits,
    #[command(flatten)]
    pub flags: RecipeFlags,
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
  qdrop quantize mobilenetv2.onnx --calib calib.csv --input imagenet --target-size w4 -a 8 \\
      --save-recipe bits.toml
  qdrop quantize resnet20.onnx --calib calib/ --input imagenet-norm -w 8 -a 8 --eval test/ \\
      --runtime ort

With a target of size or bit operations bits are chosen layer by layer, by what they do to the network's outputs; \
`qdrop sensitivity` shows that.

With --runtime accuracy is measured in that runtime, and the latency of the float network and of the written file beside it.

Samples: a folder of images (flat, or one sub-folder per class), a CSV with lines file,label, or arrays in a \
.npy, .npz or .safetensors file, used as they are; with --task the task's .tsv, .csv or .jsonl file, SQuAD's .json. \
Every option can also stand in a recipe (`qdrop recipe`); what is typed here overrides it.")]
pub struct Quantize {
    /// The float ONNX file
    pub model: PathBuf,
    /// Calibration samples, a few hundred without labels: image folder, CSV, .npy, .npz or .safetensors
    #[arg(long, value_name = "PATH")]
    pub calib: PathBuf,
    /// File to write [default: MODEL's name with the bits (`mixed` where they are chosen), and the target unless it is
    /// ort, in the current directory: model.w4a4.onnx]
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// Labelled samples on which float, nearest rounding and the written file are measured
    #[arg(long, value_name = "PATH")]
    pub eval: Option<PathBuf>,
    /// Where finished units are kept, so that a stopped run goes on after the last of them, by the same command
    /// [default: OUTPUT.work, removed when all is done; a directory named here stays]
    #[arg(long, value_name = "DIR")]
    pub work_dir: Option<PathBuf>,
    /// Where the report goes: FILE.json and FILE.html, a page with losses, ranges and what hurts most [default: beside
    /// OUTPUT: model.w4a4.report]
    #[arg(long, value_name = "FILE", conflicts_with = "no_report")]
    pub report: Option<PathBuf>,
    /// Write no report
    #[arg(long)]
    pub no_report: bool,
    #[command(flatten)]
    pub fix: Fix,
    #[command(flatten)]
    pub runtime: InRuntime,
    #[command(flatten)]
    pub bits: Bits,
    #[command(flatten)]
    pub flags: RecipeFlags,
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

  model = \"resnet20.onnx\"              # paths are relative to the file
  calib = \"calib\"
  eval = \"test\"
  average = [\"seed\"]                   # tables take the mean over it [default: axes over method.seed]
  [recipe]                             # what all runs share, as `qdrop recipe` prints it
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

/// Arguments of `report`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  qdrop report model.w4a4.report.json
  qdrop report model.w4a4.report.json -o page.html

The page is made from that file alone, and shows without any other file or network access. The result of a sweep's run \
(runs/NAME.json) holds a report too.")]
pub struct Report {
    /// The report that quantize wrote (model.w4a4.report.json), or the result of a sweep's run
    pub report: PathBuf,
    /// Page to write [default: REPORT with .html in place of .json]
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,
}

/// Arguments of `sensitivity`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  qdrop sensitivity resnet20.onnx --calib calib/ --input imagenet-norm
  qdrop sensitivity resnet20.onnx --calib calib/ --input imagenet-norm --sort error \\
      --candidates 2,3,4
  qdrop sensitivity mobilenetv2.onnx --calib calib.csv --input imagenet -o sensitivity.json

With `--sensitivity sensitivity.json`, plan and quantize choose bits by that file instead of measuring again.

One weight or activation at a time is rounded to nearest on its first grid; the rest stays float. The number is the \
signal-to-noise ratio of the network's outputs in dB: 20 dB is an error of a hundredth of their energy, and higher is \
better. With a method that learns, the shift of the mean that a rounded weight causes is taken out, as learned biases do, \
which predicts best what learning leaves; `--method rtn` leaves it in.")]
pub struct Sensitivity {
    /// The float ONNX file
    pub model: PathBuf,
    /// Calibration samples, a few hundred without labels: image folder, CSV, .npy, .npz or .safetensors
    #[arg(long, value_name = "PATH")]
    pub calib: PathBuf,
    /// File to write as well: .json, which plan and quantize read, .csv, or .html, a page with charts
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// Order of the rows: as in the network, or the largest error of the fewest bits first
    #[arg(long, value_enum, default_value_t)]
    pub sort: Sort,
    #[command(flatten)]
    pub fix: Fix,
    #[command(flatten)]
    pub flags: RecipeFlags,
    #[command(flatten)]
    pub input: Input,
    /// How to print the result
    #[arg(long, value_enum, default_value_t, help_heading = None)]
    pub format: Print,
}

/// Arguments of `eval`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  qdrop eval resnet20.w2a4.onnx --data test/ --input imagenet-norm --format json
  qdrop eval mobilenetv2.w4a4.onnx --data eval.csv --input imagenet --min top1=70
  qdrop eval bert.onnx --task mrpc --data MRPC/dev.tsv --min accuracy=85 --min f1=90
  qdrop eval resnet20.w2a4.onnx --data test/ --input imagenet-norm --runtime ort

With --min the exit status is 1 where a metric is below. Metrics, all in per cent: top1 and top5; of tasks accuracy \
(sst2, rte, qnli, mnli), accuracy and f1 (mrpc, qqp), matthews (cola), pearson and spearman (stsb), exact_match and f1 (squad).")]
pub struct Eval {
    /// The ONNX file, float or quantized
    pub model: PathBuf,
    /// Encodings that belong to the file (target qnn): what they name is quantized
    #[arg(long, value_name = "FILE", help_heading = None)]
    pub encodings: Option<PathBuf>,
    /// Labelled samples: one sub-folder per class, CSV with lines file,label, .npz or .safetensors with labels; with
    /// --task the task's file
    #[arg(long, value_name = "PATH")]
    pub data: PathBuf,
    #[command(flatten)]
    pub runtime: InRuntime,
    #[command(flatten)]
    pub input: Input,
    #[command(flatten)]
    pub run: Run,
    /// Exit with status 1 when a metric is below this percentage; may be given for several metrics
    #[arg(long, value_name = "METRIC=PERCENT", value_parser = threshold, help_heading = None)]
    pub min: Vec<(String, f64)>,
    /// The same as `--min top1=PERCENT`
    #[arg(long, value_name = "PERCENT", value_parser = percent, hide = true, help_heading = None)]
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
  qdrop compare model.w4a4.onnx --data calib/ --input imagenet --samples 64 --runtime ort

Values of the same name are compared, so both files should come from one export. An .npz file holds values that another \
runtime computed for the same samples, or for the first of them: arrays named after them, samples along the first axis.

With --runtime the other network, or the one file that is given, runs in the runtime; the reference runs in qdrop's own \
engine.")]
pub struct Compare {
    /// The reference, usually the float network
    pub a: PathBuf,
    /// The other network, or an .npz file with values of another runtime; with --runtime the reference itself unless given
    #[arg(required_unless_present = "runtime")]
    pub b: Option<PathBuf>,
    /// Encodings that belong to the other network (target qnn): what they name is quantized
    #[arg(long, value_name = "FILE", help_heading = None)]
    pub encodings: Option<PathBuf>,
    /// Samples; labels are not needed
    #[arg(long, value_name = "PATH")]
    pub data: PathBuf,
    #[command(flatten)]
    pub runtime: InRuntime,
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
  qdrop bench model.w4a4.onnx --runtime ort

With --runtime it is the file that is measured, as it runs there: processor and wall-clock time of a run on noise, on one \
thread and on all, or on --threads. Else an iteration of every unit is measured on noise. GFLOP/s count a convolution's direct sums, however it is computed, \
over the whole iteration; the ceiling is one large matrix product on every thread.")]
pub struct Bench {
    /// The float ONNX file, or any with --runtime
    pub model: PathBuf,
    #[command(flatten)]
    pub shape: Shape,
    #[command(flatten)]
    pub runtime: InRuntime,
    #[command(flatten)]
    pub flags: RecipeFlags,
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
