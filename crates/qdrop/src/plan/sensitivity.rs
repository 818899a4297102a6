//! Sensitivity: the effect that quantizing one layer or activation alone has on the network's outputs.

use serde::{Deserialize, Serialize};

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
    /// Weights of layers, in network order.
    pub layers: Vec<Curve>,
    /// Activations, in network order.
    pub activations: Vec<Curve>,
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
