//! What a network puts out for pixels: scores of classes, or classes.

use crate::error::{Error, Result};
use std::ops::Range;

/// Cells of an output may be so many pixels of the input wide at most.
const COARSEST: usize = 64;

/// Where the classes of pixels stand in an output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClassMap {
    /// Rows and columns of cells.
    size: [usize; 2],
    /// Classes that have scores; `None` where the classes themselves are put out.
    classes: Option<usize>,
    /// Elements from one class, row and column to the next.
    steps: [usize; 3],
}

/// Between which two rows or columns of cells a place is: the value there is `(1 - weight) * first + weight * second`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Place {
    first: usize,
    second: usize,
    weight: f32,
}

impl Place {
    /// The place at `position`, in cells from the edge of the map, along an axis of `cells` cells of which those in `shown`
    /// show the image. Values of cells are at their centres; beyond the outermost centres in `shown` they stay as they are
    /// there.
    pub fn new(position: f64, cells: usize, shown: Range<f64>) -> Self {
        let last = cells.saturating_sub(1) as f64;
        let (least, most) = (shown.start.clamp(0.0, last), (shown.end - 1.0).clamp(0.0, last));
        let at = (position - 0.5).min(most).max(least);
        let first = at.floor();
        Place { first: first as usize, second: (first + 1.0).min(last) as usize, weight: (at - first) as f32 }
    }

    /// The nearer of the two, the second at the same distance.
    fn nearest(self) -> usize {
        if self.weight < 0.5 { self.first } else { self.second }
    }

    fn between(self, first: f32, second: f32) -> f32 {
        // Without weight, not even an infinity counts.
        if self.weight == 0.0 { first } else { first * (1.0 - self.weight) + second * self.weight }
    }
}

impl ClassMap {
    /// How an output of this `shape`, for one sample and with or without a batch axis of 1, tells classes for an input of
    /// `input` pixels (rows, columns): scores with the classes in front of rows and columns or behind them, or classes. `None`
    /// where it does not: rows and columns are as many as those of the input, or as many as are left at a stride of up to 64.
    pub fn recognise(shape: &[usize], input: [usize; 2]) -> Option<Self> {
        let fits = |h: usize, w: usize| {
            let of = |n: usize, stride: usize| [n / stride, n.div_ceil(stride)];
            h > 0 && w > 0 && (1..=COARSEST).any(|s| of(input[0], s).contains(&h) && of(input[1], s).contains(&w))
        };
        let scores = |classes: usize, size: [usize; 2], steps: [usize; 3]| match classes {
            0 => None,
            1 => Some(ClassMap { size, classes: None, steps }),
            _ => Some(ClassMap { size, classes: Some(classes), steps }),
        };
        let shape = if let [1, inner @ ..] = shape { inner } else { shape };
        match *shape {
            [h, w] if fits(h, w) => Some(ClassMap { size: [h, w], classes: None, steps: [0, w, 1] }),
            [c, h, w] if fits(h, w) => scores(c, [h, w], [h * w, w, 1]),
            [h, w, c] if fits(h, w) => scores(c, [h, w], [1, w * c, c]),
            _ => None,
        }
    }

    /// Rows and columns of cells.
    pub fn size(&self) -> [usize; 2] {
        self.size
    }

    /// Number of classes, where they have scores.
    pub fn classes(&self) -> Option<usize> {
        self.classes
    }

    /// Elements of the output.
    fn elements(&self) -> usize {
        self.size[0] * self.size[1] * self.classes.unwrap_or(1)
    }

    /// That `values` can be read.
    pub fn check(&self, values: &[f32]) -> Result<()> {
        if values.len() != self.elements() {
            return Err(Error::data(format!("expected {} elements, got {}", self.elements(), values.len())));
        }
        match values.iter().position(|v| v.is_nan()) {
            Some(at) => {
                Err(Error::new(crate::error::Kind::Numeric, format!("element {at} of the network's output is NaN")))
            }
            None => Ok(()),
        }
    }

    /// The classes at the places of one row: those with the largest interpolated score (the lowest class of equal ones), or
    /// those of the nearest cells. `values` are such as [`ClassMap::check`] found well.
    pub fn row(&self, values: &[f32], row: Place, columns: &[Place]) -> Result<Vec<u16>> {
        let [of_class, of_row, of_column] = self.steps;
        let value = |class: usize, y: usize, x: usize| values[class * of_class + y * of_row + x * of_column];
        let Some(classes) = self.classes else {
            let y = row.nearest();
            return columns.iter().map(|c| class(value(0, y, c.nearest()), y, c.nearest())).collect();
        };
        let mut line = vec![0.0; self.size[1]];
        let mut best = vec![(f32::NEG_INFINITY, 0u16); columns.len()];
        for class in 0..classes.min(usize::from(u16::MAX)) {
            for (x, at) in line.iter_mut().enumerate() {
                *at = row.between(value(class, row.first, x), value(class, row.second, x));
            }
            for (best, place) in best.iter_mut().zip(columns) {
                let score = place.between(line[place.first], line[place.second]);
                if score > best.0 {
                    *best = (score, class as u16);
                }
            }
        }
        Ok(best.into_iter().map(|b| b.1).collect())
    }
}

