//! Plans of small networks of every kind, and rules that hold for any graph.

use super::*;
use crate::engine::facts::infer;
use crate::graph::testing::{Builder, window};
use crate::graph::{Binary, Dim, Fact, Node, Unary};
use crate::tensor::Tensor;

fn planned(graph: &Graph, recipe: &Recipe) -> Plan {
    let shapes = crate::passes::InputShapes::declared().concrete(graph, 1).unwrap();
    let facts = infer(graph, &shapes).unwrap();
    let plan = plan(graph, &facts, recipe).unwrap();
    check(graph, &plan);
    plan
}

/// Units can run in order, hold each node once, and every layer and site has its unit.
pub(super) fn check(graph: &Graph, plan: &Plan) {
    let mut ready: BTreeSet<ValueId> = graph.inputs.iter().copied().collect();
    let mut nodes = BTreeSet::new();
    for unit in &plan.units {
        assert!(unit.inputs.iter().all(|v| ready.contains(v)), "unit {} reads what is not there yet", unit.name);
        assert!(unit.nodes.is_sorted() && !unit.nodes.is_empty());
        assert!(unit.nodes.iter().all(|&n| nodes.insert(n)), "a node in two units");
        ready.extend(&unit.outputs);
    }
    assert!(graph.outputs.iter().all(|v| ready.contains(v)));
    let names: BTreeSet<&str> = plan.units.iter().map(|u| u.name.as_str()).collect();
    assert_eq!(names.len(), plan.units.len());
    let layers: Vec<LayerId> = plan.units.iter().flat_map(|u| u.layers.iter().copied()).collect();
    assert_eq!(layers.iter().collect::<BTreeSet<_>>().len(), layers.len());
    let known = |l: &LayerId| plan.units.iter().any(|u| u.layers.contains(l) || u.fixed.contains(l));
    assert!(plan.layer_ids().all(|l| known(&l)), "a layer without a unit");
    let sites: BTreeSet<SiteId> = plan.units.iter().flat_map(|u| u.sites.iter().copied()).collect();
    assert_eq!(sites.len(), plan.sites.len());
}

/// Units as lists of operators.
pub(super) fn units(graph: &Graph, plan: &Plan) -> Vec<String> {
    let kinds = |u: &Unit| u.nodes.iter().map(|&n| graph.node(n).op.kind()).collect::<Vec<_>>().join(" ");
    plan.units.iter().map(kinds).collect()
}

fn sites(plan: &Plan) -> Vec<(&str, u32)> {
    plan.sites.iter().map(|s| (s.name.as_str(), s.grid.bits)).collect()
}

fn max_pool(b: &mut Builder, x: ValueId) -> ValueId {
    let mut window = window(vec![]);
    window.kernel = vec![1, 1];
    b.node(Op::MaxPool { window, ceil_mode: false }, &[x])
}

/// Stem, pooling, a block with projection and one without, classifier.
pub(super) fn residual() -> Graph {
    let mut b = Builder::new();
    let x = b.images(3, 4);
    let x = b.conv_relu("conv1", x, 3, 4, 3); // v0, v1
    let x = max_pool(&mut b, x); // v2
    let y = b.conv_relu("layer1.0.conv1", x, 4, 6, 3); // v3, v4
    let y = b.conv("layer1.0.conv2", y, 6, 6, 3); // v5
    let d = b.conv("layer1.0.down", x, 4, 6, 1); // v6
    let y = b.binary(Binary::Add, y, d); // v7
    let x = b.relu(y); // v8
    let y = b.conv_relu("layer1.1.conv1", x, 6, 6, 3); // v9, v10
    let y = b.conv("layer1.1.conv2", y, 6, 6, 3); // v11
    let y = b.binary(Binary::Add, y, x); // v12
    let y = b.relu(y); // v13
    let y = b.head(y, 6); // v14, v15, v16
    b.finish(&[y])
}

