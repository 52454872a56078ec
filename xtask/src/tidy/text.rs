//! What may stand in a file.

use super::{Finding, Severity};

/// Where `unsafe` may stand.
const UNSAFE_DIRECTORIES: &[&str] = &["hypervisor/arch/", "guests/rt/"];
/// A source file of more lines is looked at: it is two nouns.
const LINES_WARNED: usize = 500;
/// A source file of more lines is refused.
const LINES_MAX: usize = 600;

/// The columns that `rustfmt` keeps code to, which leaves comments as they are. Tables are as wide as they need be.
const COLUMNS_MAX: usize = 120;

/// Words that promise work instead of doing it. Written in two parts, so that this file may contain them.
const PROMISES: &[(&str, &str)] = &[("TO", "DO"), ("FIX", "ME"), ("todo", "!("), ("unimplemented", "!(")];
/// Places that only one person's machine has; in two parts, as above.
const HOST_PATHS: &[(&str, &str)] = &[("/ho", "me/"), ("/wo", "rk/"), ("/Use", "rs/")];

/// Checks the file `name`, a path relative to the repository's root.
pub(super) fn check(name: &str, text: &str) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut find = |line: usize, severity: Severity, sentence: String| {
        findings.push(Finding { file: name.to_owned(), line, sentence, severity });
    };
    for (index, line) in text.lines().enumerate() {
        for (first, second) in PROMISES {
            if has_word(line, &format!("{first}{second}")) {
                let sentence = format!("`{first}{second}` promises work; do it, or write an issue");
                find(index + 1, Severity::Refused, sentence);
            }
        }
        if name.ends_with(".rs") && is_wide_comment(line) {
            find(index + 1, Severity::Refused, format!("a comment of more than {COLUMNS_MAX} columns; break the line"));
        }
        for (first, second) in HOST_PATHS {
            if line.contains(&format!("{first}{second}")) {
                find(index + 1, Severity::Refused, format!("`{first}{second}…` is a path of one machine"));
            }
        }
    }
    if name.ends_with(".rs") {
        if !UNSAFE_DIRECTORIES.iter().any(|directory| name.starts_with(directory)) {
            for line in lines_with_unsafe(text) {
                let sentence = "`unsafe` lives in hypervisor/arch and guests/rt alone; offer a safe function there";
                find(line, Severity::Refused, sentence.to_owned());
            }
        }
        let lines = text.lines().count();
        if lines > LINES_MAX {
            find(0, Severity::Refused, format!("{lines} lines are two nouns; split it (at most {LINES_MAX})"));
        } else if lines > LINES_WARNED {
            find(0, Severity::Warning, format!("{lines} lines; consider a split (above {LINES_MAX} it is refused)"));
        }
    }
    findings
}

/// Whether `line` is a comment, no row of a table, that is too wide.
fn is_wide_comment(line: &str) -> bool {
    let Some(words) = line.trim_start().strip_prefix("//") else { return false };
    let words = words.trim_start_matches(['/', '!']).trim_start();
    line.chars().count() > COLUMNS_MAX && !words.starts_with('|')
}

/// Whether `word` stands in `line` on its own: not as a part of a longer word.
fn has_word(line: &str, word: &str) -> bool {
    let part_of_word = |character: Option<char>| character.is_some_and(|it| it.is_alphanumeric() || it == '_');
    line.match_indices(word).any(|(start, _)| {
        let before = line.get(..start).and_then(|before| before.chars().next_back());
        let after = line.get(start + word.len()..).and_then(|after| after.chars().next());
        !part_of_word(before) && (!part_of_word(after) || word.ends_with('('))
    })
}

/// The numbers of the lines whose code, comments and strings aside, has the word `unsafe`.
///
/// A line comment and the strings of one line are understood; that is what rustfmt leaves of this repository's code.
fn lines_with_unsafe(text: &str) -> Vec<usize> {
    let mut found = Vec::new();
    for (index, line) in text.lines().enumerate() {
        if has_word(&code(line), "unsafe") {
            found.push(index + 1);
        }
    }
    found
}

/// `line` without comments and without the contents of strings.
fn code(line: &str) -> String {
    let mut code = String::new();
    let mut characters = line.chars().peekable();
    let mut in_string = false;
    while let Some(character) = characters.next() {
        match character {
            '\\' if in_string => drop(characters.next()),
            '"' => in_string = !in_string,
            '/' if !in_string && characters.peek() == Some(&'/') => break,
            _ if !in_string => code.push(character),
            _ => {}
        }
    }
    code
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(name: &str, text: &str) -> Vec<usize> {
        check(name, text).iter().filter(|finding| finding.is_refused()).map(|finding| finding.line).collect()
    }

    #[test]
    fn unsafe_is_refused_outside_its_crates() {
        let text = "fn f() {\n    unsafe { g() }\n}\n";
        assert_eq!(refused("hypervisor/model/src/lib.rs", text), [2]);
        assert!(refused("hypervisor/arch/src/lib.rs", text).is_empty());
        assert!(refused("guests/rt/src/lib.rs", text).is_empty());
    }

    #[test]
    fn unsafe_in_words_about_it_is_fine() {
        assert!(
            refused("xtask/src/a.rs", "// unsafe is elsewhere\nlet a = \"unsafe\";\n#![forbid(unsafe_code)]\n")
                .is_empty()
        );
    }

    #[test]
    fn promises_are_refused_in_any_file() {
        let note = ["# TO", "DO: write this\n"].concat();
        assert_eq!(refused("README.md", &note), [1]);
        assert_eq!(refused("xtask/src/a.rs", &["fn f() { todo", "!() }"].concat()), [1]);
        assert!(refused("README.md", "MASTODON\n").is_empty());
    }

    #[test]
    fn a_path_of_one_machine_is_refused() {
        assert_eq!(refused("README.md", &["cd /ho", "me/me/bulkhead"].concat()), [1]);
    }

    #[test]
    fn a_comment_is_no_wider_than_code() {
        let wide = "x".repeat(COLUMNS_MAX);
        assert_eq!(refused("xtask/src/a.rs", &format!("fn f() {{}}\n    //! {wide}\n")), [2]);
        assert!(refused("xtask/src/a.rs", &format!("//! | {wide} |\nlet a = \"{wide}\";\n")).is_empty());
        assert!(refused("a.md", &wide).is_empty());
    }

    #[test]
    fn a_long_file_is_warned_of_and_a_longer_one_refused() {
        let long = "\n".repeat(LINES_WARNED + 1);
        assert_eq!(check("a.rs", &long).len(), 1);
        assert!(refused("a.rs", &long).is_empty());
        assert_eq!(refused("a.rs", &"\n".repeat(LINES_MAX + 1)), [0]);
        assert_eq!(check("a.md", &"\n".repeat(LINES_MAX + 1)), []);
    }
}
