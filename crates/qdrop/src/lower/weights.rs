//! Weights as ONNX Runtime's integer kernels take them, and as small as their bits.
//!
//! Below 8 bits the integers are packed into bytes, and nodes on constants alone unpack them: ONNX Runtime runs those
//! once, when it loads the file, and finds an int8 weight in front of DequantizeLinear. Types of 4 and 2 bits exist only
//! from opset 21 and 25, and layers that read them run in float.
//!
//! Weights of layers that do not run in integers, and integers whose distance from their zero point does not fit int8,
//! become float by nodes on constants too, when the file is loaded: a DequantizeLinear would run with every inference, and
//! from 1.25 on a product of it would round its other operand to 8 bits in blocks.
//!
//! Rows of a table are looked up in the integers, and what was found is dequantized; the whole table never is.

use super::moved::Held;
use super::ort::Form;
use super::write::node;
use super::{check_weight, replace_weight};
use crate::error::Result;
use crate::graph::{Binary, Fact, Node, NodeId, Op, ValueId};
use crate::plan::{Format, Layer, rules};
use crate::quant::{Grid, QuantizedWeight};
use crate::tensor::{DType, Data, Tensor};

/// Bytes that packing must save to be worth its nodes.
const WORTHWHILE: usize = 1024;

/// The pieces in which integers of so many bits are packed: bits, and by how many they stand above the lowest.
fn pieces(bits: u32) -> &'static [(u32, u32)] {
    match bits {
        2 => &[(2, 0)],
        3 => &[(2, 0), (1, 2)],
        4 => &[(4, 0)],
        5 => &[(4, 0), (1, 4)],
        6 => &[(4, 0), (2, 4)],
        _ => &[(4, 0), (2, 4), (1, 6)],
    }
}

/// Nodes that make a value from constants, in order.
struct Made {
    nodes: Vec<Node>,
    value: ValueId,
    /// Whether the zero points are subtracted.
    centered: bool,
}

