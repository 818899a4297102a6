//! How an image becomes network input.

use super::{Geometry, InputSpec, Pixels, decode, resample};
use crate::error::{Error, Result};
use crate::plan::{Canvas, Color, Input, Layout, PadPlace};
use crate::tensor::Tensor;
use serde::{Deserialize, Serialize};

/// Names of the presets of [`Prepare::preset`].
pub const PRESETS: [&str; 9] = [
    "imagenet",
    "imagenet-norm",
    "yolox",
    "yolov5",
    "torchvision-detection",
    "nanodet",
    "nanodet-plus",
    "detr",
    "none",
];

/// Largest side that resizing, cropping or padding may ask for, in pixels.
const MAX_SIDE: usize = 16_384;

const IMAGENET_MEAN: [f32; 3] = [0.485, 0.456, 0.406];
const IMAGENET_STD: [f32; 3] = [0.229, 0.224, 0.225];
/// The same in the levels of pixels, blue first.
const BGR_MEAN: [f32; 3] = [103.53, 116.28, 123.675];
const BGR_STD: [f32; 3] = [57.375, 57.12, 58.395];
/// Level of padding in the YOLO family.
const YOLO_PAD: f32 = 114.0;

/// How an image becomes network input: brought to a size, padded, then `(value / divisor - mean) / std`.
///
/// An image is brought to a size in one of three ways: `resize`, perhaps with `max_size` and then `crop`; `letterbox`; or
/// `stretch`. The default leaves size and values unchanged: RGB as floats from 0 to 255, `[3, H, W]`.
///
/// ```
/// use qdrop::data::Prepare;
///
/// let imagenet = Prepare::preset("imagenet")?;
/// assert_eq!((imagenet.resize, imagenet.crop, imagenet.divisor), (Some(256), Some(224), 255.0));
///
/// let error = Prepare::preset("imagenette").unwrap_err();
/// assert!(error.to_string().starts_with("unknown input preset `imagenette`; expected one of imagenet, imagenet-norm, "));
/// # Ok::<(), qdrop::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Prepare {
    /// Length of the shorter side after resizing, in pixels; the aspect ratio is kept, with the longer side rounded
    /// down.
    pub resize: Option<usize>,
    /// With `resize`: maximum length of the longer side, in pixels. Where it would be longer it gets this length, and the
    /// shorter side follows, rounded down.
    pub max_size: Option<usize>,
    /// Side of the square cut from the centre, in pixels; smaller images are padded.
    pub crop: Option<usize>,
    /// Canvas into which the image is fitted as large as possible, its aspect ratio kept, and the rest padded. The side
    /// that does not fill the canvas is rounded down, as in YOLOX; with [`PadPlace::Center`] to nearest, as in YOLOv5.
    pub letterbox: Option<Canvas>,
    /// Size to which the image is resized, whatever its aspect ratio.
    pub stretch: Option<Canvas>,
    /// Whether, and to multiples of what, sides are padded. All images of a set get one canvas: `pad_to`, else the smallest
    /// that holds all of them.
    pub pad_multiple: Option<usize>,
    /// Height and width that images are padded to; [`Prepare::for_inputs`] sets it where the network fixes both.
    pub pad_to: Option<(usize, usize)>,
    /// Values of padding as those of pixels, before the division: one for all channels or one per channel, in the order of
    /// `color`; empty for 0.
    pub pad_value: Vec<f32>,
    /// Where the image lies on its canvas.
    pub pad_place: PadPlace,
    /// Whether an image that becomes smaller is averaged over the pixels that are left out, as Pillow's bilinear filter
    /// does; otherwise it is interpolated between the nearest pixels, as OpenCV's `INTER_LINEAR` does.
    pub antialias: bool,
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
            max_size: None,
            crop: None,
            letterbox: None,
            stretch: None,
            pad_multiple: None,
            pad_to: None,
            pad_value: Vec::new(),
            pad_place: PadPlace::TopLeft,
            antialias: true,
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
    /// The preset `name`.
    ///
    /// For classifiers `imagenet` (resize 256, crop 224, divide by 255, ImageNet's mean and deviation), `imagenet-norm` (the
    /// same without resize and crop) or `none`. For detectors, as their projects prepare images for inference: `yolox`,
    /// `yolov5` (also for v8 and later), `torchvision-detection` (whose networks normalize by themselves), `nanodet`,
    /// `nanodet-plus` (which does not keep the aspect ratio) or `detr` (which pads with 0 after the normalization).
    pub fn preset(name: &str) -> Result<Prepare> {
        let norm =
            Prepare { divisor: 255.0, mean: IMAGENET_MEAN.into(), std: IMAGENET_STD.into(), ..Prepare::default() };
        let network = Some(Canvas::Network);
        let plain = Prepare { antialias: false, ..Prepare::default() };
        let yolox = Prepare { letterbox: network, pad_value: vec![YOLO_PAD], color: Color::Bgr, ..plain.clone() };
        let yolov5 = Prepare { pad_place: PadPlace::Center, color: Color::Rgb, divisor: 255.0, ..yolox.clone() };
        let bgr = Prepare { color: Color::Bgr, mean: BGR_MEAN.into(), std: BGR_STD.into(), ..plain };
        let shorter = Prepare { resize: Some(800), max_size: Some(1333), divisor: 255.0, ..Prepare::default() };
        match name {
            "imagenet" => Ok(Prepare { resize: Some(256), crop: Some(224), ..norm }),
            "imagenet-norm" => Ok(norm),
            "yolox" => Ok(yolox),
            "yolov5" => Ok(yolov5),
            "torchvision-detection" => Ok(Prepare { pad_multiple: Some(32), antialias: false, ..shorter }),
            "nanodet" => Ok(Prepare { letterbox: network, pad_place: PadPlace::Center, ..bgr }),
            "nanodet-plus" => Ok(Prepare { stretch: network, ..bgr }),
            "detr" => {
                let mean_level = IMAGENET_MEAN.iter().map(|mean| mean * 255.0).collect();
                let Prepare { mean, std, .. } = norm;
                Ok(Prepare { pad_multiple: Some(1), pad_value: mean_level, mean, std, ..shorter })
            }
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
        let canvas = |given: Option<Canvas>, base| given.map_or(base, |c| (c != Canvas::Off).then_some(c));
        let prepare = Prepare {
            resize: pixels(input.resize, base.resize),
            max_size: pixels(input.max_size, base.max_size),
            crop: pixels(input.crop, base.crop),
            letterbox: canvas(input.letterbox, base.letterbox),
            stretch: canvas(input.stretch, base.stretch),
            pad_multiple: pixels(input.pad_multiple, base.pad_multiple),
            pad_to: base.pad_to,
            pad_value: input.pad_value.clone().unwrap_or(base.pad_value),
            pad_place: input.pad_place.unwrap_or(base.pad_place),
            antialias: input.antialias.unwrap_or(base.antialias),
            divisor: input.divisor.unwrap_or(base.divisor),
            mean: input.mean.clone().unwrap_or(base.mean),
            std: input.std.clone().unwrap_or(base.std),
            layout: input.layout.unwrap_or(base.layout),
            color: input.color.unwrap_or(base.color),
            skip_bad: input.skip_bad,
        };
        prepare.check()?;
        if prepare.letterbox.is_none() && prepare.pad_multiple.is_none() {
            let given = [("pad_value", input.pad_value.is_some()), ("pad_place", input.pad_place.is_some())];
            if let Some((option, _)) = given.iter().find(|(_, given)| *given) {
                return Err(Error::recipe(format!("input option `{option}`: nothing is padded"))
                    .hint("give --letterbox or --pad-multiple, or leave it out"));
            }
        }
        Ok(prepare)
    }

    /// The same for a network with these `inputs`: what has the size of the network's input gets it, if its height and
    /// width are fixed.
    #[must_use]
    pub fn for_inputs(mut self, inputs: &[InputSpec]) -> Prepare {
        // Height, width and channels are the last three axes of the only input, or of the first that has as many; an input
        // for one image may have no batch axis.
        let mut shapes = inputs.iter().flat_map(|input| std::iter::once(&input.shape).chain(&input.other));
        let image = shapes.find_map(|shape| shape.last_chunk::<3>());
        let size = match (image, self.layout) {
            (Some(&[_, Some(height), Some(width)]), Layout::Nchw) => (height, width),
            (Some(&[Some(height), Some(width), _]), Layout::Nhwc) => (height, width),
            _ => return self,
        };
        for canvas in [&mut self.letterbox, &mut self.stretch] {
            if *canvas == Some(Canvas::Network) {
                *canvas = Some(Canvas::Size { height: size.0, width: size.1 });
            }
        }
        if self.pad_multiple.is_some() {
            self.pad_to = Some(size);
        }
        self
    }

    /// Number of channels of the network input, 1 or 3.
    pub fn channels(&self) -> usize {
        if self.color == Color::Gray { 1 } else { 3 }
    }

    /// Whether images keep their size, order of channels and values.
    pub fn is_identity(&self) -> bool {
        *self == Prepare { skip_bad: self.skip_bad, ..Prepare::default() }
    }

    /// That every value is in its range, and that no two options contradict each other.
    pub fn check(&self) -> Result<()> {
        let sides = [
            ("resize", self.resize),
            ("max_size", self.max_size),
            ("crop", self.crop),
            ("pad_multiple", self.pad_multiple),
            ("pad_to", self.pad_to.map(|(height, _)| height)),
            ("pad_to", self.pad_to.map(|(_, width)| width)),
        ];
        let canvases =
            [("letterbox", self.letterbox), ("stretch", self.stretch)].into_iter().flat_map(|(option, canvas)| {
                let sides = match canvas {
                    Some(Canvas::Size { height, width }) => [Some(height), Some(width)],
                    _ => [None; 2],
                };
                sides.map(|side| (option, side))
            });
        for (option, value) in sides.into_iter().chain(canvases) {
            if let Some(side) = value.filter(|&s| s == 0 || s > MAX_SIDE) {
                return Err(Error::recipe(format!(
                    "input option `{option}` is {side}, expected 1 to {MAX_SIDE} pixels"
                )));
            }
        }
        self.check_ways()?;
        let positive = |x: f32| x.is_finite() && x > 0.0;
        if !positive(self.divisor) {
            return Err(Error::recipe(format!(
                "input option `divisor` is {}, expected a number above 0",
                self.divisor
            )));
        }
        let channels = self.channels();
        for (option, values) in [("mean", &self.mean), ("std", &self.std), ("pad_value", &self.pad_value)] {
            if ![0, 1, channels].contains(&values.len()) {
                let expected = if channels == 1 { "1".into() } else { format!("1 or {channels}") };
                let n = values.len();
                return Err(Error::recipe(format!("input option `{option}` has {n} values, expected {expected}")));
            }
        }
        for (option, values) in [("mean", &self.mean), ("pad_value", &self.pad_value)] {
            if let Some(x) = values.iter().find(|x| !x.is_finite()) {
                return Err(Error::recipe(format!("input option `{option}` contains {x}, expected finite numbers")));
            }
        }
        if let Some(x) = self.std.iter().find(|&&x| !positive(x)) {
            return Err(Error::recipe(format!("input option `std` contains {x}, expected numbers above 0")));
        }
        Ok(())
    }

    /// That images are brought to a size in one way.
    fn check_ways(&self) -> Result<()> {
        let wanted = |canvas: Option<Canvas>| canvas.is_some_and(|canvas| canvas != Canvas::Off);
        let (letterbox, stretch) = (("letterbox", wanted(self.letterbox)), ("stretch", wanted(self.stretch)));
        let (resize, crop) = (("resize", self.resize.is_some()), ("crop", self.crop.is_some()));
        let pad = ("pad_multiple", self.pad_multiple.is_some());
        for (one, other) in [
            (letterbox, stretch),
            (letterbox, resize),
            (letterbox, crop),
            (letterbox, pad),
            (stretch, resize),
            (stretch, crop),
            (stretch, pad),
            (pad, crop),
        ] {
            if one.1 && other.1 {
                let (one, other) = (one.0, other.0);
                let [this, that] = [one, other].map(|option| option.replace('_', "-"));
                return Err(Error::recipe(format!("input options `{one}` and `{other}` contradict each other"))
                    .hint(format!("give one of them; --{this} 0 or --{that} 0 takes back what a preset says")));
            }
        }
        if self.max_size.is_some() && self.resize.is_none() {
            return Err(Error::recipe("input option `max_size` is given without `resize`")
                .hint("give the length of the shorter side (--resize), or fit the longer side by --letterbox alone"));
        }
        Ok(())
    }

    /// Height and width of the network input made of an image of `height` x `width`.
    pub fn output_size(&self, height: usize, width: usize) -> Result<(usize, usize)> {
        self.geometry(height, width).map(|Geometry { input: [height, width], .. }| (height, width))
    }

    /// Where an image of `height` x `width` pixels lies in the network's input. It is an error if a canvas is to have the
    /// size of the network's input and [`Prepare::for_inputs`] has not set it, or if the image does not fit on `pad_to`.
    pub fn geometry(&self, height: usize, width: usize) -> Result<Geometry> {
        let canvas = sized(self.letterbox, "letterbox")?;
        let (h, w) = match (canvas, sized(self.stretch, "stretch")?) {
            (Some(canvas), _) => fitted((height, width), canvas, self.pad_place),
            (None, Some(size)) => size,
            (None, None) => self.resized(height, width)?,
        };
        let padded = |side: usize| self.pad_multiple.map_or(side, |n| side.next_multiple_of(n));
        let canvas = canvas.or(self.pad_to).unwrap_or((padded(h), padded(w)));
        if self.crop.is_none() && (h > canvas.0 || w > canvas.1) {
            let (rows, columns) = canvas;
            return Err(Error::data(format!(
                "the prepared image has {h} x {w} pixels, the canvas has {rows} x {columns}"
            ))
            .hint("make images smaller (--resize, --max-size), or fit each into the canvas (--letterbox network)"));
        }
        let (input, place): (_, fn(usize, usize) -> isize) = match (self.crop, self.pad_place) {
            (Some(side), _) => ([side, side], cut),
            (None, PadPlace::TopLeft) => ([canvas.0, canvas.1], |_, _| 0),
            (None, PadPlace::Center) => ([canvas.0, canvas.1], |size, side| ((side - size) / 2) as isize),
        };
        let offset = [place(h, input[0]), place(w, input[1])];
        Ok(Geometry { image: [height, width], resized: [h, w], offset, input })
    }

    /// The same, where an image that is too large for `pad_to` is made smaller.
    pub(super) fn geometry_shrunk(&self, height: usize, width: usize) -> Result<Geometry> {
        match (self.geometry(height, width), self.pad_to) {
            (Err(_), Some((rows, columns))) => {
                let letterbox = Some(Canvas::Size { height: rows, width: columns });
                let place = self.pad_place;
                Prepare { letterbox, pad_place: place, ..Prepare::default() }.geometry(height, width)
            }
            (found, _) => found,
        }
    }

    fn resized(&self, height: usize, width: usize) -> Result<(usize, usize)> {
        let Some(side) = self.resize else { return Ok((height, width)) };
        let (longer, shorter) = (height.max(width), height.min(width).max(1));
        let long = side.saturating_mul(longer) / shorter;
        let (side, long) = match self.max_size {
            Some(most) if long > most => ((most * shorter / longer).max(1), most),
            _ => (side, long),
        };
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
        let Geometry { resized: [h, w], input: [rows, columns], .. } = self.geometry_shrunk(height, width)?;
        // Pixels, and numbers in the end.
        let bytes = (h * w + rows * columns * size_of::<f32>()) as u64 * self.channels() as u64;
        decode::check_memory(&format!("the prepared image of {height} x {width} pixels takes"), bytes, memory)
    }

    /// `image` as network input: float32 `[C, H, W]`, or `[H, W, C]` for the layout `nhwc`.
    pub fn apply(&self, image: Pixels) -> Result<Tensor> {
        let geometry = self.geometry(image.height, image.width)?;
        Ok(self.normalized(&self.framed(image, &geometry), &geometry))
    }

    /// The part of `image` that the network sees, in color or gray.
    pub(super) fn framed(&self, image: Pixels, geometry: &Geometry) -> Pixels {
        let image = if self.color == Color::Gray { image.into_gray() } else { image.into_rgb() };
        let [height, width] = geometry.resized;
        let resize = if self.antialias { resample::resize } else { resample::interpolate };
        let image = resize(image, height, width);
        let [rows, columns] = geometry.shown();
        if (rows.len(), columns.len()) == (height, width) {
            return image;
        }
        // What is cut off in front.
        let [top, left] = geometry.offset.map(|at| at.min(0).unsigned_abs());
        let c = image.channels;
        let row = |y: usize| &image.data[((top + y) * width + left) * c..][..columns.len() * c];
        let data = (0..rows.len()).flat_map(row).copied().collect();
        Pixels { height: rows.len(), width: columns.len(), channels: c, data }
    }

    /// A [`Prepare::framed`] image as network input.
    pub(super) fn normalized(&self, image: &Pixels, geometry: &Geometry) -> Tensor {
        let (c, [h, w]) = (image.channels, geometry.input);
        let [top, left] = geometry.shown().map(|range| range.start);
        let pick = |values: &[f32], i: usize, default| match values.len() {
            0 => default,
            1 => values[0],
            _ => values[i],
        };
        let mut out = vec![0f32; h * w * c];
        for i in 0..c {
            let (mean, std) = (pick(&self.mean, i, 0.0), pick(&self.std, i, 1.0));
            let value = |level: f32| (level / self.divisor - mean) / std;
            let table: Vec<f32> = (0..=255u8).map(|v| value(v.into())).collect();
            let pad = value(pick(&self.pad_value, i, 0.0));
            let from = if self.color == Color::Bgr { c - 1 - i } else { i };
            // The first element of the channel, and how far its elements and its rows lie apart.
            let (first, step, along) = match self.layout {
                Layout::Nchw => (i * h * w, 1, w),
                Layout::Nhwc => (i, c, w * c),
            };
            if geometry.is_padded() {
                out[first..].iter_mut().step_by(step).take(h * w).for_each(|o| *o = pad);
            }
            for (y, row) in image.data.chunks_exact((image.width * c).max(1)).enumerate() {
                let to = out[first + (top + y) * along + left * step..].iter_mut().step_by(step);
                to.zip(row.iter().skip(from).step_by(c)).for_each(|(o, &v)| *o = table[v as usize]);
            }
        }
        match self.layout {
            Layout::Nchw => Tensor::f32(&[c, h, w], out),
            Layout::Nhwc => Tensor::f32(&[h, w, c], out),
        }
    }
}

