//! Everything that is wrong with a file, said at once.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use miette::{Diagnostic, GraphicalReportHandler, GraphicalTheme, LabeledSpan, NamedSource};

use crate::secret::Redactor;
use crate::yaml::{Node, Span};

/// More problems than this are counted, not kept.
const KEPT: usize = 500;

/// Longest line that is shown in a snippet, in bytes before and after the place.
const LONGEST_LINE: usize = 400;

/// Longest value that is shown, in characters.
const SHOWN: usize = 80;

/// Does it stop the pipeline from running?
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Severity {
    /// The file cannot be run.
    Error,
    /// The file runs, but probably not as meant.
    Warning,
}

/// One thing that is wrong, and where.
#[derive(Debug, Clone)]
pub struct Problem {
    /// Does it stop the pipeline from running?
    pub severity: Severity,
    /// Dotted path of the field, such as `dynamodb.max-age`; empty for the whole file.
    pub path: String,
    /// Where in the file; `None` for the whole file.
    pub span: Option<Span>,
    /// What is wrong, following the path: ``is not a known setting``.
    pub what: String,
    /// The values that are taken.
    pub allowed: Option<String>,
    /// The value that was given; never one that came from a secret.
    pub given: Option<String>,
    /// What to do about it.
    pub help: Option<String>,
}

impl Problem {
    /// An error without a place; give it one with [`Problem::at`].
    pub fn error(what: impl Into<String>) -> Self {
        Self {
            severity: Severity::Error,
            path: String::new(),
            span: None,
            what: what.into(),
            allowed: None,
            given: None,
            help: None,
        }
    }

    /// A warning without a place; give it one with [`Problem::at`].
    pub fn warning(what: impl Into<String>) -> Self {
        Self {
            severity: Severity::Warning,
            ..Self::error(what)
        }
    }

    /// Turns an error into a warning.
    #[must_use]
    pub fn as_warning(mut self) -> Self {
        self.severity = Severity::Warning;
        self
    }

    /// Where it is.
    #[must_use]
    pub fn at(mut self, path: impl Into<String>, span: Span) -> Self {
        self.path = path.into();
        self.span = Some(span);
        self
    }

    /// Where it is, and the value that is there.
    #[must_use]
    pub fn at_value(self, path: impl Into<String>, node: &Node) -> Self {
        let mut placed = self.at(path, node.span);
        placed.given = node.shown();
        placed
    }

    /// The values that are taken.
    #[must_use]
    pub fn allowed(mut self, allowed: impl fmt::Display) -> Self {
        self.allowed = Some(allowed.to_string());
        self
    }

    /// The value that was given, where [`Problem::at_value`] did not say it.
    #[must_use]
    pub fn given(mut self, given: impl fmt::Display) -> Self {
        self.given = Some(given.to_string());
        self
    }

    /// What to do about it.
    #[must_use]
    pub fn help(mut self, help: impl fmt::Display) -> Self {
        self.help = Some(help.to_string());
        self
    }

    /// The problem as one sentence, without its place.
    #[must_use]
    pub fn sentence(&self) -> String {
        let mut text = match self.path.as_str() {
            "" => self.what.clone(),
            path => format!("`{path}` {}", self.what),
        };
        if let Some(given) = &self.given {
            let shown: String = given.chars().take(SHOWN).collect();
            let more = if shown.len() < given.len() { "…" } else { "" };
            text.push_str(&format!(", given `{shown}{more}`"));
        }
        if let Some(allowed) = &self.allowed {
            text.push_str(&format!(", allowed: {allowed}"));
        }
        printable(&text)
    }
}

/// The problems of one file.
#[derive(Debug, Clone)]
pub struct Problems {
    file: String,
    source: Arc<str>,
    found: Vec<Problem>,
    dropped: usize,
    /// Where values are that nobody knows.
    unknown: Vec<Span>,
}

impl Problems {
    /// No problems yet; `file` is the name to show, `source` its text.
    pub fn new(file: impl Into<String>, source: impl Into<Arc<str>>) -> Self {
        Self {
            file: file.into(),
            source: source.into(),
            found: Vec::new(),
            dropped: 0,
            unknown: Vec::new(),
        }
    }

