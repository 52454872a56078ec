//! What is wrong with a system, as its author sees it: file, line, the wrong word, the rule, and what to do.
//!
//! A [`Problem`] is a sentence in two halves, `rule; what to write instead`, and the bytes that it is about. As text it
//! is one line, `guests/systems/two.toml:14: sentence`; [`Problems::shown`] adds the line itself and marks the word.

use annotate_snippets::{AnnotationKind, Level, Renderer, Snippet};
use std::{
    fmt,
    ops::Range,
    path::{Path, PathBuf},
    sync::Arc,
};

/// As many problems of one file are shown; the rest is counted.
const SHOWN_MAX: usize = 50;
/// More characters of one line than these after the wrong word's start are not shown.
const LINE_LENGTH_MAX: usize = 400;

/// The text of a system's file, with the places of its lines.
#[derive(Debug)]
pub(crate) struct Text {
    path: PathBuf,
    text: String,
    /// Where each line starts, in bytes; the first at 0.
    line_starts: Vec<usize>,
}

/// Bytes of a system's file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct TextSpan {
    pub(crate) start: usize,
    pub(crate) end: usize,
}

/// A part of the system's file; `None` for a system from the command line and for what is not stated.
pub(crate) type Line = Option<TextSpan>;

impl From<Range<usize>> for TextSpan {
    fn from(range: Range<usize>) -> Self {
        Self { start: range.start, end: range.end }
    }
}

impl Text {
    pub(crate) fn new(path: &Path, text: &str) -> Arc<Self> {
        let line_starts = std::iter::once(0).chain(text.match_indices('\n').map(|(at, _)| at.saturating_add(1)));
        Arc::new(Self { path: path.to_path_buf(), line_starts: line_starts.collect(), text: text.to_string() })
    }

    /// The file.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// What it holds.
    pub(crate) fn as_str(&self) -> &str {
        &self.text
    }

    /// The number of the line with the byte at `offset`, counted from 1.
    pub(crate) fn line(&self, offset: usize) -> usize {
        self.line_starts.partition_point(|start| *start <= offset)
    }

    /// What `span` covers.
    pub(crate) fn get(&self, span: TextSpan) -> &str {
        self.text.get(span.start..span.end).unwrap_or_default()
    }

    /// The bytes of the line with this number, its end included.
    fn line_span(&self, number: usize) -> Range<usize> {
        let start = self.line_starts.get(number.saturating_sub(1)).copied().unwrap_or(self.text.len());
        start..self.line_starts.get(number).copied().unwrap_or(self.text.len())
    }
}

/// Something wrong with a system. `Display` gives `guests/systems/two.toml:14: sentence`.
#[derive(Clone, Debug)]
pub(crate) struct Problem {
    /// The file, unless the system came from the command line.
    text: Option<Arc<Text>>,
    /// The bytes that are to blame, where some are.
    span: Option<TextSpan>,
    sentence: String,
}

impl Problem {
    /// `sentence` has two halves, with `; ` between them: what is wrong, and what to do.
    pub(crate) fn new(text: Option<&Arc<Text>>, span: Option<TextSpan>, sentence: impl Into<String>) -> Self {
        Self { text: text.cloned(), span, sentence: sentence.into() }
    }

    /// The file, if there is one.
    pub(crate) fn file(&self) -> Option<&Path> {
        self.text.as_deref().map(Text::path)
    }

    /// The line, counted from 1, where one is to blame.
    pub(crate) fn line(&self) -> Option<usize> {
        Some(self.text.as_ref()?.line(self.span?.start))
    }

    /// The column of the first wrong character in its line, counted from 1.
    pub(crate) fn column(&self) -> Option<usize> {
        let (text, start) = (self.text.as_ref()?, self.span?.start);
        let line = text.line_span(text.line(start));
        Some(text.as_str().get(line.start..start)?.chars().count().saturating_add(1))
    }

    /// The bytes that are to blame.
    pub(crate) fn word(&self) -> Option<&str> {
        Some(self.text.as_ref()?.get(self.span?)).filter(|word| !word.is_empty())
    }

    /// What is wrong, and what to do.
    pub(crate) fn halves(&self) -> (&str, &str) {
        self.sentence.rsplit_once("; ").unwrap_or((&self.sentence, ""))
    }

    /// With the line and a mark below the word; `renderer` chooses the colours.
    fn shown(&self, renderer: &Renderer) -> String {
        let (rule, advice) = self.halves();
        let mut group =
            Level::ERROR.primary_title(rule).elements(Vec::<Snippet<'_, annotate_snippets::Annotation<'_>>>::new());
        if let (Some(text), Some(span)) = (&self.text, self.span) {
            let first = text.line(span.start);
            let whole = text.line_span(first);
            let length = whole.len().min(LINE_LENGTH_MAX.max(span.start.saturating_sub(whole.start)));
            let mut end = whole.start.saturating_add(length.saturating_add(LINE_LENGTH_MAX).min(whole.len()));
            while !text.as_str().is_char_boundary(end) {
                end = end.saturating_sub(1);
            }
            let line = text.as_str().get(whole.start..end).unwrap_or_default().trim_end_matches(['\r', '\n']);
            let from = span.start.saturating_sub(whole.start).min(line.len());
            let to = span.end.saturating_sub(whole.start).clamp(from, line.len());
            let snippet = Snippet::source(line.to_string())
                .line_start(first)
                .path(text.path.display().to_string())
                .annotation(AnnotationKind::Primary.span(from..to));
            group = group.element(snippet);
        } else if let Some(text) = &self.text {
            group = group.element(annotate_snippets::Origin::path(text.path.display().to_string()));
        }
        if !advice.is_empty() {
            group = group.element(Level::HELP.message(advice));
        }
        renderer.render(&[group])
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.file(), self.line()) {
            (Some(file), Some(line)) => write!(formatter, "{}:{line}: {}", file.display(), self.sentence),
            (Some(file), None) => write!(formatter, "{}: {}", file.display(), self.sentence),
            (None, _) => formatter.write_str(&self.sentence),
        }
    }
}

