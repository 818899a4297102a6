//! Edits of JSON that stays JSON.

use crate::rng::Rng;
use serde_json::{Value, json};

/// Changes one value of `root`, perhaps to one of `other`.
pub(crate) fn mutate(root: &mut Value, other: &Value, rng: &mut Rng) {
    let mut at = rng.below(count(other));
    let graft = find(&mut other.clone(), &mut at).cloned();
    let mut at = rng.below(count(root));
    let Some(value) = find(root, &mut at) else { return };
    match (rng.below(4), &mut *value) {
        (0, _) => *value = graft.unwrap_or_default(),
        (1, Value::Object(map)) if !map.is_empty() => {
            let key = map.keys().nth(rng.below(map.len())).cloned().unwrap_or_default();
            let taken = map.remove(&key);
            if rng.once_in(2) {
                map.insert(
                    rng.one(&["", "type", "id", "[PAD]", "\u{0}", "ab", "bbox", "image_id", "iscrowd"]).to_string(),
                    taken.unwrap_or_default(),
                );
            }
        }
        (1, Value::Array(list)) if !list.is_empty() => {
            let i = rng.below(list.len());
            match rng.once_in(2) {
                true => drop(list.remove(i)),
                false => list.push(list[i].clone()),
            }
        }
        (2, Value::Number(n)) => *value = rng.integer(n.as_i64().unwrap_or(0)).into(),
        (2, Value::String(s)) => {
            *s = match rng.below(4) {
                0 => String::new(),
                1 => s.repeat(2),
                2 => rng.one(&["[PAD]", "é", "\u{0}", "(a|a)*$", "\\", "▁", "[^\\s]+", "##", "A"]).to_string(),
                _ => s.chars().skip(1).collect(),
            }
        }
        _ => {
            let all = [
                json!(null),
                json!(0),
                json!(-1),
                json!(1.5),
                json!(u64::MAX),
                json!(1_000_000_007),
                json!(-1e300),
                json!([0, 0, 1e308, 1e308]),
                json!(true),
                json!(""),
                json!([]),
                json!({}),
                json!({"Regex": "(a?)*"}),
                json!({"String": ""}),
            ];
            *value = rng.one(&all).clone();
        }
    }
}

fn count(value: &Value) -> usize {
    let inside: usize = match value {
        Value::Array(list) => list.iter().map(count).sum(),
        Value::Object(map) => map.values().map(count).sum(),
        _ => 0,
    };
    1 + inside
}

fn find<'a>(value: &'a mut Value, at: &mut usize) -> Option<&'a mut Value> {
    if *at == 0 {
        return Some(value);
    }
    *at -= 1;
    match value {
        Value::Array(list) => list.iter_mut().find_map(|v| find(v, at)),
        Value::Object(map) => map.values_mut().find_map(|v| find(v, at)),
        _ => None,
    }
}
