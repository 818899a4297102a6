//! What networks detect in annotated images, and its figures.

use super::images::{Judge, known_outputs};
use crate::data::{Geometry, Objects, Samples, Target};
use crate::engine::facts;
use crate::error::{Error, Result};
use crate::eval::coco::{Detection, Truth};
use crate::eval::detect::{Detector, Family, Found, Numbering, Output};
use crate::graph::Graph;
use crate::probe::input_shapes;
use crate::report::Score;
use std::sync::Arc;

/// What a network detected in annotated images.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Detected {
    /// The twelve figures of COCO, as far as the images have objects.
    pub score: Score,
    /// What was found, image by image.
    pub found: Vec<Detection>,
}

/// The family of detectors whose outputs `graph` (simplified) puts out for an image, by shapes alone; an error where it is
/// none, or not the one that is given. `shapes` are those of one sample without the batch axis; without them those that the file declares.
pub fn recognise(graph: &Graph, shapes: Option<&[Vec<usize>]>, family: Option<Family>) -> Result<Detector> {
    let inputs = input_shapes(graph, shapes)?;
    let facts = facts::infer(graph, &inputs)?;
    let canvas = match inputs.as_slice() {
        [shape] => match shape[..] {
            [1, 1 | 3, height, width] | [1, height, width, 1 | 3] => (height, width),
            _ => return Err(Error::unsupported(format!("expected an image as input, got shape {shape:?}"))),
        },
        _ => return Err(Error::unsupported(format!("expected an image as input, got {} inputs", inputs.len()))),
    };
    let known = known_outputs(graph, &facts);
    if let (None, [(_, Output { name, shape: [1, n], .. })]) = (family, &known[..]) {
        return Err(Error::unsupported(format!("output `{name}` is a row of {n} scores")));
    }
    Detector::recognise(&known.iter().map(|k| k.1).collect::<Vec<_>>(), canvas, None, family)
}

/// The objects in sample `index`, and where its image lies in the network's input.
pub(super) fn objects(samples: &dyn Samples, index: usize) -> Result<(Objects, Geometry)> {
    let at = |e: Error| e.at(format!("sample `{}`", samples.name(index)));
    let Some(Target::Objects(objects)) = samples.target(index)? else {
        let error = Error::data("task `coco` needs annotated images, got a sample without annotations");
        return Err(at(error.hint("give an annotation file of COCO")));
    };
    let Some(geometry) = samples.geometry(index) else {
        return Err(at(Error::data("it is not known where the image lies in the network's input")));
    };
    Ok((objects, geometry))
}

/// How the outputs of a network are read.
struct Reading {
    detector: Detector,
    numbering: Numbering,
}

impl Reading {
    fn new(outputs: &[Output<'_>], samples: &dyn Samples) -> Result<Self> {
        let (objects, geometry) = objects(samples, 0)?;
        let categories = objects.truth.categories();
        let canvas = (geometry.input[0], geometry.input[1]);
        let hint = "give another family with --detector, or check how images are prepared (--input)";
        let told = |e: Error| if e.advice().is_none() { e.hint(hint) } else { e };
        let detector = Detector::recognise(outputs, canvas, Some(categories.len()), objects.detector).map_err(told)?;
        let numbering = Numbering::new(&detector, categories.iter().map(|c| c.id)).map_err(told)?;
        Ok(Reading { detector, numbering })
    }
}

/// What a network detected so far.
pub(super) struct Tally {
    reading: Reading,
    found: Vec<Detection>,
    /// Numbers of the images that were looked at.
    images: Vec<i64>,
    truth: Option<Arc<Truth>>,
}

impl Judge for Tally {
    type Found = Detected;