#[test]
fn residual_blocks_by_producer() {
    let graph = residual();
    let plan = planned(&graph, &Recipe::default());
    assert_eq!(
        units(&graph, &plan),
        [
            "Conv Relu",
            "MaxPool",
            "Conv Relu Conv Conv Add Relu",
            "Conv Relu Conv Add Relu",
            "GlobalAveragePool Flatten",
            "Gemm"
        ]
    );
    let names: Vec<_> = plan.units.iter().map(|u| u.name.as_str()).collect();
    assert_eq!(names, ["conv1", "n2", "layer1.0", "layer1.1", "n14", "fc"]);
    assert_eq!(sites(&plan), [("v1", 4), ("v4", 4), ("v8", 4), ("v10", 4), ("v13", 8)]);
    let bits: Vec<u32> = plan.layers.iter().map(|l| l.grid.bits).collect();
    assert_eq!(bits, [8, 4, 4, 4, 4, 4, 8]);
    assert!(plan.layers.iter().all(|l| l.axis == Some(0)));
    assert!(plan.sites.iter().all(|s| s.readers.is_none()));
    let block = &plan.units[2];
    assert_eq!(block.multiply_adds, 16 * (4 * 6 * 9 + 6 * 6 * 9 + 4 * 6));
    assert_eq!(block.parameters, 4 * 6 * 9 + 6 * 6 * 9 + 4 * 6);
    assert_eq!(block.cache_bytes, 4 * 16 * (2 * 4 + 6));
}

#[test]
fn residual_blocks_by_consumer() {
    let graph = residual();
    let mut recipe = Recipe::default();
    recipe.activations.placement = Some(Placement::Consumer);
    let plan = planned(&graph, &recipe);
    let want = [("x", 8), ("v2", 4), ("v4", 4), ("v5", 4), ("v6", 4), ("v8", 4), ("v10", 4), ("v11", 4), ("v15", 8)];
    assert_eq!(sites(&plan), want);
    assert!(plan.sites.iter().all(|s| s.readers.is_none()));
    assert_eq!(plan.units[0].sites, [SiteId(0)]);
}

#[test]
fn the_first_output_at_eight_bits_and_float_networks() {
    let graph = residual();
    let mut recipe = Recipe::default();
    recipe.activations.first_output_8bit = true;
    assert_eq!(sites(&planned(&graph, &recipe))[0], ("v1", 8));
    recipe.activations.bits = 32;
    assert_eq!(planned(&graph, &recipe).sites, []);
    recipe.weights.bits = 32;
    let plan = planned(&graph, &recipe);
    assert_eq!(plan.layers, []);
    assert_eq!(plan.float.len(), 7);
    assert_eq!((&*plan.float[0].node, &*plan.float[0].reason), ("n0", "the recipe sets 32 bits"));
}

#[test]
fn layer_by_layer_the_sum_goes_with_the_last_layer() {
    let graph = residual();
    let mut recipe = Recipe::default();
    recipe.method.name = MethodName::Adaround;
    let plan = planned(&graph, &recipe);
    let want = [
        "Conv Relu",
        "MaxPool",
        "Conv Relu",
        "Conv",
        "Conv Add Relu",
        "Conv Relu",
        "Conv Add Relu",
        "GlobalAveragePool Flatten",
        "Gemm",
    ];
    assert_eq!(units(&graph, &plan), want);
}

#[test]
fn exceptions_by_name_and_forced_boundaries() {
    let graph = residual();
    let text = "[units]\ncut_after = [\"n3\"]\n[[override]]\nlayer = \"layer1.1*\"\nweight_bits = 6\nactivation_bits = 5\n\
                [[override]]\nlayer = \"n11\"\nweight_bits = 32\nweight_symmetric = true\n";
    let plan = planned(&graph, &Recipe::from_toml(text).unwrap());
    assert_eq!(units(&graph, &plan)[2..5], ["Conv Relu", "Conv", "Conv Add Relu"]);
    let bits: Vec<u32> = plan.layers.iter().map(|l| l.grid.bits).collect();
    assert_eq!(bits, [8, 4, 4, 4, 6, 8]);
    assert_eq!(sites(&plan)[3..], [("v10", 5), ("v13", 5)]);
    let float: Vec<_> = plan.float.iter().map(|f| (&*f.node, &*f.reason)).collect();
    assert_eq!(float, [("n11", "the recipe sets 32 bits")]);

    let refused = |text: &str| {
        let facts = infer(&graph, &[vec![1, 3, 4, 4]]).unwrap();
        super::plan(&graph, &facts, &Recipe::from_toml(text).unwrap()).unwrap_err().to_string()
    };
    assert_eq!(
        refused("[units]\ncut_after = [\"n3\", \"conv9*\"]"),
        "units.cut_after: no node matches `conv9*`; `qdrop plan` lists the layers' names"
    );
    let message = refused("[[override]]\nlayer = \"n99\"\nweight_bits = 4");
    assert!(message.starts_with("override[0].layer: no layer matches `n99`; "), "{message}");
}

