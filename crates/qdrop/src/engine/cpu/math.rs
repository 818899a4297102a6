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
