//! Samples from files: folders of images, lists of image files, arrays, and text.
//!
//! [`open`] returns the [`Samples`] at a path: a folder of images (flat, or one sub-folder per class in sorted order),
//! a `.csv` file with the columns `file` and, optionally, `label`, or arrays `[N, ...]` in a `.npy`, `.npz` or
//! `.safetensors` file. [`fit`] then maps them to the inputs of a network. Images are decoded when they are read;
//! arrays are held in memory.
//!
//! [`Prepare`] says how images become network input: convert to RGB or BGR (or one gray channel); resize the shorter side
//! and crop the centre, fit into a canvas, or stretch; pad; divide, subtract the mean, divide by the standard deviation.
//! Decoding, resizing and cropping follow Pillow and torchvision; resizing equals Pillow's antialiased bilinear filter bit
//! for bit. As in Pillow, the orientation tag of photographs is not applied. [`Geometry`] tells where an image lies in the
//! network's input, and maps boxes back to it.
//!
//! [`open_text`] opens the files of the GLUE tasks and of SQuAD v1.1, and turns them into token numbers of one length
//! with the network's tokenizer. [`open_coco`] opens the images of an annotation file of COCO, and [`open_segmentation`]
//! images with label maps. Samples of different sizes are refused.
//!
//! ```
//! use qdrop::data::{self, InputSpec, Prepare, Samples, Subset};
//! use qdrop::tensor::DType;
//!
//! // Two images, one per class: classes are sub-folders in sorted order.
//! let folder = tempfile::tempdir()?;
//! for (class, value) in [("cat", 255u8), ("dog", 0)] {
//!     std::fs::create_dir(folder.path().join(class))?;
//!     let image = image::RgbImage::from_pixel(40, 30, image::Rgb([value; 3]));
//!     image.save(folder.path().join(class).join("0.png"))?;
//! }
//!
//! let prepare = Prepare { resize: Some(24), crop: Some(20), divisor: 255.0, ..Prepare::default() };
//! let samples = data::open(folder.path(), &prepare, &data::Limits::default())?;
//! assert_eq!(samples.len(), 2);
//! assert_eq!((samples.label(0), samples.label(1)), (Some(0), Some(1)));
//!
//! let input = InputSpec::new("input", DType::F32, [Some(3), Some(20), Some(20)]);
//! let samples = data::fit(samples, &[input])?;
//! let first = Subset::first(&samples, 1);
//! assert_eq!(first.get(0)?[0].as_f32(), Some(&[1.0; 3 * 20 * 20][..]));
//!
//! // If a network has another input size, the error says so.
//! let other = InputSpec::new("input", DType::F32, [Some(3), Some(32), Some(32)]);
//! let error = data::check_against(&samples, &[other]).unwrap_err();
//! assert_eq!(error.message(), "samples have shape [3, 20, 20], network input `input` expects [3, 32, 32]");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod arrays;
mod coco;
mod collected;
mod decode;
mod files;
mod geometry;
mod labels;
mod npy;
mod picture;
mod prepare;
#[cfg(test)]
mod prepare_tests;
mod remembered;
mod resample;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
mod text;
mod views;

pub use arrays::Arrays;
pub use coco::{Coco, open_coco, read_coco};
pub use collected::Collector;
pub use decode::{EXTENSIONS, Pixels};
pub use geometry::Geometry;
pub use labels::{LabelMap, Segmentation, open_segmentation, read_labels};
pub use prepare::{PRESETS, Prepare};
pub(crate) use remembered::Remembered;
pub(crate) use text::open_part as open_text_part;
pub use text::{Text, open_text};
pub(crate) use views::spreads;
pub use views::{InputSpec, Subset, check_against, fit, spread};

use crate::error::{Error, Kind, Result};
use crate::eval::coco::Truth;
use crate::eval::detect::Family;
use crate::tensor::Tensor;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The right answer for a sample.
#[derive(Debug, Clone, PartialEq)]
pub enum Target {
    /// A class.
    Class(usize),
    /// A number.
    Number(f64),
    /// A span of a text.
    Window(Window),
    /// Objects in an image.
    Objects(Objects),
    /// The class of every pixel of an image.
    Pixels(LabelMap),
}

/// A window over the text to which a question belongs (SQuAD).
#[derive(Debug, Clone, PartialEq)]
pub struct Window {
    /// Number of the question; all windows of a question are consecutive samples.
    pub question: usize,
    /// The whole text.
    pub context: Arc<str>,
    /// For each token of the sample, the range of bytes in the text; `None` for tokens that are not part of the text.
    pub offsets: Vec<Option<(u32, u32)>>,
    /// Right answers, at least one.
    pub answers: Arc<[String]>,
}

