//! Networks, and the recipe by which they are quantized.

use crate::drive::{Progress, drive};
use crate::errors::raised;
use crate::samples::type_name;
use pyo3::prelude::*;
use pyo3::pybacked::PyBackedBytes;
use qdrop::graph::Dim;
use qdrop::{Error, Recipe, Result};
use std::path::PathBuf;
use std::sync::Arc;

/// The recipe in `toml`.
pub fn recipe(py: Python<'_>, toml: &str) -> PyResult<Recipe> {
    Recipe::from_toml(toml).map_err(|e| raised(py, &e))
}

/// A network.
#[pyclass(frozen, module = "qdrop._qdrop")]
pub struct Model {
    pub model: Arc<qdrop::Model>,
}

impl Model {
    fn made(py: Python<'_>, make: impl FnOnce() -> Result<qdrop::Model> + Send + 'static) -> PyResult<Self> {
        let model = drive(py, &Progress::none(), move |_| make())?;
        Ok(Model { model: Arc::new(model) })
    }
}

/// Name, type, shape without the batch axis, whole shape, and batch axis.
type Input = (String, String, Vec<Option<usize>>, Option<Vec<Option<usize>>>, Option<usize>);

#[pymethods]
impl Model {
    /// Reads a file, with the quantizers of an encodings file if one is given.
    #[staticmethod]
    fn open(py: Python<'_>, path: PathBuf, encodings: Option<PathBuf>) -> PyResult<Self> {
        Self::made(py, move || qdrop::Model::open_with(path, encodings.as_deref()))
    }

    /// Reads the bytes of a file.
    #[staticmethod]
    fn from_bytes(py: Python<'_>, content: PyBackedBytes) -> PyResult<Self> {
        Self::made(py, move || qdrop::Model::from_bytes(&content))
    }

    /// The network with the input or size `name` fixed to `values`; unless `needed`, one without it as it is.
    fn fix(&self, py: Python<'_>, name: String, values: Vec<f64>, needed: bool) -> PyResult<Self> {
        let model = Arc::clone(&self.model);
        Self::made(py, move || {
            let model = qdrop::Model::clone(&model);
            if needed { model.fix(&name, &values) } else { model.fix_known(&name, &values) }
        })
    }

    #[getter]
    fn name(&self) -> String {
        self.model.name()
    }

    /// Bytes of the file.
    #[getter]
    fn size(&self) -> u64 {
        self.model.size()
    }

    #[getter]
    fn inputs(&self) -> Vec<Input> {
        let graph = self.model.graph();
        let known = |dim: &Dim| match dim {
            Dim::Known(n) => Some(*n),
            _ => None,
        };
        let inputs = graph.inputs.iter().zip(graph.batch_axes()).zip(self.model.inputs());
        let input = inputs.map(|((&id, axis), spec)| {
            let whole = graph.value(id).fact.shape.as_ref();
            let whole = whole.map(|dims| dims.iter().map(known).collect());
            (spec.name, type_name(spec.dtype), spec.shape, whole, axis)
        });
        input.collect()
    }

    #[getter]
    fn outputs(&self) -> Vec<String> {
        self.model.outputs().into_iter().map(String::from).collect()
    }

    /// Refuses, before data is read, what `recipe` cannot do with the network.
    fn check(&self, py: Python<'_>, recipe_toml: &str) -> PyResult<()> {
        let (model, recipe) = (Arc::clone(&self.model), recipe(py, recipe_toml)?);
        drive(py, &Progress::none(), move |_| model.check(&recipe))
    }
}

/// The recipe with the options of a JSON object of sections, as TOML. What does not fit an option is an error at the option.
#[pyfunction]
pub fn recipe_from_json(py: Python<'_>, text: &str) -> PyResult<String> {
    let made = || -> Result<String> {
        let given: toml::Table =
            serde_json::from_str(text).map_err(|e| Error::recipe(format!("expected options, got {e}")))?;
        for (section, options) in &given {
            let entries: Vec<(String, toml::Table)> = match options {
                toml::Value::Table(table) => vec![(section.clone(), table.clone())],
                toml::Value::Array(list) => {
                    let table =
                        |(i, v): (usize, &toml::Value)| Some((format!("{section}[{i}]"), v.as_table()?.clone()));
                    list.iter().enumerate().filter_map(table).collect()
                }
                _ => Vec::new(),
            };
            for (place, table) in entries {
                for (key, value) in table {
                    let alone = toml::Table::from_iter([(key.clone(), value)]);
                    let alone = if options.is_array() { toml::Value::Array(vec![alone.into()]) } else { alone.into() };
                    let alone: std::result::Result<Recipe, _> =
                        toml::Table::from_iter([(section.clone(), alone)]).try_into();
                    alone.map_err(|e| Error::recipe(e.message().to_string()).at(format!("{place}.{key}")))?;
                }
            }
        }
        let recipe: Recipe = given.try_into().map_err(|e: toml::de::Error| Error::recipe(e.message().to_string()))?;
        recipe.validate()?;
        recipe.to_toml()
    };
    Error::caught(made).map_err(|e| raised(py, &e))
}

/// The recipe in `text`, checked and without comments.
#[pyfunction]
pub fn recipe_from_toml(py: Python<'_>, text: &str) -> PyResult<String> {
    recipe(py, text)?.to_toml().map_err(|e| raised(py, &e))
}

/// The options that the recipe in `text` sets, as a JSON object of sections.
#[pyfunction]
pub fn recipe_to_json(py: Python<'_>, text: &str) -> PyResult<String> {
    let recipe = recipe(py, text)?;
    let table = toml::Table::try_from(&recipe).map_err(|e| raised(py, &Error::internal(e.to_string())))?;
    serde_json::to_string(&table).map_err(|e| raised(py, &Error::internal(e.to_string())))
}

/// A recipe with every option, its meaning and its default.
#[pyfunction]
pub fn recipe_default(py: Python<'_>) -> PyResult<String> {
    Recipe::default_toml().map_err(|e| raised(py, &e))
}

/// Section and key of every option.
#[pyfunction]
pub fn recipe_options() -> Vec<(&'static str, &'static str)> {
    Recipe::options().collect()
}
