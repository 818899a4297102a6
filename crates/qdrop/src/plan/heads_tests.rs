use super::heads::{Head, heads};
use super::view::View;
use super::{Part, Recipe, Scope, Target, plan};
use crate::engine::facts::{self, Facts};
use crate::graph::testing::{Builder, window};
use crate::graph::{Binary, Dim, Graph, NodeId, Op, Unary, ValueId, Window};
use crate::tensor::Tensor;

/// Channels of backbone and neck.
const WIDTH: usize = 4;
/// Values that a detector gives for each position.
const VALUES: usize = 6;

fn half(b: &mut Builder, x: ValueId) -> ValueId {
    let window = Window { kernel: vec![2, 2], strides: vec![2, 2], ..window(vec![0; 4]) };
    b.node(Op::MaxPool { window, ceil_mode: false }, &[x])
}

/// Feature maps of three sizes; the neck hands the middle one on to the smallest too.
fn maps(b: &mut Builder) -> [ValueId; 3] {
    let x = b.images(3, 16);
    let first = b.conv_relu("stem", x, 3, WIDTH, 3);
    let second = half(b, first);
    let second = b.conv_relu("second", second, WIDTH, WIDTH, 3);
    let third = half(b, second);
    let third = b.conv_relu("third", third, WIDTH, WIDTH, 1);
    [first, second, third]
}

/// Flattened maps side by side: `[1, VALUES, positions]`.
fn meet(b: &mut Builder, maps: &[ValueId]) -> ValueId {
    let flat = |(i, &v): (usize, &ValueId), b: &mut Builder| {
        let shape = b.graph.add_constant(&format!("flat{i}"), Tensor::i64s(vec![0, VALUES as i64, -1]));
        b.node(Op::Reshape { allowzero: false }, &[v, shape])
    };
    let flat: Vec<ValueId> = maps.iter().enumerate().map(|one| flat(one, b)).collect();
    b.node(Op::Concat { axis: 2 }, &flat)
}

/// A head of two convolutions with weights of its own for each map.
fn twins(b: &mut Builder) -> ValueId {
    let maps = maps(b);
    let ends: Vec<ValueId> = (0..3)
        .map(|i| {
            let y = b.conv_relu(&format!("head{i}.a"), maps[i], WIDTH, WIDTH, 3);
            let boxes = b.conv(&format!("head{i}.boxes"), y, WIDTH, 4, 1);
            let scores = b.conv(&format!("head{i}.scores"), y, WIDTH, VALUES - 4, 1);
            let scores = b.node(Op::Unary(Unary::Sigmoid), &[scores]);
            b.node(Op::Concat { axis: 1 }, &[boxes, scores])
        })
        .collect();
    meet(b, &ends)
}

fn facts_of(graph: &Graph) -> Facts {
    let size = |d: &Dim| if let Dim::Known(n) = d { *n } else { 1 };
    let input = graph.value(graph.inputs[0]).fact.shape.iter().flatten().map(size).collect();
    facts::infer(graph, &[input]).unwrap()
}

fn backbone_and_neck(heads: &[&str]) -> Recipe {
    let scope = Scope { part: Part::BackboneNeck, heads: heads.iter().map(|h| h.to_string()).collect() };
    Recipe { scope, ..Recipe::default() }
}

/// Names of the weights of layers in heads, each with why it is in one.
fn found(graph: &Graph, patterns: &[&str]) -> Result<Vec<(String, Head)>, String> {
    let facts = facts_of(graph);
    let (view, _) = View::new(graph, &facts);
    let found = heads(&view, &backbone_and_neck(patterns).scope).map_err(|e| e.to_string())?;
    let weight = |id: NodeId| graph.value(view.weight(id).unwrap()).name.replace(".weight", "");
    Ok(found.into_iter().map(|(id, why)| (weight(id), why)).collect())
}

#[test]
fn layers_that_follow_at_several_sizes_are_heads() {
    let mut b = Builder::new();
    let y = twins(&mut b);
    let graph = b.finish(&[y]);
    let found = found(&graph, &[]).unwrap();
    assert_eq!(found.len(), 9);
    assert!(found.iter().all(|(name, why)| name.starts_with("head") && *why == Head::Twin), "{found:?}");
}

