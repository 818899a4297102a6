//! Queries with scores and boxes as shares of the canvas: DETR, RT-DETR and their kin.

use super::family::Rules;
use super::nms::{Found, are_logits, best, classed, sigmoid};

/// Scores and boxes of queries.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Queries {
    /// Classes, without that of no object.
    pub classes: usize,
    /// Whether the scores of a query, and that of no object behind them, share one softmax.
    pub softmax: bool,
    /// Whether one output holds box and scores of a query.
    pub joined: bool,
}

/// The candidates in `values`.
pub(super) fn decode(form: &Queries, values: &[&[f32]], canvas: (usize, usize), rules: Rules) -> Vec<Found> {
    let width = form.classes + usize::from(form.softmax);
    let queries: Vec<(&[f32], &[f32])> = if form.joined {
        values[0].chunks_exact(4 + width).map(|row| (&row[4..], &row[..4])).collect()
    } else {
        values[0].chunks_exact(width).zip(values[1].chunks_exact(4)).collect()
    };
    let logits = !form.softmax && are_logits(queries.iter().flat_map(|q| q.0.iter().copied()));
    let mut out = Vec::new();
    for (scores, row) in queries {
        let (high, wide) = (canvas.0 as f32, canvas.1 as f32);
        let bbox = || Found::around([row[0] * wide, row[1] * high, row[2] * wide, row[3] * high], 0, 0.0).bbox;
        let most = scores.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let sum: f32 = if form.softmax { scores.iter().map(|s| (s - most).exp()).sum() } else { 1.0 };
        let score = |s: &f32| match (form.softmax, logits) {
            (true, _) => (s - most).exp() / sum,
            (false, true) => sigmoid(*s),
            (false, false) => *s,
        };
        classed(scores[..form.classes].iter().map(score), bbox, rules, &mut out);
    }
    best(&mut out, rules.most);
    out
}
