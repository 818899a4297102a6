//! Image files as samples: folders and CSV lists.

use super::{EXTENSIONS, Geometry, Limits, Pixels, Prepare, Samples, decode, spread};
use crate::error::{Error, Kind, Result};
use crate::tensor::Tensor;
use rayon::prelude::*;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

/// Deepest nesting of folders that is searched for images.
const MAX_DEPTH: usize = 16;

/// The extension of `path` in lower case, without the dot.
pub(super) fn extension(path: &Path) -> String {
    path.extension().map(|e| e.to_string_lossy().to_lowercase()).unwrap_or_default()
}

struct Entry {
    path: PathBuf,
    label: Option<usize>,
    /// The label map that a list names.
    map: Option<PathBuf>,
    /// How a list names this entry (`row 3`); empty in folders.
    place: String,
    /// The part that the network sees, where the image was decoded when the set was opened and may stay.
    framed: Option<Pixels>,
    /// Where the image lies in the network's input; of no image until the set is complete.
    geometry: Geometry,
}

/// The geometry of no image.
const UNKNOWN: Geometry = Geometry { image: [0; 2], resized: [0; 2], offset: [0; 2], input: [0; 2] };

impl Entry {
    /// The image at `path`, in a folder.
    fn new(path: PathBuf, label: Option<usize>) -> Self {
        Entry { path, label, map: None, place: String::new(), framed: None, geometry: UNKNOWN }
    }
}

/// Images that are decoded when they are asked for, unless they were when the set was opened.
pub(super) struct ImageFiles {
    entries: Vec<Entry>,
    prepare: Prepare,
    skipped: usize,
    /// Bytes that images decoded at a time may take.
    memory: u64,
}

/// Sorted content of a folder without hidden entries: sub-folders and image files.
fn list(path: &Path) -> Result<(Vec<PathBuf>, Vec<PathBuf>)> {
    let (mut folders, mut images) = (Vec::new(), Vec::new());
    for entry in std::fs::read_dir(path).map_err(|e| Error::io(path, e))? {
        let entry = entry.map_err(|e| Error::io(path, e))?;
        if entry.file_name().as_encoded_bytes().starts_with(b".") {
            continue;
        }
        let path = entry.path();
        if path.is_dir() {
            folders.push(path);
        } else if EXTENSIONS.contains(&extension(&path).as_str()) {
            images.push(path);
        }
    }
    folders.sort();
    images.sort();
    Ok((folders, images))
}

/// All images in and below `path`: those of the folder first, then those of each sub-folder.
pub(super) fn collect(path: &Path, depth: usize, found: &mut Vec<PathBuf>) -> Result<()> {
    if depth > MAX_DEPTH {
        return Err(Error::data(format!("folders are nested more than {MAX_DEPTH} deep")).at(path.display()));
    }
    let (folders, images) = list(path)?;
    found.extend(images);
    folders.iter().try_for_each(|folder| collect(folder, depth + 1, found))
}

/// A flat folder of images, or one sub-folder per class in sorted order.
pub(super) fn folder(path: &Path, prepare: &Prepare, limit: Option<usize>, limits: &Limits) -> Result<ImageFiles> {
    let reads = || format!("images are files ending in .{}", EXTENSIONS.join(", ."));
    let (folders, images) = list(path)?;
    let mut entries: Vec<Entry> = images.into_iter().map(|path| Entry::new(path, None)).collect();
    let mut empty = None;
    let mut in_classes = 0;
    for (class, folder) in folders.iter().enumerate() {
        let mut found = Vec::new();
        collect(folder, 1, &mut found)?;
        if found.is_empty() {
            empty = empty.or(Some(folder));
        }
        in_classes += found.len();
        if entries.first().is_none_or(|e| e.label.is_some()) {
            entries.extend(found.into_iter().map(|path| Entry::new(path, Some(class))));
        }
    }
    if entries.is_empty() {
        return Err(Error::data("no images found").at(path.display()).hint(reads()));
    }
    if entries[0].label.is_none() && in_classes > 0 {
        return Err(Error::data("images lie both in the folder and in its sub-folders")
            .at(path.display())
            .hint("use either a flat folder, or one sub-folder per class"));
    }
    if let Some(folder) = empty.filter(|_| in_classes > 0) {
        return Err(Error::data("no images found in this class folder")
            .at(folder.display())
            .hint(format!("remove it, since every sub-folder is a class; {}", reads())));
    }
    ImageFiles::new(entries, prepare, limit, limits)
}

