//! How an image becomes network input.

use super::{Pixels, decode, resample};
use crate::error::{Error, Result};
use crate::plan::{Color, Input, Layout};
use crate::tensor::Tensor;
use serde::{Deserialize, Serialize};

/// Names of the presets of [`Prepare::preset`].
pub const PRESETS: [&str; 3] = ["imagenet", "imagenet-norm", "none"];

/// Largest side that resizing or cropping may ask for, in pixels.
const MAX_SIDE: usize = 16_384;

const IMAGENET_MEAN: [f32; 3] = [0.485, 0.456, 0.406];
const IMAGENET_STD: [f32; 3] = [0.229, 0.224, 0.225];

/// How an image becomes network input: resize, crop, then `(value / divisor - mean) / std`.
///
/// The default leaves the values unchanged: RGB as floats from 0 to 255, `[3, H, W]`.
///
/// ```
/// use qdrop::data::Prepare;
///
/// let imagenet = Prepare::preset("imagenet")?;
/// assert_eq!((imagenet.resize, imagenet.crop, imagenet.divisor), (Some(256), Some(224), 255.0));
///
/// let error = Prepare::preset("imagenette").unwrap_err();
/// assert_eq!(error.to_string(), "unknown input preset `imagenette`; expected one of imagenet, imagenet-norm, none");
/// # Ok::<(), qdrop::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Prepare {
    /// Length of the shorter side after resizing, in pixels; the aspect ratio is kept, with the longer side rounded
    /// down.
    pub resize: Option<usize>,
    /// Side of the square cut from the centre, in pixels; smaller images are padded with black.
    pub crop: Option<usize>,
    /// Divisor of the pixel values (0 to 255).
    pub divisor: f32,
    /// Mean after the division: one value for all channels or one per channel, in the order of `color`; empty for 0.
    pub mean: Vec<f32>,
    /// Standard deviation after the division: one value for all channels or one per channel, in the order of `color`;
    /// empty for 1.
    pub std: Vec<f32>,
    /// Order of the axes.
    pub layout: Layout,
    /// Order of the colour channels.
    pub color: Color,
    /// Whether to skip images that cannot be read, and count them, instead of stopping.
    pub skip_bad: bool,
}

impl Default for Prepare {
    fn default() -> Self {
        Prepare {
            resize: None,
            crop: None,
            divisor: 1.0,
            mean: Vec::new(),
            std: Vec::new(),
            layout: Layout::Nchw,
            color: Color::Rgb,
            skip_bad: false,
        }
    }
}

impl Prepare {
    /// The preset `name`: `imagenet` (resize 256, crop 224, divide by 255, ImageNet's mean and deviation),
    /// `imagenet-norm` (the same without resize and crop) or `none`.
    pub fn preset(name: &str) -> Result<Prepare> {
        let norm =
            Prepare { divisor: 255.0, mean: IMAGENET_MEAN.into(), std: IMAGENET_STD.into(), ..Prepare::default() };
        match name {
            "imagenet" => Ok(Prepare { resize: Some(256), crop: Some(224), ..norm }),
            "imagenet-norm" => Ok(norm),
            "none" => Ok(Prepare::default()),
            _ => Err(Error::recipe(format!("unknown input preset `{name}`"))
                .hint(format!("expected one of {}", PRESETS.join(", ")))),
        }
    }

    /// The decisions behind a recipe's input settings: its preset (`none` when not given), then each option that was
    /// set.
    pub fn resolve(input: &Input) -> Result<Prepare> {
        let base = Prepare::preset(input.preset.as_deref().unwrap_or("none"))?;
        let pixels = |given: Option<usize>, base| given.map_or(base, |n| (n > 0).then_some(n));
        let prepare = Prepare {
            resize: pixels(input.resize, base.resize),
            crop: pixels(input.crop, base.crop),
            divisor: input.divisor.unwrap_or(base.divisor),
            mean: input.mean.clone().unwrap_or(base.mean),
            std: input.std.clone().unwrap_or(base.std),
            layout: input.layout.unwrap_or(base.layout),
            color: input.color.unwrap_or(base.color),
            skip_bad: input.skip_bad,
        };
        prepare.check()?;
        Ok(prepare)
    }

    /// Number of channels of the network input, 1 or 3.
    pub fn channels(&self) -> usize {
        if self.color == Color::Gray { 1 } else { 3 }
    }

    /// Whether images keep their size, order of channels and values.
    pub fn is_identity(&self) -> bool {
        *self == Prepare { skip_bad: self.skip_bad, ..Prepare::default() }
    }

