use super::*;
use crate::quant::quantize_one;
use std::time::Instant;

/// Mean |x̂ - x|^2.4 in float64.
pub(in crate::quant) fn grid_error(x: &[f32], s: f32, z: i32, qmax: i32) -> f64 {
    let one = |&v: &f32| (f64::from(quantize_one(v, s, z, 0, qmax) - z) * f64::from(s) - f64::from(v)).abs().powf(2.4);
    x.iter().map(one).sum::<f64>() / x.len() as f64
}

/// The full scan over ranges and zero points, on whole tensors: the specification.
fn scan(x: &[f32], qmax: i32, symmetric: bool) -> (f32, i32) {
    let (low, high) = x.iter().fold((0f32, 0f32), |r, &v| (r.0.min(v), r.1.max(v)));
    let sign = Sign::of((x.iter().copied().fold(f32::MAX, f32::min), x.iter().copied().fold(f32::MIN, f32::max)));
    let mut best = (f64::MAX, 1e-8, 0);
    for i in 1..=RANGES {
        let ranges: Vec<(f32, f32)> = if symmetric || sign != Sign::Both {
            let t = high.max(-low) / RANGES as f32 * i as f32;
            vec![(if sign == Sign::Positive { 0.0 } else { -t }, if sign == Sign::Negative { 0.0 } else { t })]
        } else {
            let t = (high - low) / RANGES as f32 * i as f32;
            (0..=qmax).map(|z| (-(z as f32) * (t / qmax as f32), t - z as f32 * (t / qmax as f32))).collect()
        };
        for (a, b) in ranges {
            let (s, z) = entry_for((f64::from(a), f64::from(b)), qmax, symmetric);
            let e = grid_error(x, s, z, qmax);
            if e < best.0 {
                best = (e, s, z);
            }
        }
    }
    (best.1, best.2)
}

struct Noise(u64);

impl Noise {
    fn uniform(&mut self) -> f32 {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        ((self.0 >> 40) as f32 + 0.5) / (1u64 << 24) as f32
    }

    fn normal(&mut self) -> f32 {
        (-2.0 * self.uniform().ln()).sqrt() * (std::f32::consts::TAU * self.uniform()).cos()
    }
}

fn spec(bits: u32, symmetric: bool) -> RangeSpec {
    RangeSpec { bits, symmetric, search: Search::Mse }
}

fn observed(x: &[f32]) -> Observation {
    let mut seen = Observation::new();
    x.chunks(10_000).for_each(|c| seen.observe(c));
    seen
}

#[test]
fn powers_are_exact_to_a_millionth() {
    for e in -40..20 {
        for j in 0..64 {
            let u = 2f32.powi(e) * (1.0 + j as f32 / 64.0);
            let (a, b) = powers(u);
            assert!((f64::from(a) / f64::from(u).powf(2.4) - 1.0).abs() < 1e-6, "{u}");
            assert!((f64::from(b) / f64::from(u).powf(1.4) - 1.0).abs() < 1e-6, "{u}");
        }
    }
    assert_eq!(powers(0.0), (0.0, 0.0));
}

#[test]
fn the_search_finds_what_the_scan_finds() {
    let mut noise = Noise(3);
    for n in [1usize, 2, 7, 300] {
        let normal: Vec<f32> = (0..n).map(|_| noise.normal()).collect();
        let shapes: [Vec<f32>; 6] = [
            normal.clone(),
            normal.iter().map(|v| v.max(0.0)).collect(),
            normal.iter().map(|v| -v.abs() * 1e-3).collect(),
            normal.iter().map(|v| v * v * v * 1e4 + 100.0).collect(),
            normal.iter().map(|v| v.clamp(-0.3, 1.0)).collect(),
            vec![2.5; n],
        ];
        for (case, x) in shapes.iter().enumerate() {
            for (bits, symmetric) in [(2, false), (3, false), (4, false), (4, true), (2, true), (6, true)] {
                let qmax = qmax_of(bits).unwrap();
                let grid = fit(&observed(x), &spec(bits, symmetric)).unwrap();
                let want = scan(x, qmax, symmetric);
                let got_error = grid_error(x, grid.scale[0], grid.zero_point[0], qmax);
                let want_error = grid_error(x, want.0, want.1, qmax);
                let largest = x.iter().fold(0f64, |a, &v| a.max(f64::from(v).abs()));
                let noise_floor = (largest * 1e-6).powf(2.4);
                assert!(
                    got_error <= want_error * (1.0 + 1e-5) + noise_floor,
                    "n {n} case {case} bits {bits} symmetric {symmetric}: {got_error} against {want_error}"
                );
            }
        }
    }
}

/// By how much more error a grid of 16 bits may have than the best one of a coarse scan: the search takes rounding errors
/// for evenly spread, which those of some thousand values are not quite.
const FINE_TOLERANCE: f64 = 0.05;

