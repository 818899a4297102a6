//! Costs of plans, and choices of bits against trying all of them.

use super::tests::residual;
use super::*;
use crate::engine::facts::infer;
use crate::engine::philox::Stream;
use crate::graph::testing::Builder;
use crate::graph::{Binary, Dim};

fn facts_of(graph: &Graph) -> Facts {
    let shapes = crate::passes::InputShapes::declared().concrete(graph, 1).unwrap();
    infer(graph, &shapes).unwrap()
}

fn recipe(candidates: &[u32], size: Option<&str>, bitops: Option<&str>) -> Recipe {
    let (size, bitops) = (size.map(|s| s.parse().unwrap()), bitops.map(|b| b.parse().unwrap()));
    Recipe {
        mixed: Mixed { candidates: candidates.to_vec(), size, bitops, first_last: false, samples: 8 },
        ..Recipe::default()
    }
}

/// Errors that fall with bits, more or less, of everything in the plan of `graph`.
fn sensitivity(graph: &Graph, recipe: &Recipe, seed: u64) -> Sensitivity {
    let plan = plan(graph, &facts_of(graph), &Recipe { mixed: Mixed::default(), ..recipe.clone() }).unwrap();
    let draws = Stream::new(seed, 0, 0, 0).below(1000, 1000);
    let errors = |i: usize| {
        let error = |bits: u32| {
            (1 + draws[i]) as f64 * 4f64.powi(-(bits as i32)) * (1.0 + draws[i + bits as usize] as f64 / 500.0)
        };
        (2..=8).map(|bits| BitError { bits, error: error(bits), agreement: None }).collect()
    };
    let curve = |(i, name, value): (usize, &String, &String)| Curve {
        name: name.clone(),
        value: value.clone(),
        elements: 1,
        errors: errors(10 * i),
    };
    let layers = plan.layers.iter().enumerate().map(|(i, l)| curve((i, &l.name, &graph.value(l.weight).name)));
    let sites = plan.sites.iter().enumerate().map(|(i, s)| curve((i + 40, &s.name, &s.name)));
    Sensitivity {
        schema: Sensitivity::SCHEMA,
        model: "m".into(),
        samples: 8,
        biases_corrected: true,
        share: None,
        layers: layers.collect(),
        activations: sites.collect(),
    }
}

/// The plan by what was chosen, and bits of its layers and sites.
fn chosen(graph: &Graph, recipe: &Recipe, measured: &Sensitivity) -> (Chosen, Plan) {
    let facts = facts_of(graph);
    let chosen = choose(graph, &facts, recipe, measured).unwrap();
    let text = recipe.with(&chosen).to_toml().unwrap();
    let again = Recipe::from_toml(&text).unwrap();
    assert!(again == recipe.with(&chosen) && !again.mixed.wanted(), "{text}");
    let plan = plan(graph, &facts, &again).unwrap();
    assert_eq!(cost(graph, &facts, &plan), chosen.cost);
    (chosen, plan)
}

fn bits(plan: &Plan) -> (Vec<u32>, Vec<u32>) {
    (plan.layers.iter().map(|l| l.grid.bits).collect(), plan.sites.iter().map(|s| s.grid.bits).collect())
}

#[test]
fn costs_count_every_weight_and_product() {
    let graph = residual();
    let facts = facts_of(&graph);
    let plan_of = |recipe: &Recipe| plan(&graph, &facts, recipe).unwrap();
    // conv1, layer1.0 (conv1, conv2, down), layer1.1 (conv1, conv2), fc.
    let weights = [3 * 4 * 9, 4 * 6 * 9, 6 * 6 * 9, 4 * 6, 6 * 6 * 9, 6 * 6 * 9, 60];
    let found = cost(&graph, &facts, &plan_of(&Recipe::default()));
    let edges = weights[0] + weights[6];
    let inner: u64 = weights[1..6].iter().sum();
    assert_eq!(found.weight_bytes, (8 * edges + 4 * inner) / 8);
    // The input is float, the last site has 8 bits, each convolution runs at 16 places.
    assert_eq!(found.bit_operations, 16 * (weights[0] * 8 * 32 + inner * 16) + weights[6] * 64);
    let down = Override { layer: "layer1.0.down*".into(), weight_bits: Some(32), ..Override::default() };
    let float = Recipe { overrides: vec![down], ..Recipe::default() };
    let (kept, with) = (cost(&graph, &facts, &plan_of(&float)), weights[3]);
    assert_eq!(kept.weight_bytes, found.weight_bytes + with * (32 - 4) / 8);
    assert_eq!(kept.bit_operations, found.bit_operations + 16 * with * 4 * (32 - 4));
}

