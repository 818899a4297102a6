//! The options in effect: those of a recipe combined with the defaults of its preset and method.

use super::{Granularity, MethodName, Placement, Preset, Recipe, Target, rules};
use crate::error::{Error, Result};
use serde::{Deserialize, Serialize};

/// Iterations per unit for which the published learning rates were chosen.
const PUBLISHED_ITERATIONS: usize = 20_000;
/// Most iterations for the whole network that nobody asked for.
const MOST_TUNING: usize = 1000;
/// Iterations for roundings over those for steps, where steps are learned after them: 20 000 and 5000, as published.
const STEP_SHARE: usize = 4;
/// Most that the learning rates of roundings and of steps grow when iterations are fewer.
const MOST_FASTER: (f64, f64) = (50.0, 10.0);
/// Noise that an activation of 8 bits may cause in the outputs alone, as a share of their energy. Nearly all cause a tenth
/// of it at most.
const NOISE_LIMIT: f64 = 0.002;
/// Samples on which factors of channels are chosen and first grids refined.
const FEW_SAMPLES: usize = 32;

impl Preset {
    /// Iterations per unit.
    pub fn iterations(self) -> usize {
        match self {
            Preset::Paper => PUBLISHED_ITERATIONS,
            Preset::Balanced => 2000,
            Preset::Fast => 300,
        }
    }
}

/// The options in effect.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Effective {
    /// Whether anything is learned at all.
    pub learns: bool,
    /// Iterations per unit.
    pub iterations: usize,
    /// Probability that an element of a unit's input comes from the quantized network, 0 to 1.
    pub input_keep: f64,
    /// Probability that an element of an activation inside the unit is quantized, 0 to 1.
    pub activation_keep: f64,
    /// Learning rate of the rounding variables.
    pub rounding_lr: f64,
    /// Initial learning rate of the activation steps; 0 if they are not learned.
    pub scale_lr: f64,
    /// Whether a unit ends once its roundings are settled.
    pub stop_settled: bool,
    /// Whether biases are learned.
    pub learn_biases: bool,
    /// Whether steps of weights and channel factors are learned while the whole network is tuned.
    pub learn_weight_scales: bool,
    /// Whether the loss weighs the elements of units' outputs.
    pub weigh_outputs: bool,
    /// Samples on which biases and steps of weights are corrected where nothing is learned; 0 for no correction.
    pub correct_samples: usize,
    /// Iterations for tuning the whole network after the last unit.
    pub tune_iterations: usize,
    /// Whether all weights are learned first, in a network with float activations.
    pub weights_first: bool,
    /// Iterations per unit for the steps of activations after that.
    pub step_iterations: usize,
    /// Samples on which channel factors are chosen; 0 for no factors.
    pub factor_samples: usize,
    /// Samples on which the first activation steps are refined; 0 for no refinement.
    pub refine_samples: usize,
    /// Noise that an activation may cause in the outputs, above which it stays float; 0 where all are quantized.
    pub noise_limit: f64,
    /// Size of units.
    pub granularity: Granularity,
}

impl Recipe {
    /// Where activations are quantized.
    pub fn placement(&self) -> Placement {
        // There are no integer kernels for activations of 16 bits.
        let wide = self.activations.bits == 16 && rules::WIDE_ACTIVATIONS.applies(self.output.target);
        let kernels = self.output.target == Target::Ort && !wide;
        let integer = kernels && self.method.preset != Preset::Paper;
        self.activations.placement.unwrap_or(if integer { Placement::Integer } else { Placement::Producer })
    }