/// The class that `value`, put out at row `y` and column `x`, is.
fn class(value: f32, y: usize, x: usize) -> Result<u16> {
    if value >= 0.0 && value <= f32::from(u16::MAX) && value.fract() == 0.0 {
        return Ok(value as u16);
    }
    let message = format!(
        "the network's output is {value} at row {y}, column {x}, expected the number of a class from 0 to 65535"
    );
    Err(Error::data(message).hint("a network of one score per pixel must tell classes 0 and 1 itself"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn recognised(shape: &[usize], input: [usize; 2]) -> Option<([usize; 2], Option<usize>, [usize; 3])> {
        ClassMap::recognise(shape, input).map(|m| (m.size, m.classes, m.steps))
    }

    #[test]
    fn shapes_tell_what_is_put_out() {
        let input = [64, 96];
        assert_eq!(recognised(&[1, 21, 64, 96], input), Some(([64, 96], Some(21), [64 * 96, 96, 1])));
        assert_eq!(recognised(&[1, 16, 24, 21], input), Some(([16, 24], Some(21), [1, 24 * 21, 21])));
        for shape in [&[1, 64, 96][..], &[1, 1, 64, 96], &[64, 96], &[1, 64, 96, 1]] {
            let found = recognised(shape, input).unwrap();
            assert_eq!((found.0, found.1, found.2[1..].to_vec()), ([64, 96], None, vec![96, 1]), "{shape:?}");
        }
        assert_eq!(recognised(&[21, 8, 12], input), Some(([8, 12], Some(21), [96, 12, 1])));
        // Sizes that strides do not divide.
        assert_eq!(recognised(&[1, 2, 65, 65], [513, 513]).unwrap().0, [65, 65]);
        assert_eq!(recognised(&[1, 2, 64, 65], [513, 513]).unwrap().0, [64, 65]);
        for shape in
            [&[1, 1000][..], &[1, 21, 64, 64], &[1, 21], &[2, 3, 64, 96], &[1, 21, 128, 192], &[1, 0, 64, 96], &[]]
        {
            assert_eq!(recognised(shape, input), None, "{shape:?}");
        }
    }

    fn places(cells: usize, n: usize) -> Vec<Place> {
        let position = |i: usize| (i as f64 + 0.5) * cells as f64 / n as f64;
        (0..n).map(|i| Place::new(position(i), cells, 0.0..cells as f64)).collect()
    }

    #[test]
    fn scores_are_interpolated_between_centres() {
        // torch.nn.functional.interpolate([0, 4], size=4, mode="bilinear") is 0, 1, 3, 4.
        let row = |weights: [f32; 4]| weights.map(|w| w * 4.0);
        let at: Vec<f32> = places(2, 4).iter().map(|p| p.between(if p.first == 0 { 0.0 } else { 4.0 }, 4.0)).collect();
        assert_eq!(at, row([0.0, 0.25, 0.75, 1.0]));
        let map = ClassMap::recognise(&[1, 2, 2, 2], [4, 4]).unwrap();
        // Class 1 where its score of 0 to 4 is above 2.5, the score of class 0; from left to right, then from top to bottom.
        let (across, down) = ([2.5, 2.5, 2.5, 2.5, 0.0, 4.0, 0.0, 4.0], [2.5, 2.5, 2.5, 2.5, 0.0, 0.0, 4.0, 4.0]);
        for y in 0..4 {
            assert_eq!(map.row(&across, places(2, 4)[y], &places(2, 4)).unwrap(), [0, 0, 1, 1]);
            assert_eq!(map.row(&down, places(2, 4)[y], &places(2, 4)).unwrap(), [u16::from(y > 1); 4]);
        }
        // The same with classes behind.
        let behind = ClassMap::recognise(&[1, 2, 2, 3], [4, 4]).unwrap();
        let values = [2.5, 0.0, 0.0, 2.5, 4.0, 0.0, 2.5, 0.0, 0.0, 2.5, 4.0, 4.0];
        // Equal scores: the lowest class.
        assert_eq!(behind.row(&values, places(2, 4)[3], &places(2, 4)).unwrap(), [0, 0, 1, 1]);
        behind.check(&values).unwrap();
        assert!(behind.check(&values[1..]).is_err());
        let error = map.check(&[0.0, 0.0, f32::NAN, 0.0, 0.0, 0.0, 0.0, 0.0]).unwrap_err();
        assert_eq!(error.to_string(), "element 2 of the network's output is NaN");
    }

    #[test]
    fn padding_beside_the_image_has_no_part() {
        // Of four cells the two in the middle show the image, magnified twice.
        let shown: Vec<Place> = (0..4).map(|i| Place::new(1.25 + 0.5 * i as f64, 4, 1.0..3.0)).collect();
        let values = [100.0f32, 0.0, 4.0, 100.0];
        let at: Vec<f32> = shown.iter().map(|p| p.between(values[p.first], values[p.second])).collect();
        assert_eq!(at, [0.0, 1.0, 3.0, 4.0]);
        let infinite = Place::new(0.5, 2, 0.0..2.0);
        assert_eq!(infinite.between(1.0, f32::NEG_INFINITY), 1.0);
    }

    #[test]
    fn classes_are_those_of_the_nearest_cell() {
        let map = ClassMap::recognise(&[1, 2, 2], [4, 4]).unwrap();
        let values = [0.0, 1.0, 7.0, 300.0];
        let rows: Vec<Vec<u16>> = places(2, 4).iter().map(|&y| map.row(&values, y, &places(2, 4)).unwrap()).collect();
        assert_eq!(rows, [[0, 0, 1, 1], [0, 0, 1, 1], [7, 7, 300, 300], [7, 7, 300, 300]]);
        for wrong in [-1.0, 0.5, 70_000.0, f32::INFINITY] {
            let error = map.row(&[wrong; 4], places(2, 4)[0], &places(2, 4)).unwrap_err().to_string();
            let start = format!("the network's output is {wrong} at row 0, column 0, expected the number of a class");
            assert!(error.starts_with(&start), "{error}");
        }
    }
}
