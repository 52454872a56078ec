//! What is wrong with a system, as its author sees it: file, line, sentence.

use std::{
    fmt,
    path::{Path, PathBuf},
};

/// Something wrong with a system. `Display` gives `guests/systems/two.toml:14: sentence`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Problem {
    /// The file, unless the system came from the command line.
    file: Option<PathBuf>,
    /// The line, counted from 1, where one line is to blame.
    line: Option<usize>,
    sentence: String,
}

impl Problem {
    pub(crate) fn new(file: Option<&Path>, line: Option<usize>, sentence: impl Into<String>) -> Self {
        Self { file: file.map(Path::to_path_buf), line, sentence: sentence.into() }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.file, self.line) {
            (Some(file), Some(line)) => write!(formatter, "{}:{line}: {}", file.display(), self.sentence),
            (Some(file), None) => write!(formatter, "{}: {}", file.display(), self.sentence),
            (None, _) => formatter.write_str(&self.sentence),
        }
    }
}

impl std::error::Error for Problem {}
