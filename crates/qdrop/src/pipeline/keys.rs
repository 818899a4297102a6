//! What the runs of a sweep follow from.

use crate::error::{Error, Result};
use crate::onnx;
use crate::plan::SweepRun;
use crate::work::{REVISION, encode};
use std::collections::HashMap;
use std::fs::File;
use std::path::Path;

/// For each run of a sweep, the hash of everything that determines its result: the version, the recipe without options
/// that affect only the speed, the bytes of the model and of its external data, and the paths of the samples.
pub fn run_keys(runs: &[SweepRun]) -> Result<Vec<String>> {
    let mut models: HashMap<&Path, blake3::Hash> = HashMap::new();
    let mut keys = Vec::with_capacity(runs.len());
    for run in runs {
        if !models.contains_key(run.model.as_path()) {
            models.insert(&run.model, hash_of_model(&run.model)?);
        }
        let mut recipe = run.recipe.clone();
        (recipe.method.threads, recipe.method.memory) = (0, None);
        let mut hasher = blake3::Hasher::new();
        hasher.update(REVISION).update(models[run.model.as_path()].as_bytes()).update(&encode(&recipe)?);
        hasher.update(&encode(&(run.calib.to_string_lossy(), run.eval.to_string_lossy()))?);
        keys.push(hasher.finalize().to_hex()[..32].to_string());
    }
    Ok(keys)
}

fn hash_of_model(path: &Path) -> Result<blake3::Hash> {
    let mut hasher = blake3::Hasher::new();
    for file in onnx::files(path)? {
        let open = File::open(&file).map_err(|e| Error::io(&file, e))?;
        hasher.update_reader(open).map_err(|e| Error::io(&file, e))?;
    }
    Ok(hasher.finalize())
}
