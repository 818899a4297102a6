//! Groups of samples that run in parallel, a few at a time.

use super::Threads;
use crate::error::Result;
use rayon::prelude::*;
use std::time::{Duration, Instant};

/// Groups a thread in a round at most.
pub(super) const TOGETHER: usize = 4;
/// A round that takes less time is followed by a longer one.
const BRIEF: Duration = Duration::from_millis(100);

/// Runs `group` for each of the first samples `firsts` of groups, and gives `take` what they come to, in order. Between two
/// rounds, when `take` is called on this thread, little time passes, however long a group takes, so that it may stop the
/// work.
pub(super) fn in_rounds<T: Send>(
    threads: &Threads,
    firsts: &[usize],
    group: impl Fn(usize) -> Result<T> + Sync,
    mut take: impl FnMut(&[usize], Vec<T>) -> Result<()>,
) -> Result<()> {
    let least = threads.count();
    let (mut rest, mut size) = (firsts, least);
    while !rest.is_empty() {
        let (some, behind) = rest.split_at(size.min(rest.len()));
        let start = Instant::now();
        let found = threads.run(|| some.par_iter().map(|&first| group(first)).collect::<Result<Vec<T>>>())?;
        take(some, found)?;
        size = if start.elapsed() < BRIEF { (2 * size).min(TOGETHER * least) } else { (size / 2).max(least) };
        rest = behind;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The sizes of the rounds of groups that take so long.
    fn rounds(groups: usize, long: Duration) -> Vec<usize> {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(2).build().unwrap();
        let threads = Threads { pool: Some(std::sync::Arc::new(pool)) };
        let firsts: Vec<usize> = (0..groups).map(|i| 10 * i).collect();
        let group = |first: usize| {
            std::thread::sleep(long);
            Ok(first + 1)
        };
        let (mut all, mut sizes) = (Vec::new(), Vec::new());
        in_rounds(&threads, &firsts, group, |some, found| {
            assert!(some.iter().zip(&found).all(|(first, found)| first + 1 == *found));
            all.extend_from_slice(some);
            sizes.push(some.len());
            Ok(())
        })
        .unwrap();
        assert_eq!(all, firsts);
        sizes
    }

    #[test]
    fn long_groups_run_one_a_thread() {
        assert_eq!(rounds(5, BRIEF), [2, 2, 1]);
        assert!(rounds(0, BRIEF).is_empty());
    }

    #[test]
    fn short_groups_run_more_and_more_at_a_time() {
        let sizes = rounds(40, Duration::ZERO);
        assert!(sizes[0] == 2 && sizes.iter().all(|&n| n <= 2 * TOGETHER), "{sizes:?}");
    }
}