    /// That every value is in its range.
    pub fn check(&self) -> Result<()> {
        for (option, value) in [("resize", self.resize), ("crop", self.crop)] {
            if let Some(side) = value.filter(|&s| s == 0 || s > MAX_SIDE) {
                return Err(Error::recipe(format!(
                    "input option `{option}` is {side}, expected 1 to {MAX_SIDE} pixels"
                )));
            }
        }
        let positive = |x: f32| x.is_finite() && x > 0.0;
        if !positive(self.divisor) {
            return Err(Error::recipe(format!(
                "input option `divisor` is {}, expected a number above 0",
                self.divisor
            )));
        }
        let channels = self.channels();
        for (option, values) in [("mean", &self.mean), ("std", &self.std)] {
            if ![0, 1, channels].contains(&values.len()) {
                let expected = if channels == 1 { "1".into() } else { format!("1 or {channels}") };
                let n = values.len();
                return Err(Error::recipe(format!("input option `{option}` has {n} values, expected {expected}")));
            }
        }
        if let Some(x) = self.mean.iter().find(|x| !x.is_finite()) {
            return Err(Error::recipe(format!("input option `mean` contains {x}, expected finite numbers")));
        }
        if let Some(x) = self.std.iter().find(|&&x| !positive(x)) {
            return Err(Error::recipe(format!("input option `std` contains {x}, expected numbers above 0")));
        }
        Ok(())
    }

    /// Height and width after resizing and cropping an image of `height` x `width`.
    pub fn output_size(&self, height: usize, width: usize) -> Result<(usize, usize)> {
        let (h, w) = self.resized(height, width)?;
        Ok(self.crop.map_or((h, w), |c| (c, c)))
    }

    fn resized(&self, height: usize, width: usize) -> Result<(usize, usize)> {
        let Some(side) = self.resize else { return Ok((height, width)) };
        let long = side.saturating_mul(height.max(width)) / height.min(width).max(1);
        if side.saturating_mul(long) as u64 > decode::MAX_PIXELS {
            return Err(Error::data(format!(
                "resizing the shorter side of an image of {height} x {width} pixels to {side} makes the longer one {long}"
            ))
            .hint("remove the image, or resize to less"));
        }
        Ok(if width <= height { (long, side) } else { (side, long) })
    }

    /// That an image of `height` x `width` may be prepared on all threads at a time within `memory`.
    pub(super) fn fits(&self, height: usize, width: usize, memory: u64) -> Result<()> {
        let ((h, w), (rows, columns)) = (self.resized(height, width)?, self.output_size(height, width)?);
        // Pixels, and numbers in the end.
        let bytes = (h * w + rows * columns * size_of::<f32>()) as u64 * self.channels() as u64;
        decode::check_memory(&format!("the prepared image of {height} x {width} pixels takes"), bytes, memory)
    }

    /// `image` as network input: float32 `[C, H, W]`, or `[H, W, C]` for the layout `nhwc`.
    pub fn apply(&self, image: Pixels) -> Result<Tensor> {
        Ok(self.normalized(&self.framed(image)?))
    }

    /// The part of `image` that the network sees, in color or gray.
    pub(super) fn framed(&self, image: Pixels) -> Result<Pixels> {
        let image = if self.color == Color::Gray { image.into_gray() } else { image.into_rgb() };
        let (h, w) = self.resized(image.height, image.width)?;
        let image = resample::resize(image, h, w);
        Ok(match self.crop {
            Some(side) => center_crop(image, side),
            None => image,
        })
    }

    /// A [`Prepare::framed`] image as network input.
    pub(super) fn normalized(&self, image: &Pixels) -> Tensor {
        let (h, w, c) = (image.height, image.width, image.channels);
        let pick = |values: &[f32], i: usize, default| match values.len() {
            0 => default,
            1 => values[0],
            _ => values[i],
        };
        let mut out = vec![0f32; h * w * c];
        for i in 0..c {
            let (mean, std) = (pick(&self.mean, i, 0.0), pick(&self.std, i, 1.0));
            let table: Vec<f32> = (0..=255u8).map(|v| (v as f32 / self.divisor - mean) / std).collect();
            let from = if self.color == Color::Bgr { c - 1 - i } else { i };
            let source = image.data.iter().skip(from).step_by(c).map(|&v| table[v as usize]);
            match self.layout {
                Layout::Nchw => out[i * h * w..][..h * w].iter_mut().zip(source).for_each(|(o, v)| *o = v),
                Layout::Nhwc => out.iter_mut().skip(i).step_by(c).zip(source).for_each(|(o, v)| *o = v),
            }
        }
        match self.layout {
            Layout::Nchw => Tensor::f32(&[c, h, w], out),
            Layout::Nhwc => Tensor::f32(&[h, w, c], out),
        }
    }
}

