//! `transforms` of a document: which SmartModules a sink's records go through.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use crate::document::DocumentContext;
use crate::problem::{Problem, Problems, known_names};
use crate::raw_meta::RawTransform;
use crate::registry::Direction;
use crate::section::Section;
use crate::topic::Transform;
use crate::yaml::Value;

/// First bytes of every WebAssembly module.
const WASM_MAGIC: [u8; 4] = *b"\0asm";

/// Checks every step; steps with errors are left out.
pub(crate) fn validate(
    section: &Section<'_>,
    direction: Direction,
    context: &DocumentContext<'_>,
    problems: &mut Problems,
) -> Vec<Transform> {
    let items = match &section.node().value {
        Value::Sequence(items) => items,
        _ if section.node().is_null() => return Vec::new(),
        _ => {
            let what = format!("is {}, not a list", section.node().shape());
            problems.push(
                section
                    .problem("", what)
                    .help("write `- uses: SMARTMODULE` in the next line"),
            );
            return Vec::new();
        }
    };
    if direction == Direction::Source && !items.is_empty() {
        problems.push(
            section
                .problem("", "is not taken on a source: there it would run on single records, and an error in it would lose the record")
                .help("move it to the sink, where it runs on whole stored batches"),
        );
    }
    let steps = items.iter().enumerate().map(|(index, item)| {
        let path = format!("{}[{index}]", section.path());
        Section::new(item, item.span, path)
    });
    let mut packed_at = None;
    steps
        .filter_map(|step| {
            let transform = validate_step(&step, context, problems)?;
            if context.catalog.packs(&transform.uses) {
                match packed_at {
                    None => packed_at = Some(step.path().to_owned()),
                    Some(ref first) => problems.push(packed_twice(&step, first)),
                }
            }
            Some(transform)
        })
        .collect()
}

/// Every record would become a dead letter: an envelope has no origin.
fn packed_twice(step: &Section<'_>, first: &str) -> Problem {
    let what = format!("packs what `{first}` has packed already: it would find no event in it");
    step.problem("uses", what)
        .help("leave one of the two out, with its `with`")
}

fn validate_step(
    step: &Section<'_>,
    context: &DocumentContext<'_>,
    problems: &mut Problems,
) -> Option<Transform> {
    let raw: RawTransform = step.read(problems)?;
    if raw.lookback.is_some() {
        let ignored = step.problem("lookback", "is ignored in embedded mode");
        problems.push(ignored.as_warning());
    }
    for (name, parameter) in &raw.with {
        if parameter.bare {
            problems.push(
                step.problem(
                    &format!("with.{name}"),
                    "is not text: a Fluvio cluster takes only texts, maps and lists here",
                )
                .help(format!("write `{name}: \"{}\"`", parameter.text))
                .as_warning(),
            );
        }
    }
    let uses = step.require(problems, "uses", raw.uses)?;
    let parameters = raw.with.into_iter();
    let mut transform = Transform {
        uses,
        with: parameters.map(|(name, value)| (name, value.text)).collect(),
    };
    let known = context.catalog.known();
    if known.contains(&transform.uses) {
        context.catalog.check(&transform, step, problems);
        return Some(transform);
    }
    if transform.uses.ends_with(".wasm") {
        let path = context.base_dir.join(&transform.uses);
        if let Err(problem) = check_module(step, &path) {
            problems.push(*problem);
            return None;
        }
        transform.uses = path.to_string_lossy().into_owned();
        return Some(transform);
    }
    let known: Vec<&str> = known.iter().map(String::as_str).collect();
    problems.push(
        step.problem("uses", "is not a known SmartModule")
            .allowed("a built-in one, or a path to a `.wasm` file")
            .help(known_names(&transform.uses, &known)),
    );
    None
}

/// The file is there and begins as a WebAssembly module does.
fn check_module(step: &Section<'_>, path: &Path) -> Result<(), Box<Problem>> {
    let refuse = |what: String| Box::new(step.problem("uses", what));
    let mut magic = [0; 4];
    let read = File::open(path).and_then(|mut file| {
        // Opening a directory succeeds, reading it does not.
        file.read_exact(&mut magic)
    });
    match read {
        Ok(()) if magic == WASM_MAGIC => Ok(()),
        Ok(()) => Err(not_wasm(refuse)),
        Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => Err(not_wasm(refuse)),
        Err(error) => Err(Box::new(
            refuse(format!("cannot be read as `{}`: {error}", path.display()))
                .help("a relative path starts at the folder of this file"),
        )),
    }
}

fn not_wasm(refuse: impl Fn(String) -> Box<Problem>) -> Box<Problem> {
    Box::new(
        refuse("is not a WebAssembly module: it does not begin with `\\0asm`".into())
            .help("build it for `wasm32-unknown-unknown`"),
    )
}
