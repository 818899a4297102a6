//! NonMaxSuppression.

use super::call::Operands;
use crate::error::{Error, Result};

/// The rows of image, class and box that stay. Ends with the error of `go_on`, which is asked before each box: it is compared
/// with all that stay, and nothing but the size of the operands limits how many these are.
pub(super) fn selected(centres: bool, x: &Operands, go_on: &dyn Fn() -> Result<()>) -> Result<Vec<[usize; 3]>> {
    let (boxes, scores) = (x.need(0)?.shape, x.need(1)?.shape);
    let (&[images, count, 4], &[also, classes, per_class]) = (boxes, scores) else {
        return Err(wrong(boxes, scores));
    };
    if (images, count) != (also, per_class) {
        return Err(wrong(boxes, scores));
    }
    let number = |i: usize| Ok(x.numbers(i)?.and_then(|v| v.first().copied()));
    let (most, overlap, least) = (number(2)?.unwrap_or(0.0), number(3)?.unwrap_or(0.0), number(4)?);
    let most = most.max(0.0) as usize;
    let (boxes, scores) = (x.numbers(0)?.unwrap_or_default(), x.numbers(1)?.unwrap_or_default());
    let boxes: Vec<[f64; 4]> = boxes.chunks_exact(4).map(|b| corners(centres, [b[0], b[1], b[2], b[3]])).collect();
    let mut found = Vec::new();
    for (i, scores) in scores.chunks_exact(count.max(1)).enumerate() {
        let (image, class) = (i / classes, i % classes);
        let boxes = &boxes[image * count..][..count];
        let counts = |&b: &usize| !scores[b].is_nan() && least.is_none_or(|least| scores[b] > least);
        let mut order: Vec<usize> = (0..count).filter(counts).collect();
        order.sort_by(|&a, &b| scores[b].total_cmp(&scores[a]));
        let mut kept: Vec<usize> = Vec::new();
        for b in order {
            go_on()?;
            if kept.len() >= most {
                break;
            }
            if kept.iter().all(|&k| iou(&boxes[k], &boxes[b]) <= overlap) {
                kept.push(b);
            }
        }
        found.extend(kept.into_iter().map(|b| [image, class, b]));
    }
    Ok(found)
}

fn wrong(boxes: &[usize], scores: &[usize]) -> Error {
    Error::model(format!("expected boxes [images, N, 4] and scores [images, classes, N], got {boxes:?} and {scores:?}"))
}

/// Lower and upper ends of both sides.
fn corners(centres: bool, [a, b, c, d]: [f64; 4]) -> [f64; 4] {
    match centres {
        true => [a - c / 2.0, b - d / 2.0, a + c / 2.0, b + d / 2.0],
        false => [a.min(c), b.min(d), a.max(c), b.max(d)],
    }
}

fn iou(a: &[f64; 4], b: &[f64; 4]) -> f64 {
    let side = |i: usize| (a[i + 2].min(b[i + 2]) - a[i].max(b[i])).max(0.0);
    let area = |x: &[f64; 4]| (x[2] - x[0]) * (x[3] - x[1]);
    let both = side(0) * side(1);
    if both > 0.0 { both / (area(a) + area(b) - both) } else { 0.0 }
}
