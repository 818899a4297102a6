//! Element-wise arithmetic in a form that compilers turn into vector instructions, and the dispatch to the widest
//! instructions of the machine. Results do not depend on which are taken.

/// Runs `f` compiled for the machine's widest vector instructions. What `f` calls must be `#[inline(always)]`.
#[inline(always)]
pub(super) fn vectorized<T>(f: impl FnOnce() -> T) -> T {
    pulp::Arch::new().dispatch(f)
}

/// exp, to about 2 units in the last place; saturates near ±87.
#[inline(always)]
pub(super) fn exp(x: f32) -> f32 {
    // Cody and Waite's reduction x = n·ln 2 + r, |r| ≤ ln 2 / 2, then a polynomial in r. Adding 1.5·2^23 rounds to
    // an integer in the low bits.
    const SHIFT: f32 = 12_582_912.0;
    let x = x.clamp(-87.0, 88.0);
    let shifted = x * std::f32::consts::LOG2_E + SHIFT;
    let n = shifted - SHIFT;
    let r = x - n * 0.693_359_4 - n * -2.121_944_4e-4;
    let p = 1.987_569_1e-4;
    let p = p * r + 1.398_199_9e-3;
    let p = p * r + 8.333_452e-3;
    let p = p * r + 4.166_579_6e-2;
    let p = p * r + 1.666_666_5e-1;
    let p = p * r + 0.5;
    let p = p * r * r + r + 1.0;
    p * f32::from_bits((shifted.to_bits() << 23).wrapping_add(127 << 23))
}

/// Natural logarithm of a normal positive number, to about 2 units in the last place.
#[inline(always)]
pub(super) fn ln(x: f32) -> f32 {
    let bits = x.to_bits();
    // Mantissa in sqrt(1/2)..sqrt(2).
    let e = (bits.wrapping_sub(0x3F35_04F3)) & 0xFF80_0000;
    let m = f32::from_bits(bits.wrapping_sub(e)) - 1.0;
    let n = ((e as i32) >> 23) as f32;
    let p = 7.037_684e-2;
    let p = p * m - 1.151_461e-1;
    let p = p * m + 1.167_699_9e-1;
    let p = p * m - 1.242_014_1e-1;
    let p = p * m + 1.424_932_3e-1;
    let p = p * m - 1.666_805_7e-1;
    let p = p * m + 2.000_071_5e-1;
    let p = p * m - 2.499_999_4e-1;
    let p = p * m + 3.333_333e-1;
    let z = m * m;
    let y = m * z * p + n * -2.121_944_4e-4 - 0.5 * z;
    m + y + n * 0.693_359_4
}

/// 1 / (1 + exp(-x)).
#[inline(always)]
pub(super) fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + exp(-x))
}

/// The error function, to about 1e-7.
#[inline(always)]
pub(super) fn erf(x: f32) -> f32 {
    // A polynomial in x² below 1; above, 1 - exp of a polynomial for the logarithm of 1 - erf, which at 4 is 1.5e-8.
    let s = x * x;
    let p = 7.889_123e-5;
    let p = p * s - 8.020_842e-4;
    let p = p * s + 5.189_535_5e-3;
    let p = p * s - 2.685_444_5e-2;
    let p = p * s + 1.128_36e-1;
    let p = p * s - 3.761_262_7e-1;
    let small = x * (p * s + std::f32::consts::FRAC_2_SQRT_PI);
    let t = x.abs().min(4.0);
    let q = 1.600_539_1e-6;
    let q = q * t - 4.531_333_2e-5;
    let q = q * t + 5.903_414_5e-4;
    let q = q * t - 4.728_389e-3;
    let q = q * t + 2.632_969_2e-2;
    let q = q * t - 1.099_139_17e-1;
    let q = q * t - 6.320_085e-1;
    let q = q * t - 1.130_122_9;
    let large = (1.0 - exp(q * t + 2.919_115e-4)).copysign(x);
    if t < 1.0 { small } else { large }
}

