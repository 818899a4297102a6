//! Where an image lies in the network's input.

use std::ops::Range;

/// How an image became network input: resized, and placed in the input. Maps boxes and points between both.
///
/// Coordinates are continuous: the upper left corner of the upper left pixel is (0, 0), and the lower right corner of an
/// image is (width, height). Sizes and positions are in pixels, the vertical one first.
///
/// ```
/// use qdrop::data::Prepare;
///
/// // An image of 640 x 480 pixels in the middle of a canvas of 320 x 320.
/// let prepare = Prepare { letterbox: Some("320".parse()?), ..Prepare::preset("yolov5")? };
/// let geometry = prepare.geometry(480, 640)?;
/// assert_eq!((geometry.resized, geometry.offset, geometry.input), ([240, 320], [40, 0], [320, 320]));
/// assert_eq!(geometry.to_image([10.0, 40.0, 320.0, 280.0]), [20.0, 0.0, 640.0, 480.0]);
/// # Ok::<(), qdrop::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Geometry {
    /// Height and width of the image in its file.
    pub image: [usize; 2],
    /// Height and width of the image after resizing.
    pub resized: [usize; 2],
    /// Row and column of the network's input at which the upper left corner of the resized image lies; negative where a
    /// crop cuts the image.
    pub offset: [isize; 2],
    /// Height and width of the network's input.
    pub input: [usize; 2],
}

impl Geometry {
    /// Pixels of the network's input per pixel of the image, vertically and horizontally.
    pub fn scale(&self) -> [f64; 2] {
        [0, 1].map(|axis| self.resized[axis] as f64 / self.image[axis] as f64)
    }

    /// The box `[x0, y0, x1, y1]` of the network's input, in the image. It is not clipped to the image.
    pub fn to_image(&self, [x0, y0, x1, y1]: [f64; 4]) -> [f64; 4] {
        let at = |i: usize, v: f64| (v - self.offset[i] as f64) * self.image[i] as f64 / self.resized[i] as f64;
        [at(1, x0), at(0, y0), at(1, x1), at(0, y1)]
    }

    /// The box `[x0, y0, x1, y1]` of the image, in the network's input. It is not clipped.
    pub fn to_input(&self, [x0, y0, x1, y1]: [f64; 4]) -> [f64; 4] {
        let at = |i: usize, v: f64| v * self.resized[i] as f64 / self.image[i] as f64 + self.offset[i] as f64;
        [at(1, x0), at(0, y0), at(1, x1), at(0, y1)]
    }

    /// Rows and columns of the network's input that show the image. All others are padding.
    pub fn shown(&self) -> [Range<usize>; 2] {
        [0, 1].map(|axis| {
            let (from, most) = (self.offset[axis], self.input[axis]);
            let end = from.saturating_add_unsigned(self.resized[axis]).max(0) as usize;
            (from.max(0) as usize).min(most)..end.min(most)
        })
    }

    /// Whether a part of the network's input is padding.
    pub fn is_padded(&self) -> bool {
        self.shown() != self.input.map(|n| 0..n)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Largest error of a coordinate that was mapped and mapped back, in pixels.
    const ROUND_TRIP: f64 = 1e-9;

    #[test]
    fn boxes_return_to_where_they_were() {
        for image in [[480, 640], [640, 427], [1, 1], [1000, 7]] {
            for resized in [[240, 320], [416, 277], [3, 5]] {
                for offset in [[0, 0], [40, 0], [-7, 13]] {
                    let geometry = Geometry { image, resized, offset, input: [416, 416] };
                    for part in [[0.0, 0.0, image[1] as f64, image[0] as f64], [-3.5, 2.25, 17.0, 400.125]] {
                        let back = geometry.to_image(geometry.to_input(part));
                        assert!(
                            back.iter().zip(part).all(|(b, p)| (b - p).abs() < ROUND_TRIP),
                            "{geometry:?}: {back:?}"
                        );
                    }
                }
            }
        }
    }

    #[test]
    fn corners_of_the_image_are_corners_of_what_is_shown() {
        let geometry = Geometry { image: [427, 640], resized: [277, 416], offset: [69, 0], input: [416, 416] };
        assert_eq!(geometry.to_image([0.0, 69.0, 416.0, 346.0]), [0.0, 0.0, 640.0, 427.0]);
        assert_eq!((geometry.shown(), geometry.is_padded()), ([69..346, 0..416], true));
        let cut = Geometry { image: [10, 10], resized: [10, 10], offset: [-2, 1], input: [8, 12] };
        assert_eq!((cut.shown(), cut.is_padded()), ([0..8, 1..11], true));
        let whole = Geometry { image: [10, 20], resized: [10, 20], offset: [-1, -2], input: [8, 16] };
        assert_eq!((whole.shown(), whole.is_padded()), ([0..8, 0..16], false));
        let outside = Geometry { image: [2, 2], resized: [2, 2], offset: [-5, 9], input: [4, 4] };
        assert_eq!(outside.shown(), [0..0, 4..4]);
    }
}