/// expand, depthwise (here dense), project, with or without shortcut.
fn inverted(b: &mut Builder, name: &str, x: ValueId, residual: bool) -> ValueId {
    let y = b.conv_relu(&format!("{name}expand"), x, 4, 4, 1);
    let y = b.conv_relu(&format!("{name}depthwise"), y, 4, 4, 3);
    let y = b.conv(&format!("{name}project"), y, 4, 4, 1);
    if residual { b.binary(Binary::Add, x, y) } else { y }
}

fn mobile(names: [&str; 7]) -> Graph {
    let mut b = Builder::new();
    let x = b.images(3, 4);
    let x = b.conv_relu(names[0], x, 3, 4, 3);
    let x = b.conv_relu(names[1], x, 4, 4, 3);
    let x = b.conv(names[2], x, 4, 4, 1);
    let x = inverted(&mut b, names[3], x, false);
    let x = inverted(&mut b, names[4], x, true);
    let x = inverted(&mut b, names[6], x, false);
    let x = b.conv_relu(names[5], x, 4, 4, 1);
    let y = b.head(x, 4);
    b.finish(&[y])
}

const INVERTED: &str = "Conv Relu Conv Relu Conv";

#[test]
fn inverted_residuals_by_structure_alone() {
    let graph = mobile(["a", "b", "c", "d", "e", "f", "g"]);
    let plan = planned(&graph, &Recipe::default());
    let add = format!("{INVERTED} Add");
    let want =
        ["Conv Relu", "Conv Relu Conv", INVERTED, &add, INVERTED, "Conv Relu", "GlobalAveragePool Flatten", "Gemm"];
    assert_eq!(units(&graph, &plan), want);
    // A linear layer has a site of its own, one that only feeds a sum leaves it to the sum.
    let names: Vec<_> = plan.sites.iter().map(|s| s.name.as_str()).collect();
    assert_eq!(names, ["v1", "v3", "v4", "v6", "v8", "v9", "v11", "v13", "v15", "v17", "v19", "v20", "v22"]);
}

#[test]
fn module_names_tell_a_stem_from_a_block() {
    let graph = mobile(["layers.0", "layers.3", "layers.6", "layers.8.0.", "layers.8.1.", "layers.14", "layers.9.0."]);
    let plan = planned(&graph, &Recipe::default());
    let add = format!("{INVERTED} Add");
    let want =
        ["Conv Relu", "Conv Relu", "Conv", INVERTED, &add, INVERTED, "Conv Relu", "GlobalAveragePool Flatten", "Gemm"];
    assert_eq!(units(&graph, &plan), want);
    let names: Vec<_> = plan.units.iter().map(|u| u.name.as_str()).collect();
    assert_eq!(names[1..6], ["layers.3", "layers.6", "layers.8.0", "layers.8.1", "layers.9"]);
}

#[test]
fn gates_functions_of_several_nodes_and_joined_branches() {
    let mut b = Builder::new();
    let x = b.images(3, 4);
    let x = b.conv_relu("a", x, 3, 4, 3); // v0, v1
    // Squeeze and excitation behind a SiLU written as a product.
    let y = b.conv("b", x, 4, 4, 3); // v2
    let s = b.node(Op::Unary(Unary::Sigmoid), &[y]); // v3
    let y = b.binary(Binary::Mul, y, s); // v4
    let g = b.node(Op::GlobalAveragePool, &[y]); // v5
    let g = b.conv_relu("c", g, 4, 2, 1); // v6, v7
    let g = b.conv("d", g, 2, 4, 1); // v8
    let g = b.node(Op::Unary(Unary::Sigmoid), &[g]); // v9
    let y = b.binary(Binary::Mul, y, g); // v10
    let x = b.conv("e", y, 4, 4, 1); // v11
    // Branches that are joined.
    let p = b.conv_relu("p", x, 4, 2, 1); // v12, v13
    let q = max_pool(&mut b, x); // v14
    let q = b.conv_relu("q", q, 4, 2, 1); // v15, v16
    let j = b.node(Op::Concat { axis: 1 }, &[p, q]); // v17
    let y = b.head(j, 4);
    let graph = b.finish(&[y]);
    let plan = planned(&graph, &Recipe::default());
    let want = [
        "Conv Relu",
        "Conv Sigmoid Mul GlobalAveragePool Conv Relu Conv Sigmoid Mul Conv",
        "Conv Relu MaxPool Conv Relu Concat",
        "GlobalAveragePool Flatten",
        "Gemm",
    ];
    assert_eq!(units(&graph, &plan), want);
    let want = [("v1", 4), ("v4", 4), ("v7", 4), ("v10", 4), ("v11", 4), ("v13", 8), ("v16", 8)];
    assert_eq!(sites(&plan), want);
}