/// The centre square of `side` pixels by torchvision's rules: black padding, more of it right and below; the upper left
/// corner of the cut rounds half to even.
fn center_crop(image: Pixels, side: usize) -> Pixels {
    let half_even = |x: usize| x / 2 + ((x % 2) & ((x / 2) % 2));
    let c = image.channels;
    let place = |size: usize| match size >= side {
        // An axis that is long enough is cut after the other one was padded.
        true => (half_even(size - side), 0),
        false => (0, (side - size) / 2),
    };
    let ((from_y, to_y), (from_x, to_x)) = (place(image.height), place(image.width));
    let (rows, columns) = (image.height.min(side), image.width.min(side));
    let mut data = vec![0u8; side * side * c];
    for y in 0..rows {
        let source = &image.data[((from_y + y) * image.width + from_x) * c..][..columns * c];
        data[((to_y + y) * side + to_x) * c..][..columns * c].copy_from_slice(source);
    }
    Pixels { height: side, width: side, channels: c, data }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Values `1 + 16 y + x`.
    fn ramp(height: usize, width: usize) -> Pixels {
        let data = (0..height * width).map(|i| (1 + i / width * 16 + i % width) as u8).collect();
        Pixels { height, width, channels: 1, data }
    }

    #[test]
    fn crops_as_torchvision() {
        // The upper left corner rounds half to even: 1.5 to 2, 2.5 to 2, .5 to 0.
        assert_eq!(center_crop(ramp(9, 12), 6).data[0], 1 + 2 * 16 + 3);
        assert_eq!(center_crop(ramp(12, 9), 6).data[0], 1 + 3 * 16 + 2);
        assert_eq!(center_crop(ramp(11, 7), 6).data[0], 1 + 2 * 16);
        let padded = center_crop(ramp(3, 15), 6);
        let mut want = [[0u8; 6]; 6];
        for y in 0..3 {
            want[y + 1] = std::array::from_fn(|x| (1 + y * 16 + x + 4) as u8);
        }
        assert_eq!(padded.data, want.concat());
        assert_eq!(center_crop(ramp(5, 5), 6).data[..6], [1, 2, 3, 4, 5, 0]);
    }

    #[test]
    fn the_longer_side_rounds_down() {
        let to7 = Prepare { resize: Some(7), ..Prepare::default() };
        let sizes = [((9, 12), (7, 9)), ((12, 9), (9, 7)), ((3, 20), (7, 46)), ((5, 5), (7, 7)), ((4, 7), (7, 12))];
        for ((h, w), want) in sizes {
            assert_eq!(to7.output_size(h, w).unwrap(), want);
        }
        let e = Prepare { resize: Some(16_384), ..Prepare::default() }.output_size(1, 32_768).unwrap_err();
        assert!(e.message().starts_with("resizing the shorter side of an image of 1 x 32768 pixels to 16384"), "{e}");
    }

    #[test]
    fn layout_color_and_normalization() {
        let image = Pixels { height: 1, width: 2, channels: 3, data: vec![255, 0, 51, 102, 153, 204] };
        let p = Prepare { divisor: 255.0, mean: vec![0.5, 0.0, 0.0], std: vec![0.5, 1.0, 2.0], ..Prepare::default() };
        let t = p.apply(image.clone()).unwrap();
        assert_eq!(t, Tensor::f32(&[3, 1, 2], vec![1.0, (0.4 - 0.5) / 0.5, 0.0, 0.6, 0.1, 0.4]));
        let bgr = Prepare { color: Color::Bgr, layout: Layout::Nhwc, ..Prepare::default() };
        let t = bgr.apply(image.clone()).unwrap();
        assert_eq!(t, Tensor::f32(&[1, 2, 3], vec![51.0, 0.0, 255.0, 204.0, 153.0, 102.0]));
        let gray = Prepare { color: Color::Gray, ..Prepare::default() };
        assert_eq!(gray.apply(image).unwrap(), Tensor::f32(&[1, 1, 2], vec![82.0, 144.0]));
    }

    #[test]
    fn a_wish_changes_the_preset_one_by_one() {
        let input = Input { preset: Some("imagenet".into()), resize: Some(0), crop: Some(32), ..Input::default() };
        let p = Prepare::resolve(&input).unwrap();
        assert_eq!(p, Prepare { crop: Some(32), ..Prepare::preset("imagenet-norm").unwrap() });
        assert!(Prepare::resolve(&Input::default()).unwrap().is_identity());
    }

    #[test]
    fn bad_options_are_named() {
        let message = |p: Prepare| p.check().unwrap_err().message().to_string();
        let base = Prepare::default();
        for (p, want) in [
            (
                Prepare { resize: Some(20_000), ..base.clone() },
                "input option `resize` is 20000, expected 1 to 16384 pixels",
            ),
            (Prepare { divisor: 0.0, ..base.clone() }, "input option `divisor` is 0, expected a number above 0"),
            (Prepare { mean: vec![0.0; 2], ..base.clone() }, "input option `mean` has 2 values, expected 1 or 3"),
            (
                Prepare { mean: vec![f32::NAN], ..base.clone() },
                "input option `mean` contains NaN, expected finite numbers",
            ),
            (Prepare { std: vec![1.0, 0.0, 1.0], ..base }, "input option `std` contains 0, expected numbers above 0"),
        ] {
            assert_eq!(message(p), want);
        }
    }
}
