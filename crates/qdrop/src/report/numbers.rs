//! Numbers in reports.

/// `x` with five significant digits: reports are read by people, and short numbers make small files.
pub(crate) fn short(x: f64) -> f64 {
    format!("{x:.4e}").parse().unwrap_or(x)
}

/// Signal-to-noise ratio in dB; `None` without noise or without signal.
pub(crate) fn decibels(signal: f64, noise: f64) -> Option<f64> {
    let ratio = 10.0 * (signal / noise).log10();
    ratio.is_finite().then(|| short(ratio))
}
