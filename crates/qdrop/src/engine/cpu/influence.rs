//! How far rounding single values would move the outputs of a program, to first order, for all of them at once.

use super::Threads;
use super::math::{sum, vectorized};
use super::pass::{Quantizer, quantized};
use super::sensitivity::probe;
use crate::engine::device::{OutputError, Progress};
use crate::engine::program::{Program, ProgramSite};
use crate::error::Result;
use crate::quant::Grid;
use crate::tensor::Rows;

/// Of one group of samples.
#[derive(Debug, Clone, Default)]
struct Found {
    /// Per site: its elements, until their gradient is known.
    values: Vec<Vec<f32>>,
    /// Per site and grid: squared error of the outputs.
    errors: Vec<Option<Vec<f64>>>,
}

/// [`Device::influence`](crate::engine::device::Device::influence).
pub(super) fn influence(
    threads: &Threads,
    program: &Program,
    inputs: &[Rows],
    outputs: &[OutputError],
    grids: &[Vec<Grid>],
    seed: u64,
    progress: Progress,
) -> Result<Vec<Option<Vec<f64>>>> {
    let sites = program.sites.len();
    let quantizers: Vec<Vec<Quantizer>> = grids.iter().map(|g| g.iter().map(Quantizer::new).collect()).collect();
    let groups = probe(
        (program, inputs, outputs, seed),
        threads,
        progress,
        || Found { values: vec![Vec::new(); sites], errors: vec![None; sites] },
        |found, site, group| found.values[site.0] = group.all().to_vec(),
        |found, site, group| {
            let x = std::mem::take(&mut found.values[site.0]);
            let inner = group.inner().max(1);
            let error = |quantizer: &Quantizer| {
                let mut changes = vec![0.0; group.samples()];
                for (row, (g, x)) in group.all().chunks_exact(inner).zip(x.chunks_exact(inner)).enumerate() {
                    changes[row % group.samples()] += vectorized(
                        #[inline(always)]
                        || sum(g, x, |g, x| g * (quantized(x, *quantizer) - x)),
                    );
                }
                changes.iter().map(|c| c * c).sum::<f64>()
            };
            found.errors[site.0] = Some(quantizers[site.0].iter().map(error).collect());
        },
    )?;
    let total = |site: ProgramSite| {
        let mut total = vec![0.0; quantizers[site.0].len()];
        for found in &groups {
            total.iter_mut().zip(found.errors[site.0].as_ref()?).for_each(|(t, e)| *t += e);
        }
        Some(total)
    };
    Ok((0..sites).map(ProgramSite).map(total).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::facts;
    use crate::engine::program::{Region, compile};
    use crate::graph::{Dim, Fact, Graph, Node, Op};
    use crate::tensor::{DType, Tensor};

    /// Standard deviations that an estimate may be off.
    const DEVIATIONS: f64 = 4.0;

    #[test]
    fn estimates_are_what_rounding_does_to_the_outputs() {
        let mut g = Graph { opset: 17, ..Graph::default() };
        let shape = Some(vec![Dim::Symbol("n".into()), Dim::Known(3)]);
        let x = g.add_value("x", Fact { dtype: Some(DType::F32), shape });
        let w = [[0.0, 0.0], [1.0, -1.0], [0.5, 2.0]];
        let weight = g.add_constant("w", Tensor::f32(&[3, 2], w.concat()));
        let y = g.add_value("y", Fact::default());
        g.nodes = vec![Node::new("y", Op::MatMul, &[x, weight], &[y])];
        (g.inputs, g.outputs) = (vec![x], vec![y]);
        let facts = facts::infer(&g, &[vec![1, 3]]).unwrap();
        let (nodes, sites) = (g.node_ids().collect(), vec![(x, None)]);
        let region = Region { nodes, inputs: vec![x], outputs: vec![y], sites, ..Region::default() };
        let program = compile(&g, &facts, &region).unwrap();
        let n = 2000;
        let x: Vec<f32> = (0..3 * n).map(|i| ((i * 7919) % 1009) as f32 / 1009.0).collect();
        let grids: Vec<Grid> = [0.25, 1.0].map(|s| Grid::per_tensor(2, s, 0).unwrap()).to_vec();
        let threads = Threads::default();
        let rows = [Rows::new(n, x.clone())];
        let outputs = [OutputError { size: 2.0, weights: None }];
        let found =
            influence(&threads, &program, &rows, &outputs, std::slice::from_ref(&grids), 1, &mut |_| Ok(())).unwrap();
        for (grid, found) in grids.iter().zip(found[0].as_ref().unwrap()) {
            let mut squares = Vec::new();
            for row in x.chunks(3) {
                let error =
                    grid.fake_quantize(&[3], row).unwrap().iter().zip(row).map(|(q, x)| q - x).collect::<Vec<_>>();
                let out = |o: usize| error.iter().zip(&w).map(|(e, w)| f64::from(e * w[o])).sum::<f64>() / 2.0;
                squares.push(out(0).powi(2) + out(1).powi(2));
            }
            let want: f64 = squares.iter().sum();
            // (vᵀ·J·e)² of two outputs deviates from |J·e|² by at most as much.
            let deviation = squares.iter().map(|s| s * s).sum::<f64>().sqrt();
            assert!((found - want).abs() < DEVIATIONS * deviation, "{found} against {want} ± {deviation}");
        }
    }
}
