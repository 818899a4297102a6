//! Edits of text whose words mean something: TOML, and the header of a `.npy` file.

use crate::rng::Rng;

/// What may stand where a word stood.
const WORDS: [&str; 24] = [
    "0",
    "-1",
    "1",
    "2",
    "33",
    "1.5",
    "nan",
    "-inf",
    "1e999",
    "9223372036854775808",
    "-9223372036854775808",
    "true",
    "\"\"",
    "\"*\"",
    "[]",
    "{}",
    "[[]]",
    "''",
    "\u{0}",
    "é",
    "\n",
    "=",
    "[[override]]",
    "\"\u{202e}%s\"",
];

/// Begin and end of each word of `text`.
fn words(text: &str) -> Vec<(usize, usize)> {
    let mut found = Vec::new();
    let mut start = None;
    for (i, c) in text.char_indices() {
        let inside = c.is_alphanumeric() || "_-.".contains(c);
        match (inside, start) {
            (true, None) => start = Some(i),
            (false, Some(s)) => {
                found.push((s, i));
                start = None;
            }
            _ => {}
        }
    }
    found.extend(start.map(|s| (s, text.len())));
    found
}

/// Changes a word or a line of `text`, perhaps to one of `other`.
pub(crate) fn mutate(text: &str, other: &str, rng: &mut Rng) -> String {
    if rng.once_in(2) {
        return lines(text, other, rng);
    }
    let (own, others) = (words(text), words(other));
    if own.is_empty() {
        return other.to_string();
    }
    let (start, end) = *rng.one(&own);
    let from = if rng.once_in(2) { (other, &others) } else { (text, &own) };
    let word = match rng.below(3) {
        0 if !from.1.is_empty() => {
            let (a, b) = *rng.one(from.1);
            from.0[a..b].to_string()
        }
        1 => rng.integer(text[start..end].parse().unwrap_or(0)).to_string(),
        _ => rng.one(&WORDS).to_string(),
    };
    [&text[..start], &word, &text[end..]].concat()
}

fn lines(text: &str, other: &str, rng: &mut Rng) -> String {
    let mut own: Vec<&str> = text.split_inclusive('\n').collect();
    let others: Vec<&str> = other.split_inclusive('\n').collect();
    let at = rng.below(own.len());
    match rng.below(4) {
        0 if !own.is_empty() => drop(own.remove(at)),
        1 if !own.is_empty() => own.insert(rng.below(own.len()), own[at]),
        2 if !others.is_empty() => own.insert(at, others[rng.below(others.len())]),
        _ if !own.is_empty() => {
            let to = rng.below(own.len());
            own.swap(at, to);
        }
        _ => {}
    }
    own.concat()
}
