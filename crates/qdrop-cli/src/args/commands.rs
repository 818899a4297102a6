//! The arguments of each command, with the examples in its help.

use super::Print;
use super::options::{Bits, Fix, InRuntime, Input, RecipeFlags, Run, Shape, Sort};
use super::values::{percent, positive, score, stripe, threshold};
use clap::Args;
use qdrop::plan::Stripe;
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

Memory is predicted for the samples of --calib, with what arrays and texts take themselves; without it for as many \
images as --samples gives (default: 1024). The texts of a task need --calib, or --shape with their length. A tokenizer \
and the samples of --eval are not counted.")]
pub struct Plan {
    /// The ONNX file
    pub model: PathBuf,
    /// Calibration samples that memory is predicted for: their number, their shapes, and what arrays and texts take
    #[arg(long, value_name = "PATH", conflicts_with = "shapes")]
    pub calib: Option<PathBuf>,
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

With a target for size or bit operations, bits are chosen layer by layer according to their effect on the network's \
outputs, which `qdrop sensitivity` shows.

With --runtime, accuracy is measured in that runtime, as is the latency of the float network and of the written file.

Samples are a folder of images (flat, or one sub-folder per class), a CSV file with lines file,label, or arrays in a \
.npy, .npz or .safetensors file, which are used as they are; with --task, the task's .tsv, .csv or .jsonl file, or \
SQuAD's .json file. Options can also be set in a recipe (`qdrop recipe`); the command line overrides it.")]
pub struct Quantize {
    /// The float ONNX file
    pub model: PathBuf,
    /// Calibration samples, a few hundred, without labels: an image folder, or a CSV, .npy, .npz or .safetensors file
    #[arg(long, value_name = "PATH")]
    pub calib: PathBuf,
    /// File to write [default: MODEL's name with the bits (`mixed` if they are chosen) and with --target unless it is
    /// ort, in the current directory: model.w4a4.onnx]
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// Labelled samples on which to measure the float network, nearest rounding and the written file
    #[arg(long, value_name = "PATH")]
    pub eval: Option<PathBuf>,
    /// Directory for finished units (blocks that are learned at once): a run that was stopped continues after the last
    /// of them when the same command is given again [default: OUTPUT.work, removed at the end; a directory given here
    /// is kept]
    #[arg(long, value_name = "DIR")]
    pub work_dir: Option<PathBuf>,
    /// Solve only every Nth unit, those numbered I, I + N, I + 2N, ..., with I from 0 to N - 1, keep them in the work
    /// directory, and stop: several machines divide the units, and the same command without this option then takes
    /// them from there. Only where units depend on the float network alone: method adaround or brecq with input_keep = 0
    /// in the recipe
    #[arg(long, value_name = "I/N", requires = "work_dir", value_parser = stripe)]
    pub units: Option<Stripe>,
    /// Where to write the report: FILE.json and FILE.html, a page with learning curves, ranges and the largest losses
    /// [default: next to OUTPUT: model.w4a4.report]
    #[arg(long, value_name = "FILE", conflicts_with = "no_report")]
    pub report: Option<PathBuf>,
    /// Do not write a report
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
  qdrop sweep sweep.toml --index 3     a single run, for a job array on a cluster
  qdrop sweep sweep.toml --stripe 0/4  the first of four shares of the runs

The file of a sweep gives the options that all runs share, and axes with cases; every combination of cases, one per \
axis, is a run.

