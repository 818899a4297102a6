//! The recipe as TOML text: reading, with errors that suggest the nearest key, and the documented default.

use super::Recipe;
use crate::error::{Error, Result};
use std::fmt::Write;

/// One option: section, key, example value for an option that is not set by default, meaning.
type Key = (&'static str, &'static str, &'static str, &'static str);

/// Every option, in the order of the documented default.
const KEYS: &[Key] = &[
    ("weights", "bits", "", "bits of weights: 2 to 8, or 32 for float"),
    ("weights", "symmetric", "", "whether the zero point is fixed in the middle of the grid"),
    ("weights", "per_channel", "", "one step (scale) per output channel (true) or one per tensor (false)"),
    ("weights", "observer", "", "rule that finds the range of the first grid: mse, min-max or percentile"),
    (
        "weights",
        "percentile",
        "",
        "quantile at which the percentile observer's range ends, in per cent; it begins at 100 minus this",
    ),
    ("weights", "first_last_bits", "", "bits of the weights of the first and the last layer"),
    ("weights", "embedding_bits", "", "bits of embedding tables, which are rounded to nearest"),
    ("activations", "bits", "", "bits of activations: 2 to 8, 16, or 32 for float"),
    ("activations", "symmetric", "", "whether the zero point is fixed in the middle of the grid"),
    ("activations", "observer", "", "rule that finds the range of the first grid: mse, min-max or percentile"),
    (
        "activations",
        "percentile",
        "",
        "quantile at which the percentile observer's range ends, in per cent; it begins at 100 minus this",
    ),
    (
        "activations",
        "placement",
        "\"integer\"",
        "where activations are quantized: producer (at the outputs of layers, and residual sums once, after the\n\
         addition, as in the paper), integer (as producer, with additional 8-bit quantizers where the integer\n\
         kernels of ONNX Runtime need them; 8-bit weights are then symmetric) or consumer (at each activation\n\
         operand of Conv, Gemm, MatMul and Add);\n\
         default integer for target ort, producer for the others and with preset paper",
    ),
    (
        "activations",
        "last_bits",
        "8",
        "bits of the tensor that enters the last weight layer (with placement consumer also of the network input);\n\
         default 8, or 16 if bits is 16",
    ),
    ("activations", "first_output_8bit", "", "whether the first layer's output has 8 bits too (the BRECQ setting)"),
    ("activations", "samples", "", "calibration samples to which the first grids are fitted"),
    (
        "activations",
        "factor_samples",
        "32",
        "samples on which channel factors are chosen, which bring the channels of an activation to a common width,\n\
         while the weights that read them take up the factors; 0: one step for all channels (as in the paper);\n\
         default 32, 0 with preset paper",
    ),
    (
        "activations",
        "refine_samples",
        "32",
        "samples on which the first activation steps are checked against the network's outputs: another step is\n\
         taken if it lowers the error there by a tenth; 0 keeps the observer's steps (as in the paper); default\n\
         32, 0 with preset paper",
    ),
    (
        "activations",
        "noise_limit",
        "0.002",
        "noise that an activation may cause in the network's outputs alone, as a share of their energy: one that\n\
         causes more stays float; where all activations have 8 bits or more, for target ort; 0 quantizes all of\n\
         them (as in the paper); default 0.002, 0 with preset paper",
    ),
    (
        "mixed",
        "size",
        "\"w3\"",
        "maximum size of all weights at their true bits: 128KiB, or w3 for their size with weights.bits = 3;\n\
         the bits of layers are then chosen by their effect on the network's outputs; default: no limit",
    ),
    (
        "mixed",
        "bitops",
        "\"w4a4\"",
        "maximum number of bit operations (multiply-adds of a sample times the bits of both factors): 1.2G, or\n\
         w4a4 for their number with uniform bits; bits of activations are then chosen too; default: no limit",
    ),
    ("mixed", "candidates", "", "bits to choose from, 2 to 8 each"),
    (
        "mixed",
        "first_last",
        "",
        "whether the bits of the first and last layers and of embedding tables are chosen too; else they keep the\n\
         bits given above",
    ),
    ("mixed", "samples", "", "calibration samples on which the effect of each layer's bits on the outputs is measured"),
    ("method", "name", "", "rtn (nearest rounding), adaround, brecq or qdrop"),
    (
        "method",
        "preset",
        "",
        "defaults for the options that are left out: paper (the published method and schedule), balanced (enough\n\
         for most networks) or fast (a quick first result)",
    ),
    (
        "method",
        "iterations",
        "2000",
        "iterations per unit; default 20000 for preset paper, 2000 for balanced, 300 for fast",
    ),
    ("method", "batch", "", "samples per iteration, drawn with replacement"),
    (
        "method",
        "rounding_lr",
        "1e-3",
        "learning rate of the rounding variables (Adam);\n\
         default 1e-3 for 20000 iterations (as in the paper), proportionally larger for fewer, at most 5e-2;\n\
         preset paper: 1e-3",
    ),
    (
        "method",
        "scale_lr",
        "4e-5",
        "initial learning rate of the activation steps (Adam, cosine to 0);\n\
         default 4e-5 for 20000 iterations (as in the paper), proportionally larger for fewer, at most 4e-4;\n\
         preset paper: 4e-5",
    ),
    (
        "method",
        "lambda",
        "",
        "weight of the rounding regulariser: 0.01 for ResNet and RegNet, 0.1 for MobileNetV2, 0.2 for MNASNet",
    ),
    ("method", "warmup", "", "share of the iterations before the regulariser starts, 0 to 1"),
    ("method", "beta_start", "", "exponent of the regulariser when it starts"),
    ("method", "beta_end", "", "exponent of the regulariser at the end"),
    (
        "method",
        "input_keep",
        "0.5",
        "probability that an element of a unit's input comes from the quantized network, not the float one, 0 to\n\
         1;\n\
         default 0.5 for qdrop, 1 for adaround and brecq",
    ),
    (
        "method",
        "activation_keep",
        "0.5",
        "probability that an element of an activation inside the unit is quantized, not dropped to float, 0 to 1;\n\
         default 0.5 for qdrop, 0 for adaround and brecq",
    ),
    (
        "method",
        "learn_biases",
        "true",
        "whether biases are learned together with the roundings of their layers (not in the paper);\n\
         default true for qdrop, false for the others and with preset paper",
    ),
    (
        "method",
        "weigh_outputs",
        "true",
        "whether elements of a unit's output count in its loss by how much the network's outputs depend on them\n\
         (not in the paper); default true for qdrop, false for the others and with preset paper",
    ),
    (
        "method",
        "correct_samples",
        "32",
        "calibration samples on which biases are corrected so that layers' results keep their means, and below 8\n\
         bits the steps of convolutions, where this brings the outputs closer and nothing is learned; 0: both stay\n\
         as they are; default 32 for rtn, 0 with preset paper",
    ),
    (
        "method",
        "tune_iterations",
        "1000",
        "iterations in which, after the last unit, biases and steps of the whole network are learned\n\
         against its outputs (0 in the paper); default half of iterations, at most 1000, for qdrop; 0 for the\n\
         others and with preset paper",
    ),
    (
        "method",
        "learn_weight_scales",
        "true",
        "whether the steps of weights are learned in these iterations too, and the factors of activations' channels\n\
         in these and with each unit (not in the paper); default true for qdrop, false for the others and with\n\
         preset paper",
    ),
    (
        "method",
        "stop_settled",
        "true",
        "whether a unit ends early once all its roundings are settled; default true, false with preset paper",
    ),
    (
        "method",
        "learn_scales",
        "true",
        "whether activation steps are learned; default true for qdrop and brecq, false for the\nothers",
    ),
    ("method", "seed", "", "seed for all random choices"),
    ("method", "threads", "", "number of threads, 0 for all cores; affects the speed, not the result"),
    (
        "method",
        "memory",
        "\"4GiB\"",
        "memory that a run may use; the rest is kept in files in the work directory; does not affect the result;\n\
         default: as much as needed",
    ),
    (
        "method",
        "cache",
        "",
        "type in which values of samples at the borders of units are kept: f32, or f16 in half the memory, rounded\n\
         to 11 bits",
    ),
    (
        "units",
        "granularity",
        "\"block\"",
        "size of a unit: block or layer; default layer for adaround, block for the others",
    ),
    ("units", "max_layers", "", "maximum number of weight layers in a unit"),
    (
        "units",
        "blocks",
        "",
        "maximum number of blocks in a unit; 2 joins the attention and the feed-forward part of an encoder layer",
    ),
    ("units", "cut_after", "", "patterns of node names (`*` matches anything) after which a unit must end"),
    (
        "scope",
        "part",
        "",
        "part of the network that is quantized: network (all of it) or backbone-neck (a detector without its heads,\n\
         which stay float with what only they read, as in the paper)",
    ),
    (
        "scope",
        "heads",
        "",
        "patterns of names of layers (`*` matches anything) with which heads begin; layers behind them are part of\n\
         them; default: heads are found by the structure of the network",
    ),
    (
        "input",
        "preset",
        "\"imagenet\"",
        "imagenet, imagenet-norm (without resizing and cropping), for detectors yolox, yolov5 (also v8 and later),\n\
         torchvision-detection, nanodet, nanodet-plus or detr; or none; the options below override it one by one",
    ),
    ("input", "resize", "256", "length of the shorter side after resizing, in pixels; 0 for no resize"),
    (
        "input",
        "max_size",
        "1333",
        "with resize: maximum length of the longer side, in pixels; the image is made smaller where it would be\n\
         longer; 0 for no limit",
    ),
    ("input", "crop", "224", "side of the square cut from the centre, in pixels; 0 for no crop"),
    (
        "input",
        "letterbox",
        "640",
        "canvas into which the image is fitted as large as possible, its aspect ratio kept, and the rest padded:\n\
         640, \"480x640\" (height first), or \"network\" for the size of the network's input; 0 for none",
    ),
    (
        "input",
        "stretch",
        "320",
        "size to which the image is resized, whatever its aspect ratio: 320, \"240x320\" (height first), or\n\
         \"network\"; 0 for none",
    ),
    (
        "input",
        "pad_multiple",
        "32",
        "images are padded to one canvas: that of the network's input if it is fixed, else the smallest that holds\n\
         all of them and whose sides are multiples of this; 0 for no padding",
    ),
    ("input", "pad_value", "[114.0]", "values of padding as those of pixels, one or one per channel; default 0"),
    ("input", "pad_place", "\"top-left\"", "where the image lies on its canvas: top-left or center"),
    (
        "input",
        "antialias",
        "true",
        "whether an image that becomes smaller is averaged over the pixels that are left out (true, as Pillow\n\
         does) or interpolated between the nearest ones (false, as OpenCV does); default the preset's, else true",
    ),
    ("input", "divisor", "255.0", "divisor of the pixel values (0 to 255)"),
    ("input", "mean", "[0.485, 0.456, 0.406]", "mean per channel, after the division"),
    ("input", "std", "[0.229, 0.224, 0.225]", "standard deviation per channel, after the division"),
    ("input", "layout", "\"nchw\"", "order of the axes: nchw or nhwc"),
    ("input", "color", "\"rgb\"", "order of the colour channels: rgb, bgr or gray"),
    (
        "input",
        "mask",
        "\"attention_mask\"",
        "network input that marks real tokens with 1 and padding with 0; it counts in no first grid and no loss;\n\
         default: attention_mask if the network has it",
    ),
    ("input", "samples", "1024", "maximum number of calibration samples, spread over the set; default all"),
    ("input", "skip_bad", "", "whether to skip images that cannot be read, and count them, instead of stopping"),
    (
        "input",
        "task",
        "\"sst2\"",
        "task on text, detection, or segmentation, which decides how files are read and what is measured: sst2, mrpc,\n\
         cola, rte, qnli, qqp, mnli, stsb, squad, coco or segmentation; default none: samples are images or arrays",
    ),
    (
        "input",
        "images",
        "\"images\"",
        "folder with the images of annotation files (coco), or with such folders named as the files; default next to\n\
         the file",
    ),
    (
        "input",
        "detector",
        "\"yolox\"",
        "family of the network as a detector (coco): yolox, yolox-decoded, yolov5, yolov8, nanodet, picodet,\n\
         retinanet, fcos, detr, rt-detr or end-to-end; default what the shapes of its outputs tell",
    ),
    (
        "input",
        "labels",
        "\"labels\"",
        "folder with the label maps of images, PNG files with the images' names (segmentation); default none: the\n\
         column `labels` of a list",
    ),
    (
        "input",
        "ignore_labels",
        "[0]",
        "numbers in label maps that are no class, beside 255; such pixels are not counted (segmentation)",
    ),
    (
        "input",
        "tokenizer",
        "\"tokenizer.json\"",
        "file of the tokenizer; default tokenizer.json next to the model, else next to the samples",
    ),
    (
        "input",
        "max_length",
        "128",
        "tokens per sample: longer texts are cut and shorter ones padded;\n\
         default what the network declares, else as the longest text needs, at most 128; 384 for squad",
    ),
    ("input", "doc_stride", "128", "tokens shared by neighbouring windows over a long text (squad); default 128"),
    (
        "output",
        "target",
        "",
        "runtime that the file is for: ort, openvino (weights symmetric), tensorrt (8 bits, symmetric), qonnx\n\
         (FINN, hls4ml: symmetric, unsigned where no value can be negative) or qnn (Qualcomm: a float network and\n\
         a file of encodings; weights of 4 or 8 bits, activations of 8 or 16)",
    ),
    (
        "output",
        "format",
        "",
        "for target ort: qcdq (packed weights; runs in the integer kernels of every version from 1.17 on) or qdq\n\
         (4-bit types where runtimes accept them, opset 21)",
    ),
    (
        "output",
        "encodings_version",
        "",
        "for target qnn: layout of the encodings file, as AIMET numbers it: 0.6.1, 1.0.0 or 2.0.0",
    ),
    ("override", "layer", "\"*conv1*\"", "pattern of layer names (node or weight; `*` matches anything)"),
    (
        "override",
        "activation",
        "\"*relu*\"",
        "pattern of names of quantized values, in addition to layer or instead of it",
    ),
    ("override", "weight_bits", "8", "bits of the layer's weight"),
    (
        "override",
        "activation_bits",
        "8",
        "bits of the activations that are named, and of what the layer produces (placement producer) or reads\n\
         (consumer)",
    ),
    ("override", "weight_symmetric", "true", "whether the grid of the weight is symmetric"),
    ("override", "activation_symmetric", "true", "whether the grid of the activation is symmetric"),
];

