//! How far rounding single values would move the outputs of a program, on the specification device.

use super::{Settings, forward, quantize};
use crate::engine::device::OutputError;
use crate::engine::ops::Real;
use crate::engine::philox::Stream;
use crate::engine::program::Program;
use crate::error::Result;
use crate::quant::Grid;
use crate::tensor::Rows;

/// [`Device::influence`](crate::engine::device::Device::influence) of a program without weights, one sample after the other.
pub fn influence<R: Real>(
    program: &Program,
    inputs: &[Rows],
    outputs: &[OutputError],
    grids: &[Vec<Grid>],
    seed: u64,
) -> Result<Vec<Option<Vec<f64>>>> {
    let float = vec![None; program.sites.len()];
    let first: Vec<Grid> = grids.iter().map(|g| g[0].clone()).collect();
    let settings = Settings { weights: &[], grids: &first, keep: &float };
    let real = |v: f32| R::of(f64::from(v));
    let mut found: Vec<Option<Vec<f64>>> = vec![None; program.sites.len()];
    for sample in 0..inputs.first().map_or(0, Rows::len) {
        let rows = inputs.iter().map(|rows| Ok(rows.row(sample)?.iter().map(|&v| real(v)).collect()));
        let tape = forward::<R>(program, settings, rows.collect::<Result<_>>()?)?;
        let mut upstream = Vec::new();
        for (number, (values, OutputError { size, weights })) in tape.outputs(program).zip(outputs).enumerate() {
            let mut signs = vec![0u8; values.len()];
            Stream::new(seed, u32::MAX, number as u32, 0).mask(sample, 0.5, &mut signs);
            let mut row = vec![1.0; values.len()];
            weights.as_ref().map_or(Ok(()), |weights| weights.expand(sample, &mut row))?;
            let sign = |(&s, w): (&u8, f32)| (if s == 1 { 1.0 } else { -1.0 }) * f64::from(w).sqrt() / f64::from(*size);
            upstream.push(signs.iter().zip(row).map(|pair| R::of(sign(pair))).collect());
        }
        let gradients = tape.backward(program, settings, upstream)?.sites;
        for (((site, _), gradient), found) in program.site_slots().zip(&gradients).zip(&mut found) {
            let Some(gradient) = gradient else { continue };
            let values = tape.site(program, site);
            let change = |grid: &Grid| {
                let rounded = quantize(values, grid, &[]);
                let changes = rounded.iter().zip(values).zip(gradient);
                changes.map(|((&q, &x), &g)| (q - x).f64() * g.f64()).sum::<f64>().powi(2)
            };
            let changes: Vec<f64> = grids[site.0].iter().map(change).collect();
            match found {
                None => *found = Some(changes),
                Some(sum) => sum.iter_mut().zip(changes).for_each(|(s, c)| *s += c),
            }
        }
    }
    Ok(found)
}
