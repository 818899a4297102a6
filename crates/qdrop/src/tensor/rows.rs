//! The values of one tensor for many samples, in memory or in a file, in single or half precision.

use crate::error::{Error, Kind, Result};
use half::f16;
use half::slice::{HalfBitsSliceExt, HalfFloatSliceExt};
use std::borrow::Cow;
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Rows of f32 of equal length, one per sample (row-major, without the batch axis). Clones share the content.
#[derive(Debug, Clone)]
pub struct Rows {
    len: usize,
    width: usize,
    content: Arc<Content>,
}

/// The precision in which values are kept.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Precision {
    /// As f32.
    #[default]
    Single,
    /// As half-precision numbers: half the bytes, 11 significant bits.
    Half,
}

impl Precision {
    /// Bytes of a value.
    pub fn bytes(self) -> u64 {
        match self {
            Precision::Single => 4,
            Precision::Half => 2,
        }
    }
}

#[derive(Debug)]
enum Content {
    Memory {
        data: Vec<f32>,
        /// The store's count of it.
        _held: Option<Held>,
    },
    Half {
        data: Vec<f16>,
        _held: Held,
    },
    File {
        file: File,
        dir: PathBuf,
        precision: Precision,
    },
}

impl Rows {
    /// `len` rows, consecutive in `data`, whose length must be a multiple of `len`.
    pub fn new(len: usize, data: Vec<f32>) -> Self {
        let width = data.len().checked_div(len).unwrap_or(0);
        assert_eq!(width * len, data.len(), "{} values are not {len} equal rows", data.len());
        Rows { len, width, content: Arc::new(Content::Memory { data, _held: None }) }
    }

    /// Number of samples.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is no sample.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Number of elements of a sample.
    pub fn width(&self) -> usize {
        self.width
    }

    /// The rows at `indices`, in memory; errors as in [`Rows::row`].
    pub(crate) fn some(&self, indices: &[usize]) -> Result<Rows> {
        let mut writer = RowStore::memory().rows(indices.len(), self.width)?;
        indices.iter().try_for_each(|&i| writer.push(&self.row(i)?))?;
        Ok(writer.finish())
    }

    fn precision(&self) -> Precision {
        match &*self.content {
            Content::Memory { .. } => Precision::Single,
            Content::Half { .. } => Precision::Half,
            Content::File { precision, .. } => *precision,
        }
    }

    /// Whether the rows are in a file.
    pub fn in_file(&self) -> bool {
        matches!(*self.content, Content::File { .. })
    }

    /// The elements of sample `i`; an error only if they are in a file that cannot be read.
    pub fn row(&self, i: usize) -> Result<Cow<'_, [f32]>> {
        match &*self.content {
            Content::Memory { data, .. } => Ok(Cow::Borrowed(&data[i * self.width..(i + 1) * self.width])),
            Content::Half { data, .. } => Ok(Cow::Owned(data[i * self.width..(i + 1) * self.width].to_f32_vec())),
            Content::File { file, dir, precision } => {
                assert!(i < self.len, "row {i} of {}", self.len);
                let at = (i * self.width) as u64 * precision.bytes();
                let read = |bytes: &mut [u8]| read_at(file, bytes, at).map_err(|e| Error::io(dir, e));
                match precision {
                    Precision::Single => {
                        let mut row = vec![0.0f32; self.width];
                        read(bytemuck::cast_slice_mut(&mut row))?;
                        Ok(Cow::Owned(row))
                    }
                    Precision::Half => {
                        let mut row = vec![0u16; self.width];
                        read(bytemuck::cast_slice_mut(&mut row))?;
                        Ok(Cow::Owned(row.reinterpret_cast::<f16>().to_f32_vec()))
                    }
                }
            }
        }
    }

    /// All samples in order.
    pub fn iter(&self) -> impl Iterator<Item = Result<Cow<'_, [f32]>>> {
        (0..self.len).map(|i| self.row(i))
    }
}

