//! Of which classes a network finds the pixels of images, and its figures.

use super::images::Judge;
use crate::data::{Geometry, LabelMap, Samples, Target};
use crate::error::{Error, Result};
use crate::eval::detect::Output;
use crate::eval::segmentation::{ClassMap, Confusion, Place};
use crate::report::{ClassScore, Score};
use rayon::prelude::*;
use std::sync::Arc;

/// What a network found so far.
pub(super) struct Tally {
    /// The output that is read: its number and name, and where classes stand in it.
    output: [usize; 1],
    name: String,
    map: ClassMap,
    confusion: Confusion,
    samples: usize,
    /// Numbers in label maps that are no class.
    ignored: Arc<[u16]>,
}

impl Judge for Tally {
    type Found = Score;

    fn new(outputs: &[Output<'_>], samples: &dyn Samples) -> Result<Self> {
        let (labels, geometry) = truth(samples, 0)?;
        let [rows, columns] = geometry.input;
        let mut read = outputs.iter().map(|o| ClassMap::recognise(o.shape, geometry.input)).enumerate();
        let Some((output, map)) = read.find_map(|(i, map)| Some((i, map?))) else {
            let got: Vec<String> = outputs.iter().map(|o| format!("`{}` {:?}", o.name, o.shape)).collect();
            let message = format!(
                "task `segmentation` needs scores of classes [1, C, H, W] or [1, H, W, C], or classes [1, H, W], for {rows} x \
                 {columns} pixels or a fraction of them, the network has the outputs {}",
                got.join(" and ")
            );
            return Err(Error::data(message).hint("give the task that the network was trained for"));
        };
        let name = outputs[output].name.to_string();
        Ok(Tally { output: [output], name, map, confusion: Confusion::default(), samples: 0, ignored: labels.ignored })
    }

    fn outputs(&self) -> &[usize] {
        &self.output
    }

    fn check(&self, samples: &dyn Samples) -> Result<()> {
        let check = |index: usize| {
            let (labels, _) = truth(samples, index)?;
            self.check_labels(&labels).map_err(|e| at(samples, index, e))
        };
        // The first of several errors, whatever the number of threads.
        let wrong = (0..samples.len()).into_par_iter().find_map_first(|index| check(index).err());
        wrong.map_or(Ok(()), Err)
    }

    fn add(&mut self, values: &[&[f32]], samples: &dyn Samples, index: usize) -> Result<Option<String>> {
        let at = |e: Error| at(samples, index, e);
        let (labels, geometry) = truth(samples, index)?;
        self.check_labels(&labels).map_err(at)?;
        let [values] = values else {
            return Err(Error::internal(format!("expected one output, got {}", values.len())));
        };
        self.confusion.merge(&self.count(values, &labels, &geometry).map_err(at)?);
        self.samples += 1;
        let [rows, columns] = self.map.size();
        let what = self.map.classes().map_or("classes".to_string(), |n| format!("scores of {n} classes"));
        let note = || format!("output `{}` is read as {what} for {rows} x {columns} cells", self.name);
        Ok((self.samples == 1).then(note))
    }

    fn finish(self) -> Result<Score> {
        let Some(found) = self.confusion.figures(&self.ignored) else {
            return Err(Error::data("no pixel of the label maps has a class that is not ignored")
                .hint("check --ignore-label, and how images are prepared (--input)"));
        };
        let metrics =
            [("miou", found.miou), ("pixel_accuracy", found.pixel_accuracy), ("mean_accuracy", found.mean_accuracy)];
        let classes = found.classes.iter();
        let classes =
            classes.map(|c| ClassScore { class: c.class, iou: c.iou, recall: c.recall, pixels: c.pixels }).collect();
        Ok(Score { classes, ..Score::new(self.samples, metrics) })
    }
}

impl Tally {
    /// That the network has all classes in `labels`, as far as it tells.
    fn check_labels(&self, labels: &LabelMap) -> Result<()> {
        let Some(classes) = self.map.classes() else { return Ok(()) };
        let beyond = |class: &u16| usize::from(*class) >= classes && !labels.ignored.contains(class);
        let Some(i) = labels.classes.iter().position(beyond) else { return Ok(()) };
        let (row, column, class) = (i / labels.width, i % labels.width, labels.classes[i]);
        let last = classes - 1;
        let message = format!(
            "the label map has class {class} at row {row}, column {column}, the network has {classes} classes (0 to {last})"
        );
        let hint = format!(
            "if {class} is no class, give --ignore-label {class}; else give label maps with the network's numbers"
        );
        Err(Error::data(message).hint(hint))
    }

