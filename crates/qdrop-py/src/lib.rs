//! The module `qdrop._qdrop`: what the Python package `qdrop` calls, on `qdrop::quantizer`.
//!
//! It is thin. The package, in `python/qdrop`, turns what users give into arrays, options into JSON, and results into objects;
//! here they become the library's types. Its signatures are in `python/qdrop/_qdrop.pyi`.

mod drive;
mod errors;
mod model;
mod samples;
mod work;

#[pyo3::pymodule]
mod _qdrop {
    use pyo3::prelude::*;

    #[pymodule_export]
    use super::model::{Model, recipe_default, recipe_from_json, recipe_from_toml, recipe_options, recipe_to_json};
    #[pymodule_export]
    use super::samples::{Collector, Samples};
    #[pymodule_export]
    use super::work::{
        Quantized, answers, compare, demo, evaluate, plan, quantize, report_html, report_text, run, save, sensitivity,
        sensitivity_merged, sensitivity_shown,
    };

    #[pymodule_init]
    fn init(module: &Bound<'_, PyModule>) -> PyResult<()> {
        module.add("__version__", env!("CARGO_PKG_VERSION"))
    }
}