#[test]
fn grids_of_16_bits_are_as_good_as_a_scan() {
    let mut noise = Noise(7);
    let normal: Vec<f32> = (0..3000).map(|_| noise.normal()).collect();
    let mut outlier: Vec<f32> = normal.iter().map(|v| v * 1e-3).collect();
    outlier.extend([40.0; 1]);
    let shapes: [(&str, Vec<f32>); 6] = [
        ("two-sided", normal.clone()),
        ("relu", normal.iter().map(|v| v.max(0.0)).collect()),
        ("negative", normal.iter().map(|v| -v.abs() * 1e-3).collect()),
        ("heavy", normal.iter().map(|v| v * v * v * 1e3).collect()),
        ("skewed", normal.iter().map(|v| (v * 2.0).exp() - 0.1).collect()),
        ("outlier", outlier),
    ];
    let qmax = qmax_of(16).unwrap();
    for (name, x) in &shapes {
        let (low, high) = x.iter().fold((0f32, 0f32), |r, &v| (r.0.min(v), r.1.max(v)));
        for symmetric in [false, true] {
            let grid = fit(&observed(x), &spec(16, symmetric)).unwrap();
            assert!(!symmetric || grid.zero_point == [32_768], "{name}");
            let got = grid_error(x, grid.scale[0], grid.zero_point[0], qmax);
            let width = f64::from(if symmetric { 2.0 * high.max(-low) } else { high - low });
            let mut least = f64::MAX;
            for share in [1.0, 0.99, 0.97, 0.9, 0.7, 0.4, 0.1] {
                let step = (width * share / f64::from(qmax)) as f32;
                let start = (-low / step).round_ties_even() as i32;
                let near = (start - 3000..=start + 3000).step_by(300).filter(|z| (0..=qmax).contains(z));
                let zeros: Vec<i32> = if symmetric { vec![32_768] } else { near.collect() };
                least = zeros.iter().map(|&z| grid_error(x, step, z, qmax)).fold(least, f64::min);
            }
            assert!(got <= least * (1.0 + FINE_TOLERANCE), "{name} {symmetric}: {got:e} against {least:e}");
        }
    }
}

#[test]
fn the_histogram_finds_grids_as_good_as_the_values_themselves() {
    let mut noise = Noise(11);
    let n = 200_000;
    let normal: Vec<f32> = (0..n).map(|_| noise.normal()).collect();
    let shapes: [(&str, Vec<f32>); 4] = [
        ("relu", normal.iter().map(|v| v.max(0.0)).collect()),
        ("two-sided", normal.iter().map(|v| v * 3.0 + 0.4).collect()),
        ("relu6", normal.iter().map(|v| (v * 3.0 + 1.0).clamp(0.0, 6.0)).collect()),
        ("heavy", normal.iter().map(|v| v * v * v).collect()),
    ];
    for (name, x) in &shapes {
        let bounds = x.iter().fold((f32::MAX, f32::MIN), |r, &v| (r.0.min(v), r.1.max(v)));
        let mut sorted = x.clone();
        sorted.sort_by(f32::total_cmp);
        let exact = Observation::exact_for_test(sorted);
        for bits in [2, 4, 8] {
            let qmax = qmax_of(bits).unwrap();
            let fitted = fit(&observed(x), &spec(bits, false)).unwrap();
            let wide = (f64::from(bounds.0), f64::from(bounds.1));
            let range = search(&exact, wide, Sign::of(bounds), qmax, false).unwrap();
            let (s, z) = entry_for(range, qmax, false);
            let got = grid_error(x, fitted.scale[0], fitted.zero_point[0], qmax);
            let want = grid_error(x, s, z, qmax);
            assert!(got <= want * 1.001, "{name} {bits} bits: {got} against {want}");
        }
    }
}

#[test]
fn weights_are_fitted_per_channel_with_one_sidedness_of_the_whole() {
    let mut noise = Noise(5);
    let w: Vec<f32> = (0..6 * 4 * 3).map(|i| noise.normal() * if i / 3 % 4 == 1 { 0.0 } else { 1.0 }).collect();
    let grid = fit_weight(&w, &[6, 4, 3], Some(1), &spec(4, false)).unwrap();
    assert_eq!((grid.scale.len(), grid.axis, grid.scale[1], grid.zero_point[1]), (4, Some(1), STEP_OF_ZEROS, 0));
    let channel: Vec<f32> = (0..6).flat_map(|i| w[i * 12 + 6..i * 12 + 9].to_vec()).collect();
    assert_eq!(grid.scale[2], fit(&observed(&channel), &spec(4, false)).unwrap().scale[0]);
    assert_eq!(fit_weight(&w, &[72], None, &spec(4, false)).unwrap().scale.len(), 1);
    assert!(fit_weight(&[1.0, f32::NAN], &[2], Some(0), &spec(4, false)).is_err());
    assert!(fit_weight(&[], &[0], None, &spec(4, false)).is_err());
}

