//! Refusal of recipes that ask for the impossible.

use super::layers::{Layers, matching};
use super::view::View;
use super::{Override, Recipe, target};
use crate::error::{Error, Result};

/// Fewest and most tokens of a sample.
const LEAST_TOKENS: usize = 8;
const MOST_TOKENS: usize = 1 << 16;

impl Recipe {
    /// Checks every value against its range; the error names the key.
    pub fn validate(&self) -> Result<()> {
        let (w, a, m, i) = (&self.weights, &self.activations, &self.method, &self.input);
        bits("weights.bits", w.bits)?;
        bits("weights.first_last_bits", w.first_last_bits)?;
        bits("weights.embedding_bits", w.embedding_bits)?;
        bits("activations.bits", a.bits)?;
        bits("activations.last_bits", a.last_bits)?;
        for (key, value, low, high) in [
            ("weights.percentile", w.percentile, 50.0, 100.0),
            ("activations.percentile", a.percentile, 50.0, 100.0),
            ("method.rounding_lr", m.rounding_lr.unwrap_or(0.0), 0.0, 10.0),
            ("method.scale_lr", m.scale_lr.unwrap_or(0.0), 0.0, 10.0),
            ("method.lambda", m.lambda, 0.0, 1e6),
            ("method.warmup", m.warmup, 0.0, 1.0),
            ("method.beta_start", m.beta_start, 1.0, 1000.0),
            ("method.beta_end", m.beta_end, 1.0, 1000.0),
            ("method.input_keep", m.input_keep.unwrap_or(0.0), 0.0, 1.0),
            ("method.activation_keep", m.activation_keep.unwrap_or(0.0), 0.0, 1.0),
        ] {
            if !(low..=high).contains(&value) {
                return Err(Error::recipe(format!("{key}: expected {low} to {high}, got {value}")));
            }
        }
        for (key, value, low) in [
            ("activations.samples", a.samples, 1),
            ("input.samples", i.samples.unwrap_or(1), 1),
            ("input.max_length", i.max_length.unwrap_or(LEAST_TOKENS), LEAST_TOKENS),
            ("method.iterations", m.iterations.unwrap_or(1), 1),
            ("method.batch", m.batch, 1),
            ("units.max_layers", self.units.max_layers, 1),
            ("units.blocks", self.units.blocks, 1),
        ] {
            if value < low {
                return Err(Error::recipe(format!("{key}: expected at least {low}, got {value}")));
            }
        }
        if let Some(length) = i.max_length.filter(|&n| n > MOST_TOKENS) {
            return Err(Error::recipe(format!("input.max_length: expected at most {MOST_TOKENS}, got {length}")));
        }
        if let Some(divisor) = i.divisor.filter(|d| !(d.is_finite() && *d > 0.0)) {
            return Err(Error::recipe(format!("input.divisor: expected a number above 0, got {divisor}")));
        }
        if let Some(mean) = i.mean.iter().flatten().find(|x| !x.is_finite()) {
            return Err(Error::recipe(format!("input.mean: expected finite numbers, got {mean}")));
        }
        if let Some(std) = i.std.iter().flatten().find(|x| !(x.is_finite() && **x > 0.0)) {
            return Err(Error::recipe(format!("input.std: expected numbers above 0, got {std}")));
        }
        self.overrides.iter().enumerate().try_for_each(|(n, o)| exception(n, o))?;
        target::check(self)
    }
}

fn exception(n: usize, o: &Override) -> Result<()> {
    let key = |name: &str| format!("override[{n}].{name}");
    if o.layer.is_empty() {
        return Err(Error::recipe(format!("{}: expected a name pattern, got nothing", key("layer"))));
    }
    o.weight_bits.map_or(Ok(()), |b| bits(&key("weight_bits"), b))?;
    o.activation_bits.map_or(Ok(()), |b| bits(&key("activation_bits"), b))
}

fn bits(key: &str, value: u32) -> Result<()> {
    if (2..=8).contains(&value) || value == 32 {
        return Ok(());
    }
    Err(Error::recipe(format!("{key}: expected 2 to 8, or 32 for float, got {value}")))
}

/// Refuses exceptions that apply to no layer.
pub(super) fn overrides(view: &View, layers: &Layers, recipe: &Recipe) -> Result<()> {
    let products = layers.float.iter().map(|&(id, _)| id);
    let nodes: Vec<_> = layers.nodes.iter().copied().chain(products).collect();
    let used: Vec<&Override> = matching(view, recipe, &nodes).collect();
    for (n, o) in recipe.overrides.iter().enumerate() {
        if !used.iter().any(|u| std::ptr::eq(*u, o)) {
            let names = layers.nodes.iter().map(|&id| view.graph.node_name(id));
            let close = names.max_by(|a, b| strsim::jaro(a, &o.layer).total_cmp(&strsim::jaro(b, &o.layer)));
            return Err(Error::recipe(format!("override[{n}].layer: no layer matches `{}`", o.layer))
                .hint(format!("`qdrop plan` lists the layers; one of them is `{}`", close.unwrap_or_default())));
        }
    }
    Ok(())
}