/// What each section is about.
const SECTIONS: &[(&str, &str)] = &[
    ("weights", "Weights."),
    ("activations", "Activations."),
    ("mixed", "Bits chosen layer by layer for a target; without a target, the bits given above apply."),
    ("method", "The method and its schedule."),
    ("units", "How the network is divided into units, the parts that are learned at once."),
    ("scope", "The part of the network that is quantized."),
    ("input", "How images or text become network input."),
    ("output", "The written file."),
    ("override", "Exceptions by name, any number of them; later entries win."),
];

impl Recipe {
    /// Reads a recipe from TOML text.
    ///
    /// Unknown keys, values of the wrong type and values out of range are errors, which name the line or the key and,
    /// for an unknown key, the nearest known one.
    pub fn from_toml(text: &str) -> Result<Recipe> {
        let recipe: Recipe = toml::from_str(text).map_err(|e| explain(text, &e))?;
        recipe.validate()?;
        Ok(recipe)
    }

    /// Every option as its section and its key, in the order of [`Recipe::default_toml`].
    pub fn options() -> impl Iterator<Item = (&'static str, &'static str)> {
        KEYS.iter().map(|&(section, key, ..)| (section, key))
    }

    /// The recipe as TOML text; options that are not set are left out.
    pub fn to_toml(&self) -> Result<String> {
        toml::to_string(self).map_err(|e| Error::internal(format!("recipe: {e}")))
    }

