//! The recipe as TOML text: reading with helpful refusals, and the documented default.

use super::Recipe;
use crate::error::{Error, Result};
use std::fmt::Write;

/// One option: section, key, example where the default is to leave it out, meaning.
type Key = (&'static str, &'static str, &'static str, &'static str);

/// Every option, in the order of the documented default.
const KEYS: &[Key] = &[
    ("weights", "bits", "", "2 to 8, or 32 for float"),
    ("weights", "symmetric", "", "zero point fixed in the middle of the grid"),
    ("weights", "per_channel", "", "one step per output channel, else one per tensor"),
    ("weights", "observer", "", "how the first range is found: mse, min-max or percentile"),
    ("weights", "percentile", "", "for the percentile observer: share of values inside the range, in percent"),
    ("weights", "first_last_bits", "", "bits of the first and of the last weight layer"),
    ("weights", "embedding_bits", "", "bits of tables that rows are looked up in (embeddings), rounded to nearest"),
    ("activations", "bits", "", "2 to 8, 16, or 32 for float"),
    ("activations", "symmetric", "", "zero point fixed in the middle of the grid"),
    ("activations", "observer", "", "how the first range is found: mse, min-max or percentile"),
    ("activations", "percentile", "", "for the percentile observer: share of values inside the range, in percent"),
    (
        "activations",
        "placement",
        "\"integer\"",
        "producer: on what a layer produces, residual sums once (the paper's);\ninteger: as producer, and in 8 bits wherever the integer kernels of ONNX Runtime need a quantizer beside those\n(weights of 8 bits are then symmetric);\nconsumer: on each activation operand of Conv, Gemm, MatMul and Add;\ndefault integer for target ort, producer for the others and with preset paper",
    ),
    (
        "activations",
        "last_bits",
        "8",
        "bits of the tensor that reaches the last weight layer (consumer: of the network input too);\ndefault 8, and 16 where bits is 16",
    ),
    ("activations", "first_output_8bit", "", "the first layer's output at 8 bit too (the BRECQ setting)"),
    ("activations", "samples", "", "calibration samples from which the first grids are fitted"),
    (
        "activations",
        "factor_samples",
        "32",
        "samples on which factors are chosen that bring the channels of an activation to a common width, while the weights\nthat read them take the factors up; 0: one step for all channels (the paper's); default 32, 0 with preset paper",
    ),
    (
        "activations",
        "refine_samples",
        "32",
        "samples on which first grids are held against the network's outputs: where another step lowers\nthe error there by a tenth, it is taken; 0 keeps the observer's (the paper's); default 32, 0 with preset paper",
    ),
    (
        "mixed",
        "size",
        "\"w3\"",
        "most that all weights may take at their true bits: 128KiB, or w3 for what they take with weights.bits = 3;\nbits of layers are then chosen by what they do to the network's outputs; default: no limit",
    ),
    (
        "mixed",
        "bitops",
        "\"w4a4\"",
        "most bit operations (multiply-adds of a sample times the bits of both factors): 1.2G, or w4a4 for those of uniform\nbits; bits of activations are then chosen too; default: no limit",
    ),
    ("mixed", "candidates", "", "bits to choose from, 2 to 8 each"),
    ("mixed", "first_last", "", "whether first and last layers and tables choose too, or keep the bits given above"),
    (
        "mixed",
        "samples",
        "",
        "calibration samples on which it is measured what the bits of each layer do to the outputs",
    ),
    ("method", "name", "", "rtn, adaround, brecq or qdrop"),
    (
        "method",
        "preset",
        "",
        "defaults for the options that are left out: paper (the published method and schedule),\nbalanced (what most networks need) or fast (a good first answer)",
    ),
    ("method", "iterations", "2000", "iterations per unit; default 20000 for paper, 2000 for balanced, 300 for fast"),
    ("method", "batch", "", "samples per iteration, drawn with replacement"),
    (
        "method",
        "rounding_lr",
        "1e-3",
        "learning rate of the rounding variables (Adam);\ndefault 1e-3 for 20000 iterations (the paper's), larger in proportion for fewer, at most 5e-2; preset paper: 1e-3",
    ),
    (
        "method",
        "scale_lr",
        "4e-5",
        "first learning rate of the activation steps (Adam, cosine to 0);\ndefault 4e-5 for 20000 iterations (the paper's), larger in proportion for fewer, at most 4e-4; preset paper: 4e-5",
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
        "probability that an element of a unit's input is taken from the quantized network, 0 to 1;\ndefault 0.5 for qdrop, 1 for adaround and brecq",
    ),
    (
        "method",
        "activation_keep",
        "0.5",
        "probability that an activation inside the unit keeps its quantized value, 0 to 1;\ndefault 0.5 for qdrop, 0 for adaround and brecq",
    ),
    (
        "method",
        "learn_biases",
        "true",
        "learn biases with the roundings of their layers (not in the paper);\ndefault true for qdrop, false for the others and with preset paper",
    ),
    (
        "method",
        "weigh_outputs",
        "true",
        "let elements of a unit's output count in its loss as much as the network's outputs depend on them (not in the\npaper); default true for qdrop, false for the others and with preset paper",
    ),
    (
        "method",
        "tune_iterations",
        "1000",
        "iterations in which biases and activation steps of the whole network are learned against its outputs after\nthe last unit (0 in the paper); default for qdrop half of iterations, at most 1000, 0 for the\nothers and with preset paper",
    ),
    (
        "method",
        "stop_settled",
        "true",
        "end a unit before its iterations do when all its roundings are settled; default true, false with preset paper",
    ),
    (
        "method",
        "learn_scales",
        "true",
        "learn activation steps; default true for qdrop and brecq, false for the others",
    ),
    ("method", "seed", "", "seed of every random choice"),
    ("method", "threads", "", "0 takes all cores; changes speed, never the result"),
    (
        "method",
        "memory",
        "\"4GiB\"",
        "memory that a run may take; what does not fit lies in files in the work directory; never changes the result;\ndefault: all that is needed",
    ),
    (
        "method",
        "cache",
        "",
        "how values of the samples at the borders of units are kept: f32, or f16 in half the memory, rounded to 11 bits",
    ),
    ("units", "granularity", "\"block\"", "block or layer; default layer for adaround, block for the others"),
    ("units", "max_layers", "", "most weight layers in a unit"),
    (
        "units",
        "blocks",
        "",
        "blocks that are solved as one unit, at most; 2 joins the attention and the feed-forward part of an encoder layer",
    ),
    ("units", "cut_after", "", "name patterns of nodes (`*` matches anything) after which a unit must end"),
    (
        "input",
        "preset",
        "\"imagenet\"",
        "imagenet, imagenet-norm (no resize and crop) or none; the options below change it one by one",
    ),
    ("input", "resize", "256", "length of the shorter side after resizing, in pixels; 0 for no resize"),
    ("input", "crop", "224", "side of the square cut from the centre, in pixels; 0 for no crop"),
    ("input", "divisor", "255.0", "divisor of the 0 to 255 pixel values"),
    ("input", "mean", "[0.485, 0.456, 0.406]", "mean per channel, after the division"),
    ("input", "std", "[0.229, 0.224, 0.225]", "standard deviation per channel, after the division"),
    ("input", "layout", "\"nchw\"", "order of axes: nchw or nhwc"),
    ("input", "color", "\"rgb\"", "order of colour channels: rgb, bgr or gray"),
    (
        "input",
        "mask",
        "\"attention_mask\"",
        "network input that marks real tokens by 1 and padding by 0; padding takes no part in first grids and losses;\ndefault: attention_mask if the network has it",
    ),
    ("input", "samples", "1024", "most calibration samples to use, spread over the set; default all"),
    ("input", "skip_bad", "", "leave out images that cannot be read, counting them, instead of stopping"),
    (
        "input",
        "task",
        "\"sst2\"",
        "task on text, how its files are read and what is measured: sst2, mrpc, cola, rte, qnli, qqp, mnli, stsb or squad;\ndefault none, samples are images or arrays",
    ),
    (
        "input",
        "tokenizer",
        "\"tokenizer.json\"",
        "file of the tokenizer; default tokenizer.json beside the model, else beside the samples",
    ),
    (
        "input",
        "max_length",
        "128",
        "tokens of a sample, longer texts are cut and shorter ones padded;\ndefault what the network declares, else what the longest text of the set needs, at most 128; 384 for squad",
    ),
    ("input", "doc_stride", "128", "tokens that neighbouring windows over a long text share (squad); default 128"),
    (
        "output",
        "target",
        "",
        "runtime the file is for: ort, openvino (weights symmetric), tensorrt (8 bits, symmetric),\nqonnx (FINN, hls4ml: symmetric, unsigned where no value can be negative) or\nqnn (Qualcomm: a float network and encodings; weights of 4 or 8 bits, activations of 8 or 16)",
    ),
    (
        "output",
        "format",
        "",
        "for target ort: qcdq (runs in integer kernels of every version from 1.17 on, weights packed) or\nqdq (types of 4 bits where runtimes take them, opset 21)",
    ),
    (
        "output",
        "encodings_version",
        "",
        "for target qnn: layout of the file of encodings by AIMET's numbers, 0.6.1, 1.0.0 or 2.0.0",
    ),
    ("override", "layer", "\"*conv1*\"", "pattern of layer names (node or weight; `*` matches anything)"),
    ("override", "activation", "\"*relu*\"", "pattern of names of quantized values, beside layer or instead of it"),
    ("override", "weight_bits", "8", "bits of its weight"),
    (
        "override",
        "activation_bits",
        "8",
        "bits of the activation: of those named, and of what the layer produces (placement producer) or reads (consumer)",
    ),
    ("override", "weight_symmetric", "true", "symmetric weight grid"),
    ("override", "activation_symmetric", "true", "symmetric activation grid"),
];

