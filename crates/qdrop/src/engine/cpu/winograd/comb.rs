//! Rows of images and columns of tiles.

use super::{STEP, Winograd};
use std::ops::Range;

/// Takes rows of an image apart into the columns of tiles, and puts them together.
///
/// The rows that are first, second, ... in the tiles of all lines stand one behind the other as one long row; what
/// tiles of six columns have beyond the last four of a line stands in `ends`.
pub(super) struct Comb {
    /// Rows and columns of a tile.
    size: usize,
    /// Tiles of a line.
    across: usize,
    lines: usize,
    /// Padding in front of a row, and what tiles reach of a row.
    left: usize,
    used: usize,
    /// Row of a tile, line, and where the row begins in a channel; rows in the padding are left out.
    rows: Vec<(usize, usize, usize)>,
}

impl Comb {
    /// For the tiles of `form` under `lines`: of x where they have more than [`STEP`] rows, else of y.
    pub fn new(form: &Winograd, lines: &Range<usize>, size: usize) -> Self {
        let [down, across] = form.tiles;
        let ([height, width], [top, left]) = if size > STEP { (form.input, form.begin) } else { (form.output, [0, 0]) };
        let mut rows = Vec::with_capacity(size * lines.len());
        for i in 0..size {
            for (number, line) in lines.clone().enumerate() {
                let (sample, ty) = (line / down, line % down);
                if let Some(row) = (STEP * ty + i).checked_sub(top).filter(|&r| r < height) {
                    rows.push((i, number, (sample * height + row) * width));
                }
            }
        }
        let used = width.min(STEP * across + (size - STEP) - left);
        Comb { size, across, lines: lines.len(), left, used, rows }
    }

    /// Parts of working memory, zero: points of the tiles; the long rows and the ends of lines.
    pub fn split<'a>(&self, small: &'a mut [f32], n: usize) -> (&'a mut [f32], [&'a mut [f32]; 2]) {
        let (small, rest) = small.split_at_mut(self.size * self.size * n);
        let (rows, rest) = rest.split_at_mut(self.size * STEP * n);
        let ends = &mut rest[..self.size * 2 * self.lines];
        small.fill(0.0);
        rows.fill(0.0);
        ends.fill(0.0);
        (small, [rows, ends])
    }

    /// Points [size, size, n] of the tiles of a channel. Padding in `rows` and `ends` is 0 and stays so.
    #[inline(always)]
    pub fn part(&self, x: &[f32], [rows, ends]: [&mut [f32]; 2], small: &mut [f32], n: usize) {
        let line = STEP * self.across;
        let inside = self.used.min(line - self.left);
        for &(i, number, source) in &self.rows {
            let row = &x[source..source + self.used];
            copy(&row[..inside], &mut rows[i * STEP * n + number * line + self.left..][..inside]);
            let to = &mut ends[(i * self.lines + number) * 2..];
            to.iter_mut().zip(&row[inside..]).for_each(|(t, &v)| *t = v);
        }
        let count = self.lines * self.across;
        for (i, tiles) in small.chunks_exact_mut(self.size * n).enumerate() {
            let (first, last) = tiles.split_at_mut(STEP * n);
            unweave(&rows[i * STEP * n..][..STEP * n], first);
            // The last two columns of a tile are the first two of the next.
            for (j, column) in last.chunks_exact_mut(n).enumerate() {
                column[..count - 1].copy_from_slice(&first[j * n + 1..j * n + count]);
                for number in 0..self.lines {
                    column[(number + 1) * self.across - 1] = ends[(i * self.lines + number) * 2 + j];
                }
            }
        }
    }

    /// The reverse of [`Comb::part`]: calls `f` with each element of x and the sum of the points that meet there.
    #[inline(always)]
    pub fn join(
        &self,
        small: &mut [f32],
        n: usize,
        [rows, ends]: [&mut [f32]; 2],
        x: &mut [f32],
        f: impl Fn(&mut f32, f32),
    ) {
        let line = STEP * self.across;
        let inside = self.used.min(line - self.left);
        let count = self.lines * self.across;
        for (i, tiles) in small.chunks_exact_mut(self.size * n).enumerate() {
            let (first, last) = tiles.split_at_mut(STEP * n);
            for (j, column) in last.chunks_exact_mut(n).enumerate() {
                for number in 0..self.lines {
                    let end = &mut column[(number + 1) * self.across - 1];
                    ends[(i * self.lines + number) * 2 + j] = std::mem::take(end);
                }
                let next = first[j * n + 1..j * n + count].iter_mut();
                next.zip(&column[..count - 1]).for_each(|(a, &b)| *a += b);
            }
            weave(first, &mut rows[i * STEP * n..][..STEP * n]);
        }
        for &(i, number, source) in &self.rows {
            let (row, end) = x[source..source + self.used].split_at_mut(inside);
            let from = &rows[i * STEP * n + number * line + self.left..][..inside];
            row.iter_mut().zip(from).for_each(|(x, &v)| f(x, v));
            end.iter_mut().zip(&ends[(i * self.lines + number) * 2..]).for_each(|(x, &v)| f(x, v));
        }
    }
}

/// Copies a short slice without a call.
#[inline(always)]
fn copy(from: &[f32], to: &mut [f32]) {
    let (wide, rest) = from.as_chunks::<8>();
    let (to_wide, to_rest) = to.as_chunks_mut::<8>();
    to_wide.iter_mut().zip(wide).for_each(|(t, f)| *t = *f);
    let (half, rest) = rest.as_chunks::<4>();
    let (to_half, to_rest) = to_rest.as_chunks_mut::<4>();
    to_half.iter_mut().zip(half).for_each(|(t, f)| *t = *f);
    to_rest.iter_mut().zip(rest).for_each(|(t, f)| *t = *f);
}

/// Element k of the four rows of `to` is element 4·k, 4·k + 1, ... of `row`.
#[inline(always)]
fn unweave(row: &[f32], to: &mut [f32]) {
    let n = row.len() / STEP;
    let (ab, cd) = to.split_at_mut(2 * n);
    let ((a, b), (c, d)) = (ab.split_at_mut(n), cd.split_at_mut(n));
    let (a, b, c, d) = (&mut a[..n], &mut b[..n], &mut c[..n], &mut d[..n]);
    for (k, v) in row.as_chunks::<STEP>().0.iter().enumerate() {
        (a[k], b[k], c[k], d[k]) = (v[0], v[1], v[2], v[3]);
    }
}

/// The reverse of [`unweave`].
#[inline(always)]
fn weave(from: &[f32], row: &mut [f32]) {
    let n = row.len() / STEP;
    let lane = |j: usize| &from[j * n..][..n];
    let (a, b, c, d) = (lane(0), lane(1), lane(2), lane(3));
    for (k, v) in row.as_chunks_mut::<STEP>().0.iter_mut().enumerate() {
        *v = [a[k], b[k], c[k], d[k]];
    }
}
