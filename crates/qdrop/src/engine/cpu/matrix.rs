#![allow(unsafe_code)]
//! Matrix products on strided views; the one place that calls the matrix library.

use gemm_common::Parallelism;
use gemm_f32::gemm::f32::get_gemm_fn;

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

/// y = a·b, or y += a·b with `add`.
pub(super) fn product(y: (&mut [f32], View), add: bool, a: (&[f32], View), b: (&[f32], View)) {
    let ((yd, yv), (ad, av), (bd, bv)) = (y, a, b);
    assert!(yv.rows == av.rows && yv.cols == bv.cols && av.cols == bv.rows, "shapes of a product do not agree");
    assert!(yv.fits(yd.len()) && av.fits(ad.len()) && bv.fits(bd.len()), "a matrix leaves its slice");
    let distinct = (yv.col == 1 && yv.row >= yv.cols) || (yv.row == 1 && yv.col >= yv.rows) || yv.rows * yv.cols <= 1;
    assert!(distinct, "elements of a result overlap");
    if yv.rows == 0 || yv.cols == 0 {
        return;
    }
    let gemm = get_gemm_fn();
    // SAFETY: every index that the three views can form lies inside its slice (asserted above), elements of y are
    // distinct and y is borrowed mutably, so it overlaps neither a nor b.
    unsafe {
        gemm(
            yv.rows,
            yv.cols,
            av.cols,
            yd.as_mut_ptr().add(yv.start),
            yv.col as isize,
            yv.row as isize,
            add,
            ad.as_ptr().add(av.start),
            av.col as isize,
            av.row as isize,
            bd.as_ptr().add(bv.start),
            bv.col as isize,
            bv.row as isize,
            1.0,
            1.0,
            false,
            false,
            false,
            Parallelism::None,
        );
    }
}