/// The images at `paths`, without labels.
pub(super) fn images(
    paths: impl IntoIterator<Item = PathBuf>,
    prepare: &Prepare,
    limits: &Limits,
) -> Result<ImageFiles> {
    let entries: Vec<Entry> = paths.into_iter().map(|path| Entry::new(path, None)).collect();
    if entries.is_empty() {
        return Err(Error::data("expected images, got none"));
    }
    ImageFiles::new(entries, prepare, None, limits)
}

/// The images listed in a CSV file with the columns `file` (relative to the list's folder) and, optionally, `label` (a class)
/// or `labels` (the file of a label map, relative too).
pub(super) fn csv(path: &Path, prepare: &Prepare, limit: Option<usize>, limits: &Limits) -> Result<ImageFiles> {
    let bad = |e: csv::Error| Error::data(format!("cannot read the list: {e}")).at(path.display());
    let mut reader = csv::ReaderBuilder::new().trim(csv::Trim::All).from_path(path).map_err(bad)?;
    let header: Vec<String> =
        reader.headers().map_err(bad)?.iter().map(|h| h.trim_start_matches('\u{feff}').to_string()).collect();
    let column = |name: &str| header.iter().position(|h| h == name);
    let Some(file) = column("file") else {
        return Err(Error::data(format!("expected a column `file` in the header, got `{}`", header.join(",")))
            .at(path.display())
            .hint("start the list with the line `file,label`"));
    };
    let (label, map) = (column("label"), column("labels"));
    let parent = path.parent().unwrap_or(Path::new(""));
    let mut entries = Vec::new();
    for (i, record) in reader.records().enumerate() {
        let place = format!("row {}", i + 1);
        let at = |e: Error| e.at(&place).at(path.display());
        let record = record.map_err(bad)?;
        let field = |i: usize| record.get(i).unwrap_or_default();
        let name = field(file);
        let target = parent.join(name);
        if name.is_empty() || !target.is_file() {
            return Err(at(Error::data(format!("no such file `{name}`")))
                .hint("rows are counted from 1 below the header; files are relative to the list's folder"));
        }
        let label = label.map(|l| parse_label(field(l))).transpose().map_err(at)?;
        let map = map.map(field).filter(|name| !name.is_empty()).map(|name| parent.join(name));
        entries.push(Entry { place, map, ..Entry::new(target, label) });
    }
    if entries.is_empty() {
        return Err(Error::data("the list has no rows").at(path.display()));
    }
    ImageFiles::new(entries, prepare, limit, limits)
}

fn parse_label(text: &str) -> Result<usize> {
    match text.parse::<i64>() {
        Ok(label) if label < 0 => Err(Error::data(format!("label {label} is negative, expected a class from 0"))),
        Ok(label) => Ok(label as usize),
        Err(_) => Err(Error::data(format!("label `{text}` is not an integer, expected a class from 0"))),
    }
}

impl Entry {
    /// `error` at the row of the list, if the entry comes from one.
    fn at(&self, error: Error) -> Error {
        if self.place.is_empty() { error } else { error.at(&self.place) }
    }

    /// `error` at the image.
    fn at_image(&self, error: Error) -> Error {
        self.at(error.at(self.path.display()))
    }
}

impl ImageFiles {
    /// The images of `entries`; the `limit` that is spread over them decides the canvas.
    fn new(mut entries: Vec<Entry>, prepare: &Prepare, limit: Option<usize>, limits: &Limits) -> Result<Self> {
        let memory = limits.memory;
        let taken = AtomicU64::new(0);
        let check = |e: &mut Entry| {
            limits.go_on()?;
            let image = prepare.skip_bad.then(|| decode::pixels(&e.path, memory)).transpose()?;
            let (height, width) = match &image {
                Some(image) => (image.height, image.width),
                None => decode::size(&e.path, memory).map(|(w, h)| (h, w))?,
            };
            prepare.fits(height, width, memory).map_err(|error| error.at(e.path.display()))?;
            e.geometry = prepare.geometry_shrunk(height, width).map_err(|error| error.at(e.path.display()))?;
            e.framed = image.and_then(|image| keep(image, prepare, &e.geometry, limits.spare, &taken));
            Ok(())
        };
        let checked: Vec<Result<()>> = entries.par_iter_mut().map(check).collect();
        let all = entries.len();
        let mut kept = Vec::with_capacity(all);
        let mut last_error = None;
        for (entry, checked) in entries.into_iter().zip(checked) {
            match checked {
                Ok(()) => kept.push(entry),
                Err(e) if prepare.skip_bad && e.kind() != Kind::Interrupted => last_error = Some(entry.at(e)),
                Err(e) => return Err(entry.at(e)),
            }
        }
        match last_error {
            Some(e) if kept.is_empty() => {
                return Err(Error::data(format!("none of {all} images can be read, the last one: {e}")));
            }
            _ => {}
        }
        let prepare = place(&mut kept, prepare, limit, memory)?;
        Ok(ImageFiles { skipped: all - kept.len(), entries: kept, prepare, memory })
    }

