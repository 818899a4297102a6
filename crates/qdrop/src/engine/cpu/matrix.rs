#![allow(unsafe_code)]
//! Matrix products; the one place with a micro-kernel.
//!
//! Right factors and results lie in panels of [`PANEL`] columns, left factors anywhere. A tile of [`STRIP`] rows and a
//! panel of the result stays in registers while the depth is passed, so every element is one chain of multiply-adds in
//! order of the depth, fused where the machine can: the result does not depend on the width of its vectors, nor on how a
//! product is cut into blocks.

use pulp::{Arch, Simd, WithSimd};
use rayon::prelude::*;
use std::cell::RefCell;

/// Columns of a panel.
pub(super) const PANEL: usize = 32;
/// Rows of a tile.
pub(super) const STRIP: usize = 8;
/// Depth that is passed before the next tile: with [`COLUMNS`] columns of the right factor it fills most of a
/// first-level cache.
const DEPTH: usize = 96;
/// Columns that are kept in the nearest cache.
const COLUMNS: usize = 2 * PANEL;
/// Elements of a right factor that are brought into panels at a time.
const PACKED: usize = 1 << 16;

/// Where the elements of a matrix lie in a slice: element (i, j) at `start + i·row + j·col`.
#[derive(Debug, Clone, Copy)]
pub(super) struct View {
    pub start: usize,
    pub rows: usize,
    pub cols: usize,
    pub row: usize,
    pub col: usize,
}

impl View {
    /// Rows one after the other, `pitch` elements apart.
    pub fn rows(start: usize, rows: usize, cols: usize, pitch: usize) -> Self {
        View { start, rows, cols, row: pitch, col: 1 }
    }

    /// The transpose.
    pub fn t(self) -> Self {
        View { rows: self.cols, cols: self.rows, row: self.col, col: self.row, ..self }
    }

    fn fits(&self, len: usize) -> bool {
        self.rows == 0 || self.cols == 0 || self.start + (self.rows - 1) * self.row + (self.cols - 1) * self.col < len
    }
}

/// Where a left factor lies: element (i, k) at
/// `start + i / STRIP · strip + i % STRIP · row + k / run · jump + k % run · step`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Left {
    pub start: usize,
    pub strip: usize,
    pub row: usize,
    /// Divides [`DEPTH`], or exceeds the depth.
    pub run: usize,
    pub jump: usize,
    pub step: usize,
}

impl From<View> for Left {
    fn from(view: View) -> Self {
        let View { start, row, col, .. } = view;
        Left { start, strip: STRIP * row, row, run: usize::MAX, jump: 0, step: col }
    }
}

impl Left {
    /// The matrix whose rows are those of `rows` rows of panels.
    pub fn panels(start: usize, rows: usize) -> Self {
        Left { start, strip: STRIP * PANEL, row: PANEL, run: PANEL, jump: rows * PANEL, step: 1 }
    }

    fn at(&self, i: usize, k: usize) -> usize {
        let (strip, row) = (i / STRIP * self.strip, i % STRIP * self.row);
        self.start + strip + row + k / self.run * self.jump + k % self.run * self.step
    }

    /// The furthest element: in each index the last one, or the last of the whole strips or runs.
    fn furthest(&self, rows: usize, depth: usize) -> usize {
        let last = |n: usize, whole: usize| [n - 1, (n / whole * whole).max(1) - 1];
        let row = last(rows, STRIP).map(|i| self.at(i, 0)).into_iter().max();
        let col = last(depth, self.run).map(|k| self.at(0, k)).into_iter().max();
        row.unwrap_or(0) + col.unwrap_or(0) - self.start
    }
}

/// Where a right factor or a result lies: element (i, j) at `start + j / PANEL · panel + i · pitch + j % PANEL`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Panels {
    pub start: usize,
    pub panel: usize,
    pub pitch: usize,
}

