//! Connector packages (`.ipkg`): what `cdk deploy start --ipkg` takes apart.
//!
//! A package is a tar of `package-meta.yaml` and `manifest.tar.gz`; the latter holds
//! `Connector.toml` and the binary (read in Fluvio 0.50.2). With one, cdk needs neither cargo
//! nor the source, and can be called from any folder.

use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use flate2::Compression;
use flate2::write::GzEncoder;
use serde::Deserialize;

use super::cdk::find_program;
use crate::connectors::registry;

const DESCRIPTION: &str = "Connector.toml";

/// A connector that can be packed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Package {
    /// `meta.type` of its configurations.
    pub type_name: String,
    /// Text of its `Connector.toml`.
    pub description: String,
    /// Its binary.
    pub binary: PathBuf,
}

#[derive(Debug, Deserialize)]
struct Description {
    package: DescribedPackage,
    deployment: Deployment,
}

#[derive(Debug, Deserialize)]
struct DescribedPackage {
    name: String,
    #[serde(default)]
    group: String,
    version: String,
    #[serde(default)]
    description: String,
    #[serde(default)]
    license: String,
}

#[derive(Debug, Deserialize)]
struct Deployment {
    binary: String,
}

/// Finds the package of a type: a `Connector.toml` in one of `dirs`, else the built-in one; its
/// binary beside it, beside this program, or on PATH.
///
/// # Errors
/// When the type or its binary is nowhere; names every place.
pub fn find(type_name: &str, dirs: &[PathBuf]) -> Result<Package> {
    for dir in dirs {
        let file = dir.join(DESCRIPTION);
        let text = std::fs::read_to_string(&file).with_context(|| {
            format!(
                "cannot read `{}`, the description of a connector",
                file.display()
            )
        })?;
        let described = parse(&text).with_context(|| format!("in `{}`", file.display()))?;
        if described.package.name == type_name {
            return with_binary(text, &described, Some(dir));
        }
    }
    let registry = registry();
    let built_in = registry.kind(type_name);
    if let Some(text) = built_in.and_then(|kind| kind.package_description()) {
        return with_binary(text.to_owned(), &parse(text)?, None);
    }
    bail!(
        "no package of a `{type_name}` is known; give the directory of its `{DESCRIPTION}` and binary with `--package-dir`"
    )
}

fn parse(text: &str) -> Result<Description> {
    Ok(toml::from_str(text)?)
}

fn with_binary(text: String, described: &Description, dir: Option<&PathBuf>) -> Result<Package> {
    let name = &described.deployment.binary;
    let own = std::env::current_exe()
        .ok()
        .and_then(|program| Some(program.parent()?.to_owned()));
    let beside = dir.into_iter().chain(&own).map(|dir| dir.join(name));
    let found = beside
        .into_iter()
        .find(|file| file.is_file())
        .or_else(|| find_program(name, None, std::env::var_os("PATH").as_ref()));
    let Some(binary) = found else {
        bail!(
            "the binary `{name}` is neither {}beside `millpond` nor on PATH; build it with `cargo build --release -p millpond-{}`",
            dir.map_or_else(String::new, |dir| format!("in `{}` nor ", dir.display())),
            described.package.name
        );
    };
    Ok(Package {
        type_name: described.package.name.clone(),
        description: text,
        binary,
    })
}

/// Writes a package. The same connector gives the same bytes.
///
/// # Errors
/// When the binary cannot be read.
pub fn write(package: &Package, out: impl Write) -> Result<()> {
    let described = parse(&package.description)?;
    let binary_name = described.deployment.binary.as_str();
    let binary = std::fs::read(&package.binary)
        .with_context(|| format!("cannot read `{}`", package.binary.display()))?;
    // It is unpacked on this machine a moment later: speed matters, size does not.
    let mut manifest = tar::Builder::new(GzEncoder::new(Vec::new(), Compression::fast()));
    append(
        &mut manifest,
        DESCRIPTION,
        0o644,
        package.description.as_bytes(),
    )?;
    append(&mut manifest, binary_name, 0o755, &binary)?;
    let manifest = manifest.into_inner()?.finish()?;
    // JSON is YAML.
    let meta = serde_json::json!({
        "package_format_version": "0.3",
        "name": described.package.name,
        "version": described.package.version,
        "group": described.package.group,
        "description": described.package.description,
        "license": described.package.license,
        "manifest": [DESCRIPTION, binary_name],
        "repository_url": null,
        "tags": null,
        "visibility": "private",
    });
    let mut outer = tar::Builder::new(out);
    append(
        &mut outer,
        "package-meta.yaml",
        0o644,
        format!("{meta:#}\n").as_bytes(),
    )?;
    append(&mut outer, "manifest.tar.gz", 0o644, &manifest)?;
    outer.into_inner()?.flush()?;
    Ok(())
}

fn append<W: Write>(tar: &mut tar::Builder<W>, name: &str, mode: u32, bytes: &[u8]) -> Result<()> {
    let mut header = tar::Header::new_gnu();
    header.set_size(bytes.len() as u64);
    header.set_mode(mode);
    tar.append_data(&mut header, Path::new(name), bytes)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;

    fn entries(bytes: &[u8]) -> Vec<(String, Vec<u8>)> {
        let mut archive = tar::Archive::new(bytes);
        let mut found = Vec::new();
        for entry in archive.entries().expect("entries") {
            let mut entry = entry.expect("entry");
            let name = entry.path().expect("path").display().to_string();
            let mut bytes = Vec::new();
            entry.read_to_end(&mut bytes).expect("content");
            found.push((name, bytes));
        }
        found
    }

    #[test]
    fn every_connector_of_this_binary_has_a_description() {
        for kind in registry().kinds() {
            let name = kind.type_name();
            let text = kind.package_description();
            let text = text.unwrap_or_else(|| panic!("`{name}` shows no `{DESCRIPTION}`"));
            assert_eq!(parse(text).expect("a description").package.name, name);
        }
    }

    #[test]
    fn a_package_holds_description_and_binary() {
        let dir = tempfile::tempdir().expect("directory");
        let text =
            "[package]\nname = \"x-sink\"\nversion = \"1.0.0\"\n[deployment]\nbinary = \"x\"\n";
        std::fs::write(dir.path().join(DESCRIPTION), text).expect("written");
        let dirs = [dir.path().to_owned()];
        let missing = find("x-sink", &dirs).expect_err("no binary").to_string();
        assert!(missing.contains("`x` is neither"), "{missing}");
        std::fs::write(dir.path().join("x"), b"binary").expect("written");
        let package = find("x-sink", &dirs).expect("found");
        let mut bytes = Vec::new();
        write(&package, &mut bytes).expect("packed");
        let mut again = Vec::new();
        write(&package, &mut again).expect("packed");
        assert_eq!(bytes, again);

        let outer = entries(&bytes);
        assert_eq!(outer[0].0, "package-meta.yaml");
        assert_eq!(outer[1].0, "manifest.tar.gz");
        let mut inner = Vec::new();
        flate2::read::GzDecoder::new(outer[1].1.as_slice())
            .read_to_end(&mut inner)
            .expect("gzip");
        let inner = entries(&inner);
        assert_eq!(inner[0], (DESCRIPTION.to_owned(), text.as_bytes().to_vec()));
        assert_eq!(inner[1], ("x".to_owned(), b"binary".to_vec()));
    }

    #[test]
    fn unknown_types_say_what_to_do() {
        let error = find("y-sink", &[]).expect_err("unknown").to_string();
        assert!(error.contains("--package-dir"), "{error}");
    }
}
