//! First grids of activations, corrected by what they do to the network's outputs.
//!
//! An observer judges a grid by the error on the tensor alone. Some tensors hold rare, huge values that matter to
//! nobody; a step chosen for them erases the rest. Here each site is quantized alone in the float network, and where
//! another step brings the outputs much closer to the float ones, it is taken.

use super::forward::{Change, ForwardPass};
use super::padding::Padding;
use super::run::{self, Cache};
use crate::calibrate::{self, Refined};
use crate::engine::device::Device;
use crate::engine::facts::Facts;
use crate::error::Result;
use crate::graph::Graph;
use crate::plan::{Plan, Site};
use crate::quant::Grid;
use crate::report::{Event, Sink, Stage};
use crate::tensor::{RowStore, Rows};

/// Distance of the network's outputs when a site alone is quantized, on the first and on the refined grid; `None` where it
/// was not measured, or where it reaches no output of real numbers.
pub(crate) type Effect = Option<(f64, f64)>;

/// The float network on some samples, and its outputs.
pub(crate) struct Measuring<'a>(pub ForwardPass<'a>, Vec<Rows>);

impl<'a> Measuring<'a> {
    /// Positions that are `padding` do not count.
    pub fn new(forward: ForwardPass<'a>, padding: Option<&Padding>, sink: &dyn Sink) -> Result<Self> {
        let wanted = forward.outputs(padding, sink)?;
        Ok(Measuring(forward, wanted))
    }

    /// Distances of the outputs when `site` alone is quantized by each of `grids`. Sites are asked for in order.
    pub fn distances<const N: usize>(&mut self, site: &Site, grids: [&Grid; N], sink: &dyn Sink) -> Result<[f64; N]> {
        let Measuring(forward, wanted) = self;
        forward.until(site.value, sink)?;
        let tail = forward.tail(Change::site(site.value, site.readers.clone()))?;
        let mut distances = [0.0; N];
        for (distance, grid) in distances.iter_mut().zip(grids) {
            *distance = forward.deviation(&tail, &[], Some(grid), wanted, sink)?.error();
        }
        Ok(distances)
    }

    /// `grid` of `site`, refined.
    pub fn refined(&mut self, site: &Site, grid: &Grid, sink: &dyn Sink) -> Result<Refined> {
        let Measuring(forward, wanted) = self;
        forward.until(site.value, sink)?;
        let tail = forward.tail(Change::site(site.value, site.readers.clone()))?;
        calibrate::refine_step(grid, |grid| Ok(forward.deviation(&tail, &[], Some(grid), wanted, sink)?.error()))
    }
}

/// Refines `grids` (one a site, in the order of `plan`) on `inputs`, of which some may be `padding`, one site after the
/// other. Sites that reach no output of real numbers keep their grid.
pub(crate) fn refine(
    (graph, facts, plan): (&Graph, &Facts, &Plan),
    (inputs, padding): (Cache, Option<&Padding>),
    device: &dyn Device,
    grids: &mut [Grid],
    sink: &mut dyn Sink,
) -> Result<Vec<Effect>> {
    let mut effects = vec![None; grids.len()];
    let store = RowStore::memory();
    let mut measuring = Measuring::new(ForwardPass::new(graph, facts, inputs, device, &store), padding, sink)?;
    let sites = measuring.0.order(plan.site_ids().map(|id| (plan.site(id).value, id)));
    for (done, &id) in sites.iter().enumerate() {
        run::go_on(sink)?;
        let site = plan.site(id);
        let refined = measuring.refined(site, &grids[id.index()], sink);
        let refined = refined.map_err(|e| e.at(format!("activation `{}`", site.name)))?;
        effects[id.index()] = Some((refined.before, refined.after));
        grids[id.index()] = refined.grid;
        sink.event(&Event::StageProgress { stage: Stage::Refine, done: done + 1, total: sites.len() });
    }
    Ok(effects)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::device::processors;
    use crate::engine::facts;
    use crate::graph::{Dim, Fact, Node, NodeId, Op, Unary};
    use crate::plan::{GridSpec, Observer, Site};
    use crate::report::Silent;
    use crate::tensor::{DType, Rows, Tensor};

    /// y = relu(x)·w + relu(x)·w, where the first of four columns is huge and has weight 0. Only one product reads the
    /// quantized r.
    fn network() -> (Graph, Plan, Cache) {
        let mut g = Graph { opset: 17, ..Graph::default() };
        let shape = |n| Some(vec![Dim::Symbol("n".into()), Dim::Known(n)]);
        let x = g.add_value("x", Fact { dtype: Some(DType::F32), shape: shape(4) });
        let w = g.add_constant("w", Tensor::f32(&[4, 2], vec![0.0, 0.0, 1.0, -1.0, 0.5, 0.25, -1.0, 1.0]));
        let [r, a, b, y] = ["r", "a", "b", "y"].map(|n| g.add_value(n, Fact::default()));
        g.nodes = vec![
            Node::new("relu", Op::Unary(Unary::Relu), &[x], &[r]),
            Node::new("a", Op::MatMul, &[r, w], &[a]),
            Node::new("b", Op::MatMul, &[r, w], &[b]),
            Node::new("y", Op::Binary(crate::graph::Binary::Add), &[a, b], &[y]),
        ];
        (g.inputs, g.outputs) = (vec![x], vec![y]);
        let grid = GridSpec { bits: 4, symmetric: false, observer: Observer::Mse, percentile: 99.99 };
        let site = |name: &str, value, readers| Site { name: name.into(), value, readers, grid };
        let sites = vec![site("y", y, None), site("r", r, Some(vec![(NodeId(1), 0)])), site("x", x, None)];
        let plan = Plan { sites, ..Plan::default() };
        let rows = (0..64).flat_map(|i| [60.0, (i % 8) as f32 / 7.0, (i % 5) as f32 / 4.0, (i % 3) as f32 / 2.0]);
        (g, plan, Cache::from([(x, Rows::new(64, rows.collect()))]))
    }

    #[test]
    fn values_that_matter_to_nobody_do_not_set_the_step() {
        let (graph, plan, inputs) = network();
        let facts = facts::infer(&graph, &[vec![1, 4]]).unwrap();
        let wide = Grid::per_tensor(4, 4.0, 0).unwrap();
        let mut grids = vec![Grid::per_tensor(4, 0.25, 8).unwrap(), wide.clone(), wide];
        let device = processors(1).unwrap();
        let effects = refine((&graph, &facts, &plan), (inputs, None), &device, &mut grids, &mut Silent).unwrap();
        assert!(effects.iter().all(|e| e.is_some_and(|(first, refined)| refined <= first)), "{effects:?}");
        for grid in &grids[1..] {
            assert!((0.06..0.2).contains(&grid.scale[0]), "{grid:?}");
        }
        assert!((0.25..0.5).contains(&grids[0].scale[0]) && grids[0].zero_point == [8], "{:?}", grids[0]);
    }

    #[test]
    fn a_site_that_reaches_no_output_keeps_its_grid() {
        let (mut graph, plan, inputs) = network();
        graph.outputs = vec![graph.inputs[0]];
        let facts = facts::infer(&graph, &[vec![1, 4]]).unwrap();
        let before = vec![Grid::per_tensor(4, 4.0, 0).unwrap(); 3];
        let mut grids = before.clone();
        let effects =
            refine((&graph, &facts, &plan), (inputs, None), &processors(1).unwrap(), &mut grids, &mut Silent).unwrap();
        assert!(effects[..2].iter().all(Option::is_none), "{effects:?}");
        assert_eq!(grids[..2], before[..2]);
    }
}
