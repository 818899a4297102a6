//! What must hold about files before any work begins.

use qdrop::disk::{self, FileIdentity};
use qdrop::error::Kind;
use qdrop::plan::{Recipe, Target};
use qdrop::{Error, Result};
use std::path::{Path, PathBuf};

/// Deepest nesting of folders that samples are looked for in.
const DEEPEST: usize = 16;

/// That `path` is a file that can be opened.
pub fn readable_file(path: &Path) -> Result<()> {
    let file = std::fs::File::open(path).map_err(|e| Error::io(path, e))?;
    let kind = file.metadata().map_err(|e| Error::io(path, e))?;
    if kind.is_dir() {
        return Err(Error::new(Kind::Io, "expected a file, got a directory").at(path.display()));
    }
    Ok(())
}

/// That there is something at `path`.
pub fn exists(path: &Path) -> Result<()> {
    std::fs::metadata(path).map(drop).map_err(|e| Error::io(path, e))
}

/// That `output`, which `option` names, can be written and is none of the files `taken`: read, or written besides.
pub fn writable(output: &Path, taken: &[&Path], option: &str) -> Result<()> {
    if output.is_dir() {
        let error = Error::new(Kind::Io, "expected a file name for the output, got a directory");
        return Err(error.at(output.display()).hint(format!("give a file name with {option}")));
    }
    apart(&[output], taken, option)?;
    let directory = disk::folder(output);
    if !directory.is_dir() {
        let error = Error::new(Kind::Io, format!("the directory `{}` does not exist", directory.display()));
        return Err(error.at(output.display()).hint(format!("create it, or give another name with {option}")));
    }
    let probe = tempfile::Builder::new().prefix(disk::UNFINISHED).tempfile_in(directory).map(drop);
    probe.map_err(|e| {
        Error::new(Kind::Io, format!("cannot write to the directory `{}`: {e}", directory.display()))
            .at(output.display())
            .hint(format!("give another directory with {option}"))
    })
}

/// That none of the `outputs`, which `option` decides, is one of the files `taken`, by whatever name.
pub fn apart(outputs: &[impl AsRef<Path>], taken: &[impl AsRef<Path>], option: &str) -> Result<()> {
    let mut written: Vec<(&Path, PathBuf, FileIdentity)> = Vec::new();
    for output in outputs.iter().map(AsRef::as_ref) {
        // What external data of a large model is called.
        let mut data = output.as_os_str().to_owned();
        data.push(".data");
        for path in [output.to_path_buf(), PathBuf::from(data)] {
            let identity = FileIdentity::of(&path);
            written.push((output, path, identity));
        }
    }
    for input in taken.iter().map(AsRef::as_ref) {
        let identity = FileIdentity::of(input);
        if let Some((output, ..)) = written.iter().find(|(_, path, own)| path == input || own.is(&identity)) {
            let error = Error::new(Kind::Io, format!("output and input `{}` are the same file", input.display()));
            return Err(error.at(output.display()).hint(format!("give another name with {option}")));
        }
    }
    Ok(())
}

/// The files that a run by `recipe` reads: those of the model and of the samples in `sets`.
pub fn run_files<'a>(model: &Path, sets: impl IntoIterator<Item = &'a PathBuf>, recipe: &Recipe) -> Vec<PathBuf> {
    let mut files = model_files(model);
    files.extend(sets.into_iter().flat_map(|set| sample_files(set)));
    files.extend(recipe.input.tokenizer.iter().map(PathBuf::from));
    files
}

/// The files that a model takes, external data included; it alone where it cannot be read.
pub fn model_files(path: &Path) -> Vec<PathBuf> {
    qdrop::onnx::files(path).unwrap_or_else(|_| vec![path.to_path_buf()])
}

/// The files that samples at `path` take: those in a folder and below it, and those that a list names.
pub fn sample_files(path: &Path) -> Vec<PathBuf> {
    let mut files = vec![path.to_path_buf()];
    if path.is_dir() {
        let mut folders = vec![(path.to_path_buf(), 0)];
        while let Some((folder, depth)) = folders.pop() {
            for entry in std::fs::read_dir(&folder).into_iter().flatten().flatten() {
                match entry.file_type() {
                    Ok(kind) if kind.is_dir() && depth < DEEPEST => folders.push((entry.path(), depth + 1)),
                    _ => files.push(entry.path()),
                }
            }
        }
    } else if path.extension().is_some_and(|e| e.eq_ignore_ascii_case("csv")) {
        let folder = path.parent().unwrap_or(Path::new(""));
        let text = std::fs::read_to_string(path).unwrap_or_default();
        let first = |line: &str| line.split(',').next().map(|f| folder.join(f.trim().trim_matches('"')));
        files.extend(text.lines().filter_map(first));
    }
    files
}

/// Where the result goes when the user names no file: the model's name with the bits, or `mixed` where they are to be
/// chosen, and the target, unless that is ONNX Runtime, in the current directory.
pub fn default_output(model: &Path, recipe: &Recipe) -> PathBuf {
    let stem = model.file_stem().map_or_else(|| "model".into(), |s| s.to_string_lossy());
    let target = match recipe.output.target {
        Target::Ort => String::new(),
        other => format!(".{other}"),
    };
    let bits = match recipe.mixed.wanted() {
        true => "mixed".to_string(),
        false => format!("w{}a{}", recipe.weights.bits, recipe.activations.bits),
    };
    PathBuf::from(format!("{stem}.{bits}{target}.onnx"))
}

/// Where finished units are kept when the user names no directory: beside the result.
pub fn default_work(output: &Path) -> PathBuf {
    let mut name = output.as_os_str().to_owned();
    name.push(".work");
    PathBuf::from(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outputs_are_checked_before_work() {
        let dir = tempfile::tempdir().unwrap();
        let model = dir.path().join("m.onnx");
        std::fs::write(&model, b"x").unwrap();
        assert!(writable(&dir.path().join("out.onnx"), &[&model], "-o").is_ok());
        assert!(writable(&model, &[&model], "-o").unwrap_err().message().contains("same file"));
        assert!(writable(dir.path(), &[&model], "-o").unwrap_err().message().contains("directory"));
        let missing = dir.path().join("none").join("out.onnx");
        assert!(writable(&missing, &[&model], "-o").unwrap_err().message().contains("does not exist"));
        let link = dir.path().join("link.onnx");
        std::fs::hard_link(&model, &link).unwrap();
        assert!(writable(&link, &[&model], "-o").unwrap_err().message().contains("same file"));
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 2, "the probe is gone");
    }

    #[test]
    fn default_output_is_predictable() {
        let recipe = Recipe::default();
        assert_eq!(default_output(Path::new("a/b/net.onnx"), &recipe), Path::new("net.w4a4.onnx"));
        let mut mixed = recipe;
        mixed.mixed.size = "w3".parse().ok();
        assert_eq!(default_output(Path::new("a/b/net.onnx"), &mixed), Path::new("net.mixed.onnx"));
    }
}
