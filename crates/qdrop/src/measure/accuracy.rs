//! What a task measures about a network.

use super::cut::{Compiled, Cut};
use super::detection::{self, Detected};
use super::images;
use super::open::computes;
use super::segmentation;
use crate::data::{Samples, Target, Window};
use crate::engine::device::{Device, processors};
use crate::engine::facts;
use crate::error::{Error, Kind, Result};
use crate::eval::{Classification, Metrics, language, squad};
use crate::graph::{Graph, ValueId};
use crate::plan::{Answer, Task};
use crate::probe::{Answering, answer, input_shapes, largest, shapes_of};
use crate::report::{Score, Sink};
use crate::tensor::Rows;
use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::Arc;

/// The metrics of `task` for `graph` (simplified) on `samples`, which must have what answers are held against; without a
/// task top-1 and top-5. `threads` 0 takes all cores.
pub fn measure(
    graph: &Graph,
    samples: &dyn Samples,
    task: Option<Task>,
    threads: usize,
    sink: &mut dyn Sink,
) -> Result<Score> {
    measure_all(&[graph], samples, task, threads, sink).and_then(only)
}

/// As [`measure`], for several networks at once: every sample is decoded once, and texts run without most of their padding
/// where that changes no answer.
pub fn measure_all(
    graphs: &[&Graph],
    samples: &dyn Samples,
    task: Option<Task>,
    threads: usize,
    sink: &mut dyn Sink,
) -> Result<Vec<Score>> {
    let shapes = shapes_of(samples)?;
    let device = &processors(threads)?;
    match task {
        Some(Task::Coco) => {
            let detected = images::measure_all::<detection::Tally>(graphs, &shapes, samples, device, sink)?;
            return Ok(detected.into_iter().map(|d| d.score).collect());
        }
        Some(Task::Segmentation) => {
            return images::measure_all::<segmentation::Tally>(graphs, &shapes, samples, device, sink);
        }
        _ => {}
    }
    let networks = graphs.iter().map(|graph| Compiled::new(graph, &shapes, outputs(graph, task)?, device));
    let networks = networks.collect::<Result<Vec<_>>>()?;
    let networks: Vec<&dyn Answering> = networks.iter().map(|n| n as &dyn Answering).collect();
    scores((graphs, &networks), samples, task, device, sink)
}

/// What `graphs` (simplified) detect in annotated images: every image is decoded once. `threads` 0 takes all cores.
pub fn detect_all(
    graphs: &[&Graph],
    samples: &dyn Samples,
    threads: usize,
    sink: &mut dyn Sink,
) -> Result<Vec<Detected>> {
    images::measure_all::<detection::Tally>(graphs, &shapes_of(samples)?, samples, &processors(threads)?, sink)
}

/// What was measured about one network.
pub(super) fn only<T>(scores: Vec<T>) -> Result<T> {
    scores.into_iter().next().ok_or_else(|| Error::internal("a network was not measured"))
}

/// The metrics of `task` for what `networks` with the inputs of `graphs` answer, whose values are those that [`answering`]
/// tells.
pub(super) fn scores(
    (graphs, networks): (&[&Graph], &[&dyn Answering]),
    samples: &dyn Samples,
    task: Option<Task>,
    device: &dyn Device,
    sink: &mut dyn Sink,
) -> Result<Vec<Score>> {
    let cut = Cut::new(samples, graphs, networks, sink)?;
    let samples = cut.as_ref().map_or(samples, |cut| cut as &dyn Samples);
    let Some(task) = task else {
        let found = classify(networks, samples, device, sink)?;
        let score = |metrics: Metrics| Score::new(metrics.samples, [("top1", metrics.top1), ("top5", metrics.top5)]);
        return Ok(found.into_iter().map(score).collect());
    };
    let mut answers: Vec<Answers> = networks.iter().map(|_| Answers::default()).collect();
    answer(networks, samples, device, sink, |first, values| {
        for i in 0..values.first().and_then(|v| v.first()).map_or(0, Rows::len) {
            let at = |e: Error| e.at(format!("sample `{}`", samples.name(first + i)));
            let target = samples.target(first + i)?.ok_or_else(|| at(Error::data("expected a label, got none")))?;
            for (answers, values) in answers.iter_mut().zip(&values) {
                let rows = values.iter().map(|rows| rows.row(i)).collect::<Result<Vec<_>>>()?;
                answers.add(&rows.iter().map(|r| &**r).collect::<Vec<_>>(), target.clone()).map_err(at)?;
            }
        }
        Ok(())
    })?;
    answers.into_iter().map(|a| a.score(task)).collect()
}

