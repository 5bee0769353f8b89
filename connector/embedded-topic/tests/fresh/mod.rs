//! The example SmartModules are what their sources make: compared with what `build.sh` wrote
//! down, and where the same compiler is installed also built anew.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use sha2::{Digest, Sha256};

const ADVICE: &str = "run smartmodules/examples/build.sh and commit what it writes";
const FOLDER: &str = "smartmodules/examples";

fn root() -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    root.canonicalize().expect("the workspace")
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn hex_digest(bytes: &[u8]) -> String {
    let mut hex = String::new();
    for byte in Sha256::digest(bytes) {
        let _ = write!(hex, "{byte:02x}");
    }
    hex
}

/// Folders with a crate in them.
fn modules() -> Vec<String> {
    let entries = fs::read_dir(root().join(FOLDER)).expect("a folder");
    let folders = entries.map(|entry| entry.expect("an entry").path());
    let mut modules: Vec<String> = folders
        .filter(|path| path.join("Cargo.toml").is_file())
        .filter_map(|path| Some(path.file_name()?.to_str()?.to_owned()))
        .collect();
    modules.sort();
    assert!(!modules.is_empty());
    modules
}

/// Values of all lines of a module's inputs that start with `kind`.
fn inputs(module: &str, kind: &str) -> Vec<String> {
    read(&format!("{FOLDER}/{module}.wasm.inputs"))
        .lines()
        .filter_map(|line| line.strip_prefix(kind)?.strip_prefix(' '))
        .map(str::to_owned)
        .collect()
}

fn input(module: &str, kind: &str) -> String {
    let [value] = inputs(module, kind).try_into().expect("one line");
    value
}

fn committed(module: &str) -> Vec<u8> {
    fs::read(root().join(format!("{FOLDER}/{module}.wasm"))).expect("the module")
}

#[test]
fn the_examples_are_as_new_as_their_sources_and_small() {
    let lock = read("Cargo.lock");
    for module in modules() {
        let wasm = committed(&module);
        assert!(wasm.len() < 256 << 10, "{module} has {} bytes", wasm.len());
        assert_eq!(hex_digest(&wasm), input(&module, "wasm"), "{ADVICE}");
        let mut recorded = BTreeSet::new();
        for line in inputs(&module, "source") {
            let (path, digest) = line.split_once(' ').expect("path and digest");
            let text = read(path);
            let source = text.lines().take_while(|line| *line != "#[cfg(test)]");
            let source: String = source.map(|line| format!("{line}\n")).collect();
            let found = hex_digest(source.as_bytes());
            assert_eq!(found, digest, "{path} has changed: {ADVICE}");
            recorded.insert(path.to_owned());
        }
        for entry in fs::read_dir(root().join(format!("{FOLDER}/{module}/src"))).expect("sources") {
            let name = entry.expect("an entry").file_name();
            let path = format!("{FOLDER}/{module}/src/{}", name.to_string_lossy());
            assert!(recorded.contains(&path), "{path} is new: {ADVICE}");
        }
        for line in inputs(&module, "package") {
            let (name, version) = line.split_once(' ').expect("name and version");
            let locked = format!("name = \"{name}\"\nversion = \"{version}\"\n");
            assert!(
                lock.contains(&locked),
                "{name} is not at {version}: {ADVICE}"
            );
        }
    }
}

/// Why the modules cannot be built here the way they were; `None` when they can.
fn obstacle() -> Option<String> {
    let output = |arguments: &[&str]| {
        let output = Command::new("rustc").args(arguments).output().ok()?;
        Some(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    let rustc = output(&["--version"]).unwrap_or_default();
    let rustc = rustc.split(' ').nth(1).unwrap_or("missing").to_owned();
    let wanted = input(&modules()[0], "rustc");
    if rustc != wanted {
        return Some(format!("rustc is {rustc}, not {wanted}"));
    }
    let target = [
        "--target",
        "wasm32-unknown-unknown",
        "--print",
        "target-libdir",
    ];
    let is_installed = output(&target).is_some_and(|libraries| Path::new(&libraries).is_dir());
    (!is_installed).then(|| "target wasm32-unknown-unknown is not installed".to_owned())
}

#[test]
fn building_the_examples_again_gives_the_same_bytes() {
    if let Some(obstacle) = obstacle() {
        // Past the test harness, which keeps what a passing test prints to itself.
        let skipped = format!("SKIPPED the rebuild of the example SmartModules: {obstacle}");
        let _ = writeln!(std::io::stderr(), "{skipped}");
        return;
    }
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("examples-again");
    let built = Command::new(root().join(FOLDER).join("build.sh"))
        .arg("--to")
        .arg(&folder)
        .output()
        .expect("build.sh runs");
    let log = String::from_utf8_lossy(&built.stderr);
    assert!(built.status.success(), "{log}");
    for module in modules() {
        let again = fs::read(folder.join(format!("{module}.wasm"))).expect("the module");
        assert_eq!(
            hex_digest(&again),
            hex_digest(&committed(&module)),
            "the same sources make other bytes of {module} here: {ADVICE}"
        );
    }
}
