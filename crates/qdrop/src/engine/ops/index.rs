//! Index arithmetic shared by the operators: axes, strides, broadcasting, and gathers that separate by axis.

use super::Real;
use crate::error::{Error, Result};

/// Row-major strides, in elements.
pub(super) fn strides(shape: &[usize]) -> Vec<usize> {
    let mut s = vec![1; shape.len()];
    for k in (1..shape.len()).rev() {
        s[k - 1] = s[k] * shape[k].max(1);
    }
    s
}

/// `axis` counted from the front; `-rank <= axis < rank`.
pub(super) fn axis(axis: i64, rank: usize) -> Result<usize> {
    let n = rank as i64;
    if axis < -n || axis >= n {
        return Err(Error::model(format!("axis must lie in -{n}..{n}, got {axis}")));
    }
    Ok(if axis < 0 { axis + n } else { axis } as usize)
}

/// A list of axes counted from the front, without repetition, in the order given.
pub(super) fn axes(list: &[i64], rank: usize) -> Result<Vec<usize>> {
    let mut out = Vec::with_capacity(list.len());
    for &a in list {
        let a = axis(a, rank)?;
        if out.contains(&a) {
            return Err(Error::model(format!("axes {list:?} name axis {a} twice")));
        }
        out.push(a);
    }
    Ok(out)
}

/// The shape several shapes broadcast to by numpy's rule.
pub(super) fn broadcast<'a>(shapes: impl IntoIterator<Item = &'a [usize]> + Clone) -> Result<Vec<usize>> {
    let rank = shapes.clone().into_iter().map(<[usize]>::len).max().unwrap_or(0);
    let mut out = vec![1usize; rank];
    for shape in shapes.clone() {
        for (o, &d) in out[rank - shape.len()..].iter_mut().zip(shape) {
            if *o == 1 {
                *o = d;
            } else if d != 1 && d != *o {
                let list: Vec<_> = shapes.into_iter().collect();
                return Err(Error::model(format!("shapes {list:?} cannot be broadcast to one shape")));
            }
        }
    }
    Ok(out)
}

/// Strides that read an array of `shape` along `out`, zero where it is repeated. `shape` must broadcast to `out`.
pub(super) fn broadcast_strides(shape: &[usize], out: &[usize]) -> Vec<usize> {
    let own = strides(shape);
    let lead = out.len() - shape.len();
    (0..out.len()).map(|k| if k < lead || shape[k - lead] == 1 { 0 } else { own[k - lead] }).collect()
}

/// Refuses unless `shape` broadcasts to exactly `to`.
pub(super) fn check_unidirectional(shape: &[usize], to: &[usize]) -> Result<()> {
    match broadcast([shape, to]) {
        Ok(s) if s == to => Ok(()),
        _ => Err(Error::model(format!("shape {shape:?} cannot be broadcast to {to:?}"))),
    }
}

/// Calls `f(linear, offsets)` for every element of `shape` in row-major order, where `offsets[k]` is the element's
/// position under `strides[k]`.
pub(super) fn each<const K: usize>(shape: &[usize], strides: [&[usize]; K], mut f: impl FnMut(usize, [usize; K])) {
    if shape.contains(&0) {
        return;
    }
    let Some((&len, outer)) = shape.split_last() else {
        f(0, [0; K]);
        return;
    };
    let last = outer.len();
    let mut index = vec![0usize; last];
    let mut base = [0usize; K];
    let mut linear = 0;
    loop {
        let mut at = base;
        for i in 0..len {
            f(linear + i, at);
            for k in 0..K {
                at[k] += strides[k][last];
            }
        }
        linear += len;
        let mut a = last;
        loop {
            if a == 0 {
                return;
            }
            a -= 1;
            index[a] += 1;
            for k in 0..K {
                base[k] += strides[k][a];
            }
            if index[a] < outer[a] {
                break;
            }
            for k in 0..K {
                base[k] -= strides[k][a] * outer[a];
            }
            index[a] = 0;
        }
    }
}

/// A gather that separates by axis: output element (i, j, ...) reads source `tables[0][i] + tables[1][j] + ...`,
/// or nothing where one of the entries is [`Gather::NONE`].
pub(super) struct Gather {
    pub tables: Vec<Vec<usize>>,
}

impl Gather {
    /// Entry of a table that reads no source element.
    pub const NONE: usize = usize::MAX;

    /// Reads along `shape` with fixed strides.
    pub fn strided(shape: &[usize], strides: &[usize]) -> Self {
        Gather { tables: shape.iter().zip(strides).map(|(&d, &s)| (0..d).map(|i| i * s).collect()).collect() }
    }

    /// Calls `f(linear output index, source index)` in row-major order of the output.
    pub fn each(&self, mut f: impl FnMut(usize, Option<usize>)) {
        if self.tables.iter().any(Vec::is_empty) {
            return;
        }
        let Some((inner, outer)) = self.tables.split_last() else {
            f(0, Some(0));
            return;
        };
        let mut index = vec![0usize; outer.len()];
        let mut linear = 0;
        loop {
            let base = index.iter().zip(outer).try_fold(0usize, |sum, (&i, table)| match table[i] {
                Self::NONE => None,
                entry => Some(sum + entry),
            });
            for (i, &entry) in inner.iter().enumerate() {
                let source = base.filter(|_| entry != Self::NONE).map(|b| b + entry);
                f(linear + i, source);
            }
            linear += inner.len();
            let mut a = outer.len();
            loop {
                if a == 0 {
                    return;
                }
                a -= 1;
                index[a] += 1;
                if index[a] < outer[a].len() {
                    break;
                }
                index[a] = 0;
            }
        }
    }

    /// The gathered elements, `fill` where nothing is read.
    pub fn forward<R: Real>(&self, x: &[R], fill: R) -> Vec<R> {
        let mut y = vec![fill; self.tables.iter().map(Vec::len).product()];
        self.each(|o, source| {
            if let Some(s) = source {
                y[o] = x[s];
            }
        });
        y
    }

    /// Adds the gradient `g` of the gathered elements to the gradient `dx` of the source.
    pub fn backward<R: Real>(&self, g: &[R], dx: &mut [R]) {
        self.each(|o, source| {
            if let Some(s) = source {
                dx[s] += g[o];
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn broadcasting_follows_numpy() {
        assert_eq!(broadcast([&[3, 1][..], &[4][..]]).unwrap(), [3, 4]);
        assert_eq!(broadcast([&[0][..], &[1][..]]).unwrap(), [0]);
        assert!(broadcast([&[3][..], &[2][..]]).is_err());
        assert_eq!(broadcast_strides(&[3, 1], &[2, 3, 4]), [0, 1, 0]);
    }

    #[test]
    fn each_visits_row_major() {
        let mut seen = Vec::new();
        each(&[2, 3], [&[1, 2]], |l, [o]| seen.push((l, o)));
        assert_eq!(seen, [(0, 0), (1, 2), (2, 4), (3, 1), (4, 3), (5, 5)]);
    }

    #[test]
    fn axes_are_checked() {
        assert_eq!(axis(-1, 3).unwrap(), 2);
        assert!(axis(3, 3).is_err() && axis(i64::MIN, 3).is_err() && axis(0, 0).is_err());
        assert!(axes(&[0, -2], 2).is_err());
    }
}
