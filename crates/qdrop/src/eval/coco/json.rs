//! Lists of objects in JSON of which only some fields count. What does not count, such as outlines, is not kept.

use crate::error::{Error, Result};
use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::Value;
use std::fmt;

/// The fields that count.
const FIELDS: [&str; 9] = ["id", "image_id", "category_id", "bbox", "area", "iscrowd", "score", "file_name", "name"];

/// An element of a list.
enum Element {
    Object(Fields),
    /// Something else, and what it is.
    Other(&'static str),
}

/// Fields of an object, in the order of the file.
pub(super) struct Fields(Vec<(&'static str, Value)>);

impl<'de> Deserialize<'de> for Element {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        deserializer.deserialize_any(ElementVisitor)
    }
}

struct ElementVisitor;

/// A visitor's methods for what is no object.
macro_rules! others {
    ($(($method:ident, $type:ty, $name:literal)),*) => {
        $(fn $method<E>(self, _: $type) -> std::result::Result<Element, E> {
            Ok(Element::Other($name))
        })*
    };
}

impl<'de> Visitor<'de> for ElementVisitor {
    type Value = Element;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    others!(
        (visit_bool, bool, "true or false"),
        (visit_i64, i64, "a number"),
        (visit_u64, u64, "a number"),
        (visit_f64, f64, "a number"),
        (visit_str, &str, "a text")
    );

    fn visit_unit<E>(self) -> std::result::Result<Element, E> {
        Ok(Element::Other("null"))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> std::result::Result<Element, A::Error> {
        while list.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Element::Other("a list"))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> std::result::Result<Element, A::Error> {
        let mut fields = Vec::new();
        while let Some(key) = map.next_key::<String>()? {
            match FIELDS.iter().find(|f| **f == key) {
                Some(&name) => fields.push((name, map.next_value()?)),
                None => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(Element::Object(Fields(fields)))
    }
}

impl Fields {
    /// The field `name`; of several the last.
    fn get(&self, name: &str) -> Option<&Value> {
        self.0.iter().rev().find(|(n, _)| *n == name).map(|(_, v)| v)
    }

    fn required<T>(&self, name: &str, what: &str, read: impl Fn(&Value) -> Option<T>) -> Result<T> {
        let Some(value) = self.get(name) else {
            return Err(Error::data(format!("the field `{name}` is missing")));
        };
        read(value).ok_or_else(|| wrong(name, what, value))
    }

    /// An integer; numbers such as `7.0` are integers too.
    pub(super) fn integer(&self, name: &str) -> Result<i64> {
        let whole = |x: f64| (x.fract() == 0.0 && x.abs() < (1i64 << 53) as f64).then_some(x as i64);
        self.required(name, "an integer", |v| v.as_i64().or_else(|| whole(v.as_f64()?)))
    }

    /// A finite number.
    pub(super) fn number(&self, name: &str) -> Result<f64> {
        self.required(name, "a number", Value::as_f64)
    }

    /// Four finite numbers.
    pub(super) fn bbox(&self, name: &str) -> Result<[f64; 4]> {
        let read = |v: &Value| {
            let all: Option<Vec<f64>> = v.as_array()?.iter().map(Value::as_f64).collect();
            all?.try_into().ok()
        };
        self.required(name, "four numbers (left, top, width, height)", read)
    }

    /// A text, empty where there is none.
    pub(super) fn text(&self, name: &str) -> Result<String> {
        match self.get(name) {
            None | Some(Value::Null) => Ok(String::new()),
            Some(Value::String(text)) => Ok(text.clone()),
            Some(other) => Err(wrong(name, "a text", other)),
        }
    }

    /// 0 or 1, or a boolean; false where there is none.
    pub(super) fn flag(&self, name: &str) -> Result<bool> {
        match self.get(name) {
            None | Some(Value::Null) => Ok(false),
            Some(Value::Bool(flag)) => Ok(*flag),
            Some(value) => match value.as_f64() {
                Some(x) if x == 0.0 || x == 1.0 => Ok(x == 1.0),
                _ => Err(wrong(name, "0 or 1", value)),
            },
        }
    }
}

/// That the field `name` holds no `what`.
fn wrong(name: &str, what: &str, found: &Value) -> Error {
    /// Characters of what was found that are shown.
    const SHOWN: usize = 60;
    let text = found.to_string();
    let shown: String = text.chars().take(SHOWN).collect();
    let more = if shown.len() < text.len() { "…" } else { "" };
    Error::data(format!("expected {what} in the field `{name}`, got {shown}{more}"))
}

/// What takes the elements of lists: the list's number, the element's place in it, and the element.
type Take<'a> = &'a mut dyn FnMut(usize, usize, &Fields) -> Result<()>;

/// Hands every element of the lists of these `names`, in the object that `file` holds, to `take`.
pub(super) fn lists(file: &[u8], names: &[&'static str], take: Take<'_>) -> Result<()> {
    const HINT: &str = "give an annotation file of COCO, such as instances_val2017.json";
    if first(file) != Some(b'{') {
        let names: Vec<String> = names.iter().map(|n| format!("`{n}`")).collect();
        let message = format!("expected an object with the lists {}", names.join(", "));
        return Err(Error::data(message).hint(HINT));
    }
    let mut taken = Taken { names, take, error: None };
    let mut found = vec![false; names.len()];
    let mut reader = serde_json::Deserializer::from_slice(plain(file));
    let read = reader.deserialize_map(ObjectVisitor(&mut taken, &mut found)).and_then(|()| reader.end());
    taken.finish(read)?;
    match names.iter().zip(&found).find(|(_, found)| !**found) {
        Some((name, _)) => Err(Error::data(format!("the list `{name}` is missing")).hint(HINT)),
        None => Ok(()),
    }
}

/// Hands every element of the list that `file` holds to `take`; errors call the list `name`.
pub(super) fn list(file: &[u8], name: &'static str, take: Take<'_>) -> Result<()> {
    if first(file) != Some(b'[') {
        let hint = "a file of results of COCO is a list of objects with image_id, category_id, bbox and score";
        return Err(Error::data("expected a list of detections").hint(hint));
    }
    let mut taken = Taken { names: &[name], take, error: None };
    let mut reader = serde_json::Deserializer::from_slice(plain(file));
    let read = ListSeed(&mut taken, 0).deserialize(&mut reader).and_then(|()| reader.end());
    taken.finish(read)
}

/// `file` without a byte order mark.
fn plain(file: &[u8]) -> &[u8] {
    file.strip_prefix(b"\xef\xbb\xbf").unwrap_or(file)
}

/// The first byte of `file` that is no white space.
fn first(file: &[u8]) -> Option<u8> {
    plain(file).iter().copied().find(|b| !b.is_ascii_whitespace())
}

fn unreadable(error: serde_json::Error) -> Error {
    let hint = "the file must be JSON, which has no NaN and no Infinity";
    Error::data(format!("cannot read the file: {error}")).hint(hint)
}

/// Where elements go, and the first error of what takes them.
struct Taken<'a> {
    names: &'a [&'static str],
    take: Take<'a>,
    error: Option<Error>,
}

impl Taken<'_> {
    /// Takes an element; false where that failed.
    fn take(&mut self, list: usize, index: usize, element: &Element) -> bool {
        let taken = match element {
            Element::Object(fields) => (self.take)(list, index, fields),
            Element::Other(what) => Err(Error::data(format!("expected an object, got {what}"))),
        };
        self.error = taken.err().map(|e| e.at(format!("{}[{index}]", self.names[list])));
        self.error.is_none()
    }

    fn finish(self, read: std::result::Result<(), serde_json::Error>) -> Result<()> {
        match (self.error, read) {
            (Some(error), _) => Err(error),
            (None, read) => read.map_err(unreadable),
        }
    }
}

struct ObjectVisitor<'a, 'b>(&'a mut Taken<'b>, &'a mut [bool]);

impl<'de> Visitor<'de> for ObjectVisitor<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> std::result::Result<(), A::Error> {
        while let Some(key) = map.next_key::<String>()? {
            match self.0.names.iter().position(|n| *n == key) {
                Some(list) => {
                    map.next_value_seed(ListSeed(self.0, list))?;
                    self.1[list] = true;
                }
                None => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(())
    }
}

/// Reads a list, element by element.
struct ListSeed<'a, 'b>(&'a mut Taken<'b>, usize);

impl<'de> DeserializeSeed<'de> for ListSeed<'_, '_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> std::result::Result<(), D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for ListSeed<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a list of objects in `{}`", self.0.names[self.1])
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> std::result::Result<(), A::Error> {
        let mut index = 0;
        while let Some(element) = list.next_element::<Element>()? {
            if !self.0.take(self.1, index, &element) {
                return Err(A::Error::custom("an element was refused"));
            }
            index += 1;
        }
        Ok(())
    }
}
