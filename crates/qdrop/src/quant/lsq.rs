//! Learned steps (LSQ) on one tensor: the specification that faster engines are compared with.

use super::Grid;

/// Smallest step during learning of one that was `first` before: after each update a step is max(|s|, this). It is the
/// published constant, less where steps were that small from the start.
pub fn step_floor(first: f32) -> f32 {
    f32::EPSILON * first.min(1.0)
}

/// Gradients of [`forward`].
#[derive(Debug, Clone, PartialEq)]
pub struct Gradients {
    /// To x, one per element: the upstream gradient inside the clip range, else 0.
    pub x: Vec<f32>,
    /// To the step, times [`gradient_factor`].
    pub scale: f32,
}

/// 1 / sqrt(numel · qmax), by which the gradient of a step is multiplied.
pub fn gradient_factor(numel: usize, qmax: i32) -> f64 {
    1.0 / (numel as f64 * f64::from(qmax)).sqrt()
}

/// y = s·(clip(round(x/s) + z, qmin, qmax) - z) with the grid's first entry (activation grids have one).
pub fn forward(x: &[f32], grid: &Grid) -> Vec<f32> {
    let (s, z, low, high) = parts(grid);
    x.iter().map(|&v| (((v / s).round_ties_even() + z).clamp(low, high) - z) * s).collect()
}

/// Gradients of [`forward`] for the gradient `upstream` of y: straight through rounding, so inside the clip range
/// (its ends included) ∂y/∂x = 1 and ∂y/∂s = round(x/s) - x/s; outside ∂y/∂x = 0 and ∂y/∂s = qmin - z or qmax - z.
pub fn backward(x: &[f32], upstream: &[f32], grid: &Grid) -> Gradients {
    let (s, z, low, high) = parts(grid);
    let mut sum = 0f64;
    let gradients = x.iter().zip(upstream).map(|(&v, &g)| {
        let t = v / s;
        let q = t.round_ties_even() + z;
        let inside = (low..=high).contains(&q);
        let slope = if inside { q - z - t } else { q.clamp(low, high) - z };
        sum += f64::from(slope) * f64::from(g);
        if inside { g } else { 0.0 }
    });
    let x_gradients = gradients.collect();
    Gradients { x: x_gradients, scale: (sum * gradient_factor(x.len(), grid.qmax)) as f32 }
}

fn parts(grid: &Grid) -> (f32, f32, f32, f32) {
    (grid.scale[0], grid.zero_point[0] as f32, grid.qmin as f32, grid.qmax as f32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_of_symmetric_grids_are_learned_within_their_signed_range() {
        // Integers less the zero point reach from -8 to 7.
        let grid = Grid::per_tensor(4, 0.5, 8).unwrap();
        let x = [0.6, -0.6, 3.6, 9.0, -3.9, -9.0];
        assert_eq!(forward(&x, &grid), [0.5, -0.5, 3.5, 3.5, -4.0, -4.0]);
        let upstream = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0];
        let found = backward(&x, &upstream, &grid);
        assert_eq!(found.x, [1.0, 2.0, 4.0, 0.0, 16.0, 0.0]);
        let slopes = [1.0 - 1.2, -1.0 + 1.2, 7.0 - 7.2, 7.0, -8.0 + 7.8, -8.0];
        let sum: f64 = slopes.iter().zip(upstream).map(|(s, g): (&f64, f32)| s * f64::from(g)).sum();
        let want = sum * gradient_factor(x.len(), 15);
        assert!((f64::from(found.scale) - want).abs() < 1e-5, "{} against {want}", found.scale);
    }
}
