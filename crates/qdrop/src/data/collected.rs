//! Samples that a program hands over one by one, kept within a limit on memory.

use super::{Geometry, InputSpec, Prepare, Samples, Target, arrays};
use crate::error::{Error, Kind, Result};
use crate::tensor::{DType, Data, Tensor, read_at};
use std::fs::File;
use std::io::Write;

/// Gathers samples that a program makes one by one, such as those of a data loader: each is checked when it is added, kept in
/// memory as long as all of them stay within a limit, and else in a temporary file without a name.
///
/// ```
/// use qdrop::data::{Collector, InputSpec, Samples, Target};
/// use qdrop::plan::Input;
/// use qdrop::tensor::{DType, Tensor};
///
/// let inputs = [InputSpec::new("x", DType::F32, [Some(2)])];
/// let mut collector = Collector::new(&inputs, &Input::default(), 1 << 20)?;
/// collector.push(vec![Tensor::f32(&[2], vec![0.5, 1.0])], Some(Target::Class(3)))?;
/// let error = collector.push(vec![Tensor::f32(&[3], vec![0.0; 3])], None).unwrap_err();
/// assert_eq!(error.places(), ["sample 1"]);
/// let samples = collector.finish();
/// assert_eq!((samples.len(), samples.label(0)), (1, Some(3)));
/// # Ok::<(), qdrop::Error>(())
/// ```
#[derive(Debug)]
pub struct Collector {
    inputs: Vec<InputSpec>,
    /// How images of bytes become network input, if anything is to be done to them.
    prepare: Option<Prepare>,
    limit: u64,
    set: Collected,
}

/// Samples that were handed over.
#[derive(Debug)]
pub(crate) struct Collected {
    names: Vec<String>,
    /// Type and shape of each tensor of a sample, the same in all samples.
    layout: Vec<(DType, Vec<usize>)>,
    /// Bytes of a sample.
    width: usize,
    /// The first samples, one behind the other.
    memory: Vec<u8>,
    /// The samples that did not fit into memory.
    file: Option<File>,
    targets: Vec<Option<Target>>,
    geometries: Vec<Option<Geometry>>,
}

impl Collector {
    /// Gathers samples for `inputs`, of which at most `memory` bytes stay in memory. `uint8` tensors of rank 3 are images,
    /// `[H, W, C]` or `[C, H, W]`, and are prepared as `input` says, if it says anything about images.
    pub fn new(inputs: &[InputSpec], input: &crate::plan::Input, memory: u64) -> Result<Self> {
        let prepare = Prepare::resolve(input)?.for_inputs(inputs);
        prepare.check()?;
        let set = Collected {
            names: inputs.iter().map(|i| i.name.clone()).collect(),
            layout: Vec::new(),
            width: 0,
            memory: Vec::new(),
            file: None,
            targets: Vec::new(),
            geometries: Vec::new(),
        };
        let prepare = (!prepare.is_identity()).then_some(prepare);
        Ok(Collector { inputs: inputs.to_vec(), prepare, limit: memory, set })
    }

    /// Whether `uint8` images are prepared, whatever their size, rather than taken as network input.
    pub fn prepares_images(&self) -> bool {
        self.prepare.is_some()
    }

    /// Number of samples so far.
    pub fn len(&self) -> usize {
        self.set.targets.len()
    }

    /// Whether there is no sample yet.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Adds a sample: one tensor per input, without the batch axis, and the right answer for it if it is known. It is an error
    /// if a tensor does not fit its input or the samples before; nothing is added then.
    pub fn push(&mut self, tensors: Vec<Tensor>, target: Option<Target>) -> Result<()> {
        let index = self.len();
        self.add(tensors, target).map_err(|e| if e.kind() == Kind::Io { e } else { e.at(format!("sample {index}")) })
    }

    fn add(&mut self, tensors: Vec<Tensor>, target: Option<Target>) -> Result<()> {
        if tensors.len() != self.inputs.len() {
            let (want, got) = (self.inputs.len(), tensors.len());
            return Err(Error::data(format!("the network has {want} inputs, the sample has {got}")));
        }
        let mut geometry = None;
        let prepared = tensors.into_iter().map(|tensor| match (&self.prepare, tensor.data()) {
            (Some(prepare), Data::U8(pixels)) if tensor.rank() == 3 => {
                let image = arrays::pixels(tensor.shape(), pixels)?;
                geometry = Some(prepare.geometry(image.height, image.width)?);
                prepare.apply(image)
            }
            _ => Ok(tensor),
        });
        let prepared = prepared.collect::<Result<Vec<_>>>()?;
        let fitted = self.inputs.iter().zip(prepared).map(|(input, tensor)| input.fitted(tensor));
        let fitted = fitted.collect::<Result<Vec<_>>>()?;
        let layout: Vec<(DType, Vec<usize>)> = fitted.iter().map(|t| (t.dtype(), t.shape().to_vec())).collect();
        let bytes: Option<Vec<Vec<u8>>> = fitted.iter().map(Tensor::to_le_bytes).collect();
        let bytes = bytes.ok_or_else(|| Error::unsupported("samples of strings are not supported"))?.concat();
        if self.is_empty() {
            self.set.width = bytes.len();
            self.set.layout = layout;
        } else if layout != self.set.layout {
            let pair = self.inputs.iter().zip(self.set.layout.iter().zip(&layout)).find(|(_, (a, b))| a != b);
            let (input, ((.., want), (.., got))) = pair.ok_or_else(|| Error::internal("equal layouts differ"))?;
            let error = Error::data(format!("expected shape {want:?} as in the samples before, got {got:?}"));
            return Err(error.at(format!("input `{}`", input.name)).hint("bring all samples to one shape"));
        }
        self.set.store(&bytes, self.limit)?;
        self.set.targets.push(target);
        self.set.geometries.push(geometry);
        Ok(())
    }

