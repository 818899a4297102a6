//! Plans do not depend on which of the orders in which a network can run its file has.

use super::tests::{check, residual};
use super::{Plan, Recipe, plan, sequence_tests};
use crate::engine::facts::infer;
use crate::engine::philox::Stream;
use crate::graph::{Graph, NodeId};
use crate::passes::{InputShapes, simplify};

/// `graph` with its nodes in another order in which they can run.
fn shuffled(graph: &Graph, seed: u64) -> Graph {
    let producers = graph.producers();
    let draws = Stream::new(seed, 0, 0, 0).below(graph.nodes.len(), 1 << 20);
    let mut left: Vec<NodeId> = graph.node_ids().collect();
    let mut order: Vec<NodeId> = Vec::new();
    for draw in draws {
        let ready = |id: &NodeId| {
            let mut before = graph.node(*id).inputs.iter().flatten().filter_map(|v| producers[v.0 as usize]);
            before.all(|p| order.contains(&p))
        };
        let ready: Vec<NodeId> = left.iter().copied().filter(ready).collect();
        let next = ready[draw % ready.len()];
        left.retain(|id| *id != next);
        order.push(next);
    }
    let nodes = order.iter().map(|id| graph.node(*id).clone()).collect();
    Graph { nodes, ..graph.clone() }
}

fn planned(graph: &Graph) -> Plan {
    let shapes = InputShapes::declared().concrete(graph, 1).unwrap();
    let plan = plan(graph, &infer(graph, &shapes).unwrap(), &Recipe::default()).unwrap();
    check(graph, &plan);
    plan
}

/// Units by names: of themselves, their nodes, and what they read and give.
fn units(graph: &Graph, plan: &Plan) -> Vec<[String; 4]> {
    let values = |all: &[crate::graph::ValueId]| {
        let mut names: Vec<&str> = all.iter().map(|&v| graph.value(v).name.as_str()).collect();
        names.sort();
        names.join(" ")
    };
    let nodes = |all: &[NodeId]| all.iter().map(|&id| graph.node_name(id)).collect::<Vec<_>>().join(" ");
    (plan.units.iter()).map(|u| [u.name.clone(), nodes(&u.nodes), values(&u.inputs), values(&u.outputs)]).collect()
}

#[test]
fn any_order_of_the_nodes_gives_the_same_units() {
    for graph in [residual(), sequence_tests::network(false), sequence_tests::network(true)] {
        let simple = |graph: &Graph| {
            let mut graph = graph.clone();
            simplify(&mut graph, &InputShapes::declared()).unwrap();
            let plan = planned(&graph);
            units(&graph, &plan)
        };
        let want = simple(&graph);
        for seed in 0..40 {
            let other = shuffled(&graph, seed);
            assert_eq!(simple(&other), want, "seed {seed}");
            // Units can run too where nothing brought the nodes in order.
            planned(&other);
        }
    }
}
