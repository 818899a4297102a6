//! What the runs of a sweep follow from.

use crate::error::{Error, Result};
use crate::onnx;
use crate::plan::{Input, SweepRun};
use crate::work::{REVISION, encode};
use std::collections::HashMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

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

/// The hash of everything that determines the score of the float network of `run`: the version, the bytes of the model and
/// of its external data, how samples become network input, and the path of the evaluation samples with the sizes and the
/// times of change of their `files`. Runs that share it need not measure the network again.
pub fn float_key(run: &SweepRun, files: &[PathBuf]) -> Result<String> {
    // How many calibration samples there are changes nothing here.
    let input = Input { samples: None, ..run.recipe.input.clone() };
    let mut hasher = blake3::Hasher::new();
    hasher.update(REVISION).update(hash_of_model(&run.model)?.as_bytes());
    hasher.update(&encode(&(run.eval.to_string_lossy(), input))?);
    for file in files {
        let stated = std::fs::metadata(file).and_then(|m| Ok((m.len(), m.modified()?))).ok();
        let age = stated.and_then(|(_, time)| time.duration_since(UNIX_EPOCH).ok());
        hasher.update(&encode(&(file.to_string_lossy(), stated.map(|s| s.0), age))?);
    }
    Ok(hasher.finalize().to_hex()[..32].to_string())
}

fn hash_of_model(path: &Path) -> Result<blake3::Hash> {
    let mut hasher = blake3::Hasher::new();
    for file in onnx::files(path)? {
        let open = File::open(&file).map_err(|e| Error::io(&file, e))?;
        hasher.update_reader(open).map_err(|e| Error::io(&file, e))?;
    }
    Ok(hasher.finalize())
}