impl Form<'_> {
    /// Writes the weight of `layer` and makes its readers read it.
    pub fn weight(
        &mut self,
        layer: &Layer,
        weight: &QuantizedWeight,
        finer: i32,
        origins: &[Option<Held>],
    ) -> Result<()> {
        let grid = check_weight(&self.graph, layer, weight)?;
        let first = Self::first_node(layer)?;
        if self.native_bits(grid) {
            return self.native_weight(layer, weight);
        }
        let Made { nodes, value, centered } = self.integers(layer, weight, finer)?;
        let mut grid = grid.clone();
        grid.scale.iter_mut().for_each(|s| *s /= finer as f32);
        let grid = &grid;
        self.insertions.before(first, nodes);
        let (tables, others): (Vec<NodeId>, Vec<NodeId>) =
            layer.nodes.iter().partition(|id| matches!(self.graph.node(**id).op, Op::Gather { .. }));
        for id in tables {
            self.table(id, layer, grid, value, centered)?;
        }
        let name = self.graph.value(layer.weight).name.clone();
        let fact = self.graph.value(layer.weight).fact.clone();
        let any = !self.holds(&rules::BLOCK_PRODUCTS);
        let runs = |id: &NodeId| centered && (any || self.kernel_operand(layer, *id, origins).is_some());
        let (integer, float): (Vec<NodeId>, Vec<NodeId>) = others.into_iter().partition(runs);
        if let Some(&first) = integer.first() {
            let (scale, zero_point) = self.steps(&name, grid)?;
            let real = self.graph.add_value(&format!("{name}_dequantized"), fact);
            let op = Op::DequantizeLinear { axis: grid.axis.map_or(1, |a| a as i64), block: 0, to: None };
            let dequantize = node(&self.graph, op, &[value, scale, zero_point], real);
            self.insertions.before(first, vec![dequantize]);
            integer.into_iter().try_for_each(|id| replace_weight(&mut self.graph, layer, id, real))?;
        }
        if let Some(&first) = float.first() {
            let mut grid = grid.clone();
            if float.iter().any(|&id| self.rounds_again(id, origins)) {
                grid.scale.iter_mut().for_each(|s| *s /= 2.0);
                float.iter().try_for_each(|&id| self.double_operand(id))?;
            }
            let Made { nodes, value, .. } = self.float(&name, value, centered, &grid, layer)?;
            self.insertions.before(first, nodes);
            float.into_iter().try_for_each(|id| replace_weight(&mut self.graph, layer, id, value))?;
        }
        Ok(())
    }

    /// Whether the runtime would round the float weight of node `id` to 8 bits, with one step for all of it: ONNX Runtime
    /// does so between a DequantizeLinear and a QuantizeLinear, wherever a weight is a constant by then.
    fn rounds_again(&self, id: NodeId, origins: &[Option<Held>]) -> bool {
        let node = self.graph.node(id);
        let kind = matches!(node.op, Op::Conv { .. } | Op::ConvTranspose { .. } | Op::Gemm { .. });
        let held = |v: ValueId| origins.get(v.0 as usize).copied().flatten().is_some();
        self.holds(&rules::ROUNDED_WEIGHTS)
            && kind
            && node.input(0).is_some_and(held)
            && node.output(0).is_some_and(|y| self.read_by.contains_key(&y))
    }

    /// Puts a product by 2 in front of node `id`, whose weight is halved: no bit of the result changes, and no
    /// DequantizeLinear stands in front of the node any more.
    fn double_operand(&mut self, id: NodeId) -> Result<()> {
        let Some(operand) = self.graph.node(id).input(0) else { return Ok(()) };
        let two = self.scalar(DType::F32, 2)?;
        let name = format!("{}_doubled", self.graph.value(operand).name);
        let fact = self.graph.value(operand).fact.clone();
        let doubled = self.graph.add_value(&name, fact);
        let product = node(&self.graph, Op::Binary(Binary::Mul), &[operand, two], doubled);
        self.insertions.before(id, vec![product]);
        self.graph.nodes[id.0 as usize].inputs[0] = Some(doubled);
        Ok(())
    }

    /// The integers of `weight` less their zero points times `finer` in int8, where they fit, else the integers in uint8.
    fn integers(&mut self, layer: &Layer, weight: &QuantizedWeight, finer: i32) -> Result<Made> {
        let (grid, shape) = (&weight.grid, layer.shape.as_slice());
        let centered = || -> Result<_> {
            let channels = grid.channels(shape)?;
            Ok(weight.integers.iter().zip(channels).map(move |(&q, c)| i32::from(q) - grid.zero_point[c]))
        };
        let fits = centered()?.all(|d| i8::try_from(d).is_ok());
        let name = self.graph.value(layer.weight).name.clone();
        let bits = grid.bits();
        let saved = weight.integers.len() * (8 - bits as usize) / 8;
        if fits && bits < 8 && saved >= WORTHWHILE {
            return self.packed(&name, grid, &weight.integers, finer, shape);
        }
        let narrow = |d: i32| d.clamp(i8::MIN.into(), i8::MAX.into()) as i8;
        let content = match fits {
            true => Data::I8(centered()?.map(|d| narrow(d * finer)).collect()),
            false => Data::U8(weight.integers.clone()),
        };
        let tensor = Tensor::new(shape.to_vec(), content)?;
        let value = self.graph.add_constant(&format!("{name}_quantized"), tensor);
        Ok(Made { nodes: Vec::new(), value, centered: fits })
    }

    /// Packed integers, and the nodes that unpack them into int8.
    fn packed(&mut self, name: &str, grid: &Grid, integers: &[u8], finer: i32, shape: &[usize]) -> Result<Made> {
        let mut nodes = Vec::new();
        let mut sum: Option<ValueId> = None;
        for &(bits, above) in pieces(grid.bits()) {
            // Byte i holds elements i, i + bytes, i + 2·bytes and so on, so that each part is one run of elements.
            let (per, mask) = (8 / bits as usize, (1u8 << bits) - 1);
            let length = integers.len().div_ceil(per);
            let mut bytes = vec![0u8; length];
            for (i, &q) in integers.iter().enumerate() {
                bytes[i % length] |= ((q >> above) & mask) << (i / length * bits as usize);
            }
            let content = Tensor::new(vec![length], Data::U8(bytes))?;
            let content = self.graph.add_constant(&format!("{name}_packed"), content);
            let mut parts = Vec::new();
            for k in 0..per {
                let mut part = content;
                if k > 0 {
                    let shift = self.scalar(DType::U8, k as i32 * bits as i32)?;
                    let op = Op::Binary(Binary::BitShift { left: false });
                    part = self.made(&mut nodes, name, op, &[part, shift], DType::U8);
                }
                if k + 1 < per {
                    let modulus = self.scalar(DType::U8, 1 << bits)?;
                    let op = Op::Binary(Binary::Mod { fmod: false });
                    part = self.made(&mut nodes, name, op, &[part, modulus], DType::U8);
                }
                parts.push(part);
            }
            let mut all = self.made(&mut nodes, name, Op::Concat { axis: 0 }, &parts, DType::U8);
            if per * length > integers.len() {
                let ends = [0, integers.len()].map(|n| Tensor::i64s(vec![n as i64]));
                let [start, end] = ends.map(|t| self.graph.add_constant(&format!("{name}_range"), t));
                all = self.made(&mut nodes, name, Op::Slice, &[all, start, end], DType::U8);
            }
            let mut wide = self.made(&mut nodes, name, Op::Cast { to: DType::I32 }, &[all], DType::I32);
            if above > 0 {
                let factor = self.scalar(DType::I32, 1 << above)?;
                wide = self.made(&mut nodes, name, Op::Binary(Binary::Mul), &[wide, factor], DType::I32);
            }
            sum = Some(match sum {
                None => wide,
                Some(sum) => self.made(&mut nodes, name, Op::Binary(Binary::Add), &[sum, wide], DType::I32),
            });
        }
        let Some(mut value) = sum else { return Err(crate::Error::internal("no pieces")) };
        let target = Tensor::i64s(shape.iter().map(|&d| d as i64).collect());
        let target = self.graph.add_constant(&format!("{name}_shape"), target);
        value = self.made(&mut nodes, name, Op::Reshape { allowzero: false }, &[value, target], DType::I32);
        if grid.zero_point.iter().any(|&z| z != 0) {
            let zero_point = match grid.zero_point[..] {
                [first, ref rest @ ..] if rest.iter().all(|&z| z == first) => self.scalar(DType::I32, first)?,
                _ => {
                    let along: Vec<f64> = grid.zero_point.iter().map(|&z| z.into()).collect();
                    let tensor = Tensor::from_f64(DType::I32, &broadcast(grid, shape), &along)?;
                    self.graph.add_constant(&format!("{name}_offset"), tensor)
                }
            };
            value = self.made(&mut nodes, name, Op::Binary(Binary::Sub), &[value, zero_point], DType::I32);
        }
        if finer > 1 {
            let factor = self.scalar(DType::I32, finer)?;
            value = self.made(&mut nodes, name, Op::Binary(Binary::Mul), &[value, factor], DType::I32);
        }
        value = self.made(&mut nodes, name, Op::Cast { to: DType::I8 }, &[value], DType::I8);
        Ok(Made { nodes, value, centered: true })
    }

    /// Integers made float by nodes on constants.
    fn float(&mut self, name: &str, integers: ValueId, centered: bool, grid: &Grid, layer: &Layer) -> Result<Made> {
        let along = broadcast(grid, &layer.shape);
        let mut nodes = Vec::new();
        let mut value = self.made(&mut nodes, name, Op::Cast { to: DType::F32 }, &[integers], DType::F32);
        if !centered {
            let zero_points = grid.zero_point.iter().map(|&z| z as f32).collect();
            let zero_points = self.graph.add_constant(&format!("{name}_zero_point"), Tensor::f32(&along, zero_points));
            value = self.made(&mut nodes, name, Op::Binary(Binary::Sub), &[value, zero_points], DType::F32);
        }
        let scale = self.graph.add_constant(&format!("{name}_scale"), Tensor::f32(&along, grid.scale.clone()));
        value = self.made(&mut nodes, name, Op::Binary(Binary::Mul), &[value, scale], DType::F32);
        Ok(Made { nodes, value, centered: true })
    }

    /// Makes node `id`, a Gather, look up integers, and dequantizes what it finds.
    fn table(&mut self, id: NodeId, layer: &Layer, grid: &Grid, integers: ValueId, centered: bool) -> Result<()> {
        let gather = self.graph.node(id).clone();
        let (Some(indices), Some(y)) = (gather.input(1), gather.output(0)) else {
            return Err(crate::Error::internal("a Gather without indices or result"));
        };
        let name = self.graph.value(layer.weight).name.clone();
        let shape = self.graph.value(y).fact.shape.clone();
        let found = self.graph.value(integers).fact.dtype.unwrap_or(DType::I8);
        let found =
            self.graph.add_value(&format!("{}_integers", self.graph.value(y).name), Fact { dtype: Some(found), shape });
        replace_weight(&mut self.graph, layer, id, integers)?;
        self.graph.nodes[id.0 as usize].outputs = vec![Some(found)];
        let mut nodes = Vec::new();
        let mut value = self.made(&mut nodes, &name, Op::Cast { to: DType::F32 }, &[found], DType::F32);
        // Rows have a step and a zero point each, or all share one.
        let along = if grid.axis.is_some() { vec![grid.scale.len(), 1] } else { vec![] };
        if !centered {
            let zero_points: Vec<f64> = grid.zero_point.iter().map(|&z| z.into()).collect();
            let zero_points = Tensor::from_f64(DType::U8, &along, &zero_points)?;
            let mut zero = self.graph.add_constant(&format!("{name}_zero_point"), zero_points);
            if grid.axis.is_some() {
                zero = self.made(&mut nodes, &name, gather.op.clone(), &[zero, indices], DType::U8);
            }
            zero = self.made(&mut nodes, &name, Op::Cast { to: DType::F32 }, &[zero], DType::F32);
            value = self.made(&mut nodes, &name, Op::Binary(Binary::Sub), &[value, zero], DType::F32);
        }
        let mut scale = self.graph.add_constant(&format!("{name}_scale"), Tensor::f32(&along, grid.scale.clone()));
        if grid.axis.is_some() {
            scale = self.made(&mut nodes, &name, gather.op, &[scale, indices], DType::F32);
        }
        nodes.push(node(&self.graph, Op::Binary(Binary::Mul), &[value, scale], y));
        self.insertions.directly_after(id, nodes);
        Ok(())
    }

    /// Whether a weight on `grid` is written in a type of 4 bits.
    pub fn native_bits(&self, grid: &Grid) -> bool {
        self.output.format == Format::Qdq && (3..=4).contains(&grid.bits())
    }

    /// A weight in a type of 4 bits, with its zero points.
    fn native_weight(&mut self, layer: &Layer, weight: &QuantizedWeight) -> Result<()> {
        let grid = &weight.grid;
        let (name, fact) = (self.graph.value(layer.weight).name.clone(), self.graph.value(layer.weight).fact.clone());
        let values: Vec<f64> = weight.integers.iter().map(|&q| q.into()).collect();
        let integers = Tensor::from_f64(DType::U4, &layer.shape, &values)?;
        let integers = self.graph.add_constant(&format!("{name}_quantized"), integers);
        let (scale, zero_point) = super::grid_constants(&mut self.graph, &name, grid, DType::U4)?;
        let real = self.graph.add_value(&format!("{name}_dequantized"), fact);
        let op = Op::DequantizeLinear { axis: grid.axis.map_or(1, |a| a as i64), block: 0, to: None };
        let dequantize = node(&self.graph, op, &[integers, scale, zero_point], real);
        self.insertions.before(Self::first_node(layer)?, vec![dequantize]);
        layer.nodes.iter().try_for_each(|&id| replace_weight(&mut self.graph, layer, id, real))
    }

    /// Steps of `grid` and zero points 0 of int8 as constants.
    fn steps(&mut self, name: &str, grid: &Grid) -> Result<(ValueId, ValueId)> {
        let shape: &[usize] = if grid.axis.is_some() { &[grid.scale.len()] } else { &[] };
        let zeros = Tensor::from_f64(DType::I8, shape, &vec![0.0; grid.scale.len()])?;
        let scale = self.graph.add_constant(&format!("{name}_scale"), Tensor::f32(shape, grid.scale.clone()));
        Ok((scale, self.graph.add_constant(&format!("{name}_zero_point"), zeros)))
    }

    /// Adds a node to `nodes` that makes a new value, named after `name`. There are many of these, so that neither the node
    /// has a name nor the value a declared shape.
    fn made(&mut self, nodes: &mut Vec<Node>, name: &str, op: Op, inputs: &[ValueId], dtype: DType) -> ValueId {
        let value = self.graph.add_value(&format!("{name}_u"), Fact { dtype: Some(dtype), shape: None });
        nodes.push(Node::new("", op, inputs, &[value]));
        value
    }
}

/// The shape in which the entries of `grid` broadcast along a tensor of `shape`.
fn broadcast(grid: &Grid, shape: &[usize]) -> Vec<usize> {
    let Some(axis) = grid.axis else { return Vec::new() };
    let mut along = vec![1; shape.len()];
    along[axis] = grid.scale.len();
    along
}
