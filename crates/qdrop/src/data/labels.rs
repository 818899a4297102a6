//! Label maps: the class of every pixel of an image, in PNG files.

use super::decode::{MAX_BYTES, check_size, guarded, read_file};
use super::{Limits, Prepare, Samples, Target, files, forward_files};
use crate::error::{Error, Kind, Result};
use crate::plan::{self, Task};
use crate::tensor::Tensor;
use png::{BitDepth, ColorType, Decoder, Transformations};
use std::collections::BTreeMap;
use std::io::Cursor;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The number that is no class in every label map: VOC's border, Cityscapes' rest.
const VOID: u16 = 255;
/// Bytes that a decoder may take beside pixels: for palettes and the like.
const BESIDE: usize = 1 << 20;
/// Bits of a colour of VOC's palette that are always 0: red and green have three bits, blue two.
const UNUSED: [u8; 3] = [0x1f, 0x1f, 0x3f];

/// The class of every pixel of an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LabelMap {
    /// Rows.
    pub height: usize,
    /// Columns.
    pub width: usize,
    /// `height * width` numbers of classes, rows from the top.
    pub classes: Vec<u16>,
    /// Numbers that are no class: pixels that have them are not counted.
    pub ignored: Arc<[u16]>,
}

/// How images come by their label maps.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Segmentation {
    /// The folder in which label maps lie; `None` where only lists name them.
    pub labels: Option<PathBuf>,
    /// Numbers that are no class, beside 255.
    pub ignored: Vec<u16>,
}

impl Segmentation {
    /// What `input` says about segmentation, `None` with another task or none.
    pub fn resolve(input: &plan::Input) -> Option<Segmentation> {
        let labels = || input.labels.as_ref().map(PathBuf::from);
        (input.task == Some(Task::Segmentation))
            .then(|| Segmentation { labels: labels(), ignored: input.ignore_labels.clone() })
    }
}

/// Opens the images at `path`, a folder or a list, as [`super::open`] does. The label map of an image is the one that the list
/// names (column `labels`), or else the PNG file in the folder of label maps with the image's name: in the same sub-folder, or
/// in any. Label maps are read when they are asked for, so calibration needs none; arrays have none.
pub fn open_segmentation(
    path: &Path,
    segmentation: &Segmentation,
    prepare: &Prepare,
    limit: Option<usize>,
    limits: &Limits,
) -> Result<Box<dyn Samples + Send + Sync>> {
    prepare.check()?;
    let inner = match path.is_dir() {
        true => files::folder(path, prepare, limit, limits)?,
        false if files::extension(path) == "csv" => files::csv(path, prepare, limit, limits)?,
        false => return super::open_part(path, prepare, limit, limits),
    };
    let folder = segmentation.labels.as_deref().map(Folder::open).transpose()?;
    let mut ignored = segmentation.ignored.clone();
    ignored.push(VOID);
    let (images, ignored) = (path.to_path_buf(), ignored.into());
    Ok(Box::new(Labelled { inner, images, folder, ignored, memory: limits.memory }))
}

/// A folder of label maps.
struct Folder {
    path: PathBuf,
    /// Its PNG files, and those of its sub-folders, by their names without the extension.
    files: BTreeMap<String, Vec<PathBuf>>,
}

impl Folder {
    fn open(path: &Path) -> Result<Self> {
        if !path.is_dir() {
            return Err(Error::data("--labels: no such folder").at(path.display()));
        }
        let mut found = Vec::new();
        files::collect(path, 0, &mut found)?;
        let mut files: BTreeMap<String, Vec<PathBuf>> = BTreeMap::new();
        for file in found.into_iter().filter(|file| files::extension(file) == "png") {
            files.entry(stem(&file)).or_default().push(file);
        }
        Ok(Folder { path: path.to_path_buf(), files })
    }

    /// The label map of `image`, one of those in the folder `images`.
    fn of(&self, image: &Path, images: &Path) -> Result<PathBuf> {
        let beside = image.strip_prefix(images).ok().and_then(Path::parent).map(|inner| self.path.join(inner));
        let named = self.files.get(&stem(image)).map_or(&[][..], Vec::as_slice);
        match (named, named.iter().find(|file| file.parent() == beside.as_deref())) {
            (_, Some(file)) | ([file], None) => Ok(file.clone()),
            ([], None) => {
                let message = format!("found no label map `{}.png` in `{}`", stem(image), self.path.display());
                let hint = "label maps are PNG files with the names of their images; files with other names can be given \
                            in a CSV file with lines file,labels";
                Err(Error::data(message).hint(hint))
            }
            ([one, other, ..], None) => {
                let message = format!("found two label maps, `{}` and `{}`", one.display(), other.display());
                Err(Error::data(message).hint("keep the sub-folders of images and label maps alike"))
            }
        }
    }
}