#[test]
fn percentile_and_min_max() {
    let x: Vec<f32> = (1..=1000).map(|v| v as f32 - 500.0).collect();
    let by = |search, symmetric| fit(&observed(&x), &RangeSpec { bits: 8, symmetric, search }).unwrap();
    assert!((by(Search::MinMax, false).scale[0] - 999.0 / 255.0).abs() < 1e-5);
    assert!((by(Search::Percentile(99.0), false).scale[0] - (490.0 + 490.0) / 255.0).abs() < 1e-5);
    let symmetric = by(Search::MinMax, true);
    assert_eq!((symmetric.zero_point[0], symmetric.scale[0]), (128, 500.0 / 127.5));
    let bad = RangeSpec { bits: 8, symmetric: false, search: Search::Percentile(20.0) };
    assert!(fit(&observed(&x), &bad).is_err());
}

#[test]
fn symmetric_grids_keep_their_zero_in_the_middle() {
    let mut noise = Noise(23);
    let normal: Vec<f32> = (0..400).map(|_| noise.normal()).collect();
    let shapes: [Vec<f32>; 4] = [
        normal.clone(),
        normal.iter().map(|v| v.max(0.0)).collect(),
        normal.iter().map(|v| -v.abs()).collect(),
        normal.iter().map(|v| v + 3.0).collect(),
    ];
    for search in [Search::Mse, Search::MinMax, Search::Percentile(99.0)] {
        for bits in 2..=8 {
            for (case, x) in shapes.iter().enumerate() {
                let grid = fit(&observed(x), &RangeSpec { bits, symmetric: true, search }).unwrap();
                assert_eq!(grid.zero_point, [1 << (bits - 1)], "case {case}, {search:?}");
                // Whatever lies beyond an end of the values is at most half a step of the range on that side.
                let (low, high) = grid.range(0);
                assert_eq!(-low, high + grid.scale[0], "case {case}, {search:?}");
                let reach = x.iter().fold(0f32, |a, v| a.max(v.abs()));
                assert!(high <= reach, "case {case}, {search:?}: {high} beyond {reach}");
            }
            // Values of one sign alone give an end of the asymmetric grid as zero, to which targets may hold it.
            let grid = fit(&observed(&shapes[1]), &RangeSpec { bits, symmetric: false, search }).unwrap();
            assert_eq!(grid.zero_point, [0], "{search:?}");
        }
    }
    let weights = fit_weight(&normal, &[10, 40], Some(0), &spec(4, true)).unwrap();
    assert_eq!(weights.zero_point, [8; 10]);
}

#[test]
fn extreme_values_give_a_grid() {
    for x in [vec![0.0f32; 9], vec![1e-45; 9], vec![1e-12, -1e-12], vec![f32::MAX, f32::MIN, 1.0], vec![f32::MAX; 3]] {
        for bits in [2, 8] {
            for symmetric in [false, true] {
                fit(&observed(&x), &spec(bits, symmetric)).unwrap().check().unwrap();
            }
        }
    }
}

/// Prints how much faster the search is than the scan; run with `--ignored --nocapture`.
#[test]
#[ignore = "a measurement"]
fn measure_the_search_against_the_scan() {
    let mut noise = Noise(17);
    let x: Vec<f32> = (0..1_000_000).map(|_| noise.normal()).collect();
    for bits in [2, 4, 8] {
        let part = &x[..60_000];
        let start = Instant::now();
        let seen = observed(part);
        fit(&seen, &spec(bits, false)).unwrap();
        let exact = start.elapsed();
        let start = Instant::now();
        let seen = observed(&x);
        let fed = start.elapsed();
        fit(&seen, &spec(bits, false)).unwrap();
        let histogram = start.elapsed();
        let few = 60_000 >> (bits - 2);
        let start = Instant::now();
        scan(&part[..few], (1 << bits) - 1, false);
        let scan_60k = start.elapsed() * (60_000 / few) as u32;
        eprintln!(
            "{bits} bits: scan of 60 000 values {scan_60k:.1?}, search {exact:.1?} ({:.0} times); 1 000 000 values: \
             {histogram:.1?}, of it {fed:.1?} feeding ({:.0} times)",
            scan_60k.as_secs_f64() / exact.as_secs_f64(),
            scan_60k.as_secs_f64() / 60e3 * 1e6 / histogram.as_secs_f64()
        );
    }
    let w: Vec<f32> = x.iter().cycle().take(512 * 4608).copied().collect();
    let start = Instant::now();
    fit_weight(&w, &[512, 4608], Some(0), &spec(4, false)).unwrap();
    eprintln!("weights 512 x 4608 at 4 bits: {:.1?}", start.elapsed());
}