#[test]
fn no_choice_is_better() {
    let graph = residual();
    let facts = facts_of(&graph);
    let candidates = [2, 3, 6];
    for (seed, size, bitops) in [
        (0, Some("w3"), None),
        (1, None, Some("w3a3")),
        (2, Some("w3.5"), Some("w3a3")),
        (3, Some("640B"), Some("800k")),
    ] {
        let recipe = recipe(&candidates, size, bitops);
        let measured = sensitivity(&graph, &recipe, seed);
        let (chosen, plan) = chosen(&graph, &recipe, &measured);
        let within = |cost: &Cost| {
            chosen.most_weight_bytes.is_none_or(|most| cost.weight_bytes <= most)
                && chosen.most_bit_operations.is_none_or(|most| cost.bit_operations <= most)
        };
        assert!(within(&chosen.cost), "{chosen:?}");
        let error = |plan: &Plan| -> f64 {
            let (layers, sites) = bits(plan);
            let of = |(curve, &bits): (&Curve, &u32)| curve.error(bits).unwrap();
            measured.layers.iter().zip(&layers).map(of).sum::<f64>()
                + measured.activations.iter().zip(&sites).map(of).sum::<f64>()
        };
        assert!((error(&plan) - chosen.predicted_error).abs() < 1e-9);
        let (layers, sites) = bits(&plan);
        assert_eq!((layers[0], layers[6], sites[4]), (8, 8, 8), "first and last keep theirs");
        assert!(bitops.is_some() || sites[..4] == [4; 4], "activations are chosen for bit operations alone");
        // Every other choice within the targets is as bad or worse.
        let free_sites = if bitops.is_some() { 4 } else { 0 };
        let work = cost::Work::new(&view::View::new(&graph, &facts).0, &plan);
        let mut tried = plan.clone();
        for number in 0..candidates.len().pow(5 + free_sites) {
            let digit = |i: usize| candidates[number / candidates.len().pow(i as u32) % candidates.len()];
            (0..5).for_each(|i| tried.layers[i + 1].grid.bits = digit(i));
            (0..free_sites as usize).for_each(|i| tried.sites[i].grid.bits = digit(i + 5));
            let (layers, sites) = bits(&tried);
            let layer = |l: LayerId| f64::from(layers[l.index()]);
            let site = |s: SiteId| f64::from(sites[s.index()]);
            let cost = Cost {
                weight_bytes: (work.size(layer) / 8.0).ceil() as u64,
                bit_operations: work.bitops(layer, site) as u64,
            };
            assert!(!within(&cost) || error(&tried) >= chosen.predicted_error - 1e-9, "{seed}: {layers:?} {sites:?}");
        }
    }
}

#[test]
fn first_and_last_layers_choose_too() {
    let graph = residual();
    let facts = facts_of(&graph);
    let candidates = [2, 4, 8];
    let mut recipe = recipe(&candidates, Some("w4"), None);
    let measured = sensitivity(&graph, &recipe, 0);
    let (kept, _) = chosen(&graph, &recipe, &measured);
    recipe.mixed.first_last = true;
    let (open, plan) = chosen(&graph, &recipe, &measured);
    // The target is what 4 bits take with the first and the last layer at 8.
    let uniform = cost(&graph, &facts, &super::plan(&graph, &facts, &Recipe::default()).unwrap());
    assert_eq!(open.most_weight_bytes, Some(uniform.weight_bytes));
    assert_eq!((open.most_weight_bytes, open.exceptions.len()), (kept.most_weight_bytes, 7));
    assert!(open.predicted_error < kept.predicted_error);
    let error = |layers: &[u32]| -> f64 {
        measured.layers.iter().zip(layers).map(|(curve, &bits)| curve.error(bits).unwrap()).sum()
    };
    let best = error(&bits(&plan).0);
    for number in 0..candidates.len().pow(7) {
        let digit = |i: usize| candidates[number / candidates.len().pow(i as u32) % candidates.len()];
        let layers: Vec<u32> = (0..7).map(digit).collect();
        let size: u64 = plan
            .layers
            .iter()
            .zip(&layers)
            .map(|(l, &b)| (l.shape.iter().product::<usize>() as u64) * u64::from(b))
            .sum();
        assert!(size > 8 * uniform.weight_bytes || error(&layers) >= best - 1e-9, "{layers:?}");
    }
    // What is to stay float has no choice; with bit operations the last activation has one.
    recipe.weights.first_last_bits = 32;
    recipe.mixed.bitops = Some("w4a4".parse().unwrap());
    let asked = measure(&graph, &facts, &recipe).unwrap();
    assert_eq!((asked.layers.len(), &asked.sites[4]), (5, &candidates.to_vec()));
    recipe.mixed.first_last = false;
    assert_eq!(measure(&graph, &facts, &recipe).unwrap().sites[4], [8]);
}

