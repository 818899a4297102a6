//! Bits chosen layer by layer: what was measured, read from a file; the recipe that repeats the choice, written to one.

use crate::args;
use crate::{checks, out};
use qdrop::plan::{Recipe, Sensitivity};
use qdrop::{Error, Result};
use std::path::Path;

/// Most bytes a file of sensitivities may have.
const LONGEST: u64 = 1 << 28;

/// Refuses options that make no sense together, before any work. `taken` are the files that the command reads, and those
/// that it writes besides.
pub fn check(bits: &args::Bits, recipe: &Recipe, taken: &[&Path]) -> Result<()> {
    if let Some(path) = &bits.sensitivity {
        checks::readable_file(path)?;
        if !recipe.mixed.wanted() {
            let error = Error::recipe("expected a target with --sensitivity, got none");
            return Err(error.hint("give --target-size or --target-bitops"));
        }
    }
    let taken: Vec<&Path> = taken.iter().copied().chain(bits.sensitivity.as_deref()).collect();
    bits.save_recipe.as_deref().map_or(Ok(()), |path| checks::writable(path, &taken, "--save-recipe"))
}

/// What bits are chosen by, from the file that was named.
pub fn measured(bits: &args::Bits) -> Result<Option<Sensitivity>> {
    let whole = |path: &Path| {
        let found = read(path)?;
        found.require_whole().map_err(|e| e.at(path.display()))?;
        Ok(found)
    };
    bits.sensitivity.as_deref().map(whole).transpose()
}

/// The sensitivities in the file at `path`, of all layers and activations or of a share.
pub fn read(path: &Path) -> Result<Sensitivity> {
    let at = |e: Error| e.at(path.display()).hint("make the file with `qdrop sensitivity MODEL -o FILE.json`");
    let size = std::fs::metadata(path).map_err(|e| Error::io(path, e))?.len();
    if size > LONGEST {
        return Err(at(Error::data(format!("expected a file of at most {LONGEST} bytes, got {size}"))));
    }
    let text = std::fs::read_to_string(path).map_err(|e| Error::io(path, e))?;
    Sensitivity::from_json(&text).map_err(at)
}

/// Writes `recipe` where it was wanted.
pub fn save(bits: &args::Bits, recipe: &Recipe) -> Result<()> {
    bits.save_recipe.as_deref().map_or(Ok(()), |path| out::file(path, &recipe.to_toml()?))
}