    /// From here on nothing is said of the value there: what is written is not what it would be.
    pub fn mark_unknown(&mut self, span: Span) {
        self.unknown.push(span);
    }

    /// Adds one, unless the very same was said before, or the value there is not known.
    pub fn push(&mut self, problem: Problem) {
        if problem
            .span
            .is_some_and(|span| self.unknown.contains(&span))
        {
            return;
        }
        if self.found.len() >= KEPT {
            self.dropped += usize::from(problem.severity == Severity::Error);
            return;
        }
        let same = |other: &Problem| {
            other.span == problem.span && other.path == problem.path && other.what == problem.what
        };
        if !self.found.iter().any(same) {
            self.found.push(problem);
        }
    }

    /// Adds all of another check of the same file.
    pub fn extend(&mut self, problems: impl IntoIterator<Item = Problem>) {
        for problem in problems {
            self.push(problem);
        }
    }

    /// In the order of the file, errors and warnings.
    #[must_use]
    pub fn list(&self) -> &[Problem] {
        &self.found
    }

    /// Number of errors.
    #[must_use]
    pub fn errors(&self) -> usize {
        self.dropped + self.count(Severity::Error)
    }

    /// Number of warnings.
    #[must_use]
    pub fn warnings(&self) -> usize {
        self.count(Severity::Warning)
    }

    fn count(&self, severity: Severity) -> usize {
        self.found.iter().filter(|p| p.severity == severity).count()
    }

    /// True when nothing was found, not even a warning.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.found.is_empty()
    }

    /// True when something stops the pipeline from running.
    #[must_use]
    pub fn has_errors(&self) -> bool {
        self.errors() > 0
    }

    /// Puts the problems into the order of the file.
    pub fn sort(&mut self) {
        self.found
            .sort_by_key(|problem| problem.span.map_or((0, 0), |span| (span.line, span.column)));
    }

    /// Blacks out secrets that a check may have put into words.
    pub fn redact(&mut self, redactor: &Redactor) {
        let clean = |text: &mut String| {
            if let std::borrow::Cow::Owned(redacted) = redactor.redact(text) {
                *text = redacted;
            }
        };
        for problem in &mut self.found {
            clean(&mut problem.what);
            let optional = [&mut problem.allowed, &mut problem.given, &mut problem.help];
            optional.into_iter().flatten().for_each(clean);
        }
    }

    /// One line per problem: `FILE:LINE:COLUMN: error: SENTENCE; HELP`.
    #[must_use]
    pub fn plain(&self) -> String {
        let mut text = String::new();
        for problem in &self.found {
            let place = match problem.span {
                Some(span) => format!("{}:{}:{}", self.file, span.line, span.column),
                None => self.file.clone(),
            };
            let severity = match problem.severity {
                Severity::Error => "error",
                Severity::Warning => "warning",
            };
            text.push_str(&format!("{place}: {severity}: {}", problem.sentence()));
            if let Some(help) = &problem.help {
                text.push_str(&format!("; {}", printable(help)));
            }
            text.push('\n');
        }
        text.push_str(&self.dropped_line());
        text
    }

    fn dropped_line(&self) -> String {
        match self.dropped {
            0 => String::new(),
            n => format!("{}: error: and {n} problems more\n", self.file),
        }
    }

    /// With snippets of the file, for people; `color` for terminals.
    #[must_use]
    pub fn fancy(&self, color: bool, width: usize) -> String {
        let theme = match color {
            true => GraphicalTheme::unicode(),
            false => GraphicalTheme::unicode_nocolor(),
        };
        let handler = GraphicalReportHandler::new_themed(theme)
            .with_links(false)
            .with_width(width.max(40))
            .with_context_lines(1);
        let source = NamedSource::new(&self.file, Arc::clone(&self.source)).with_language("yaml");
        let mut text = String::new();
        for problem in &self.found {
            let shown = problem
                .span
                .and_then(|span| shown_bytes(&self.source, span));
            if let (Some(span), None) = (problem.span, &shown) {
                text.push_str(&format!("{}:{}:{}\n", self.file, span.line, span.column));
            }
            let report = ProblemReport {
                problem,
                source: &source,
                shown,
            };
            if handler.render_report(&mut text, &report).is_err() {
                text.push_str(&problem.sentence());
            }
            text.push('\n');
        }
        text.push_str(&self.dropped_line());
        text
    }
}

