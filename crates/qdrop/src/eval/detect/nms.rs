//! Which of the candidates are detections.

use super::family::Rules;
use std::cmp::Ordering;
use std::collections::BTreeMap;

/// Something that a detector found.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Found {
    /// Left, top, right and bottom in pixels of the canvas.
    pub bbox: [f32; 4],
    /// The class, as the network numbers it.
    pub class: usize,
    /// How sure the network is.
    pub score: f32,
}

impl Found {
    /// A box from its centre, width and height.
    pub(super) fn around([x, y, w, h]: [f32; 4], class: usize, score: f32) -> Self {
        Found { bbox: [x - w / 2.0, y - h / 2.0, x + w / 2.0, y + h / 2.0], class, score }
    }
}

/// The best `most` of `candidates`, the best first; among equal scores the first.
pub(super) fn best(candidates: &mut Vec<Found>, most: usize) {
    candidates.sort_by(|a, b| b.score.partial_cmp(&a.score).unwrap_or(Ordering::Equal));
    candidates.truncate(most);
}

/// What remains of `candidates`: of two boxes of a class that overlap by more than the rules allow, the better.
pub(super) fn finish(mut candidates: Vec<Found>, rules: Rules) -> Vec<Found> {
    candidates.retain(|c| c.bbox.iter().all(|x| x.is_finite()));
    for Found { bbox: [left, top, right, bottom], .. } in &mut candidates {
        (*right, *bottom) = (right.max(*left), bottom.max(*top));
    }
    // Anchors are chosen level by level.
    best(&mut candidates, usize::MAX);
    let Some(least) = rules.overlap else {
        candidates.truncate(rules.most);
        return candidates;
    };
    let mut kept: Vec<Found> = Vec::new();
    let mut classes: BTreeMap<usize, Vec<[f32; 4]>> = BTreeMap::new();
    for candidate in candidates {
        if kept.len() == rules.most {
            break;
        }
        let before = classes.entry(candidate.class).or_default();
        if before.iter().all(|b| overlap(b, &candidate.bbox) <= least) {
            before.push(candidate.bbox);
            kept.push(candidate);
        }
    }
    kept
}

/// Area that both boxes share, of the area that either has; 0 where neither has any.
fn overlap(a: &[f32; 4], b: &[f32; 4]) -> f32 {
    let area = |x: &[f32; 4]| (x[2] - x[0]) * (x[3] - x[1]);
    let width = (a[2].min(b[2]) - a[0].max(b[0])).max(0.0);
    let height = (a[3].min(b[3]) - a[1].max(b[1])).max(0.0);
    let shared = width * height;
    if shared > 0.0 { shared / (area(a) + area(b) - shared) } else { 0.0 }
}

/// 1 / (1 + exp(-x)).
pub(super) fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + (-x).exp())
}

/// Whether `scores` have not been through a sigmoid: one lies clearly outside 0 to 1.
pub(super) fn are_logits(mut scores: impl Iterator<Item = f32>) -> bool {
    scores.any(|s| !(-0.05..=1.05).contains(&s))
}

/// `boxes` with every class whose score is high enough, or the likeliest one.
pub(super) fn classed(
    scores: impl Iterator<Item = f32>,
    bbox: impl Fn() -> [f32; 4],
    rules: Rules,
    out: &mut Vec<Found>,
) {
    let mut likeliest: Option<(usize, f32)> = None;
    let mut made = None;
    for (class, score) in scores.enumerate() {
        if rules.several {
            if score > rules.score {
                let bbox = *made.get_or_insert_with(&bbox);
                out.push(Found { bbox, class, score });
            }
        } else if likeliest.is_none_or(|(_, best)| score > best) {
            likeliest = Some((class, score));
        }
    }
    if let Some((class, score)) = likeliest.filter(|(_, score)| *score > rules.score) {
        out.push(Found { bbox: bbox(), class, score });
    }
}
