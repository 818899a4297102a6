//! Refuses recipes that ask for what their target does not take, before any data is read, and says what users should
//! know of the target. `docs/deploy.md` says where the rules come from and how the file is loaded.

use super::rules::{self, Rule};
use super::{EncodingsVersion, Format, Override, Placement, Recipe, Target};
use crate::error::{Error, Result};

impl Recipe {
    /// Notes for the user on how the target treats this recipe, one line each.
    pub fn notes(&self) -> Vec<&'static str> {
        let target = self.output.target;
        let few = bits(self).any(|(_, b)| b < 8);
        let mut notes = Vec::new();
        if few && rules::FEW_BITS.applies(target) {
            notes.push(
                "openvino runs fewer than 8 bits in its 8-bit kernels: the outputs are those of the file, the speed is \
                 that of 8 bits",
            );
        }
        if target == Target::Qonnx {
            notes.push("qonnx keeps weights as float numbers on their grid: the file is not smaller");
        }
        if rules::UNENCODED_VALUES.applies(target) {
            notes.push(
                "qnn keeps weights as float numbers on their grid, which the converter turns into integers; the \
                 converter itself calibrates values without an encoding",
            );
        }
        notes
    }
}

/// The bits that a recipe gives to weights and activations, with their keys; those without effect are left out.
fn bits(recipe: &Recipe) -> impl Iterator<Item = (String, u32)> + '_ {
    let (w, a) = (&recipe.weights, &recipe.activations);
    let keyed = |(key, b): (&str, u32)| (key.to_string(), b);
    let weights = [
        ("weights.bits", w.bits),
        ("weights.first_last_bits", w.first_last_bits),
        ("weights.embedding_bits", w.embedding_bits),
    ];
    // Exceptions hold where all other weights are float, but not where all activations are.
    let own = recipe.overrides.iter().enumerate().filter_map(|(n, o)| Some((n, o.weight_bits?)));
    let own = own.map(|(n, b)| (format!("override[{n}].weight_bits"), b));
    let weights = weights.map(keyed).into_iter().filter(|_| w.bits != 32).chain(own).chain(candidates(recipe));
    let activations = [("activations.bits", a.bits), ("activations.last_bits", a.last())];
    let activations = activations.map(keyed).into_iter().chain(activation_overrides(recipe));
    weights.chain(activations.filter(|_| a.bits != 32))
}

/// The bits that a recipe lets be chosen.
fn candidates(recipe: &Recipe) -> impl Iterator<Item = (String, u32)> + '_ {
    let all = recipe.mixed.candidates.iter().filter(|_| recipe.mixed.wanted());
    all.map(|&b| ("mixed.candidates".to_string(), b))
}

fn activation_overrides(recipe: &Recipe) -> impl Iterator<Item = (String, u32)> + '_ {
    let own = recipe.overrides.iter().enumerate();
    own.filter_map(|(n, o)| Some((format!("override[{n}].activation_bits"), o.activation_bits?)))
}

/// Refuses a recipe that asks for what a rule is about.
type Refusal = fn(&Recipe) -> Result<()>;

/// The rules by which recipes are refused, in the order in which they are asked.
const REFUSALS: [(&Rule, Refusal); 6] = [
    (&rules::WEIGHT_ZERO_POINTS, symmetric_weights),
    (&rules::UNROUNDED_SUMS, rounded_sums),
    (&rules::EIGHT_BITS, eight_bits),
    (&rules::ACTIVATION_ZERO_POINTS, symmetric_activations),
    (&rules::ACTIVATION_SIGNS, decided_signs),
    (&rules::PROCESSOR_BITS, processor_bits),
];

/// Refuses recipes that ask for what their target does not take.
pub(super) fn check(recipe: &Recipe) -> Result<()> {
    let target = recipe.output.target;
    let version = recipe.output.encodings_version;
    if target != Target::Qnn && version != EncodingsVersion::default() {
        let message = format!("output.encodings_version: target {target} has no encodings file, got {version}");
        return Err(Error::recipe(message).hint("leave it out, or use target qnn (--target qnn)"));
    }
    if target == Target::Ort {
        return Ok(());
    }
    let refuse = |key: &str, why: String| Error::recipe(format!("{key}: {why}"));
    if recipe.output.format != Format::Qcdq {
        return Err(refuse("output.format", format!("qdq is for target ort; target {target} has its own form"))
            .hint("leave out output.format (--file-format)"));
    }
    if recipe.activations.placement == Some(Placement::Integer) {
        let why = format!("integer is for the kernels of target ort; target {target} has other kernels");
        return Err(
            refuse("activations.placement", why).hint("leave it out, or use producer or consumer (--placement)")
        );
    }
    let mut asked = REFUSALS.iter().filter(|(rule, _)| rule.applies(target));
    asked.try_for_each(|(_, refusal)| refusal(recipe))
}

