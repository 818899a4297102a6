//! The command line: commands, options, their help and examples.

mod commands;
mod options;
mod values;

pub use commands::*;
pub use options::*;

use clap::{Parser, Subcommand, ValueEnum};

const ABOUT: &str =
    "Quantize the weights and activations of a trained ONNX network to 2 to 8 bits, using unlabelled samples";

const EXAMPLES: &str = "\
Examples:
  qdrop demo                                        run everything on a built-in network
  qdrop plan model.onnx -w 4 -a 4                   show what quantize would do
  qdrop quantize model.onnx --calib images/ --input imagenet -w 4 -a 4 -o model.w4a4.onnx
  qdrop eval model.w4a4.onnx --data test/ --input imagenet  measure accuracy of the written file
  qdrop compare model.onnx model.w4a4.onnx --data images/ --input imagenet
  qdrop bench model.w4a4.onnx --runtime ort         measure its speed in ONNX Runtime

Results go to stdout, progress to stderr.
Exit status: 0 success, 1 below a given threshold, 2 error, 130 interrupted.";

/// Whole command line.
#[derive(Debug, Parser)]
#[command(name = "qdrop", version, about = ABOUT, after_help = EXAMPLES, max_term_width = 100)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,
    /// Do not print progress to stderr
    #[arg(short, long, global = true)]
    pub quiet: bool,
    /// Say how long each stage took
    #[arg(short, long, global = true, conflicts_with = "quiet")]
    pub verbose: bool,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Show a network's inputs, outputs, operators and size
    Inspect(Inspect),
    /// Show what quantize would do: units, layers, activation sites, bits, memory, and what stays float and why
    Plan(Box<Plan>),
    /// Quantize a network
    Quantize(Box<Quantize>),
    /// Measure how the bits of each layer and activation, one at a time, affect the network's outputs
    Sensitivity(Box<Sensitivity>),
    /// Quantize with every combination of bits, methods, seeds or other options, and compare the runs
    Sweep(Sweep),
    /// Measure a network's accuracy on labelled samples
    Eval(Eval),
    /// Compare two networks, or a network with a runtime, value by value
    Compare(Compare),
    /// Measure, without data, how fast this machine learns a network's units or runs a file in a runtime
    Bench(Box<Bench>),
    /// Make the HTML page of a report again from its JSON
    Report(Report),
    /// Print a recipe with every option, its meaning and its default
    #[command(after_help = "\
Examples:
  qdrop recipe

Save the output to a file, edit it, and pass it to a command with --recipe. A recipe may leave out any option; options \
on the command line override it.")]
    Recipe,
    /// Quantize a small built-in network with four methods and compare their accuracies
    Demo(Demo),
    /// Print the completion script for a shell
    Completions(Completions),
    /// Print the manual page, or write one page per command into a directory
    Man(Man),
}

/// Format in which results are printed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum Print {
    /// Human-readable tables
    #[default]
    Text,
    /// One JSON document
    Json,
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
                ("runtime", Some("Runtime")),
                ("resize", Some("Images")),
                ("task", Some("Text")),
                ("images", Some("Detection")),
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
            "eval m.onnx --data val.json --task coco --images val --detector yolov8 --min ap=33",
            "eval --detections d.json --data val.json --task coco",
            "eval m.onnx --data dev.json --task squad --doc-stride 64 --min f1=80 --min exact_match=70",
            "sensitivity m.onnx --calib c --input none --candidates 2,4 --sort error -o s.csv --sensitivity-samples 8",
            "sensitivity m.onnx --calib c --stripe 1/2 --threads 2 -o a.json",
            "sensitivity --merge a.json b.json --sort error -o s.html",
            "quantize m.onnx --calib c --target-size 1.5MiB --target-bitops w4a4 --sensitivity s.json --save-recipe r.toml",
            "quantize m.onnx --calib c --target-size w3 --keep-first-last",
            "quantize m.onnx --calib c --symmetric=weights --first-output-8bit=false --observer min-max -q",
            "quantize m.onnx --calib c --eval t --runtime ort --runtime-library /opt/libonnxruntime.so -w 8",
            "compare m.onnx --data c --runtime ort --samples 8",
            "bench m.onnx --runtime ort --threads 1",
        ] {
            let words = std::iter::once("qdrop").chain(line.split(' '));
            Cli::try_parse_from(words).unwrap_or_else(|e| panic!("{line}: {e}"));
        }
    }
}