/// Fills `bytes` with those of `file` from `at` on, whatever other threads read.
#[cfg(unix)]
pub(crate) fn read_at(file: &File, bytes: &mut [u8], at: u64) -> std::io::Result<()> {
    std::os::unix::fs::FileExt::read_exact_at(file, bytes, at)
}

/// Fills `bytes` with those of `file` from `at` on, whatever other threads read.
#[cfg(windows)]
pub(crate) fn read_at(file: &File, mut bytes: &mut [u8], mut at: u64) -> std::io::Result<()> {
    while !bytes.is_empty() {
        let n = std::os::windows::fs::FileExt::seek_read(file, bytes, at)?;
        if n == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        (bytes, at) = (&mut bytes[n..], at + n as u64);
    }
    Ok(())
}

/// Decides where rows are stored: in memory as long as all rows there stay within a limit, else in temporary files.
#[derive(Debug, Clone)]
pub struct RowStore {
    dir: PathBuf,
    limit: u64,
    precision: Precision,
    used: Arc<AtomicU64>,
}

impl RowStore {
    /// Stores everything in memory, in single precision.
    pub fn memory() -> Self {
        Self::new(u64::MAX, Path::new(""), Precision::Single)
    }

    /// Stores at most `limit` bytes in memory and the rest in files in `dir`.
    pub fn new(limit: u64, dir: &Path, precision: Precision) -> Self {
        RowStore { dir: dir.to_path_buf(), limit, precision, used: Arc::default() }
    }

    /// A store with the same limit, for values in single precision.
    pub fn single(&self) -> RowStore {
        RowStore { precision: Precision::Single, ..self.clone() }
    }

    /// `rows` in the precision of this store: the rows themselves if they already have it, else a copy.
    pub fn keep(&self, rows: &Rows) -> Result<Rows> {
        if rows.precision() == self.precision {
            return Ok(rows.clone());
        }
        let mut writer = self.rows(rows.len(), rows.width())?;
        rows.iter().try_for_each(|row| writer.push(&row?))?;
        Ok(writer.finish())
    }

    /// A writer for `len` rows of `width` elements, which are added in order.
    pub fn rows(&self, len: usize, width: usize) -> Result<RowsWriter> {
        let bytes = len as u64 * width as u64 * self.precision.bytes();
        let fits = |used: u64| used.checked_add(bytes).filter(|&all| all <= self.limit);
        let goal = match self.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits) {
            Ok(_) => {
                let held = Held { bytes, used: Arc::clone(&self.used) };
                match self.precision {
                    Precision::Single => Goal::Memory(Vec::with_capacity(len * width), held),
                    Precision::Half => Goal::Half(Vec::with_capacity(len * width), held),
                }
            }
            Err(_) => {
                Goal::File(tempfile::tempfile_in(&self.dir).map_err(|e| Error::io(&self.dir, e))?, self.precision)
            }
        };
        Ok(RowsWriter { len, width, goal, dir: self.dir.clone(), done: 0 })
    }
}

/// Memory in use, given back when dropped.
#[derive(Debug)]
struct Held {
    bytes: u64,
    used: Arc<AtomicU64>,
}

