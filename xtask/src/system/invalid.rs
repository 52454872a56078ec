//! One invalid system for each rule, in `xtask/fixtures/invalid`, compared with the message that a user sees.
//!
//! Each is `NAME.toml` and `NAME.message`; a new rule gets a new pair.

use std::{collections::BTreeSet, fs, path::Path, path::PathBuf};

use super::{BundleOptions, Contents, Images, Problems, VmSource, bundle, reader::parse, size::parse_size};

const FIXTURES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/invalid");

/// Images of these tests: the kernel `small` is 16 bytes, `large` an `Image` header that asks for 64 MiB; an initrd is
/// named after its size.
struct FixtureImages;

impl Images for FixtureImages {
    fn kernel(&self, name: &str) -> Result<PathBuf, String> {
        match name {
            "small" | "large" => Ok(Path::new(FIXTURES).join(format!("{name}.kernel"))),
            other => Ok(PathBuf::from(other)),
        }
    }

    fn initrd(&self, name: &str, _vm: &VmSource) -> Result<Contents, String> {
        match parse_size(name) {
            Ok(size) => Ok(Contents::Bytes(vec![0; usize::try_from(size).unwrap()])),
            Err(_) => Ok(Contents::File(PathBuf::from(name))),
        }
    }
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
    let result = parse(Path::new(&file), &read(name, "toml"))
        .and_then(|source| bundle(&source, &FixtureImages, &BundleOptions::default()));
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
fn every_message_says_what_to_do() {
    for name in names("message") {
        assert!(read(&name, "message").contains("; "), "{name}");
    }
}
