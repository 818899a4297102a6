//! Checks on the values of a recipe.

use super::layers::{Layers, matching, names_any};
use super::view::View;
use super::{BitopsTarget, Mixed, Override, Part, Recipe, accepts};
use crate::error::{Error, Result};
use crate::graph::NodeId;

/// Minimum and maximum number of tokens of a sample.
const LEAST_TOKENS: usize = 8;
const MOST_TOKENS: usize = 1 << 16;

impl Recipe {
    /// Checks that every value is within its range; the error names the key.
    pub fn validate(&self) -> Result<()> {
        let (w, a, m, i) = (&self.weights, &self.activations, &self.method, &self.input);
        bits("weights.bits", w.bits)?;
        bits("weights.first_last_bits", w.first_last_bits)?;
        bits("weights.embedding_bits", w.embedding_bits)?;
        activation_bits("activations.bits", a.bits)?;
        activation_bits("activations.last_bits", a.last())?;
        self.mixed.validate(w.bits, a.bits)?;
        for (key, value, low, high) in [
            ("weights.percentile", w.percentile, 50.0, 100.0),
            ("activations.percentile", a.percentile, 50.0, 100.0),
            ("activations.noise_limit", a.noise_limit.unwrap_or(0.0), 0.0, 1.0),
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
            ("mixed.samples", self.mixed.samples, 1),
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
        if self.scope.part == Part::Network && !self.scope.heads.is_empty() {
            let hint = "give scope.part = \"backbone-neck\" (--scope backbone-neck), or leave scope.heads out";
            return Err(Error::recipe("scope.heads: heads are left out of no part but backbone-neck").hint(hint));
        }
        self.overrides.iter().enumerate().try_for_each(|(n, o)| exception(n, o))?;
        accepts::check(self)
    }
}

impl Mixed {
    /// Checks it together with the bits of weights and activations.
    fn validate(&self, weights: u32, activations: u32) -> Result<()> {
        if self.candidates.is_empty() {
            return Err(Error::recipe("mixed.candidates: expected bits to choose from, got none"));
        }
        if let Some(bits) = self.candidates.iter().find(|b| !(2..=8).contains(*b)) {
            return Err(Error::recipe(format!("mixed.candidates: expected 2 to 8, got {bits}")));
        }
        if self.wanted() && weights == 32 {
            return Err(Error::recipe(
                "weights.bits: expected 2 to 8 with a target for size or bit operations, got 32",
            ));
        }
        match self.bitops {
            Some(BitopsTarget::Bits(..)) if activations == 32 => {
                let message = "activations.bits: expected 2 to 8 with a target of uniform bits, got 32";
                Err(Error::recipe(message).hint("give bit operations as a count"))
            }
            _ => Ok(()),
        }
    }
}

fn exception(n: usize, o: &Override) -> Result<()> {
    let key = |name: &str| format!("override[{n}].{name}");
    if o.layer.is_empty() && o.activation.is_none() {
        return Err(Error::recipe(format!("{}: expected a name pattern, got nothing", key("layer"))));
    }
    if o.layer.is_empty() && (o.weight_bits.is_some() || o.weight_symmetric.is_some()) {
        let error =
            Error::recipe(format!("{}: expected a pattern for the layer of the weight, got nothing", key("layer")));
        return Err(error.hint("an activation has no weight"));
    }
    o.weight_bits.map_or(Ok(()), |b| bits(&key("weight_bits"), b))?;
    o.activation_bits.map_or(Ok(()), |b| activation_bits(&key("activation_bits"), b))
}

fn bits(key: &str, value: u32) -> Result<()> {
    if (2..=8).contains(&value) || value == 32 {
        return Ok(());
    }
    Err(Error::recipe(format!("{key}: expected 2 to 8, or 32 for float, got {value}")))
}

fn activation_bits(key: &str, value: u32) -> Result<()> {
    if (2..=8).contains(&value) || value == 16 || value == 32 {
        return Ok(());
    }
    Err(Error::recipe(format!("{key}: expected 2 to 8, 16, or 32 for float, got {value}")))
}

/// Refuses exceptions that apply to no layer.
pub(super) fn overrides(view: &View, layers: &Layers, recipe: &Recipe) -> Result<()> {
    let float = layers.float.iter().map(|&(id, _)| id);
    let nodes: Vec<_> = layers.of.keys().copied().chain(float).collect();
    let used: Vec<&Override> = matching(view, recipe, &nodes).collect();
    for (n, o) in recipe.overrides.iter().enumerate().filter(|(_, o)| !o.layer.is_empty()) {
        if !used.iter().any(|u| std::ptr::eq(*u, o)) {
            let names = nodes.iter().map(|&id| view.graph.node_name(id));
            return Err(unmatched(n, "layer", &o.layer, names));
        }
        let left_out = |&id: &NodeId| view.is_left_out(id);
        let named: Vec<NodeId> = nodes.iter().copied().filter(|&id| names_any(view, o, &[id])).collect();
        if o.weight_bits.is_some_and(|bits| bits != 32) && named.iter().all(left_out) {
            let message = format!("override[{n}].layer: `{}` names only layers of heads, which stay float", o.layer);
            return Err(Error::recipe(message).hint("scope.part = \"network\" quantizes heads too"));
        }
    }
    Ok(())
}

/// Refuses exceptions that apply to none of the activations `names`.
pub(super) fn activations(names: &[&str], recipe: &Recipe) -> Result<()> {
    for (n, o) in recipe.overrides.iter().enumerate() {
        if let Some(pattern) = o.activation.as_deref().filter(|_| !names.iter().any(|name| o.names(name))) {
            return Err(unmatched(n, "activation", pattern, names.iter().copied()));
        }
    }
    Ok(())
}

/// That exception `n` matches no `what`, with the nearest of the `names` that there are.
fn unmatched<'a>(n: usize, what: &str, pattern: &str, names: impl Iterator<Item = &'a str>) -> Error {
    let close = names.max_by(|a, b| strsim::jaro(a, pattern).total_cmp(&strsim::jaro(b, pattern)));
    let error = Error::recipe(format!("override[{n}].{what}: no {what} matches `{pattern}`"));
    match close {
        Some(close) => error.hint(format!("`qdrop plan` lists the {what}s; one of them is `{close}`")),
        None => error.hint(format!("there are no {what}s to quantize")),
    }
}
