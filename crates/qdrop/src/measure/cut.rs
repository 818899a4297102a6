//! Texts measured at about their own lengths instead of the one that they are padded to.

use crate::data::{Remembered, Samples, Subset, forward_labels};
use crate::engine::device::Device;
use crate::error::{Kind, Result};
use crate::graph::{Dim, Graph, ValueId};
use crate::probe::{Answering, Network, shapes, shapes_of};
use crate::report::Sink;
use crate::tensor::{Rows, Tensor};
use std::cmp::Reverse;
use std::ops::RangeInclusive;
use std::sync::{Mutex, PoisonError};

/// Lengths of samples are multiples of this, so that many have the same and few programs are compiled.
const STEP: usize = 32;
/// How far answers with and without padding may lie apart, as a part of the largest, since their sums differ in order.
const SAME: f32 = 1e-3;

/// Texts of a set without most of their padding, the longest first.
pub(super) struct Cut<'a> {
    samples: Subset<Remembered<'a>>,
    /// Tokens of each.
    lengths: Vec<usize>,
}

impl<'a> Cut<'a> {
    /// The texts in `samples`, cut for `networks` with the inputs of `graphs`. `None` where nothing can be cut: where it is
    /// not known what is padding, a network fixes the length, or the shortest text is not answered as with its padding.
    pub fn new(
        samples: &'a dyn Samples,
        graphs: &[&Graph],
        networks: &[&dyn Answering],
        sink: &dyn Sink,
    ) -> Result<Option<Self>> {
        let Some(tokens) = (0..samples.len()).map(|i| samples.tokens(i)).collect::<Option<Vec<_>>>() else {
            return Ok(None);
        };
        let whole = shapes_of(samples)?;
        let Some(&[length]) = whole.first().map(Vec::as_slice) else { return Ok(None) };
        if whole.iter().any(|s| *s != [length]) || !graphs.iter().all(|graph| is_open(graph)) {
            return Ok(None);
        }
        let cut = |i: &usize| tokens[*i].max(1).next_multiple_of(STEP).min(length);
        let mut order: Vec<usize> = (0..tokens.len()).collect();
        order.sort_by_key(|i| Reverse(cut(i)));
        let lengths: Vec<usize> = order.iter().map(cut).collect();
        let last = order.len() - 1;
        if lengths[last] == length {
            return Ok(None);
        }
        let cut = Cut { samples: Subset::new(Remembered::new(samples, [order[last]]), order)?, lengths };
        let (padded, short) = (cut.samples.get(last)?, cut.get(last)?);
        for network in networks {
            let wanted = network.run(std::slice::from_ref(&padded), sink)?;
            match network.run(std::slice::from_ref(&short), sink) {
                Ok(got) if alike(&wanted, &got)? => {}
                Err(error) if error.kind() == Kind::Interrupted => return Err(error),
                _ => return Ok(None),
            }
        }
        Ok(Some(cut))
    }
}

impl Samples for Cut<'_> {
    fn len(&self) -> usize {
        self.samples.len()
    }

    fn get(&self, index: usize) -> Result<Vec<Tensor>> {
        let length = self.lengths[index];
        let cut = |t: Tensor| Tensor::from_f64(t.dtype(), &[length], &t.to_f64()?[..length]);
        self.samples.get(index)?.into_iter().map(cut).collect()
    }

    forward_labels!(samples);
}

/// Whether the inputs of `graph` may have any size beside the batch.
fn is_open(graph: &Graph) -> bool {
    let open = |(&v, batch): (&ValueId, Option<usize>)| {
        let mut dims = graph.value(v).fact.shape.iter().flatten().enumerate();
        dims.all(|(i, dim)| Some(i) == batch || !matches!(dim, Dim::Known(_)))
    };
    graph.inputs.iter().zip(graph.batch_axes()).all(open)
}