/// What each section is about.
const SECTIONS: &[(&str, &str)] = &[
    ("weights", "Weights."),
    ("activations", "Activations."),
    ("mixed", "Bits chosen layer by layer within a target; without one all bits are those above."),
    ("method", "The method and its schedule."),
    ("units", "How the network is cut into units."),
    ("input", "How images or text become network input."),
    ("output", "The written file."),
    ("override", "Exceptions by name, as many as wanted; later ones win."),
];

impl Recipe {
    /// Reads a recipe from TOML text. Unknown keys, values of the wrong type and values out of range are refused,
    /// with the line or the key and, for unknown keys, the nearest known one.
    pub fn from_toml(text: &str) -> Result<Recipe> {
        let recipe: Recipe = toml::from_str(text).map_err(|e| explain(text, &e))?;
        recipe.validate()?;
        Ok(recipe)
    }

    /// The recipe as TOML text; options that are left out are left out there too.
    pub fn to_toml(&self) -> Result<String> {
        toml::to_string(self).map_err(|e| Error::internal(format!("recipe: {e}")))
    }

    /// The default recipe as TOML text with the meaning of every option.
    pub fn default_toml() -> Result<String> {
        let default =
            toml::Table::try_from(Recipe::default()).map_err(|e| Error::internal(format!("default recipe: {e}")))?;
        let mut text =
            String::from("# Every option with its default; lines that start with `#` are left out by default.\n");
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
