//! Samples for the library: from paths, or handed over by Python one by one.

use crate::drive::{Progress, drive};
use crate::errors::raised;
use crate::model::{Model, recipe};
use pyo3::prelude::*;
use pyo3::pybacked::PyBackedBytes;
use qdrop::data::{self, LabelMap, Target};
use qdrop::tensor::{DType, Tensor};
use qdrop::{CalibrationSet, Dataset, Error, Recipe, Result};
use std::path::PathBuf;
use std::sync::Arc;

/// Element types that numpy or its extensions have, by their names there.
const TYPES: [(&str, DType); 13] = [
    ("float32", DType::F32),
    ("float64", DType::F64),
    ("float16", DType::F16),
    ("bfloat16", DType::BF16),
    ("int8", DType::I8),
    ("uint8", DType::U8),
    ("int16", DType::I16),
    ("uint16", DType::U16),
    ("int32", DType::I32),
    ("uint32", DType::U32),
    ("int64", DType::I64),
    ("uint64", DType::U64),
    ("bool", DType::Bool),
];

/// numpy's name of a type; ONNX's where numpy has none.
pub fn type_name(dtype: DType) -> String {
    TYPES.iter().find(|t| t.1 == dtype).map_or_else(|| format!("{dtype:?}").to_lowercase(), |t| t.0.to_string())
}

fn tensor((dtype, shape, bytes): (String, Vec<usize>, PyBackedBytes)) -> Result<Tensor> {
    let Some(&(_, known)) = TYPES.iter().find(|t| t.0 == dtype) else {
        return Err(Error::data(format!("arrays of type {dtype} are not supported")).hint("give numbers"));
    };
    Tensor::from_le_bytes(known, shape, &bytes)
}

/// A right answer as Python gives it.
#[derive(FromPyObject)]
enum Answer {
    Class(usize),
    Number(f64),
    /// Height, width and the classes of pixels.
    Pixels((usize, usize, Vec<u16>)),
}

/// Gathers samples.
#[pyclass(module = "qdrop._qdrop")]
pub struct Collector {
    collector: Option<data::Collector>,
    recipe: Recipe,
}

#[pymethods]
impl Collector {
    #[new]
    fn new(py: Python<'_>, model: &Model, recipe_toml: &str) -> PyResult<Self> {
        let recipe = recipe(py, recipe_toml)?;
        let collector = Dataset::collector(&model.model, &recipe).map_err(|e| raised(py, &e))?;
        Ok(Collector { collector: Some(collector), recipe })
    }

    /// Whether `uint8` images are prepared.
    fn prepares_images(&self) -> bool {
        self.collector.as_ref().is_some_and(data::Collector::prepares_images)
    }

    fn __len__(&self) -> usize {
        self.collector.as_ref().map_or(0, data::Collector::len)
    }

    /// Adds a sample: the type, shape and little-endian bytes of each input, and the right answer.
    fn push(
        &mut self,
        py: Python<'_>,
        tensors: Vec<(String, Vec<usize>, PyBackedBytes)>,
        answer: Option<Answer>,
    ) -> PyResult<()> {
        let ignored = &self.recipe.input.ignore_labels;
        let target = answer.map(|answer| match answer {
            Answer::Class(class) => Target::Class(class),
            Answer::Number(number) => Target::Number(number),
            Answer::Pixels((height, width, classes)) => {
                let ignored = ignored.iter().copied().chain([255]).collect();
                Target::Pixels(LabelMap { height, width, classes, ignored })
            }
        });
        let Some(collector) = &mut self.collector else {
            return Err(raised(py, &Error::internal("samples were added to a finished set")));
        };
        let tensors: Result<Vec<Tensor>> = tensors.into_iter().map(tensor).collect();
        tensors.and_then(|tensors| collector.push(tensors, target)).map_err(|e| raised(py, &e))
    }

    /// The set, of which at most `limit` samples, spread over it, are used.
    fn finish(&mut self, py: Python<'_>, limit: Option<usize>) -> PyResult<Samples> {
        let collector = self.collector.take();
        let collector = collector.ok_or_else(|| raised(py, &Error::internal("a set was finished twice")))?;
        let set = CalibrationSet::choose(Dataset::from(collector), limit);
        Ok(Samples { set: Arc::new(Set::Chosen(set)) })
    }
}

/// A set of samples.
pub enum Set {
    /// A part of a set, the rest of which is left for measuring.
    Chosen(CalibrationSet),
    /// All of it.
    Whole(Dataset),
}

impl Set {
    /// The samples that are used.
    pub fn used(&self) -> Result<Box<dyn qdrop::Samples + '_>> {
        Ok(match self {
            Set::Chosen(set) => Box::new(set.used()?),
            Set::Whole(set) => Box::new(set),
        })
    }

    /// The other samples, if there can be any.
    pub fn left_out(&self) -> Result<Option<Box<dyn qdrop::Samples + '_>>> {
        match self {
            Set::Chosen(set) => set.left_out().map(Some),
            Set::Whole(_) => Ok(None),
        }
    }
}

/// Samples that runs read.
#[pyclass(frozen, module = "qdrop._qdrop")]
pub struct Samples {
    pub set: Arc<Set>,
}

#[pymethods]
impl Samples {
    /// Opens a path as the command line does: for calibration, or else for measuring at most `limit` samples.
    #[staticmethod]
    fn open(
        py: Python<'_>,
        path: PathBuf,
        model: &Model,
        recipe_toml: &str,
        calibration: bool,
        limit: Option<usize>,
    ) -> PyResult<Self> {
        let (model, recipe) = (Arc::clone(&model.model), recipe(py, recipe_toml)?);
        let set = drive(py, &Progress::none(), move |caller| {
            Ok(match calibration {
                true => Set::Chosen(CalibrationSet::open(path, &model, &recipe, caller)?),
                false => Set::Whole(Dataset::open(path, &model, &recipe, limit, caller)?),
            })
        })?;
        Ok(Samples { set: Arc::new(set) })
    }

    fn __len__(&self, py: Python<'_>) -> PyResult<usize> {
        Ok(self.set.used().map_err(|e| raised(py, &e))?.len())
    }
}
