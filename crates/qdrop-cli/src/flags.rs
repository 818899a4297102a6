//! From a recipe file and the flags typed over it to one [`Recipe`].

use crate::args::{Input, RecipeFlags, Symmetric};
use qdrop::plan::Recipe;
use qdrop::{Error, Result};
use std::path::Path;

/// Most bytes a recipe may have; a longer file is not a recipe.
const LONGEST: u64 = 1 << 20;

/// The recipe in `path`, or the default one.
pub fn read(path: Option<&Path>) -> Result<Recipe> {
    let Some(path) = path else { return Ok(Recipe::default()) };
    let size = std::fs::metadata(path).map_err(|e| Error::io(path, e))?.len();
    if size > LONGEST {
        let message = format!("expected a recipe of at most {LONGEST} bytes, got a file of {size}");
        return Err(Error::recipe(message).at(path.display()));
    }
    let bytes = std::fs::read(path).map_err(|e| Error::io(path, e))?;
    let text = String::from_utf8(bytes).map_err(|_| {
        Error::recipe("expected TOML, got bytes that are not UTF-8")
            .at(path.display())
            .hint("print a recipe to start from with `qdrop recipe`")
    })?;
    Recipe::from_toml(&text).map_err(|e| e.at(path.display()))
}

/// Writes `value` over `slot` when the flag was typed.
fn set<T: Clone>(slot: &mut T, value: &Option<T>) {
    if let Some(value) = value {
        *slot = value.clone();
    }
}

/// Writes `value` over the optional `slot` when the flag was typed.
fn set_some<T: Clone>(slot: &mut Option<T>, value: &Option<T>) {
    if value.is_some() {
        slot.clone_from(value);
    }
}

/// Writes the quantization flags over `recipe`.
pub fn apply(recipe: &mut Recipe, flags: &RecipeFlags) {
    set(&mut recipe.weights.bits, &flags.weights);
    set(&mut recipe.weights.per_channel, &flags.per_channel);
    set(&mut recipe.weights.observer, &flags.observer);
    set(&mut recipe.weights.first_last_bits, &flags.first_last_bits);
    set(&mut recipe.weights.embedding_bits, &flags.embedding_bits);
    set(&mut recipe.activations.bits, &flags.activations);
    set(&mut recipe.activations.observer, &flags.observer);
    set_some(&mut recipe.activations.factor_samples, &flags.factor_samples);
    set_some(&mut recipe.activations.refine_samples, &flags.refine_samples);
    set_some(&mut recipe.activations.noise_limit, &flags.noise_limit);
    set_some(&mut recipe.method.correct_samples, &flags.correct_samples);
    set_some(&mut recipe.activations.placement, &flags.placement);
    set_some(&mut recipe.activations.last_bits, &flags.first_last_bits);
    set(&mut recipe.activations.first_output_8bit, &flags.first_output_8bit);
    if let Some(symmetric) = flags.symmetric {
        recipe.weights.symmetric = matches!(symmetric, Symmetric::Weights | Symmetric::Both);
        recipe.activations.symmetric = matches!(symmetric, Symmetric::Activations | Symmetric::Both);
    }
    set_some(&mut recipe.mixed.size, &flags.target_size);
    set_some(&mut recipe.mixed.bitops, &flags.target_bitops);
    set(&mut recipe.mixed.candidates, &flags.candidates);
    recipe.mixed.first_last &= !flags.keep_first_last;
    set(&mut recipe.mixed.samples, &flags.sensitivity_samples);
    set(&mut recipe.method.name, &flags.method);
    set(&mut recipe.method.preset, &flags.preset);
    set_some(&mut recipe.method.iterations, &flags.iters);
    set(&mut recipe.method.batch, &flags.batch);
    set(&mut recipe.method.lambda, &flags.lambda);
    set(&mut recipe.method.seed, &flags.seed);
    set(&mut recipe.method.threads, &flags.threads);
    set_some(&mut recipe.method.memory, &flags.memory);
    set(&mut recipe.method.cache, &flags.cache);
    set_some(&mut recipe.method.input_keep, &flags.keep_probability);
    set_some(&mut recipe.method.activation_keep, &flags.keep_probability);
    set(&mut recipe.scope.part, &flags.scope);
    set(&mut recipe.scope.heads, &flags.heads);
    set_some(&mut recipe.units.granularity, &flags.granularity);
    set(&mut recipe.units.blocks, &flags.blocks);
    set_some(&mut recipe.input.samples, &flags.samples);
    set(&mut recipe.output.target, &flags.target);
    set(&mut recipe.output.format, &flags.file_format);
    set(&mut recipe.output.encodings_version, &flags.encodings_version);
}

