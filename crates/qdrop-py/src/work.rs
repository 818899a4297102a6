//! What is done with networks and samples.

use crate::drive::{Caller, Progress, drive};
use crate::errors::raised;
use crate::model::{Model, recipe};
use crate::samples::Samples;
use pyo3::prelude::*;
use pyo3::types::PyBytes;
use qdrop::plan::{Sensitivity, Stripe};
use qdrop::report::Report;
use qdrop::runtime::Library;
use qdrop::{Answer, Error, Quantizer, Result, WorkDir};
use qdrop_cli::show;
use std::path::PathBuf;
use std::sync::Arc;

/// The runtime that is called `ort`, or whose library lies at a path.
fn library(runtime: Option<PathBuf>) -> Result<Option<Library>> {
    let named = |path: PathBuf| Library::find(Some(path).filter(|p| p.as_os_str() != "ort").as_deref());
    runtime.map(named).transpose()
}

fn measured(text: Option<String>) -> Result<Option<Sensitivity>> {
    text.as_deref().map(Sensitivity::from_json).transpose()
}

/// A quantized network that is too large to be returned as bytes.
#[pyclass(frozen, module = "qdrop._qdrop")]
pub struct Quantized {
    inner: Arc<qdrop::QuantizedModel>,
}

#[pymethods]
impl Quantized {
    fn save(&self, py: Python<'_>, path: PathBuf) -> PyResult<()> {
        let inner = Arc::clone(&self.inner);
        drive(py, &Progress::none(), move |_| inner.save(path))
    }
}

/// What a run leaves: the bytes of the file, or the network if it is too large; report, recipe, and encodings.
type Made = (Option<Py<PyBytes>>, Option<Quantized>, String, String, Option<String>);

/// Quantizes `model`; if its file has more than `whole` bytes, the result is not returned as bytes.
#[pyfunction]
#[allow(clippy::too_many_arguments)]
pub fn quantize(
    py: Python<'_>,
    model: &Model,
    recipe_toml: &str,
    calibration: &Samples,
    evaluation: Option<&Samples>,
    sensitivity: Option<String>,
    work_dir: Option<PathBuf>,
    runtime: Option<PathBuf>,
    whole: u64,
    progress: Progress,
) -> PyResult<Made> {
    let (model, recipe) = (Arc::clone(&model.model), recipe(py, recipe_toml)?);
    let calibration = Arc::clone(&calibration.set);
    let evaluation = evaluation.map(|samples| Arc::clone(&samples.set));
    let large = model.size() > whole;
    let run = move |caller: &mut Caller<_>| {
        let measured = measured(sensitivity)?;
        let library = library(runtime)?;
        let (used, rest) = (calibration.used()?, calibration.left_out()?);
        let evaluation = evaluation.as_ref().map(|set| set.used()).transpose()?;
        // The directory stays: the caller named it.
        let work = match &work_dir {
            Some(dir) if recipe.resolved().learns || recipe.mixed.wanted() => Some(WorkDir::open(dir)?),
            _ => None,
        };
        let mut quantizer = Quantizer::new(&model).recipe(recipe);
        if let Some(rest) = &rest {
            quantizer = quantizer.unseen(&**rest);
        }
        if let Some(measured) = measured {
            quantizer = quantizer.sensitivity(measured);
        }
        if let Some(samples) = &evaluation {
            quantizer = quantizer.evaluate_on(&**samples);
        }
        if let Some(library) = &library {
            quantizer = quantizer.runtime(library);
        }
        if let Some(work) = &work {
            quantizer = quantizer.work_dir(work);
        }
        let quantizer = quantizer.progress(caller);
        if large {
            let folder = qdrop::disk::temporary_folder().map_err(|e| Error::io(&std::env::temp_dir(), e))?;
            return quantizer.quantize_to(&*used, folder.path().join("quantized.onnx")).map(|done| (None, done));
        }
        let done = quantizer.quantize(&*used)?;
        Ok((Some(done.to_bytes()?), done))
    };
    let (bytes, done) = drive(py, &progress, run)?;
    let fail = |e: Error| raised(py, &e);
    let mut report = done.report().clone();
    // It lay in a folder that is gone.
    report.output = None;
    let report = report.to_json().map_err(fail)?;
    let recipe = done.recipe().to_toml().map_err(fail)?;
    let encodings = done.encodings().map_err(fail)?;
    let whole = bytes.map(|bytes| PyBytes::new(py, &bytes).unbind());
    let kept = if whole.is_none() { Some(Quantized { inner: Arc::new(done) }) } else { None };
    Ok((whole, kept, report, recipe, encodings))
}