    /// The image at `index`, and the label map that a list names for it.
    pub(super) fn paths(&self, index: usize) -> Option<(&Path, Option<&Path>)> {
        self.entries.get(index).map(|entry| (entry.path.as_path(), entry.map.as_deref()))
    }
}

/// Places `entries` in inputs of one size: the canvas that the spread `limit` of them need, where images are padded. The
/// preparation with this canvas.
fn place(entries: &mut [Entry], prepare: &Prepare, limit: Option<usize>, memory: u64) -> Result<Prepare> {
    let mut prepare = prepare.clone();
    let chosen: BTreeSet<usize> = spread(entries.len(), limit).collect();
    if prepare.pad_multiple.is_some() && prepare.pad_to.is_none() {
        let inputs = chosen.iter().map(|&i| entries[i].geometry.input);
        let largest = inputs.fold([0; 2], |most, input| [most[0].max(input[0]), most[1].max(input[1])]);
        prepare.pad_to = Some((largest[0], largest[1]));
    }
    for (i, entry) in entries.iter_mut().enumerate() {
        let [height, width] = entry.geometry.image;
        let fits = prepare.fits(height, width, memory);
        let geometry = match chosen.contains(&i) {
            true => prepare.geometry(height, width),
            false => prepare.geometry_shrunk(height, width),
        };
        let geometry = fits.and(geometry).map_err(|e| entry.at_image(e))?;
        if geometry.resized != entry.geometry.resized {
            entry.framed = None;
        }
        entry.geometry = geometry;
    }
    let differs = |entry: &&Entry| entry.geometry.input != entries[0].geometry.input;
    if let Some(entry) = entries.iter().find(differs) {
        let ([h, w], first) = (entry.geometry.input, &entries[0]);
        let [height, width] = first.geometry.input;
        let error = Error::data(format!(
            "the image has {h} x {w} pixels as network input, expected {height} x {width} as in `{}`",
            first.path.display()
        ));
        return Err(entry
            .at_image(error)
            .hint("give all images the same size (--resize, --crop, --letterbox, or --input imagenet)"));
    }
    Ok(prepare)
}

/// The part of `image` that the network sees, where it fits into the `spare` bytes of which so many are `taken`.
fn keep(image: Pixels, prepare: &Prepare, geometry: &Geometry, spare: u64, taken: &AtomicU64) -> Option<Pixels> {
    let [rows, columns] = geometry.shown();
    let bytes = (rows.len() * columns.len() * prepare.channels()) as u64;
    let fits = taken.fetch_add(bytes, Ordering::Relaxed).saturating_add(bytes) <= spare;
    fits.then(|| prepare.framed(image, geometry))
}

impl Samples for ImageFiles {
    fn len(&self) -> usize {
        self.entries.len()
    }

    fn get(&self, index: usize) -> Result<Vec<Tensor>> {
        let Entry { path, framed, geometry, .. } = &self.entries[index];
        if let Some(framed) = framed {
            return Ok(vec![self.prepare.normalized(framed, geometry)]);
        }
        let image = decode::pixels(path, self.memory)?;
        if geometry.image != [image.height, image.width] {
            let (height, width, [h, w]) = (image.height, image.width, geometry.image);
            let message = format!("expected {h} x {w} pixels as in the header, got {height} x {width}");
            return Err(Error::data(message).at(path.display()));
        }
        Ok(vec![self.prepare.normalized(&self.prepare.framed(image, geometry), geometry)])
    }

    fn label(&self, index: usize) -> Option<usize> {
        self.entries.get(index)?.label
    }

    fn geometry(&self, index: usize) -> Option<Geometry> {
        self.entries.get(index).map(|entry| entry.geometry)
    }

    fn picture(&self, index: usize) -> Result<Option<Pixels>> {
        decode::pixels(&self.entries[index].path, self.memory).map(Some)
    }

    fn name(&self, index: usize) -> String {
        self.entries[index].path.display().to_string()
    }

    fn skipped(&self) -> usize {
        self.skipped
    }

    fn held_bytes(&self) -> u64 {
        self.entries.iter().flat_map(|e| &e.framed).map(|image| image.data.len() as u64).sum()
    }
}
