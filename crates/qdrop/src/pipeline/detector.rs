//! What elements of a detector's outputs weigh in the losses.
//!
//! Nearly all cells of a detector see background, where nothing depends on the box and little on the exact score. A squared
//! error would count them like the few that see an object.

use crate::engine::device::Device;
use crate::engine::facts::Facts;
use crate::engine::program::{self, compile};
use crate::engine::train::LossWeights;
use crate::error::Result;
use crate::eval::detect::Detector;
use crate::graph::{Graph, ValueId};
use crate::measure::recognise;
use crate::plan::{Recipe, Task};
use crate::probe::{self, Cache, input_facts, sample_shapes};
use crate::report::Sink;
use crate::tensor::{RowStore, Rows};

/// Least score that an element counts with: a share of the certain detection.
const LEAST: f32 = 0.01;

/// What the elements of the values of [`probe::whole`] weigh for the network's `inputs`: as much as the best score of their
/// cell, anchor or query, where `recipe` is for detection and the family of `graph` is known.
pub(super) fn output_weights(
    graph: &Graph,
    facts: &Facts,
    recipe: &Recipe,
    inputs: &Cache,
    (device, store): (&dyn Device, &RowStore),
    sink: &dyn Sink,
) -> Result<Vec<Option<LossWeights>>> {
    let region = probe::whole(graph, facts);
    let none = vec![None; region.outputs.len()];
    let Some(detector) = detector(graph, facts, recipe)? else { return Ok(none) };
    let read = detector.outputs().iter().map(|&i| graph.outputs[i]);
    let place = |v: ValueId| region.outputs.iter().position(|&o| o == v);
    // Where something in front of an output cannot be run, its values are not known.
    let Some(places) = read.map(place).collect::<Option<Vec<_>>>() else { return Ok(none) };
    let rows: Vec<Rows> = graph.inputs.iter().map(|v| inputs[v].clone()).collect();
    let float = device.inference(&compile(graph, facts, &region)?)?;
    let outputs = float.run_while(&[], &[], &rows, store, &mut || probe::go_on(sink))?;
    let mut positions = vec![Vec::new(); places.len()];
    for sample in 0..rows.first().map_or(0, Rows::len) {
        let values = places.iter().map(|&p| outputs[p].row(sample)).collect::<Result<Vec<_>>>()?;
        let values: Vec<&[f32]> = values.iter().map(|v| &**v).collect();
        let scores = detector.scores(&values).map_err(|e| e.at(format!("calibration sample {}", sample + 1)))?;
        for ((scores, &place), positions) in scores.iter().zip(&places).zip(&mut positions) {
            let [outer, channels, inner] = around(facts, region.outputs[place]);
            for o in 0..outer {
                for i in 0..inner {
                    let at = |c: usize| scores[(o * channels + c) * inner + i];
                    let mean = (0..channels).map(at).sum::<f32>() / channels as f32;
                    positions.push(mean.max(LEAST));
                }
            }
        }
    }
    let mut weights = none;
    for (place, mut positions) in places.into_iter().zip(positions).filter(|(_, p)| !p.is_empty()) {
        let mean = positions.iter().map(|&p| f64::from(p)).sum::<f64>() / positions.len() as f64;
        positions.iter_mut().for_each(|p| *p /= mean as f32);
        let [outer, channels, _] = around(facts, region.outputs[place]);
        let positions = Rows::new(outputs[place].len(), positions);
        weights[place] = Some(LossWeights { channels: vec![1.0; channels], positions, outer });
    }
    Ok(weights)
}

/// The detector that `graph` is for `recipe`.
fn detector(graph: &Graph, facts: &Facts, recipe: &Recipe) -> Result<Option<Detector>> {
    let shapes = sample_shapes(graph, &input_facts(graph, facts));
    match (&recipe.input.detector, recipe.input.task) {
        (Some(family), _) => recognise(graph, Some(&shapes), Some(family.parse()?)).map(Some),
        (None, Some(Task::Coco)) => Ok(recognise(graph, Some(&shapes), None).ok()),
        (None, _) => Ok(None),
    }
}

/// Elements of `value` in front of its channels, along them, and behind.
fn around(facts: &Facts, value: ValueId) -> [usize; 3] {
    facts.get(value).map_or([1, 1, 0], |f| program::around(&f.shape, f.channel_axis))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::device::processors;
    use crate::engine::facts;
    use crate::report::Silent;

    /// Weights of the outputs of the fixture `name` for `recipe`, and the shapes of these.
    fn weights(name: &str, recipe: &Recipe) -> (Vec<Option<LossWeights>>, Vec<Vec<usize>>) {
        const SAMPLES: usize = 3;
        let path = format!("{}/tests/fixtures/detectors/{name}.onnx", env!("CARGO_MANIFEST_DIR"));
        let graph = crate::prepare::prepare(&crate::onnx::read(std::path::Path::new(&path)).unwrap(), None).unwrap();
        let facts = facts::infer(&graph, &crate::probe::input_shapes(&graph, None).unwrap()).unwrap();
        let width = facts.get(graph.inputs[0]).unwrap().numel();
        let rows = Rows::new(SAMPLES, qdrop_testing::numbers(SAMPLES, width));
        let inputs = Cache::from([(graph.inputs[0], rows)]);
        let (device, store) = (processors(2).unwrap(), RowStore::memory());
        let found = output_weights(&graph, &facts, recipe, &inputs, (&device, &store), &Silent).unwrap();
        let region = probe::whole(&graph, &facts);
        (found, region.outputs.iter().map(|&v| facts.get(v).unwrap().shape.clone()).collect())
    }

    #[test]
    fn cells_count_by_their_scores_where_the_task_is_detection() {
        let mut recipe = Recipe::default();
        assert!(weights("yolox", &recipe).0.iter().all(Option::is_none), "no task is named");
        recipe.input.task = Some(Task::Coco);
        for name in ["yolox", "yolov8", "nanodet"] {
            let (found, shapes) = weights(name, &recipe);
            for (weights, shape) in found.iter().zip(&shapes) {
                let weights = weights.as_ref().unwrap_or_else(|| panic!("{name}: {shape:?}"));
                let rows: Vec<Vec<f32>> = weights.positions.iter().map(|r| r.unwrap().to_vec()).collect();
                let elements = weights.channels.len() * rows[0].len();
                assert_eq!(elements, shape.iter().product::<usize>(), "{name}");
                let all: Vec<f32> = rows.concat();
                let mean = all.iter().sum::<f32>() / all.len() as f32;
                let least = all.iter().copied().fold(f32::INFINITY, f32::min);
                assert!((mean - 1.0).abs() < 1e-3 && least > 0.0, "{name}: {mean}, {least}");
            }
        }
    }

    #[test]
    fn what_puts_out_final_boxes_counts_as_ever() {
        let mut recipe = Recipe::default();
        recipe.input.task = Some(Task::Coco);
        for name in ["ultralytics", "retinanet"] {
            assert!(weights(name, &recipe).0.iter().all(Option::is_none), "{name}");
        }
    }
}