/// What quantizing would do: tables and JSON. With `calibration` for these samples; else for so many `samples` of the
/// whole `shapes`, batch axis included, or of those that the file declares.
#[pyfunction]
pub fn plan(
    py: Python<'_>,
    model: &Model,
    recipe_toml: &str,
    sensitivity: Option<String>,
    calibration: Option<&Samples>,
    shapes: Option<Vec<Vec<usize>>>,
    samples: usize,
) -> PyResult<(String, String)> {
    let (model, recipe) = (Arc::clone(&model.model), recipe(py, recipe_toml)?);
    let calibration = calibration.map(|samples| Arc::clone(&samples.set));
    drive(py, &Progress::none(), move |_| {
        let measured = measured(sensitivity)?;
        if recipe.mixed.wanted() && measured.is_none() {
            let error = Error::recipe("a target needs measured sensitivities, got none");
            return Err(error.hint("measure them with qdrop.sensitivity(model, data) and give sensitivity="));
        }
        let planned = match &calibration {
            Some(set) => model.plan_for(&recipe, measured.as_ref(), &*set.used()?)?,
            None => {
                let shapes = shapes.map(|whole| model.sample_shapes(&whole));
                model.plan(&recipe, measured.as_ref(), shapes.as_deref(), samples)?
            }
        };
        let shown = show::planned(&model, recipe, &planned)?;
        Ok((shown.text, shown.json))
    })
}

/// The metrics of `model` on labelled samples, as JSON.
#[pyfunction]
pub fn evaluate(
    py: Python<'_>,
    model: &Model,
    recipe_toml: &str,
    data: &Samples,
    runtime: Option<PathBuf>,
    progress: Progress,
) -> PyResult<String> {
    let (model, recipe, set) = (Arc::clone(&model.model), recipe(py, recipe_toml)?, Arc::clone(&data.set));
    drive(py, &progress, move |caller| {
        let score = match library(runtime)? {
            Some(library) => {
                let file = model.deploy(&library, recipe.method.threads)?;
                model.evaluate_deployed(&file, &*set.used()?, &recipe, caller)?
            }
            None => model.evaluate(&*set.used()?, &recipe, caller)?,
        };
        serde_json::to_string(&score).map_err(|e| Error::internal(e.to_string()))
    })
}

/// Calls `each` with the index of every sample and the outputs for it, as pairs of a shape and the bytes of float32 numbers;
/// in a `runtime`, if one is named.
#[pyfunction]
pub fn answers(
    py: Python<'_>,
    model: &Model,
    data: &Samples,
    threads: usize,
    runtime: Option<PathBuf>,
    each: Py<PyAny>,
    progress: Progress,
) -> PyResult<()> {
    let (model, set, each) = (Arc::clone(&model.model), Arc::clone(&data.set), Arc::new(each));
    drive(py, &progress, move |caller: &mut Caller<()>| {
        let calls = caller.clone();
        let told = |index: usize, outputs: &[Answer<'_>]| {
            let each = Arc::clone(&each);
            let bytes = |values: &[f32]| values.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<u8>>();
            let outputs: Vec<_> = outputs.iter().map(|o| (o.shape.to_vec(), bytes(o.values))).collect();
            calls.ask(move |py| {
                let pairs = outputs.iter().map(|(shape, bytes)| (shape.clone(), PyBytes::new(py, bytes)));
                each.call1(py, (index, pairs.collect::<Vec<_>>())).map(drop)
            })
        };
        let samples = set.used()?;
        match library(runtime)? {
            Some(library) => model.answers_deployed(&model.deploy(&library, threads)?, &*samples, caller, told),
            None => model.answers(&*samples, threads, caller, told),
        }
    })
}

/// Sensitivities, as JSON, of everything or of the share `stripe`.
#[pyfunction]
pub fn sensitivity(
    py: Python<'_>,
    model: &Model,
    recipe_toml: &str,
    data: &Samples,
    stripe: Option<(usize, usize)>,
    progress: Progress,
) -> PyResult<String> {
    let (model, recipe, set) = (Arc::clone(&model.model), recipe(py, recipe_toml)?, Arc::clone(&data.set));
    drive(py, &progress, move |caller| {
        let share = stripe.map(|(index, count)| Stripe::new(index, count)).transpose()?;
        let found = model.sensitivity(&*set.used()?, &recipe, share, caller)?;
        serde_json::to_string(&found).map_err(|e| Error::internal(e.to_string()))
    })
}

