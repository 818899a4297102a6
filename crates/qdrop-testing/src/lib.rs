//! What the tests of the workspace share: where data of others and a Python interpreter are, and small files.
//!
//! What is missing is printed as skipped, or fails the test where an environment variable demands it with the value 1:
//! `QDROP_REQUIRE_SHARED`, `QDROP_REQUIRE_PYTHON`, `QDROP_REQUIRE_OPENVINO`, `QDROP_REQUIRE_QONNX`,
//! `QDROP_REQUIRE_CV2`, `QDROP_REQUIRE_AIMET`, `QDROP_REQUIRE_BROWSER`, `QDROP_REQUIRE_RAY`, `QDROP_REQUIRE_OPTUNA`,
//! `QDROP_REQUIRE_KUBERNETES`, `QDROP_REQUIRE_SLURM`.

use std::path::{Path, PathBuf};

fn missing(demand: &str, what: &str) {
    assert!(std::env::var(demand).as_deref() != Ok("1"), "{what}, and {demand} demands it");
    println!("skipped: {what}");
}

/// `part` of the shared data, in the folder that `QDROP_SHARED` names, else in `shared` beside the workspace.
///
/// # Panics
/// Where it is missing but demanded.
pub fn shared(part: &str) -> Option<PathBuf> {
    let beside = || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared");
    let path = std::env::var_os("QDROP_SHARED").map_or_else(beside, PathBuf::from).join(part);
    if path.exists() {
        return Some(path);
    }
    missing("QDROP_REQUIRE_SHARED", &format!("{} does not exist (QDROP_SHARED)", path.display()));
    None
}

/// The Python interpreter that `QDROP_PYTHON` names.
///
/// # Panics
/// Where none is named but demanded.
pub fn python() -> Option<PathBuf> {
    let found = std::env::var_os("QDROP_PYTHON").map(PathBuf::from);
    if found.is_none() {
        missing("QDROP_REQUIRE_PYTHON", "QDROP_PYTHON names no interpreter with scripts/judge/requirements.txt");
    }
    found
}

/// A Python interpreter that has `module`, such as `openvino`: the one that `QDROP_OPENVINO` names, else `QDROP_PYTHON`.
/// The variable has the first word of the module's name: `QDROP_AIMET` for `aimet_onnx`.
///
/// # Panics
/// Where there is none but `QDROP_REQUIRE_OPENVINO` demands it.
pub fn python_with(module: &str) -> Option<PathBuf> {
    let name = module.split('_').next().unwrap_or(module).to_uppercase();
    let own = std::env::var_os(format!("QDROP_{name}")).or_else(|| std::env::var_os("QDROP_PYTHON"));
    let has = |python: &PathBuf| {
        let found = std::process::Command::new(python).args(["-c", &format!("import {module}")]).output();
        found.is_ok_and(|out| out.status.success())
    };
    let found = own.map(PathBuf::from).filter(has);
    if found.is_none() {
        let what = format!("neither QDROP_{name} nor QDROP_PYTHON names an interpreter with {module}");
        missing(&format!("QDROP_REQUIRE_{name}"), &what);
    }
    found
}

/// The shared library of ONNX Runtime: the one that `ORT_DYLIB_PATH` names, else that of the package in the environment of
/// the interpreter that `QDROP_PYTHON` names.
///
/// # Panics
/// Where it is missing but `QDROP_REQUIRE_PYTHON` demands an interpreter.
pub fn onnxruntime() -> Option<PathBuf> {
    if let Some(named) = std::env::var_os("ORT_DYLIB_PATH").filter(|v| !v.is_empty()) {
        return Some(named.into());
    }
    let code = "import glob, importlib.util, os
spec = importlib.util.find_spec('onnxruntime')
folder = os.path.join(os.path.dirname(spec.origin), 'capi') if spec else '.'
names = ['libonnxruntime.so*', 'libonnxruntime.*dylib', 'onnxruntime.dll']
print(*[p for n in names for p in glob.glob(os.path.join(folder, n))][:1], end='')";
    let out = std::process::Command::new(python()?).args(["-c", code]).output();
    let path = out.map(|out| String::from_utf8_lossy(&out.stdout).into_owned()).unwrap_or_default();
    if path.is_empty() {
        missing("QDROP_REQUIRE_PYTHON", "the environment of QDROP_PYTHON has no shared library of onnxruntime");
        return None;
    }
    Some(path.into())
}

/// The browser that `QDROP_BROWSER` names, else a Chromium among the programs of this machine.
///
/// # Panics
/// Where there is none but one is demanded.
pub fn browser() -> Option<PathBuf> {
    let named = std::env::var_os("QDROP_BROWSER").map(PathBuf::from);
    let installed = || ["chromium", "chromium-browser", "google-chrome"].into_iter().find_map(program);
    let found = named.or_else(installed);
    if found.is_none() {
        missing("QDROP_REQUIRE_BROWSER", "there is no Chromium, and QDROP_BROWSER names none");
    }
    found
}

/// Whether the programs of `what`, such as `slurm`, are all installed; folders of an administrator are looked at too.
///
/// # Panics
/// Where one is missing but `QDROP_REQUIRE_SLURM` demands them.
pub fn programs(what: &str, names: &[&str]) -> bool {
    let Some(lacking) = names.iter().find(|name| program(name).is_none()) else { return true };
    missing(&format!("QDROP_REQUIRE_{}", what.to_uppercase()), &format!("{what} is not installed: no {lacking}"));
    false
}

/// The program `name`, as a shell would find it.
fn program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path).chain(["/usr/sbin".into(), "/sbin".into()]);
    folders.map(|folder| folder.join(name)).find(|p| p.is_file())
}

/// A version 1 `.npy` file of `dtype` (`<f4`) and `shape`.
pub fn npy_bytes(dtype: &str, shape: &[usize], bytes: &[u8]) -> Vec<u8> {
    let dims: String = shape.iter().map(|d| format!("{d}, ")).collect();
    let mut header = format!("{{'descr': '{dtype}', 'fortran_order': False, 'shape': ({dims}), }}");
    while (header.len() + 11) % 64 != 0 {
        header.push(' ');
    }
    header.push('\n');
    let mut file = b"\x93NUMPY\x01\x00".to_vec();
    file.extend((header.len() as u16).to_le_bytes());
    file.extend(header.as_bytes());
    file.extend(bytes);
    file
}

/// Writes a version 1 `.npy` file of `dtype` and `shape`.
///
/// # Panics
/// Where it cannot be written.
pub fn npy(path: &Path, dtype: &str, shape: &[usize], bytes: &[u8]) {
    std::fs::write(path, npy_bytes(dtype, shape, bytes)).unwrap();
}

/// `n` samples of `width` uneven numbers from -2 on, one behind the other.
pub fn numbers(n: usize, width: usize) -> Vec<f32> {
    let value = |index: usize, k: usize| ((index * 37 + k * 101 + k * k * 7) % 199) as f32 / 50.0 - 2.0;
    (0..n * width).map(|i| value(i / width, i % width)).collect()
}
