//! Sensitivity: the effect that quantizing one layer or activation alone has on the network's outputs.

use super::Stripe;
use crate::error::{Error, Result};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

/// Errors of the network's outputs when only one weight or activation is quantized and everything else stays float.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sensitivity {
    /// Version of this layout: [`Sensitivity::SCHEMA`].
    pub schema: u32,
    /// The model that was measured, as the user named it.
    pub model: String,
    /// Number of samples.
    pub samples: usize,
    /// Whether the shift of the mean that rounding a weight causes was removed from its layer's results, as learned
    /// biases remove it.
    pub biases_corrected: bool,
    /// Which share of the measurement this is; `None` if it is the whole.
    #[serde(default)]
    pub share: Option<Share>,
    /// Weights of layers, in network order.
    pub layers: Vec<Curve>,
    /// Activations, in network order.
    pub activations: Vec<Curve>,
}

/// A share of a measurement, whose others are measured apart.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Share {
    /// The share: it holds layers and activations by their positions in the network, each kind counted from 0.
    pub stripe: Stripe,
    /// Number of layers in all shares.
    pub layers: usize,
    /// Number of activations in all shares.
    pub activations: usize,
    /// Hash of everything that determines the measurement.
    pub key: String,
}

/// The errors for one weight or activation, for several numbers of bits.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Curve {
    /// Name of the layer; for an activation, name of the value.
    pub name: String,
    /// The quantized value: a weight or an activation. It is unique among the curves of a kind.
    pub value: String,
    /// Number of its elements, for one sample.
    pub elements: u64,
    /// Errors in order of bits; empty if no output of real numbers depends on the value.
    pub errors: Vec<BitError>,
}

/// The error of the network's outputs with a number of bits.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BitError {
    /// Bits: 2 to 8.
    pub bits: u32,
    /// Squared error as a share of the energy of the float output, summed over the outputs: 0 or more.
    pub error: f64,
    /// For classifiers: share of the samples that keep their class, in per cent.
    pub agreement: Option<f64>,
}

impl Sensitivity {
    /// Version of the layout this library writes.
    pub const SCHEMA: u32 = 1;

    /// Reads what was written as JSON; an error if `text` is something else, or has another layout.
    pub fn from_json(text: &str) -> Result<Self> {
        let found: Self =
            serde_json::from_str(text).map_err(|e| Error::data(format!("expected sensitivities in JSON: {e}")))?;
        if found.schema != Self::SCHEMA {
            let message = format!("expected layout {} of sensitivities, got {}", Self::SCHEMA, found.schema);
            return Err(Error::data(message));
        }
        Ok(found)
    }

    /// All bits that were measured, ascending.
    pub fn bits(&self) -> Vec<u32> {
        let errors = self.layers.iter().chain(&self.activations).flat_map(|c| &c.errors);
        errors.map(|e| e.bits).collect::<BTreeSet<_>>().into_iter().collect()
    }

    /// The position in the network of the layer or activation that is at `row` here.
    pub fn position(&self, row: usize) -> usize {
        self.share.as_ref().map_or(row, |p| p.stripe.index() + row * p.stripe.count())
    }

    /// That it is the whole measurement; an error if it is a share.
    pub fn require_whole(&self) -> Result<()> {
        let Some(share) = &self.share else { return Ok(()) };
        Err(Error::data(format!("expected all layers and activations, got share {}", share.stripe))
            .hint("join all shares with `qdrop sensitivity --merge`"))
    }

