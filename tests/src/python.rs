//! Finds a Python for the tests that need one.

use std::path::PathBuf;
use std::process::Command;

/// Names the Python to use.
const PYTHON_VARIABLE: &str = "MILLPOND_PYTHON";

/// A Python that can import all of these, or why there is none.
///
/// # Errors
/// What to install, and the variable that names another Python.
pub fn with(modules: &[&str]) -> Result<String, String> {
    let python = std::env::var(PYTHON_VARIABLE).unwrap_or_else(|_| "python3".into());
    let import = format!("import {}", modules.join(", "));
    let asked = Command::new(&python).args(["-c", &import]).output();
    if asked.is_ok_and(|output| output.status.success()) {
        return Ok(python);
    }
    Err(format!(
        "`{python}` cannot import {} (pip install {}; {PYTHON_VARIABLE} names another Python)",
        modules.join(", "),
        modules.join(" ")
    ))
}

/// The folder of the Python decoder.
#[must_use]
pub fn decoder() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../python"))
}