/// Whether a sample is answered by `got` as by `padded`, as far as `got` goes.
fn alike(padded: &[Rows], got: &[Rows]) -> Result<bool> {
    for (padded, got) in padded.iter().zip(got) {
        let (padded, got) = (padded.row(0)?, got.row(0)?);
        let largest = got.iter().fold(0.0f32, |most, v| most.max(v.abs()));
        let near = |(x, y): (&f32, &f32)| x == y || (x - y).abs() <= SAME * largest;
        if got.len() > padded.len() || !padded.iter().zip(got.iter()).all(near) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// A network that is compiled anew where samples are of other shapes than those before.
pub(super) struct Compiled<'a> {
    graph: &'a Graph,
    wanted: Vec<ValueId>,
    device: &'a dyn Device,
    chunk: RangeInclusive<usize>,
    /// For the shapes of the last samples.
    last: Mutex<Option<(Vec<Vec<usize>>, Network)>>,
}

impl<'a> Compiled<'a> {
    /// Prepares `graph` on `device`, at first for samples of `shapes` (no batch axis), which are the largest; running it
    /// yields the values `wanted`.
    pub fn new(graph: &'a Graph, shapes: &[Vec<usize>], wanted: Vec<ValueId>, device: &'a dyn Device) -> Result<Self> {
        let network = Network::new(graph, shapes, wanted.clone(), device)?;
        let (chunk, last) = (network.chunk(), Mutex::new(Some((shapes.to_vec(), network))));
        Ok(Compiled { graph, wanted, device, chunk, last })
    }
}

impl Answering for Compiled<'_> {
    fn chunk(&self) -> RangeInclusive<usize> {
        self.chunk.clone()
    }

    fn run(&self, samples: &[Vec<Tensor>], sink: &dyn Sink) -> Result<Vec<Rows>> {
        let shapes = samples.first().map(|sample| shapes(sample)).unwrap_or_default();
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        // The old one goes first, so that there is only one at a time.
        let network = match last.take() {
            Some((known, network)) if known == shapes => network,
            old => {
                drop(old);
                Network::new(self.graph, &shapes, self.wanted.clone(), self.device)?
            }
        };
        let rows = network.run(samples, sink);
        *last = Some((shapes, network));
        rows
    }
}

#[cfg(test)]
mod tests {
    use super::super::accuracy::scores;
    use super::super::{Deployed, measure_all, measure_deployed};
    use super::*;
    use crate::data::testing::Counted;
    use crate::data::{Target, Window};
    use crate::engine::device::processors;
    use crate::graph::testing::Builder;
    use crate::graph::{Binary, Op, Reduction, Unary};
    use crate::plan::Task;
    use crate::report::{Score, Silent};
    use crate::runtime::Library;
    use crate::tensor::DType;

    /// Tokens of samples.
    const LENGTH: usize = 100;

    /// Texts with what their answers are held against; whether it is known how long they are.
    struct Texts(Vec<(Vec<i64>, Target)>, bool);

    impl Samples for Texts {
        fn len(&self) -> usize {
            self.0.len()
        }
        fn get(&self, index: usize) -> Result<Vec<Tensor>> {
            let tokens = &self.0[index].0;
            let list = |value: &dyn Fn(usize) -> i64| {
                let values: Vec<f64> =
                    (0..LENGTH).map(|i| if i < tokens.len() { value(i) as f64 } else { 0.0 }).collect();
                Tensor::from_f64(DType::I64, &[LENGTH], &values)
            };
            Ok(vec![list(&|i| tokens[i])?, list(&|_| 1)?])
        }
        fn label(&self, _: usize) -> Option<usize> {
            None
        }
        fn target(&self, index: usize) -> Result<Option<Target>> {
            Ok(Some(self.0[index].1.clone()))
        }
        fn tokens(&self, index: usize) -> Option<usize> {
            self.1.then(|| self.0[index].0.len())
        }
        fn name(&self, index: usize) -> String {
            format!("line {index}")
        }
    }

    /// Uneven numbers of tokens, neither rising nor falling.
    const LENGTHS: [usize; 8] = [40, 7, 100, 33, 64, 65, 12, 90];

    fn tokens(text: usize) -> Vec<i64> {
        (0..LENGTHS[text]).map(|i| ((i * 37 + text * 11) % 19) as i64 - 9).collect()
    }

    /// Sentences, of which some are of the class that the sum of their tokens tells.
    fn sentences(known: bool) -> Texts {
        let class = |i: usize| usize::from((tokens(i).iter().sum::<i64>() < 0) != (i % 4 == 3));
        Texts((0..LENGTHS.len()).map(|i| (tokens(i), Target::Class(class(i)))).collect(), known)
    }

    /// Windows of two questions, each token one word of the text.
    fn windows(known: bool) -> Texts {
        let context: String = (0..LENGTHS.len() * LENGTH).map(|word| format!("{word:03} ")).collect();
        let window = |text: usize| {
            let begin = |i: usize| 4 * (text * LENGTH + i) as u32;
            let inside = |i: &usize| *i > 0 && *i < LENGTHS[text];
            let offsets = (0..LENGTH).map(|i| Some(i).filter(inside).map(|i| (begin(i), begin(i) + 3))).collect();
            // Which words are in both texts tells one answer from another.
            let answers = [context[..2000].to_string()];
            Window { question: text / 4, context: context.as_str().into(), offsets, answers: answers.into() }
        };
        Texts((0..LENGTHS.len()).map(|i| (tokens(i), Target::Window(window(i)))).collect(), known)
    }