/// Accuracies of what `networks` answer first.
fn classify(
    networks: &[&dyn Answering],
    samples: &dyn Samples,
    device: &dyn Device,
    sink: &mut dyn Sink,
) -> Result<Vec<Metrics>> {
    let mut counts: Vec<Classification> = networks.iter().map(|_| Classification::default()).collect();
    answer(networks, samples, device, sink, |first, values| {
        for (counts, values) in counts.iter_mut().zip(&values) {
            for (i, scores) in values.iter().flat_map(Rows::iter).enumerate() {
                let name = samples.name(first + i);
                let Some(label) = samples.label(first + i) else {
                    return Err(Error::data(format!("sample `{name}` has no label")));
                };
                counts.add(&name, &scores?, label)?;
            }
        }
        Ok(())
    })?;
    let found: Option<Vec<Metrics>> = counts.iter().map(Classification::metrics).collect();
    found.ok_or_else(|| Error::data("expected samples, got none"))
}

/// That `graph` (simplified) answers what `task` asks and that every sample has what its answer is held against; `shapes`
/// are those of one sample, without the batch axis. No sample is tokenised for classes and numbers.
pub fn check_task(graph: &Graph, shapes: &[Vec<usize>], samples: &dyn Samples, task: Task) -> Result<()> {
    match task {
        Task::Coco => return images::check::<detection::Tally>(graph, shapes, samples),
        Task::Segmentation => return images::check::<segmentation::Tally>(graph, shapes, samples),
        _ => {}
    }
    let facts = facts::infer(graph, &input_shapes(graph, Some(shapes))?)?;
    let sizes = outputs(graph, Some(task))?
        .into_iter()
        .map(|v| Ok(facts.require(graph, v)?.numel()))
        .collect::<Result<Vec<usize>>>()?;
    check_answers(&sizes, shapes, samples, task)
}

/// The first of the outputs that answer `task` (without one, of the scores) which cannot be computed for `graph`
/// (simplified); `shapes` as in [`check_task`]. The sizes of answers about images may depend on data.
pub fn unknown_answer(graph: &Graph, shapes: &[Vec<usize>], task: Option<Task>) -> Result<Option<String>> {
    if task.is_some_and(|t| matches!(t.answer(), Answer::Boxes | Answer::Pixels)) && computes(graph, shapes)? {
        return Ok(None);
    }
    let facts = facts::infer(graph, &input_shapes(graph, Some(shapes))?)?;
    let unknown = outputs(graph, task)?.into_iter().find(|&v| facts.get(v).is_none());
    Ok(unknown.map(|v| graph.value(v).name.clone()))
}

/// As [`check_task`], for answers of `sizes` elements a sample.
pub(super) fn check_answers(sizes: &[usize], shapes: &[Vec<usize>], samples: &dyn Samples, task: Task) -> Result<()> {
    let tokens = shapes.first().map_or(0, |s| s.iter().product());
    let (want, fits) = match task.answer() {
        Answer::Classes(classes) => (format!("{} scores", classes.len()), *sizes == [classes.len()]),
        Answer::Number => ("one number".into(), *sizes == [1]),
        Answer::Span => (
            format!("two outputs of {tokens} scores, or one of twice as many"),
            *sizes == [tokens, tokens] || *sizes == [2 * tokens],
        ),
        Answer::Boxes | Answer::Pixels => {
            return Err(Error::internal("answers about images are not checked by the size of outputs"));
        }
    };
    if !fits {
        let got: Vec<String> = sizes.iter().map(usize::to_string).collect();
        let message =
            format!("task `{task}` needs {want} per sample, the network has outputs of {}", got.join(" and "));
        return Err(Error::data(message).hint("give the task that the network was trained for"));
    }
    if let Some(i) = (0..samples.len()).find(|&i| task != Task::Squad && !has_target(samples, i)) {
        let error = Error::data("expected a label, got none").at(format!("sample `{}`", samples.name(i)));
        return Err(error.hint("give a file with labels, such as dev.tsv"));
    }
    Ok(())
}

fn has_target(samples: &dyn Samples, index: usize) -> bool {
    samples.target(index).is_ok_and(|t| t.is_some())
}

/// The outputs that answer `task`.
fn outputs(graph: &Graph, task: Option<Task>) -> Result<Vec<ValueId>> {
    let names: Vec<&str> = graph.outputs.iter().map(|&v| graph.value(v).name.as_str()).collect();
    Ok(answering(&names, task)?.into_iter().map(|i| graph.outputs[i]).collect())
}

