//! The table of rules: what it says is what the program does, and what the documentation shows.

use super::rules::{EVERY, RULES, Rule};
use super::*;
use crate::engine::facts::infer;
use crate::graph::testing::{Builder, window};
use crate::graph::{Binary, Dim, Node, Unary};
use crate::passes::InputShapes;
use std::fmt::Write;
use std::path::{Path, PathBuf};

const PAGE: &str = "../../docs/deploy.md";
const BEGIN: &str = "<!-- rules: written by a test, see CONTRIBUTING.md -->\n";
const END: &str = "<!-- end of rules -->\n";
/// Rules that decide nothing by target: the writer of ONNX files, which knows neither targets nor this module, follows the
/// first; of the second the plan only tells.
const NOT_ASKED_FOR: [&str; 2] = ["empty-scales", "new-opsets"];

fn library() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

/// The text of every file below `folder`, with its name.
fn files(folder: &Path, into: &mut Vec<(String, String)>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files(&path, into);
        } else if path.extension().is_some_and(|e| e == "rs") {
            let name = path.file_name().unwrap().to_str().unwrap().to_string();
            into.push((name, std::fs::read_to_string(path).unwrap()));
        }
    }
}

fn source() -> Vec<(String, String)> {
    let mut all = Vec::new();
    files(&library(), &mut all);
    all.retain(|(name, _)| name != "rules.rs" && name != "rules_tests.rs");
    all
}

/// What a rule is called in the source.
fn constant(rule: &Rule) -> String {
    rule.name.to_uppercase().replace('-', "_")
}

fn table() -> String {
    let mut text = String::from("| what | for | what the runtime makes of it | seen in | what qdrop does |\n");
    text.push_str("|---|---|---|---|---|\n");
    for r in RULES {
        let targets: Vec<String> = r.targets.iter().map(|t| format!("`{t}`")).collect();
        let targets = if r.targets == EVERY { "all".into() } else { targets.join(", ") };
        let cells = [r.pattern, &targets, r.effect, r.versions, r.remedy].map(|c| c.replace('|', "\\|"));
        writeln!(text, "| {} |", cells.join(" | ")).unwrap();
    }
    text
}

#[test]
fn the_documentation_shows_the_table() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(PAGE);
    let page = std::fs::read_to_string(&path).unwrap().replace("\r\n", "\n");
    let (before, rest) = page.split_once(BEGIN).unwrap();
    let (old, after) = rest.split_once(END).unwrap();
    let new = format!("\n{}\n", table());
    if std::env::var_os("QDROP_UPDATE_RULES").is_some() {
        return std::fs::write(path, format!("{before}{BEGIN}{new}{END}{after}")).unwrap();
    }
    assert!(old == new, "docs/deploy.md is stale: run this test with QDROP_UPDATE_RULES=1");
}

#[test]
fn every_rule_is_in_the_table_asked_for_and_tested() {
    let declared = std::fs::read_to_string(library().join("plan/rules.rs")).unwrap();
    assert_eq!(declared.matches(": Rule = Rule {").count(), RULES.len(), "a rule is not in RULES");
    let all = source();
    let code = |line: &&str| !line.trim_start().starts_with("//");
    for rule in RULES {
        let constant = constant(rule);
        assert!(declared.contains(&format!("const {constant}: Rule =")), "{} is declared as another name", rule.name);
        let asks = format!("rules::{constant}");
        let asked = |text: &str| text.lines().filter(code).any(|line| line.contains(&asks));
        let asked = all.iter().any(|(_, text)| asked(text));
        assert_eq!(asked, !NOT_ASKED_FOR.contains(&rule.name), "whether any code asks for {constant}");
        let test = format!("#[test]\nfn {}()", rule.test);
        let indented = format!("#[test]\n    fn {}()", rule.test);
        let tested = all.iter().any(|(_, text)| text.contains(&test) || text.contains(&indented));
        let here = include_str!("rules_tests.rs").contains(&test);
        assert!(tested || here, "no test `{}` for {}", rule.test, rule.name);
    }
    let writer = all.iter().find(|(name, text)| name == "writer.rs" && text.contains("EMPTY_SCALES"));
    assert!(writer.is_some(), "the writer names the rule that it follows");
}

fn recipe(target: Target, bits: u32) -> Recipe {
    let mut recipe = Recipe::default();
    recipe.output.target = target;
    (recipe.weights.bits, recipe.activations.bits, recipe.weights.first_last_bits) = (bits, bits, bits);
    recipe
}

fn planned(graph: &Graph, recipe: &Recipe) -> Plan {
    let shapes = InputShapes::declared().concrete(graph, 1).unwrap();
    plan(graph, &infer(graph, &shapes).unwrap(), recipe).unwrap()
}

fn hits(graph: &Graph, recipe: &Recipe) -> Vec<(String, &'static str)> {
    let hits = planned(graph, recipe).hits(graph, recipe.output);
    hits.into_iter().map(|h| (h.place, h.rule.name)).collect()
}