    /// A network on tokens and their mask, whose length is `dim`: the sum of a text's tokens, to its padding too where it is
    /// `loud`, as scores of two classes or beside each token.
    fn network(dim: &Dim, spans: bool, loud: bool) -> Graph {
        let mut b = Builder::new();
        let shape = || vec![Dim::Symbol("n".into()), dim.clone()];
        let inputs = ["input_ids", "attention_mask"].map(|name| b.input(name, shape()));
        inputs.iter().for_each(|&v| b.graph.value_mut(v).fact.dtype = Some(DType::I64));
        let [x, m] = inputs.map(|v| b.node(Op::Cast { to: DType::F32 }, &[v]));
        let real = b.binary(Binary::Mul, x, m);
        let cosine = b.node(Op::Unary(Unary::Cos), &[x]);
        let axes = b.graph.add_constant("axes", Tensor::i64s(vec![1]));
        let sum = Op::Reduce { kind: Reduction::Sum, keepdims: true, noop_with_empty_axes: false };
        let sum = b.node(sum, &[if loud { cosine } else { real }, axes]);
        let negative = b.node(Op::Unary(Unary::Neg), &[sum]);
        let outputs = match spans {
            false => vec![b.node(Op::Concat { axis: 1 }, &[sum, negative])],
            true => vec![b.binary(Binary::Add, real, sum), b.binary(Binary::Add, cosine, sum)],
        };
        b.finish(&outputs)
    }

    fn open() -> Dim {
        Dim::Symbol("t".into())
    }

    /// What a network was asked.
    struct Asked<'a>(Compiled<'a>, Mutex<Vec<usize>>);

    impl Answering for Asked<'_> {
        fn chunk(&self) -> RangeInclusive<usize> {
            self.0.chunk()
        }
        fn run(&self, samples: &[Vec<Tensor>], sink: &dyn Sink) -> Result<Vec<Rows>> {
            self.1.lock().unwrap().extend(samples.iter().map(|s| s[0].len()));
            self.0.run(samples, sink)
        }
    }

    /// The score of `graph` for `texts`, and how long those were that it was asked.
    fn asked(graph: &Graph, texts: &dyn Samples, task: Task) -> (Score, Vec<usize>) {
        let device = &processors(2).unwrap();
        let compiled = Compiled::new(graph, &[vec![LENGTH], vec![LENGTH]], graph.outputs.clone(), device).unwrap();
        let asked = Asked(compiled, Mutex::default());
        let scores = scores((&[graph], &[&asked]), texts, Some(task), device, &mut Silent).unwrap();
        (scores[0].clone(), asked.1.into_inner().unwrap())
    }

    #[test]
    fn texts_run_at_their_lengths_and_score_as_with_their_padding() {
        for (spans, task) in [(false, Task::Sst2), (true, Task::Squad)] {
            let graph = network(&open(), spans, false);
            let texts = |known| if spans { windows(known) } else { sentences(known) };
            let (score, lengths) = asked(&graph, &texts(true), task);
            // The shortest is also run with its padding, to see that nothing changes.
            assert_eq!(lengths, [100, 32, 100, 96, 96, 64, 64, 64, 32, 32]);
            let (padded, lengths) = asked(&graph, &texts(false), task);
            assert_eq!(lengths, [100; 8]);
            assert_eq!(score, padded);
            assert!(score.metrics.values().any(|&v| v > 0.0 && v < 100.0), "proves nothing: {score:?}");

            let counted = Counted::new(texts(true));
            let both =
                measure_all(&[&graph, &graph], &Remembered::first(&counted), Some(task), 1, &mut Silent).unwrap();
            assert_eq!(both, [padded.clone(), padded.clone()]);
            assert_eq!(counted.times(), [1; 8]);

            let Some(library) = qdrop_testing::onnxruntime() else { continue };
            let file = Deployed::of_graph(&Library::load(&library).unwrap(), &graph, "texts", 1).unwrap();
            let counted = Counted::new(texts(true));
            let both = measure_deployed(&[&file, &file], &counted, Some(task), &mut Silent).unwrap();
            assert_eq!(both, [padded.clone(), padded]);
            assert_eq!(counted.times(), [1; 8]);
        }
    }

    #[test]
    fn padding_stays_where_the_length_is_fixed_or_padding_counts() {
        for graph in [network(&Dim::Known(LENGTH), false, false), network(&open(), false, true)] {
            let (score, lengths) = asked(&graph, &sentences(true), Task::Sst2);
            assert!(lengths.iter().skip(2).all(|&n| n == LENGTH), "{lengths:?}");
            assert_eq!(score, asked(&graph, &sentences(false), Task::Sst2).0);
        }
        // One network that needs the padding keeps it for all.
        let (quiet, loud) = (network(&open(), false, false), network(&open(), false, true));
        let want = [&quiet, &loud].map(|graph| asked(graph, &sentences(false), Task::Sst2).0);
        let found = measure_all(&[&quiet, &loud], &sentences(true), Some(Task::Sst2), 1, &mut Silent).unwrap();
        assert_eq!(found, want);
    }
}