/// Which of the outputs of these `names` answer `task`; without a task the first.
pub(super) fn answering(names: &[&str], task: Option<Task>) -> Result<Vec<usize>> {
    if names.is_empty() {
        return Err(Error::model("the network has no output"));
    }
    let Some(task) = task else { return Ok(vec![0]) };
    if matches!(task, Task::Coco | Task::Segmentation) {
        return Ok((0..names.len()).collect());
    }
    let named = |part: &str| names.iter().position(|name| name.contains(part));
    if task != Task::Squad || names.len() == 1 {
        return Ok(vec![named("logits").unwrap_or(0)]);
    }
    match (named("start"), named("end")) {
        (Some(start), Some(end)) if start != end => Ok(vec![start, end]),
        _ => Ok(vec![0, 1]),
    }
}

/// What a network answered, and what was right.
#[derive(Default)]
struct Answers {
    classes: (Vec<usize>, Vec<usize>),
    numbers: (Vec<f64>, Vec<f64>),
    questions: BTreeMap<usize, Asked>,
}

/// A question with the best answer in its windows so far.
struct Asked {
    truths: Arc<[String]>,
    best: Option<Found>,
}

/// An answer in a window.
struct Found {
    /// What is compared: the score and, among equal ones, how early the window begins.
    rank: (f32, Reverse<u32>),
    text: String,
}

impl Answers {
    fn add(&mut self, outputs: &[&[f32]], target: Target) -> Result<()> {
        if let Some(at) = outputs.iter().flat_map(|o| o.iter()).position(|x| x.is_nan()) {
            return Err(Error::new(Kind::Numeric, format!("element {at} of the network's output is NaN")));
        }
        let first = outputs.first().copied().unwrap_or_default();
        match target {
            Target::Class(class) => {
                // Among equal scores the lowest class.
                self.classes.0.push(largest(first).unwrap_or_default());
                self.classes.1.push(class);
            }
            Target::Number(number) => {
                self.numbers.0.push(first.first().copied().map_or(0.0, f64::from));
                self.numbers.1.push(number);
            }
            Target::Window(window) => self.window(outputs, window)?,
            Target::Objects(_) => {
                return Err(Error::data("expected a label, got annotated objects").hint("give --task coco"));
            }
            Target::Pixels(_) => {
                return Err(Error::data("expected a label, got a label map").hint("give --task segmentation"));
            }
        }
        Ok(())
    }

    fn window(&mut self, outputs: &[&[f32]], window: Window) -> Result<()> {
        let (begins, ends) = match outputs {
            [begins, ends] => (begins.to_vec(), ends.to_vec()),
            // Begin and end of each token side by side.
            [both] => both.chunks_exact(2).map(|pair| (pair[0], pair[1])).unzip(),
            _ => return Err(Error::internal(format!("expected one or two outputs, got {}", outputs.len()))),
        };
        let best = squad::best_spans(&begins, &ends, &window.offsets).into_iter().next();
        let begin = window.offsets.iter().flatten().next().map_or(0, |o| o.0);
        let best = best.map(|s| Found {
            rank: (s.score, Reverse(begin)),
            text: window.context.get(s.start..s.end).unwrap_or_default().to_string(),
        });
        let asked = self.questions.entry(window.question);
        let asked = asked.or_insert_with(|| Asked { truths: window.answers, best: None });
        if best.as_ref().map(|b| b.rank) > asked.best.as_ref().map(|b| b.rank) {
            asked.best = best;
        }
        Ok(())
    }