/// Convolutions behind a float operand or in front of a float function are no integer kernels and need no quantizers.
#[test]
fn an_activation_that_the_recipe_leaves_float_takes_the_quantizers_of_its_kernels_along() {
    let mut b = Builder::new();
    let silu = |b: &mut Builder, y: ValueId| {
        let s = b.node(Op::Unary(Unary::Sigmoid), &[y]);
        b.binary(Binary::Mul, y, s)
    };
    let mut x = b.images(3, 4);
    for (name, from) in [("a", 3), ("b", 4), ("c", 4)] {
        x = b.conv(name, x, from, 4, 3); // v0, v3, v6
        x = silu(&mut b, x); // v1 and v2, v4 and v5, v7 and v8
    }
    let y = b.conv("d", x, 4, 4, 1);
    let graph = b.finish(&[y]);
    let quantized = |float: Option<&str>, bits: u32| {
        let mut recipe = Recipe::default();
        recipe.activations.bits = 8;
        let (activation, activation_bits) = (float.map(str::to_string), Some(bits));
        recipe.overrides.extend(float.map(|_| Override { activation, activation_bits, ..Override::default() }));
        let plan = planned(&graph, &recipe);
        let names = |sites: &[Site]| sites.iter().map(|s| s.name.clone()).collect::<Vec<_>>().join(" ");
        (names(&plan.sites), names(&plan.kernel_sites))
    };
    let of = |sites: &str, kernels: &str| (sites.to_string(), kernels.to_string());
    assert_eq!(quantized(None, 8), of("v2 v5 v8", "x v0 v1 v3 v4 v6 v7"));
    assert_eq!(quantized(Some("v2"), 32), of("v5 v8", "x v6 v7"));
    assert_eq!(quantized(Some("v5"), 32), of("v2 v8", "x v0 v1"));
    assert_eq!(quantized(Some("v2"), 16), of("v2 v5 v8", "x v6 v7"));
}

#[test]
fn a_normalisation_before_a_layer_is_quantized_and_belongs_to_that_layer() {
    let mut b = Builder::new();
    let x = b.images(3, 4);
    let f0 = b.conv_relu("stem", x, 3, 4, 3); // v0, v1
    let y = b.norm("n1", f0, 4); // v2
    let y = b.relu(y); // v3
    let f1 = b.conv("d1", y, 4, 4, 3); // v4
    let j1 = b.node(Op::Concat { axis: 1 }, &[f0, f1]); // v5
    let y = b.norm("n2", j1, 8); // v6
    let y = b.relu(y); // v7
    let f2 = b.conv("d2", y, 8, 4, 3); // v8
    let j2 = b.node(Op::Concat { axis: 1 }, &[f0, f1, f2]); // v9
    let y = b.head(j2, 12);
    let graph = b.finish(&[y]);
    let plan = planned(&graph, &Recipe::default());
    let block = "BatchNormalization Relu Conv";
    let joined = format!("Concat {block}");
    let want = ["Conv Relu", block, &joined, "Concat GlobalAveragePool Flatten", "Gemm"];
    assert_eq!(units(&graph, &plan), want);
    assert_eq!(sites(&plan), [("v1", 8), ("v3", 4), ("v4", 8), ("v7", 4), ("v8", 8)]);
}