    /// The options in effect.
    pub fn resolved(&self) -> Effective {
        let method = &self.method;
        // AdaRound and BRECQ learn weights from what the weights before them make of the samples, activations float.
        let (input_keep, activation_keep, learn_scales, granularity) = match method.name {
            MethodName::Rtn => (0.0, 0.0, false, Granularity::Block),
            MethodName::Adaround => (1.0, 0.0, false, Granularity::Layer),
            MethodName::Brecq => (1.0, 0.0, true, Granularity::Block),
            MethodName::Qdrop => (0.5, 0.5, true, Granularity::Block),
        };
        let weights_first = matches!(method.name, MethodName::Adaround | MethodName::Brecq);
        let published_scale_lr = if method.name == MethodName::Brecq { 4e-4 } else { 4e-5 };
        let beyond = method.preset != Preset::Paper;
        let qdrop_beyond = beyond && method.name == MethodName::Qdrop;
        let iterations = method.iterations.unwrap_or(method.preset.iterations());
        let fewer = if beyond { PUBLISHED_ITERATIONS as f64 / iterations.max(1) as f64 } else { 1.0 };
        let faster = |most: f64| fewer.clamp(1.0, most);
        let scale_lr = match method.learn_scales.unwrap_or(learn_scales) {
            true => method.scale_lr.unwrap_or(published_scale_lr * faster(MOST_FASTER.1)),
            false => 0.0,
        };
        let tuning = if qdrop_beyond { (iterations / 2).min(MOST_TUNING) } else { 0 };
        let few = if beyond { FEW_SAMPLES } else { 0 };
        let learns = method.name != MethodName::Rtn;
        Effective {
            learns,
            iterations,
            input_keep: method.input_keep.unwrap_or(input_keep),
            activation_keep: method.activation_keep.unwrap_or(activation_keep),
            rounding_lr: method.rounding_lr.unwrap_or(1e-3 * faster(MOST_FASTER.0)),
            scale_lr,
            weights_first,
            step_iterations: if weights_first && scale_lr > 0.0 { iterations.div_ceil(STEP_SHARE) } else { 0 },
            stop_settled: method.stop_settled.unwrap_or(beyond),
            learn_biases: method.learn_biases.unwrap_or(qdrop_beyond),
            learn_weight_scales: method.learn_weight_scales.unwrap_or(qdrop_beyond),
            weigh_outputs: method.weigh_outputs.unwrap_or(qdrop_beyond),
            correct_samples: if learns { 0 } else { method.correct_samples.unwrap_or(few) },
            tune_iterations: method.tune_iterations.unwrap_or(tuning),
            factor_samples: self.activations.factor_samples.unwrap_or(few),
            refine_samples: self.activations.refine_samples.unwrap_or(few),
            noise_limit: match self.output.target {
                Target::Ort => self.activations.noise_limit.unwrap_or(if beyond { NOISE_LIMIT } else { 0.0 }),
                _ => 0.0,
            },
            granularity: self.units.granularity.unwrap_or(granularity),
        }
    }

    /// Checks that every unit depends on the float network alone, so that several machines can solve the units
    /// ([`crate::Quantizer::solve_share`]); the error says on what else a unit depends.
    pub fn solvable_apart(&self) -> Result<()> {
        let (method, effective) = (self.method.name, self.resolved());
        let remedy = "method adaround or brecq with `input_keep = 0` under `[method]` in a recipe learns from the float \
                      network's inputs";
        let message = if !effective.learns {
            format!("there are no units to solve: {method} learns nothing")
        } else if !effective.weights_first {
            format!(
                "units cannot be solved apart: with {method} each learns from what the quantized units before it return"
            )
        } else if effective.input_keep > 0.0 {
            let keep = effective.input_keep;
            format!(
                "units cannot be solved apart: with input_keep = {keep} each learns from what the rounded units before it return"
            )
        } else {
            return Ok(());
        };
        Err(Error::recipe(message).hint(remedy))
    }

    /// How many calibration samples each stage reads that reads few: choosing factors, refining, measuring
    /// sensitivities, correcting biases.
    pub(crate) fn few_samples(&self) -> [usize; 4] {
        let effective = self.resolved();
        let mixed = if self.mixed.wanted() { self.mixed.samples } else { 0 };
        [effective.factor_samples, effective.refine_samples, mixed, effective.correct_samples]
    }