    /// The whole measurement, of all its shares in any order, each with its name in errors: the same as if it had been
    /// measured at once. An error if they are shares of different measurements, or if one is missing, given twice or
    /// incomplete.
    pub fn merge(parts: Vec<(String, Sensitivity)>) -> Result<Self> {
        let part = |(name, mut found): (String, Sensitivity)| match found.share.take() {
            Some(part) => Ok((name, part, found)),
            None => Err(Error::data("expected a share of the layers and activations, got all of them").at(name)),
        };
        let mut parts = parts.into_iter().map(part).collect::<Result<Vec<_>>>()?;
        parts.sort_by_key(|(_, part, _)| part.stripe.index());
        for pair in parts.windows(2) {
            let [(a, first, _), (b, second, _)] = pair else { continue };
            fit((a, first), (b, second))?;
        }
        let whole = parts.first().ok_or_else(|| Error::data("expected shares of a measurement, got none"))?.1.clone();
        let count = whole.stripe.count();
        if let Some(missing) = (0..count).find(|&i| parts.get(i).is_none_or(|p| p.1.stripe.index() != i)) {
            let error = Error::data(format!("share {missing}/{count} is missing"));
            return Err(error.hint(format!("measure it with --stripe {missing}/{count}")));
        }
        let (mut layers, mut activations) = (Vec::new(), Vec::new());
        for (name, Share { stripe, .. }, found) in &mut parts {
            for (what, curves, all) in
                [("layers", &found.layers, whole.layers), ("activations", &found.activations, whole.activations)]
            {
                let (expected, got) = (stripe.holds(all), curves.len());
                if got != expected {
                    return Err(Error::data(format!("expected {expected} of {all} {what}, got {got}")).at(name));
                }
            }
            layers.push(std::mem::take(&mut found.layers));
            activations.push(std::mem::take(&mut found.activations));
        }
        let (layers, activations) = (woven(layers), woven(activations));
        for curves in [&layers, &activations] {
            let mut seen = BTreeSet::new();
            if let Some((i, curve)) = curves.iter().enumerate().find(|(_, c)| !seen.insert(&c.value)) {
                return Err(Error::data(format!("`{}` is measured twice", curve.value)).at(&parts[i % count].0));
            }
        }
        let (.., first) = parts.swap_remove(0);
        Ok(Sensitivity { layers, activations, ..first })
    }
}

/// That two shares, with their names, are different ones of the same measurement.
fn fit((a, first): (&str, &Share), (b, second): (&str, &Share)) -> Result<()> {
    if first.stripe == second.stripe {
        return Err(Error::data(format!("`{a}` and `{b}` are both share {}", first.stripe)));
    }
    if first.stripe.count() != second.stripe.count() {
        let (own, other) = (first.stripe, second.stripe);
        return Err(Error::data(format!("expected shares of one number, got {own} in `{a}` and {other} in `{b}`")));
    }
    if (&first.key, first.layers, first.activations) != (&second.key, second.layers, second.activations) {
        let error = Error::data(format!("`{a}` and `{b}` are shares of different measurements"));
        return Err(error.hint("measure all shares of the same network with the same samples and options"));
    }
    Ok(())
}

/// The lists as one: the first items of all, then the second, and so on.
fn woven<T>(lists: Vec<Vec<T>>) -> Vec<T> {
    let mut all = Vec::with_capacity(lists.iter().map(Vec::len).sum());
    let mut lists: Vec<_> = lists.into_iter().map(Vec::into_iter).collect();
    while lists.first().is_some_and(|first| first.len() > 0) {
        all.extend(lists.iter_mut().filter_map(Iterator::next));
    }
    all
}

impl Curve {
    /// The error with `bits` bits, if it was measured.
    pub fn error(&self, bits: u32) -> Option<f64> {
        self.errors.iter().find(|e| e.bits == bits).map(|e| e.error)
    }
}

