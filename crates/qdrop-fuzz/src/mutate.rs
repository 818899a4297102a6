//! Inputs that follow from seeds and a number.

use crate::rng::Rng;
use crate::targets::Target;
use crate::{json, text, wire};
use std::io::{Cursor, Read, Write};
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipArchive, ZipWriter};

/// Most edits of one input.
const EDITS: usize = 4;
/// Longest input in bytes.
const LONGEST: usize = 1 << 18;
/// Bytes at the front of a `.npy` file that hold its header.
const HEADER: usize = 128;

/// Seeds in front that half of the inputs begin with: whole networks, before tests of single operators.
const FRONT: usize = 48;

/// Valid inputs of a target.
pub type Seeds = Vec<Vec<u8>>;

/// Input `number` of `target`: one of `seeds`, which are not empty, with a few edits. Most keep the form of the file, so
/// that it is read beyond its first bytes.
pub fn mutated(target: Target, seeds: &Seeds, number: u64) -> Vec<u8> {
    let mut rng = Rng::new(number.wrapping_mul(0x2545_f491_4f6c_dd1d) ^ target as u64);
    let front = if rng.once_in(2) { FRONT.min(seeds.len()) } else { seeds.len() };
    let mut bytes = rng.one(&seeds[..front]).clone();
    for _ in 0..1 + rng.below(EDITS) {
        let other = rng.one(seeds);
        let whole = if rng.once_in(4) { None } else { formed(target, &bytes, other, &mut rng) };
        bytes = whole.unwrap_or_else(|| raw(bytes, other, &mut rng));
    }
    bytes.truncate(LONGEST);
    bytes
}

/// `bytes` with one edit that keeps their form, where they have one.
fn formed(target: Target, bytes: &[u8], other: &[u8], rng: &mut Rng) -> Option<Vec<u8>> {
    match target {
        Target::Reader | Target::Plan => {
            let mut message = wire::parse(bytes)?;
            wire::mutate(&mut message, &wire::parse(other).unwrap_or_default(), rng);
            Some(wire::encode(&message))
        }
        Target::Arrays => match bytes {
            [b'P', b'K', ..] => archive(bytes, other, rng),
            [0x93, ..] => Some(array(bytes, rng)),
            _ => None,
        },
        Target::Recipe => {
            let own = str::from_utf8(bytes).ok()?;
            Some(text::mutate(own, &String::from_utf8_lossy(other), rng).into_bytes())
        }
        Target::Tokenizer | Target::Coco => {
            let mut root = serde_json::from_slice(bytes).ok()?;
            json::mutate(&mut root, &serde_json::from_slice(other).unwrap_or_default(), rng);
            serde_json::to_vec(&root).ok()
        }
    }
}

/// A `.npy` file with another word in its header.
fn array(bytes: &[u8], rng: &mut Rng) -> Vec<u8> {
    let (head, rest) = bytes.split_at(bytes.len().min(HEADER));
    let skip = head.len().min(10);
    let words = "'>f8' '|u1' '<i8' '|b1' True False shape descr fortran_order (0, 1, 2, 65536, 18446744073709551615)";
    let changed = text::mutate(&String::from_utf8_lossy(&head[skip..]), words, rng);
    [&head[..skip], changed.as_bytes(), rest].concat()
}

/// A `.npz` file with one of its arrays changed, twice, or from `other`.
fn archive(bytes: &[u8], other: &[u8], rng: &mut Rng) -> Option<Vec<u8>> {
    let mut entries = unpacked(bytes)?;
    let at = rng.below(entries.len());
    match rng.below(4) {
        0 => entries.extend(unpacked(other).unwrap_or_default()),
        1 if !entries.is_empty() => {
            let name = rng.one(&["y", "labels.npy", "", ".npy", "../x.npy", "a/b.npy"]).to_string();
            entries[at].0 = name;
        }
        _ if !entries.is_empty() => entries[at].1 = array(&entries[at].1, rng),
        _ => return None,
    }
    let packing = *rng.one(&[CompressionMethod::Stored, CompressionMethod::Deflated]);
    let mut out = ZipWriter::new(Cursor::new(Vec::new()));
    for (name, content) in entries {
        // A name that is there already is refused; the rest is written.
        if out.start_file(name, SimpleFileOptions::default().compression_method(packing)).is_ok() {
            out.write_all(&content).ok()?;
        }
    }
    Some(out.finish().ok()?.into_inner())
}

fn unpacked(bytes: &[u8]) -> Option<Vec<(String, Vec<u8>)>> {
    let mut archive = ZipArchive::new(Cursor::new(bytes)).ok()?;
    let mut entries = Vec::new();
    for i in 0..archive.len() {
        let file = archive.by_index(i).ok()?;
        let name = file.name().ok()?.to_string();
        let mut content = Vec::new();
        file.take(LONGEST as u64).read_to_end(&mut content).ok()?;
        entries.push((name, content));
    }
    Some(entries)
}

/// `bytes` with one edit that knows nothing of their form.
fn raw(mut bytes: Vec<u8>, other: &[u8], rng: &mut Rng) -> Vec<u8> {
    if bytes.is_empty() {
        return other.to_vec();
    }
    let at = rng.below(bytes.len());
    match rng.below(9) {
        0 => bytes[at] ^= 1 << rng.below(8),
        1 => bytes[at] = *rng.one(&[0, 1, 0x7f, 0x80, 0xff, b'"', b'\n']),
        2 => bytes.truncate(at),
        3 => drop(bytes.drain(rng.range(bytes.len(), 64))),
        4 => {
            let piece = bytes[rng.range(bytes.len(), 64)].to_vec();
            bytes.splice(at..at, piece);
        }
        5 => {
            // The begin of one file, the end of another.
            bytes.truncate(at);
            bytes.extend_from_slice(&other[rng.below(other.len())..]);
        }
        6 => {
            let piece = &other[rng.range(other.len(), 256)];
            bytes.splice(at..at, piece.iter().copied());
        }
        7 => {
            // A length or a count.
            let new = rng.integer(i64::from(bytes[at])).to_le_bytes();
            let width = (*rng.one(&[2, 4, 8])).min(bytes.len() - at);
            bytes[at..at + width].copy_from_slice(&new[..width]);
        }
        _ => {
            let range = rng.range(bytes.len(), 8);
            bytes[range].fill_with(|| rng.word() as u8);
        }
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::seeds;

    #[test]
    fn an_input_follows_from_its_number() {
        for target in Target::ALL {
            let seeds = seeds(target);
            let all: Vec<_> = (0..50).map(|n| mutated(target, &seeds, n)).collect();
            assert!((0..50).all(|n| mutated(target, &seeds, n) == all[n as usize]), "{target}");
            let changed = all.iter().filter(|input| !seeds.contains(input)).count();
            assert!(changed > 40, "{target}: {changed}");
        }
    }
}