fn symmetric_weights(recipe: &Recipe) -> Result<()> {
    let why = format!("target {} accepts symmetric weights only", recipe.output.target);
    symmetric(recipe, ("weight_symmetric", |o| o.weight_symmetric), &why)
}

fn symmetric_activations(recipe: &Recipe) -> Result<()> {
    let why = "target tensorrt accepts symmetric grids only";
    symmetric(recipe, ("activation_symmetric", |o| o.activation_symmetric), why)
}

/// Refuses an exception whose option `key` is `given` as false.
fn symmetric(recipe: &Recipe, (key, given): (&str, fn(&Override) -> Option<bool>), why: &str) -> Result<()> {
    match recipe.overrides.iter().position(|o| given(o) == Some(false)) {
        None => Ok(()),
        Some(n) => Err(Error::recipe(format!("override[{n}].{key}: {why}")).hint("leave it out")),
    }
}

/// Only placement `consumer` quantizes between a convolution and an addition. At 8 bits that moves outputs little, at 4
/// bits those of ResNet-20 lie 20 % from the file's.
fn rounded_sums(recipe: &Recipe) -> Result<()> {
    let a = &recipe.activations;
    if recipe.placement() != Placement::Consumer || a.bits == 32 {
        return Ok(());
    }
    let fixed = [("activations.bits", a.bits), ("activations.last_bits", a.last())];
    let fixed = fixed.map(|(key, b)| (key.to_string(), b));
    let chosen = candidates(recipe).filter(|_| recipe.mixed.bitops.is_some());
    match fixed.into_iter().chain(activation_overrides(recipe)).chain(chosen).find(|(_, b)| *b < 8) {
        None => Ok(()),
        Some((key, b)) => Err(Error::recipe(format!(
            "{key}: target openvino accepts 8 bits with placement consumer, got {b}: OpenVINO does not round between a \
             convolution and an addition"
        ))
        .hint("use placement producer (--placement), or 8 bits")),
    }
}

fn eight_bits(recipe: &Recipe) -> Result<()> {
    if let Some((key, b)) = bits(recipe).find(|(_, b)| !matches!(b, 8 | 32)) {
        return Err(Error::recipe(format!(
            "{key}: target tensorrt accepts 8 bits, or 32 for float, got {b}: TensorRT has int8 layers, and int4 only \
             for weights with float activations"
        ))
        .hint("use 8 bits (-w 8 -a 8), or another target"));
    }
    Ok(())
}

fn decided_signs(recipe: &Recipe) -> Result<()> {
    let own = recipe.overrides.iter().enumerate();
    let own = own.filter(|(_, o)| o.activation_symmetric.is_some());
    let mut keys = own.map(|(n, _)| format!("override[{n}].activation_symmetric"));
    let whole = recipe.activations.symmetric.then(|| "activations.symmetric".to_string());
    match whole.or_else(|| keys.next()) {
        None => Ok(()),
        Some(key) => Err(Error::recipe(format!(
            "{key}: target qonnx decides this: unsigned where no value can be negative, else signed, as FINN requires"
        ))
        .hint("leave it out; weights are symmetric already")),
    }
}