    /// The pixels of `labels` that lie within the network's input, with what `values` say about them.
    fn count(&self, values: &[f32], labels: &LabelMap, geometry: &Geometry) -> Result<Confusion> {
        self.map.check(values)?;
        let places = |axis: usize| places(geometry, axis, self.map.size()[axis]);
        let (rows, columns) = (places(0), places(1));
        let at: Vec<Place> = columns.iter().map(|c| c.1).collect();
        let row = |&(y, place): &(usize, Place)| {
            let mut confusion = Confusion::default();
            let predicted = self.map.row(values, place, &at)?;
            for (&(x, _), predicted) in columns.iter().zip(predicted) {
                let class = labels.classes[y * labels.width + x];
                if !labels.ignored.contains(&class) {
                    confusion.add(class, predicted);
                }
            }
            Ok(confusion)
        };
        let sum = |mut a: Confusion, b: Confusion| {
            a.merge(&b);
            Ok(a)
        };
        rows.par_iter().map(row).try_reduce(Confusion::default, sum)
    }
}

/// The rows (axis 0) or columns (1) of the image whose centres lie within the network's input, with their places among so many
/// `cells` of an output.
fn places(geometry: &Geometry, axis: usize, cells: usize) -> Vec<(usize, Place)> {
    let input = geometry.input[axis] as f64;
    let cell = cells as f64 / input;
    let shown = &geometry.shown()[axis];
    let shown = shown.start as f64 * cell..shown.end as f64 * cell;
    let scale = geometry.scale()[axis];
    let position = |i: usize| (i as f64 + 0.5) * scale + geometry.offset[axis] as f64;
    let inside = (0..geometry.image[axis]).map(|i| (i, position(i))).filter(|(_, at)| (0.0..input).contains(at));
    inside.map(|(i, at)| (i, Place::new(at * cell, cells, shown.clone()))).collect()
}

/// The label map of sample `index`, and where its image lies in the network's input.
fn truth(samples: &dyn Samples, index: usize) -> Result<(LabelMap, Geometry)> {
    let at = |e: Error| at(samples, index, e);
    let Some(Target::Pixels(labels)) = samples.target(index)? else {
        let error = Error::data("task `segmentation` needs label maps, got a sample without one");
        return Err(
            at(error.hint("give the folder of label maps with --labels, or a CSV file with lines file,labels")),
        );
    };
    let Some(geometry) = samples.geometry(index) else {
        return Err(at(Error::data("it is not known where the image lies in the network's input")));
    };
    let [height, width] = geometry.image;
    if [labels.height, labels.width] != geometry.image || labels.classes.len() != height * width {
        let (h, w) = (labels.height, labels.width);
        return Err(at(Error::data(format!("the label map has {h} x {w} pixels, the image {height} x {width}"))));
    }
    Ok((labels, geometry))
}

/// `error` at sample `index`.
fn at(samples: &dyn Samples, index: usize, error: Error) -> Error {
    error.at(format!("sample `{}`", samples.name(index)))
}

#[cfg(test)]
mod tests {
    use super::super::images::{check, measure_all, measure_each};
    use super::super::open::Given;
    use super::*;
    use crate::engine::device::processors;
    use crate::error::Kind;
    use crate::graph::{Dim, Fact, Graph, Node, Op, Unary};
    use crate::plan::Task;
    use crate::report::{Silent, Sink};
    use crate::tensor::{DType, Tensor};

    /// Largest error of a figure, in per cent.
    const ROUNDING: f64 = 1e-9;

    /// Samples that are the scores of a network's output, with their label maps.
    struct Maps {
        /// Classes, rows and columns of scores.
        shape: [usize; 3],
        scores: Vec<Vec<f32>>,
        labels: Vec<Option<LabelMap>>,
        geometry: Option<Geometry>,
    }

