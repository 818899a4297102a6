//! Pillow's antialiased bilinear resizing of 8-bit images, bit for bit: a triangle filter as wide as the reduction,
//! weights rounded to 22 fractional bits, first along rows, then along columns (or the other way round where an image loses
//! many more rows than columns), rounded to 8 bits in between.

use super::Pixels;

/// Fractional bits of the integer weights: 8 bits of pixel and 2 bits of headroom out of 32.
const PRECISION: u32 = 32 - 8 - 2;

/// The weights of one axis: for output `i`, `weights[i * width..]` apply from input `first[i]` on.
struct Taps {
    first: Vec<usize>,
    count: Vec<usize>,
    width: usize,
    weights: Vec<i32>,
}

/// Triangle filter taps for resizing an axis from `from` to `to` elements, both above 0.
fn taps(from: usize, to: usize) -> Taps {
    let scale = from as f64 / to as f64;
    let support = scale.max(1.0);
    let step = 1.0 / support;
    let width = support.ceil() as usize * 2 + 1;
    let mut t =
        Taps { first: Vec::with_capacity(to), count: Vec::with_capacity(to), width, weights: vec![0; to * width] };
    for i in 0..to {
        let center = (i as f64 + 0.5) * scale;
        let first = (center - support + 0.5).max(0.0) as usize;
        let count = ((center + support + 0.5) as usize).min(from) - first;
        let triangle = |k: usize| (1.0 - (((k + first) as f64 - center + 0.5) * step).abs()).max(0.0);
        let sum: f64 = (0..count).map(triangle).sum();
        for k in 0..count {
            let w = if sum == 0.0 { 0.0 } else { triangle(k) / sum };
            t.weights[i * width + k] = (0.5 + w * (1u32 << PRECISION) as f64) as i32;
        }
        t.first.push(first);
        t.count.push(count);
    }
    t
}

fn to_u8(sum: i32) -> u8 {
    (sum >> PRECISION).clamp(0, 255) as u8
}

/// `image` resized to `height` x `width` pixels, both above 0.
pub(super) fn resize(image: Pixels, height: usize, width: usize) -> Pixels {
    let (rows, columns) = (image.height, image.width);
    // As Pillow 13 orders both, which decides what is rounded to 8 bits in between.
    if rows > height && rows - height > 2 * columns.saturating_sub(width) {
        along_rows(along_columns(image, height), width)
    } else {
        along_columns(along_rows(image, width), height)
    }
}

/// Half a unit of what is cut off at the end.
const HALF: i32 = 1 << (PRECISION - 1);

/// `image` with `width` pixels a row.
fn along_rows(image: Pixels, width: usize) -> Pixels {
    if width == image.width {
        return image;
    }
    let c = image.channels;
    let t = taps(image.width, width);
    let mut out = vec![0u8; image.height * width * c];
    for (row, out_row) in image.data.chunks_exact(image.width * c).zip(out.chunks_exact_mut(width * c)) {
        for (i, pixel) in out_row.chunks_exact_mut(c).enumerate() {
            let weights = &t.weights[i * t.width..][..t.count[i]];
            let source = &row[t.first[i] * c..][..t.count[i] * c];
            let mut sums = [HALF; 3];
            for (from, &w) in source.chunks_exact(c).zip(weights) {
                for (sum, &x) in sums.iter_mut().zip(from) {
                    *sum += x as i32 * w;
                }
            }
            pixel.iter_mut().zip(sums).for_each(|(p, s)| *p = to_u8(s));
        }
    }
    Pixels { width, data: out, ..image }
}

/// `image` with `height` rows.
fn along_columns(image: Pixels, height: usize) -> Pixels {
    if height == image.height {
        return image;
    }
    let t = taps(image.height, height);
    let row = image.width * image.channels;
    let mut out = vec![0u8; height * row];
    let mut sums = vec![HALF; row];
    for (i, out_row) in out.chunks_exact_mut(row).enumerate() {
        sums.fill(HALF);
        for k in 0..t.count[i] {
            let w = t.weights[i * t.width + k];
            let source = &image.data[(t.first[i] + k) * row..][..row];
            sums.iter_mut().zip(source).for_each(|(sum, &x)| *sum += x as i32 * w);
        }
        out_row.iter_mut().zip(&sums).for_each(|(p, &s)| *p = to_u8(s));
    }
    Pixels { height, data: out, ..image }
}

/// Fractional bits of the weights of [`interpolate`].
const LINEAR: u32 = 11;