  model = \"resnet20.onnx\"              # paths are relative to this file
  calib = \"calib\"
  eval = \"test\"
  average = [\"seed\"]                   # tables show the mean over it [default: axes of method.seed]
  [recipe]                             # options that all runs share, as `qdrop recipe` prints them
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

A case may set any option of a recipe, and model, calib and eval. Finished runs are not repeated; a run that was \
stopped continues after its last finished unit (a block that is learned at once).")]
pub struct Sweep {
    /// The TOML file of the sweep
    pub sweep: PathBuf,
    /// Directory for the results: runs/NAME.json, sweep.csv, sweep.html [default: the name of the sweep's file with
    /// .sweep, in the current directory]
    #[arg(short, long, value_name = "DIR")]
    pub output_dir: Option<PathBuf>,
    /// Do only the run with this number, counted from 0
    #[arg(long, value_name = "N")]
    pub index: Option<usize>,
    /// Do only every Nth run: those numbered I, I + N, I + 2N, ..., with I from 0 to N - 1
    #[arg(long, value_name = "I/N", conflicts_with = "index", value_parser = stripe)]
    pub stripe: Option<Stripe>,
    /// List the runs and which of them are done, without running any
    #[arg(long, conflicts_with_all = ["index", "stripe"])]
    pub list: bool,
    /// Keep the quantized networks as runs/NAME.onnx
    #[arg(long)]
    pub keep_models: bool,
    /// Number of threads; 0 uses all cores; does not affect the result [default: the recipe's]
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

The page is made from that file alone and needs no other file and no network access. The result of a sweep's run \
(runs/NAME.json) contains a report too.")]
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
  qdrop sensitivity resnet20.onnx --calib calib/ --input imagenet-norm --stripe 0/2 -o share0.json
  qdrop sensitivity resnet20.onnx --calib calib/ --input imagenet-norm --stripe 1/2 -o share1.json
  qdrop sensitivity --merge share0.json share1.json -o sensitivity.json

With `--sensitivity sensitivity.json`, plan and quantize choose bits from that file instead of measuring again.

One weight or activation at a time is rounded to nearest on its first grid, the one that calibration finds; everything \
else stays float. The table shows the signal-to-noise ratio of the network's outputs in dB: at 20 dB the error is a \
hundredth of their energy, and higher is better. The shift of the mean that rounding a weight \
causes is removed, as learned and corrected biases remove it; this predicts best which error is left in the end. \
`--method rtn --correct-samples 0` keeps the shift.")]
pub struct Sensitivity {
    /// The float ONNX file
    #[arg(required_unless_present = "merge")]
    pub model: Option<PathBuf>,
    /// Calibration samples, a few hundred, without labels: an image folder, or a CSV, .npy, .npz or .safetensors file
    #[arg(long, value_name = "PATH", required_unless_present = "merge")]
    pub calib: Option<PathBuf>,
    /// Measure only every Nth layer and every Nth activation: those numbered I, I + N, I + 2N, ..., both counted from 0,
    /// with I from 0 to N - 1. Several machines can divide the work, and --merge joins their files
    #[arg(long, value_name = "I/N", value_parser = stripe)]
    pub stripe: Option<Stripe>,
    /// Measure nothing, but join the files of all shares that --stripe measured
    #[arg(long, value_name = "FILE", num_args = 1..,
        conflicts_with_all = ["model", "calib", "stripe", "Fix", "RecipeFlags"])]
    pub merge: Vec<PathBuf>,
    /// Also write the result to this file: .json (read by plan and quantize), .csv, or .html (a page with charts)
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// Order of the rows: as in the network, or by the error at the fewest bits, largest first
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
  qdrop eval yolox.onnx --task coco --data val.json --images val/ --input yolox --min ap=33
  qdrop eval --detections detections.json --task coco --data val.json
  qdrop eval fcn.onnx --task segmentation --data photos/ --labels maps/ --min miou=60

With --min, the exit status is 1 if a metric is below its threshold. Metrics, all in per cent: top1 and top5; for \
tasks, accuracy (sst2, rte, qnli, mnli), accuracy and f1 (mrpc, qqp), matthews (cola), pearson and spearman (stsb), \
exact_match and f1 (squad), the figures of COCO (coco): ap, ap50, ap75, ap_s, ap_m, ap_l, ar1, ar10, ar100, ar_s, ar_m \
and ar_l; miou, pixel_accuracy and mean_accuracy (segmentation).")]
pub struct Eval {
    /// The ONNX file, float or quantized
    #[arg(required_unless_present = "detections")]
    pub model: Option<PathBuf>,
    /// Measure the detections in this file instead of a network's (task coco): a JSON list of objects with image_id,
    /// category_id, bbox (left, top, width, height in pixels of the image) and score
    #[arg(long, value_name = "FILE", help_heading = None, requires = "task",
        conflicts_with_all = ["model", "encodings", "runtime", "samples"])]
    pub detections: Option<PathBuf>,
    /// File of encodings that belongs to MODEL (target qnn); the tensors that it names are quantized
    #[arg(long, value_name = "FILE", help_heading = None)]
    pub encodings: Option<PathBuf>,
    /// Labelled samples: a folder with one sub-folder per class, a CSV file with lines file,label, or an .npz or
    /// .safetensors file with labels; with --task, the task's file: for coco the annotation file, for segmentation a
    /// folder of images (with --labels) or a CSV file with lines file,labels
    #[arg(long, value_name = "PATH")]
    pub data: PathBuf,
    #[command(flatten)]
    pub runtime: InRuntime,
    #[command(flatten)]
    pub input: Input,
    #[command(flatten)]
    pub run: Run,
    /// Exit with status 1 if the metric is below this percentage; repeatable
    #[arg(long, value_name = "METRIC=PERCENT", value_parser = threshold, help_heading = None)]
    pub min: Vec<(String, f64)>,
    /// The same as `--min top1=PERCENT`
    #[arg(long, value_name = "PERCENT", value_parser = percent, hide = true, help_heading = None)]
    pub min_top1: Option<f64>,
    /// Write what the network detected to this file (task coco): a JSON list as --detections and pycocotools take it
    #[arg(long, value_name = "FILE", help_heading = None, conflicts_with = "detections")]
    pub save_detections: Option<PathBuf>,
    /// Draw what was detected into images, with the annotated objects (task coco): an SVG file for each, and index.html
    /// with all of them, in this folder
    #[arg(long, value_name = "DIR", help_heading = None)]
    pub draw: Option<PathBuf>,
    /// Number of images to draw, spread over the set
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = positive, help_heading = None, requires = "draw")]
    pub draw_images: usize,
    /// Draw only detections with a score above this
    #[arg(long, value_name = "SCORE", default_value_t = 0.3, value_parser = score, help_heading = None, requires = "draw")]
    pub draw_above: f64,
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

