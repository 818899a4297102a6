//! What is learned, on every device: the update rule of Adam, the steps of sites, and biases.

use super::ops::Real;
use super::train::{Bias, Problem, Scaled, Step};
use crate::quant::Grid;
use crate::quant::lsq::{gradient_factor, step_floor};

/// The update rule of Adam (Kingma and Ba, ICLR 2015) in one iteration, with β 0.9 and 0.999 and ε 1e-8.
#[derive(Debug, Clone, Copy)]
pub(super) struct Adam<R> {
    /// Learning rate over the bias correction of the first moment.
    size: R,
    /// Square root of the bias correction of the second moment.
    root: R,
}

impl<R: Real> Adam<R> {
    /// With learning rate `lr` in iteration `t` (from 1).
    pub fn new(lr: f64, t: usize) -> Self {
        let (c1, c2) = (1.0 - 0.9f64.powi(t as i32), 1.0 - 0.999f64.powi(t as i32));
        Adam { size: R::of(lr / c1), root: R::of(c2.sqrt()) }
    }

    /// How far a variable must go down for its gradient `g`; its first and second moments, `m` and `v`, begin at 0.
    #[inline(always)]
    pub fn change(self, m: &mut R, v: &mut R, g: R) -> R {
        *m += (g - *m) * R::of(0.1);
        *v = *v * R::of(0.999) + g * g * R::of(0.001);
        self.size * *m / (v.sqrt() / self.root + R::of(1e-8))
    }
}

/// First and second moments of some variables.
#[derive(Debug, Clone)]
pub(super) struct Moments {
    pub m: Vec<f32>,
    pub v: Vec<f32>,
}

impl Moments {
    /// Before the first iteration on `n` variables.
    pub fn new(n: usize) -> Self {
        Moments { m: vec![0.0; n], v: vec![0.0; n] }
    }

    /// How far each variable must go down for the gradients `g` in iteration `t` (from 1).
    pub fn changes<'a>(&'a mut self, g: &'a [f32], lr: f64, t: usize) -> impl Iterator<Item = f32> + 'a {
        let adam = Adam::new(lr, t);
        g.iter().zip(&mut self.m).zip(&mut self.v).map(move |((&g, m), v)| adam.change(m, v, g))
    }
}

/// The steps of a problem's sites while they are learned (learned step size quantization: Esser et al., ICLR 2020).
#[derive(Debug, Clone)]
pub(super) struct LearnedScales {
    pub grids: Vec<Grid>,
    /// What the learning rate of each is multiplied by.
    rates: Vec<f64>,
    /// None becomes smaller.
    floors: Vec<f32>,
    /// First and second moment of each.
    moments: Vec<[f64; 2]>,
    /// Elements of one sample at each site.
    numel: Vec<usize>,
}

impl LearnedScales {
    pub fn new(problem: &Problem) -> Self {
        let slots = &problem.program.slots;
        LearnedScales {
            grids: problem.grids.clone(),
            rates: problem.scale_rates.clone(),
            floors: problem.grids.iter().map(|g| step_floor(g.scale[0])).collect(),
            moments: vec![[0.0; 2]; problem.grids.len()],
            numel: problem.program.sites.iter().map(|&s| slots[s].shape.iter().product()).collect(),
        }
    }

    /// One update for the gradients of the steps, each summed over a batch of `batch` samples.
    pub fn update(&mut self, gradients: &[f64], batch: usize, step: &Step) {
        for (i, grid) in self.grids.iter_mut().enumerate() {
            let g = gradients[i] * gradient_factor(batch * self.numel[i], grid.qmax);
            let [m, v] = &mut self.moments[i];
            let change = Adam::new(step.scale_lr * self.rates[i], step.iteration).change(m, v, g);
            grid.scale[0] = ((f64::from(grid.scale[0]) - change) as f32).abs().max(self.floors[i]);
        }
    }
}

/// A [`Bias`] while it is learned.
#[derive(Debug, Clone)]
pub(super) struct LearnedBias {
    pub content: Vec<f32>,
    step: Vec<f32>,
    moments: Moments,
}

impl LearnedBias {
    pub fn new(bias: &Bias) -> Self {
        LearnedBias { content: bias.float.clone(), step: bias.step.clone(), moments: Moments::new(bias.float.len()) }
    }

    /// One update for the gradient `g` of the content.
    pub fn update(&mut self, g: &[f32], step: &Step) {
        let g: Vec<f32> = g.iter().zip(&self.step).map(|(g, s)| g * s).collect();
        let changes = self.moments.changes(&g, step.bias_lr, step.iteration);
        for ((b, s), change) in self.content.iter_mut().zip(&self.step).zip(changes) {
            *b -= s * change;
        }
    }
}

/// A [`Scaled`] constant while it is learned.
#[derive(Debug, Clone)]
pub(super) struct LearnedScaled<'a> {
    of: &'a Scaled,
    pub scale: Vec<f32>,
    pub content: Vec<f32>,
    moments: Moments,
}

