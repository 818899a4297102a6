//! Files that put out final boxes.

use super::nms::Found;

/// Columns of a row: a box, its score and its class.
pub(super) const COLUMNS: usize = 6;

/// Final boxes, in pixels of the canvas, with classes and scores.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Ends {
    /// Boxes, classes and scores in three outputs; `by_number` where classes are numbers of categories.
    Lists { by_number: bool },
    /// Rows of left, top, right, bottom, score and class, and what is not read.
    Rows { columns: usize },
    /// Rows of number in the batch, left, top, right, bottom, class and score.
    Numbered,
}

impl Ends {
    /// Whether outputs of so many elements can be these.
    pub(super) fn fits(&self, lengths: &[usize]) -> bool {
        match (self, lengths) {
            (Ends::Lists { .. }, &[boxes, classes, scores]) => boxes == 4 * classes && classes == scores,
            (Ends::Rows { columns }, &[rows]) => rows.is_multiple_of(*columns),
            (Ends::Numbered, &[rows]) => rows.is_multiple_of(7),
            _ => false,
        }
    }
}

/// What `values` hold; rows with a score of 0 or less fill up, and so do classes below 0.
pub(super) fn decode(form: &Ends, values: &[&[f32]]) -> Vec<Found> {
    let one = |bbox: &[f32], class: f32, score: f32| {
        let bbox = [bbox[0], bbox[1], bbox[2], bbox[3]];
        (score > 0.0 && class >= 0.0).then(|| Found { bbox, class: class.round() as usize, score })
    };
    match form {
        Ends::Lists { .. } => {
            let rows = values[0].chunks_exact(4).zip(values[1]).zip(values[2]);
            rows.filter_map(|((bbox, &class), &score)| one(bbox, class, score)).collect()
        }
        Ends::Rows { columns } => values[0].chunks_exact(*columns).filter_map(|r| one(&r[..4], r[5], r[4])).collect(),
        Ends::Numbered => values[0].chunks_exact(7).filter_map(|r| one(&r[1..5], r[5], r[6])).collect(),
    }
}