#[test]
fn what_only_heads_read_has_no_quantizer_and_what_others_read_has_one_for_them() {
    let mut b = Builder::new();
    let y = twins(&mut b);
    let graph = b.finish(&[y]);
    let facts = facts_of(&graph);
    for target in [Target::Ort, Target::Openvino] {
        let mut recipe = backbone_and_neck(&[]);
        recipe.output.target = target;
        let plan = plan(&graph, &facts, &recipe).unwrap();
        let layers: Vec<&str> = plan.layers.iter().map(|l| graph.value(l.weight).name.as_str()).collect();
        assert_eq!(layers, ["stem.weight", "second.weight", "third.weight"]);
        assert_eq!(plan.layers[2].grid.bits, 4, "no last layer of the network");
        assert_eq!(plan.float.len(), 9);
        assert!(plan.float[0].reason.starts_with("head: "), "{:?}", plan.float[0]);
        let sites: Vec<ValueId> = plan.sites.iter().map(|s| s.value).collect();
        let relu = |weight: &str| {
            let reads = |id: &NodeId| graph.node(*id).input(1).is_some_and(|w| graph.value(w).name == weight);
            let conv = graph.node(graph.node_ids().find(reads).unwrap()).output(0).unwrap();
            let reads = |id: &NodeId| graph.node(*id).input(0) == Some(conv);
            graph.node(graph.node_ids().find(reads).unwrap()).output(0).unwrap()
        };
        assert_eq!(sites, [relu("stem.weight"), relu("second.weight")], "not what the third makes");
        for site in &plan.sites {
            let readers = site.readers.as_ref().unwrap();
            let pool = |&(id, _): &(NodeId, usize)| matches!(graph.node(id).op, Op::MaxPool { .. });
            assert!(readers.len() == 1 && readers.iter().all(pool), "{readers:?}");
        }
        let inside: usize = plan.units.iter().map(|u| u.layers.len()).sum();
        assert_eq!(inside, 3);
        assert_eq!(plan.units.iter().map(|u| u.nodes.len()).sum::<usize>(), graph.nodes.len(), "all are run");
    }
}

#[test]
fn weights_that_several_sizes_share_begin_heads() {
    let mut b = Builder::new();
    let maps = maps(&mut b);
    let maps = [0, 1, 2].map(|i| b.conv(&format!("out{i}"), maps[i], WIDTH, WIDTH, 3));
    let [w, last] = [("tower.weight", WIDTH), ("boxes.weight", VALUES)].map(|(n, c)| b.constant(n, &[c, WIDTH, 3, 3]));
    let ends = maps.map(|v| {
        let y = b.conv_with(v, w, 3);
        let y = b.relu(y);
        b.conv_with(y, last, 3)
    });
    let y = meet(&mut b, &ends);
    let graph = b.finish(&[y]);
    let found = found(&graph, &[]).unwrap();
    assert_eq!(found.len(), 6, "{found:?}");
    assert!(found.iter().all(|(name, why)| !name.starts_with("out") && *why == Head::Shared), "{found:?}");
}

#[test]
fn layers_behind_heads_are_heads() {
    let mut b = Builder::new();
    let y = twins(&mut b);
    let positions = 16 * 16 + 8 * 8 + 4 * 4;
    let y = b.linear("behind", y, positions, positions);
    let graph = b.finish(&[y]);
    let found = found(&graph, &[]).unwrap();
    assert_eq!(found.len(), 10);
    assert_eq!(found.iter().filter(|(_, why)| *why == Head::Behind).count(), 1);
}

/// Boxes and scores of 5 queries behind a decoder of two layers, as two outputs or joined to one.
fn queries(joined: bool, boxes: usize) -> Graph {
    let mut b = Builder::new();
    let mut y = b.input("x", [1, 5, WIDTH].map(Dim::Known).to_vec());
    for i in 0..4 {
        y = b.linear(&format!("decoder{i}"), y, WIDTH, WIDTH);
    }
    let scores = b.linear("scores", y, WIDTH, 3);
    let inner = b.linear("boxes0", y, WIDTH, WIDTH);
    let boxes = b.linear("boxes1", inner, WIDTH, boxes);
    let ends = match joined {
        true => vec![b.node(Op::Concat { axis: -1 }, &[boxes, scores])],
        false => vec![scores, boxes],
    };
    b.finish(&ends)
}