Values with the same name are compared, so both files should come from the same export. An .npz file holds values that \
another runtime computed for the same samples, or for the first of them: one array per value, with the value's name, \
and samples along the first axis.

With --runtime, the other network runs in the runtime, or the only file if one is given; the reference runs in qdrop's \
own engine.")]
pub struct Compare {
    /// The reference, usually the float network
    pub a: PathBuf,
    /// The other network, or an .npz file with values from another runtime [default with --runtime: the reference]
    #[arg(required_unless_present = "runtime")]
    pub b: Option<PathBuf>,
    /// File of encodings that belongs to the other network (target qnn); the tensors that it names are quantized
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

With --runtime, the file itself is measured in that runtime: processor and wall-clock time of a run on random input, \
on one thread and on all threads, or on --threads. Otherwise one iteration of every unit (a block that is learned at \
once) is measured on random input. GFLOP/s count the operations of a direct convolution, however it is computed, over \
the whole iteration; the ceiling is the speed of one large matrix product on every thread.")]
pub struct Bench {
    /// The float ONNX file; with --runtime, any ONNX file
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
    /// Directory for pictures and networks; created if missing
    #[arg(short, long, value_name = "DIR", default_value = "qdrop-demo")]
    pub output_dir: PathBuf,
    /// Iterations per unit (a block that is learned at once); with the default, two cores take under two minutes
    #[arg(long, value_name = "N")]
    pub iters: Option<usize>,
    /// Seed for all random choices
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub seed: u64,
    /// Number of threads; 0 uses all cores
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub threads: usize,
    /// Only draw this many labelled pictures, from the random stream that --seed selects, and stop
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

Save the output where your shell looks for completions: for bash as ~/.local/share/bash-completion/completions/qdrop, \
for zsh as _qdrop in a directory of $fpath, for fish as ~/.config/fish/completions/qdrop.fish; in PowerShell and \
Elvish, run it from the profile.")]
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

If you write the pages to a directory man1 inside a directory of your MANPATH, such as ~/.local/share/man/man1, \
`man qdrop` and `man qdrop-quantize` find them.")]
pub struct Man {
    /// Directory for one page per command; created if missing [default: print the page of qdrop itself]
    pub dir: Option<PathBuf>,
}