/// Two products with stacks of two matrices, with a Relu between them.
fn stacks() -> Graph {
    let mut b = Builder::new();
    let mut x = b.input("x", [2, 3, 4].map(Dim::Known).to_vec());
    for name in ["first", "second"] {
        let w = b.constant(name, &[2, 4, 4]);
        x = b.node(Op::MatMul, &[x, w]);
        x = b.relu(x);
    }
    b.finish(&[x])
}

#[test]
fn stacks_of_matrices_have_one_step_where_runtimes_need_it() {
    let graph = stacks();
    for target in [Target::Ort, Target::Openvino, Target::Tensorrt, Target::Qonnx, Target::Qnn] {
        let plan = planned(&graph, &recipe(target, 8));
        let one = rules::STACKED_STEPS.applies(target);
        assert!(plan.layers.iter().all(|l| l.axis == if one { None } else { Some(2) }), "{target}");
    }
}

#[test]
fn networks_are_checked_against_the_table() {
    let stacks = stacks();
    let nodes = ["n0", "n2"];
    let of = |rule| nodes.map(|n| (n.to_string(), rule)).to_vec();
    assert_eq!(hits(&stacks, &recipe(Target::Ort, 8)), of("stacked-weights"));
    assert_eq!(hits(&stacks, &recipe(Target::Openvino, 8)), of("stacked-steps"));
    assert!(hits(&stacks, &recipe(Target::Qnn, 8)).is_empty());
    let mut whole = recipe(Target::Ort, 8);
    whole.weights.per_channel = false;
    assert!(hits(&stacks, &whole).is_empty());

    let mut b = Builder::new();
    let x = b.images(3, 4);
    let w = b.constant("w", &[3, 3, 1, 1]);
    let x = b.conv_with(x, w, 1);
    let x = b.relu(x);
    let mut pool = window(vec![]);
    pool.kernel = vec![1, 1];
    let x = b.node(Op::MaxPool { window: pool, ceil_mode: false }, &[x]);
    let x = b.conv_with(x, w, 1);
    let mut pooled = b.finish(&[x]);
    pooled.opset = 22;
    let name = |n: &Node| pooled.value(n.outputs[0].unwrap()).name.clone();
    let rectified = name(&pooled.nodes[1]);
    let file = ("the file, of opset 22".to_string(), "new-opsets");
    let mut native = recipe(Target::Ort, 4);
    native.activations.placement = Some(Placement::Producer);
    native.activations.last_bits = Some(4);
    assert_eq!(hits(&pooled, &native), std::slice::from_ref(&file));
    native.output.format = Format::Qdq;
    assert_eq!(hits(&pooled, &native), [(rectified, "native-types"), file]);
    let readers = [("n0".to_string(), "shared-weights"), ("n3".to_string(), "shared-weights")];
    assert_eq!(hits(&pooled, &recipe(Target::Qonnx, 4)), readers);
}

#[test]
fn layers_that_may_saturate_are_named() {
    let mut b = Builder::new();
    let x = b.images(3, 4);
    let y = b.conv("edge", x, 3, 4, 3);
    let y = b.head(y, 4);
    let graph = b.finish(&[y]);
    let told = |target, bits, symmetric| {
        let mut recipe = recipe(target, bits);
        recipe.weights.symmetric = symmetric;
        planned(&graph, &recipe).layers[0].may_saturate(&graph, target)
    };
    assert_eq!(told(Target::Ort, 8, false), Some(true));
    assert_eq!(told(Target::Ort, 7, true), Some(false), "at most 255·(64 + 64)");
    assert_eq!(told(Target::Ort, 4, false), Some(false));
    assert_eq!(told(Target::Openvino, 8, false), Some(true));
    assert_eq!(told(Target::Tensorrt, 8, false), None);
}

#[test]
fn encodings_leave_no_choice_to_readers_and_tables() {
    let graph = sequence_tests::network(false);
    let planned = |target| {
        let mut recipe = recipe(target, 8);
        (recipe.activations.placement, recipe.weights.embedding_bits) = (Some(Placement::Consumer), 8);
        sequence_tests::planned(&graph, &recipe)
    };
    let table = |l: &&Layer| matches!(graph.node(l.nodes[0]).op, Op::Gather { .. });
    let (free, bound) = (planned(Target::Openvino), planned(Target::Qnn));
    assert!(free.layers.iter().filter(table).all(|l| l.axis == Some(0)) && free.layers.iter().any(|l| table(&l)));
    assert!(bound.layers.iter().all(|l| l.axis.is_none() == table(&l)));
    // A layer and a gate read one value; only the layer needs it quantized.
    let mut b = Builder::new();
    let x = b.images(3, 6);
    let y = b.conv("first", x, 3, 4, 1);
    let z = b.conv("second", y, 4, 4, 1);
    let gate = b.node(Op::Unary(Unary::Sigmoid), &[y]);
    let product = b.binary(Binary::Mul, z, gate);
    let graph = b.finish(&[product]);
    let sites = |target| {
        let mut recipe = recipe(target, 8);
        recipe.activations.placement = Some(Placement::Consumer);
        self::planned(&graph, &recipe).sites
    };
    assert!(sites(Target::Openvino).iter().any(|s| s.readers.is_some()));
    assert!(sites(Target::Qnn).iter().all(|s| s.readers.is_none()));
}
