//! `doc`: the documentation of every crate, and one page that leads to each.
//!
//! Plain `cargo doc` documents what builds on the host; the bare-metal crates need their target, which puts their pages
//! into a directory of its own.

use crate::{
    bare_metal::{self, TARGET, cargo},
    setup,
    workspace::Workspace,
};
use anyhow::{Context, ensure};
use std::{fmt::Write, fs, path::PathBuf, process::Command, process::ExitCode};

pub(super) fn run(workspace: &Workspace) -> anyhow::Result<ExitCode> {
    setup::room(workspace)?;
    setup::rust_target(TARGET)?;
    for mut command in [host(workspace), bare_metal(workspace)] {
        let status = command.status().context("cargo could not be started")?;
        ensure!(status.success(), "the documentation cannot be made; the compiler's message is above");
    }
    println!("{}", index(workspace)?.display());
    Ok(ExitCode::SUCCESS)
}

/// Documents the crates that build on the host.
pub(super) fn host(workspace: &Workspace) -> Command {
    let mut command = cargo(workspace);
    command.args(["doc", "--no-deps"]);
    command
}

/// Documents the others.
pub(super) fn bare_metal(workspace: &Workspace) -> Command {
    let mut command = cargo(workspace);
    command.args(["doc", "--no-deps", "--target", TARGET]).args(bare_metal::packages(workspace));
    command
}

/// Writes the page that leads to the pages of every crate, and gives its path.
///
/// # Errors
/// When a crate has no page, or the page cannot be written.
pub(super) fn index(workspace: &Workspace) -> anyhow::Result<PathBuf> {
    let target = workspace.target();
    let mut rows = String::new();
    for package in workspace.metadata.workspace_packages() {
        // A package is documented by its library, or else by its programs.
        let libraries: Vec<_> = package.targets.iter().filter(|target| target.is_lib()).collect();
        let programs = package.targets.iter().filter(|target| target.is_bin());
        let documented = if libraries.is_empty() { programs.collect() } else { libraries };
        for crate_target in documented {
            let name = crate_target.name.replace('-', "_");
            let places = [format!("{name}/index.html"), format!("../{TARGET}/doc/{name}/index.html")];
            let page = places.iter().find(|place| target.join("doc").join(place).is_file());
            let page = page.with_context(|| format!("the crate `{name}` has no page; run `cargo xtask doc`"))?;
            let description = package.description.as_deref().unwrap_or_default();
            // Writing to a string cannot fail.
            let _ = writeln!(rows, "<tr><td><a href=\"{page}\">{name}</a></td><td>{description}</td></tr>");
        }
    }
    let page = target.join("doc/index.html");
    let text = format!(
        "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>Bulkhead</title></head><body>\n\
         <h1>Bulkhead</h1>\n<p>The map is hypervisor/ARCHITECTURE.md.</p>\n<table>\n{rows}</table>\n</body></html>\n"
    );
    fs::write(&page, text).with_context(|| format!("{} cannot be written", page.display()))?;
    Ok(page)
}
