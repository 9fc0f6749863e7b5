//! What is wrong in a file that a person wrote, where, and what to do about it.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use annotate_snippets::{AnnotationKind, Group, Level, Renderer, Snippet};

/// A text with the name under which messages speak of it.
#[derive(Debug, PartialEq, Eq)]
pub struct Source {
    pub path: String,
    pub text: String,
}

impl Source {
    /// Line and column of a byte offset, both from 1; columns count characters.
    pub fn line_and_column(&self, offset: usize) -> (usize, usize) {
        let before = &self.text[..self.text.floor_char_boundary(offset)];
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        (
            before.matches('\n').count() + 1,
            before[line_start..].chars().count() + 1,
        )
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// It cannot run like this.
    Error,
    /// It can run, but hardly as meant.
    Warning,
}

/// One problem.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    pub severity: Severity,
    pub source: Arc<Source>,
    /// The words concerned, as a byte range of the source's text.
    pub span: Range<usize>,
    /// What is wrong.
    pub message: String,
    /// What to do.
    pub help: Option<String>,
}

impl Diagnostic {
    pub fn is_error(&self) -> bool {
        self.severity == Severity::Error
    }

    pub fn line_and_column(&self) -> (usize, usize) {
        self.source.line_and_column(self.span.start)
    }

    /// The problem with the line it stands in, for a terminal.
    pub fn render(&self, color: bool) -> String {
        let level = match self.severity {
            Severity::Error => Level::ERROR,
            Severity::Warning => Level::WARNING,
        };
        let end = self.source.text.len();
        let span = self.span.start.min(end)..self.span.end.min(end);
        let snippet = Snippet::source(&self.source.text)
            .path(&self.source.path)
            .annotation(AnnotationKind::Primary.span(span));
        let mut report = vec![level.primary_title(&self.message).element(snippet)];
        if let Some(help) = &self.help {
            report.push(Group::with_title(Level::HELP.secondary_title(help)));
        }
        let renderer = if color {
            Renderer::styled()
        } else {
            Renderer::plain()
        };
        renderer.render(&report)
    }
}

/// One line: `path:line:column: error: message (help)`.
impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (line, column) = self.line_and_column();
        let severity = match self.severity {
            Severity::Error => "error",
            Severity::Warning => "warning",
        };
        write!(
            f,
            "{}:{line}:{column}: {severity}: {}",
            self.source.path, self.message
        )?;
        if let Some(help) = &self.help {
            write!(f, " ({help})")?;
        }
        Ok(())
    }
}

/// Collects the problems of one file.
#[derive(Debug)]
pub struct Report {
    source: Arc<Source>,
    pub diagnostics: Vec<Diagnostic>,
}

impl Report {
    pub fn new(path: impl Into<String>, text: impl Into<String>) -> Report {
        Report::over(Arc::new(Source {
            path: path.into(),
            text: text.into(),
        }))
    }

    /// A further report on a text.
    pub fn over(source: Arc<Source>) -> Report {
        Report {
            source,
            diagnostics: Vec::new(),
        }
    }

    pub fn source(&self) -> &Arc<Source> {
        &self.source
    }

    pub fn error(&mut self, span: Range<usize>, message: impl Into<String>, help: Option<String>) {
        self.add(Severity::Error, span, message.into(), help);
    }

    pub fn warning(
        &mut self,
        span: Range<usize>,
        message: impl Into<String>,
        help: Option<String>,
    ) {
        self.add(Severity::Warning, span, message.into(), help);
    }

    pub fn has_errors(&self) -> bool {
        self.diagnostics
            .iter()
            .any(|diagnostic| diagnostic.severity == Severity::Error)
    }

    /// Leaves of several problems that read the same, at the same place, the first.
    pub fn drop_repeated(&mut self) {
        let mut seen = std::collections::HashSet::new();
        self.diagnostics
            .retain(|found| seen.insert((found.span.clone(), found.message.clone())));
    }

    /// The problems in the order of their places.
    pub fn into_diagnostics(mut self) -> Vec<Diagnostic> {
        self.diagnostics
            .sort_by_key(|diagnostic| diagnostic.span.start);
        self.diagnostics
    }

    fn add(
        &mut self,
        severity: Severity,
        span: Range<usize>,
        message: String,
        help: Option<String>,
    ) {
        self.diagnostics.push(Diagnostic {
            severity,
            source: self.source.clone(),
            span,
            message,
            help,
        });
    }
}

/// "did you mean `...`?" for the candidate that is near enough to a word, if there is one.
pub fn did_you_mean<'a>(
    word: &str,
    candidates: impl IntoIterator<Item = &'a str>,
) -> Option<String> {
    nearest(word, candidates).map(|candidate| format!("did you mean `{candidate}`?"))
}

/// The candidate nearest to a word, if it is near enough to be a slip.
pub fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let length = word.chars().count();
    let longest_slip = (length / 3).max(1).min(length.saturating_sub(1));
    candidates
        .into_iter()
        .map(|candidate| {
            let is_begun = word.len() >= 3 && candidate.starts_with(word);
            (
                if is_begun {
                    1
                } else {
                    strsim::damerau_levenshtein(word, candidate)
                },
                candidate,
            )
        })
        .filter(|(distance, _)| *distance <= longest_slip)
        .min()
        .map(|(_, candidate)| candidate)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_counted_in_lines_and_characters() {
        let source = Source {
            path: "a.toml".into(),
            text: "é = 1\nü = 2\n".into(),
        };
        assert_eq!(source.line_and_column(0), (1, 1));
        assert_eq!(source.line_and_column(3), (1, 3));
        assert_eq!(source.line_and_column(7), (2, 1));
        assert_eq!(source.line_and_column(9), (2, 2));
    }

    #[test]
    fn only_near_names_are_suggested() {
        let check = |word, expected| {
            assert_eq!(
                nearest(word, ["window", "where", "debug"]),
                expected,
                "{word}"
            )
        };
        check("windw", Some("window"));
        check("wehre", Some("where"));
        check("widnow", Some("window"));
        check("deb", Some("debug"));
        check("pipeline", None);
        check("x", None);
    }

    #[test]
    fn a_span_past_the_end_is_rendered_all_the_same() {
        let mut report = Report::new("a.toml", "x = 1");
        report.error(3..90, "too far", Some("go back".into()));
        let text = report.into_diagnostics()[0].render(false);
        assert!(
            text.contains("a.toml:1:4") && text.contains("go back"),
            "{text}"
        );
    }
}
