//! The score that the elements of a detector's outputs belong to.

use super::anchors::{PER_CELL, STRIDES};
use super::cells::grid;
use super::nms::{are_logits, sigmoid};
use super::recognise::Form;

/// For every element of the outputs that are read the best score of its cell, anchor or query; nothing for final boxes.
/// `values` fit `form`.
pub(super) fn scores(form: &Form, values: &[&[f32]], canvas: (usize, usize)) -> Vec<Vec<f32>> {
    let mut out: Vec<Vec<f32>> = values.iter().map(|v| vec![0.0; v.len()]).collect();
    match form {
        Form::Cells { form, .. } => {
            let width = 5 + form.classes + form.masks;
            for (row, out) in values[0].chunks_exact(width).zip(out[0].chunks_exact_mut(width)) {
                out.fill(row[4] * probability(largest(&row[5..5 + form.classes]), false));
            }
        }
        Form::Channels(form) => {
            let width = 4 + form.classes + form.masks;
            let (by_row, by_channel) = if form.by_row { (width, 1) } else { (1, form.rows) };
            for row in 0..form.rows {
                let at = |channel: usize| row * by_row + channel * by_channel;
                let score = (4..4 + form.classes).map(|c| values[0][at(c)]).fold(0.0, f32::max);
                (0..width).for_each(|channel| out[0][at(channel)] = score);
            }
        }
        Form::Distributions(form) => {
            let (classes, sides) = (form.classes, 4 * form.bins);
            let levels = if form.by_level { form.strides.len() } else { 1 };
            let width = if form.by_level { classes } else { classes + sides };
            let rows = |level: usize| values[level].chunks_exact(width).map(|row| &row[..classes]);
            let logits = are_logits((0..levels).flat_map(rows).flatten().copied());
            for level in 0..levels {
                for (i, row) in rows(level).enumerate() {
                    let score = probability(largest(row), logits);
                    out[level][i * width..(i + 1) * width].fill(score);
                    if form.by_level {
                        out[levels + level][i * sides..(i + 1) * sides].fill(score);
                    }
                }
            }
        }
        Form::Anchors(form) => {
            let widths = if form.centred { vec![form.classes, 4, 1] } else { vec![form.classes, 4] };
            let per_cell = if form.centred { 1 } else { PER_CELL };
            let kinds = |kind: usize| match form.by_level {
                true => &values[kind * STRIDES.len()..][..STRIDES.len()],
                false => &values[kind..=kind],
            };
            let logits = are_logits(kinds(0).iter().flat_map(|v| v.iter().copied()));
            let mut start = 0;
            for (level, &stride) in STRIDES.iter().enumerate() {
                let (h, w) = grid(canvas, stride);
                // The output and the place there of number `k` of anchor `i` of this level.
                let at = |kind: usize, i: usize, k: usize| {
                    let (width, output) =
                        (widths[kind], if form.by_level { kind * STRIDES.len() + level } else { kind });
                    let place = match (form.by_level, form.maps) {
                        (true, true) => (i % per_cell * width + k) * h * w + i / per_cell,
                        (true, false) => i * width + k,
                        (false, _) => (start + i) * width + k,
                    };
                    (output, place)
                };
                for i in 0..h * w * per_cell {
                    let row: Vec<f32> = (0..form.classes).map(|k| at(0, i, k)).map(|(o, p)| values[o][p]).collect();
                    let score = probability(largest(&row), logits);
                    for (kind, &width) in widths.iter().enumerate() {
                        (0..width).map(|k| at(kind, i, k)).for_each(|(output, place)| out[output][place] = score);
                    }
                }
                start += h * w * per_cell;
            }
        }
        Form::Queries(form) => {
            let width = form.classes + usize::from(form.softmax);
            let (all, first) = if form.joined { (4 + width, 4) } else { (width, 0) };
            let rows = || values[0].chunks_exact(all).map(|row| &row[first..]);
            let logits = !form.softmax && are_logits(rows().flatten().copied());
            for (i, row) in rows().enumerate() {
                let most = largest(&row[..form.classes]);
                let score = match form.softmax {
                    true => 1.0 / row.iter().map(|s| (s - most).exp()).sum::<f32>(),
                    false => probability(most, logits),
                };
                out[0][i * all..(i + 1) * all].fill(score);
                if !form.joined {
                    out[1][4 * i..4 * i + 4].fill(score);
                }
            }
        }
        Form::Ends(_) => out.clear(),
    }
    out
}

/// The largest of `row`.
fn largest(row: &[f32]) -> f32 {
    row.iter().copied().fold(f32::NEG_INFINITY, f32::max)
}

/// The score that the largest number of a row stands for, which has been through a sigmoid unless these are `logits`.
fn probability(largest: f32, logits: bool) -> f32 {
    if logits { sigmoid(largest) } else { largest.max(0.0) }
}