impl std::error::Error for Problem {}

/// Everything that is wrong with a system, in the order of the file: one problem at least. `Display` gives a line for
/// each.
#[derive(Clone, Debug)]
pub(crate) struct Problems(Vec<Problem>);

impl Problems {
    /// `Ok` where there is none.
    pub(crate) fn check(problems: Vec<Problem>) -> Result<(), Self> {
        if problems.is_empty() { Ok(()) } else { Err(Self::of(problems)) }
    }

    /// All of `problems`, each of them once.
    pub(crate) fn of(mut problems: Vec<Problem>) -> Self {
        // What is about the whole comes last: the parts explain it.
        problems.sort_by_key(|problem| problem.span.map_or((1, 0), |span| (0, span.start)));
        problems.dedup_by(|one, other| one.span == other.span && one.sentence == other.sentence);
        Self(problems)
    }

    /// Each of them.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Problem> {
        self.0.iter()
    }

    /// Each with its line, the wrong word marked; with colours where `styled`.
    pub(crate) fn shown(&self, styled: bool) -> String {
        let renderer = if styled { Renderer::styled() } else { Renderer::plain() };
        let mut text = String::new();
        for problem in self.0.iter().take(SHOWN_MAX) {
            text += &problem.shown(&renderer);
            text += "\n\n";
        }
        match self.0.len() {
            0 | 1 => {}
            count if count > SHOWN_MAX => text += &format!("{count} problems; the first {SHOWN_MAX} are shown\n"),
            count => text += &format!("{count} problems\n"),
        }
        text
    }
}

impl IntoIterator for Problems {
    type Item = Problem;
    type IntoIter = std::vec::IntoIter<Problem>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

impl From<Problem> for Problems {
    fn from(problem: Problem) -> Self {
        Self(vec![problem])
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, problem) in self.0.iter().enumerate() {
            write!(formatter, "{}{problem}", if number == 0 { "" } else { "\n" })?;
        }
        Ok(())
    }
}

impl std::error::Error for Problems {}

/// What of `known` is most like `word`, if anything is like it.
pub(crate) fn nearest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let plain = |text: &str| text.to_lowercase().replace(['_', ' '], "-");
    let wanted = plain(word);
    let most = (wanted.chars().count() / 3).max(1);
    let distance = |candidate: &str| strsim::osa_distance(&wanted, &plain(candidate));
    let known = known.into_iter().filter(|candidate| candidate.len().abs_diff(word.len()) <= most);
    let all = known.into_iter().map(|candidate| (distance(candidate), candidate));
    all.filter(|(distance, _)| *distance <= most).min_by_key(|(distance, _)| *distance).map(|(_, candidate)| candidate)
}

/// What to write in place of `word`, as the second half of a sentence: the nearest of `known`, or all of them.
pub(crate) fn choice<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> String {
    let known: Vec<&str> = known.into_iter().collect();
    match nearest(word, known.iter().copied()) {
        Some(near) => format!("did you mean {near:?}?"),
        None => format!("choose one of these: {}", known.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_word_is_suggested_and_a_far_one_is_not() {
        let known = ["kernel", "memory", "driver_domain", "cores"];
        for (word, near) in
            [("kernal", "kernel"), ("driver-domain", "driver_domain"), ("Cores", "cores"), ("core", "cores")]
        {
            assert_eq!(nearest(word, known), Some(near), "{word}");
        }
        for word in ["", "x", "disk", "irq"] {
            assert_eq!(nearest(word, known), None, "{word}");
        }
        assert_eq!(choice("x", ["a-long-one", "another"]), "choose one of these: a-long-one, another");
    }

    #[test]
    fn a_problem_is_shown_with_its_line_and_a_mark_below_the_word() {
        let text = Text::new(Path::new("x.toml"), "a = 1\nkernal = \"é\"\n");
        let problem = Problem::new(Some(&text), Some((6..12).into()), "the key is not known; write \"kernel\"");
        assert_eq!((problem.line(), problem.column(), problem.word()), (Some(2), Some(1), Some("kernal")));
        let shown = Problems::from(problem).shown(false);
        let expected = "\
error: the key is not known
 --> x.toml:2:1
  |
2 | kernal = \"é\"
  | ^^^^^^
  |
  = help: write \"kernel\"

";
        assert_eq!(shown, expected);
    }

    #[test]
    fn a_line_without_end_is_cut_and_columns_count_characters() {
        let text = Text::new(Path::new("x.toml"), &"é".repeat(1 << 20));
        let problem = Problem::new(Some(&text), Some((1 << 20..(1 << 20) + 2).into()), "x; y");
        assert_eq!(problem.column(), Some((1 << 19) + 1));
        assert!(Problems::from(problem).shown(false).len() < 2 << 20);
    }
}
