//! `qdrop plan`: shows what quantize would do.

use crate::args::{self, Print};
use crate::{Outcome, bits, checks, flags, out};
use qdrop::graph::ValueId;
use qdrop::plan::{Carrier, Chosen, Cost, FactorSite, Hit, LayerId, Site, is_layer};
use qdrop::report::{Silent, Stage, Table, bytes, chosen_bits, count};
use qdrop::{CalibrationSet, Error, Memory, Model, Planned, Quantizer, Recipe, Result};
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// Calibration samples that the predicted memory is for, unless told.
const SAMPLES: usize = 1024;

/// The printed result; also its JSON.
#[derive(Debug, Serialize)]
pub struct View {
    model: String,
    bits: Bits,
    units: Vec<UnitView>,
    layers: Vec<LayerView>,
    sites: Vec<SiteView>,
    /// Quantizers of 8 bits that integer kernels need beside `sites`; not learned.
    kernel_sites: Vec<SiteView>,
    float: Vec<FloatView>,
    /// What the target does not take as it is, and what is done about it.
    rules: Vec<RuleView>,
    /// What the outputs are read as where they are those of a detector; left out for other networks.
    #[serde(skip_serializing_if = "Option::is_none")]
    detector: Option<DetectorView>,
    /// What weights and products cost where the network will run.
    cost: Cost,
    /// How bits were chosen, when they were.
    chosen: Option<Chosen>,
    predicted_memory: Memory,
    /// Stages of the run, in order.
    stages: Vec<String>,
    /// What the target makes of it.
    notes: Vec<&'static str>,
}

/// Bits without exceptions.
#[derive(Debug, Serialize)]
struct Bits {
    weights: u32,
    activations: u32,
}

#[derive(Debug, Serialize)]
struct UnitView {
    name: String,
    layers: Vec<String>,
    sites: Vec<String>,
    weight_bits: Vec<u32>,
    activation_bits: Vec<u32>,
    inputs: Vec<String>,
    outputs: Vec<String>,
    nodes: usize,
    parameters: u64,
    multiply_adds: u64,
    cache_bytes_per_sample: u64,
}

#[derive(Debug, Serialize)]
struct LayerView {
    name: String,
    unit: String,
    learned: bool,
    weight: String,
    shape: Vec<usize>,
    bits: u32,
    symmetric: bool,
    per_channel: bool,
    /// Whether kernels of x86 processors without VNNI may clip sums of two products; null where the target has others.
    may_saturate: Option<bool>,
}

#[derive(Debug, Serialize)]
struct SiteView {
    name: String,
    bits: u32,
    symmetric: bool,
    /// Nodes that see the quantized value; null: all of them.
    readers: Option<Vec<String>>,
    /// What may divide its channels by factors, or why they have none; null where the recipe wants no factors.
    channel_factors: Option<FactorsView>,
}