    /// The default recipe as TOML text with the meaning of every option.
    pub fn default_toml() -> Result<String> {
        let default =
            toml::Table::try_from(Recipe::default()).map_err(|e| Error::internal(format!("default recipe: {e}")))?;
        let mut text = String::from(
            "# All options with their defaults; options in lines that start with `#` are not set by default.\n",
        );
        for (section, about) in SECTIONS {
            // Writing to a string cannot fail.
            let _ = match *section {
                "override" => write!(text, "\n# {about}\n# [[{section}]]\n"),
                _ => write!(text, "\n# {about}\n[{section}]\n"),
            };
            for (_, key, example, about) in KEYS.iter().filter(|k| k.0 == *section) {
                for line in about.lines() {
                    let _ = writeln!(text, "# {line}");
                }
                let _ = match default.get(*section).and_then(|s| s.get(key)) {
                    Some(value) => writeln!(text, "{key} = {value}"),
                    None => writeln!(text, "# {key} = {example}"),
                };
            }
        }
        Ok(text)
    }
}

fn explain(text: &str, error: &toml::de::Error) -> Error {
    let message = error.message();
    let Some(span) = error.span() else { return Error::recipe(message.to_lowercase()) };
    let before = text.get(..span.start).unwrap_or_default();
    let line = before.matches('\n').count() + 1;
    let unknown = message.strip_prefix("unknown field `").and_then(|rest| rest.split('`').next());
    let Some(unknown) = unknown else {
        let first = message.lines().next().unwrap_or_default();
        let mut chars = first.chars();
        let lower: String = chars.next().map(|c| c.to_ascii_lowercase()).into_iter().chain(chars).collect();
        return Error::recipe(lower).at(format!("line {line}"));
    };
    let section = before.lines().rev().find_map(|l| {
        let l = l.trim();
        l.starts_with('[').then(|| l.trim_matches(['[', ']', ' ']).to_string())
    });
    let section = section.filter(|s| SECTIONS.iter().any(|(name, _)| name == s));
    let place = format!("line {line}");
    let is_section = section.is_none() || before.lines().last().is_some_and(|l| l.trim_start().starts_with('['));
    let sections = SECTIONS.iter().map(|(s, _)| (s.to_string(), *s, "")).filter(|_| is_section);
    let keys = KEYS.iter().map(|&(s, k, ..)| (format!("{s}.{k}"), k, s));
    // The nearest name; among equally near ones the same section's.
    let near =
        sections.chain(keys).min_by_key(|(_, k, s)| (strsim::osa_distance(unknown, k), section.as_deref() != Some(*s)));
    let shown = section.map_or_else(|| unknown.to_string(), |s| format!("{s}.{unknown}"));
    let error = Error::recipe(format!("unknown key `{shown}`")).at(place);
    match near {
        Some((full, ..)) => error.hint(format!("did you mean `{full}`?")),
        None => error,
    }
}

