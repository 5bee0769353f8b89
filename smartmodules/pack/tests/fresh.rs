//! `pack.wasm` is what the sources make: compared with what `build.sh` wrote down, and where
//! the same compilers are installed also built anew.

use std::collections::BTreeSet;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use sha2::{Digest, Sha256};

const ADVICE: &str = "run smartmodules/pack/build.sh and commit what it writes";

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../..")
        .canonicalize()
        .expect("the workspace")
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn hex_digest(bytes: &[u8]) -> String {
    Sha256::digest(bytes)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

/// The text that goes into a digest: without tests, which are not in the module.
fn without_tests(text: &str) -> String {
    text.lines()
        .take_while(|line| !["#[cfg(test)]", "[dev-dependencies]"].contains(line))
        .map(|line| format!("{line}\n"))
        .collect()
}

/// Values of all lines of `pack.wasm.inputs` that start with `kind`.
fn inputs(kind: &str) -> Vec<String> {
    read("smartmodules/pack/pack.wasm.inputs")
        .lines()
        .filter_map(|line| line.strip_prefix(kind)?.strip_prefix(' '))
        .map(str::to_owned)
        .collect()
}

fn input(kind: &str) -> String {
    let [value] = inputs(kind).try_into().expect("one line");
    value
}

#[test]
fn the_module_is_the_one_that_was_written_down() {
    assert_eq!(hex_digest(millpond_pack::WASM), input("wasm"), "{ADVICE}");
}

#[test]
fn the_module_is_as_new_as_its_sources() {
    let mut recorded = BTreeSet::new();
    for line in inputs("source") {
        let (path, digest) = line.split_once(' ').expect("path and digest");
        let text = without_tests(&read(path));
        assert_eq!(
            hex_digest(text.as_bytes()),
            digest,
            "{path} has changed: {ADVICE}"
        );
        recorded.insert(path.to_owned());
    }
    for folder in ["smartmodules/pack/src", "crates/format/src"] {
        for entry in fs::read_dir(root().join(folder)).expect("a folder") {
            let name = entry.expect("an entry").file_name();
            let path = format!("{folder}/{}", name.to_string_lossy());
            assert!(recorded.contains(&path), "{path} is new: {ADVICE}");
        }
    }
}

#[test]
fn the_module_has_the_dependencies_of_the_lock_file() {
    let manifest = read("Cargo.toml");
    for line in inputs("dependency") {
        assert!(
            manifest.lines().any(|known| known == line),
            "`{line}` has changed: {ADVICE}"
        );
    }
    let lock = read("Cargo.lock");
    for line in inputs("package") {
        let (name, version) = line.split_once(' ').expect("name and version");
        let locked = format!("name = \"{name}\"\nversion = \"{version}\"\n");
        assert!(
            lock.contains(&locked),
            "{name} is not at {version}: {ADVICE}"
        );
    }
}

fn version_of(program: &str, argument: &str) -> Option<String> {
    let output = Command::new(program).arg(argument).output().ok()?;
    Some(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// Why the module cannot be built here the way it was; `None` when it can.
fn obstacle() -> Option<String> {
    let rustc = version_of("rustc", "--version").unwrap_or_default();
    let rustc = rustc.split(' ').nth(1).unwrap_or("missing").to_owned();
    if rustc != input("rustc") {
        return Some(format!("rustc is {rustc}, not {}", input("rustc")));
    }
    let clang = version_of("clang", "-dumpversion").unwrap_or("missing".into());
    if clang != input("clang") {
        return Some(format!("clang is {clang}, not {}", input("clang")));
    }
    let libraries = Command::new("rustc")
        .args([
            "--target",
            "wasm32-unknown-unknown",
            "--print",
            "target-libdir",
        ])
        .output();
    let installed = libraries
        .is_ok_and(|output| Path::new(String::from_utf8_lossy(&output.stdout).trim()).is_dir());
    (!installed).then(|| "target wasm32-unknown-unknown is not installed".to_owned())
}

#[test]
fn building_again_gives_the_same_bytes() {
    if let Some(obstacle) = obstacle() {
        // Past the test harness, which keeps what a passing test prints to itself.
        let _ = writeln!(
            std::io::stderr(),
            "SKIPPED the rebuild of pack.wasm: {obstacle}"
        );
        return;
    }
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("pack-again");
    let built = Command::new(root().join("smartmodules/pack/build.sh"))
        .arg("--to")
        .arg(&folder)
        .output()
        .expect("build.sh runs");
    let log = String::from_utf8_lossy(&built.stderr);
    assert!(built.status.success(), "{log}");
    let wasm = fs::read(folder.join("pack.wasm")).expect("pack.wasm");
    assert_eq!(
        hex_digest(&wasm),
        hex_digest(millpond_pack::WASM),
        "the same sources make other bytes here: {ADVICE}"
    );
}