#[test]
fn what_meets_in_a_product_has_one_width() {
    let graph = super::sequence_tests::network(false);
    let tokens = vec![vec![1, super::sequence_tests::SIZES.0]; 2];
    let facts = infer(&graph, &tokens).unwrap();
    let recipe = recipe(&[2, 4, 8], None, Some("w4a4"));
    let base = plan(&graph, &facts, &Recipe::default()).unwrap();
    let curve = |name: &str, value: &str, i: usize| Curve {
        name: name.into(),
        value: value.into(),
        elements: 1,
        errors: [2, 4, 8]
            .map(|bits| BitError { bits, error: (i % 5 + 1) as f64 / f64::from(bits), agreement: None })
            .to_vec(),
    };
    let layers = base.layers.iter().enumerate().map(|(i, l)| curve(&l.name, &graph.value(l.weight).name, i));
    let sites = base.sites.iter().enumerate().map(|(i, s)| curve(&s.name, &s.name, i * 3));
    let measured = Sensitivity {
        schema: Sensitivity::SCHEMA,
        model: String::new(),
        samples: 1,
        biases_corrected: false,
        share: None,
        layers: layers.collect(),
        activations: sites.collect(),
    };
    let chosen = choose(&graph, &facts, &recipe, &measured).unwrap();
    assert!(chosen.cost.bit_operations <= chosen.most_bit_operations.unwrap());
    let plan = plan(&graph, &facts, &recipe.with(&chosen)).unwrap();
    // Of each encoder layer: queries, keys, values, shares.
    let (layers, sites) = bits(&plan);
    for first in [1, 9] {
        assert_eq!((sites[first], sites[first + 2]), (sites[first + 1], sites[first + 3]), "{sites:?}");
    }
    let mut seen = sites.clone();
    seen.dedup();
    assert!(seen.len() > 2, "all alike: {sites:?}");
    assert_eq!((layers[0], layers[13]), (8, 8), "the table and the head keep theirs");
}

#[test]
fn tables_choose_too() {
    let graph = super::sequence_tests::network(false);
    let tokens = vec![vec![1, super::sequence_tests::SIZES.0]; 2];
    let facts = infer(&graph, &tokens).unwrap();
    let mut recipe = recipe(&[2, 4, 8], Some("w4"), None);
    recipe.mixed.first_last = true;
    let base = plan(&graph, &facts, &Recipe::default()).unwrap();
    let curve = |l: &Layer| Curve {
        name: l.name.clone(),
        value: graph.value(l.weight).name.clone(),
        elements: 1,
        errors: [2, 4, 8].map(|bits| BitError { bits, error: 1.0 / f64::from(bits), agreement: None }).to_vec(),
    };
    let site = |s: &Site| Curve { name: s.name.clone(), value: s.name.clone(), elements: 1, errors: vec![] };
    let measured = Sensitivity {
        schema: Sensitivity::SCHEMA,
        model: String::new(),
        samples: 1,
        biases_corrected: false,
        share: None,
        layers: base.layers.iter().map(curve).collect(),
        activations: base.sites.iter().map(site).collect(),
    };
    let chosen = choose(&graph, &facts, &recipe, &measured).unwrap();
    let plan = plan(&graph, &facts, &recipe.with(&chosen)).unwrap();
    let (layers, _) = bits(&plan);
    assert_eq!(
        (chosen.exceptions.len(), chosen.exceptions[0].layer.as_str()),
        (layers.len(), plan.layers[0].name.as_str())
    );
    assert!(layers[0] < 8 && cost(&graph, &facts, &plan) == chosen.cost, "{layers:?}");
}

/// Two branches, joined before a layer.
fn joined() -> Graph {
    let mut b = Builder::new();
    let x = b.images(3, 4);
    let x = b.conv_relu("stem", x, 3, 4, 3); // v0, v1
    let l = b.conv_relu("left", x, 4, 4, 1); // v2, v3
    let r = b.conv_relu("right", x, 4, 4, 3); // v4, v5
    let x = b.node(Op::Concat { axis: 1 }, &[l, r]);
    let x = b.conv_relu("join", x, 8, 4, 3); // v7, v8
    let x = b.head(x, 4);
    b.finish(&[x])
}

