//! Distance between the values of two networks.

use crate::error::{Error, Kind, Result};
use serde::{Deserialize, Serialize};

/// Running sums of the distance between a reference value and another one, over samples.
#[derive(Debug, Clone, PartialEq)]
pub struct Comparison {
    name: String,
    elements: u64,
    /// Sums of squares of the reference, of the other, and of their difference, and of their product.
    reference: f64,
    other: f64,
    noise: f64,
    product: f64,
    max_abs: f64,
}

/// The difference between a value of one network and that of a reference, over all samples compared.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Difference {
    /// The value's name.
    pub name: String,
    /// Operator of the reference's node that computes it; empty if it is unknown.
    pub operator: String,
    /// Signal-to-noise ratio in decibels, 10·log10(Σ reference² / Σ difference²); `None` when it is not finite:
    /// nothing differs, or the reference is 0 everywhere.
    pub snr_db: Option<f64>,
    /// Largest absolute difference of an element.
    pub max_abs: f64,
    /// Cosine of the angle between the two, -1 to 1; 1 when both are 0 everywhere, 0 when only one is.
    pub cosine: f64,
    /// Elements compared.
    pub elements: u64,
}

impl Comparison {
    /// Nothing compared yet for the value `name`.
    pub fn new(name: impl Into<String>) -> Self {
        let name = name.into();
        Comparison { name, elements: 0, reference: 0.0, other: 0.0, noise: 0.0, product: 0.0, max_abs: 0.0 }
    }

    /// Adds one sample. Elements that are NaN or infinite in the reference are left out: they are padding's, as a rule.
    /// An error when lengths differ or another element of the other value is NaN or infinite; nothing is added then.
    pub fn add(&mut self, reference: &[f32], other: &[f32]) -> Result<()> {
        let at = |e: Error| e.at(format!("value `{}`", self.name));
        if reference.len() != other.len() {
            let (want, got) = (reference.len(), other.len());
            return Err(at(Error::data(format!("expected {want} elements as in the reference, got {got}"))));
        }
        let pairs = || reference.iter().zip(other).enumerate().filter(|(_, (a, _))| a.is_finite());
        if let Some((i, (_, x))) = pairs().find(|(_, (_, x))| !x.is_finite()) {
            let message = format!("element {i} of the compared network is {x}, expected finite numbers");
            return Err(at(Error::new(Kind::Numeric, message)));
        }
        for (_, (&a, &b)) in pairs() {
            self.elements += 1;
            let (a, b) = (a as f64, b as f64);
            self.reference += a * a;
            self.other += b * b;
            self.noise += (a - b) * (a - b);
            self.product += a * b;
            self.max_abs = self.max_abs.max((a - b).abs());
        }
        Ok(())
    }

    /// Adds what was compared elsewhere of the same value.
    pub fn merge(&mut self, other: &Comparison) {
        self.elements += other.elements;
        self.reference += other.reference;
        self.other += other.other;
        self.noise += other.noise;
        self.product += other.product;
        self.max_abs = self.max_abs.max(other.max_abs);
    }

    /// The distance over everything added.
    pub fn finish(&self) -> Difference {
        let snr_db = 10.0 * (self.reference / self.noise).log10();
        let cosine = match (self.reference > 0.0, self.other > 0.0) {
            (true, true) => (self.product / (self.reference.sqrt() * self.other.sqrt())).clamp(-1.0, 1.0),
            (false, false) => 1.0,
            _ => 0.0,
        };
        Difference {
            name: self.name.clone(),
            operator: String::new(),
            snr_db: Some(snr_db).filter(|x| x.is_finite()),
            max_abs: self.max_abs,
            cosine,
            elements: self.elements,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn compare(a: &[f32], b: &[f32]) -> Difference {
        let mut c = Comparison::new("v");
        c.add(a, b).unwrap();
        c.finish()
    }

    #[test]
    fn known_distances() {
        let d = compare(&[3.0, 4.0], &[3.0, 4.5]);
        assert!((d.snr_db.unwrap() - 20.0).abs() < 1e-12);
        assert_eq!((d.max_abs, d.elements), (0.5, 2));
        assert!((d.cosine - 27.0 / (5.0 * 29.25f64.sqrt())).abs() < 1e-12);
        assert_eq!(compare(&[1.0, 0.0], &[-1.0, 0.0]).cosine, -1.0);
    }

    #[test]
    fn limits_are_defined() {
        let same = compare(&[1.0, 2.0], &[1.0, 2.0]);
        assert_eq!((same.snr_db, same.max_abs), (None, 0.0));
        assert!((same.cosine - 1.0).abs() < 1e-15);
        assert_eq!(compare(&[0.0], &[0.0]).cosine, 1.0);
        let one = compare(&[0.0], &[2.0]);
        assert_eq!((one.snr_db, one.cosine), (None, 0.0));
        // The largest floats do not overflow the sums.
        assert!(compare(&[f32::MAX], &[f32::MIN]).snr_db.unwrap() < 0.0);
    }

    #[test]
    fn parts_merge() {
        let (a, b) = ([1.0, -2.0, 3.0, 0.5], [1.5, -2.0, 2.0, 0.25]);
        let mut left = Comparison::new("v");
        left.add(&a[..1], &b[..1]).unwrap();
        let mut right = Comparison::new("v");
        right.add(&a[1..], &b[1..]).unwrap();
        left.merge(&right);
        assert_eq!(left.finish(), compare(&a, &b));
    }

    #[test]
    fn bad_values_are_named_and_not_added() {
        let mut c = Comparison::new("conv1");
        let e = c.add(&[1.0, 2.0], &[1.0, f32::INFINITY]).unwrap_err();
        assert_eq!(e.to_string(), "value `conv1`: element 1 of the compared network is inf, expected finite numbers");
        assert!(c.add(&[1.0], &[]).unwrap_err().to_string().contains("expected 1 elements as in the reference, got 0"));
        assert_eq!(c.finish().elements, 0);
        c.add(&[f32::NAN, 2.0, f32::NEG_INFINITY], &[1.0, 2.0, f32::NAN]).unwrap();
        assert_eq!((c.finish().elements, c.finish().max_abs), (1, 0.0), "what is no number in the reference");
    }
}