impl Panels {
    /// Panels of `rows` rows, one after the other.
    pub fn new(start: usize, rows: usize) -> Self {
        Panels { start, panel: rows * PANEL, pitch: PANEL }
    }

    fn at(&self, i: usize, j: usize) -> usize {
        self.start + j / PANEL * self.panel + i * self.pitch + j % PANEL
    }
}

/// Speed of one large product on every thread of the caller's pool, in 10⁹ operations a second: the best of some.
pub fn ceiling() -> f64 {
    const SIDE: [usize; 3] = [512, 512, 2048];
    let [rows, depth, cols] = SIDE;
    let threads = rayon::current_num_threads();
    let (a, b) = (vec![0.5f32; rows * depth], vec![0.25f32; depth * cols]);
    let mut results = vec![vec![0.0f32; rows * cols]; threads];
    let mut best = f64::INFINITY;
    for _ in 0..8 {
        let start = std::time::Instant::now();
        results.par_iter_mut().with_max_len(1).for_each(|y| {
            let view = |rows, cols| View::rows(0, rows, cols, cols);
            product((y, view(rows, cols)), false, (&a, view(rows, depth)), (&b, view(depth, cols)));
        });
        best = best.min(start.elapsed().as_secs_f64());
    }
    2.0 * (threads * rows * depth * cols) as f64 / best / 1e9
}

/// y = a·b, or y += a·b with `add`.
pub(super) fn product(y: (&mut [f32], View), add: bool, a: (&[f32], impl Into<Left>), b: (&[f32], View)) {
    thread_local!(static PACK: RefCell<Vec<f32>> = const { RefCell::new(Vec::new()) });
    let ((yd, yv), (ad, al), (bd, bv)) = (y, (a.0, a.1.into()), b);
    assert!(yv.cols == bv.cols && yv.col == 1, "shapes of a product do not agree");
    assert!(bv.fits(bd.len()), "a matrix leaves its slice");
    let depth = bv.rows;
    let most = (PACKED / depth.max(1) / PANEL).max(1) * PANEL;
    PACK.with_borrow_mut(|packed| {
        for at in (0..yv.cols).step_by(most) {
            let cols = most.min(yv.cols - at);
            packed.resize(packed.len().max(cols.next_multiple_of(PANEL) * depth), 0.0);
            for (n, panel) in packed.chunks_exact_mut((depth * PANEL).max(1)).take(cols.div_ceil(PANEL)).enumerate() {
                let from = at + n * PANEL;
                pack(bd, bv.start + from * bv.col, bv, PANEL.min(yv.cols - from), panel);
            }
            let to = Panels { start: yv.start + at, panel: PANEL, pitch: yv.row };
            let sizes = [yv.rows, depth, cols];
            multiply(sizes, (&mut *yd, to), add, (ad, al), (packed, Panels::new(0, depth)));
        }
    });
}

/// Brings `cols` columns from `start` on, strides as `view` says, into a panel; the rest of it is 0.
fn pack(from: &[f32], start: usize, view: View, cols: usize, panel: &mut [f32]) {
    for (k, to) in panel.chunks_exact_mut(PANEL).enumerate() {
        let from = &from[start + k * view.row..];
        match view.col {
            1 => to[..cols].copy_from_slice(&from[..cols]),
            step => to.iter_mut().zip(from.iter().step_by(step)).take(cols).for_each(|(t, &v)| *t = v),
        }
        to[cols..].fill(0.0);
    }
}