#[test]
fn joined_values_have_one_width_and_given_ones_count() {
    let graph = joined();
    let mut recipe = recipe(&[2, 3, 4, 8], None, Some("w3a3"));
    let measured = sensitivity(&graph, &recipe, 5);
    let (_, plan) = chosen(&graph, &recipe, &measured);
    let (_, sites) = bits(&plan);
    assert_eq!(plan.sites.iter().map(|s| s.name.as_str()).collect::<Vec<_>>(), ["v1", "v3", "v5", "v8"]);
    assert_eq!(sites[1], sites[2]);
    // An exception takes one of them out; the layer behind is as wide as the wider.
    recipe.overrides =
        vec![Override { activation: Some("v3".into()), activation_bits: Some(7), ..Override::default() }];
    let (_, plan) = chosen(&graph, &recipe, &measured);
    assert_eq!(bits(&plan).1[1], 7);
    let facts = facts_of(&graph);
    let least = |recipe: &Recipe| {
        let mut recipe = recipe.clone();
        recipe.mixed.bitops = Some("1k".parse().unwrap());
        super::plan(&graph, &facts, &recipe).unwrap_err().to_string()
    };
    let products = [3 * 4 * 9, 4 * 4, 4 * 4 * 9, 8 * 4 * 9].map(|n| 16 * n);
    let want = products[0] * 8 * 32 + (products[1] + products[2]) * 4 + products[3] * 2 * 7 + 40 * 64;
    let found = least(&recipe);
    assert!(found.starts_with(&format!("mixed.bitops: expected at least {want}, with 2 bits wherever")), "{found}");
}

#[test]
fn what_cannot_be_is_refused() {
    let graph = residual();
    let facts = facts_of(&graph);
    let refused = |recipe: &Recipe| plan(&graph, &facts, recipe).unwrap_err().to_string();
    let small = recipe(&[3, 4], Some("400B"), None);
    let least = cost(
        &graph,
        &facts,
        &plan(&graph, &facts, &Recipe { weights: Weights { bits: 3, ..Weights::default() }, ..Recipe::default() })
            .unwrap(),
    );
    let want = format!(
        "mixed.size: expected at least {}B, with 3 bits wherever there is a choice, got 400B; raise the target",
        least.weight_bytes
    );
    assert!(refused(&small).starts_with(&want), "{}", refused(&small));
    let just = recipe(&[3, 4], Some(&format!("{}B", least.weight_bytes)), None);
    assert!(plan(&graph, &facts, &just).is_ok());
    for (change, want) in [
        (
            (|r: &mut Recipe| r.weights.bits = 32) as fn(&mut Recipe),
            "weights.bits: expected 2 to 8 with a target for size or bit operations, got 32",
        ),
        (|r| r.mixed.candidates.clear(), "mixed.candidates: expected bits to choose from, got none"),
        (|r| r.mixed.candidates.push(9), "mixed.candidates: expected 2 to 8, got 9"),
        (|r| r.mixed.samples = 0, "mixed.samples: expected at least 1, got 0"),
        (
            |r| (r.activations.bits, r.mixed.bitops) = (32, Some(BitopsTarget::Bits(4.0, 4.0))),
            "activations.bits: expected 2 to 8 with a target of uniform bits, got 32",
        ),
        (
            |r| r.overrides.push(Override { layer: "*".into(), weight_bits: Some(5), ..Override::default() }),
            "mixed: no layer has a choice of bits",
        ),
    ] {
        let mut recipe = recipe(&[2, 4], Some("w3"), None);
        change(&mut recipe);
        assert!(refused(&recipe).starts_with(want), "{}", refused(&recipe));
    }
    let mut float = recipe(&[2, 4], None, Some("10M"));
    float.activations.bits = 32;
    assert!(plan(&graph, &facts, &float).is_ok(), "bits of weights alone can meet a count");
}

#[test]
fn measurements_must_be_of_this_network_and_these_candidates() {
    let graph = residual();
    let facts = facts_of(&graph);
    let recipe = recipe(&[2, 4], Some("w3"), None);
    let good = sensitivity(&graph, &recipe, 0);
    let refused = |change: &dyn Fn(&mut Sensitivity)| {
        let mut measured = good.clone();
        change(&mut measured);
        choose(&graph, &facts, &recipe, &measured).unwrap_err().to_string()
    };
    let found = refused(&|m| m.layers[2].value = "other".into());
    assert!(found.starts_with("layer `n5`: its sensitivity was not measured"), "{found}");
    let found = refused(&|m| m.layers[2].errors.retain(|e| e.bits != 2));
    assert!(
        found.starts_with("sensitivity of `n5`: expected the error with 2 bits, which was not measured"),
        "{found}"
    );
    let found = refused(&|m| m.layers[1].errors[0].error = f64::NAN);
    assert!(found.starts_with("layer `n3`: expected errors of 0 or more, got NaN for 2 bits"), "{found}");
    // A layer that no output depends on keeps the recipe's bits.
    let mut unseen = good.clone();
    unseen.layers[2].errors.clear();
    let (chosen, plan) = chosen(&graph, &recipe, &unseen);
    assert_eq!((bits(&plan).0[2], chosen.exceptions.len()), (4, 4));
}