/// The plain lines: `Problems` can be the reason of an error.
impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.plain().trim_end())
    }
}

impl std::error::Error for Problems {}

/// What to point at in a snippet: at most the rest of the line. `None` where a line is too long to
/// be shown: it would be no help, and miette panics on lines of more than 65,535 columns.
fn shown_bytes(source: &str, span: Span) -> Option<Range<usize>> {
    let bytes = source.as_bytes();
    let (before, after) = bytes.split_at_checked(span.start)?;
    let newline = |byte: &u8| *byte == b'\n';
    let one_before = before.rsplit(newline).take(2);
    let one_after = after.split(newline).take(2);
    if one_before
        .chain(one_after)
        .any(|part| part.len() > LONGEST_LINE)
    {
        return None;
    }
    let rest = after.iter().position(newline).unwrap_or(after.len());
    let mut end = span.end.clamp(span.start, span.start + rest);
    while !source.is_char_boundary(end) {
        end -= 1;
    }
    source
        .is_char_boundary(span.start)
        .then_some(span.start..end)
}

/// One problem as miette wants it.
#[derive(Debug)]
struct ProblemReport<'a> {
    problem: &'a Problem,
    source: &'a NamedSource<Arc<str>>,
    /// Bytes to point at, when the lines there can be shown.
    shown: Option<Range<usize>>,
}

impl fmt::Display for ProblemReport<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.problem.sentence())
    }
}

impl std::error::Error for ProblemReport<'_> {}

impl Diagnostic for ProblemReport<'_> {
    fn severity(&self) -> Option<miette::Severity> {
        Some(match self.problem.severity {
            Severity::Error => miette::Severity::Error,
            Severity::Warning => miette::Severity::Warning,
        })
    }

    fn help(&self) -> Option<Box<dyn fmt::Display + '_>> {
        let help = self.problem.help.as_ref()?;
        Some(Box::new(printable(help)))
    }

    fn source_code(&self) -> Option<&dyn miette::SourceCode> {
        self.shown.as_ref()?;
        Some(self.source)
    }

    fn labels(&self) -> Option<Box<dyn Iterator<Item = LabeledSpan> + '_>> {
        let shown = self.shown.clone()?;
        let label = LabeledSpan::new_primary_with_span(Some("here".to_owned()), shown);
        Some(Box::new(std::iter::once(label)))
    }
}

/// Names and values of the file must not break lines or reach a terminal as commands.
fn printable(text: &str) -> String {
    let mut clean = String::with_capacity(text.len());
    for character in text.chars() {
        match character.is_control() {
            true => clean.extend(character.escape_default()),
            false => clean.push(character),
        }
    }
    clean
}

/// The nearest of some known names, when one is near enough to have been meant.
#[must_use]
pub fn nearest<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    if name.len() > SHOWN {
        return None;
    }
    let fold = |text: &str| text.to_lowercase().replace('_', "-");
    let wanted = fold(name);
    known
        .into_iter()
        .map(|known| (strsim::damerau_levenshtein(&wanted, &fold(known)), known))
        .filter(|(distance, known)| {
            *distance
                <= known
                    .chars()
                    .count()
                    .min(wanted.chars().count())
                    .div_ceil(3)
        })
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, known)| known)
}

/// Help for an unknown name: the nearest one, else all of them.
#[must_use]
pub fn known_names(name: &str, known: &[&str]) -> String {
    match nearest(name, known.iter().copied()) {
        Some(nearest) => format!("did you mean `{nearest}`?"),
        None if known.is_empty() => "none are known here".to_owned(),
        None => format!("known are {}", quoted(known)),
    }
}

/// `a`, `b`, `c`.
#[must_use]
pub fn quoted(names: &[&str]) -> String {
    let quoted: Vec<String> = names.iter().map(|name| format!("`{name}`")).collect();
    quoted.join(", ")
}
