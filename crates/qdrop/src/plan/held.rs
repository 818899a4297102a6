//! Where a value holds the channels of an activation, while they are followed through the network.

use crate::engine::program::{around, transposed};

/// Where a value holds channels.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Held {
    /// The axes along which they differ, in ascending order; at least one.
    pub axes: Vec<usize>,
    /// The channel, if any, per index along these axes, the last of which runs fastest.
    pub channels: Vec<Option<usize>>,
}

impl Held {
    /// As many channels as `axis` has elements.
    pub fn along(axis: usize, channels: usize) -> Self {
        Held { axes: vec![axis], channels: (0..channels).map(Some).collect() }
    }

    /// The axis, where there is one alone.
    pub fn axis(&self) -> Option<usize> {
        <[usize; 1]>::try_from(&self.axes[..]).ok().map(|[axis]| axis)
    }

    /// Whether all channels lie in their order.
    pub fn in_order(&self) -> bool {
        self.channels.iter().enumerate().all(|(i, &c)| c == Some(i))
    }

    /// What a transposition by `perm` makes of a value of shape `from`.
    pub fn transposed(&self, perm: &[i64], from: &[usize]) -> Option<Held> {
        let strides = self.strides(from)?;
        let mut to: Vec<(usize, usize, usize)> = Vec::new();
        for (&axis, stride) in self.axes.iter().zip(strides) {
            to.push((transposed(perm, from.len(), axis)?, from[axis], stride));
        }
        to.sort_unstable();
        let along = |&(_, size, stride): &(usize, usize, usize)| (0..size).map(|i| i * stride).collect();
        let offsets = sums(to.iter().map(along));
        let channels = offsets.into_iter().map(|i| self.channels[i]).collect();
        Some(Held { axes: to.iter().map(|t| t.0).collect(), channels })
    }

    /// What a reshape of a value from one shape to the other makes: the axes that took up those of the channels, but for
    /// those along which nothing changes.
    pub fn reshaped(&self, from: &[usize], to: &[usize]) -> Option<Held> {
        let strides = self.strides(from)?;
        let (mut axes, mut sizes, mut parts) = (Vec::new(), Vec::new(), Vec::new());
        let (mut i, mut j) = (0, 0);
        // Stretch by stretch of axes with the same elements on both sides.
        while i < from.len() || j < to.len() {
            let (start, new) = (i, j);
            let (mut old_size, mut new_size) = (1, 1);
            while i == start && j == new || old_size != new_size {
                if old_size <= new_size && i < from.len() {
                    (old_size, i) = (old_size * from[i], i + 1);
                } else {
                    (new_size, j) = (new_size * to.get(j)?, j + 1);
                }
            }
            let mine = |&(axis, _): &(&usize, &usize)| (start..i).contains(axis);
            let mine: Vec<(&usize, &usize)> = self.axes.iter().zip(&strides).filter(mine).collect();
            if mine.is_empty() {
                continue;
            }
            let offset = |flat: usize| {
                let index = |axis: usize| flat / around(&from[start..i], axis - start)[2].max(1) % from[axis];
                mine.iter().map(|&(&axis, stride)| index(axis) * stride).sum()
            };
            parts.push((0..new_size).map(offset).collect());
            axes.extend(new..j);
            sizes.extend(&to[new..j]);
        }
        let mut channels: Vec<Option<usize>> = sums(parts.into_iter()).into_iter().map(|i| self.channels[i]).collect();
        for k in (0..axes.len()).rev() {
            let [_, along, inner] = around(&sizes, k);
            let first = |i: usize| i / (along * inner) * along * inner + i % inner;
            if axes.len() > 1 && (0..channels.len()).all(|i| channels[i] == channels[first(i)]) {
                channels = (0..channels.len()).filter(|i| i / inner % along == 0).map(|i| channels[i]).collect();
                axes.remove(k);
                sizes.remove(k);
            }
        }
        (!axes.is_empty()).then_some(Held { axes, channels })
    }

    /// How far apart neighbours along each axis are among the channels, in a value of `shape`; `None` where that has other
    /// axes.
    fn strides(&self, shape: &[usize]) -> Option<Vec<usize>> {
        let sizes: Vec<usize> = self.axes.iter().map(|&a| shape.get(a).copied()).collect::<Option<_>>()?;
        let fits = sizes.iter().product::<usize>() == self.channels.len();
        fits.then(|| (0..sizes.len()).map(|k| around(&sizes, k)[2]).collect())
    }
}

/// All sums of one number of each of `parts`, the last of which runs fastest.
fn sums(parts: impl Iterator<Item = Vec<usize>>) -> Vec<usize> {
    parts.fold(vec![0], |all, part| all.iter().flat_map(|a| part.iter().map(move |b| a + b)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn held(axes: &[usize], channels: &[usize]) -> Held {
        Held { axes: axes.to_vec(), channels: channels.iter().copied().map(Some).collect() }
    }

    #[test]
    fn heads_are_split_off_and_joined_again() {
        let flat = Held::along(2, 6);
        let heads = flat.reshaped(&[1, 5, 6], &[1, 5, 2, 3]).unwrap();
        assert_eq!(heads, held(&[2, 3], &[0, 1, 2, 3, 4, 5]));
        let first = heads.transposed(&[0, 2, 1, 3], &[1, 5, 2, 3]).unwrap();
        assert_eq!(first, held(&[1, 3], &[0, 1, 2, 3, 4, 5]));
        assert_eq!(first.reshaped(&[1, 2, 5, 3], &[2, 5, 3]).unwrap(), held(&[0, 2], &[0, 1, 2, 3, 4, 5]));
        let keys = heads.transposed(&[0, 3, 2, 1], &[1, 5, 2, 3]).unwrap();
        assert_eq!(keys, held(&[1, 2], &[0, 3, 1, 4, 2, 5]), "features before heads");
        let back = first.transposed(&[0, 2, 1, 3], &[1, 2, 5, 3]).unwrap();
        assert_eq!(back.reshaped(&[1, 5, 2, 3], &[1, 5, 6]).unwrap(), flat);
        assert_eq!(back.reshaped(&[1, 5, 2, 3], &[5, 1, 6]).unwrap(), flat);
        // What is joined in another order.
        let odd = first.reshaped(&[1, 2, 5, 3], &[1, 5, 6]).unwrap();
        assert_eq!(odd.axes, [1, 2]);
    }

    #[test]
    fn axes_along_which_nothing_changes_are_left_out() {
        assert_eq!(Held::along(1, 2).reshaped(&[1, 2, 2, 1], &[1, 4]).unwrap(), held(&[1], &[0, 0, 1, 1]));
        assert_eq!(Held::along(1, 2).reshaped(&[1, 2, 6], &[1, 4, 3]).unwrap(), held(&[1], &[0, 0, 1, 1]));
        assert_eq!(Held::along(2, 3).reshaped(&[1, 5, 3], &[1, 5, 1, 3]).unwrap(), held(&[3], &[0, 1, 2]), "one head");
        assert_eq!(Held::along(1, 3).reshaped(&[1, 3, 4], &[1, 4, 3]).unwrap().axes, [1, 2]);
        assert_eq!(Held::along(1, 3).reshaped(&[1, 3, 0], &[1, 0]), None);
        assert_eq!(Held::along(1, 3).reshaped(&[1, 4], &[4, 1]), None, "not its shape");
    }
}