/// The name of the file at `path` without its extension.
fn stem(path: &Path) -> String {
    path.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default()
}

/// Images with their label maps.
struct Labelled {
    inner: files::ImageFiles,
    /// Where the images were opened.
    images: PathBuf,
    /// Where the label maps are that no list names.
    folder: Option<Folder>,
    ignored: Arc<[u16]>,
    memory: u64,
}

impl Samples for Labelled {
    fn len(&self) -> usize {
        self.inner.len()
    }

    fn get(&self, index: usize) -> Result<Vec<Tensor>> {
        self.inner.get(index)
    }

    fn target(&self, index: usize) -> Result<Option<Target>> {
        let at = |e: Error| e.at(format!("sample `{}`", self.name(index)));
        let path = match (self.inner.paths(index), &self.folder) {
            (Some((_, Some(named))), _) => named.to_path_buf(),
            (Some((image, None)), Some(folder)) => folder.of(image, &self.images).map_err(at)?,
            _ => return Ok(None),
        };
        let (height, width, classes) = read(&path, self.memory).map_err(|e| at(e.at(path.display())))?;
        match self.inner.geometry(index).map(|geometry| geometry.image) {
            Some([h, w]) if [h, w] != [height, width] => {
                let message = format!("the label map has {height} x {width} pixels, the image {h} x {w}");
                Err(at(Error::data(message).at(path.display())))
            }
            _ => Ok(Some(Target::Pixels(LabelMap { height, width, classes, ignored: self.ignored.clone() }))),
        }
    }

    fn label(&self, _: usize) -> Option<usize> {
        None
    }

    forward_files!(inner);
}

/// The label map in the PNG file at `path`. Gray values and indices of a palette are numbers of classes; colours are those of
/// VOC's palette, whose number they stand for. `ignored` are the numbers beside 255 that are no class.
pub fn read_labels(path: &Path, ignored: &[u16], limits: &Limits) -> Result<LabelMap> {
    let (height, width, classes) = read(path, limits.memory).map_err(|e| e.at(path.display()))?;
    let ignored = ignored.iter().copied().chain([VOID]).collect();
    Ok(LabelMap { height, width, classes, ignored })
}

/// Height, width and numbers of the label map at `path`.
fn read(path: &Path, memory: u64) -> Result<(usize, usize, Vec<u16>)> {
    if !path.is_file() {
        return Err(Error::new(Kind::Io, "no such label map"));
    }
    let bytes = read_file(path, MAX_BYTES + 1, memory)?.0;
    guarded(&bytes, |bytes| decode(bytes, memory))
}

fn corrupt(why: impl std::fmt::Display) -> Error {
    Error::data(format!("cannot decode the label map: {why}")).hint("label maps are PNG files")
}

fn decode(bytes: &[u8], memory: u64) -> Result<(usize, usize, Vec<u16>)> {
    let mut decoder = Decoder::new_with_limits(Cursor::new(bytes), png::Limits { bytes: BESIDE });
    decoder.set_transformations(Transformations::IDENTITY);
    decoder.set_ignore_text_chunk(true);
    decoder.set_ignore_iccp_chunk(true);
    let header = decoder.read_header_info().map_err(corrupt)?;
    let (width, height) = (u64::from(header.width), u64::from(header.height));
    // A row more than the pixels, and the numbers of 16 bits.
    let bytes = (header.raw_row_length() as u64).saturating_mul(height + 1).saturating_add(2 * width * height);
    check_size(width, height, bytes, memory)?;
    let (width, height) = (width as usize, height as usize);
    decoder.set_limits(png::Limits { bytes: usize::try_from(bytes).unwrap_or(usize::MAX).saturating_add(BESIDE) });
    let mut reader = decoder.read_info().map_err(corrupt)?;
    let size = reader.output_buffer_size().ok_or_else(|| corrupt("it is too large"))?;
    let mut data = vec![0; size];
    let info = reader.next_frame(&mut data).map_err(corrupt)?;
    let mut classes = Vec::with_capacity(width * height);
    for (y, row) in data.chunks_exact(info.line_size).take(height).enumerate() {
        let before = classes.len();
        numbers(row, width, info.color_type, info.bit_depth, &mut classes).map_err(|(x, e)| {
            let found = e.at(format!("row {y}, column {x}"));
            found.hint("colours are those of VOC's palette; otherwise gray values or indices of a palette are classes")
        })?;
        if classes.len() != before + width {
            return Err(corrupt(format!("expected {width} pixels in row {y}, got {}", classes.len() - before)));
        }
    }
    match classes.len() == width * height {
        true => Ok((height, width, classes)),
        false => Err(corrupt("it is cut off")),
    }
}