    fn new(outputs: &[Output<'_>], samples: &dyn Samples) -> Result<Self> {
        let reading = Reading::new(outputs, samples)?;
        Ok(Tally { reading, found: Vec::new(), images: Vec::new(), truth: None })
    }

    fn outputs(&self) -> &[usize] {
        self.reading.detector.outputs()
    }

    fn check(&self, _: &dyn Samples) -> Result<()> {
        // The annotations of all images are one set.
        Ok(())
    }

    fn add(&mut self, values: &[&[f32]], samples: &dyn Samples, index: usize) -> Result<Option<String>> {
        let at = |e: Error| e.at(format!("sample `{}`", samples.name(index)));
        let (objects, geometry) = objects(samples, index)?;
        let Reading { detector, numbering } = &mut self.reading;
        let first = self.truth.is_none();
        if first {
            detector.settle(values).map_err(at)?;
        }
        for found in detector.decode(values).map_err(at)? {
            match numbering.category(found.class) {
                Some(category) => {
                    self.found.push(detection(&found, category, objects.image, &geometry, detector.clips()))
                }
                None if detector.classes().is_none() && !detector.names_categories() => {
                    let (class, all) = (found.class, objects.truth.categories().len());
                    let message = format!("the network found an object of class {class}, the set has {all} categories");
                    let hint = "give a set with the categories that the network was trained for";
                    return Err(at(Error::data(message).hint(hint)));
                }
                None => {}
            }
        }
        self.images.push(objects.image);
        self.truth = Some(objects.truth);
        Ok(first.then(|| format!("outputs are read as those of {detector}; --detector gives another family")))
    }

    fn finish(self) -> Result<Detected> {
        let Some(truth) = &self.truth else { return Err(Error::data("expected samples, got none")) };
        let figures = truth.figures(&self.images, &self.found)?;
        Ok(Detected { score: Score::new(self.images.len(), figures.iter()), found: self.found })
    }
}

/// `found` in the network's input, as an object of `category` in the image.
fn detection(found: &Found, category: i64, image: i64, geometry: &Geometry, clips: bool) -> Detection {
    let mut sides = geometry.to_image(found.bbox.map(f64::from));
    if clips {
        let [height, width] = geometry.image.map(|n| n as f64);
        let most = [width, height, width, height];
        sides = std::array::from_fn(|i| sides[i].clamp(0.0, most[i]));
    }
    let [left, top, right, bottom] = sides;
    let bbox = [left, top, (right - left).max(0.0), (bottom - top).max(0.0)];
    Detection { image, category, score: f64::from(found.score), bbox }
}

#[cfg(test)]
mod tests {
    use super::super::images::{check, measure_all, measure_each};
    use super::super::open::Given;
    use super::*;
    use crate::engine::device::processors;
    use crate::error::Kind;
    use crate::eval::coco::{Annotation, Category, Image};
    use crate::eval::detect::Family;
    use crate::graph::{Dim, Fact, Graph, Node, Op, Unary};
    use crate::plan::Task;
    use crate::report::{Silent, Sink};
    use crate::tensor::{DType, Tensor};

    /// Rows of final boxes that the network hands through.
    const ROWS: usize = 3;

    /// Samples that are the rows of a network's output, with the objects of their images.
    struct Boxes {
        rows: Vec<[[f32; 6]; ROWS]>,
        truth: Option<Arc<Truth>>,
        geometry: Option<Geometry>,
        detector: Option<Family>,
    }

    impl Samples for Boxes {
        fn len(&self) -> usize {
            self.rows.len()
        }
        fn get(&self, index: usize) -> Result<Vec<Tensor>> {
            Ok(vec![Tensor::f32(&[ROWS, 6], self.rows[index].concat())])
        }
        fn label(&self, _: usize) -> Option<usize> {
            None
        }
        fn target(&self, index: usize) -> Result<Option<Target>> {
            let objects = |truth: &Arc<Truth>| Objects {
                truth: truth.clone(),
                image: truth.images()[index].id,
                detector: self.detector,
            };
            Ok(self.truth.as_ref().map(objects).map(Target::Objects))
        }
        fn geometry(&self, _: usize) -> Option<Geometry> {
            self.geometry
        }
        fn name(&self, index: usize) -> String {
            format!("{index}.png")
        }
    }