/// Writes the flags of images and text over `recipe`.
pub fn apply_input(recipe: &mut Recipe, input: &Input) {
    let slot = &mut recipe.input;
    set_some(&mut slot.preset, &input.input);
    set_some(&mut slot.resize, &input.resize);
    set_some(&mut slot.max_size, &input.max_size);
    set_some(&mut slot.crop, &input.crop);
    set_some(&mut slot.letterbox, &input.letterbox);
    set_some(&mut slot.stretch, &input.stretch);
    set_some(&mut slot.pad_multiple, &input.pad_multiple);
    set_some(&mut slot.pad_value, &input.pad_value);
    set_some(&mut slot.pad_place, &input.pad_place);
    set_some(&mut slot.antialias, &input.antialias);
    set_some(&mut slot.divisor, &input.divisor);
    set_some(&mut slot.mean, &input.mean);
    set_some(&mut slot.std, &input.std);
    set_some(&mut slot.layout, &input.layout);
    set_some(&mut slot.color, &input.color);
    slot.skip_bad |= input.skip_bad;
    let text = &input.text;
    set_some(&mut slot.task, &text.task);
    set_some(&mut slot.tokenizer, &text.tokenizer);
    set_some(&mut slot.max_length, &text.max_length);
    set_some(&mut slot.doc_stride, &text.doc_stride);
    set_some(&mut slot.images, &input.detection.images);
    set_some(&mut slot.detector, &input.detection.detector);
    set_some(&mut slot.labels, &input.segmentation.labels);
    if !input.segmentation.ignore_label.is_empty() {
        slot.ignore_labels.clone_from(&input.segmentation.ignore_label);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use qdrop::plan::{MethodName, Observer};

    #[test]
    fn flags_override_and_silence_keeps() {
        let mut recipe = Recipe::default();
        recipe.weights.bits = 3;
        recipe.method.iterations = Some(7);
        recipe.input.preset = Some("imagenet".into());
        let flags = RecipeFlags {
            iters: Some(9),
            method: Some(MethodName::Rtn),
            observer: Some(Observer::MinMax),
            factor_samples: Some(3),
            refine_samples: Some(0),
            correct_samples: Some(5),
            symmetric: Some(Symmetric::Weights),
            keep_probability: Some(0.25),
            ..RecipeFlags::default()
        };
        apply(&mut recipe, &flags);
        apply_input(&mut recipe, &Input { crop: Some(32), ..Input::default() });
        assert_eq!((recipe.weights.bits, recipe.method.iterations), (3, Some(9)));
        assert_eq!((recipe.weights.symmetric, recipe.activations.symmetric), (true, false));
        assert_eq!((recipe.activations.observer, recipe.activations.refine_samples), (Observer::MinMax, Some(0)));
        assert_eq!((recipe.activations.factor_samples, recipe.method.correct_samples), (Some(3), Some(5)));
        assert_eq!((recipe.method.input_keep, recipe.method.activation_keep), (Some(0.25), Some(0.25)));
        assert_eq!((recipe.input.preset.as_deref(), recipe.input.crop), (Some("imagenet"), Some(32)));
    }
}
