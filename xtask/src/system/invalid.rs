//! One invalid system for each rule, in `xtask/fixtures/invalid`, compared with the message that a user sees.
//!
//! Each is `NAME.toml` and `NAME.message`; a new rule gets a new pair. Some also have `NAME.shown`: all that `check`
//! prints, with the line and the marked word.

use std::{collections::BTreeSet, fs, path::Path, path::PathBuf, sync::OnceLock};

use super::{
    BundleOptions, Contents, Images, Problems, Source, VmSource, bundle, reader::parse_bytes, size::parse_size,
};
use crate::{
    images::{self, Need},
    workspace::Workspace,
};

const FIXTURES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/invalid");

/// Images of these tests: the kernels lie beside the systems, and are named after what they are (`large` is an `Image`
/// header that asks for 64 MiB); an initrd is named after its size.
struct FixtureImages;

impl Images for FixtureImages {
    fn kernel(&self, name: &str, _directory: &Path) -> Result<PathBuf, String> {
        match name {
            path if path.contains(['.', '/']) => Ok(PathBuf::from(path)),
            name => Ok(Path::new(FIXTURES).join(format!("{name}.kernel"))),
        }
    }

    fn initrd(&self, name: &str, _vm: &VmSource, _directory: &Path) -> Result<Contents, String> {
        match parse_size(name) {
            Ok(size) => Ok(Contents::Bytes(vec![0; usize::try_from(size).unwrap()])),
            Err(_) => Ok(Contents::File(PathBuf::from(name))),
        }
    }
}

/// What users are told of images that are not there. The kernels of these tests are, under names without a path.
fn look(source: &Source) -> Result<(), Problems> {
    static WORKSPACE: OnceLock<Workspace> = OnceLock::new();
    let workspace = WORKSPACE.get_or_init(|| Workspace::find().unwrap());
    let problems = images::look(workspace, source, Need::Files).err().into_iter().flatten();
    Problems::check(problems.filter(|problem| problem.word().is_some_and(|word| word.contains('/'))).collect())
}

/// The names of the fixtures that end in `extension`.
fn names(extension: &str) -> BTreeSet<String> {
    let paths = fs::read_dir(FIXTURES).unwrap().map(|entry| entry.unwrap().path());
    let named = paths.filter(|path| path.extension().is_some_and(|found| found == extension));
    named.map(|path| path.file_stem().unwrap().to_str().unwrap().to_string()).collect()
}

fn read(name: &str, extension: &str) -> String {
    fs::read_to_string(Path::new(FIXTURES).join(format!("{name}.{extension}"))).unwrap()
}

fn problems_of(name: &str) -> Problems {
    let file = format!("{name}.toml");
    let bytes = fs::read(Path::new(FIXTURES).join(&file)).unwrap();
    let result = parse_bytes(Path::new(&file), bytes, &look).and_then(|source| {
        let bundle = bundle(&source, &FixtureImages, &BundleOptions::default())?;
        Ok(bundle.check_cores(&source, source.board().cpu_default)?)
    });
    match result {
        Ok(_) => panic!("{file} is accepted"),
        Err(problems) => problems,
    }
}

#[test]
fn every_invalid_system_has_a_message() {
    assert_eq!(names("toml"), names("message"));
}

#[test]
fn every_invalid_system_is_refused_with_its_message() {
    let wrong: Vec<_> = names("toml")
        .iter()
        .filter_map(|name| {
            let (found, expected) = (problems_of(name).to_string(), read(name, "message"));
            (found != expected.trim_end()).then(|| format!("expected: {}\n   found: {found}\n", expected.trim_end()))
        })
        .collect();
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[test]
fn what_is_shown_has_the_line_and_marks_the_word() {
    let wrong: Vec<_> = names("shown")
        .iter()
        .filter_map(|name| {
            let (found, expected) = (problems_of(name).shown(false), read(name, "shown"));
            (found.trim_end() != expected.trim_end())
                .then(|| format!("{name}, expected:\n{expected}\nfound:\n{found}\n"))
        })
        .collect();
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[test]
fn a_large_file_takes_no_more_than_its_size() {
    let vm = |number: usize| {
        format!(
            "[[vm]]\nname = \"v{number}\"\nmemory = \"2 MiB\"\ncores = [0]\nkernal = \"x\"\n[[vm.device]]\nkind = \"pl011\"\n"
        )
    };
    let text: String = (0..10_000).map(vm).collect();
    let started = std::time::Instant::now();
    let text = String::from("board = \"qemu-virt\"\n") + &text;
    let problems = parse_bytes(Path::new("large.toml"), text.into(), &|_| Ok(()));
    assert_eq!(problems.unwrap_err().iter().count(), 10_001, "a misspelt key each, and too many machines");
    // A search for the line of each value from the start of the file takes minutes.
    assert!(started.elapsed().as_secs() < 60, "{:?}", started.elapsed());
}

#[test]
fn every_message_says_what_to_do() {
    for name in names("message") {
        assert!(read(&name, "message").contains("; "), "{name}");
    }
}
