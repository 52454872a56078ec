//! Licences, sources and advisories of the crates that this project depends on: what `cargo-deny` says of them.
//!
//! Licences, bans and sources need nothing but the crates, and are always checked. Advisories need RustSec's database,
//! a git repository: where that cannot be fetched, they are not checked, and this says so.

use crate::{bare_metal::cargo, progress, results::Results, workspace::Workspace};
use anyhow::{Context, bail, ensure};
use std::{
    ffi::OsString,
    path::PathBuf,
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

/// The version that the rules are written for.
const VERSION: &str = "0.20.2";
/// Each set of crates, with its rules: the workspace, and what `cargo-fuzz` builds.
const SETS: [(&str, &str); 2] = [
    ("Cargo.toml", "deny.toml"),
    ("hypervisor/virtio-transport/fuzz/Cargo.toml", "hypervisor/virtio-transport/fuzz/deny.toml"),
];
/// How long the database may take. It is some 10 MiB.
const FETCH_LIMIT: Duration = Duration::from_secs(60);

/// What came of the checks.
pub(crate) struct Checked {
    /// Their results.
    pub(crate) results: Results,
    /// What could not be checked, and why.
    pub(crate) omitted: Option<String>,
}

/// Checks every set of crates.
///
/// # Errors
/// When `cargo-deny` is neither there nor can be built.
pub(crate) fn check(workspace: &Workspace) -> anyhow::Result<Checked> {
    let program = program(workspace)?;
    let mut results = Results::default();
    let mut run = |checks: &[&str]| -> anyhow::Result<()> {
        for (manifest, rules) in SETS {
            let mut command = deny(workspace, &program, rules);
            command.args(["--locked", "--manifest-path", manifest, "check", "--hide-inclusion-graph"]).args(checks);
            let passed = command.status().context("cargo-deny could not be started")?.success();
            if passed {
                results.tally.count(true);
            } else {
                let what = format!("{} of the crates of {manifest}", checks.join(", "));
                println!("FAIL {what}");
                results.fail(what);
            }
        }
        Ok(())
    };
    run(&["licenses", "bans", "sources"])?;
    let fetched = fetch(deny(workspace, &program, "deny.toml").args(["fetch", "db"]), FETCH_LIMIT);
    if fetched.is_ok() {
        run(&["advisories"])?;
    }
    let omitted = fetched.err().map(|reason| format!("advisories: their database could not be fetched: {reason:#}"));
    Ok(Checked { results, omitted })
}

fn deny(workspace: &Workspace, program: &PathBuf, rules: &str) -> Command {
    let mut command = Command::new(program);
    command.args(["--config", rules]).current_dir(workspace.root()).stdin(Stdio::null());
    command
}

/// Fetches the database; what the program has said is the reason of a failure.
fn fetch(command: &mut Command, limit: Duration) -> anyhow::Result<()> {
    // It asks nobody for a password.
    command.env("GIT_TERMINAL_PROMPT", "0").stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = command.spawn().context("it could not be started")?;
    let started = Instant::now();
    while child.try_wait()?.is_none() {
        if started.elapsed() > limit {
            child.kill()?;
            child.wait()?;
            bail!("it took longer than {} s", limit.as_secs());
        }
        thread::sleep(Duration::from_millis(20));
    }
    let output = child.wait_with_output()?;
    ensure!(output.status.success(), "{}", last_line(&String::from_utf8_lossy(&output.stderr)));
    Ok(())
}

fn last_line(text: &str) -> &str {
    text.lines().rfind(|line| !line.trim().is_empty()).unwrap_or("no reason given")
}

/// `cargo-deny` of our version: this machine's, or one that is built once and kept for every clone.
fn program(workspace: &Workspace) -> anyhow::Result<PathBuf> {
    let tools = tools(|name| std::env::var_os(name)).unwrap_or_else(|| workspace.cache().join("tools"));
    let own = tools.join("bin/cargo-deny");
    if let Some(found) = [own.clone(), "cargo-deny".into()].into_iter().find(is_our_version) {
        return Ok(found);
    }
    let build = || {
        let mut install = cargo(workspace);
        install.args(["install", "--quiet", "--locked", "--root"]).arg(&tools);
        // Built without optimisation it is ready after a third of the time, and takes seconds all the same.
        install.args(["--debug", "--config", "profile.dev.debug=0", &format!("cargo-deny@{VERSION}")]);
        let status = install.stdin(Stdio::null()).status().context("cargo could not be started")?;
        ensure!(status.success(), "cargo-deny {VERSION} cannot be built; cargo's message is above");
        Ok(())
    };
    progress::step(&format!("building cargo-deny {VERSION}, which takes a minute or two, once"), build)?;
    Ok(own)
}

/// The user's directory for programs that can be made again (XDG Base Directory Specification: `XDG_CACHE_HOME`).
fn tools(variable: impl Fn(&str) -> Option<OsString>) -> Option<PathBuf> {
    let path = |name| variable(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let cache = path("XDG_CACHE_HOME").or_else(|| Some(path("HOME")?.join(".cache")))?;
    Some(cache.join("bulkhead/tools"))
}

fn is_our_version(program: &PathBuf) -> bool {
    let output = Command::new(program).arg("--version").stdin(Stdio::null()).stderr(Stdio::null()).output();
    output.is_ok_and(|output| String::from_utf8_lossy(&output.stdout).trim() == format!("cargo-deny {VERSION}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    #[test]
    fn a_database_that_cannot_be_fetched_is_no_silent_success() {
        let reason = fetch(&mut shell("echo first >&2; echo 'no such host' >&2; echo >&2; exit 1"), FETCH_LIMIT);
        assert_eq!(reason.expect_err("refused").to_string(), "no such host");
        fetch(&mut shell("true"), FETCH_LIMIT).expect("fetched");
    }

    #[test]
    fn a_fetch_without_end_is_ended() {
        let started = Instant::now();
        let reason = fetch(&mut shell("exec sleep 60"), Duration::from_millis(100)).expect_err("ended");
        assert!(reason.to_string().starts_with("it took longer"), "{reason}");
        assert!(started.elapsed() < Duration::from_secs(30));
    }

    #[test]
    fn every_set_has_its_rules() {
        let root = Workspace::find().expect("a workspace").root().to_owned();
        for (manifest, rules) in SETS {
            let rules = std::fs::read_to_string(root.join(rules)).expect(rules);
            for section in ["[licenses]", "[bans]", "[sources]", "[advisories]"] {
                assert!(rules.contains(section), "the rules for {manifest} have no {section}");
            }
        }
    }

    #[test]
    fn the_program_is_kept_outside_of_the_clone_where_there_is_a_home() {
        let tools_of = |variables: &[(&str, &str)]| {
            tools(|name| variables.iter().find(|(other, _)| *other == name).map(|(_, value)| value.into()))
        };
        assert_eq!(tools_of(&[("HOME", "/root-of/a")]), Some("/root-of/a/.cache/bulkhead/tools".into()));
        assert_eq!(tools_of(&[("HOME", "/root-of/a"), ("XDG_CACHE_HOME", "/c")]), Some("/c/bulkhead/tools".into()));
        // The specification has relative paths ignored.
        assert_eq!(tools_of(&[("HOME", ""), ("XDG_CACHE_HOME", "c")]), None);
    }

    #[test]
    fn another_program_is_not_ours() {
        assert!(!is_our_version(&"/nonexistent/cargo-deny".into()));
        assert!(!is_our_version(&"true".into()));
    }
}