#[test]
fn layers_that_only_boxes_or_only_scores_need_are_heads() {
    for joined in [false, true] {
        let found = found(&queries(joined, 4), &[]).unwrap();
        let names: Vec<&str> = found.iter().map(|f| &*f.0).collect();
        assert_eq!(names, ["scores", "boxes0", "boxes1"], "{joined}");
        assert!(found.iter().all(|f| f.1 == Head::End), "{joined}: {found:?}");
    }
    let error = found(&queries(false, 5), &[]).unwrap_err();
    assert!(error.contains("no outputs are boxes and scores of the same rows; name the first layers"), "{error}");
}

#[test]
fn equal_layers_of_a_backbone_are_no_heads() {
    let mut b = Builder::new();
    let x = b.images(3, 16);
    let mut y = b.conv_relu("stem", x, 3, WIDTH, 3);
    for stage in 0..3 {
        for block in 0..2 {
            let inner = b.conv_relu(&format!("s{stage}.{block}.a"), y, WIDTH, WIDTH, 3);
            let inner = b.conv(&format!("s{stage}.{block}.b"), inner, WIDTH, WIDTH, 3);
            let sum = b.binary(Binary::Add, inner, y);
            y = b.relu(sum);
        }
        y = half(&mut b, y);
    }
    let y = b.head(y, WIDTH);
    let graph = b.finish(&[y]);
    let error = found(&graph, &[]).unwrap_err();
    assert!(error.contains("no head was found"), "{error}");
    // Blocks whose results meet on the way, as where channels are shuffled, and much follows.
    let shuffled = |b: &mut Builder, v: ValueId, name: &str| {
        let y = b.conv(name, v, WIDTH, WIDTH, 1);
        b.node(Op::Transpose { perm: vec![0, 1, 3, 2] }, &[y])
    };
    let mut b = Builder::new();
    let x = b.images(3, 16);
    let mut y = b.conv_relu("stem", x, 3, WIDTH, 3);
    for stage in 0..2 {
        y = shuffled(&mut b, y, &format!("shuffled{stage}"));
        y = half(&mut b, y);
    }
    for i in 0..3 {
        y = b.conv_relu(&format!("more{i}"), y, WIDTH, WIDTH, 3);
    }
    let y = b.head(y, WIDTH);
    assert!(found(&b.finish(&[y]), &[]).unwrap_err().contains("no head was found"));
}

#[test]
fn patterns_name_where_heads_begin() {
    let mut b = Builder::new();
    let y = twins(&mut b);
    let graph = b.finish(&[y]);
    let named = found(&graph, &["head0.a*"]).unwrap();
    let want = [("head0.a", Head::Named), ("head0.boxes", Head::Behind), ("head0.scores", Head::Behind)];
    assert_eq!(named, want.map(|(name, why)| (name.to_string(), why)));
    assert!(found(&graph, &["head0.a*", "tail*"]).unwrap_err().contains("no layer matches `tail*`"));
    assert!(found(&graph, &["stem*"]).unwrap_err().contains("every layer"));
    let facts = facts_of(&graph);
    let mut recipe = backbone_and_neck(&["head*"]);
    recipe.scope.part = Part::Network;
    assert!(plan(&graph, &facts, &recipe).unwrap_err().to_string().contains("scope.heads"));
    let mut recipe = backbone_and_neck(&[]);
    let exception = |layer: &str| super::Override { layer: layer.into(), weight_bits: Some(8), ..Default::default() };
    recipe.overrides = vec![exception("head0*")];
    let error = plan(&graph, &facts, &recipe).unwrap_err().to_string();
    assert!(error.contains("override[0].layer: `head0*` names only layers of heads"), "{error}");
    recipe.overrides = vec![exception("*")];
    assert_eq!(plan(&graph, &facts, &recipe).unwrap().layers.len(), 3);
}
