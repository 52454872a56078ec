//! No circle of files: what a file uses must not use that file, not by way of others either.
//!
//! A file and its submodules aside: they are one thing in several files, so a use between them counts for nothing.

mod modules;

use super::{Finding, Severity};
use crate::workspace::Workspace;
use modules::{Modules, Read};
use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    fs,
    path::{Path, PathBuf},
};

/// Checks every crate of the workspace.
///
/// # Errors
/// When a file cannot be read as Rust.
pub(super) fn check(workspace: &Workspace) -> anyhow::Result<Vec<Finding>> {
    let mut circles = BTreeMap::new();
    let targets = workspace.metadata.workspace_packages().into_iter().flat_map(|package| &package.targets);
    for target in targets.filter(|target| !target.is_custom_build()) {
        let root = target.src_path.as_std_path();
        for circle in circles_of(root, &|path: &Path| fs::read_to_string(path).ok())? {
            let circle: Vec<String> = circle.iter().map(|path| workspace.display(path).to_string()).collect();
            circles.entry(circle[0].clone()).or_insert(circle);
        }
    }
    Ok(judge(&circles))
}

/// What to say of these circles, by the file that each begins with.
fn judge(circles: &BTreeMap<String, Vec<String>>) -> Vec<Finding> {
    let finding = |(file, circle): (&String, &Vec<String>)| {
        let circle = circle.join(" uses ");
        let sentence = format!("the file is in a circle: {circle} uses it; let what both need be a file of its own");
        Finding { file: file.clone(), line: 0, sentence, severity: Severity::Refused }
    };
    circles.iter().map(finding).collect()
}

/// A circle for each file of the crate that is in one, which that file begins: a shortest.
fn circles_of(root: &Path, read: Read<'_>) -> anyhow::Result<Vec<Vec<PathBuf>>> {
    let modules = Modules::read(root, read)?;
    let uses = modules.uses();
    Ok(uses.keys().filter_map(|file| circle_of(file, &uses)).collect())
}

fn circle_of(start: &Path, uses: &BTreeMap<&Path, BTreeSet<&Path>>) -> Option<Vec<PathBuf>> {
    let mut reached_from: BTreeMap<&Path, &Path> = BTreeMap::new();
    let mut queue = VecDeque::from([start]);
    while let Some(user) = queue.pop_front() {
        for used in uses.get(user).into_iter().flatten() {
            if *used == start {
                let steps = std::iter::successors(Some(user), |file| reached_from.get(file).copied());
                let mut circle: Vec<PathBuf> = steps.map(Path::to_owned).collect();
                circle.reverse();
                return Some(circle);
            }
            if !reached_from.contains_key(used) {
                reached_from.insert(used, user);
                queue.push_back(used);
            }
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The circles of a crate of these files, `lib.rs` its root: their files' names.
    fn circles(files: &[(&str, &str)]) -> Vec<Vec<String>> {
        let read = |path: &Path| {
            let file = files.iter().find(|(name, _)| Path::new("src").join(name) == path);
            file.map(|(_, text)| (*text).to_owned())
        };
        let name = |path: PathBuf| path.strip_prefix("src").expect("below the root").display().to_string();
        let circles = circles_of(Path::new("src/lib.rs"), &read).expect("the crate is well-formed");
        circles.into_iter().map(|circle| circle.into_iter().map(name).collect()).collect()
    }

    #[test]
    fn a_planted_circle_is_found() {
        let files = [
            ("lib.rs", "mod a;\nmod b;\nmod c;\nmod d;"),
            ("a.rs", "use crate::b::B;\npub struct A;"),
            ("b.rs", "pub struct B;\nfn f() { super::c::f() }"),
            ("c.rs", "pub fn f() { println!(\"{:?}\", crate::a::A) }"),
            ("d.rs", "use crate::a::A;\nuse crate::b;"),
        ];
        assert_eq!(circles(&files), [["a.rs", "b.rs", "c.rs"], ["b.rs", "c.rs", "a.rs"], ["c.rs", "a.rs", "b.rs"]]);
    }

    #[test]
    fn parent_and_child_may_use_each_other() {
        let files = [
            ("lib.rs", "mod a;\npub use a::b::B;\npub struct Root;"),
            ("a/mod.rs", "pub mod b;\npub use b::B;\npub struct A;"),
            ("a/b.rs", "use super::A;\nuse crate::Root;\npub struct B(A, Root);"),
        ];
        assert_eq!(circles(&files), Vec::<Vec<String>>::new());
    }

    #[test]
    fn a_re_export_does_not_hide_a_circle() {
        let files = [
            ("lib.rs", "mod a;\nmod b;\npub use a::A;\npub use b::*;"),
            ("a.rs", "use crate::B;\npub struct A;"),
            ("b.rs", "use crate as root;\npub struct B(root::A);"),
        ];
        assert_eq!(circles(&files), [["a.rs", "b.rs"], ["b.rs", "a.rs"]]);
    }

    #[test]
    fn a_test_makes_no_circle() {
        let files = [
            ("lib.rs", "mod a;\nmod b;"),
            ("a.rs", "pub struct A;\n#[cfg(test)]\nmod tests { use crate::b::B; }"),
            ("b.rs", "use crate::a::A;\npub struct B(A);\n#[cfg(test)]\nmod tests;"),
        ];
        assert_eq!(circles(&files), Vec::<Vec<String>>::new());
    }

    #[test]
    fn names_of_other_crates_are_not_ours() {
        let files = [
            ("lib.rs", "mod a;\nmod core;"),
            ("a.rs", "use core::fmt;\nuse ::core::mem;\nfn f() -> other::core::T { fmt::f(mem::g()) }"),
            ("core.rs", "use crate::a;"),
        ];
        assert_eq!(circles(&files), Vec::<Vec<String>>::new());
    }
}
