//! The device that serves as the specification: it runs a program on one sample, step by step, in any number type.

mod influence;
mod train;

pub use influence::influence;
pub use train::{NaiveTrainer, Slopes};

use super::ops::{self, Real, View};
use super::program::{Program, ProgramSite, Step};
use crate::error::{Error, Result};
use crate::quant::Grid;

/// What one forward pass reads besides the inputs.
#[derive(Debug, Clone, Copy)]
pub struct Settings<'a, R> {
    /// Content of the weights, in the program's order.
    pub weights: &'a [Vec<R>],
    /// Grid of each site.
    pub grids: &'a [Grid],
    /// For each site which elements keep the quantized value; an empty list: all of them. A site with `None` is float.
    pub keep: &'a [Option<Vec<bool>>],
}

/// All values of one forward pass.
#[derive(Debug, Clone)]
pub struct Tape<R> {
    values: Vec<Vec<R>>,
}

/// Gradients of a scalar with respect to what is learned.
#[derive(Debug, Clone, PartialEq)]
pub struct Gradients<R> {
    /// Per weight, in the weight's shape.
    pub weights: Vec<Vec<R>>,
    /// Per site: the sum over its elements, without the gradient factor of the learned step.
    pub scales: Vec<f64>,
    /// Per site: of what its readers see; none where the scalar does not depend on it.
    pub sites: Vec<Option<Vec<R>>>,
}

/// Runs `program` forward on one sample.
pub fn forward<R: Real>(program: &Program, settings: Settings<R>, inputs: Vec<Vec<R>>) -> Result<Tape<R>> {
    let constant = |slot: &super::program::Slot| {
        slot.constant.as_ref().map_or(Vec::new(), |c| c.iter().map(|&x| R::of(f64::from(x))).collect())
    };
    let mut values: Vec<Vec<R>> = program.slots.iter().map(constant).collect();
    for (&slot, data) in program.inputs.iter().zip(inputs) {
        values[slot] = data;
    }
    for (&slot, data) in program.weights.iter().zip(settings.weights) {
        values[slot] = data.clone();
    }
    for step in &program.steps {
        match step {
            Step::Site { site, x, y } => {
                let quantized = match &settings.keep[site.0] {
                    None => values[*x].clone(),
                    Some(mask) => quantize(&values[*x], &settings.grids[site.0], mask),
                };
                values[*y] = quantized;
            }
            Step::Node { op, operands, results, place } => {
                let views = views(program, &values, operands);
                let arrays = ops::forward(op, &views, results.len()).map_err(|e| e.at(place))?;
                for (slot, array) in results.iter().zip(arrays) {
                    if let Some(slot) = slot {
                        values[*slot] = array.data;
                    }
                }
            }
        }
    }
    Ok(Tape { values })
}

impl<R: Real> Tape<R> {
    /// The values handed out, in the program's order.
    pub fn outputs<'a>(&'a self, program: &'a Program) -> impl Iterator<Item = &'a [R]> {
        program.outputs.iter().map(|&s| self.values[s].as_slice())
    }

    /// The value a site reads, before quantization.
    pub fn site(&self, program: &Program, site: ProgramSite) -> &[R] {
        &self.values[program.sites[site.0]]
    }