/// The hyperbolic tangent, to about 1e-7.
#[inline(always)]
pub(super) fn tanh(x: f32) -> f32 {
    let s = x * x;
    let p = -5.105_283e-3;
    let p = p * s + 2.004_525_5e-2;
    let p = p * s - 5.353_494_6e-2;
    let p = p * s + 1.332_857_2e-1;
    let p = p * s - 3.333_314e-1;
    let small = x * (p * s + 1.0);
    let large = (1.0 - 2.0 / (exp(2.0 * x.abs()) + 1.0)).copysign(x);
    if s < 0.49 { small } else { large }
}

/// Partial sums that are added side by side.
const LANES: usize = 16;
/// Elements summed in f32 before the sum goes on in f64.
pub(super) const RUN: usize = 1024;

/// Σ f(a[i], b[i]) over two slices of one length, in an order that depends on the length alone.
#[inline(always)]
pub(super) fn sum(a: &[f32], b: &[f32], f: impl Fn(f32, f32) -> f32) -> f64 {
    let mut total = 0f64;
    for (a, b) in a.chunks(RUN).zip(b.chunks(RUN)) {
        let mut lanes = [0f32; LANES];
        let (a, b) = (a.chunks_exact(LANES), b.chunks_exact(LANES));
        let rest = (a.remainder(), b.remainder());
        for (a, b) in a.zip(b) {
            for l in 0..LANES {
                lanes[l] += f(a[l], b[l]);
            }
        }
        for ((lane, &a), &b) in lanes.iter_mut().zip(rest.0).zip(rest.1) {
            *lane += f(a, b);
        }
        total += lanes.iter().map(|&l| f64::from(l)).sum::<f64>();
    }
    total
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn functions_agree_with_double_precision() {
        for i in -8600..8600 {
            let x = i as f32 * 0.01;
            let want = f64::from(x).exp();
            assert!((f64::from(exp(x)) / want - 1.0).abs() < 3e-7, "exp({x})");
            let positive = (i as f32 + 8601.0) * 1e-3;
            let want = f64::from(positive).ln();
            assert!((f64::from(ln(positive)) - want).abs() < 3e-7 * want.abs().max(0.3), "ln({positive})");
        }
        for i in -60_000..60_000 {
            let x = i as f32 * 1e-4;
            let want = f64::from(x).tanh();
            assert!((f64::from(tanh(x)) - want).abs() < 2e-7 * want.abs().max(1e-3), "tanh({x}) {}", tanh(x));
        }
        // Abramowitz and Stegun, table 7.1.
        for (x, want) in [(0.0, 0.0), (0.5, 0.520_499_877_8), (1.0, 0.842_700_792_9), (2.0, 0.995_322_265_0)] {
            assert!((f64::from(erf(x)) - want).abs() < 2e-7 && erf(-x) == -erf(x), "erf({x}) {}", erf(x));
        }
        // The slope of the error function is 2/√π·exp(-x²).
        for i in 0..400 {
            let (x, h) = (i as f32 * 1e-2, 0.0625f32);
            let slope = f64::from(erf(x + h) - erf(x - h)) / f64::from(2.0 * h);
            let middle = std::f64::consts::FRAC_2_SQRT_PI * (-f64::from(x) * f64::from(x)).exp();
            assert!((slope - middle).abs() < 3e-3, "erf around {x}: {slope}, {middle}");
        }
        assert_eq!((exp(0.0), ln(1.0), exp(-1000.0) < 1e-37), (1.0, 0.0, true));
    }

    #[test]
    fn sums_take_every_element_once() {
        for n in [0usize, 1, 15, 16, 17, 1023, 1024, 1025, 5000] {
            let values: Vec<f32> = (0..n).map(|i| i as f32).collect();
            let once = (n * n.saturating_sub(1) / 2) as f64;
            assert_eq!(sum(&values, &values, |a, b| 2.0 * a - b), once, "{n}");
        }
    }
}