/// Appends the numbers of the `width` pixels in `row`; an error with the column where one has none.
fn numbers(
    row: &[u8],
    width: usize,
    color: ColorType,
    depth: BitDepth,
    found: &mut Vec<u16>,
) -> std::result::Result<(), (usize, Error)> {
    let bits = depth as usize;
    match (color, bits) {
        (ColorType::Grayscale | ColorType::Indexed, 8) => found.extend(row.iter().map(|&v| u16::from(v))),
        (ColorType::Grayscale | ColorType::Indexed, 1 | 2 | 4) => {
            // The first pixel is in the highest bits.
            let mask = (1u16 << bits) - 1;
            let pixels =
                row.iter().flat_map(|&v| (0..8 / bits).rev().map(move |i| (u16::from(v) >> (i * bits)) & mask));
            found.extend(pixels.take(width));
        }
        (ColorType::GrayscaleAlpha, 8) => found.extend(row.chunks_exact(2).map(|p| u16::from(p[0]))),
        (ColorType::Grayscale, 16) => found.extend(row.chunks_exact(2).map(|p| u16::from_be_bytes([p[0], p[1]]))),
        (ColorType::GrayscaleAlpha, 16) => found.extend(row.chunks_exact(4).map(|p| u16::from_be_bytes([p[0], p[1]]))),
        (ColorType::Rgb | ColorType::Rgba, 8) => {
            let samples = if color == ColorType::Rgb { 3 } else { 4 };
            for (x, p) in row.chunks_exact(samples).enumerate() {
                let number = voc_number([p[0], p[1], p[2]]);
                found.push(number.ok_or_else(|| {
                    let message = format!("the colour ({}, {}, {}) is not one of VOC's palette", p[0], p[1], p[2]);
                    (x, Error::data(message))
                })?);
            }
        }
        _ => return Err((0, Error::data(format!("expected colours of 8 bits, got {bits} bits")))),
    }
    Ok(())
}

/// The number of a colour in VOC's palette of 256: bits 0, 3 and 6 of the number are the highest bits of red, bits 1, 4 and 7
/// those of green, bits 2 and 5 those of blue.
fn voc_number(color: [u8; 3]) -> Option<u16> {
    if color.iter().zip(UNUSED).any(|(c, unused)| c & unused != 0) {
        return None;
    }
    let bit = |channel: usize, from_top: usize| u16::from(color[channel] >> (7 - from_top) & 1);
    Some((0..8).map(|i| bit(i % 3, i / 3) << i).sum())
}

#[cfg(test)]
mod tests {
    use super::*;
    use png::Encoder;
    use tempfile::TempDir;

    /// Writes a PNG file of `data`, rows padded to whole bytes.
    fn write(path: &Path, [height, width]: [u32; 2], color: ColorType, depth: BitDepth, data: &[u8]) {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        let mut encoder = Encoder::new(std::fs::File::create(path).unwrap(), width, height);
        encoder.set_color(color);
        encoder.set_depth(depth);
        if color == ColorType::Indexed {
            // Colours that say nothing about the indices.
            encoder.set_palette([9u8, 9, 9].repeat(1 << (depth as usize)));
        }
        encoder.write_header().unwrap().write_image_data(data).unwrap();
    }

    fn classes(dir: &TempDir, width: u32, color: ColorType, depth: BitDepth, data: &[u8]) -> Result<Vec<u16>> {
        let path = dir.path().join("map.png");
        write(&path, [2, width], color, depth, data);
        let map = read_labels(&path, &[], &Limits::default())?;
        assert_eq!((map.height, map.width as u32, &*map.ignored), (2, width, &[255][..]));
        Ok(map.classes)
    }

