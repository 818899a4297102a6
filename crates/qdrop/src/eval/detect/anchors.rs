//! Heads of RetinaNet and FCOS with the anchors of torchvision.

use super::cells::grid;
use super::family::Rules;
use super::nms::{Found, are_logits, best, classed, sigmoid};
use std::borrow::Cow;

/// The strides of the five levels.
pub(super) const STRIDES: [usize; 5] = [8, 16, 32, 64, 128];
/// Sides of RetinaNet's anchors, in pixels, for each level.
const SIDES: [[f32; 3]; 5] =
    [[32.0, 40.0, 50.0], [64.0, 80.0, 101.0], [128.0, 161.0, 203.0], [256.0, 322.0, 406.0], [512.0, 645.0, 812.0]];
/// Height of an anchor, of its width.
const RATIOS: [f32; 3] = [0.5, 1.0, 2.0];
/// Anchors of RetinaNet in a cell.
pub(super) const PER_CELL: usize = SIDES[0].len() * RATIOS.len();

/// Scores and offsets of anchors.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Anchors {
    pub classes: usize,
    /// Whether there are outputs for each level: all scores, then all boxes, then all centredness.
    pub by_level: bool,
    /// Whether these are maps, with channels of the first anchor before those of others, instead of rows.
    pub maps: bool,
    /// Whether cells have centredness and one anchor (FCOS).
    pub centred: bool,
}

/// The candidates in `values`.
pub(super) fn decode(form: &Anchors, values: &[&[f32]], canvas: (usize, usize), rules: Rules) -> Vec<Found> {
    let kinds = if form.centred { 3 } else { 2 };
    let widths = [form.classes, 4, 1];
    let per_cell = if form.centred { 1 } else { PER_CELL };
    let mut out = Vec::new();
    let logits = |kind: usize| {
        let all = if form.by_level { &values[kind * STRIDES.len()..][..STRIDES.len()] } else { &values[kind..=kind] };
        are_logits(all.iter().flat_map(|v| v.iter().copied()))
    };
    let (score_logits, centre_logits) = (logits(0), form.centred && logits(2));
    let probability = |x: f32, logits: bool| if logits { sigmoid(x) } else { x };
    let mut start = 0;
    for (level, &stride) in STRIDES.iter().enumerate() {
        let (h, w) = grid(canvas, stride);
        let rows = h * w * per_cell;
        let part = |kind: usize| -> Cow<[f32]> {
            if kind >= kinds {
                return Cow::Borrowed(&[]);
            }
            match form.by_level {
                true if form.maps => Cow::Owned(by_row(values[kind * STRIDES.len() + level], widths[kind], h * w)),
                true => Cow::Borrowed(values[kind * STRIDES.len() + level]),
                false => Cow::Borrowed(&values[kind][start * widths[kind]..(start + rows) * widths[kind]]),
            }
        };
        let (scores, boxes, centres) = (part(0), part(1), part(2));
        let anchors = anchors(level, form.centred, canvas, (h, w));
        let mut found = Vec::new();
        for (i, anchor) in anchors.iter().enumerate() {
            let centre = centres.get(i).map(|c| probability(*c, centre_logits));
            let score = |s: &f32| {
                let s = probability(*s, score_logits);
                centre.map_or(s, |c| (s * c).sqrt())
            };
            let row = &boxes[4 * i..4 * i + 4];
            let bbox = || {
                let bbox = if form.centred { distances(anchor, row) } else { offsets(anchor, row) };
                let (height, width) = (canvas.0 as f32, canvas.1 as f32);
                [
                    bbox[0].clamp(0.0, width),
                    bbox[1].clamp(0.0, height),
                    bbox[2].clamp(0.0, width),
                    bbox[3].clamp(0.0, height),
                ]
            };
            classed(scores[i * form.classes..(i + 1) * form.classes].iter().map(score), bbox, rules, &mut found);
        }
        best(&mut found, rules.candidates);
        out.extend(found);
        start += rows;
    }
    out
}

/// Rows of `width` numbers, one an anchor, from a `map` over `cells` cells.
fn by_row(map: &[f32], width: usize, cells: usize) -> Vec<f32> {
    let per_cell = map.len() / (width * cells).max(1);
    let rows = (0..cells).flat_map(|cell| (0..per_cell).map(move |anchor| (cell, anchor)));
    rows.flat_map(|(cell, anchor)| (0..width).map(move |k| map[(anchor * width + k) * cells + cell])).collect()
}

/// The anchors of a level (left, top, right, bottom): those of a cell one behind the other, cells by row. The distance of
/// cells is what the canvas leaves for each, rounded down.
fn anchors(level: usize, centred: bool, canvas: (usize, usize), (h, w): (usize, usize)) -> Vec<[f32; 4]> {
    let (down, right) = ((canvas.0 / h.max(1)) as f32, (canvas.1 / w.max(1)) as f32);
    let mut around = Vec::new();
    if centred {
        let side = STRIDES[level] as f32;
        around.push((side / 2.0, side / 2.0));
    } else {
        for ratio in RATIOS {
            let (tall, wide) = (ratio.sqrt(), 1.0 / ratio.sqrt());
            around.extend(
                SIDES[level].map(|side| ((wide * side / 2.0).round_ties_even(), (tall * side / 2.0).round_ties_even())),
            );
        }
    }
    let mut all = Vec::with_capacity(h * w * around.len());
    for i in 0..h * w {
        let (x, y) = ((i % w) as f32 * right, (i / w) as f32 * down);
        all.extend(around.iter().map(|(dx, dy)| [x - dx, y - dy, x + dx, y + dy]));
    }
    all
}

/// An anchor moved by `row`: shares of its sides by which the centre moves, and logarithms of the factors of its sides.
fn offsets(anchor: &[f32; 4], row: &[f32]) -> [f32; 4] {
    /// Largest logarithm of a factor: ln(1000 / 16).
    const MOST: f32 = 4.135_166_6;
    let (width, height) = (anchor[2] - anchor[0], anchor[3] - anchor[1]);
    let (x, y) = (anchor[0] + 0.5 * width, anchor[1] + 0.5 * height);
    let (w, h) = (row[2].min(MOST).exp() * width, row[3].min(MOST).exp() * height);
    Found::around([row[0] * width + x, row[1] * height + y, w, h], 0, 0.0).bbox
}

/// The box whose sides have the distances `row`, in sides of the anchor, from its centre.
fn distances(anchor: &[f32; 4], row: &[f32]) -> [f32; 4] {
    let (width, height) = (anchor[2] - anchor[0], anchor[3] - anchor[1]);
    let (x, y) = (0.5 * (anchor[0] + anchor[2]), 0.5 * (anchor[1] + anchor[3]));
    [x - row[0] * width, y - row[1] * height, x + row[2] * width, y + row[3] * height]
}
