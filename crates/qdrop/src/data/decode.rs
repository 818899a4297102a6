//! One image file to 8-bit pixels, converted as Pillow's `convert("RGB")` and `convert("L")` do.

use super::fits;
use crate::error::{Error, Kind, Result};
use image::{DynamicImage, ImageDecoder, ImageFormat, ImageReader, Limits};
use libjpeg_turbo_rs::{PixelFormat, Subsampling};
use std::fs::File;
use std::io::{Cursor, Read};
use std::path::Path;

/// File name extensions that are taken for images, in lower case.
pub const EXTENSIONS: [&str; 5] = ["png", "jpg", "jpeg", "bmp", "webp"];

/// Longest side of an image that is read, in pixels.
const MAX_SIDE: u32 = 32_768;
/// Most pixels of an image that is read.
pub(super) const MAX_PIXELS: u64 = 1 << 28;
/// Largest image file that is read, in bytes.
pub(super) const MAX_BYTES: u64 = 1 << 30;
/// Bytes that a pixel of a JPEG takes while it is decoded: 3 channels as coefficients of 16 bits, as planes, as planes of
/// full size and as pixels.
const JPEG_BYTES: u64 = 15;
/// Bytes in which the size of an image is looked for first.
const HEADER_BYTES: u64 = 32 << 10;

/// An 8-bit image: rows from the top, pixels from the left, channels interleaved (`[height, width, channels]`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pixels {
    /// Rows.
    pub height: usize,
    /// Columns.
    pub width: usize,
    /// 1 (gray) or 3 (red, green, blue).
    pub channels: usize,
    /// `height * width * channels` values.
    pub data: Vec<u8>,
}

impl Pixels {
    /// As one channel by the weights of ITU-R 601 (red .299, green .587, blue .114), rounded to nearest.
    pub(super) fn into_gray(self) -> Pixels {
        if self.channels == 1 {
            return self;
        }
        let luma = |p: &[u8]| ((p[0] as u32 * 19595 + p[1] as u32 * 38470 + p[2] as u32 * 7471 + 0x8000) >> 16) as u8;
        Pixels { channels: 1, data: self.data.chunks_exact(3).map(luma).collect(), ..self }
    }

    /// As three equal channels if it is gray.
    pub(super) fn into_rgb(self) -> Pixels {
        if self.channels == 3 {
            return self;
        }
        Pixels { channels: 3, data: self.data.iter().flat_map(|&v| [v; 3]).collect(), ..self }
    }
}

fn corrupt(why: impl std::fmt::Display) -> Error {
    let why = why.to_string();
    let why = why.trim_end_matches('.');
    Error::data(format!("cannot decode the image: {why}")).hint("remove it, or skip unreadable images (--skip-bad)")
}

/// The first bytes of the file at `path`, at most `limit`; and whether that is all of it.
pub(super) fn read_file(path: &Path, limit: u64, memory: u64) -> Result<(Vec<u8>, bool)> {
    let os = |e| Error::io(path, e);
    let file = File::open(path).map_err(os)?;
    let size = file.metadata().map_err(os)?.len();
    if size > MAX_BYTES {
        let message = format!("the file has {size} bytes, expected at most {MAX_BYTES}");
        return Err(Error::data(message).at(path.display()));
    }
    check_memory("the file takes", size, memory).map_err(|e| e.at(path.display()))?;
    let mut bytes = Vec::new();
    file.take(limit).read_to_end(&mut bytes).map_err(os)?;
    let whole = (bytes.len() as u64) < limit;
    Ok((bytes, whole))
}

/// That an image of this size, which takes `bytes` when it is decoded, may be decoded on all threads at a time.
pub(super) fn check_size(width: u64, height: u64, bytes: u64, memory: u64) -> Result<()> {
    let side = MAX_SIDE as u64;
    if width == 0 || height == 0 || width > side || height > side || width * height > MAX_PIXELS {
        return Err(Error::data(format!(
            "the image is {width} x {height} pixels, expected 1 to {MAX_SIDE} per side and at most {MAX_PIXELS} in total"
        )));
    }
    check_memory(&format!("the image of {width} x {height} pixels takes"), bytes, memory)
}

/// Refuses `what`, which takes `bytes` on every thread, where all threads together may take `memory`.
pub(super) fn check_memory(what: &str, bytes: u64, memory: u64) -> Result<()> {
    let threads = rayon::current_num_threads() as u64;
    let what = if threads > 1 { format!("{what} on {threads} threads") } else { what.to_string() };
    fits(&what, bytes.saturating_mul(threads), memory, "allow more (--memory), or give a smaller image")
}

/// Runs a decoder; one that panics on hostile bytes has found a corrupt image.
pub(super) fn guarded<T>(bytes: &[u8], decode: impl FnOnce(&[u8]) -> Result<T>) -> Result<T> {
    Error::caught(|| decode(bytes)).map_err(|e| match e.kind() {
        Kind::Internal => corrupt("the decoder gave up"),
        _ => e,
    })
}

fn format_of(bytes: &[u8]) -> Result<ImageFormat> {
    if bytes.is_empty() {
        return Err(corrupt("the file is empty"));
    }
    let known = [ImageFormat::Png, ImageFormat::Jpeg, ImageFormat::Bmp, ImageFormat::WebP];
    match image::guess_format(bytes) {
        Ok(format) if known.contains(&format) => Ok(format),
        _ => Err(corrupt("its content is not PNG, JPEG, BMP or WebP")),
    }
}

