//! SQuAD v1.1: from scores of tokens to an answer, exact match and F1 with the official normalisation.

use std::cmp::Ordering;

/// Most tokens of an answer.
pub const LONGEST_ANSWER: usize = 30;
/// Best begins and ends of a window that are paired.
pub const N_BEST: usize = 20;

/// A possible answer in a window.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Span {
    /// Its first byte in the context.
    pub start: usize,
    /// The byte behind its last.
    pub end: usize,
    /// Sum of the scores of its first and its last token.
    pub score: f32,
}

/// The best answers in one window, at most [`N_BEST`], the best first: pairs of the best begins and ends in order, of at
/// most [`LONGEST_ANSWER`] tokens. `offsets` has the bytes of the context under each token, `None` for tokens outside;
/// `begins` and `ends` are scores, none of them NaN.
pub fn best_spans(begins: &[f32], ends: &[f32], offsets: &[Option<(u32, u32)>]) -> Vec<Span> {
    let (begins_by, ends_by) = (best(begins), best(ends));
    let mut spans = Vec::new();
    for &b in &begins_by {
        for &e in &ends_by {
            let (Some(&Some((start, _))), Some(&Some((_, end)))) = (offsets.get(b), offsets.get(e)) else { continue };
            if e >= b && e - b < LONGEST_ANSWER {
                spans.push(Span { start: start as usize, end: end as usize, score: begins[b] + ends[e] });
            }
        }
    }
    // Stable: among equal scores the better begin stays first.
    spans.sort_by(|a, b| b.score.total_cmp(&a.score));
    spans.truncate(N_BEST);
    spans
}

/// Indices of the [`N_BEST`] largest scores, the largest first, the lower index first among equal ones.
fn best(scores: &[f32]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..scores.len()).collect();
    order.sort_by(|&a, &b| scores[b].partial_cmp(&scores[a]).unwrap_or(Ordering::Equal));
    order.truncate(N_BEST);
    order
}

/// `text` in lower case, without punctuation, without the words a, an and the, single spaces between words.
pub fn normalize(text: &str) -> String {
    let plain: String = text.to_lowercase().chars().filter(|c| !c.is_ascii_punctuation()).collect();
    without_articles(&plain).split_whitespace().collect::<Vec<_>>().join(" ")
}

/// `text` with every word `a`, `an` and `the` made a space, words ending where letters, digits and `_` end.
fn without_articles(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut word = String::new();
    let flush = |word: &mut String, out: &mut String| {
        match word.as_str() {
            "a" | "an" | "the" => out.push(' '),
            other => out.push_str(other),
        }
        word.clear();
    };
    for c in text.chars() {
        if c.is_alphanumeric() || c == '_' {
            word.push(c);
        } else {
            flush(&mut word, &mut out);
            out.push(c);
        }
    }
    flush(&mut word, &mut out);
    out
}

/// Whether `answer` is one of `truths` after normalisation.
pub fn exact_match(answer: &str, truths: &[String]) -> bool {
    let answer = normalize(answer);
    truths.iter().any(|t| normalize(t) == answer)
}

/// F1 of the words that `answer` shares with a truth, 0 to 1, the largest over `truths`.
pub fn word_f1(answer: &str, truths: &[String]) -> f64 {
    let answer = normalize(answer);
    let answer: Vec<&str> = answer.split_whitespace().collect();
    let one = |truth: &String| {
        let truth = normalize(truth);
        let mut left: Vec<&str> = truth.split_whitespace().collect();
        let all = (answer.len() + left.len()) as f64;
        let mut same = 0.0;
        for word in &answer {
            if let Some(at) = left.iter().position(|w| w == word) {
                left.swap_remove(at);
                same += 1.0;
            }
        }
        if same > 0.0 { 2.0 * same / all } else { 0.0 }
    };
    truths.iter().map(one).fold(0.0, f64::max)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_normalised_as_by_the_official_script() {
        for (text, want) in [
            ("The  Eiffel\u{a0}Tower.", "eiffel tower"),
            ("an a the", ""),
            ("theatre, a-b", "theatre ab"),
            ("U.S.A.", "usa"),
            ("\u{201c}The\u{201d} end", "\u{201c} \u{201d} end"),
            ("a_b a", "ab"),
        ] {
            assert_eq!(normalize(text), want, "{text}");
        }
    }

    #[test]
    fn scores_are_the_largest_over_the_truths() {
        let truths = ["Saint Bernadette Soubirous".to_string(), "the Bernadette".to_string()];
        assert!(exact_match("bernadette!", &truths) && !exact_match("Saint Bernadette", &truths));
        assert_eq!(word_f1("Saint Bernadette", &truths), 0.8);
        assert_eq!(word_f1("Bernadette Bernadette", &truths), 2.0 / 3.0);
        assert_eq!((word_f1("Rome", &truths), word_f1("", &truths)), (0.0, 0.0));
    }

    #[test]
    fn spans_lie_in_the_context_in_order_and_are_short() {
        let mut offsets = vec![None];
        offsets.extend((0..40).map(|i| Some((10 * i, 10 * i + 9))));
        let (mut begins, mut ends) = (vec![0.0; 41], vec![0.0; 41]);
        // The best begin is outside, the best end too far behind the second best begin.
        (begins[0], begins[3], begins[5]) = (9.0, 4.0, 3.0);
        (ends[40], ends[4], ends[2]) = (8.0, 2.0, 1.0);
        let spans = best_spans(&begins, &ends, &offsets);
        assert_eq!(spans[0], Span { start: 20, end: 39, score: 6.0 });
        assert_eq!(spans.len(), N_BEST);
        assert!(spans.iter().all(|s| s.start < s.end && s.end - s.start < 10 * LONGEST_ANSWER));
        assert!(best_spans(&[1.0], &[1.0], &[None]).is_empty());
    }
}