    /// The same recipe with everything written out that its preset and its method decide.
    pub fn explicit(&self) -> Recipe {
        let e = self.resolved();
        let mut recipe = self.clone();
        let (activations, method) = (&mut recipe.activations, &mut recipe.method);
        activations.placement = Some(self.placement());
        activations.last_bits = Some(activations.last());
        activations.factor_samples = Some(e.factor_samples);
        activations.refine_samples = Some(e.refine_samples);
        activations.noise_limit = Some(e.noise_limit);
        method.iterations = Some(e.iterations);
        (method.input_keep, method.activation_keep) = (Some(e.input_keep), Some(e.activation_keep));
        (method.rounding_lr, method.scale_lr) = (Some(e.rounding_lr), Some(e.scale_lr));
        (method.learn_scales, method.learn_biases) = (Some(e.scale_lr > 0.0), Some(e.learn_biases));
        (method.stop_settled, method.weigh_outputs) = (Some(e.stop_settled), Some(e.weigh_outputs));
        method.correct_samples = Some(e.correct_samples);
        method.tune_iterations = Some(e.tune_iterations);
        method.learn_weight_scales = Some(e.learn_weight_scales);
        recipe.units.granularity = Some(e.granularity);
        recipe
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::{Activations, Method};

    fn resolved(method: Method) -> Effective {
        Recipe { method, ..Recipe::default() }.resolved()
    }

    #[test]
    fn short_schedules_take_larger_steps() {
        let rates = |iterations: usize| {
            let e = resolved(Method { iterations: Some(iterations), ..Method::default() });
            (e.rounding_lr, e.scale_lr)
        };
        assert_eq!(rates(20_000), (1e-3, 4e-5));
        assert_eq!(rates(80_000), (1e-3, 4e-5));
        assert_eq!(rates(5_000), (4e-3, 1.6e-4));
        assert_eq!(rates(1000), (2e-2, 4e-4));
        assert_eq!(rates(100), (5e-2, 4e-4));
        let given = Method { iterations: Some(100), rounding_lr: Some(1e-3), scale_lr: Some(0.0), ..Method::default() };
        let given = resolved(given);
        assert_eq!((given.rounding_lr, given.scale_lr), (1e-3, 0.0));
        let adaround = Method { name: MethodName::Adaround, ..Method::default() };
        assert_eq!(resolved(adaround).scale_lr, 0.0);
    }

    #[test]
    fn what_goes_beyond_the_paper_is_for_qdrop_unless_asked_for() {
        let beyond = |name, iterations, learn_biases, tune_iterations| {
            let iterations = Some(iterations);
            let e = resolved(Method { name, iterations, learn_biases, tune_iterations, ..Method::default() });
            (e.learn_biases, e.tune_iterations)
        };
        assert_eq!(beyond(MethodName::Qdrop, 20_000, None, None), (true, 1000));
        assert_eq!(beyond(MethodName::Qdrop, 300, None, None), (true, 150));
        assert_eq!(beyond(MethodName::Qdrop, 300, Some(false), Some(0)), (false, 0));
        assert_eq!(beyond(MethodName::Brecq, 20_000, None, None), (false, 0));
        assert_eq!(beyond(MethodName::Adaround, 20_000, Some(true), Some(7)), (true, 7));
    }

    #[test]
    fn the_preset_of_the_paper_is_the_published_method() {
        let paper = Method { preset: Preset::Paper, ..Method::default() };
        let e = resolved(paper.clone());
        assert_eq!((e.iterations, e.rounding_lr, e.scale_lr), (20_000, 1e-3, 4e-5));
        assert_eq!((e.learn_biases, e.weigh_outputs, e.stop_settled, e.tune_iterations), (false, false, false, 0));
        assert_eq!((e.factor_samples, e.refine_samples, e.noise_limit), (0, 0, 0.0));
        assert_eq!((e.input_keep, e.activation_keep), (0.5, 0.5));
        let short = resolved(Method { iterations: Some(100), ..paper.clone() });
        assert_eq!((short.iterations, short.rounding_lr), (100, 1e-3), "typed options win, rates stay");
        let activations = Activations { refine_samples: Some(8), ..Activations::default() };
        let refined = Recipe { method: paper, activations, ..Recipe::default() }.resolved();
        assert_eq!((refined.refine_samples, refined.factor_samples), (8, 0));
    }

    #[test]
    fn baselines_learn_weights_first() {
        let method = |name| Method { name, preset: Preset::Paper, ..Method::default() };
        let brecq = resolved(method(MethodName::Brecq));
        assert_eq!((brecq.input_keep, brecq.activation_keep), (1.0, 0.0));
        assert_eq!((brecq.iterations, brecq.step_iterations, brecq.scale_lr), (20_000, 5000, 4e-4));
        let adaround = resolved(method(MethodName::Adaround));
        assert_eq!((adaround.input_keep, adaround.activation_keep), (1.0, 0.0));
        assert_eq!((adaround.weights_first, adaround.step_iterations), (true, 0));
        let qdrop = resolved(method(MethodName::Qdrop));
        assert_eq!((qdrop.weights_first, qdrop.step_iterations), (false, 0));
    }

    #[test]
    fn units_are_solvable_apart_where_they_learn_from_the_float_network_alone() {
        let refusal = |name, input_keep| {
            let method = Method { name, input_keep, ..Method::default() };
            Recipe { method, ..Recipe::default() }.solvable_apart().err().map(|e| e.message().to_string())
        };
        assert_eq!((refusal(MethodName::Adaround, Some(0.0)), refusal(MethodName::Brecq, Some(0.0))), (None, None));
        assert!(refusal(MethodName::Qdrop, Some(0.0)).unwrap().contains("quantized units"));
        assert!(refusal(MethodName::Brecq, None).unwrap().contains("input_keep = 1"));
        assert!(refusal(MethodName::Rtn, None).unwrap().contains("learns nothing"));
    }

    #[test]
    fn presets_differ_in_time() {
        let iterations = |preset| resolved(Method { preset, ..Method::default() }).iterations;
        assert!(iterations(Preset::Fast) < iterations(Preset::Balanced));
        assert!(iterations(Preset::Balanced) < iterations(Preset::Paper));
        assert_eq!(Method::default().preset, Preset::Balanced);
    }

    #[test]
    fn an_explicit_recipe_comes_to_the_same() {
        for name in [MethodName::Rtn, MethodName::Adaround, MethodName::Brecq, MethodName::Qdrop] {
            for preset in [Preset::Paper, Preset::Balanced, Preset::Fast] {
                let recipe = Recipe { method: Method { name, preset, ..Method::default() }, ..Recipe::default() };
                let text = recipe.explicit().to_toml().unwrap();
                let read = Recipe::from_toml(&text).unwrap();
                assert_eq!((read.resolved(), &read), (recipe.resolved(), &recipe.explicit()), "{text}");
            }
        }
    }
}