/// A decoder of `bytes` whose image may be decoded within `memory`.
fn decoder(bytes: &[u8], format: ImageFormat, memory: u64) -> Result<impl ImageDecoder> {
    let mut limits = Limits::default();
    limits.max_image_width = Some(MAX_SIDE);
    limits.max_image_height = Some(MAX_SIDE);
    // 16-bit RGBA is the widest pixel; decoders may need a copy.
    limits.max_alloc = Some((MAX_PIXELS * 8).min(memory) * 2);
    let mut reader = ImageReader::with_format(Cursor::new(bytes), format);
    reader.limits(limits);
    let decoder = reader.into_decoder().map_err(corrupt)?;
    let (w, h) = decoder.dimensions();
    let (w, h) = (w as u64, h as u64);
    let bytes = if format == ImageFormat::Jpeg { w * h * JPEG_BYTES } else { decoder.total_bytes() };
    check_size(w, h, bytes, memory)?;
    Ok(decoder)
}

/// Width and height from the header of the image at `path`, checked against the limits.
pub(super) fn size(path: &Path, memory: u64) -> Result<(usize, usize)> {
    let header = |bytes: &[u8]| {
        let (w, h) = decoder(bytes, format_of(bytes)?, memory)?.dimensions();
        Ok((w as usize, h as usize))
    };
    // Colour profiles and previews can make a header longer than this: then the whole file is read.
    let (bytes, whole) = read_file(path, HEADER_BYTES, memory)?;
    let found = match guarded(&bytes, header) {
        Err(_) if !whole => guarded(&read_file(path, MAX_BYTES + 1, memory)?.0, header),
        found => found,
    };
    found.map_err(|e| e.at(path.display()))
}

/// The pixels of the image at `path`, gray or RGB as the file has them; transparency is dropped, palettes are looked up.
pub(super) fn pixels(path: &Path, memory: u64) -> Result<Pixels> {
    let decode = |bytes: &[u8]| match format_of(bytes)? {
        ImageFormat::Jpeg => decode_jpeg(bytes, memory),
        format => from_dynamic(DynamicImage::from_decoder(decoder(bytes, format, memory)?).map_err(corrupt)?),
    };
    guarded(&read_file(path, MAX_BYTES + 1, memory)?.0, decode).map_err(|e| e.at(path.display()))
}

/// The image of a JPEG file. Its values are those of libjpeg-turbo, with which Pillow and OpenCV read it.
fn decode_jpeg(bytes: &[u8], memory: u64) -> Result<Pixels> {
    let jpeg = libjpeg_turbo_rs::Decoder::new(bytes).map_err(corrupt)?;
    let (width, height) = (u32::from(jpeg.header().width), u32::from(jpeg.header().height));
    let bytes_taken = u64::from(width) * u64::from(height) * JPEG_BYTES;
    check_size(width.into(), height.into(), bytes_taken, memory)?;
    if jpeg.header().components.len() == 4 && jpeg.jpeg_subsampling() != Subsampling::S444 {
        return Err(corrupt("it is CMYK with channels of fewer pixels; save it as RGB"));
    }
    let image = jpeg.decode_image().map_err(corrupt)?;
    let channels = if image.pixel_format == PixelFormat::Grayscale { 1 } else { 3 };
    let data = if image.pixel_format == PixelFormat::Cmyk { from_cmyk(&image.data) } else { image.data };
    finish(width, height, channels, data)
}

/// Red, green and blue of CMYK as JPEG files have it, with 255 for no ink: each ink times black, divided by 255.
fn from_cmyk(data: &[u8]) -> Vec<u8> {
    let times = |ink: u8, black: u8| {
        let product = (255 - ink) as u32 * black as u32 + 128;
        black - (((product >> 8) + product) >> 8) as u8
    };
    data.chunks_exact(4).flat_map(|p| [times(p[0], p[3]), times(p[1], p[3]), times(p[2], p[3])]).collect()
}

fn finish(width: u32, height: u32, channels: usize, data: Vec<u8>) -> Result<Pixels> {
    let (height, width) = (height as usize, width as usize);
    if data.len() != height * width * channels {
        return Err(corrupt(format!("expected {height} x {width} x {channels} values, got {}", data.len())));
    }
    Ok(Pixels { height, width, channels, data })
}

/// Keeps the channels at `keep` of every pixel of `n` channels, after `narrow`.
fn pick<T: Copy>(data: &[T], n: usize, keep: usize, narrow: impl Fn(T) -> u8) -> Vec<u8> {
    data.chunks_exact(n).flat_map(|p| &p[..keep]).map(|&v| narrow(v)).collect()
}

fn from_dynamic(image: DynamicImage) -> Result<Pixels> {
    let (w, h) = (image.width(), image.height());
    let high = |v: u16| (v >> 8) as u8;
    // Pillow keeps 16-bit gray as integers and saturates them; of 16-bit colours it reads the high byte.
    let (channels, data) = match image {
        DynamicImage::ImageLuma8(i) => (1, i.into_raw()),
        DynamicImage::ImageLumaA8(i) => (1, pick(i.as_raw(), 2, 1, |v| v)),
        DynamicImage::ImageRgb8(i) => (3, i.into_raw()),
        DynamicImage::ImageRgba8(i) => (3, pick(i.as_raw(), 4, 3, |v| v)),
        DynamicImage::ImageLuma16(i) => (1, pick(i.as_raw(), 1, 1, |v| v.min(255) as u8)),
        DynamicImage::ImageLumaA16(i) => (1, pick(i.as_raw(), 2, 1, high)),
        DynamicImage::ImageRgb16(i) => (3, pick(i.as_raw(), 3, 3, high)),
        DynamicImage::ImageRgba16(i) => (3, pick(i.as_raw(), 4, 3, high)),
        other => return Err(corrupt(format!("pixels of type {:?} are not supported", other.color()))),
    };
    finish(w, h, channels, data)
}