#[derive(Debug, Clone, Copy, Serialize)]
#[serde(rename_all = "snake_case")]
enum FactorsView {
    /// Divided by this.
    By(&'static str),
    /// No factors, for this reason.
    None(&'static str),
}

/// What to show of `factors`, by the quantized value.
fn factors_views(factors: &BTreeMap<ValueId, std::result::Result<FactorSite, &'static str>>) -> Views {
    let mut views: Views =
        factors.iter().filter_map(|(&v, f)| Some((v, FactorsView::None(f.as_ref().err()?)))).collect();
    for site in factors.values().flatten() {
        let what = match site.carrier {
            _ if site.members.len() > 1 => "shared",
            Carrier::Quantizer => "Mul",
            Carrier::Layer { .. } => "layer",
        };
        views.extend(site.members.iter().map(|m| (m.value, FactorsView::By(what))));
    }
    views
}

type Views = BTreeMap<ValueId, FactorsView>;

#[derive(Debug, Serialize)]
struct FloatView {
    node: String,
    /// Whether it has a weight that could be quantized elsewhere.
    layer: bool,
    reason: String,
    /// Whether the reason is another node of the list.
    #[serde(skip)]
    behind: bool,
}

#[derive(Debug, Serialize)]
struct DetectorView {
    family: &'static str,
    /// How the outputs are read.
    outputs: String,
}

#[derive(Debug, Serialize)]
struct RuleView {
    place: String,
    rule: &'static str,
    pattern: &'static str,
    effect: &'static str,
    remedy: &'static str,
}

/// Runs the command.
pub fn run(args: &args::Plan) -> Result<Outcome> {
    checks::readable_file(&args.model)?;
    let mut recipe = flags::read(args.flags.recipe.as_deref())?;
    flags::apply(&mut recipe, &args.flags);
    flags::apply_input(&mut recipe, &args.input);
    let files = checks::model_files(&args.model);
    let reads: Vec<&Path> = files.iter().map(PathBuf::as_path).chain(args.flags.recipe.as_deref()).collect();
    bits::check(&args.bits, &recipe, &reads)?;
    let measured = bits::measured(&args.bits)?;
    if recipe.mixed.wanted() && measured.is_none() {
        return Err(Error::recipe("a target needs measured sensitivities, got none")
            .hint("measure them with `qdrop sensitivity MODEL -o FILE.json` and give --sensitivity FILE.json"));
    }
    let model = args.shape.fix.load(&args.model)?;
    let planned = match &args.calib {
        Some(path) => {
            checks::exists(path)?;
            let set = CalibrationSet::open(path, &model, &recipe, &Silent)?;
            model.plan_for(&recipe, measured.as_ref(), &set.used()?)?
        }
        None => {
            let shapes = args.shape.of_samples(&model)?;
            let samples = recipe.input.samples.unwrap_or(SAMPLES);
            model.plan(&recipe, measured.as_ref(), shapes.as_deref(), samples)?
        }
    };
    bits::save(&args.bits, &planned.recipe)?;
    let view = View::new(&model, recipe, &planned);
    match args.format {
        Print::Json => out::json(&view)?,
        Print::Text => out::print(&view.text())?,
    }
    Ok(Outcome::Done)
}

impl View {
    /// What is shown of what was `planned` for `model` by `recipe`.
    pub fn new(model: &Model, recipe: Recipe, planned: &Planned) -> Self {
        let stages = Quantizer::new(model).recipe(recipe).stages().iter().map(Stage::to_string).collect();
        View { stages, ..view(model.name(), planned) }
    }

    /// As tables.
    pub fn text(&self) -> String {
        text(self)
    }
}

fn view(model: String, planned: &Planned) -> View {
    let Planned { graph, recipe, plan, cost, chosen, memory, factors, detector, .. } = planned;
    let name = |&v: &ValueId| graph.value(v).name.clone();
    let units = plan.units.iter().map(|u| UnitView {
        name: u.name.clone(),
        layers: u.layers.iter().map(|&l| plan.layer(l).name.clone()).collect(),
        sites: u.sites.iter().map(|&s| plan.site(s).name.clone()).collect(),
        weight_bits: u.layers.iter().map(|&l| plan.layer(l).grid.bits).collect(),
        activation_bits: u.sites.iter().map(|&s| plan.site(s).grid.bits).collect(),
        inputs: u.inputs.iter().map(name).collect(),
        outputs: u.outputs.iter().map(name).collect(),
        nodes: u.nodes.len(),
        parameters: u.parameters,
        multiply_adds: u.multiply_adds,
        cache_bytes_per_sample: u.cache_bytes,
    });
    let factors = factors_views(factors);
    let weighted = graph.node_ids().filter(|&id| is_layer(graph, id)).map(|id| graph.node_name(id));
    let weighted: BTreeSet<&str> = weighted.collect();
    let unit = |id: LayerId| plan.units.iter().find(|u| u.layers.contains(&id) || u.fixed.contains(&id));
    let learned = |id: LayerId| plan.units.iter().any(|u| u.layers.contains(&id));
    let layers = plan.layer_ids().zip(&plan.layers).map(|(id, l)| LayerView {
        name: l.name.clone(),
        unit: unit(id).map_or_else(String::new, |u| u.name.clone()),
        learned: learned(id),
        weight: name(&l.weight),
        shape: l.shape.clone(),
        bits: l.grid.bits,
        symmetric: l.grid.symmetric,
        per_channel: l.axis.is_some(),
        may_saturate: l.may_saturate(graph, recipe.output.target),
    });
    let site = |s: &Site| SiteView {
        name: s.name.clone(),
        bits: s.grid.bits,
        symmetric: s.grid.symmetric,
        readers: s.readers.as_ref().map(|r| r.iter().map(|&(n, _)| graph.node_name(n).to_string()).collect()),
        channel_factors: None,
    };
    let rule = |Hit { place, rule, .. }: Hit| RuleView {
        place,
        rule: rule.name,
        pattern: rule.pattern,
        effect: rule.effect,
        remedy: rule.remedy,
    };
    View {
        model,
        bits: Bits { weights: recipe.weights.bits, activations: recipe.activations.bits },
        units: units.collect(),
        layers: layers.collect(),
        sites: plan
            .sites
            .iter()
            .map(|s| SiteView { channel_factors: factors.get(&s.value).copied(), ..site(s) })
            .collect(),
        kernel_sites: plan.kernel_sites.iter().map(site).collect(),
        float: plan
            .float
            .iter()
            .map(|f| FloatView {
                node: f.node.clone(),
                layer: weighted.contains(f.node.as_str()),
                reason: f.reason.clone(),
                behind: f.behind,
            })
            .collect(),
        rules: plan.hits(graph, recipe.output).into_iter().map(rule).collect(),
        detector: detector.as_ref().map(|d| DetectorView { family: d.family().as_str(), outputs: d.to_string() }),
        cost: *cost,
        chosen: chosen.clone(),
        predicted_memory: *memory,
        stages: Vec::new(),
        notes: recipe.notes(),
    }
}

/// Nodes that stay float; of those without a weight that share a reason, or lie behind such nodes, only the first is named.
fn left_float(nodes: &[FloatView]) -> Table {
    let mut table = Table::new("Left float", "node|reason");
    let mut seen = BTreeSet::new();
    let stops: BTreeSet<&str> = nodes.iter().filter(|f| !f.layer && f.behind).map(|f| &*f.reason).collect();
    for f in nodes {
        let several = !f.layer && f.behind && stops.len() > 1;
        let alike = |other: &&FloatView| !other.layer && (other.reason == f.reason || several && other.behind);
        let reason = if several { "it depends on another node of this list".to_string() } else { f.reason.clone() };
        let name = match nodes.iter().filter(alike).count() {
            _ if f.layer => f.node.clone(),
            _ if !seen.insert(reason.clone()) => continue,
            1 => f.node.clone(),
            2 => format!("{} and another one", f.node),
            n => format!("{} and {} others", f.node, n - 1),
        };
        table.row([name, reason]);
    }
    table
}

/// `8`, or `4 4 8` where they differ.
fn widths(list: &[u32]) -> String {
    match list {
        [] => "-".into(),
        [first, rest @ ..] if rest.iter().all(|b| b == first) => first.to_string(),
        _ => list.iter().map(u32::to_string).collect::<Vec<_>>().join(" "),
    }
}

fn sites(title: &str, list: &[SiteView]) -> Table {
    let factors = if list.iter().any(|s| s.channel_factors.is_some()) { "|factors" } else { "" };
    let mut sites = Table::new(title, &format!("value|>bits|grid|read quantized by{factors}"));
    for s in list {
        let grid = if s.symmetric { "symmetric" } else { "asymmetric" };
        let readers = s.readers.as_ref().map_or_else(|| "all".into(), |r| r.join(" "));
        let mut row = vec![s.name.clone(), s.bits.to_string(), grid.into(), readers];
        row.extend(s.channel_factors.as_ref().map(|f| match f {
            FactorsView::By(what) => what.to_string(),
            FactorsView::None(_) => "-".into(),
        }));
        sites.row(row);
    }
    sites
}

/// Why activations have no channel factors.
fn without_factors(list: &[SiteView]) -> Table {
    let mut reasons: Vec<(&str, Vec<&str>)> = Vec::new();
    for site in list {
        let Some(FactorsView::None(reason)) = site.channel_factors else { continue };
        match reasons.iter_mut().find(|(r, _)| *r == reason) {
            Some((_, names)) => names.push(&site.name),
            None => reasons.push((reason, vec![&site.name])),
        }
    }
    let mut table = Table::new("Activation sites without channel factors", "why|>sites|the first");
    for (reason, names) in reasons {
        table.row([reason.to_string(), names.len().to_string(), names[0].to_string()]);
    }
    table
}

fn text(v: &View) -> String {
    let title =
        format!("{}: {} units, {} layers, {} activation sites", v.model, v.units.len(), v.layers.len(), v.sites.len());
    let mut units =
        Table::new(title, ">#|unit|>layers|w bits|a bits|?inputs|?outputs|>parameters|>multiply-adds|>cache/sample");
    for (i, u) in v.units.iter().enumerate() {
        units.row([
            (i + 1).to_string(),
            u.name.clone(),
            u.layers.len().to_string(),
            widths(&u.weight_bits),
            widths(&u.activation_bits),
            u.inputs.join(" "),
            u.outputs.join(" "),
            count(u.parameters),
            count(u.multiply_adds),
            bytes(u.cache_bytes_per_sample),
        ]);
    }
    let mut layers = Table::new("Layers", "?unit|layer|shape|>bits|grid|x86 without VNNI");
    for l in &v.layers {
        let grid = format!(
            "{}, {}{}",
            if l.per_channel { "per channel" } else { "per tensor" },
            if l.symmetric { "symmetric" } else { "asymmetric" },
            if l.learned { "" } else { ", to nearest" }
        );
        let shape = l.shape.iter().map(usize::to_string).collect::<Vec<_>>().join("x");
        let sums = l.may_saturate.map_or("", |may| if may { "may saturate" } else { "exact" });
        layers.row([l.unit.clone(), l.name.clone(), shape, l.bits.to_string(), grid, sums.to_string()]);
    }
    let mut tables = vec![units, layers, sites("Activation sites", &v.sites)];
    if v.sites.iter().any(|s| matches!(s.channel_factors, Some(FactorsView::None(_)))) {
        tables.push(without_factors(&v.sites));
    }
    if !v.kernel_sites.is_empty() {
        tables.push(sites("Additional quantizers for integer kernels, not learned", &v.kernel_sites));
    }
    if !v.float.is_empty() {
        tables.push(left_float(&v.float));
    }
    if !v.rules.is_empty() {
        let mut rules = Table::new("What the target does not take as it is", "where|what|what is done");
        for r in &v.rules {
            rules.row([r.place.as_str(), r.pattern, r.remedy]);
        }
        tables.push(rules);
    }
    tables.push(match &v.chosen {
        Some(chosen) => chosen_bits(chosen, None),
        None => {
            let mut cost = Table::new("Cost", "what|>figure");
            cost.row(["weights", &bytes(v.cost.weight_bytes)]);
            cost.row(["bit operations", &count(v.cost.bit_operations)]);
            cost
        }
    });
    let m = &v.predicted_memory;
    let mut memory = Table::new(format!("Predicted memory for {} samples", m.samples), "what|>size");
    let parts = [
        ("network", m.network),
        ("arrays or texts of samples", m.held),
        ("samples' values", m.caches),
        ("working memory", m.working),
        ("total, with the program", m.total),
        ("samples' values in files", m.files),
    ];
    let rare = ["arrays or texts of samples", "samples' values in files"];
    for (what, n) in parts.into_iter().filter(|part| !rare.contains(&part.0) || part.1 > 0) {
        memory.row([what.to_string(), bytes(n)]);
    }
    tables.push(memory);
    let notes = v.notes.iter().map(|note| format!("\nnote: {note}\n"));
    let stages = out::wrapped(&format!("Stages: {}", v.stages.join(", ")), out::WIDTH);
    let detector = v
        .detector
        .as_ref()
        .map_or_else(String::new, |d| format!("\nDetector {}; --detector gives another family\n", d.outputs));
    out::draw(&tables) + &detector + &format!("\n{stages}\n") + &notes.collect::<String>()
}