    /// Gradients for the gradients `upstream` of the outputs.
    pub fn backward(&self, program: &Program, settings: Settings<R>, upstream: Vec<Vec<R>>) -> Result<Gradients<R>> {
        let mut grads: Vec<Option<Vec<R>>> = vec![None; program.slots.len()];
        for (&slot, g) in program.outputs.iter().zip(upstream) {
            add(&mut grads[slot], g);
        }
        let mut scales = vec![0.0; settings.grids.len()];
        let mut sites = vec![None; program.sites.len()];
        for step in program.steps.iter().rev() {
            match step {
                Step::Site { site, x, y } => {
                    let Some(g) = grads[*y].take() else { continue };
                    sites[site.0] = Some(g.clone());
                    let g = match &settings.keep[site.0] {
                        None => g,
                        Some(mask) => {
                            let (gx, gs) = unquantize(&self.values[*x], &g, &settings.grids[site.0], mask);
                            scales[site.0] += gs;
                            gx
                        }
                    };
                    if program.slots[*x].learned {
                        add(&mut grads[*x], g);
                    }
                }
                Step::Node { op, operands, results, place } => {
                    let wanted: Vec<bool> =
                        operands.iter().map(|s| s.is_some_and(|s| program.slots[s].learned)).collect();
                    let taken: Vec<Option<Vec<R>>> = results.iter().map(|s| s.and_then(|s| grads[s].take())).collect();
                    if taken.iter().all(Option::is_none) || !wanted.contains(&true) {
                        continue;
                    }
                    let operand_views = views(program, &self.values, operands);
                    let read = if ops::reads_results(op) { &results[..] } else { &[] };
                    let Some(result_views) = views(program, &self.values, read).into_iter().collect::<Option<Vec<_>>>()
                    else {
                        return Err(Error::unsupported("omitted results have no gradient").at(place));
                    };
                    let up: Vec<Option<&[R]>> = taken.iter().map(|g| g.as_deref()).collect();
                    let down =
                        ops::backward(op, &operand_views, &result_views, &up, &wanted).map_err(|e| e.at(place))?;
                    for (slot, g) in operands.iter().zip(down) {
                        if let (Some(slot), Some(g)) = (slot, g)
                            && program.slots[*slot].learned
                        {
                            add(&mut grads[*slot], g);
                        }
                    }
                }
            }
        }
        let zeros = |&s: &usize| grads[s].take().unwrap_or_else(|| vec![R::zero(); self.values[s].len()]);
        Ok(Gradients { weights: program.weights.iter().map(zeros).collect(), scales, sites })
    }
}

fn views<'a, R>(program: &'a Program, values: &'a [Vec<R>], slots: &[Option<usize>]) -> Vec<Option<View<'a, R>>> {
    let view =
        |s: usize| View { dtype: program.slots[s].dtype, shape: &program.slots[s].shape, data: values[s].as_slice() };
    slots.iter().map(|s| s.map(view)).collect()
}

fn add<R: Real>(to: &mut Option<Vec<R>>, g: Vec<R>) {
    match to {
        None => *to = Some(g),
        Some(sum) => sum.iter_mut().zip(g).for_each(|(a, b)| *a += b),
    }
}

fn parts<R: Real>(grid: &Grid) -> [R; 4] {
    [
        R::of(f64::from(grid.scale[0])),
        R::of(f64::from(grid.zero_point[0])),
        R::of(f64::from(grid.qmin)),
        R::of(f64::from(grid.qmax)),
    ]
}

/// Round half to even.
fn round<R: Real>(x: R) -> R {
    R::of(x.f64().round_ties_even())
}

/// Fake quantization where `mask` says so (everywhere when it is empty).
fn quantize<R: Real>(x: &[R], grid: &Grid, mask: &[bool]) -> Vec<R> {
    let [s, z, low, high] = parts::<R>(grid);
    let one = |v: R| ((round(v / s) + z).max(low).min(high) - z) * s;
    x.iter().enumerate().map(|(i, &v)| if mask.get(i).copied().unwrap_or(true) { one(v) } else { v }).collect()
}

/// Gradient to x, and the sum for the step (LSQ, [`lsq::backward`] without its factor), of [`quantize`].
fn unquantize<R: Real>(x: &[R], g: &[R], grid: &Grid, mask: &[bool]) -> (Vec<R>, f64) {
    let [s, z, low, high] = parts::<R>(grid);
    let mut sum = 0.0;
    let gx = x.iter().zip(g).enumerate().map(|(i, (&v, &g))| {
        if !mask.get(i).copied().unwrap_or(true) {
            return g;
        }
        let t = v / s;
        let q = round(t) + z;
        let inside = q >= low && q <= high;
        let slope = if inside { q - z - t } else { q.max(low).min(high) - z };
        sum += slope.f64() * g.f64();
        if inside { g } else { R::zero() }
    });
    let gx = gx.collect();
    (gx, sum)
}