    fn score(&self, task: Task) -> Result<Score> {
        let ((classes, labels), (numbers, truths)) = (&self.classes, &self.numbers);
        let samples = labels.len().max(truths.len()).max(self.questions.len());
        if samples == 0 {
            return Err(Error::data("expected samples, got none"));
        }
        let mean = |one: &dyn Fn(&str, &[String]) -> f64| {
            let of = |asked: &Asked| one(asked.best.as_ref().map_or("", |b| &b.text), &asked.truths);
            100.0 * self.questions.values().map(of).sum::<f64>() / samples as f64
        };
        let value = |metric: &&'static str| {
            let value = match *metric {
                "accuracy" => language::accuracy(classes, labels),
                "f1" if task == Task::Squad => mean(&squad::word_f1),
                "f1" => language::f1(classes, labels),
                "matthews" => language::matthews(classes, labels),
                "pearson" => language::pearson(numbers, truths),
                "spearman" => language::spearman(numbers, truths),
                "exact_match" => mean(&|answer, truths| f64::from(u8::from(squad::exact_match(answer, truths)))),
                other => return Err(Error::internal(format!("no metric `{other}`"))),
            };
            Ok((*metric, value))
        };
        Ok(Score::new(samples, task.metrics().iter().map(value).collect::<Result<Vec<_>>>()?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::testing::Counted;
    use crate::graph::{Dim, Fact, Node, Op, Unary};
    use crate::report::{Event, Silent};
    use crate::tensor::{DType, Tensor};

    /// Samples of numbers with what their answers are held against.
    struct Rows(Vec<(Vec<i64>, Option<Target>)>);

    impl Samples for Rows {
        fn len(&self) -> usize {
            self.0.len()
        }
        fn get(&self, index: usize) -> Result<Vec<Tensor>> {
            let values: Vec<f64> = self.0[index].0.iter().map(|&v| v as f64).collect();
            Ok(vec![Tensor::from_f64(DType::I64, &[values.len()], &values)?])
        }
        fn label(&self, index: usize) -> Option<usize> {
            match self.0[index].1 {
                Some(Target::Class(class)) => Some(class),
                _ => None,
            }
        }
        fn target(&self, index: usize) -> Result<Option<Target>> {
            Ok(self.0[index].1.clone())
        }
        fn name(&self, index: usize) -> String {
            format!("line {index}")
        }
    }

    /// Hands `size` integers out as numbers, once per name.
    fn graph(size: usize, outputs: &[&str], log: bool) -> Graph {
        let mut g = Graph { opset: 13, ..Graph::default() };
        let shape = vec![Dim::Symbol("n".into()), Dim::Known(size)];
        let x = g.add_value("input_ids", Fact { dtype: Some(DType::I64), shape: Some(shape) });
        g.inputs.push(x);
        for name in outputs {
            let cast = g.add_value(&format!("{name}.cast"), Fact::default());
            let y = g.add_value(name, Fact::default());
            let op = if log { Unary::Log } else { Unary::Abs };
            g.nodes.push(Node::new(format!("{name}/cast"), Op::Cast { to: DType::F32 }, &[x], &[cast]));
            g.nodes.push(Node::new(format!("{name}/op"), Op::Unary(op), &[cast], &[y]));
            g.outputs.push(y);
        }
        g
    }

    fn classes(rows: &[([i64; 2], usize)]) -> Rows {
        Rows(rows.iter().map(|&(x, class)| (x.to_vec(), Some(Target::Class(class)))).collect())
    }

    fn metrics(graph: &Graph, rows: &Rows, task: Task) -> Vec<(String, f64)> {
        check_task(graph, &shapes_of(rows).unwrap(), rows, task).unwrap();
        let one = measure(graph, rows, Some(task), 1, &mut Silent).unwrap();
        assert_eq!(measure(graph, rows, Some(task), 2, &mut Silent).unwrap(), one);
        one.metrics.into_iter().collect()
    }

    /// Of 40 samples whose second score is larger, every fourth is of the first class.
    fn pairs() -> Rows {
        classes(&(0..40).map(|i| ([1, 2], usize::from(i % 4 != 0))).collect::<Vec<_>>())
    }

    #[test]
    fn accuracy_counts_every_sample_on_any_number_of_threads() {
        let g = graph(2, &["y"], false);
        for threads in [1, 2] {
            let score = measure(&g, &pairs(), None, threads, &mut Silent).unwrap();
            assert_eq!(score, Score::new(40, [("top1", 75.0), ("top5", 100.0)]));
        }
        let error = measure(&g, &classes(&[([0, 0], 9)]), None, 1, &mut Silent).unwrap_err();
        assert_eq!(error.kind(), Kind::Data);
        assert!(measure(&g, &Rows(vec![]), None, 1, &mut Silent).is_err());
    }

    #[test]
    fn several_networks_are_measured_on_samples_that_are_decoded_once() {
        let (a, mut b) = (graph(2, &["y"], false), graph(2, &["y"], false));
        b.nodes[1].op = Op::Unary(Unary::Neg);
        let samples = Counted::new(pairs());
        let both = measure_all(&[&a, &b], &samples, None, 2, &mut Silent).unwrap();
        // The first sample also tells the shapes.
        assert_eq!(samples.asked(), 41);
        let alone = [&a, &b].map(|g| measure(g, &pairs(), None, 1, &mut Silent).unwrap());
        assert_eq!(both, alone);
        assert_ne!(both[0], both[1]);
    }

    #[test]
    fn a_sink_can_stop_it() {
        struct Stop;
        impl Sink for Stop {
            fn event(&mut self, _: &Event) {}
            fn cancelled(&self) -> bool {
                true
            }
        }
        let error = measure(&graph(2, &["y"], false), &pairs(), None, 1, &mut Stop).unwrap_err();
        assert_eq!(error.kind(), Kind::Interrupted);
    }

    #[test]
    fn classes_and_numbers_have_their_tasks_metrics() {
        let (two, one) = (graph(2, &["other", "logits"], false), graph(1, &["y"], false));
        // A tie goes to class 0.
        let rows = classes(&[([1, 2], 1), ([2, 1], 1), ([2, 1], 0), ([3, 3], 0)]);
        assert_eq!(metrics(&two, &rows, Task::Sst2), [("accuracy".into(), 75.0)]);
        assert_eq!(metrics(&two, &rows, Task::Mrpc), [("accuracy".into(), 75.0), ("f1".into(), 200.0 / 3.0)]);
        let [(name, value)] = &metrics(&two, &rows, Task::Cola)[..] else { panic!() };
        assert!(name == "matthews" && (value - 100.0 * 2.0 / 12f64.sqrt()).abs() < 1e-9, "{name} {value}");
        let rows = Rows([1, 5, 9].iter().map(|&x| (vec![x], Some(Target::Number(x as f64 / 2.0)))).collect());
        let found = metrics(&one, &rows, Task::Stsb);
        assert_eq!(found.iter().map(|m| m.0.as_str()).collect::<Vec<_>>(), ["pearson", "spearman"]);
        assert!(found.iter().all(|m| (m.1 - 100.0).abs() < 1e-9), "{found:?}");
    }

    #[test]
    fn the_best_answer_over_all_windows_of_a_question_counts() {
        let window = |question, offsets: [Option<(u32, u32)>; 3], truth: &str| {
            let (context, answers) = ("the red fox".into(), vec![truth.to_string()].into());
            Some(Target::Window(Window { question, context, offsets: offsets.to_vec(), answers }))
        };
        // The question, outside the text, has the largest scores.
        let rows = Rows(vec![
            (vec![9, 1, 4], window(0, [None, Some((0, 3)), Some((4, 7))], "fox")),
            (vec![9, 2, 7], window(0, [None, Some((4, 7)), Some((8, 11))], "fox")),
            (vec![9, 5, 5], window(1, [None, Some((4, 7)), Some((8, 11))], "the red")),
        ]);
        let want = [("exact_match".to_string(), 100.0), ("f1".to_string(), 100.0)];
        assert_eq!(metrics(&graph(3, &["end", "start"], false), &rows, Task::Squad), want);
        let score = measure(&graph(3, &["a", "b"], false), &rows, Some(Task::Squad), 1, &mut Silent).unwrap();
        assert_eq!(score.samples, 2);
    }

    #[test]
    fn networks_and_files_that_do_not_fit_the_task_are_refused() {
        let refusal = |graph: &Graph, rows: &Rows, task| {
            check_task(graph, &shapes_of(rows).unwrap(), rows, task).unwrap_err().to_string()
        };
        let rows = classes(&[([1, 2], 1)]);
        let two = graph(2, &["logits"], false);
        assert_eq!(
            refusal(&two, &rows, Task::Stsb),
            "task `stsb` needs one number per sample, the network has outputs of 2; give the task that the network was \
             trained for"
        );
        assert!(refusal(&two, &rows, Task::Mnli).starts_with("task `mnli` needs 3 scores per sample, the network has"));
        assert!(refusal(&two, &rows, Task::Squad).contains("needs two outputs of 2 scores, or one of twice as many"));
        let unlabelled = Rows(vec![(vec![1, 2], None)]);
        assert_eq!(
            refusal(&two, &unlabelled, Task::Sst2),
            "sample `line 0`: expected a label, got none; give a file with labels, such as dev.tsv"
        );
        let error = measure(&graph(2, &["y"], true), &classes(&[([-1, 2], 1)]), Some(Task::Sst2), 1, &mut Silent);
        let error = error.unwrap_err();
        assert_eq!(error.kind(), Kind::Numeric);
        assert_eq!(error.to_string(), "sample `line 0`: element 0 of the network's output is NaN");
    }
}
