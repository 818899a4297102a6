//! What guessing reaches, and whether an answer is any better.

use std::collections::BTreeMap;

/// How many standard deviations above chance count as better than guessing.
const DEVIATIONS: f64 = 3.0;
/// Share of the way from chance to perfect below which a metric counts as near chance, however many samples there are.
const NEAR: f64 = 0.05;
/// Share of that way above which a metric is never near chance: few samples prove little, but they do not accuse either.
const FAR: f64 = 1.0 / 3.0;

/// What a metric comes to by guessing, in percent.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Chance {
    /// Its mean.
    pub level: f64,
    /// Its standard deviation over sets of as many samples.
    pub deviation: f64,
}

impl Chance {
    /// Of the share of right classes among `classes` on samples with these `labels`. A network that sees nothing in its input
    /// always names one class, at best the most frequent. Where more than half of the classes are missing among the labels,
    /// it will hardly name one of the others, and chance is one in `classes`. `None` without labels, with fewer than two
    /// classes, or where all labels are equal, since then nothing can be told.
    pub fn of_classes(classes: usize, labels: &[usize]) -> Option<Self> {
        let mut counts = BTreeMap::new();
        labels.iter().for_each(|&l| *counts.entry(l).or_insert(0usize) += 1);
        if classes < 2 || counts.len() < 2 {
            return None;
        }
        let n = labels.len() as f64;
        let most = match 2 * counts.len() >= classes {
            true => counts.into_values().max().unwrap_or(0) as f64 / n,
            false => 0.0,
        };
        let p = most.max(1.0 / classes as f64);
        Some(Chance { level: 100.0 * p, deviation: 100.0 * (p * (1.0 - p) / n).sqrt() })
    }

    /// Of a correlation (Pearson, Spearman, Matthews) on so many samples: 0, with a deviation of nearly 1/√n.
    pub fn of_correlation(samples: usize) -> Option<Self> {
        (samples > 0).then(|| Chance { level: 0.0, deviation: 100.0 / (samples as f64).sqrt() })
    }

    /// Whether `value`, in percent, is hardly more than guessing: at most three standard deviations above chance, or by less
    /// than a twentieth of what is between chance and 100. Nothing that has made a third of that way is.
    pub fn is_near(&self, value: f64) -> bool {
        let way = (value - self.level) / (100.0 - self.level).max(f64::MIN_POSITIVE);
        way < NEAR || (value <= self.level + DEVIATIONS * self.deviation && way < FAR)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn even(classes: usize, n: usize) -> Chance {
        Chance::of_classes(classes, &(0..n).map(|i| i % classes).collect::<Vec<_>>()).unwrap()
    }

    #[test]
    fn ten_even_classes_are_guessed_at_ten_percent() {
        let chance = even(10, 10_000);
        assert!((chance.level - 10.0).abs() < 1e-9 && (chance.deviation - 0.3).abs() < 1e-9, "{chance:?}");
        // What a good network reaches on pixels that were prepared wrongly.
        assert!(chance.is_near(12.0) && chance.is_near(3.0) && chance.is_near(14.4));
        assert!(!chance.is_near(14.6) && !chance.is_near(91.7));
    }

    #[test]
    fn many_classes_leave_little_to_guess() {
        let chance = even(1000, 1000);
        assert!((chance.level - 0.1).abs() < 1e-9);
        assert!(chance.is_near(0.3) && chance.is_near(4.0) && !chance.is_near(30.0));
    }

    #[test]
    fn the_most_frequent_class_is_what_guessing_reaches() {
        let labels: Vec<usize> = (0..1000).map(|i| usize::from(i % 10 == 0)).collect();
        let chance = Chance::of_classes(2, &labels).unwrap();
        assert_eq!(chance.level, 90.0);
        assert!(chance.is_near(90.4) && chance.is_near(92.0) && !chance.is_near(95.0), "{chance:?}");
        let two = even(2, 872);
        assert!(two.is_near(50.9) && two.is_near(54.0) && !two.is_near(75.0) && !two.is_near(92.0));
    }

    #[test]
    fn labels_that_lack_classes_make_nothing_likely() {
        assert_eq!(Chance::of_classes(2, &[1; 8]), None);
        // Cats and dogs, seen by a network that knows a thousand things.
        let labels: Vec<usize> = (0..400).map(|i| 281 + i % 2).collect();
        let chance = Chance::of_classes(1000, &labels).unwrap();
        assert!((chance.level - 0.1).abs() < 1e-9 && !chance.is_near(45.0) && chance.is_near(0.0), "{chance:?}");
    }

    #[test]
    fn few_samples_do_not_accuse_a_good_network() {
        let chance = even(2, 10);
        assert!(chance.level + DEVIATIONS * chance.deviation > 90.0);
        assert!(chance.is_near(60.0) && !chance.is_near(90.0));
    }

    #[test]
    fn correlations_have_no_level() {
        let chance = Chance::of_correlation(900).unwrap();
        assert!(chance.is_near(9.0) && chance.is_near(-20.0) && !chance.is_near(50.0), "{chance:?}");
        assert_eq!(
            (Chance::of_correlation(0), Chance::of_classes(4, &[]), Chance::of_classes(1, &[0])),
            (None, None, None)
        );
    }
}