/// y = a·b, or y += a·b with `add`, of the rows, depth and columns in `sizes`; b is read in whole panels.
pub(super) fn multiply(sizes: [usize; 3], y: (&mut [f32], Panels), add: bool, a: (&[f32], Left), b: (&[f32], Panels)) {
    let ([rows, depth, cols], (yd, yp), (ad, al), (bd, bp)) = (sizes, y, a, b);
    if rows == 0 || cols == 0 {
        return;
    }
    assert!(rows == 1 || yp.pitch >= cols.min(PANEL), "rows of a result overlap");
    assert!(cols <= PANEL || yp.panel >= PANEL, "panels of a result overlap");
    assert!((0..cols).step_by(PANEL).all(|j| yp.at(rows - 1, cols.min(j + PANEL) - 1) < yd.len()), "y is too short");
    if depth > 0 {
        assert!(al.run >= depth || DEPTH.is_multiple_of(al.run), "runs do not fit into blocks of the depth");
        assert!(al.furthest(rows, depth) < ad.len(), "a is too short");
        assert!((0..cols).step_by(PANEL).all(|j| bp.at(depth - 1, j) + PANEL <= bd.len()), "b is too short");
    }
    Arch::new().dispatch(Product { sizes, y: yd, yp, add, a: ad, al, b: bd, bp });
}

struct Product<'a> {
    sizes: [usize; 3],
    y: &'a mut [f32],
    yp: Panels,
    add: bool,
    a: &'a [f32],
    al: Left,
    b: &'a [f32],
    bp: Panels,
}

impl WithSimd for Product<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Product { sizes: [rows, depth, cols], y, yp, add, a, al, b, bp } = self;
        for block in (0..cols).step_by(COLUMNS) {
            for from in (0..depth.max(1)).step_by(DEPTH) {
                for i in (0..rows).step_by(STRIP) {
                    for j in (block..cols.min(block + COLUMNS)).step_by(PANEL) {
                        let part = Part {
                            rows: STRIP.min(rows - i),
                            cols: PANEL.min(cols - j),
                            depth: DEPTH.min(depth - from),
                            add: add || from > 0,
                            left: al,
                            right: bp.pitch,
                            pitch: yp.pitch,
                        };
                        // SAFETY: `multiply` has seen that what the part reads and writes lies inside the slices.
                        unsafe {
                            let (a, b) =
                                (a.as_ptr().wrapping_add(al.at(i, from)), b.as_ptr().wrapping_add(bp.at(from, j)));
                            part.run(simd, a, b, y.as_mut_ptr().add(yp.at(i, j)));
                        }
                    }
                }
            }
        }
    }
}

/// A tile of a product over a block of its depth.
#[derive(Clone, Copy)]
struct Part {
    rows: usize,
    cols: usize,
    depth: usize,
    add: bool,
    /// Strides of the left factor.
    left: Left,
    /// Elements between rows of the right factor, and of the result.
    right: usize,
    pitch: usize,
}

impl Part {
    /// Computes the tile in pieces that fit into the machine's registers.
    ///
    /// # Safety
    /// `a`, `b` and `y` are valid for what the fields say; b for whole panels.
    #[inline(always)]
    unsafe fn run<S: Simd>(self, simd: S, a: *const f32, b: *const f32, y: *mut f32) {
        let width = 2 * S::F32_LANES;
        let height = if S::REGISTER_COUNT >= 32 { STRIP } else { STRIP / 2 };
        for j in (0..self.cols).step_by(width) {
            for i in (0..self.rows).step_by(height) {
                let (rows, cols) = ((self.rows - i).min(height), (self.cols - j).min(width));
                // SAFETY: a piece of the tile.
                unsafe {
                    let (a, b) = (a.wrapping_add(i * self.left.row), b.wrapping_add(j));
                    let y = y.add(i * self.pitch + j);
                    if rows == height && cols == width {
                        match S::REGISTER_COUNT >= 32 {
                            true => self.piece::<S, STRIP, 2>(simd, a, b, y),
                            false => self.piece::<S, { STRIP / 2 }, 2>(simd, a, b, y),
                        }
                        continue;
                    }
                    // At an edge the piece is computed whole, beside the result.
                    let mut whole = [0f32; STRIP * PANEL];
                    if self.add {
                        for r in 0..rows {
                            std::ptr::copy_nonoverlapping(
                                y.add(r * self.pitch),
                                whole.as_mut_ptr().add(r * PANEL),
                                cols,
                            );
                        }
                    }
                    let part = Part { pitch: PANEL, ..self };
                    let to = whole.as_mut_ptr();
                    match (rows, cols <= S::F32_LANES) {
                        (1, _) => part.piece::<S, 1, 2>(simd, a, b, to),
                        (2, _) => part.piece::<S, 2, 2>(simd, a, b, to),
                        (3, _) => part.piece::<S, 3, 2>(simd, a, b, to),
                        (4, true) => part.piece::<S, 4, 1>(simd, a, b, to),
                        (4, false) => part.piece::<S, 4, 2>(simd, a, b, to),
                        (5, _) => part.piece::<S, 5, 2>(simd, a, b, to),
                        (6, _) => part.piece::<S, 6, 2>(simd, a, b, to),
                        (7, _) => part.piece::<S, 7, 2>(simd, a, b, to),
                        (_, true) => part.piece::<S, STRIP, 1>(simd, a, b, to),
                        (_, false) => part.piece::<S, STRIP, 2>(simd, a, b, to),
                    }
                    for r in 0..rows {
                        std::ptr::copy_nonoverlapping(whole.as_ptr().add(r * PANEL), y.add(r * self.pitch), cols);
                    }
                }
            }
        }
    }

