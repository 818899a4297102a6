use super::factors::*;
use super::{Recipe, Target, plan};
use crate::engine::facts;
use crate::graph::testing::Builder;
use crate::graph::{Binary, Graph, Op, Unary, ValueId};
use crate::tensor::Tensor;

/// What is raised of -20, -6 and minus infinity at `value`, whose shape is [1, 3, 1, 1].
fn raised(graph: &Graph, value: ValueId) -> Option<Vec<f32>> {
    let facts = facts::infer(graph, &[vec![1, 3, 1, 1]]).unwrap();
    let floor = floors(graph, &facts)[value.0 as usize].clone()?;
    let mut values = vec![-20.0, -6.0, f32::NEG_INFINITY];
    floor.raise(&[1, 3, 1, 1], &mut values);
    Some(values)
}

/// `x`, multiplied by `factors` where there are some, then the function that `end` adds.
fn through(factors: Option<Tensor>, end: &dyn Fn(&mut Builder, ValueId) -> Vec<ValueId>) -> Option<Vec<f32>> {
    let mut b = Builder::new();
    let x = b.images(3, 1);
    let v = match factors {
        Some(factors) => {
            let factors = b.graph.add_constant("factors", factors);
            b.binary(Binary::Mul, x, factors)
        }
        None => x,
    };
    let outputs = end(&mut b, v);
    raised(&b.finish(&outputs), x)
}

#[test]
fn values_that_a_function_erases_need_not_be_told_apart() {
    const LOW: f32 = f32::NEG_INFINITY;
    let silu = |b: &mut Builder, v: ValueId| {
        let gate = b.node(Op::Unary(Unary::Sigmoid), &[v]);
        vec![b.binary(Binary::Mul, v, gate)]
    };
    let one = |u: Unary| move |b: &mut Builder, v: ValueId| vec![b.node(Op::Unary(u), &[v])];
    assert_eq!(through(None, &silu), Some(vec![-8.0, -6.0, LOW]), "infinity stays an error");
    assert_eq!(through(None, &one(Unary::Gelu { tanh: false })), Some(vec![-5.0, -5.0, LOW]));
    assert_eq!(through(None, &one(Unary::HardSwish)), Some(vec![-3.0, -3.0, LOW]));
    assert_eq!(through(None, &one(Unary::Swish { alpha: 2.0 })), None);
    assert_eq!(through(None, &one(Unary::Relu)), None);
    let gate_too = |b: &mut Builder, v: ValueId| {
        let mut outputs = silu(b, v);
        outputs.push(b.graph.nodes[b.graph.nodes.len() - 2].outputs[0].unwrap());
        outputs
    };
    assert_eq!(through(None, &gate_too), None, "the gate is an output");
    let factors = |shape: &[usize], values: Vec<f32>| Some(Tensor::f32(shape, values));
    assert_eq!(through(factors(&[1, 3, 1, 1], vec![1.0, 4.0, 2.0]), &silu), Some(vec![-8.0, -2.0, LOW]));
    assert_eq!(through(factors(&[1, 3, 1, 1], vec![1.0, -4.0, 2.0]), &silu), None);
    assert_eq!(through(factors(&[3, 1, 1], vec![1.0, 4.0, 2.0]), &silu), None);
    assert_eq!(through(factors(&[1, 1, 1, 2], vec![1.0, 4.0]), &silu), None, "it makes the tensor larger");
    assert_eq!(through(factors(&[1, 1, 1, 0], vec![]), &silu), None);
}

/// Halves that are taken apart and joined again and again: twice as many ways with each pair of nodes.
#[test]
fn ways_to_layers_that_are_too_many_are_given_up() {
    let reason = |pairs: usize| {
        let mut b = Builder::new();
        let x = b.images(3, 4);
        let y = b.conv("a", x, 3, 4, 1);
        let site = b.relu(y);
        let mut y = site;
        for i in 0..pairs {
            let parts = [0, 1].map(|k| b.graph.add_value(&format!("part {i} {k}"), Default::default()));
            let split = crate::graph::Node::new(format!("split {i}"), Op::Split { axis: 1 }, &[y], &parts);
            b.graph.nodes.push(split);
            y = b.node(Op::Concat { axis: 1 }, &parts);
        }
        let y = b.conv("last", y, 4, 2, 1);
        let graph = b.finish(&[y]);
        let facts = facts::infer(&graph, &[vec![1, 3, 4, 4]]).unwrap();
        let plan = plan(&graph, &facts, &Recipe::default()).unwrap();
        let at = plan.sites.iter().position(|s| s.value == site).unwrap();
        factor_sites(&graph, &facts, &plan, Target::Ort).swap_remove(at).err()
    };
    assert_eq!(reason(0), None);
    assert_eq!(reason(1), Some("a layer reads it twice"));
    assert_eq!(reason(60), Some("too many nodes lie between it and layers"));
}

/// As many nodes one behind the other as would not fit on a stack.
#[test]
fn long_chains_are_followed_without_a_stack() {
    let mut b = Builder::new();
    let x = b.images(3, 1);
    let y = b.conv("a", x, 3, 4, 1);
    let mut y = b.relu(y);
    for _ in 0..20_000 {
        y = b.node(Op::Transpose { perm: vec![0, 1, 3, 2] }, &[y]);
    }
    let y = b.conv("last", y, 4, 2, 1);
    let graph = b.finish(&[y]);
    let facts = facts::infer(&graph, &[vec![1, 3, 1, 1]]).unwrap();
    let plan = plan(&graph, &facts, &Recipe::default()).unwrap();
    assert!(factor_sites(&graph, &facts, &plan, Target::Ort).iter().all(Result::is_err));
}