    impl Samples for Maps {
        fn len(&self) -> usize {
            self.scores.len()
        }
        fn get(&self, index: usize) -> Result<Vec<Tensor>> {
            Ok(vec![Tensor::f32(&self.shape, self.scores[index].clone())])
        }
        fn label(&self, _: usize) -> Option<usize> {
            None
        }
        fn target(&self, index: usize) -> Result<Option<Target>> {
            Ok(self.labels[index].clone().map(Target::Pixels))
        }
        fn geometry(&self, _: usize) -> Option<Geometry> {
            self.geometry
        }
        fn name(&self, index: usize) -> String {
            format!("{index}.png")
        }
    }

    fn labels(height: usize, width: usize, classes: &[u16]) -> Option<LabelMap> {
        assert_eq!(classes.len(), height * width);
        Some(LabelMap { height, width, classes: classes.to_vec(), ignored: [255].into() })
    }

    /// The scores, 1 or 0, by which every cell is of one of `classes`.
    fn scores(cells: &[u16], classes: u16) -> Vec<f32> {
        (0..classes).flat_map(|class| cells.iter().map(move |&c| f32::from(u8::from(c == class)))).collect()
    }

    /// Two images of 2 x 3 pixels as they are, with three classes.
    fn maps() -> Maps {
        let scores = vec![scores(&[0, 0, 1, 1, 1, 1], 3), scores(&[1, 1, 1, 0, 0, 1], 3)];
        let labels = vec![labels(2, 3, &[0, 0, 0, 1, 1, 255]), labels(2, 3, &[1, 1, 1, 0, 0, 0])];
        let geometry = Some(Geometry { image: [2, 3], resized: [2, 3], offset: [0, 0], input: [2, 3] });
        Maps { shape: [3, 2, 3], scores, labels, geometry }
    }

    fn graph(shape: &[usize]) -> Graph {
        let mut g = Graph { opset: 13, ..Graph::default() };
        let shape = [Dim::Symbol("n".into())].into_iter().chain(shape.iter().map(|&d| Dim::Known(d))).collect();
        let x = g.add_value("scores", Fact { dtype: Some(DType::F32), shape: Some(shape) });
        let y = g.add_value("out", Fact::default());
        g.nodes.push(Node::new("abs", Op::Unary(Unary::Abs), &[x], &[y]));
        (g.inputs, g.outputs) = (vec![x], vec![y]);
        g
    }

    fn score(samples: &Maps) -> Result<Score> {
        let (graph, shapes) = (graph(&samples.shape), vec![samples.shape.to_vec()]);
        check::<Tally>(&graph, &shapes, samples)?;
        Ok(measure_all::<Tally>(&[&graph], &shapes, samples, &processors(1)?, &mut Silent)?.remove(0))
    }

    fn near(found: &Score, metric: &str, want: f64) {
        assert!((found.metrics[metric] - want).abs() < ROUNDING, "{metric}: {found:?}, expected {want}");
    }

    #[test]
    fn figures_are_those_of_all_images_together() {
        let found = score(&maps()).unwrap();
        // Class 0: 2 + 2 pixels of 3 + 3 are found, and none elsewhere; class 1: 2 + 3 of 2 + 3, and 1 + 1 elsewhere.
        near(&found, "miou", 100.0 * (4.0 / 6.0 + 5.0 / 7.0) / 2.0);
        near(&found, "pixel_accuracy", 100.0 * 9.0 / 11.0);
        near(&found, "mean_accuracy", 100.0 * (4.0 / 6.0 + 1.0) / 2.0);
        assert_eq!(found.samples, 2);
        let classes: Vec<_> = found.classes.iter().map(|c| (c.class, c.pixels)).collect();
        assert_eq!(classes, [(0, 6), (1, 5)]);
        assert!(found.metrics.keys().all(|m| Task::Segmentation.metrics().contains(&m.as_str())));
        assert_eq!(found.metrics.len(), Task::Segmentation.metrics().len());
    }

