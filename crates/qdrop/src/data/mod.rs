//! Samples from the outside world: image folders, lists of image files, arrays, text.
//!
//! [`open`] looks at a path and answers with [`Samples`]: a folder of images (flat, or one sub-folder per class in
//! sorted order), a `.csv` with the columns `file` and, optionally, `label`, or arrays `[N, ...]` in a `.npy`,
//! `.npz` or `.safetensors` file. [`fit`] then maps what was found to the inputs of a network. Images are decoded when
//! they are asked for; arrays are held in memory.
//!
//! How images become network input is a [`Prepare`]: convert to RGB (or one gray channel), resize the shorter side,
//! cut the centre, divide, subtract the mean, divide by the deviation. Decoding, resizing and cropping follow Pillow
//! and torchvision; resizing equals Pillow's antialiased bilinear filter bit for bit. The orientation tag of
//! photographs is not applied, as in Pillow.
//!
//! Text is opened by [`open_text`], which knows the files of the GLUE tasks and of SQuAD v1.1 and makes them token numbers
//! of one length by the network's tokenizer. Samples of differing sizes are refused.
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
//! // A network that wants another size says so by name.
//! let other = InputSpec::new("input", DType::F32, [Some(3), Some(32), Some(32)]);
//! let error = data::check_against(&samples, &[other]).unwrap_err();
//! assert_eq!(error.message(), "samples have shape [3, 20, 20], network input `input` wants [3, 32, 32]");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod arrays;
mod decode;
mod files;
mod npy;
mod prepare;
mod resample;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
mod text;
mod views;

pub use arrays::Arrays;
pub use decode::{EXTENSIONS, Pixels};
pub use prepare::{PRESETS, Prepare};
pub use text::{Text, open_text};
pub(crate) use views::spreads;
pub use views::{InputSpec, Subset, check_against, fit, spread};

use crate::error::{Error, Kind, Result};
use crate::tensor::Tensor;
use std::path::Path;
use std::sync::Arc;

/// What a network's answer for a sample is held against.
#[derive(Debug, Clone, PartialEq)]
pub enum Target {
    /// A class.
    Class(usize),
    /// A number.
    Number(f64),
    /// An answer in a text.
    Window(Window),
}

/// A window over the text that a question is about.
#[derive(Debug, Clone, PartialEq)]
pub struct Window {
    /// Number of the question; its windows stand side by side.
    pub question: usize,
    /// The whole text.
    pub context: Arc<str>,
    /// Bytes of the text under each token of the sample, `None` under tokens outside it.
    pub offsets: Vec<Option<(u32, u32)>>,
    /// Right answers, at least one.
    pub answers: Arc<[String]>,
}

/// A finite, indexable set of samples, each a list of one tensor per network input, without batch axis.
///
/// Methods that take an index panic or answer `None` when it is not below [`Samples::len`], as slices do.
pub trait Samples: Sync {
    /// Number of samples.
    fn len(&self) -> usize;

    /// Whether there are none.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Sample `index`: one tensor per network input, shapes without the batch axis.
    fn get(&self, index: usize) -> Result<Vec<Tensor>>;

    /// Class label of sample `index` if there is one.
    fn label(&self, index: usize) -> Option<usize>;

    /// What the answer for sample `index` is held against, if the source knows.
    fn target(&self, index: usize) -> Result<Option<Target>> {
        Ok(self.label(index).map(Target::Class))
    }

    /// How errors and reports name sample `index` (a file name or `row 3`).
    fn name(&self, index: usize) -> String;

    /// How many samples were left out because they could not be read.
    fn skipped(&self) -> usize {
        0
    }

    /// Bytes of memory that the set itself takes all the time.
    fn held_bytes(&self) -> u64 {
        0
    }

    /// Names of the tensors of a sample, where the source names them (`.npz`, `.safetensors`).
    fn input_names(&self) -> Option<Vec<String>> {
        None
    }

    /// Where the set comes from, as the caller named it (a path), for errors.
    fn source(&self) -> Option<String> {
        None
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

/// What a wrapper of samples hands on from the ones in `$samples`: all but the tensors and their number and names.
macro_rules! forward_labels {
    ($samples:ident) => {
        fn label(&self, index: usize) -> Option<usize> {
            self.$samples.label(index)
        }

        fn target(&self, index: usize) -> $crate::Result<Option<$crate::data::Target>> {
            self.$samples.target(index)
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
pub(crate) use forward_labels;

/// What holds while samples are opened, and read later.
#[derive(Clone, Copy)]
pub struct Limits<'a> {
    /// Bytes of memory that unpacked samples may take: all arrays of a file together, or the images that are decoded at a
    /// time. What would take more is refused before it is unpacked.
    pub memory: u64,
    /// Whether to stop, with [`Kind::Interrupted`]; asked before each file, on any thread.
    pub stopped: &'a (dyn Fn() -> bool + Sync),
}

impl Default for Limits<'_> {
    /// 8 GiB, and never to stop.
    fn default() -> Self {
        Limits { memory: 8 << 30, stopped: &|| false }
    }
}

/// Refuses `what`, which takes `bytes`, where only `memory` are allowed.
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
/// Images and `uint8` image arrays (`[N, H, W, C]` or `[N, C, H, W]` with 1 or 3 channels) go through `prepare`.
/// Other arrays are network input already and stay as they are, as do `uint8` arrays when `prepare` does nothing.
/// Headers of all images are read here; with [`Prepare::skip_bad`] every image is decoded once, and those that fail are
/// left out and counted by [`Samples::skipped`].
pub fn open(path: &Path, prepare: &Prepare, limits: &Limits) -> Result<Box<dyn Samples + Send + Sync>> {
    prepare.check()?;
    let kind = std::fs::metadata(path).map_err(|e| match e.kind() {
        std::io::ErrorKind::NotFound => Error::new(Kind::Io, "no such file or folder").at(path.display()),
        _ => Error::io(path, e),
    })?;
    if kind.is_dir() {
        return Ok(Box::new(files::folder(path, prepare, limits)?));
    }
    match files::extension(path).as_str() {
        "csv" => Ok(Box::new(files::csv(path, prepare, limits)?)),
        "npy" | "npz" | "safetensors" => {
            Ok(Box::new(npy::open(path, limits.memory)?.prepared(prepare, limits.memory)?))
        }
        other => Err(Error::data(format!("cannot read samples from a file of type `{other}`"))
            .at(path.display())
            .hint(match other {
                "tsv" | "jsonl" | "json" | "txt" | "ndjson" => "say what the text is with --task, such as --task sst2",
                _ => "give a folder of images, or a .csv, .npy, .npz or .safetensors file",
            })),
    }
}