#[test]
fn long_skips_are_extra_inputs_and_outputs() {
    let mut b = Builder::new();
    let x = b.images(3, 4);
    let mut x = b.conv_relu("in", x, 3, 4, 3);
    let mut skips = Vec::new();
    for level in 0..5 {
        let y = b.conv_relu(&format!("down{level}a"), x, 4, 4, 3);
        let y = b.conv_relu(&format!("down{level}b"), y, 4, 4, 3);
        skips.push(y);
        x = max_pool(&mut b, y);
    }
    for (level, skip) in skips.into_iter().enumerate().rev() {
        let j = b.node(Op::Concat { axis: 1 }, &[x, skip]);
        let y = b.conv_relu(&format!("up{level}a"), j, 8, 4, 3);
        x = b.conv_relu(&format!("up{level}b"), y, 4, 4, 3);
    }
    let y = b.conv("out", x, 4, 2, 1);
    let graph = b.finish(&[y]);
    let plan = planned(&graph, &Recipe::default());
    assert!(plan.units.iter().all(|u| u.layers.len() <= 12));
    assert!(plan.units.iter().any(|u| u.inputs.len() > 1));
    // The innermost levels close within 12 layers; around them units follow each other down and up again.
    assert!(plan.units.len() >= 9, "{:?}", units(&graph, &plan));
}

#[test]
fn a_shared_weight_is_one_layer() {
    let mut b = Builder::new();
    let x = b.images(3, 4);
    let x = b.conv_relu("a", x, 3, 4, 3);
    let w = b.constant("w", &[4, 4, 3, 3]);
    let y = b.conv_with(x, w, 3);
    let y = b.relu(y);
    let y = b.conv_with(y, w, 3);
    let y = b.head(y, 4);
    let graph = b.finish(&[y]);
    let plan = planned(&graph, &Recipe::default());
    assert_eq!(plan.layers.len(), 3);
    assert_eq!(plan.layers[1].nodes.len(), 2);
}

#[test]
fn what_cannot_be_run_is_carried_and_refused_where_nothing_stands_before_it() {
    let opaque = || Op::Opaque { domain: "com.example".into(), kind: "Strange".into() };
    let mut b = Builder::new();
    let x = b.images(3, 4);
    let y = b.node(opaque(), &[x]);
    let y = b.conv_relu("a", y, 3, 4, 3);
    let y = b.head(y, 4);
    let graph = b.finish(&[y]);
    let facts = infer(&graph, &[vec![1, 3, 4, 4]]).unwrap();
    let error = super::plan(&graph, &facts, &Recipe::default()).unwrap_err();
    assert_eq!(error.kind(), crate::Kind::Unsupported);
    assert!(error.to_string().starts_with("node `n0` (Strange): this operator cannot be run"), "{error}");

    let mut b = Builder::new();
    let x = b.images(3, 4);
    let y = b.conv_relu("a", x, 3, 4, 3);
    let y = b.node(Op::Opaque { domain: String::new(), kind: "BatchNormalization".into() }, &[y]);
    let y = b.head(y, 4);
    let graph = b.finish(&[y]);
    let facts = infer(&graph, &[vec![1, 3, 4, 4]]).unwrap();
    let error = super::plan(&graph, &facts, &Recipe::default()).unwrap_err();
    assert!(error.to_string().starts_with("node `n2` (BatchNormalization): the operator is in training"), "{error}");

    // What lies before is quantized, the layers behind stay float.
    let mut b = Builder::new();
    let x = b.images(3, 4);
    let y = b.conv_relu("a", x, 3, 4, 3);
    let y = b.conv_relu("b", y, 4, 4, 3);
    let y = b.node(opaque(), &[y]);
    let y = b.conv_relu("c", y, 4, 4, 3);
    let y = b.head(y, 4);
    let graph = b.finish(&[y]);
    let facts = infer(&graph, &[vec![1, 3, 4, 4]]).unwrap();
    let plan = super::plan(&graph, &facts, &Recipe::default()).unwrap();
    assert_eq!(plan.layers.iter().map(|l| l.name.as_str()).collect::<Vec<_>>(), ["n0", "n2"]);
    assert_eq!(plan.sites.len(), 1, "what the operator reads stays float");
    assert_eq!(plan.float.len(), graph.nodes.len() - 4);
    let note = "2 layers stay float because they depend on operators that cannot be run here, the first is node `n4` \
                (Strange)";
    assert_eq!(plan.note(&graph).as_deref(), Some(note));
    assert_eq!(plan.units.iter().map(|u| u.nodes.len()).sum::<usize>(), 4);

    let mut b = Builder::new();
    let x = b.images(3, 4);
    let y = b.conv_relu("a", x, 3, 4, 3);
    let y = b.head(y, 4);
    let z = b.node(opaque(), &[y]);
    let z = b.relu(z);
    let graph = b.finish(&[z]);
    let facts = infer(&graph, &[vec![1, 3, 4, 4]]).unwrap();
    let plan = super::plan(&graph, &facts, &Recipe::default()).unwrap();
    assert_eq!(plan.units.iter().map(|u| u.nodes.len()).sum::<usize>(), graph.nodes.len() - 2);
    let float: Vec<_> = plan.float.iter().map(|f| f.node.as_str()).collect();
    assert_eq!(float, ["n5", "n6"]);

    let mut b = Builder::new();
    let x = b.images(3, 4);
    let y = b.relu(x);
    let graph = b.finish(&[y]);
    let facts = infer(&graph, &[vec![1, 3, 4, 4]]).unwrap();
    assert!(super::plan(&graph, &facts, &Recipe::default()).is_err());

    let mut b = Builder::new();
    let x = b.images(3, 4);
    let y = b.conv_relu("a", x, 3, 4, 3);
    let mut graph = b.finish(&[y]);
    let facts = infer(&graph, &[vec![1, 3, 4, 4]]).unwrap();
    let weight = graph.value_ids().find(|&v| graph.constant(v).is_some_and(|t| t.rank() == 4)).unwrap();
    let half = Tensor::from_f64(crate::tensor::DType::F16, &[4, 3, 3, 3], &[0.5; 108]).unwrap();
    graph.value_mut(weight).constant = Some(std::sync::Arc::new(half));
    let error = super::plan(&graph, &facts, &Recipe::default()).unwrap_err();
    assert!(error.to_string().contains("expected float32 weights, got F16"), "{error}");
}