/// For each of `to` elements the two of `from` that it lies between, and their weights. With `ends`, weights are those of
/// one element where it lies outside.
fn between(from: usize, to: usize, ends: bool) -> Vec<([usize; 2], [i32; 2])> {
    let scale = from as f64 / to as f64;
    let last = from as i64 - 1;
    let one = |i: usize| {
        let at = ((i as f64 + 0.5) * scale - 0.5) as f32;
        let first = at.floor() as i64;
        let outside = first < 0 || first >= last;
        let rest = if ends && outside { 0.0 } else { at - first as f32 };
        let weight = |w: f32| (w * (1 << LINEAR) as f32).round_ties_even() as i32;
        ([first, first + 1].map(|i| i.clamp(0, last) as usize), [weight(1.0 - rest), weight(rest)])
    };
    (0..to).map(one).collect()
}

/// `image` resized to `height` x `width` pixels, both above 0, by interpolating between the nearest pixels as OpenCV's
/// `INTER_LINEAR` does, bit for bit: weights rounded to 11 fractional bits, 4 bits cut off between rows and columns.
pub(super) fn interpolate(image: Pixels, height: usize, width: usize) -> Pixels {
    if (image.height, image.width) == (height, width) {
        return image;
    }
    let (c, row) = (image.channels, image.width * image.channels);
    let (columns, rows) = (between(image.width, width, true), between(image.height, height, false));
    let along = |y: usize| -> Vec<i32> {
        let row = &image.data[y * row..][..row];
        let pixel = |&([a, b], [wa, wb]): &([usize; 2], [i32; 2])| {
            (0..c).map(move |k| i32::from(row[a * c + k]) * wa + i32::from(row[b * c + k]) * wb)
        };
        columns.iter().flat_map(pixel).collect()
    };
    let mut kept: [Option<(usize, Vec<i32>)>; 2] = [None, None];
    let mut data = Vec::with_capacity(height * width * c);
    for &(sources, weights) in &rows {
        // Rows that the one before was made of are not made again.
        let [first, second] = sources.map(|y| {
            let known = kept.iter().flatten().find(|(at, _)| *at == y);
            known.cloned().unwrap_or_else(|| (y, along(y)))
        });
        let part = |v: i32, w: i32| (w * (v >> 4)) >> 16;
        let mixed = first.1.iter().zip(&second.1).map(|(&a, &b)| (part(a, weights[0]) + part(b, weights[1]) + 2) >> 2);
        data.extend(mixed.map(|v| v as u8));
        kept = [Some(first), Some(second)];
    }
    Pixels { height, width, channels: c, data }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn synthetic(height: usize, width: usize, channels: usize) -> Pixels {
        let mut data = Vec::new();
        for y in 0..height {
            for x in 0..width {
                data.extend((0..channels).map(|k| (x * 37 + y * 91 + k * 53 + x * y * 7) as u8));
            }
        }
        Pixels { height, width, channels, data }
    }

    fn fnv(bytes: &[u8]) -> u64 {
        bytes.iter().fold(0xcbf2_9ce4_8422_2325, |h, &b| (h ^ b as u64).wrapping_mul(0x100_0000_01b3))
    }

    #[test]
    fn small_images_equal_pillow() {
        let down = resize(synthetic(5, 7, 1), 3, 4);
        assert_eq!(down.data, [60, 122, 117, 149, 145, 117, 130, 151, 101, 157, 144, 158]);
        let rgb = resize(synthetic(3, 5, 3), 2, 2);
        assert_eq!(rgb.data, [74, 122, 154, 123, 136, 168, 153, 135, 116, 110, 116, 148]);
        let up = [
            [0, 19, 43, 68, 93, 111],
            [46, 66, 93, 120, 147, 167],
            [106, 129, 152, 154, 176, 199],
            [167, 192, 189, 80, 79, 103],
            [100, 127, 142, 93, 108, 135],
            [17, 46, 85, 123, 162, 191],
        ];
        assert_eq!(resize(synthetic(4, 4, 1), 6, 6).data, up.concat());
    }

    #[test]
    fn larger_images_equal_pillow() {
        // Height, width, channels, new height, new width, FNV-1a of Pillow 13's result.
        let cases: [(usize, usize, usize, usize, usize, u64); 9] = [
            (375, 500, 3, 256, 341, 0x74f959f0ab40829),
            (97, 33, 3, 256, 87, 0x6c6b71f9e75d96af),
            (301, 200, 1, 48, 32, 0x77a13c0894a39e4a),
            (64, 64, 3, 64, 31, 0xce28242009c8bc76),
            (50, 64, 3, 201, 64, 0x530ef3bff169d556),
            (1, 300, 3, 8, 2400, 0x720211a5daba1255),
            (600, 800, 3, 1, 1, 0x2d34371adf582fad),
            (300, 31, 3, 96, 9, 0x5232f6278d657d76),
            (120, 50, 1, 60, 80, 0x4776906bcac6bb63),
        ];
        for (h, w, c, to_h, to_w, hash) in cases {
            assert_eq!(fnv(&resize(synthetic(h, w, c), to_h, to_w).data), hash, "{h} x {w} to {to_h} x {to_w}");
        }
    }
}
