//! Reading and making node attributes.

use super::proto::{AttributeProto, GraphProto, NodeProto, TensorProto};
use crate::error::{Error, Result};
use std::cell::RefCell;

/// Codes of AttributeProto.AttributeType.
const FLOAT: i32 = 1;
const INT: i32 = 2;
const STRING: i32 = 3;
const TENSOR: i32 = 4;
const FLOATS: i32 = 6;
const INTS: i32 = 7;
const STRINGS: i32 = 8;

/// The attributes of a node; remembers which were asked for.
pub struct Attrs<'a> {
    list: &'a [AttributeProto],
    asked: RefCell<Vec<&'static str>>,
}

impl<'a> Attrs<'a> {
    /// The attributes of `node`.
    pub fn new(node: &'a NodeProto) -> Self {
        Attrs { list: &node.attribute, asked: RefCell::new(Vec::new()) }
    }

    /// Whether the node has attributes that nobody asked for, or references to a function's attributes.
    pub fn unread(&self) -> bool {
        let asked = self.asked.borrow();
        self.list.iter().any(|a| !asked.contains(&a.name()) || !a.ref_attr_name().is_empty())
    }

    /// Attribute `name` if present and of the wanted type.
    fn get(&self, name: &'static str, want: i32, kind: &str) -> Result<Option<&'a AttributeProto>> {
        self.asked.borrow_mut().push(name);
        match self.list.iter().find(|a| a.name() == name) {
            // Writers of IR version 1 left the type out.
            Some(a) if a.r#type() != want && a.r#type() != 0 && a.ref_attr_name().is_empty() => {
                Err(Error::model(format!("attribute `{name}` should be {kind}, it has type code {}", a.r#type())))
            }
            found => Ok(found),
        }
    }

    /// An integer.
    pub fn int(&self, name: &'static str, default: i64) -> Result<i64> {
        Ok(self.get(name, INT, "an integer")?.map_or(default, |a| a.i()))
    }

    /// An integer that may be absent.
    pub fn opt_int(&self, name: &'static str) -> Result<Option<i64>> {
        Ok(self.get(name, INT, "an integer")?.map(|a| a.i()))
    }

    /// An integer that means yes unless 0.
    pub fn flag(&self, name: &'static str, default: bool) -> Result<bool> {
        Ok(self.int(name, default as i64)? != 0)
    }

    /// A number.
    pub fn float(&self, name: &'static str, default: f32) -> Result<f32> {
        Ok(self.get(name, FLOAT, "a number")?.map_or(default, |a| a.f()))
    }

    /// A number that may be absent.
    pub fn opt_float(&self, name: &'static str) -> Result<Option<f32>> {
        Ok(self.get(name, FLOAT, "a number")?.map(|a| a.f()))
    }

    /// A text.
    pub fn string(&self, name: &'static str, default: &'static str) -> Result<&'a str> {
        match self.get(name, STRING, "a string")? {
            Some(a) => std::str::from_utf8(a.s.as_deref().unwrap_or_default())
                .map_err(|_| Error::model(format!("attribute `{name}` is not UTF-8"))),
            None => Ok(default),
        }
    }

    /// A list of integers, empty when absent.
    pub fn ints(&self, name: &'static str) -> Result<Vec<i64>> {
        Ok(self.get(name, INTS, "a list of integers")?.map_or(Vec::new(), |a| a.ints.clone()))
    }

    /// A list of integers that may be absent.
    pub fn opt_ints(&self, name: &'static str) -> Result<Option<Vec<i64>>> {
        Ok(self.get(name, INTS, "a list of integers")?.map(|a| a.ints.clone()))
    }

    /// A list of numbers that may be absent.
    pub fn opt_floats(&self, name: &'static str) -> Result<Option<Vec<f32>>> {
        Ok(self.get(name, FLOATS, "a list of numbers")?.map(|a| a.floats.clone()))
    }

    /// A list of texts that may be absent.
    pub fn opt_strings(&self, name: &'static str) -> Result<Option<Vec<String>>> {
        let text = |s: &Vec<u8>| {
            String::from_utf8(s.clone()).map_err(|_| Error::model(format!("attribute `{name}` is not UTF-8")))
        };
        let found = self.get(name, STRINGS, "a list of strings")?;
        found.map(|a| a.strings.iter().map(text).collect()).transpose()
    }

    /// A tensor.
    pub fn tensor(&self, name: &'static str) -> Result<Option<&'a TensorProto>> {
        Ok(self.get(name, TENSOR, "a tensor")?.and_then(|a| a.t.as_ref()))
    }
}

fn make(name: &str, kind: i32) -> AttributeProto {
    AttributeProto { name: Some(name.to_string()), r#type: Some(kind), ..Default::default() }
}

/// An integer attribute.
pub fn int(name: &str, value: i64) -> AttributeProto {
    AttributeProto { i: Some(value), ..make(name, INT) }
}

/// A number attribute.
pub fn float(name: &str, value: f32) -> AttributeProto {
    AttributeProto { f: Some(value), ..make(name, FLOAT) }
}

/// A text attribute.
pub fn string(name: &str, value: &str) -> AttributeProto {
    AttributeProto { s: Some(value.as_bytes().to_vec()), ..make(name, STRING) }
}

/// An attribute that lists integers.
pub fn ints(name: &str, values: &[i64]) -> AttributeProto {
    AttributeProto { ints: values.to_vec(), ..make(name, INTS) }
}

/// An attribute that lists numbers.
pub fn floats(name: &str, values: &[f32]) -> AttributeProto {
    AttributeProto { floats: values.to_vec(), ..make(name, FLOATS) }
}

/// An attribute that lists texts.
pub fn strings(name: &str, values: &[&str]) -> AttributeProto {
    AttributeProto { strings: values.iter().map(|v| v.as_bytes().to_vec()).collect(), ..make(name, STRINGS) }
}

/// A tensor attribute.
pub fn tensor(name: &str, value: TensorProto) -> AttributeProto {
    AttributeProto { t: Some(value), ..make(name, TENSOR) }
}

/// Takes attribute `name` out of `node`; an error when it refers to a function's attribute.
pub fn take(node: &mut NodeProto, name: &str) -> Result<Option<AttributeProto>> {
    match node.attribute.iter().position(|a| a.name() == name) {
        Some(i) if !node.attribute[i].ref_attr_name().is_empty() => {
            Err(Error::unsupported(format!("attribute `{name}` refers to a function's attribute and cannot be moved")))
        }
        Some(i) => Ok(Some(node.attribute.remove(i))),
        None => Ok(None),
    }
}

/// Replaces or adds an attribute.
pub fn set(node: &mut NodeProto, attribute: AttributeProto) {
    node.attribute.retain(|a| a.name() != attribute.name());
    node.attribute.push(attribute);
}

/// Subgraphs of a node, in attribute order.
pub fn subgraphs(node: &NodeProto) -> impl Iterator<Item = &GraphProto> {
    node.attribute.iter().flat_map(|a| a.g.iter().chain(&a.graphs))
}

/// Subgraphs of a node, to be changed.
pub fn subgraphs_mut(node: &mut NodeProto) -> impl Iterator<Item = &mut GraphProto> {
    node.attribute.iter_mut().flat_map(|a| a.g.iter_mut().chain(&mut a.graphs))
}

/// Whether `domain` names the default operator set.
pub fn is_default(domain: &str) -> bool {
    domain.is_empty() || domain == "ai.onnx"
}

/// How errors name a node of the file: by its first result when it has no name.
pub fn describe(node: &NodeProto) -> String {
    let first = node.output.iter().find(|o| !o.is_empty()).map_or("", |o| o.as_str());
    let name = if node.name().is_empty() { first } else { node.name() };
    format!("node `{name}` ({})", node.op_type())
}
