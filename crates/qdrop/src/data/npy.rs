//! Arrays from `.npy`, `.npz` and `.safetensors` files.
//!
//! A `.npy` file: magic and version, the length of a header, the header (a Python dictionary of element type, axis order
//! and shape), then the elements. A `.npz` file is a zip archive of them.

use super::{Arrays, files, fits};
use crate::error::{Error, Result};
use crate::tensor::{DType, Tensor, checked_numel};
use std::fs::File;
use std::io::{BufReader, Read};
use std::path::Path;

/// Longest header that is read, in bytes.
const MAX_HEADER: usize = 1 << 16;
/// Highest rank of an array.
const MAX_RANK: usize = 16;

/// Opens the arrays of the file at `path`, by its extension; together they may take `memory` bytes.
pub(super) fn open(path: &Path, memory: u64) -> Result<Arrays> {
    let kind = files::extension(path);
    let arrays = match kind.as_str() {
        "npy" => single(path, memory),
        "npz" => archive(path, memory),
        _ => safetensors(path, memory),
    };
    arrays.and_then(Arrays::from_file).map_err(|e| e.at(path.display()))
}

fn open_file(path: &Path) -> Result<(File, u64)> {
    let os = |e: std::io::Error| Error::data(format!("cannot read the file: {e}"));
    let file = File::open(path).map_err(os)?;
    let size = file.metadata().map_err(os)?.len();
    Ok((file, size))
}

/// Refuses arrays of `bytes` in all where only `memory` are allowed.
fn check(bytes: u64, memory: u64) -> Result<()> {
    fits("the arrays take", bytes, memory, "allow more (--memory), or save fewer samples")
}

fn single(path: &Path, memory: u64) -> Result<Vec<(String, Tensor)>> {
    let (file, size) = open_file(path)?;
    check(size, memory)?;
    let name = path.file_stem().map(|s| s.to_string_lossy().into_owned()).unwrap_or_default();
    Ok(vec![(name, read_npy(&mut BufReader::new(file), size)?)])
}

fn archive(path: &Path, memory: u64) -> Result<Vec<(String, Tensor)>> {
    let bad = |e: zip::result::ZipError| Error::data(format!("damaged npz archive: {e}"));
    let (file, _) = open_file(path)?;
    let mut zip = zip::ZipArchive::new(BufReader::new(file)).map_err(bad)?;
    let mut all = 0u64;
    for i in 0..zip.len() {
        let entry = zip.by_index_raw(i).map_err(bad)?;
        if entry.name().map_err(bad)?.ends_with(".npy") {
            all = all.saturating_add(entry.size());
        }
    }
    check(all, memory)?;
    let mut arrays = Vec::new();
    for i in 0..zip.len() {
        let mut entry = zip.by_index(i).map_err(bad)?;
        let Some(name) = entry.name().map_err(bad)?.strip_suffix(".npy").map(String::from) else { continue };
        // No more is unpacked than the archive says.
        let size = entry.size();
        arrays.push((name.clone(), read_npy(&mut entry, size).map_err(|e| e.at(format!("array `{name}`")))?));
    }
    Ok(arrays)
}

/// Reads one `.npy` stream of `size` bytes.
fn read_npy(stream: &mut impl Read, size: u64) -> Result<Tensor> {
    let broken = |what: &str| Error::data(format!("not a npy array: {what}"));
    let mut head = [0u8; 8];
    stream.read_exact(&mut head).map_err(|_| broken("the file ends within the magic number"))?;
    if &head[..6] != b"\x93NUMPY" {
        return Err(broken("the magic number is missing"));
    }
    let mut length = [0u8; 4];
    let width = match head[6] {
        1 => 2,
        2 | 3 => 4,
        v => return Err(broken(&format!("version {v} is unknown, expected 1 to 3"))),
    };
    stream.read_exact(&mut length[..width]).map_err(|_| broken("the file ends inside the header"))?;
    let length = u32::from_le_bytes(length) as usize;
    if length > MAX_HEADER {
        return Err(broken(&format!("the header has {length} bytes, expected at most {MAX_HEADER}")));
    }
    let mut header = vec![0u8; length];
    stream.read_exact(&mut header).map_err(|_| broken("the file ends inside the header"))?;
    let header = Header::parse(&String::from_utf8_lossy(&header))?;

    let numel = checked_numel(&header.shape).map_err(|e| Error::data(e.message()))?;
    let wanted = (numel as u64).checked_mul(header.width() as u64);
    let start = (8 + width + length) as u64;
    let present = size.saturating_sub(start);
    let Some(wanted) = wanted.filter(|&w| w <= present) else {
        let shape = &header.shape;
        return Err(Error::data(format!(
            "the array is cut off: shape {shape:?} of {} needs {} bytes, the file has {present}",
            header.descr,
            wanted.map_or("more than 2^64".into(), |w| w.to_string()),
        )));
    };
    let mut bytes = Vec::new();
    stream.take(wanted).read_to_end(&mut bytes).map_err(|e| Error::data(format!("cannot read the array: {e}")))?;
    if bytes.len() as u64 != wanted {
        return Err(Error::data(format!("the array is cut off: expected {wanted} bytes, got {}", bytes.len())));
    }
    header.tensor(bytes)
}

/// What the header of a `.npy` stream says.
#[derive(Debug, PartialEq)]
struct Header {
    descr: String,
    dtype: DType,
    big_endian: bool,
    fortran_order: bool,
    shape: Vec<usize>,
}