#[test]
fn any_graph_is_cut_into_units_that_run_in_order() {
    for seed in 0..300u64 {
        let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) + 1;
        let mut next = |n: usize| {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (state >> 33) as usize % n
        };
        let mut b = Builder::new();
        let x = b.images(2, 2);
        let mut values = vec![x];
        for i in 0..5 + next(40) {
            let recent = values.len().saturating_sub(4);
            let mut pick =
                || if next(4) == 0 { values[next(values.len())] } else { values[recent + next(values.len() - recent)] };
            let (p, q) = (pick(), pick());
            values.push(match next(8) {
                0..4 => b.conv(&format!("m{}.c{i}", i / 3), p, 2, 2, 1),
                4 => b.relu(p),
                5 => b.binary(Binary::Add, p, q),
                6 => b.binary(Binary::Mul, p, q),
                _ => max_pool(&mut b, p),
            });
        }
        let y = *values.last().unwrap();
        let y = b.conv("last", y, 2, 2, 1);
        let mut graph = b.finish(&[y]);
        crate::passes::simplify(&mut graph, &crate::passes::InputShapes::declared()).unwrap();
        for placement in [Placement::Producer, Placement::Consumer] {
            for granularity in [Granularity::Block, Granularity::Layer] {
                let mut recipe = Recipe::default();
                recipe.activations.placement = Some(placement);
                recipe.units.granularity = Some(granularity);
                recipe.units.max_layers = 1 + next(12);
                planned(&graph, &recipe);
            }
        }
    }
}

/// A stage that `convs` convolutions of half of the channels run through, the other half around.
fn half_around(convs: usize) -> Graph {
    let mut b = Builder::new();
    let x = b.images(3, 4);
    let x = b.conv_relu("stem", x, 3, 8, 3);
    let [around, mut y] = ["around", "through"].map(|n| b.graph.add_value(n, Fact::default()));
    b.graph.nodes.push(Node::new("split", Op::Split { axis: 1 }, &[x], &[around, y]));
    for i in 0..convs {
        y = b.conv_relu(&format!("stage.{i}"), y, 4, 4, 3);
    }
    let y = b.node(Op::Concat { axis: 1 }, &[around, y]);
    let y = b.head(y, 8);
    b.finish(&[y])
}

#[test]
fn ways_from_the_parts_of_a_split_make_a_block_unless_one_is_long() {
    let cut = |convs: usize| {
        let graph = half_around(convs);
        units(&graph, &planned(&graph, &Recipe::default()))
    };
    let end = ["GlobalAveragePool Flatten", "Gemm"];
    assert_eq!(cut(3), ["Conv Relu", "Split Conv Relu Conv Relu Conv Relu Concat", end[0], end[1]]);
    let long = ["Conv Relu", "Split", "Conv Relu Conv Relu Conv Relu", "Conv Relu"];
    assert_eq!(cut(4), [&long[..], &["Concat GlobalAveragePool Flatten", "Gemm"]].concat());
}