    /// Two images of 100 x 200 pixels, shown in half the size 10 pixels below the top, with an object each of the categories
    /// 4 and 9.
    fn boxes() -> Boxes {
        let images = [5, 6].map(|id| Image { id, file_name: String::new() }).to_vec();
        let categories = [4, 9].map(|id| Category { id, name: String::new() }).to_vec();
        let object = |image, category, bbox: [f64; 4]| {
            let area = bbox[2] * bbox[3];
            Annotation { image, category, bbox, area, crowd: false }
        };
        let annotations = vec![object(5, 4, [20.0, 20.0, 40.0, 40.0]), object(6, 9, [100.0, 0.0, 60.0, 60.0])];
        let truth = Some(Arc::new(Truth::new(images, categories, annotations).unwrap()));
        let geometry = Some(Geometry { image: [100, 200], resized: [50, 100], offset: [10, 0], input: [104, 104] });
        let none = [0.0; 6];
        let rows = vec![
            [[10.0, 20.0, 30.0, 40.0, 0.9, 0.0], none, none],
            [[50.0, 10.0, 80.0, 40.0, 0.8, 1.0], [0.0, 50.0, 20.0, 60.0, 0.3, 1.0], none],
        ];
        Boxes { rows, truth, geometry, detector: None }
    }

    fn graph() -> Graph {
        let mut g = Graph { opset: 13, ..Graph::default() };
        let shape = vec![Dim::Symbol("n".into()), Dim::Known(ROWS), Dim::Known(6)];
        let x = g.add_value("rows", Fact { dtype: Some(DType::F32), shape: Some(shape) });
        let y = g.add_value("found", Fact::default());
        g.nodes.push(Node::new("abs", Op::Unary(Unary::Abs), &[x], &[y]));
        (g.inputs, g.outputs) = (vec![x], vec![y]);
        g
    }

    fn score(samples: &Boxes) -> Result<Score> {
        let (graph, shapes) = (graph(), vec![vec![ROWS, 6]]);
        check::<Tally>(&graph, &shapes, samples)?;
        Ok(measure_all::<Tally>(&[&graph], &shapes, samples, &processors(1)?, &mut Silent)?.remove(0).score)
    }

    #[test]
    fn what_is_found_is_measured_in_the_image() {
        let found = score(&boxes()).unwrap();
        assert_eq!(found.samples, 2);
        assert_eq!((found.metrics["ap"], found.metrics["ar100"]), (100.0, 100.0));
        assert!(!found.metrics.contains_key("ap_s"), "no object is small");
        assert!(found.metrics.keys().all(|m| Task::Coco.metrics().contains(&m.as_str())));
        assert_eq!(Task::Coco.metrics(), crate::eval::coco::FIGURES);
        // In the other's place.
        let mut moved = boxes();
        moved.geometry.as_mut().unwrap().offset = [0, 10];
        assert!(score(&moved).unwrap().metrics["ap"] < 1.0);
    }

    #[test]
    fn networks_in_a_runtime_are_measured_sample_by_sample() {
        let samples = boxes();
        let run = |network: usize, sample: &[Tensor], _: &dyn Sink| {
            // The second network finds nothing, in as many boxes as there are.
            let values = if network == 0 { sample[0].to_f32()? } else { Vec::new() };
            Ok(vec![Given { name: "o".into(), shape: vec![1, values.len() / 6, 6], integer: false, values }])
        };
        let scores = measure_each::<Tally>(2, &samples, &run, &mut Silent).unwrap();
        assert_eq!((scores[0].score.metrics["ap"], scores[1].score.metrics["ap"]), (100.0, 0.0));
    }

    #[test]
    fn what_cannot_be_measured_is_refused() {
        let refused = |change: &dyn Fn(&mut Boxes)| {
            let mut samples = boxes();
            change(&mut samples);
            score(&samples).unwrap_err()
        };
        let error = refused(&|s| s.truth = None).to_string();
        assert_eq!(
            error,
            "sample `0.png`: task `coco` needs annotated images, got a sample without annotations; give an annotation file of COCO"
        );
        let error = refused(&|s| s.geometry = None).to_string();
        assert_eq!(error, "sample `0.png`: it is not known where the image lies in the network's input");
        let error = refused(&|s| s.detector = Some(Family::Yolox));
        assert!(error.message().starts_with("the outputs are not those of family `yolox`"), "{error}");
        let error = refused(&|s| s.rows[1][2] = [0.0, 0.0, 1.0, 1.0, 0.5, 2.0]).to_string();
        assert!(
            error.starts_with("sample `1.png`: the network found an object of class 2, the set has 2 categories; ")
        );
        let error = refused(&|s| s.rows[0][0][0] = f32::NAN);
        assert_eq!(error.kind(), Kind::Numeric);
        assert!(refused(&|s| s.rows.clear()).to_string().contains("expected samples, got none"));
    }
}