/// The text after `'key':` in a Python dictionary.
fn value<'a>(text: &'a str, key: &str) -> Option<&'a str> {
    ['\'', '"'].iter().find_map(|quote| {
        let (_, rest) = text.split_once(&format!("{quote}{key}{quote}"))?;
        Some(rest.trim_start().strip_prefix(':')?.trim_start())
    })
}

impl Header {
    fn parse(text: &str) -> Result<Header> {
        let missing = |key: &str| Error::data(format!("not a npy array: the header has no valid `{key}`"));
        let find = |key: &str| value(text, key).ok_or_else(|| missing(key));
        let descr = find("descr")?;
        let quote = descr.chars().next().filter(|c| "'\"".contains(*c));
        let descr = quote.and_then(|q| descr[1..].split_once(q)).map(|(name, _)| name);
        let Some(descr) = descr else {
            return Err(
                Error::data("structured npy arrays are not supported").hint("save each field as an array of its own")
            );
        };
        let fortran_order = match find("fortran_order")? {
            v if v.starts_with("True") => true,
            v if v.starts_with("False") => false,
            _ => return Err(missing("fortran_order")),
        };
        let shape = find("shape")?.strip_prefix('(').and_then(|s| s.split_once(')')).ok_or_else(|| missing("shape"))?.0;
        let dims = shape.split(',').map(str::trim).filter(|d| !d.is_empty());
        let shape: Vec<usize> = dims.map(|d| d.parse().map_err(|_| missing("shape"))).collect::<Result<_>>()?;
        if shape.len() > MAX_RANK {
            return Err(Error::data(format!("the array has {} axes, expected at most {MAX_RANK}", shape.len())));
        }
        let (order, kind) = descr.split_at_checked(1).unwrap_or((descr, ""));
        let dtype = match kind {
            "f4" => DType::F32,
            "f8" => DType::F64,
            "f2" => DType::F16,
            "i1" => DType::I8,
            "u1" => DType::U8,
            "i2" => DType::I16,
            "u2" => DType::U16,
            "i4" => DType::I32,
            "u4" => DType::U32,
            "i8" => DType::I64,
            "u8" => DType::U64,
            "b1" => DType::Bool,
            _ => {
                return Err(Error::data(format!("npy arrays of type `{descr}` are not supported"))
                    .hint("save it as a float, integer or bool array"));
            }
        };
        let big_endian = match order {
            "<" | "|" | "=" => false,
            ">" => true,
            _ => return Err(missing("descr")),
        };
        Ok(Header { descr: descr.into(), dtype, big_endian, fortran_order, shape })
    }

    /// Bytes of one element.
    fn width(&self) -> usize {
        self.dtype.bits() / 8
    }

    fn tensor(self, mut bytes: Vec<u8>) -> Result<Tensor> {
        let width = self.width();
        if self.big_endian {
            bytes.chunks_exact_mut(width).for_each(<[u8]>::reverse);
        }
        if self.fortran_order && self.shape.len() > 1 {
            bytes = row_major(&bytes, &self.shape, width);
        }
        Tensor::from_le_bytes(self.dtype, self.shape, &bytes).map_err(|e| Error::data(e.message()))
    }
}

/// Elements of `width` bytes from first-axis-fastest to last-axis-fastest order.
fn row_major(bytes: &[u8], shape: &[usize], width: usize) -> Vec<u8> {
    let mut out = vec![0u8; bytes.len()];
    let mut index = vec![0usize; shape.len()];
    let mut strides = vec![1usize; shape.len()];
    (1..shape.len()).for_each(|a| strides[a] = strides[a - 1] * shape[a - 1]);
    for element in out.chunks_exact_mut(width) {
        let from: usize = index.iter().zip(&strides).map(|(i, s)| i * s).sum();
        element.copy_from_slice(&bytes[from * width..][..width]);
        for axis in (0..shape.len()).rev() {
            index[axis] += 1;
            if index[axis] < shape[axis] {
                break;
            }
            index[axis] = 0;
        }
    }
    out
}

fn safetensors(path: &Path, memory: u64) -> Result<Vec<(String, Tensor)>> {
    use ::safetensors::{Dtype, SafeTensors};
    check(open_file(path)?.1, memory)?;
    let bytes = std::fs::read(path).map_err(|e| Error::data(format!("cannot read the file: {e}")))?;
    let file = SafeTensors::deserialize(&bytes)
        .map_err(|e| Error::data(format!("not a safetensors file, or a damaged one: {e}")))?;
    let mut names = file.names();
    names.sort_unstable();
    let one = |name: &str| {
        let view = file.tensor(name).map_err(|e| Error::data(e.to_string()))?;
        let dtype = match view.dtype() {
            Dtype::F32 => DType::F32,
            Dtype::F64 => DType::F64,
            Dtype::F16 => DType::F16,
            Dtype::BF16 => DType::BF16,
            Dtype::I8 => DType::I8,
            Dtype::U8 => DType::U8,
            Dtype::I16 => DType::I16,
            Dtype::U16 => DType::U16,
            Dtype::I32 => DType::I32,
            Dtype::U32 => DType::U32,
            Dtype::I64 => DType::I64,
            Dtype::U64 => DType::U64,
            Dtype::BOOL => DType::Bool,
            other => return Err(Error::data(format!("arrays of type {other:?} are not supported"))),
        };
        Tensor::from_le_bytes(dtype, view.shape().to_vec(), view.data()).map_err(|e| Error::data(e.message()))
    };
    names.into_iter().map(|n| Ok((n.to_string(), one(n).map_err(|e| e.at(format!("array `{n}`")))?))).collect()
}