/// The sensitivities of which `shares`, pairs of a name and JSON, are all shares, as JSON.
#[pyfunction]
pub fn sensitivity_merged(py: Python<'_>, shares: Vec<(String, String)>) -> PyResult<String> {
    let merged = || {
        let read = |(name, json): (String, String)| {
            Sensitivity::from_json(&json).map(|found| (name.clone(), found)).map_err(|e| e.at(name))
        };
        let whole = Sensitivity::merge(shares.into_iter().map(read).collect::<Result<_>>()?)?;
        serde_json::to_string(&whole).map_err(|e| Error::internal(e.to_string()))
    };
    merged().map_err(|e| raised(py, &e))
}

/// How `b` differs from `a`, value by value: tables and JSON.
#[pyfunction]
pub fn compare(
    py: Python<'_>,
    a: &Model,
    b: &Model,
    recipe_toml: &str,
    data: &Samples,
    progress: Progress,
) -> PyResult<(String, String)> {
    let (a, b, set) = (Arc::clone(&a.model), Arc::clone(&b.model), Arc::clone(&data.set));
    let recipe = recipe(py, recipe_toml)?;
    drive(py, &progress, move |caller| {
        let samples = set.used()?;
        let values = a.compare(&b, &*samples, &recipe, caller)?;
        if values.is_empty() {
            let message = format!("`{}` and `{}` share no computed value", a.name(), b.name());
            return Err(Error::unsupported(message).hint("compare networks made from the same export"));
        }
        let shown = show::compared((a.name(), b.name()), samples.len(), values)?;
        Ok((shown.text, shown.json))
    })
}

/// Writes the file of a quantized network, whole or not at all, and its encodings beside it.
#[pyfunction]
pub fn save(py: Python<'_>, path: PathBuf, content: &[u8], encodings: Option<&str>) -> PyResult<()> {
    let write = |path: &PathBuf, bytes: &[u8]| qdrop::disk::write(path, &[bytes]).map_err(|e| Error::io(path, e));
    py.detach(|| {
        write(&path, content)?;
        encodings.map_or(Ok(()), |text| write(&qdrop::pipeline::encodings_path(&path), text.as_bytes()))
    })
    .map_err(|e: Error| raised(py, &e))
}

/// The report in `json` as tables.
#[pyfunction]
pub fn report_text(py: Python<'_>, json: &str) -> PyResult<String> {
    Report::from_json(json.as_bytes()).map(|report| show::report(&report)).map_err(|e| raised(py, &e))
}

/// The report in `json` as a page.
#[pyfunction]
pub fn report_html(py: Python<'_>, json: &str) -> PyResult<String> {
    Report::from_json(json.as_bytes()).map(|report| report.html()).map_err(|e| raised(py, &e))
}

/// The sensitivities in `json` as tables, as a page, and as the lines of a CSV file.
#[pyfunction]
pub fn sensitivity_shown(py: Python<'_>, json: &str) -> PyResult<(String, String, String)> {
    let shown = || -> Result<_> {
        let found = Sensitivity::from_json(json)?;
        Ok((show::sensitivities(&found)?.text, found.html(), show::sensitivities_csv(&found)))
    };
    shown().map_err(|e| raised(py, &e))
}

/// The built-in network, the classes it tells apart, and the pixels of pictures of them, `[count, 32, 32, 3]`.
#[pyfunction]
pub fn demo(py: Python<'_>, count: usize, seed: u64) -> (Py<PyBytes>, usize, Py<PyBytes>) {
    let pixels = py.detach(|| qdrop_cli::demo::pixels(count, seed));
    (PyBytes::new(py, qdrop_cli::demo::NETWORK).unbind(), qdrop_cli::demo::CLASSES, PyBytes::new(py, &pixels).unbind())
}

/// Runs the command line, and returns the exit status.
#[pyfunction]
pub fn run(py: Python<'_>, args: Vec<std::ffi::OsString>) -> u8 {
    py.detach(|| qdrop_cli::run(args))
}
