//! Finds a system by the name that a person types.

use crate::{
    images::{self, Need},
    system::{self, Source},
    workspace::Workspace,
};
use anyhow::{Context, bail};
use std::path::{Path, PathBuf};

/// Reads the system `name`: one of `guests/systems`, or the path of a TOML file. The images that it names are there.
///
/// # Errors
/// When there is no such system, with the names of those that there are; or what is wrong with it, with file and line.
pub(crate) fn find(workspace: &Workspace, name: &str) -> anyhow::Result<Source> {
    find_with(workspace, name, Need::Files)
}

/// As [`find`], for a caller that needs so much of its images.
///
/// # Errors
/// As [`find`].
pub(crate) fn find_with(workspace: &Workspace, name: &str, need: Need) -> anyhow::Result<Source> {
    let look = |source: &Source| images::look(workspace, source, need);
    if Path::new(name).extension().is_some_and(|extension| extension == "toml") {
        return Ok(system::load(Path::new(name), &look)?);
    }
    let commands = crate::commands::names();
    let path = directory(workspace).join(name).with_extension("toml");
    if !path.is_file() {
        let known = names(workspace)?;
        let system = system::nearest(name, known.iter().map(String::as_str));
        let command = system::nearest(name, commands.iter().map(String::as_str));
        let near =
            [system.map(|near| format!("the system `{near}`")), command.map(|near| format!("`cargo xtask {near}`"))];
        let near: Vec<_> = near.into_iter().flatten().collect();
        let advice = match near.is_empty() {
            false => format!("did you mean {}?", near.join(" or ")),
            true => format!("choose one of these, or give the path of a .toml file: {}", known.join(", ")),
        };
        bail!("there is no system `{name}` in guests/systems; {advice}");
    }
    Ok(system::load(&as_typed(&path), &look)?)
}

/// The names of the systems in `guests/systems`, in alphabetical order.
///
/// # Errors
/// When the directory cannot be read.
pub(crate) fn names(workspace: &Workspace) -> anyhow::Result<Vec<String>> {
    let directory = directory(workspace);
    let entries = std::fs::read_dir(&directory).with_context(|| format!("{} cannot be read", directory.display()))?;
    let mut names = Vec::new();
    for entry in entries {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "toml") {
            names.extend(path.file_stem().map(|stem| stem.to_string_lossy().into_owned()));
        }
    }
    names.sort();
    Ok(names)
}

fn directory(workspace: &Workspace) -> PathBuf {
    workspace.root().join("guests/systems")
}

/// `path` relative to the current directory where it lies below it: short in messages, and an editor can open it.
fn as_typed(path: &Path) -> PathBuf {
    let here = std::env::current_dir().ok();
    here.and_then(|here| Some(path.strip_prefix(here).ok()?.to_owned())).unwrap_or_else(|| path.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_a_slip_and_the_name_of_a_command_are_understood() {
        let workspace = Workspace::find().expect("a workspace");
        let sentence = |name: &str| find(&workspace, name).err().map(|error| error.to_string()).unwrap_or_default();
        assert!(sentence("two-linx").ends_with("; did you mean the system `two-linux`?"));
        assert!(sentence("tests").ends_with("; did you mean `cargo xtask test`?"));
        assert!(sentence("qqqqqqqq").contains("choose one of these"));
    }
}