impl BitError {
    /// The error as a signal-to-noise ratio, in dB: infinite without error.
    pub fn snr(&self) -> f64 {
        -10.0 * self.error.log10()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A whole measurement of five layers and two activations.
    fn whole() -> Sensitivity {
        let curve = |value: String| Curve {
            name: value.clone(),
            value,
            elements: 4,
            errors: [8, 2].map(|bits| BitError { bits, error: 0.1, agreement: None }).to_vec(),
        };
        Sensitivity {
            schema: Sensitivity::SCHEMA,
            model: "net.onnx".into(),
            samples: 8,
            biases_corrected: true,
            share: None,
            layers: (0..5).map(|i| curve(format!("w{i}"))).collect(),
            activations: (0..2).map(|i| curve(format!("x{i}"))).collect(),
        }
    }

    fn share(index: usize, count: usize) -> Sensitivity {
        let (stripe, whole) = (Stripe::new(index, count).unwrap(), whole());
        let held = |curves: Vec<Curve>| {
            let held = curves.into_iter().enumerate().filter(|(i, _)| stripe.contains(*i));
            held.map(|(_, curve)| curve).collect()
        };
        Sensitivity {
            share: Some(Share { stripe, layers: 5, activations: 2, key: "k".into() }),
            layers: held(whole.layers),
            activations: held(whole.activations),
            ..whole
        }
    }

    fn named(shares: Vec<Sensitivity>) -> Vec<(String, Sensitivity)> {
        shares.into_iter().zip('a'..).map(|(share, name)| (format!("{name}.json"), share)).collect()
    }

    #[test]
    fn shares_in_any_order_are_the_whole() {
        for count in 1..9 {
            let mut shares: Vec<Sensitivity> = (0..count).map(|i| share(i, count)).collect();
            shares.reverse();
            assert_eq!(Sensitivity::merge(named(shares)).unwrap(), whole(), "{count}");
        }
        assert_eq!((share(1, 3).position(1), whole().position(1), share(0, 2).bits()), (4, 1, vec![2, 8]));
        assert!(whole().require_whole().is_ok());
        assert!(share(0, 1).require_whole().unwrap_err().message().contains("got share 0/1"));
    }

    #[test]
    fn what_is_no_whole_is_refused() {
        let changed = |change: fn(&mut Sensitivity)| {
            let mut share = share(1, 2);
            change(&mut share);
            share
        };
        for (second, want) in [
            (whole(), "b.json: expected a share"),
            (share(0, 2), "`a.json` and `b.json` are both share 0/2"),
            (share(2, 3), "got 0/2 in `a.json` and 2/3 in `b.json`"),
            (
                changed(|s| s.share.as_mut().unwrap().key = "other".into()),
                "`a.json` and `b.json` are shares of different",
            ),
            (changed(|s| s.share.as_mut().unwrap().layers = 6), "`a.json` and `b.json` are shares of different"),
            (changed(|s| s.layers.truncate(1)), "b.json: expected 2 of 5 layers, got 1"),
            (changed(|s| s.activations.clear()), "b.json: expected 1 of 2 activations, got 0"),
            (changed(|s| s.layers[1].value = "w0".into()), "b.json: `w0` is measured twice"),
        ] {
            let error = Sensitivity::merge(named(vec![share(0, 2), second])).unwrap_err().to_string();
            assert!(error.contains(want), "{want}: {error}");
        }
        let missing = Sensitivity::merge(named(vec![share(0, 3), share(2, 3)])).unwrap_err();
        assert_eq!(
            (missing.message(), missing.advice()),
            ("share 1/3 is missing", Some("measure it with --stripe 1/3"))
        );
        let mut huge = share(0, 2);
        huge.share.as_mut().unwrap().stripe = Stripe::new(0, usize::MAX).unwrap();
        assert!(Sensitivity::merge(named(vec![huge])).is_err() && Sensitivity::merge(Vec::new()).is_err());
    }

    #[test]
    fn only_shares_that_there_are_can_be_read() {
        let text = serde_json::to_string(&share(1, 2)).unwrap();
        assert!(text.contains(r#""stripe":"1/2""#), "{text}");
        assert_eq!(Sensitivity::from_json(&text).unwrap(), share(1, 2));
        for wrong in ["2/2", "0/0", "1", ""] {
            assert!(Sensitivity::from_json(&text.replace("1/2", wrong)).is_err(), "{wrong}");
        }
        assert!(Sensitivity::from_json(&text.replace("\"schema\":1", "\"schema\":2")).is_err());
    }
}