#[test]
fn what_is_moved_and_scaled_towards_a_sum_is_left_to_it_and_its_result_is_quantized_once() {
    let mut b = Builder::new();
    let x = b.images(3, 4);
    let x = b.conv_relu("stem", x, 3, 4, 3); // v0, v1
    let y = b.conv_relu("a", x, 4, 4, 3); // v2, v3
    let y = b.conv("b", y, 4, 4, 1); // v4
    let turn = Op::Transpose { perm: vec![0, 1, 3, 2] };
    let y = b.node(turn.clone(), &[y]); // v5
    let gain = b.constant("gain", &[4, 1, 1]);
    let y = b.binary(Binary::Mul, y, gain); // v6
    let y = b.binary(Binary::Add, x, y); // v7
    let y = b.node(turn, &[y]); // v8
    let half = b.graph.add_constant("half", Tensor::scalar(0.5));
    let y = b.binary(Binary::Mul, y, half); // v9
    let y = b.conv_relu("c", y, 4, 4, 3); // v10, v11
    let y = b.head(y, 4);
    let graph = b.finish(&[y]);
    let plan = planned(&graph, &Recipe::default());
    assert_eq!(sites(&plan), [("v1", 4), ("v3", 4), ("v7", 4), ("v11", 8)]);
    assert_eq!(units(&graph, &plan)[1], "Conv Relu Conv Transpose Mul Add");
}

#[test]
fn what_is_moved_to_a_layers_sum_belongs_to_the_layer() {
    // Two levels of a pyramid, the coarse one first.
    let mut b = Builder::new();
    let x = b.images(3, 4);
    let z = b.input("z", vec![Dim::Symbol("n".into()), Dim::Known(3), Dim::Known(4), Dim::Known(4)]);
    let x = b.conv_relu("stem1", x, 3, 4, 3); // v0, v1
    let z = b.conv_relu("stem2", z, 3, 4, 3); // v2, v3
    let coarse = b.conv("inner2", z, 4, 4, 1); // v4
    let low = b.conv_relu("low", coarse, 4, 4, 3); // v5, v6
    let fine = b.conv("inner1", x, 4, 4, 1); // v7
    let grown = max_pool(&mut b, coarse); // v8
    let sum = b.binary(Binary::Add, fine, grown); // v9
    let high = b.conv_relu("high", sum, 4, 4, 3); // v10, v11
    let graph = b.finish(&[low, high]);
    let plan = planned(&graph, &Recipe::default());
    assert!(units(&graph, &plan).contains(&"Conv MaxPool Add".to_string()), "{:?}", units(&graph, &plan));
    let unit = plan.units.iter().find(|u| u.nodes.len() == 3).unwrap();
    assert_eq!((unit.inputs.len(), unit.outputs.len(), unit.sites.len()), (2, 1, 1));
}

#[test]
fn biases_name_layers_whose_weights_have_lost_their_names() {
    let mut b = Builder::new();
    let mut x = b.input("x", vec![Dim::Symbol("n".into()), Dim::Known(4)]);
    for (i, name) in ["enter", "block.up", "block.down", "leave"].iter().enumerate() {
        let (weight, bias) = (b.constant(&format!("val_{i}"), &[4, 4]), b.constant(&format!("{name}.bias"), &[4]));
        let y = b.node(Op::MatMul, &[x, weight]);
        let y = b.binary(Binary::Add, y, bias);
        x = b.relu(y);
    }
    let graph = b.finish(&[x]);
    let two = Override { layer: "block.*".into(), weight_bits: Some(2), ..Override::default() };
    let recipe = Recipe { overrides: vec![two], ..Recipe::default() };
    let plan = planned(&graph, &recipe);
    let names: Vec<_> = plan.units.iter().map(|u| u.name.as_str()).collect();
    assert_eq!(names, ["enter", "block", "leave"]);
    assert_eq!(plan.layers.iter().map(|l| l.grid.bits).collect::<Vec<_>>(), [8, 2, 2, 8]);
}
