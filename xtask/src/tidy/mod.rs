//! Rules about the repository that no compiler checks: what may stand in a file, which crate may use which,
//! and that no files use each other in a circle.
//!
//! What the compiler does check is left to it: that every unsafe block states the fact it rests on
//! (`undocumented_unsafe_blocks`), that public items are documented (`missing_docs`), that pure crates stay without
//! `unsafe` (`forbid(unsafe_code)`; that they say so is checked here).

mod circles;
mod layers;
mod text;

use crate::workspace::Workspace;
use anyhow::Context;
use std::{
    fmt, fs,
    path::{Path, PathBuf},
};

/// Something that breaks a rule. Displayed as `FILE:LINE: sentence`.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Finding {
    file: String,
    /// Counted from 1; 0 where the whole file is meant.
    line: usize,
    sentence: String,
    severity: Severity,
}

/// What follows from a finding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Severity {
    /// The change cannot land.
    Refused,
    /// Worth a look.
    Warning,
}

impl Finding {
    /// Whether the change cannot land like this.
    pub(crate) fn is_refused(&self) -> bool {
        self.severity == Severity::Refused
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { file, line, sentence, severity } = self;
        let kind = if *severity == Severity::Warning { "warning: " } else { "" };
        if *line == 0 {
            write!(formatter, "{kind}{file}: {sentence}")
        } else {
            write!(formatter, "{kind}{file}:{line}: {sentence}")
        }
    }
}

/// Checks every file and every crate of the repository.
///
/// # Errors
/// When a file cannot be read.
pub(crate) fn check(workspace: &Workspace) -> anyhow::Result<Vec<Finding>> {
    let mut files = Vec::new();
    collect(workspace.root(), &mut files)?;
    files.sort();
    let mut findings = Vec::new();
    for path in files {
        let bytes = fs::read(&path).with_context(|| format!("{} cannot be read", path.display()))?;
        // What is not text has no lines to check.
        if let Ok(text) = String::from_utf8(bytes) {
            let name = path.strip_prefix(workspace.root()).unwrap_or(&path).to_string_lossy().into_owned();
            findings.extend(text::check(&name, &text));
        }
    }
    findings.extend(layers::check(workspace));
    findings.extend(circles::check(workspace)?);
    Ok(findings)
}

fn collect(directory: &Path, files: &mut Vec<PathBuf>) -> anyhow::Result<()> {
    for entry in fs::read_dir(directory).with_context(|| format!("{} cannot be read", directory.display()))? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default();
        if path.is_dir() {
            if name != "target" && name != ".git" {
                collect(&path, files)?;
            }
        } else if name != "Cargo.lock" {
            files.push(path);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_finding_reads_like_a_compilers_message() {
        let finding =
            Finding { file: "a/b.rs".into(), line: 7, sentence: "too long".into(), severity: Severity::Warning };
        assert_eq!(finding.to_string(), "warning: a/b.rs:7: too long");
        assert!(!finding.is_refused());
    }
}