    /// The colour of `number` in VOC's palette, as the development kit of VOC computes it.
    fn voc_color(number: usize) -> [u8; 3] {
        let (mut color, mut rest) = ([0u8; 3], number);
        for place in (0..8).rev() {
            for (channel, c) in color.iter_mut().enumerate() {
                *c |= (((rest >> channel) & 1) << place) as u8;
            }
            rest >>= 3;
        }
        color
    }

    #[test]
    fn numbers_are_read_as_they_are_stored() {
        let dir = tempfile::tempdir().unwrap();
        use BitDepth::{Eight, Four, One, Sixteen, Two};
        use ColorType::{Grayscale, GrayscaleAlpha, Indexed, Rgb, Rgba};
        let read = |width, color, depth, data: &[u8]| classes(&dir, width, color, depth, data).unwrap();
        for color in [Grayscale, Indexed] {
            assert_eq!(read(2, color, Eight, &[0, 20, 255, 7]), [0, 20, 255, 7]);
            assert_eq!(read(3, color, Four, &[0x12, 0x3f, 0xf0, 0x90]), [1, 2, 3, 15, 0, 9]);
            assert_eq!(read(3, color, Two, &[0b0110_1100, 0b1100_0100]), [1, 2, 3, 3, 0, 1]);
            assert_eq!(
                read(9, color, One, &[0b1010_0001, 0x80, 0, 0]),
                [1, 0, 1, 0, 0, 0, 0, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0]
            );
        }
        assert_eq!(read(1, Grayscale, Sixteen, &[1, 2, 0, 255]), [258, 255]);
        assert_eq!(read(1, GrayscaleAlpha, Eight, &[5, 0, 6, 255]), [5, 6]);
        assert_eq!(read(2, Rgb, Eight, &[128, 0, 0, 0, 128, 0, 224, 224, 192, 0, 0, 0]), [1, 2, 255, 0]);
        assert_eq!(read(1, Rgba, Eight, &[192, 128, 128, 9, 0, 64, 128, 0]), [15, 20]);
        let error = classes(&dir, 1, Rgb, Eight, &[0, 0, 0, 1, 1, 1]).unwrap_err().to_string();
        assert!(
            error.contains("map.png: row 1, column 0: the colour (1, 1, 1) is not one of VOC's palette"),
            "{error}"
        );
        let error = classes(&dir, 1, Rgb, Sixteen, &[0; 12]).unwrap_err().to_string();
        assert!(error.contains("expected colours of 8 bits, got 16 bits"), "{error}");
    }

    #[test]
    fn colours_of_voc_have_their_numbers() {
        assert_eq!((voc_color(1), voc_color(15), voc_color(255)), ([128, 0, 0], [192, 128, 128], [224, 224, 192]));
        for number in 0..256 {
            assert_eq!(voc_number(voc_color(number)), Some(number as u16));
        }
        assert_eq!(voc_number([128, 1, 0]), None);
    }

    fn draw(path: PathBuf) {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        image::RgbImage::from_pixel(2, 2, image::Rgb([9; 3])).save(path).unwrap();
    }

    fn gray(path: PathBuf, size: [u32; 2], class: u8) {
        write(&path, size, ColorType::Grayscale, BitDepth::Eight, &vec![class; (size[0] * size[1]) as usize]);
    }

    fn opened(path: &Path, labels: Option<PathBuf>) -> Result<Box<dyn Samples + Send + Sync>> {
        let segmentation = Segmentation { labels, ignored: vec![7] };
        open_segmentation(path, &segmentation, &Prepare::default(), None, &Limits::default())
    }