/// Height and width of the canvas that `option` names, if it names one.
fn sized(canvas: Option<Canvas>, option: &str) -> Result<Option<(usize, usize)>> {
    match canvas {
        None | Some(Canvas::Off) => Ok(None),
        Some(Canvas::Size { height, width }) => Ok(Some((height, width))),
        Some(Canvas::Network) => Err(Error::recipe(format!(
            "input option `{option}`: height and width of the network's input are not fixed, so images need a size"
        ))
        .hint(format!("give the size that the network is used at, such as --{option} 640"))),
    }
}

/// Height and width of an image of `size` that is fitted into `canvas` as large as possible.
fn fitted(size: (usize, usize), canvas: (usize, usize), place: PadPlace) -> (usize, usize) {
    // In the arithmetic of YOLOX's and YOLOv5's preparation, so that sizes are theirs to the pixel.
    let ratio = (canvas.0 as f64 / size.0 as f64).min(canvas.1 as f64 / size.1 as f64);
    let side = |from: usize, most: usize| {
        let exact = from as f64 * ratio;
        let whole = if place == PadPlace::Center { exact.round_ties_even() } else { exact.floor() };
        (whole as usize).clamp(1, most)
    };
    (side(size.0, canvas.0), side(size.1, canvas.1))
}

/// Where `size` pixels begin in the `side` pixels of a crop from the centre, by torchvision's rules: more padding right and
/// below; the corner of the cut rounds half to even.
fn cut(size: usize, side: usize) -> isize {
    let half_even = |x: usize| x / 2 + ((x % 2) & ((x / 2) % 2));
    if size >= side { -(half_even(size - side) as isize) } else { ((side - size) / 2) as isize }
}
