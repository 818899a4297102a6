//! Metrics of the GLUE benchmark on predictions: F1, Matthews, Pearson and Spearman correlation.

/// Share of predictions that are the label, in percent; 0 without any.
pub fn accuracy(predicted: &[usize], labels: &[usize]) -> f64 {
    let right = predicted.iter().zip(labels).filter(|(p, l)| p == l).count();
    percent(right as f64, labels.len() as f64)
}

/// F1 of class 1 of two, in percent: harmonic mean of precision and recall; 0 when class 1 is neither predicted nor true.
pub fn f1(predicted: &[usize], labels: &[usize]) -> f64 {
    let [_, wrong_1, missed_1, right_1] = confusion(predicted, labels);
    percent(2.0 * right_1, 2.0 * right_1 + wrong_1 + missed_1)
}

/// Matthews' correlation of two classes, in percent, -100 to 100; 0 when one class is never predicted or never true.
pub fn matthews(predicted: &[usize], labels: &[usize]) -> f64 {
    let [right_0, wrong_1, missed_1, right_1] = confusion(predicted, labels);
    let ways = [right_1 + wrong_1, right_1 + missed_1, right_0 + wrong_1, right_0 + missed_1];
    percent(right_1 * right_0 - wrong_1 * missed_1, ways.iter().map(|w| w.sqrt()).product())
}

/// Pearson's correlation of predictions and labels, in percent, -100 to 100; 0 when one of them is constant.
pub fn pearson(predicted: &[f64], labels: &[f64]) -> f64 {
    let n = labels.len() as f64;
    let mean = |v: &[f64]| v.iter().sum::<f64>() / n;
    let (mean_p, mean_l) = (mean(predicted), mean(labels));
    let (mut pp, mut ll, mut pl) = (0.0, 0.0, 0.0);
    for (p, l) in predicted.iter().zip(labels) {
        let (p, l) = (p - mean_p, l - mean_l);
        (pp, ll, pl) = (pp + p * p, ll + l * l, pl + p * l);
    }
    percent(pl, pp.sqrt() * ll.sqrt()).clamp(-100.0, 100.0)
}

/// Spearman's correlation: Pearson's of the ranks, equal values sharing the mean of their ranks. In percent.
pub fn spearman(predicted: &[f64], labels: &[f64]) -> f64 {
    pearson(&ranks(predicted), &ranks(labels))
}

/// `part` of `whole` in percent; 0 of nothing.
fn percent(part: f64, whole: f64) -> f64 {
    if whole > 0.0 { 100.0 * part / whole } else { 0.0 }
}

/// Samples by label and prediction: 0 as 0, 0 as 1, 1 as 0, 1 as 1; every class but 1 counts as 0.
fn confusion(predicted: &[usize], labels: &[usize]) -> [f64; 4] {
    let mut counts = [0.0; 4];
    for (&p, &l) in predicted.iter().zip(labels) {
        counts[2 * usize::from(l == 1) + usize::from(p == 1)] += 1.0;
    }
    counts
}

/// Ranks from 1.
fn ranks(values: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..values.len()).collect();
    order.sort_by(|&a, &b| values[a].total_cmp(&values[b]));
    let mut ranks = vec![0.0; values.len()];
    let mut start = 0;
    while start < order.len() {
        let equal = order[start..].iter().take_while(|&&i| values[i] == values[order[start]]).count().max(1);
        let rank = start as f64 + (equal as f64 + 1.0) / 2.0;
        order[start..start + equal].iter().for_each(|&i| ranks[i] = rank);
        start += equal;
    }
    ranks
}

#[cfg(test)]
mod tests {
    use super::*;

    fn near(a: f64, b: f64) {
        assert!((a - b).abs() < 1e-9, "{a} {b}");
    }

    #[test]
    fn known_values_of_two_classes() {
        // 3 right ones, 1 wrong one, 2 missed, 2 right zeros.
        let (predicted, labels) = ([1, 1, 1, 1, 0, 0, 0, 0], [1, 1, 1, 0, 1, 1, 0, 0]);
        near(accuracy(&predicted, &labels), 62.5);
        near(f1(&predicted, &labels), 100.0 * 6.0 / 9.0);
        near(matthews(&predicted, &labels), 100.0 * 4.0 / 240f64.sqrt());
        near(matthews(&labels, &labels), 100.0);
        near(matthews(&[0, 1], &[1, 0]), -100.0);
    }

    #[test]
    fn what_is_undefined_is_0() {
        assert_eq!((f1(&[0, 0], &[0, 0]), matthews(&[1, 1], &[1, 0])), (0.0, 0.0));
        assert_eq!((pearson(&[2.0, 2.0], &[1.0, 3.0]), spearman(&[2.0, 2.0], &[1.0, 3.0])), (0.0, 0.0));
        assert_eq!((accuracy(&[], &[]), pearson(&[], &[])), (0.0, 0.0));
    }

    #[test]
    fn known_correlations() {
        let (x, y) = ([1.0, 2.0, 3.0, 4.0, 5.0], [2.0, 1.0, 4.0, 3.0, 7.0]);
        near(pearson(&x, &y), 100.0 * 12.0 / 212f64.sqrt());
        near(spearman(&x, &y), 80.0);
        // Ties share ranks 1.5 and 3.5: correlation of [1.5, 1.5, 3.5, 3.5] and [1, 2, 3, 4].
        near(spearman(&[0.0, 0.0, 1.0, 1.0], &[1.0, 2.0, 3.0, 4.0]), 100.0 * 4.0 / 20f64.sqrt());
        near(spearman(&x, &x.map(|v: f64| v.exp())), 100.0);
    }
}