/// Qualcomm's HTP multiplies int4 or int8 weights with activations of 8 or 16 bits (AIMET's supported kernels). What
/// has no encoding is not left float: the converter calibrates it by itself.
fn processor_bits(recipe: &Recipe) -> Result<()> {
    let refuse = |key: String, what: &str, got: u32| {
        Err(Error::recipe(format!(
            "{key}: target qnn accepts {what}, got {got}: the processor has no other layers, and the converter itself \
             quantizes everything without an encoding"
        ))
        .hint("use -w 4 or 8 and -a 8 or 16, or another target"))
    };
    if recipe.mixed.bitops.is_some() {
        let message =
            "mixed.bitops: target qnn accepts activations of 8 or 16 bits only, so their bits cannot be chosen";
        return Err(Error::recipe(message).hint("give a target for the size (--target-size), with --candidates 4,8"));
    }
    let (w, a) = (&recipe.weights, &recipe.activations);
    let weights = [
        ("weights.bits", w.bits),
        ("weights.first_last_bits", w.first_last_bits),
        ("weights.embedding_bits", w.embedding_bits),
    ];
    let own = recipe.overrides.iter().enumerate().filter_map(|(n, o)| Some((n, o.weight_bits?)));
    let own = own.map(|(n, b)| (format!("override[{n}].weight_bits"), b));
    let mut weights = weights.map(|(key, b)| (key.to_string(), b)).into_iter().chain(own).chain(candidates(recipe));
    if let Some((key, b)) = weights.find(|(_, b)| !matches!(b, 4 | 8)) {
        return refuse(key, "weights of 4 or 8 bits", b);
    }
    let activations = [("activations.bits", a.bits), ("activations.last_bits", a.last())];
    let activations = activations.map(|(key, b)| (key.to_string(), b));
    match activations.into_iter().chain(activation_overrides(recipe)).find(|(_, b)| !matches!(b, 8 | 16)) {
        Some((key, b)) => refuse(key, "activations of 8 or 16 bits", b),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::testing::{Builder, window};
    use crate::graph::{Binary, Op, Unary};
    use crate::plan::{Override, plan};
    use crate::tensor::Tensor;

    fn recipe(target: Target, weights: u32, activations: u32) -> Recipe {
        let mut recipe = Recipe::default();
        recipe.output.target = target;
        (recipe.weights.bits, recipe.activations.bits) = (weights, activations);
        recipe
    }

    fn refusal(recipe: &Recipe) -> String {
        let error = recipe.validate().unwrap_err();
        assert!(error.advice().is_some(), "{error} comes without a hint");
        error.to_string()
    }

    #[test]
    fn names_in_recipes_and_messages_are_the_same() {
        for target in [Target::Ort, Target::Openvino, Target::Tensorrt, Target::Qonnx, Target::Qnn] {
            let text = format!("[output]\ntarget = \"{target}\"\n[weights]\nbits = 8\n[activations]\nbits = 8\n");
            assert_eq!(Recipe::from_toml(&text).unwrap().output.target, target);
        }
    }

    #[test]
    fn any_target_takes_8_bits_and_float() {
        for target in [Target::Ort, Target::Openvino, Target::Tensorrt, Target::Qonnx] {
            for (weights, activations) in [(8, 8), (8, 32), (32, 8)] {
                recipe(target, weights, activations).validate().unwrap();
            }
        }
        for target in [Target::Ort, Target::Openvino, Target::Qonnx] {
            recipe(target, 2, 3).validate().unwrap();
        }
    }

    #[test]
    fn tensorrt_refuses_other_bits_by_their_key() {
        let named = |recipe: &Recipe, key: &str, bits: u32| {
            let text = refusal(recipe);
            let want = format!("{key}: target tensorrt accepts 8 bits, or 32 for float, got {bits}: ");
            assert!(text.starts_with(&want), "{text}");
        };
        named(&recipe(Target::Tensorrt, 4, 8), "weights.bits", 4);
        named(&recipe(Target::Tensorrt, 8, 7), "activations.bits", 7);
        let mut other = recipe(Target::Tensorrt, 8, 8);
        other.weights.first_last_bits = 4;
        named(&other, "weights.first_last_bits", 4);
        let mut other = recipe(Target::Tensorrt, 8, 8);
        let own = Override { layer: "*".into(), ..Override::default() };
        other.overrides = vec![own.clone(), Override { activation_bits: Some(4), ..own.clone() }];
        named(&other, "override[1].activation_bits", 4);
        other.overrides = vec![Override { weight_bits: Some(2), ..own }];
        named(&other, "override[0].weight_bits", 2);
        let mut chosen = recipe(Target::Tensorrt, 8, 8);
        chosen.mixed.candidates = vec![8, 6];
        chosen.validate().unwrap();
        chosen.mixed.size = "w8".parse().ok();
        named(&chosen, "mixed.candidates", 6);
        // What is float has no bits to refuse.
        let mut float = recipe(Target::Tensorrt, 32, 32);
        (float.weights.first_last_bits, float.activations.last_bits) = (4, Some(4));
        float.validate().unwrap();
        float.overrides = other.overrides;
        named(&float, "override[0].weight_bits", 2);
    }

    #[test]
    fn contradictions_are_refused() {
        let own = Override { layer: "*".into(), ..Override::default() };
        let with = |target, own: Override| Recipe { overrides: vec![own], ..recipe(target, 8, 8) };
        for target in [Target::Openvino, Target::Tensorrt, Target::Qonnx, Target::Qnn] {
            let asymmetric = with(target, Override { weight_symmetric: Some(false), ..own.clone() });
            let want =
                format!("override[0].weight_symmetric: target {target} accepts symmetric weights only; leave it out");
            assert_eq!(refusal(&asymmetric), want);
            let mut native = recipe(target, 8, 8);
            native.output.format = Format::Qdq;
            assert!(refusal(&native).starts_with("output.format: qdq is for target ort; target "));
            let mut kernels = recipe(target, 8, 8);
            kernels.activations.placement = Some(Placement::Integer);
            assert!(refusal(&kernels).starts_with("activations.placement: integer is for the kernels of target ort; "));
        }
        let off = Override { activation_symmetric: Some(false), ..own.clone() };
        assert!(refusal(&with(Target::Tensorrt, off.clone())).starts_with("override[0].activation_symmetric: "));
        assert!(
            refusal(&with(Target::Qonnx, off)).starts_with("override[0].activation_symmetric: target qonnx decides")
        );
        let mut signed = recipe(Target::Qonnx, 4, 4);
        signed.activations.symmetric = true;
        assert!(refusal(&signed).starts_with("activations.symmetric: target qonnx decides this: unsigned where"));
    }

    #[test]
    fn qnn_takes_weights_of_4_and_8_bits_and_activations_of_8_and_16() {
        for (weights, activations) in [(4, 8), (8, 8), (4, 16), (8, 16)] {
            recipe(Target::Qnn, weights, activations).validate().unwrap();
        }
        let named = |recipe: &Recipe, key: &str, what: &str, bits: u32| {
            let text = refusal(recipe);
            assert!(text.starts_with(&format!("{key}: target qnn accepts {what}, got {bits}: ")), "{text}");
        };
        let (weights, activations) = ("weights of 4 or 8 bits", "activations of 8 or 16 bits");
        named(&recipe(Target::Qnn, 3, 8), "weights.bits", weights, 3);
        named(&recipe(Target::Qnn, 32, 8), "weights.bits", weights, 32);
        named(&recipe(Target::Qnn, 8, 4), "activations.bits", activations, 4);
        named(&recipe(Target::Qnn, 8, 32), "activations.bits", activations, 32);
        let mut other = recipe(Target::Qnn, 8, 16);
        other.activations.last_bits = Some(4);
        named(&other, "activations.last_bits", activations, 4);
        let mut other = recipe(Target::Qnn, 8, 8);
        other.weights.embedding_bits = 2;
        named(&other, "weights.embedding_bits", weights, 2);
        let own = Override { layer: "*".into(), ..Override::default() };
        let mut other = recipe(Target::Qnn, 8, 8);
        other.overrides = vec![Override { weight_bits: Some(32), ..own.clone() }];
        named(&other, "override[0].weight_bits", weights, 32);
        other.overrides = vec![Override { activation_bits: Some(2), ..own }];
        named(&other, "override[0].activation_bits", activations, 2);
        let mut chosen = recipe(Target::Qnn, 8, 8);
        chosen.mixed.size = "w6".parse().ok();
        named(&chosen, "mixed.candidates", weights, 2);
        chosen.mixed.candidates = vec![4, 8];
        chosen.validate().unwrap();
        chosen.mixed.bitops = "w6a8".parse().ok();
        assert!(refusal(&chosen).starts_with("mixed.bitops: target qnn accepts activations of 8 or 16 bits"));
    }

    #[test]
    fn encodings_are_for_qnn() {
        let mut of = recipe(Target::Qnn, 8, 8);
        of.output.encodings_version = EncodingsVersion::V2_0_0;
        of.validate().unwrap();
        let text = of.to_toml().unwrap();
        assert!(text.contains("encodings_version = \"2.0.0\""), "{text}");
        assert_eq!(Recipe::from_toml(&text).unwrap(), of);
        of.output.target = Target::Openvino;
        let want = "output.encodings_version: target openvino has no encodings file, got 2.0.0";
        assert!(refusal(&of).starts_with(want));
    }

    #[test]
    fn openvino_takes_few_bits_where_layers_produce_them() {
        let mut few = recipe(Target::Openvino, 4, 4);
        few.validate().unwrap();
        few.activations.placement = Some(Placement::Consumer);
        let want = "activations.bits: target openvino accepts 8 bits with placement consumer, got 4: ";
        assert!(refusal(&few).starts_with(want));
        few.activations.bits = 8;
        few.validate().unwrap();
        few.overrides = vec![Override { layer: "*".into(), activation_bits: Some(2), ..Override::default() }];
        assert!(refusal(&few).starts_with("override[0].activation_bits: "));
        few.overrides.clear();
        few.mixed.size = "w3".parse().ok();
        few.validate().unwrap();
        few.mixed.bitops = "w3a3".parse().ok();
        assert!(refusal(&few).starts_with("mixed.candidates: "));
    }

    #[test]
    fn notes_come_where_they_matter() {
        let count = |target, bits| recipe(target, bits, bits).notes().len();
        assert_eq!((count(Target::Ort, 4), count(Target::Tensorrt, 8)), (0, 0));
        assert_eq!((count(Target::Openvino, 4), count(Target::Openvino, 8)), (1, 0));
        assert_eq!((count(Target::Qonnx, 8), count(Target::Qonnx, 2), count(Target::Qnn, 8)), (1, 1, 1));
    }

    /// Whether the grid of each site is symmetric, in the order of the network, and whether weights' are.
    fn symmetry(target: Target, placement: Placement) -> (Vec<bool>, bool) {
        let mut b = Builder::new();
        let x = b.images(3, 4);
        let x = b.conv_relu("stem", x, 3, 4, 3);
        let mut pool = window(vec![]);
        pool.kernel = vec![1, 1];
        let x = b.node(Op::MaxPool { window: pool, ceil_mode: false }, &[x]);
        let y = b.conv("linear", x, 4, 4, 1);
        let [low, high] =
            [("low", 0.0), ("high", 6.0)].map(|(name, v)| b.graph.add_constant(name, Tensor::f32(&[], vec![v])));
        let z = b.conv("clipped", y, 4, 4, 1);
        let z = b.node(Op::Clip, &[z, low, high]);
        let z = b.conv("inner", z, 4, 4, 1);
        let sum = b.binary(Binary::Add, y, z);
        let z = b.conv("gate", sum, 4, 4, 1);
        let z = b.node(Op::Unary(Unary::HardSwish), &[z]);
        let y = b.head(z, 4);
        let graph = b.finish(&[y]);
        let mut recipe = recipe(target, 8, 8);
        recipe.activations.placement = Some(placement);
        let shapes = crate::passes::InputShapes::declared().concrete(&graph, 1).unwrap();
        let plan = plan(&graph, &crate::engine::facts::infer(&graph, &shapes).unwrap(), &recipe).unwrap();
        let weights = plan.layers.iter().all(|l| l.grid.symmetric);
        (plan.sites.iter().map(|s| s.grid.symmetric).collect(), weights)
    }

    #[test]
    fn targets_decide_which_grids_are_symmetric() {
        let producer = |target| symmetry(target, Placement::Producer);
        assert_eq!(producer(Target::Ort), (vec![false; 5], false));
        assert_eq!(producer(Target::Openvino), (vec![false; 5], true));
        assert_eq!(producer(Target::Tensorrt), (vec![true; 5], true));
        // Behind Relu and Clip unsigned; a layer's own result, a sum and HardSwish signed.
        assert_eq!(producer(Target::Qonnx), (vec![false, true, false, true, true], true));
        // The input, the pooled result of Relu, then both operands of the sum and the layers' operands.
        let consumer = symmetry(Target::Qonnx, Placement::Consumer);
        assert_eq!(consumer, (vec![true, false, true, false, true, true, true], true));
        assert_eq!(producer(Target::Qnn), (vec![false; 5], true));
    }

    #[test]
    fn joins_of_one_value_are_followed_once() {
        let mut b = Builder::new();
        let x = b.images(3, 4);
        let mut x = b.conv_relu("stem", x, 3, 4, 3);
        let mut half = window(vec![]);
        (half.kernel, half.strides) = (vec![2, 1], vec![2, 1]);
        // Twice as many ways to the front with each.
        for _ in 0..60 {
            x = b.node(Op::Concat { axis: 2 }, &[x, x]);
            x = b.node(Op::MaxPool { window: half.clone(), ceil_mode: false }, &[x]);
        }
        let y = b.head(x, 4);
        let graph = b.finish(&[y]);
        let mut recipe = recipe(Target::Qonnx, 8, 8);
        recipe.activations.placement = Some(Placement::Consumer);
        let shapes = crate::passes::InputShapes::declared().concrete(&graph, 1).unwrap();
        let plan = plan(&graph, &crate::engine::facts::infer(&graph, &shapes).unwrap(), &recipe).unwrap();
        assert_eq!(plan.sites.iter().map(|s| s.grid.symmetric).collect::<Vec<_>>(), [true, false]);
    }
}