#[test]
fn layers_of_one_name_are_told_apart_by_their_weights() {
    let mut graph = residual();
    for node in &mut graph.nodes {
        node.name = "node".into();
    }
    let recipe = recipe(&[2, 3, 4], Some("w3"), None);
    let measured = sensitivity(&graph, &recipe, 9);
    let (chosen, _) = chosen(&graph, &recipe, &measured);
    assert_eq!(chosen.exceptions[0].layer, "layer1.0.conv1.weight");
    // Two layers on one weight are one; where no name is left the layer cannot be named.
    let star = |v: &crate::graph::Value| v.name == "layer1.0.conv1.weight";
    graph.values.iter_mut().filter(|v| star(v)).for_each(|v| v.name = "layer1*".into());
    let error = plan(&graph, &facts_of(&graph), &recipe).unwrap_err().to_string();
    assert!(error.contains("another layer has the same name"), "{error}");
}

#[test]
fn activations_can_be_named() {
    let graph = residual();
    let facts = facts_of(&graph);
    let with = |o: Override| plan(&graph, &facts, &Recipe { overrides: vec![o], ..Recipe::default() });
    let named = |pattern: &str, bits| Override {
        activation: Some(pattern.into()),
        activation_bits: Some(bits),
        ..Override::default()
    };
    assert_eq!(bits(&with(named("v8", 3)).unwrap()).1, [4, 4, 3, 4, 8]);
    assert_eq!(bits(&with(named("v1*", 5)).unwrap()).1, [5, 4, 4, 5, 5]);
    assert_eq!(with(named("v8", 32)).unwrap().sites.len(), 4);
    let error = with(named("v99", 3)).unwrap_err().to_string();
    assert!(error.starts_with("override[0].activation: no activation matches `v99`"), "{error}");
    let both = Override { layer: "n3".into(), weight_bits: Some(6), ..named("v8", 3) };
    let (layers, sites) = bits(&with(both).unwrap());
    assert_eq!((layers[1], sites[1], sites[2]), (6, 3, 3));
    let error = with(Override { weight_bits: Some(2), ..named("v8", 3) }).unwrap_err().to_string();
    assert!(error.starts_with("override[0].layer: expected a pattern for the layer of the weight"), "{error}");
}

#[test]
fn one_weight_read_twice_is_one_choice() {
    let mut b = Builder::new();
    let x = b.input("x", vec![Dim::Symbol("n".into()), Dim::Known(4), Dim::Known(4), Dim::Known(4)]);
    let x = b.conv_relu("stem", x, 4, 4, 3); // v0, v1
    let w = b.constant("shared.weight", &[4, 4, 3, 3]);
    let y = b.conv_with(x, w, 3); // v2
    let y = b.relu(y); // v3
    let z = b.conv_with(y, w, 3); // v4
    let z = b.binary(Binary::Add, z, x); // v5
    let z = b.head(z, 4);
    let graph = b.finish(&[z]);
    let recipe = recipe(&[2, 3, 4, 8], None, Some("w3a3"));
    let measured = sensitivity(&graph, &recipe, 3);
    let (chosen, plan) = chosen(&graph, &recipe, &measured);
    assert_eq!(plan.layers.len(), 3);
    let (_, sites) = bits(&plan);
    assert_eq!(sites[0], sites[1], "its operands have one width");
    assert!(chosen.cost.bit_operations <= chosen.most_bit_operations.unwrap());
}

#[test]
fn bits_are_chosen_within_what_a_target_takes() {
    let graph = residual();
    for (target, candidates, activations) in [(Target::Qnn, vec![4, 8], 16), (Target::Tensorrt, vec![8], 8)] {
        let mut recipe = recipe(&candidates, Some("w8"), None);
        (recipe.output.target, recipe.weights.bits, recipe.activations.bits) = (target, 8, activations);
        let (chosen, plan) = chosen(&graph, &recipe, &sensitivity(&graph, &recipe, 3));
        assert!(chosen.exceptions.iter().all(|o| o.weight_bits.is_some_and(|b| candidates.contains(&b))));
        assert!(bits(&plan).1.iter().all(|&b| b == activations), "{target}: {:?}", bits(&plan));
    }
}
