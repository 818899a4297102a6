//! Protobuf messages as trees, without their schema, so that lengths stay right when something inside changes.

use crate::rng::Rng;

/// Deepest nesting that is looked into.
const DEPTH: usize = 24;
/// Highest number of a field; a text that happens to parse mostly has others.
const HIGHEST: u64 = 64;
/// Floating-point numbers at which arithmetic goes wrong.
const FLOATS: [f32; 8] = [0.0, -1.0, 1e38, -1e38, 1e-45, f32::NAN, f32::INFINITY, 0.5];

#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Value {
    Varint(u64),
    Double([u8; 8]),
    Float([u8; 4]),
    Bytes(Vec<u8>),
    Message(Message),
}

/// Numbers and values of the fields, in order.
pub(crate) type Message = Vec<(u64, Value)>;

fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0u64;
    for i in 0..10 {
        let (&byte, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= u64::from(byte & 0x7f).checked_shl(7 * i)?;
        if byte < 0x80 {
            return Some(value);
        }
    }
    None
}

fn put(mut value: u64, out: &mut Vec<u8>) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// The message that `bytes` hold, where they hold one and nothing else.
pub(crate) fn parse(bytes: &[u8]) -> Option<Message> {
    nested(bytes, DEPTH)
}

fn nested(mut bytes: &[u8], depth: usize) -> Option<Message> {
    let mut fields = Message::new();
    while !bytes.is_empty() {
        let key = varint(&mut bytes)?;
        if !(1..=HIGHEST).contains(&(key >> 3)) {
            return None;
        }
        let value = match key & 7 {
            0 => Value::Varint(varint(&mut bytes)?),
            1 => {
                let (head, rest) = bytes.split_first_chunk()?;
                bytes = rest;
                Value::Double(*head)
            }
            2 => {
                let length = usize::try_from(varint(&mut bytes)?).ok()?;
                let (head, rest) = bytes.split_at_checked(length)?;
                bytes = rest;
                let inner = if head.is_empty() || depth == 0 { None } else { nested(head, depth - 1) };
                inner.map_or_else(|| Value::Bytes(head.to_vec()), Value::Message)
            }
            5 => {
                let (head, rest) = bytes.split_first_chunk()?;
                bytes = rest;
                Value::Float(*head)
            }
            _ => return None,
        };
        fields.push((key >> 3, value));
    }
    Some(fields)
}

pub(crate) fn encode(message: &Message) -> Vec<u8> {
    let mut out = Vec::new();
    for (number, value) in message {
        let mut key = |kind: u64| put(number << 3 | kind, &mut out);
        match value {
            Value::Varint(_) => key(0),
            Value::Double(_) => key(1),
            Value::Bytes(_) | Value::Message(_) => key(2),
            Value::Float(_) => key(5),
        }
        let mut long = |bytes: &[u8]| {
            put(bytes.len() as u64, &mut out);
            out.extend_from_slice(bytes);
        };
        match value {
            Value::Varint(v) => put(*v, &mut out),
            Value::Double(b) => out.extend_from_slice(b),
            Value::Float(b) => out.extend_from_slice(b),
            Value::Bytes(b) => long(b),
            Value::Message(m) => long(&encode(m)),
        }
    }
    out
}

fn count(message: &Message) -> usize {
    let inside = |(_, value): &(u64, Value)| match value {
        Value::Message(m) => 1 + count(m),
        _ => 1,
    };
    message.iter().map(inside).sum()
}

/// The field `at` in order of the file, by the message that holds it and its place there.
fn find<'a>(message: &'a mut Message, at: &mut usize) -> Option<(&'a mut Message, usize)> {
    for i in 0..message.len() {
        if *at == 0 {
            return Some((message, i));
        }
        *at -= 1;
        if let Value::Message(inner) = &message[i].1 {
            let inside = count(inner);
            if *at < inside {
                let Value::Message(inner) = &mut message[i].1 else { return None };
                return find(inner, at);
            }
            *at -= inside;
        }
    }
    None
}

