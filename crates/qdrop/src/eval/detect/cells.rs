//! One row for every cell of a grid, or for every anchor of a cell: YOLOX, YOLOv5, YOLOv8 and their kin.

use super::family::Rules;
use super::nms::{Found, are_logits, best, classed};
use crate::error::{Error, Result};

/// Rows of a box, objectness and scores.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Cells {
    pub strides: Vec<usize>,
    pub classes: usize,
    /// Coefficients of masks behind the scores, which are not read.
    pub masks: usize,
    /// Rows for each cell.
    pub anchors: usize,
}

/// Boxes and scores.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Channels {
    pub rows: usize,
    pub classes: usize,
    /// Coefficients of masks behind the scores, which are not read.
    pub masks: usize,
    /// Whether the values of a box lie one behind the other, not all boxes' first values.
    pub by_row: bool,
}

/// Rows and columns of the cells of `stride`.
pub(super) fn grid(canvas: (usize, usize), stride: usize) -> (usize, usize) {
    (canvas.0.div_ceil(stride), canvas.1.div_ceil(stride))
}

/// Number of the cells of all `strides`.
pub(super) fn count(canvas: (usize, usize), strides: &[usize]) -> usize {
    strides.iter().map(|&s| grid(canvas, s)).map(|(h, w)| h * w).sum()
}

/// Stride, column and row of every cell: strides in order, then rows.
pub(super) fn every(canvas: (usize, usize), strides: &[usize]) -> impl Iterator<Item = (f32, f32, f32)> + '_ {
    strides.iter().flat_map(move |&stride| {
        let (h, w) = grid(canvas, stride);
        (0..h * w).map(move |i| (stride as f32, (i % w) as f32, (i / w) as f32))
    })
}

/// Whether the centres of the boxes in `values` are offsets within their cells (raw), not pixels of the canvas. Of both
/// readings the one holds that puts most boxes nearer to the cells that they belong to: a detector looks for objects
/// around a cell, and in the wrong reading centres are off by as much as the canvas is wide.
pub(super) fn is_raw(form: &Cells, values: &[f32], canvas: (usize, usize)) -> bool {
    let rows = values.chunks_exact(5 + form.classes + form.masks).zip(every(canvas, &form.strides));
    let (mut raw, mut decoded) = (Vec::new(), Vec::new());
    for (row, (stride, column, line)) in rows {
        raw.push((row[0] - 0.5).abs().max((row[1] - 0.5).abs()));
        let off = |x: f32, cell: f32| (x / stride - cell - 0.5).abs();
        decoded.push(off(row[0], column).max(off(row[1], line)));
    }
    median(raw) <= median(decoded)
}

fn median(mut values: Vec<f32>) -> f32 {
    values.sort_by(f32::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or_default()
}

/// Boxes whose centres and sizes are `raw` or pixels, with objectness and scores.
pub(super) fn cells(form: &Cells, raw: bool, values: &[f32], canvas: (usize, usize), rules: Rules) -> Vec<Found> {
    let mut out = Vec::new();
    let mut one = |row: &[f32], cell: Option<(f32, f32, f32)>| {
        let scores = row[5..5 + form.classes].iter().map(|s| s * row[4]);
        let bbox = || {
            let around = match cell {
                Some((stride, column, line)) => {
                    [(row[0] + column) * stride, (row[1] + line) * stride, row[2].exp() * stride, row[3].exp() * stride]
                }
                None => [row[0], row[1], row[2], row[3]],
            };
            Found::around(around, 0, 0.0).bbox
        };
        classed(scores, bbox, rules, &mut out);
    };
    let rows = values.chunks_exact(5 + form.classes + form.masks);
    if raw {
        rows.zip(every(canvas, &form.strides)).for_each(|(row, cell)| one(row, Some(cell)));
    } else {
        rows.for_each(|row| one(row, None));
    }
    best(&mut out, rules.candidates);
    out
}

/// Boxes in pixels with scores; an error where these are none.
pub(super) fn channels(form: &Channels, values: &[f32], rules: Rules) -> Result<Vec<Found>> {
    let scores = 4..4 + form.classes;
    let (by_row, by_channel) = if form.by_row { (scores.end + form.masks, 1) } else { (1, form.rows) };
    let mut out = Vec::new();
    for row in 0..form.rows {
        let at = |channel: usize| values[row * by_row + channel * by_channel];
        if let Some(channel) = scores.clone().find(|&c| are_logits([at(c)].into_iter())) {
            let message = format!("expected scores from 0 to 1 behind a box, got {} in channel {channel}", at(channel));
            let hint = "channels that hold keypoints or angles are not told from scores: measure what other code makes of the \
                        outputs with --detections; scores need the sigmoid inside the file";
            return Err(Error::data(message).hint(hint));
        }
        let bbox = || Found::around([at(0), at(1), at(2), at(3)], 0, 0.0).bbox;
        classed(scores.clone().map(at), bbox, rules, &mut out);
    }
    best(&mut out, rules.candidates);
    Ok(out)
}