impl<'a> LearnedScaled<'a> {
    pub fn new(of: &'a Scaled) -> Self {
        let moments = Moments::new(of.scale.len());
        LearnedScaled { of, scale: of.scale.clone(), content: of.content(&of.scale), moments }
    }

    /// One update for the gradient of the content. What is learned is the logarithm of every scale, so that all move by like
    /// shares.
    pub fn update(&mut self, mut gradient: Vec<f32>, step: &Step) {
        let mut slopes = vec![0f64; self.scale.len()];
        gradient.iter_mut().zip(&self.content).for_each(|(g, &w)| *g *= w);
        self.of.for_each(&mut gradient, |part, c| slopes[c] += part.iter().map(|&g| f64::from(g)).sum::<f64>());
        let slopes: Vec<f32> = slopes.into_iter().map(|g| g as f32).collect();
        let changes = self.moments.changes(&slopes, step.scaled_lr, step.iteration);
        self.scale.iter_mut().zip(changes).for_each(|(s, change)| *s *= (-change).exp());
        self.content = self.of.content(&self.scale);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::philox::Stream;
    use crate::engine::train::{Choices, RandomDraws};

    /// Iterations of a test.
    const ITERATIONS: usize = 2000;
    /// Variables of a test.
    const VARIABLES: usize = 50;

    fn gradients(t: usize) -> Vec<f64> {
        let noise = Stream::new(3, 0, 0, t as u32).below(VARIABLES, 1 << 20);
        noise
            .iter()
            .enumerate()
            .map(|(i, &v)| (v as f64 / (1 << 19) as f64 - 0.8) * 10f64.powi(i as i32 % 9 - 6))
            .collect()
    }

    #[test]
    fn the_update_is_the_published_one() {
        let (mut m, mut v) = ([0.0; VARIABLES], [0.0; VARIABLES]);
        let (mut own_m, mut own_v) = (m, v);
        for t in 1..=ITERATIONS {
            let (c1, c2) = (1.0 - 0.9f64.powi(t as i32), 1.0 - 0.999f64.powi(t as i32));
            for (i, g) in gradients(t).into_iter().enumerate() {
                let change = Adam::new(0.01, t).change(&mut own_m[i], &mut own_v[i], g);
                m[i] = 0.9 * m[i] + 0.1 * g;
                v[i] = 0.999 * v[i] + 0.001 * g * g;
                let want = 0.01 * (m[i] / c1) / ((v[i] / c2).sqrt() + 1e-8);
                assert!((change - want).abs() <= 1e-9 * want.abs().max(1e-6), "{t}: {change} instead of {want}");
            }
        }
    }

    #[test]
    fn single_precision_has_its_own_constants() {
        let of = [0.1, 0.999, 0.001, 1e-8].map(<f32 as Real>::of);
        assert_eq!(of.map(f32::to_bits), [0.1f32, 0.999, 0.001, 1e-8].map(f32::to_bits));
    }

    #[test]
    fn scales_move_by_the_sum_of_their_channels_gradients_and_by_like_shares() {
        let base: Vec<f32> = (0..12).map(|i| i as f32 - 4.0).collect();
        let gradient: Vec<f32> = (0..12).map(|i| [3.0, -1.0, 0.5, -2.0, 1.0][i % 5]).collect();
        for (axis, scale) in [(None, vec![0.5]), (Some(0), vec![0.5, 2.0]), (Some(1), vec![0.5, 40.0, 1e-4])] {
            let constant = Scaled { base: base.clone(), shape: vec![2, 3, 2], axis, scale: scale.clone() };
            let channels: Vec<usize> =
                (0..12).map(|i| axis.map_or(0, |axis: usize| if axis == 0 { i / 6 } else { i / 2 % 3 })).collect();
            let content: Vec<f32> = base.iter().zip(&channels).map(|(&b, &c)| b * scale[c]).collect();
            assert_eq!(constant.content(&scale), content);
            let mut learned = LearnedScaled::new(&constant);
            let step = Step { scaled_lr: 1e-2, ..step() };
            learned.update(gradient.clone(), &step);
            for (c, (&before, &after)) in scale.iter().zip(&learned.scale).enumerate() {
                let mine = (0..12).filter(|&i| channels[i] == c);
                let slope: f32 = mine.map(|i| gradient[i] * content[i]).sum();
                // The first update of Adam is the learning rate against the sign of the gradient.
                let share = f64::from(after / before).ln();
                assert!((share + 1e-2 * f64::from(slope.signum())).abs() < 1e-5, "{axis:?}, {c}: {share} for {slope}");
            }
            assert_eq!(learned.content, constant.content(&learned.scale));
        }
    }

    fn step() -> Step<'static> {
        let choices = Choices::Drawn(RandomDraws {
            seed: 0,
            unit: 0,
            batch: 1,
            samples: 1,
            input_keep: 1.0,
            activation_keep: 1.0,
        });
        Step {
            iteration: 1,
            choices,
            lambda: 0.0,
            beta: 0.0,
            rounding_lr: 0.0,
            bias_lr: 0.0,
            scale_lr: 0.0,
            scaled_lr: 0.0,
            settled_below: None,
        }
    }
}