#[cfg(test)]
mod tests {
    use super::super::*;
    use super::*;

    #[test]
    fn the_documented_default_reads_back_as_the_default() {
        let text = Recipe::default_toml().unwrap();
        assert_eq!(Recipe::from_toml(&text).unwrap(), Recipe::default(), "{text}");
    }

    #[test]
    fn the_documented_default_with_every_line_active_is_a_recipe_and_names_every_option() {
        let text = Recipe::default_toml().unwrap();
        let active: String = text
            .lines()
            .map(|l| l.strip_prefix("# ").filter(|r| r.starts_with("[[") || is_assignment(r)).unwrap_or(l))
            .map(|l| format!("{l}\n"))
            .collect();
        let recipe = Recipe::from_toml(&active).unwrap();
        let table = toml::Table::try_from(&recipe).unwrap();
        let mut fields = Vec::new();
        for (section, value) in &table {
            let value = value.as_array().map_or(value, |a| &a[0]);
            fields.extend(value.as_table().unwrap().keys().map(|k| (section.clone(), k.clone())));
        }
        let mut keys: Vec<_> = KEYS.iter().map(|k| (k.0.to_string(), k.1.to_string())).collect();
        keys.sort();
        fields.sort();
        assert_eq!(fields, keys);
        // An option that `Recipe` has and the table does not would be missing from both lists but for this count.
        let full = Recipe { input: recipe.input.clone(), overrides: recipe.overrides.clone(), ..recipe };
        assert!(full.input.layout.is_some() && full.method.learn_scales.is_some() && full.units.granularity.is_some());
    }