/// An image of an annotated set (COCO).
#[derive(Debug, Clone, PartialEq)]
pub struct Objects {
    /// The whole set.
    pub truth: Arc<Truth>,
    /// Number of the image in it.
    pub image: i64,
    /// The family of the network that is to find the objects, if it was given.
    pub detector: Option<Family>,
}

/// A finite, indexable set of samples. A sample is a list with one tensor per network input, without the batch axis.
///
/// Methods that take an index panic or return `None` if it is not below [`Samples::len`], as those of slices do.
pub trait Samples: Sync {
    /// Number of samples.
    fn len(&self) -> usize;

    /// Whether there are none.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Sample `index`: one tensor per network input, shapes without the batch axis.
    fn get(&self, index: usize) -> Result<Vec<Tensor>>;

    /// Class label of sample `index`, if there is one.
    fn label(&self, index: usize) -> Option<usize>;

    /// The right answer for sample `index`, if it is known.
    fn target(&self, index: usize) -> Result<Option<Target>> {
        Ok(self.label(index).map(Target::Class))
    }

    /// Number of tokens of sample `index` in front of its padding, if that is known without reading it and one of its
    /// tensors marks padding. Each of its tensors is then a list with one element per token.
    fn tokens(&self, index: usize) -> Option<usize> {
        let _ = index;
        None
    }

    /// Where sample `index`, an image, lies in the network's input, if that is known; without decoding it.
    fn geometry(&self, index: usize) -> Option<Geometry> {
        let _ = index;
        None
    }

    /// The image of sample `index` as its file has it, to be shown to people; `None` if it is no image. It is decoded anew.
    fn picture(&self, index: usize) -> Result<Option<Pixels>> {
        let _ = index;
        Ok(None)
    }

    /// Name of sample `index` in errors and reports (a file name, or `row 3`).
    fn name(&self, index: usize) -> String;

    /// Number of samples that were skipped because they could not be read.
    fn skipped(&self) -> usize {
        0
    }

    /// Memory, in bytes, that the set takes as long as it exists.
    fn held_bytes(&self) -> u64 {
        0
    }

    /// Names of the tensors of a sample, if the source has names (`.npz`, `.safetensors`).
    fn input_names(&self) -> Option<Vec<String>> {
        None
    }

    /// Origin of the set as the caller named it (a path), for errors.
    fn source(&self) -> Option<String> {
        None
    }
}

/// `error` with the place that `samples` come from, where they know it.
pub(crate) fn at_source(samples: &dyn Samples, error: Error) -> Error {
    match samples.source() {
        Some(source) => error.at(source),
        None => error,
    }
}

macro_rules! forward_samples {
    ($($head:tt)*) => {
        $($head)* {
            fn len(&self) -> usize {
                (**self).len()
            }
            fn get(&self, index: usize) -> Result<Vec<Tensor>> {
                (**self).get(index)
            }
            fn label(&self, index: usize) -> Option<usize> {
                (**self).label(index)
            }
            fn target(&self, index: usize) -> Result<Option<Target>> {
                (**self).target(index)
            }
            fn tokens(&self, index: usize) -> Option<usize> {
                (**self).tokens(index)
            }
            fn geometry(&self, index: usize) -> Option<Geometry> {
                (**self).geometry(index)
            }
            fn picture(&self, index: usize) -> Result<Option<Pixels>> {
                (**self).picture(index)
            }
            fn name(&self, index: usize) -> String {
                (**self).name(index)
            }
            fn skipped(&self) -> usize {
                (**self).skipped()
            }
            fn held_bytes(&self) -> u64 {
                (**self).held_bytes()
            }
            fn input_names(&self) -> Option<Vec<String>> {
                (**self).input_names()
            }
            fn source(&self) -> Option<String> {
                (**self).source()
            }
        }
    };
}
forward_samples!(impl<S: Samples + ?Sized> Samples for &S);
forward_samples!(impl<S: Samples + ?Sized> Samples for Box<S>);

/// The methods that a wrapper forwards to the samples in `$samples`: all but those on tensors, their number and names.
macro_rules! forward_labels {
    ($samples:ident) => {
        fn label(&self, index: usize) -> Option<usize> {
            self.$samples.label(index)
        }

        fn target(&self, index: usize) -> $crate::Result<Option<$crate::data::Target>> {
            self.$samples.target(index)
        }

        fn tokens(&self, index: usize) -> Option<usize> {
            self.$samples.tokens(index)
        }

        $crate::data::forward_files!($samples);
    };
}
pub(crate) use forward_labels;