    /// The samples that were added.
    pub fn finish(self) -> impl Samples + Send + 'static {
        self.into_set()
    }

    pub(crate) fn into_set(mut self) -> Collected {
        self.set.memory.shrink_to_fit();
        self.set
    }
}

impl Collected {
    /// Adds the bytes of a sample behind those that are there.
    fn store(&mut self, bytes: &[u8], limit: u64) -> Result<()> {
        if self.file.is_none() && (self.memory.len() + bytes.len()) as u64 <= limit {
            self.memory.extend_from_slice(bytes);
            return Ok(());
        }
        let folder = std::env::temp_dir();
        let io = |e| Error::io(&folder, e).hint("make room there, or set TMPDIR to a folder with more room");
        let file = match &mut self.file {
            Some(file) => file,
            none => none.insert(tempfile::tempfile_in(&folder).map_err(io)?),
        };
        file.write_all(bytes).map_err(io)
    }

    /// Samples in memory.
    fn in_memory(&self) -> usize {
        self.memory.len().checked_div(self.width).unwrap_or(self.targets.len())
    }
}

impl Samples for Collected {
    fn len(&self) -> usize {
        self.targets.len()
    }

    fn get(&self, index: usize) -> Result<Vec<Tensor>> {
        let (width, before) = (self.width, self.in_memory());
        let mut read;
        let mut bytes = if index < before {
            &self.memory[index * width..(index + 1) * width]
        } else {
            read = vec![0; width];
            let file = self.file.as_ref().ok_or_else(|| Error::internal("a sample is in no file"))?;
            let at = ((index - before) * width) as u64;
            read_at(file, &mut read, at).map_err(|e| Error::io(&std::env::temp_dir(), e))?;
            &read[..]
        };
        let one = |(dtype, shape): &(DType, Vec<usize>)| {
            let (own, rest) = bytes.split_at(shape.iter().product::<usize>() * dtype.bits() / 8);
            bytes = rest;
            Tensor::from_le_bytes(*dtype, shape.clone(), own)
        };
        self.layout.iter().map(one).collect()
    }

    fn label(&self, index: usize) -> Option<usize> {
        match self.targets.get(index)? {
            Some(Target::Class(class)) => Some(*class),
            _ => None,
        }
    }

    fn target(&self, index: usize) -> Result<Option<Target>> {
        Ok(self.targets[index].clone())
    }

    fn geometry(&self, index: usize) -> Option<Geometry> {
        self.geometries.get(index).copied().flatten()
    }

    fn name(&self, index: usize) -> String {
        index.to_string()
    }

    fn held_bytes(&self) -> u64 {
        self.memory.len() as u64
    }

    fn input_names(&self) -> Option<Vec<String>> {
        Some(self.names.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::Input;

    fn collector(memory: u64) -> Collector {
        let inputs = [InputSpec::new("x", DType::F32, [Some(2)]), InputSpec::new("ids", DType::I64, [None])];
        Collector::new(&inputs, &Input::default(), memory).unwrap()
    }

    fn sample(i: usize) -> Vec<Tensor> {
        vec![Tensor::f32(&[2], vec![i as f32, 0.5]), Tensor::i64s(vec![i as i64, -1, 7])]
    }

    #[test]
    fn samples_read_the_same_from_memory_and_file() {
        for (memory, kept) in [(u64::MAX, 5), (70, 2), (0, 0)] {
            let mut collector = collector(memory);
            for i in 0..5 {
                collector.push(sample(i), (i > 0).then_some(Target::Class(i))).unwrap();
            }
            let set = collector.into_set();
            assert_eq!((set.len(), set.in_memory(), set.held_bytes()), (5, kept, 32 * kept as u64));
            (0..5).rev().for_each(|i| assert_eq!(set.get(i).unwrap(), sample(i)));
            assert_eq!((set.label(0), set.label(4)), (None, Some(4)));
        }
    }

    #[test]
    fn a_sample_that_does_not_fit_is_named_and_not_added() {
        let mut collector = collector(1 << 20);
        collector.push(sample(0), None).unwrap();
        let refusals = [
            (vec![Tensor::f32(&[2], vec![0.0; 2])], "sample 1: the network has 2 inputs, the sample has 1"),
            (
                vec![Tensor::f32(&[3], vec![0.0; 3]), Tensor::i64s(vec![1])],
                "sample 1: samples have shape [3], network input `x` expects [2]",
            ),
            (
                vec![Tensor::f32(&[2], vec![0.0; 2]), Tensor::i64s(vec![1])],
                "sample 1: input `ids`: expected shape [3] as in the samples before, got [1]; bring all samples to one shape",
            ),
        ];
        for (tensors, message) in refusals {
            assert_eq!(collector.push(tensors, None).unwrap_err().to_string(), message);
        }
        assert_eq!(collector.len(), 1);
    }

    #[test]
    fn images_of_bytes_are_prepared_as_those_of_files_are() {
        let inputs = [InputSpec::new("image", DType::F32, [Some(3), Some(2), Some(2)])];
        let input = Input { divisor: Some(255.0), ..Input::default() };
        let mut collector = Collector::new(&inputs, &input, 0).unwrap();
        assert!(collector.prepares_images());
        let image = Tensor::new(vec![2, 2, 3], Data::U8(vec![255; 12])).unwrap();
        collector.push(vec![image], None).unwrap();
        let set = collector.into_set();
        assert_eq!(set.get(0).unwrap(), [Tensor::f32(&[3, 2, 2], vec![1.0; 12])]);
        assert!(set.geometry(0).is_some());
    }
}
