//! The module against arrays recorded from the official code.

use super::rounding::{alpha_init, grad_alpha, h, harden, nearest, regulariser, regulariser_gradient, soft};
use super::search::tests::grid_error;
use super::*;
use std::collections::BTreeMap;

/// Relative distance allowed by the recorded float32 arithmetic.
const CLOSE: f32 = 1e-5;

struct Arrays {
    f32s: BTreeMap<String, (Vec<usize>, Vec<f32>)>,
    i32s: BTreeMap<String, Vec<i32>>,
    meta: BTreeMap<String, String>,
}

impl Arrays {
    fn f(&self, name: &str) -> &[f32] {
        &self.f32s[name].1
    }
    fn shape(&self, name: &str) -> &[usize] {
        &self.f32s[name].0
    }
    fn meta<T: std::str::FromStr<Err: std::fmt::Debug>>(&self, name: &str) -> T {
        self.meta[name].parse().unwrap()
    }
}

/// The arrays of `../shared/golden/<name>`; `None`, said aloud, where the shared folder is missing.
fn read(name: &str) -> Option<Arrays> {
    let path = qdrop_testing::shared(&format!("golden/{name}.safetensors"))?;
    let bytes = std::fs::read(path).unwrap();
    let (_, header) = safetensors::SafeTensors::read_metadata(&bytes).unwrap();
    let tensors = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let meta = header.metadata().clone().unwrap_or_default().into_iter().collect();
    let mut arrays = Arrays { f32s: BTreeMap::new(), i32s: BTreeMap::new(), meta };
    for (name, view) in tensors.tensors() {
        let words = view.data().chunks_exact(4).map(|b| [b[0], b[1], b[2], b[3]]);
        match view.dtype() {
            safetensors::Dtype::F32 => {
                arrays.f32s.insert(name, (view.shape().to_vec(), words.map(f32::from_le_bytes).collect()));
            }
            safetensors::Dtype::I32 => {
                arrays.i32s.insert(name, words.map(i32::from_le_bytes).collect());
            }
            other => panic!("{name} has type {other:?}"),
        }
    }
    Some(arrays)
}

/// Every element within [`CLOSE`] of the recorded one, relative to it or to a fiftieth of the largest.
fn assert_close(what: &str, got: &[f32], want: &[f32]) {
    assert_eq!(got.len(), want.len(), "{what}");
    let largest = want.iter().fold(0f32, |a, v| a.max(v.abs()));
    for (i, (g, w)) in got.iter().zip(want).enumerate() {
        let allowed = CLOSE * w.abs().max(largest * 2e-2);
        assert!((g - w).abs() <= allowed, "{what}[{i}]: got {g}, recorded {w}");
    }
}

#[test]
fn learned_steps() {
    for name in ["b2_zp0", "b2_zp1", "b3_zp0", "b4_zp0", "b4_zp5", "b8_zp0", "b8_zp117"] {
        let Some(a) = read(&format!("lsq_{name}")) else { return };
        let grid = Grid::per_tensor(a.meta("bits"), a.f("scale")[0], a.meta("zero_point")).unwrap();
        let x = a.f("x");
        assert_eq!(grid.qmax, a.meta::<i32>("quant_max"));
        assert_close("y", &lsq::forward(x, &grid), a.f("y"));
        assert_close("fake", &grid.fake_quantize(a.shape("x"), x).unwrap(), a.f("y"));
        let gradients = lsq::backward(x, a.f("upstream"), &grid);
        assert_close("grad_x", &gradients.x, a.f("grad_x"));
        assert_close("grad_scale", &[gradients.scale], a.f("grad_scale"));
        let factor: f64 = a.meta("grad_factor");
        assert!((lsq::gradient_factor(x.len(), grid.qmax) / factor - 1.0).abs() < 1e-9);
    }
}

#[test]
fn soft_rounding() {
    for bits in [2, 3, 4, 8] {
        let Some(a) = read(&format!("adaround_w{bits}")) else { return };
        let (w, alpha, shape) = (a.f("w"), a.f("alpha"), a.shape("w"));
        let grid = Grid::per_channel(bits, a.f("scale").to_vec(), a.i32s["zero_point_i32"].clone(), 0).unwrap();

        let fitted = fit_weight(w, shape, Some(0), &RangeSpec { bits, symmetric: false, search: Search::Mse }).unwrap();
        assert_close("scale", &fitted.scale, &grid.scale);
        assert_eq!(fitted.zero_point, grid.zero_point);

        let real = |q: QuantizedWeight| q.grid.dequantize_u8(shape, &q.integers).unwrap();
        assert_close("nearest", &real(nearest(LayerId(0), w, shape, &grid).unwrap()), a.f("nearest"));
        assert_close("hard", &real(harden(LayerId(0), w, alpha, shape, &grid).unwrap()), a.f("hard"));
        assert_close("alpha_init", &alpha_init(w, shape, &grid).unwrap(), a.f("alpha_init"));
        assert_close("h", &alpha.iter().map(|&v| h(v)).collect::<Vec<_>>(), a.f("h"));
        assert_close("soft", &soft(w, alpha, shape, &grid).unwrap(), a.f("soft"));
        assert_close("grad", &grad_alpha(w, alpha, a.f("upstream"), shape, &grid).unwrap(), a.f("grad_alpha"));
        for beta in [20, 8, 2] {
            assert_close("reg", &[regulariser(alpha, beta as f32) as f32], a.f(&format!("reg_b{beta}")));
            let gradient = regulariser_gradient(alpha, beta as f32);
            assert_close("grad_reg", &gradient, a.f(&format!("grad_reg_b{beta}")));
        }
    }
}

#[test]
fn observers() {
    let Some(a) = read("observers") else { return };
    let (mut cases, mut different) = (0, 0);
    for (name, (_, scale)) in a.f32s.iter().filter(|(n, _)| n.ends_with(".scale")) {
        let parts: Vec<&str> = name.split('.').collect();
        let bits: u32 = parts[1][1..].parse().unwrap();
        let search = if parts[0] == "mse" { Search::Mse } else { Search::MinMax };
        let (tensor, symmetric) = match parts[2].strip_suffix("_sym") {
            Some(tensor) => (tensor, true),
            None => (parts[2].trim_end_matches("_asym"), false),
        };
        let spec = RangeSpec { bits, symmetric, search };
        let (shape, x) = &a.f32s[tensor];
        let axis = (tensor == "weight").then_some(0);
        let grid = fit_weight(x, shape, axis, &spec).unwrap();
        if axis.is_none() {
            let mut seen = Observation::new();
            x.chunks(1000).for_each(|c| seen.observe(c));
            assert_eq!(fit(&seen, &spec).unwrap(), grid);
        }
        // The official symmetric grid is -2^(b-1)..=2^(b-1)-1 around 0; here the same integers start at 0.
        let shift = if symmetric { 1 << (bits - 1) } else { 0 };
        let zero_points = &a.i32s[&name.replace(".scale", ".zero_point_i32")];
        for (c, channel) in x.chunks(x.len() / scale.len()).enumerate() {
            cases += 1;
            let want = (scale[c], zero_points[c] + shift);
            let got = (grid.scale[c], grid.zero_point[c]);
            if (got.0 / want.0 - 1.0).abs() <= CLOSE && got.1 == want.1 {
                continue;
            }
            different += 1;
            let error = |(s, z): (f32, i32)| grid_error(channel, s, z, grid.qmax);
            assert!(error(got) <= error(want), "{name}[{c}]: got {got:?}, recorded {want:?}");
        }
    }
    eprintln!("{cases} grids, {different} of them other than recorded and not worse");
    assert!(cases > 150);
}