    #[test]
    fn predictions_are_mapped_back_to_the_image() {
        // An image of 2 x 4 pixels in twice the size, below 2 rows of padding; cells are 2 pixels wide.
        let cells = [2, 2, 2, 2, 0, 1, 1, 0, 0, 0, 1, 1];
        let truth = [0, 1, 1, 0, 0, 0, 1, 1];
        let geometry = Geometry { image: [2, 4], resized: [4, 8], offset: [2, 0], input: [6, 8] };
        let maps = Maps {
            shape: [3, 3, 4],
            scores: vec![scores(&cells, 3)],
            labels: vec![labels(2, 4, &truth)],
            geometry: Some(geometry),
        };
        near(&score(&maps).unwrap(), "miou", 100.0);
        // The same, cut: the outer columns are not seen, and do not count.
        let geometry = Geometry { image: [2, 4], resized: [2, 4], offset: [0, -1], input: [2, 2] };
        let cut = |truth: &[u16]| Maps {
            shape: [3, 2, 2],
            scores: vec![scores(&[1, 1, 0, 1], 3)],
            labels: vec![labels(2, 4, truth)],
            geometry: Some(geometry),
        };
        let found = score(&cut(&[0, 1, 1, 0, 2, 0, 1, 2])).unwrap();
        near(&found, "miou", 100.0);
        assert_eq!(found.classes.iter().map(|c| c.pixels).sum::<u64>(), 4);
        let error = score(&cut(&[0, 255, 255, 0, 2, 255, 255, 2])).unwrap_err().to_string();
        assert!(error.starts_with("no pixel of the label maps has a class that is not ignored; check "), "{error}");
    }

    #[test]
    fn networks_in_a_runtime_are_measured_sample_by_sample() {
        let samples = maps();
        // The second network puts classes out, after scores for something else.
        let run = |network: usize, sample: &[Tensor], _: &dyn Sink| {
            let scores =
                Given { name: "s".into(), shape: vec![1, 3, 2, 3], integer: false, values: sample[0].to_f32()? };
            let other = Given { name: "o".into(), shape: vec![1, 10], integer: false, values: vec![0.0; 10] };
            let classes = Given { name: "c".into(), shape: vec![1, 2, 3], integer: true, values: vec![1.0; 6] };
            Ok(if network == 0 { vec![scores] } else { vec![other, classes] })
        };
        let found = measure_each::<Tally>(2, &samples, &run, &mut Silent).unwrap();
        assert_eq!(found[0], score(&samples).unwrap());
        near(&found[1], "miou", 100.0 * (0.0 + 5.0 / 11.0) / 2.0);
        near(&found[1], "mean_accuracy", 50.0);
    }

    #[test]
    fn what_cannot_be_measured_is_refused() {
        let refused = |change: &dyn Fn(&mut Maps)| {
            let mut samples = maps();
            change(&mut samples);
            score(&samples).unwrap_err()
        };
        let error = refused(&|s| s.labels[1] = None).to_string();
        let want = "sample `1.png`: task `segmentation` needs label maps, got a sample without one; give the folder of label \
                    maps with --labels, or a CSV file with lines file,labels";
        assert_eq!(error, want);
        let error = refused(&|s| s.geometry = None).to_string();
        assert_eq!(error, "sample `0.png`: it is not known where the image lies in the network's input");
        let error = refused(&|s| s.labels[1] = labels(3, 2, &[0; 6])).to_string();
        assert_eq!(error, "sample `1.png`: the label map has 3 x 2 pixels, the image 2 x 3");
        let error = refused(&|s| s.labels[1] = labels(2, 3, &[0, 0, 0, 0, 7, 0])).to_string();
        let want = "sample `1.png`: the label map has class 7 at row 1, column 1, the network has 3 classes (0 to 2); if 7 is \
                    no class, give --ignore-label 7; else give label maps with the network's numbers";
        assert_eq!(error, want);
        let error = refused(&|s| {
            (s.shape, s.scores) = ([9, 2, 1], vec![vec![0.0; 18]; 2]);
        });
        let want = "task `segmentation` needs scores of classes [1, C, H, W] or [1, H, W, C], or classes [1, H, W], for 2 x 3 \
                    pixels or a fraction of them, the network has the outputs `out` [1, 9, 2, 1]";
        assert!(error.to_string().starts_with(want), "{error}");
        let error = refused(&|s| s.scores[1][4] = f32::NAN);
        assert_eq!(
            (error.kind(), error.to_string().contains("sample `1.png`: element 4 of the")),
            (Kind::Numeric, true)
        );
        let error = refused(&|s| (s.scores, s.labels) = (Vec::new(), Vec::new()));
        assert_eq!(error.to_string(), "expected samples, got none");
    }
}