    #[test]
    fn lines_of_the_documented_default_fit() {
        const COLUMNS: usize = 110;
        let text = Recipe::default_toml().unwrap();
        let long: Vec<&str> = text.lines().filter(|line| line.chars().count() > COLUMNS).collect();
        assert!(long.is_empty(), "{long:#?}");
    }

    fn is_assignment(line: &str) -> bool {
        line.split_once(" = ").is_some_and(|(k, _)| KEYS.iter().any(|key| key.1 == k))
    }

    #[test]
    fn refusals_name_key_line_and_nearest() {
        for (text, want) in [
            (
                "[weights]\nbits = 4\nobservr = \"mse\"\n",
                "line 3: unknown key `weights.observr`; did you mean `weights.observer`?",
            ),
            ("[activations]\nbit = 4\n", "line 2: unknown key `activations.bit`; did you mean `activations.bits`?"),
            ("[wieghts]\nbits = 4\n", "line 1: unknown key `wieghts`; did you mean `weights`?"),
            ("[weights]\nbits = 9\n", "weights.bits: expected 2 to 8, or 32 for float, got 9"),
            ("[weights]\nbits = 1\n", "weights.bits: expected 2 to 8, or 32 for float, got 1"),
            ("[method]\ninput_keep = 1.5\n", "method.input_keep: expected 0 to 1, got 1.5"),
            ("[method]\nbatch = 0\n", "method.batch: expected at least 1, got 0"),
            ("[method]\nlambda = nan\n", "method.lambda: expected 0 to 1000000, got NaN"),
            (
                "[[override]]\nlayer = \"a\"\nweight_bits = 33\n",
                "override[0].weight_bits: expected 2 to 8, or 32 for float, got 33",
            ),
        ] {
            assert_eq!(Recipe::from_toml(text).unwrap_err().to_string(), want);
        }
        let wrong = Recipe::from_toml("[weights]\nbits = \"four\"\n").unwrap_err().to_string();
        assert!(wrong.starts_with("line 2: invalid type"), "{wrong}");
        let broken = Recipe::from_toml("[weights\n").unwrap_err().to_string();
        assert!(broken.starts_with("line 1: "), "{broken}");
    }
}