/// Of these methods, those about the files themselves, not about what is right for them.
macro_rules! forward_files {
    ($samples:ident) => {
        fn geometry(&self, index: usize) -> Option<$crate::data::Geometry> {
            self.$samples.geometry(index)
        }

        fn picture(&self, index: usize) -> $crate::Result<Option<$crate::data::Pixels>> {
            self.$samples.picture(index)
        }

        fn name(&self, index: usize) -> String {
            self.$samples.name(index)
        }

        fn skipped(&self) -> usize {
            self.$samples.skipped()
        }

        fn held_bytes(&self) -> u64 {
            self.$samples.held_bytes()
        }
    };
}
pub(crate) use forward_files;

/// Limits that hold while samples are opened and read.
#[derive(Clone, Copy)]
pub struct Limits<'a> {
    /// Memory, in bytes, that unpacked samples may take: all arrays of a file together, or the images that are decoded
    /// at the same time. Anything larger is refused before it is unpacked.
    pub memory: u64,
    /// Memory, in bytes, that images may take of a set that decodes all of them to tell those that can be read: what fits
    /// is not decoded again.
    pub spare: u64,
    /// Whether to stop, with [`Kind::Interrupted`]; called before each file, on any thread.
    pub stopped: &'a (dyn Fn() -> bool + Sync),
}

impl Default for Limits<'_> {
    /// 8 GiB of memory, a part of it to spare, and no request to stop.
    fn default() -> Self {
        Limits { memory: 8 << 30, spare: 512 << 20, stopped: &|| false }
    }
}

impl Limits<'_> {
    /// An error if there is a request to stop.
    fn go_on(&self) -> Result<()> {
        if (self.stopped)() { Err(Error::new(Kind::Interrupted, "stopped on request")) } else { Ok(()) }
    }
}

/// An error if `what`, which takes `bytes` bytes, does not fit into `memory` bytes.
fn fits(what: &str, bytes: u64, memory: u64, hint: &str) -> Result<()> {
    if bytes <= memory {
        return Ok(());
    }
    let mib = |bytes: u64| bytes.div_ceil(1 << 20);
    let message = format!("{what} {} MiB of memory, at most {} MiB are allowed", mib(bytes), mib(memory));
    Err(Error::data(message).hint(hint))
}

/// Opens the samples at `path`: a folder of images, a `.csv` list, or a `.npy`, `.npz` or `.safetensors` file.
///
/// Images, and `uint8` arrays of images (`[N, H, W, C]` or `[N, C, H, W]` with 1 or 3 channels), are prepared as
/// `prepare` says. Other arrays are taken as network input unchanged, and so are `uint8` arrays if `prepare` does
/// nothing. The headers of all images are read here; with [`Prepare::skip_bad`] every image is decoded, and those
/// that fail are skipped and counted by [`Samples::skipped`]; the others stay in memory as far as [`Limits::spare`] allows.
pub fn open(path: &Path, prepare: &Prepare, limits: &Limits) -> Result<Box<dyn Samples + Send + Sync>> {
    open_part(path, prepare, None, limits)
}

/// As [`open`], where at most `limit` samples, spread over the set as by [`spread`], decide the canvas that images are padded
/// to; others that are larger are made smaller.
pub(crate) fn open_part(
    path: &Path,
    prepare: &Prepare,
    limit: Option<usize>,
    limits: &Limits,
) -> Result<Box<dyn Samples + Send + Sync>> {
    prepare.check()?;
    let kind = std::fs::metadata(path).map_err(|e| match e.kind() {
        std::io::ErrorKind::NotFound => Error::new(Kind::Io, "no such file or folder").at(path.display()),
        _ => Error::io(path, e),
    })?;
    if kind.is_dir() {
        return Ok(Box::new(files::folder(path, prepare, limit, limits)?));
    }
    match files::extension(path).as_str() {
        "csv" => Ok(Box::new(files::csv(path, prepare, limit, limits)?)),
        "npy" | "npz" | "safetensors" => {
            Ok(Box::new(npy::open(path, limits.memory)?.prepared(prepare, limits.memory)?))
        }
        other => Err(Error::data(format!("cannot read samples from a file of type `{other}`"))
            .at(path.display())
            .hint(match other {
                "json" => "give the task, such as --task coco or --task squad",
                "tsv" | "jsonl" | "txt" | "ndjson" => "give the task of the text, such as --task sst2",
                _ => "give a folder of images, or a .csv, .npy, .npz or .safetensors file",
            })),
    }
}

/// The image files at `paths`, in this order and without labels, prepared as by [`open`].
pub fn open_images(
    paths: impl IntoIterator<Item = PathBuf>,
    prepare: &Prepare,
    limits: &Limits,
) -> Result<Box<dyn Samples + Send + Sync>> {
    prepare.check()?;
    Ok(Box::new(files::images(paths, prepare, limits)?))
}
