//! Scores and distributions of the distances to the four sides of a box (generalized focal loss): NanoDet and PicoDet.

use super::cells::{count, every};
use super::family::Rules;
use super::nms::{Found, are_logits, best, classed, sigmoid};

/// Scores and distributions of cells.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Distributions {
    pub strides: Vec<usize>,
    pub classes: usize,
    /// Distances, in strides from 0, that a distribution is over.
    pub bins: usize,
    /// Where a cell's point lies in it.
    pub centre: f32,
    /// Whether scores and distributions have outputs of their own for each level, first all scores.
    pub by_level: bool,
}

/// The candidates in `values`.
pub(super) fn decode(form: &Distributions, values: &[&[f32]], canvas: (usize, usize), rules: Rules) -> Vec<Found> {
    let (classes, sides) = (form.classes, 4 * form.bins);
    let mut cells: Vec<(&[f32], &[f32])> = Vec::new();
    if form.by_level {
        let (scores, distances) = values.split_at(form.strides.len());
        for (scores, distances) in scores.iter().zip(distances) {
            cells.extend(scores.chunks_exact(classes).zip(distances.chunks_exact(sides)));
        }
    } else {
        cells.extend(values[0].chunks_exact(classes + sides).map(|row| row.split_at(classes)));
    }
    debug_assert_eq!(cells.len(), count(canvas, &form.strides));
    let logits = are_logits(cells.iter().flat_map(|c| c.0.iter().copied()));
    let score = |s: &f32| if logits { sigmoid(*s) } else { *s };
    let mut out = Vec::new();
    for ((scores, distances), (stride, column, line)) in cells.into_iter().zip(every(canvas, &form.strides)) {
        let (x, y) = ((column + form.centre) * stride, (line + form.centre) * stride);
        let bbox = || {
            let side = |k: usize| mean(&distances[k * form.bins..(k + 1) * form.bins]) * stride;
            let (height, width) = (canvas.0 as f32, canvas.1 as f32);
            [
                (x - side(0)).clamp(0.0, width),
                (y - side(1)).clamp(0.0, height),
                (x + side(2)).clamp(0.0, width),
                (y + side(3)).clamp(0.0, height),
            ]
        };
        classed(scores.iter().map(score), bbox, rules, &mut out);
    }
    best(&mut out, rules.candidates);
    out
}

/// Mean of the distribution over 0, 1, 2, ... whose logarithms, up to a constant, are `logits`.
fn mean(logits: &[f32]) -> f32 {
    let most = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let (mut sum, mut weighted) = (0.0, 0.0);
    for (k, x) in logits.iter().enumerate() {
        let p = (x - most).exp();
        (sum, weighted) = (sum + p, weighted + p * k as f32);
    }
    weighted / sum
}