    /// The class of the first pixel of sample `index`.
    fn class(samples: &dyn Samples, index: usize) -> u16 {
        match samples.target(index).unwrap() {
            Some(Target::Pixels(map)) => map.classes[0],
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn label_maps_are_found_by_the_names_of_images() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        for (name, class) in [("a", 1), ("b", 2)] {
            draw(at(&format!("images/{name}.bmp")));
            gray(at(&format!("labels/{name}.png")), [2, 2], class);
        }
        let samples = opened(&at("images"), Some(at("labels"))).unwrap();
        assert_eq!((samples.len(), class(&samples, 0), class(&samples, 1), samples.label(0)), (2, 1, 2, None));
        let Some(Target::Pixels(map)) = samples.target(0).unwrap() else { panic!("no label map") };
        assert_eq!((map.height, map.width, &*map.ignored), (2, 2, &[7, 255][..]));
        assert!(samples.target(2).unwrap().is_none());
        // Without label maps the images are samples too.
        let samples = opened(&at("images"), None).unwrap();
        assert_eq!((samples.target(0).unwrap(), samples.get(1).unwrap()[0].shape()), (None, &[3, 2, 2][..]));
        // Sub-folders that are alike, or different ones.
        for (folder, name, labels, class) in [("x", "0", "x", 3), ("y", "0", "y", 4), ("y", "1", "z", 5)] {
            draw(at(&format!("deep/{folder}/{name}.png")));
            gray(at(&format!("maps/{labels}/{name}.png")), [2, 2], class);
        }
        let samples = opened(&at("deep"), Some(at("maps"))).unwrap();
        assert_eq!([0, 1, 2].map(|i| class(&samples, i)), [3, 4, 5]);
        // A list names them.
        std::fs::write(at("list.csv"), "file,labels\nimages/a.bmp,labels/b.png\nimages/b.bmp,labels/a.png\n").unwrap();
        let samples = opened(&at("list.csv"), None).unwrap();
        assert_eq!((class(&samples, 0), class(&samples, 1)), (2, 1));
    }

    #[test]
    fn label_maps_that_do_not_fit_are_told() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        draw(at("images/a.bmp"));
        let refused =
            |labels: &str| opened(&at("images"), Some(at(labels))).unwrap().target(0).unwrap_err().to_string();
        let error = opened(&at("images"), Some(at("none"))).err().unwrap().to_string();
        assert!(error.ends_with("none: --labels: no such folder"), "{error}");
        std::fs::create_dir(at("empty")).unwrap();
        let error = refused("empty");
        assert!(error.contains("a.bmp`: found no label map `a.png` in `") && error.ends_with("file,labels"), "{error}");
        gray(at("small/a.png"), [1, 2], 0);
        let error = refused("small");
        assert!(error.contains("small/a.png: the label map has 1 x 2 pixels, the image 2 x 2"), "{error}");
        gray(at("two/x/a.png"), [2, 2], 0);
        gray(at("two/y/a.png"), [2, 2], 0);
        assert!(refused("two").contains("found two label maps, `"));
        for broken in ["no image", "\x7fPNG", ""] {
            std::fs::create_dir_all(at("broken")).unwrap();
            std::fs::write(at("broken/a.png"), broken).unwrap();
            let error = refused("broken");
            assert!(error.contains("broken/a.png: cannot decode the label map: "), "{error}");
        }
        gray(at("cut/a.png"), [2, 2], 0);
        let bytes = std::fs::read(at("cut/a.png")).unwrap();
        for length in 0..bytes.len() {
            std::fs::write(at("cut/a.png"), &bytes[..length]).unwrap();
            // The last bytes tell nothing about the pixels.
            let found = opened(&at("images"), Some(at("cut"))).unwrap().target(0);
            assert!(found.is_err() || length + 16 > bytes.len(), "{length} of {} bytes: {found:?}", bytes.len());
        }
        std::fs::write(at("list.csv"), "file,labels\nimages/a.bmp,nowhere.png\n").unwrap();
        let error = opened(&at("list.csv"), None).unwrap().target(0).unwrap_err().to_string();
        assert!(error.contains("nowhere.png: no such label map"), "{error}");
    }

    #[test]
    fn large_label_maps_are_refused_before_they_are_unpacked() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("map.png");
        gray(path.clone(), [200, 200], 3);
        let limits = Limits { memory: 10_000, ..Limits::default() };
        let error = read_labels(&path, &[], &limits).unwrap_err().to_string();
        assert!(error.contains("the image of 200 x 200 pixels takes"), "{error}");
    }

    #[test]
    fn only_the_task_of_segmentation_has_label_maps() {
        let mut input = plan::Input { labels: Some("maps".into()), ignore_labels: vec![0], ..plan::Input::default() };
        assert_eq!(Segmentation::resolve(&input), None);
        input.task = Some(Task::Segmentation);
        let want = Segmentation { labels: Some("maps".into()), ignored: vec![0] };
        assert_eq!(Segmentation::resolve(&input), Some(want));
    }
}