/// All fields with the number `number`, at any depth.
fn collect<'a>(message: &'a Message, number: u64, out: &mut Vec<&'a Value>) {
    for (n, value) in message {
        if *n == number {
            out.push(value);
        }
        if let Value::Message(inner) = value {
            collect(inner, number, out);
        }
    }
}

/// Changes one field of `message`, perhaps to one of `other`.
pub(crate) fn mutate(message: &mut Message, other: &Message, rng: &mut Rng) {
    let from = if rng.once_in(2) { other.clone() } else { message.clone() };
    let mut at = rng.below(count(message));
    let Some((list, i)) = find(message, &mut at) else { return };
    let number = list[i].0;
    match rng.below(12) {
        0 => drop(list.remove(i)),
        1 => list.insert(i, list[i].clone()),
        2 => {
            let j = rng.below(list.len());
            list.swap(i, j);
        }
        3 => list[i].0 = 1 + rng.below(20) as u64,
        4..=6 => {
            let mut found = Vec::new();
            collect(&from, number, &mut found);
            if !found.is_empty() {
                let value = (*rng.one(&found)).clone();
                match rng.once_in(3) {
                    true => list.insert(i, (number, value)),
                    false => list[i].1 = value,
                }
            }
        }
        _ => change(&mut list[i].1, rng),
    }
}

fn change(value: &mut Value, rng: &mut Rng) {
    match value {
        Value::Varint(v) => *v = rng.integer(*v as i64) as u64,
        Value::Double(b) => *b = f64::from(*rng.one(&FLOATS)).to_le_bytes(),
        Value::Float(b) => *b = rng.one(&FLOATS).to_le_bytes(),
        Value::Bytes(b) => bytes(b, rng),
        Value::Message(m) => {
            if rng.once_in(2) {
                m.clear();
            } else {
                let kept = rng.below(m.len());
                m.truncate(kept);
            }
        }
    }
}

/// Changes content that is text, numbers or a packed list.
fn bytes(b: &mut Vec<u8>, rng: &mut Rng) {
    if b.is_empty() {
        return b.extend_from_slice(b"x");
    }
    let at = rng.below(b.len() / 8) * 8;
    match rng.below(5) {
        0 if b.len().is_multiple_of(8) => {
            if let Some(chunk) = b[at..].first_chunk_mut::<8>() {
                *chunk = rng.integer(i64::from_le_bytes(*chunk)).to_le_bytes();
            }
        }
        1 if b.len().is_multiple_of(4) => {
            if let Some(chunk) = b[at..].first_chunk_mut::<4>() {
                *chunk = rng.one(&FLOATS).to_le_bytes();
            }
        }
        2 => b.truncate(rng.below(b.len())),
        3 => {
            let range = rng.range(b.len(), 16);
            b.extend_from_within(range);
        }
        _ => {
            let i = rng.below(b.len());
            b[i] = rng.word() as u8;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_come_out_as_they_went_in() {
        let inner = vec![(1, Value::Varint(300)), (2, Value::Float([1, 2, 3, 4]))];
        let text = Value::Bytes(b"\xffConv".to_vec());
        let message = vec![(3, text), (5, Value::Message(inner)), (7, Value::Double([9; 8])), (1, Value::Varint(0))];
        let bytes = encode(&message);
        assert_eq!(parse(&bytes), Some(message.clone()));
        assert_eq!(parse(&bytes[..bytes.len() - 1]), None);
        assert_eq!(count(&message), 6);
        let place = |mut at: usize| find(&mut message.clone(), &mut at).map(|(list, i)| list[i].0);
        assert_eq!([0, 1, 2, 3, 4, 5, 6].map(place), [Some(3), Some(5), Some(1), Some(2), Some(7), Some(1), None]);
    }
}
