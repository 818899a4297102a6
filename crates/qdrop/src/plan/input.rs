//! The part of the recipe that says how samples become network input.

use super::canvas::{Canvas, PadPlace};
use super::task::Task;
use serde::{Deserialize, Serialize};

/// Order of the colour channels that the network expects.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Color {
    /// Red, green, blue.
    #[default]
    Rgb,
    /// Blue, green, red.
    Bgr,
    /// One channel.
    Gray,
}

/// Order of the axes that the network expects.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Layout {
    /// `[N, C, H, W]`.
    #[default]
    Nchw,
    /// `[N, H, W, C]`.
    Nhwc,
}

/// How images become network input (bring to a size, pad, divide by `divisor`, subtract `mean`, divide by `std`), and how
/// text does.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct Input {
    /// Name of a preset for classifiers (`imagenet`, `imagenet-norm`) or detectors (`yolox`, `yolov5`,
    /// `torchvision-detection`, `nanodet`, `nanodet-plus`, `detr`), or `none`; the options below override it one by one.
    pub preset: Option<String>,
    /// Length of the shorter side after resizing, in pixels; 0 for no resize.
    pub resize: Option<usize>,
    /// With `resize`: maximum length of the longer side, in pixels; the image is made smaller where it would be longer. 0
    /// for no limit.
    pub max_size: Option<usize>,
    /// Side of the square cut from the centre, in pixels; 0 for no crop.
    pub crop: Option<usize>,
    /// Canvas into which the image is fitted as large as possible, its aspect ratio kept, and the rest padded.
    pub letterbox: Option<Canvas>,
    /// Size to which the image is resized, whatever its aspect ratio.
    pub stretch: Option<Canvas>,
    /// Images are padded to one canvas: that of the network's input if it is fixed, else the smallest that holds all of
    /// them and whose sides are multiples of this. 0 for no padding.
    pub pad_multiple: Option<usize>,
    /// Values of padding as those of pixels, before the division: one, or one per channel. Default: 0.
    pub pad_value: Option<Vec<f32>>,
    /// Where the image lies on its canvas.
    pub pad_place: Option<PadPlace>,
    /// Whether an image that becomes smaller is averaged over the pixels that are left out (Pillow's bilinear filter)
    /// rather than interpolated between the nearest ones (OpenCV's). Default: the preset's, else true.
    pub antialias: Option<bool>,
    /// Divisor of the pixel values (0 to 255).
    pub divisor: Option<f32>,
    /// Mean per channel, after the division.
    pub mean: Option<Vec<f32>>,
    /// Standard deviation per channel, after the division.
    pub std: Option<Vec<f32>>,
    /// Order of the axes.
    pub layout: Option<Layout>,
    /// Order of the colour channels.
    pub color: Option<Color>,
    /// Network input that marks real tokens with 1 and padding with 0; padding counts in no first grid and no loss.
    /// Default: the input `attention_mask` if there is one.
    pub mask: Option<String>,
    /// Maximum number of calibration samples, spread over the set. Default: all.
    pub samples: Option<usize>,
    /// Whether to skip images that cannot be read, and count them, instead of stopping. Default: false.
    pub skip_bad: bool,
    /// Task on text, detection, or segmentation, which decides how files are read and what is measured. Default: none; samples
    /// are images or arrays.
    pub task: Option<Task>,
    /// Folder with the images of annotation files (COCO), or with such folders named as the files. Default: next to the file.
    pub images: Option<String>,
    /// Family of the network as a detector, such as `yolox` (COCO). Default: what the shapes of its outputs tell.
    pub detector: Option<String>,
    /// Folder with the label maps of images, PNG files with the images' names (segmentation). Default: none; the column
    /// `labels` of a list.
    pub labels: Option<String>,
    /// Numbers in label maps that are no class, beside 255; such pixels are not counted (segmentation).
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ignore_labels: Vec<u16>,
    /// File of the tokenizer. Default: `tokenizer.json` next to the model, else next to the samples.
    pub tokenizer: Option<String>,
    /// Tokens per sample: longer texts are cut and shorter ones padded. Default: what the network declares, else as the
    /// longest text of the set needs, at most 128; 384 for SQuAD.
    pub max_length: Option<usize>,
    /// Tokens shared by neighbouring windows over a long text (SQuAD). Default: 128.
    pub doc_stride: Option<usize>,
}

impl Input {
    /// The paths among the options.
    pub(crate) fn paths_mut(&mut self) -> impl Iterator<Item = &mut String> {
        [&mut self.images, &mut self.labels, &mut self.tokenizer].into_iter().flatten()
    }
}