    /// `R` rows and `W` vectors of the result, in registers.
    ///
    /// # Safety
    /// As [`Part::run`].
    #[inline(always)]
    unsafe fn piece<S: Simd, const R: usize, const W: usize>(
        self,
        simd: S,
        mut a: *const f32,
        mut b: *const f32,
        y: *mut f32,
    ) {
        // SAFETY: the caller answers for the addresses; vectors are read and written unaligned.
        unsafe {
            let vector = |row: usize, w: usize| y.add(row * self.pitch + w * S::F32_LANES).cast::<S::f32s>();
            let mut sums = [[simd.splat_f32s(0.0); W]; R];
            if self.add {
                for (r, sums) in sums.iter_mut().enumerate() {
                    for (w, sum) in sums.iter_mut().enumerate() {
                        *sum = vector(r, w).read_unaligned();
                    }
                }
            }
            let Left { row, run, jump, step, .. } = self.left;
            let mut rest = self.depth;
            while rest > 0 {
                let count = rest.min(run);
                let mut column = a;
                for _ in 0..count {
                    let mut right = [simd.splat_f32s(0.0); W];
                    for (w, right) in right.iter_mut().enumerate() {
                        *right = b.add(w * S::F32_LANES).cast::<S::f32s>().read_unaligned();
                    }
                    for (r, sums) in sums.iter_mut().enumerate() {
                        let left = simd.splat_f32s(*column.add(r * row));
                        for (sum, right) in sums.iter_mut().zip(right) {
                            *sum = simd.mul_add_e_f32s(left, right, *sum);
                        }
                    }
                    column = column.wrapping_add(step);
                    b = b.wrapping_add(self.right);
                }
                a = a.wrapping_add(jump);
                rest -= count;
            }
            for (r, sums) in sums.into_iter().enumerate() {
                for (w, sum) in sums.into_iter().enumerate() {
                    vector(r, w).write_unaligned(sum);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::philox::Stream;

    fn noise(purpose: u32, n: usize) -> Vec<f32> {
        Stream::new(9, 0, purpose, 0).below(n, 1 << 20).iter().map(|&v| v as f32 / (1 << 19) as f32 - 1.0).collect()
    }

    /// Rows, depth, columns on both sides of strips, blocks of the depth and panels.
    fn sizes() -> impl Iterator<Item = [usize; 3]> {
        let depths = [0, 1, 7, 95, 96, 97, 200];
        let all =
            move |rows| depths.into_iter().flat_map(move |depth| [1, 16, 17, 33, 70].map(|cols| [rows, depth, cols]));
        [1, 3, 4, 7, 8, 9, 21].into_iter().flat_map(all)
    }

    /// What a product should be, from where its elements lie.
    fn plain(
        [rows, depth, cols]: [usize; 3],
        a: impl Fn(usize, usize) -> f32,
        b: impl Fn(usize, usize) -> f32,
    ) -> Vec<f64> {
        let one = |i, j| (0..depth).map(|k| f64::from(a(i, k)) * f64::from(b(k, j))).sum();
        (0..rows * cols).map(|n| one(n / cols, n % cols)).collect()
    }

    #[test]
    fn products_of_any_size_and_strides() {
        for size @ [rows, depth, cols] in sizes() {
            let (a, b) = (noise(1, rows * (depth + 3) + 5), noise(2, depth * (cols + 2) + 5));
            let upright = (View::rows(5, rows, depth, depth + 3), View::rows(2, depth, cols, cols + 2));
            let turned = (View::rows(1, depth, rows, rows).t(), View::rows(3, cols, depth, depth).t());
            for (av, bv) in [upright, turned, (upright.0, turned.1), (turned.0, upright.1)] {
                let at = |v: View, i: usize, j: usize| v.start + i * v.row + j * v.col;
                let want = plain(size, |i, k| a[at(av, i, k)], |k, j| b[at(bv, k, j)]);
                let mut y = vec![7.0; rows * (cols + 1) + 4];
                let before = y.clone();
                let to = View::rows(4, rows, cols, cols + 1);
                product((&mut y, to), false, (&a, av), (&b, bv));
                product((&mut y, to), true, (&a, av), (&b, bv));
                for (n, want) in want.iter().enumerate() {
                    let got = f64::from(y[at(to, n / cols, n % cols)]);
                    assert!((got - 2.0 * want).abs() < 1e-4, "{size:?}, element {n}: {got} instead of twice {want}");
                }
                for i in 0..rows {
                    y[4 + i * (cols + 1)..][..cols].fill(7.0);
                }
                assert_eq!(y, before, "{size:?}: wrote beside the result");
            }
        }
    }

    #[test]
    fn left_factors_in_panels() {
        for size @ [rows, depth, cols] in sizes() {
            let (a, b) = (noise(3, depth.next_multiple_of(PANEL) * rows), noise(4, depth * cols));
            let want = plain(size, |i, k| a[k / PANEL * rows * PANEL + i * PANEL + k % PANEL], |k, j| b[k * cols + j]);
            let mut y = vec![0.0; rows * cols];
            let to = View::rows(0, rows, cols, cols);
            product((&mut y, to), false, (&a, Left::panels(0, rows)), (&b, View::rows(0, depth, cols, cols)));
            let far = y.iter().zip(&want).map(|(&y, w)| (f64::from(y) - w).abs()).fold(0.0, f64::max);
            assert!(far < 5e-5, "{size:?}: {far}");
        }
    }

    #[cfg(target_arch = "x86_64")]
    #[test]
    fn the_width_of_vectors_changes_no_bit() {
        let Some(narrow) = pulp::x86::V3::try_new() else { return println!("skipped: no AVX2 here") };
        for size @ [rows, depth, cols] in sizes() {
            let (a, b) = (noise(5, rows * depth), noise(6, depth * cols.next_multiple_of(PANEL)));
            let left = Left::from(View::rows(0, rows, depth, depth));
            let (to, from) = (Panels::new(0, rows), Panels::new(0, depth));
            let mut widest = noise(7, rows * cols.next_multiple_of(PANEL));
            let mut y = widest.clone();
            multiply(size, (&mut widest, to), true, (&a, left), (&b, from));
            Simd::vectorize(
                narrow,
                Product { sizes: size, y: &mut y, yp: to, add: true, a: &a, al: left, b: &b, bp: from },
            );
            assert_eq!(y, widest, "{size:?}");
        }
    }
}