impl Drop for Held {
    fn drop(&mut self) {
        self.used.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// Adds rows in order.
#[derive(Debug)]
pub struct RowsWriter {
    len: usize,
    width: usize,
    goal: Goal,
    dir: PathBuf,
    /// Elements written.
    done: usize,
}

#[derive(Debug)]
enum Goal {
    Memory(Vec<f32>, Held),
    Half(Vec<f16>, Held),
    File(File, Precision),
}

impl RowsWriter {
    /// Adds consecutive whole rows.
    pub fn push(&mut self, rows: &[f32]) -> Result<()> {
        self.done += rows.len();
        match &mut self.goal {
            Goal::Memory(data, _) => data.extend_from_slice(rows),
            Goal::Half(data, _) => {
                let start = data.len();
                data.resize(start + rows.len(), f16::ZERO);
                narrow(rows, &mut data[start..])?;
            }
            Goal::File(file, precision) => {
                let mut halves = Vec::new();
                let bytes: &[u8] = match precision {
                    Precision::Single => bytemuck::cast_slice(rows),
                    Precision::Half => {
                        halves.resize(rows.len(), f16::ZERO);
                        narrow(rows, &mut halves)?;
                        bytemuck::cast_slice(halves.reinterpret_cast())
                    }
                };
                file.write_all(bytes).map_err(|e| {
                    Error::io(&self.dir, e).hint("make room, or keep more of the samples' values in memory (--memory)")
                })?;
            }
        }
        Ok(())
    }

    /// The rows, all of which must have been added.
    pub fn finish(self) -> Rows {
        let RowsWriter { len, width, goal, dir, done } = self;
        assert_eq!(done, len * width, "{done} values are not {len} rows of {width}");
        let content = match goal {
            Goal::Memory(data, held) => Content::Memory { data, _held: Some(held) },
            Goal::Half(data, held) => Content::Half { data, _held: held },
            Goal::File(file, precision) => Content::File { file, dir, precision },
        };
        Rows { len, width, content: Arc::new(content) }
    }
}

/// `values` in half precision; an error where one is too large for it.
fn narrow(values: &[f32], halves: &mut [f16]) -> Result<()> {
    halves.convert_from_f32_slice(values);
    match halves.iter().zip(values).find(|(h, v)| !h.is_finite() && v.is_finite()) {
        None => Ok(()),
        Some((_, v)) => Err(Error::new(Kind::Numeric, format!("{v} is too large for half precision"))
            .hint("keep the samples' values in single precision")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_fit_lies_in_files_and_reads_the_same() {
        let dir = tempfile::tempdir().unwrap();
        let store = RowStore::new(100, dir.path(), Precision::Single);
        let fill = |len: usize| {
            let mut writer = store.rows(len, 3).unwrap();
            for i in 0..len {
                writer.push(&[i as f32, 0.5, -1.0]).unwrap();
            }
            writer.finish()
        };
        let (a, b) = (fill(7), fill(7));
        assert_eq!((a.in_file(), b.in_file()), (false, true));
        for rows in [&a, &b] {
            assert_eq!((rows.len(), rows.width()), (7, 3));
            assert_eq!(*rows.row(6).unwrap(), [6.0, 0.5, -1.0]);
            assert_eq!(rows.iter().map(|r| r.unwrap()[0]).sum::<f32>(), 21.0);
        }
        let shared = a.clone();
        drop(a);
        assert!(fill(7).in_file(), "a clone still holds the memory");
        drop(shared);
        assert!(!fill(7).in_file(), "given back");
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0, "the files have no names");
        assert!(fill(0).is_empty());
    }

    #[test]
    fn half_precision_takes_half_the_room() {
        let dir = tempfile::tempdir().unwrap();
        for (limit, in_file) in [(24, false), (23, true)] {
            let store = RowStore::new(limit, dir.path(), Precision::Half);
            let mut writer = store.rows(4, 3).unwrap();
            writer.push(&[1.0, -2.5, 65504.0, 0.1, 0.0, -0.0]).unwrap();
            writer.push(&[1e-8, 3.0, 2049.0, 7.0, 8.0, 9.0]).unwrap();
            let rows = writer.finish();
            assert_eq!(rows.in_file(), in_file);
            assert_eq!(*rows.row(0).unwrap(), [1.0, -2.5, 65504.0]);
            assert!((rows.row(1).unwrap()[0] - 0.1).abs() < 5e-5);
            assert_eq!(*rows.row(2).unwrap(), [0.0, 3.0, 2048.0]);
            assert_eq!(*rows.row(3).unwrap(), [7.0, 8.0, 9.0]);
            let mut writer = store.rows(1, 1).unwrap();
            let error = writer.push(&[65520.0]).unwrap_err().to_string();
            assert!(error.starts_with("65520 is too large for half precision"), "{error}");
        }
    }
}
