//! `ci`: everything that must hold before a change lands. `.ci/run` calls this and nothing else.

use super::doc;
use crate::{
    bare_metal::{self, TARGET, cargo},
    bench, deny, fuzz, host_tests, miri, scenarios, setup,
    tally::Tally,
    tidy,
    workspace::Workspace,
};
use anyhow::Context;
use std::{
    process::{Command, ExitCode, Stdio},
    time::Instant,
};

/// How long the virtqueue takes random steps: some thousands of runs.
const FUZZ_SECONDS: u32 = 10;

pub(super) fn run(workspace: &Workspace) -> anyhow::Result<ExitCode> {
    setup::room(workspace)?;
    setup::rust_target(TARGET)?;
    let bare_metal = bare_metal::packages(workspace);
    let mut steps = Steps::default();

    steps.command("format", cargo(workspace).args(["fmt", "--all", "--check"]))?;
    steps.check("tidy rules", || {
        let findings = tidy::check(workspace)?;
        for finding in &findings {
            println!("{finding}");
        }
        Ok(!findings.iter().any(tidy::Finding::is_refused))
    })?;
    let mut clippy = cargo(workspace);
    steps.command("lints of the host crates", clippy.args(["clippy", "--all-targets", "--", "-D", "warnings"]))?;
    let mut clippy = cargo(workspace);
    clippy.args(["clippy", "--target", TARGET]).args(&bare_metal).args(["--", "-D", "warnings"]);
    steps.command("lints of the bare-metal crates", &mut clippy)?;
    let strict = |mut command: Command| {
        command.env("RUSTDOCFLAGS", "-D warnings");
        command
    };
    steps.command("documentation", &mut strict(doc::host(workspace)))?;
    steps.command("documentation of the bare-metal crates", &mut strict(doc::bare_metal(workspace)))?;
    steps.check("index of the documentation", || {
        Ok(doc::index(workspace).inspect_err(|error| println!("{error:#}")).is_ok())
    })?;
    let mut omitted = None;
    steps.tests("licences and advisories of dependencies", || {
        let checked = deny::check(workspace)?;
        omitted = checked.omitted.map(|what| format!("NOT CHECKED {what}"));
        // Here, and again where it is not overlooked.
        omitted.iter().for_each(|line| println!("{line}"));
        Ok(checked.tally)
    })?;
    steps.tests("host tests", || host_tests::run(workspace, None))?;
    steps.tests("the virtqueue beside its reference, at random", || fuzz::random(workspace, FUZZ_SECONDS))?;
    steps.tests("the pure crates under Miri", || miri::run(workspace))?;
    steps.tests("measurements", || bench::check(workspace))?;
    steps.tests("scenarios under QEMU", || scenarios::run(workspace, None))?;

    omitted.iter().for_each(|line| println!("{line}"));
    println!("== {} s in all", steps.started.elapsed().as_secs());
    println!("{}", steps.tally);
    Ok(if steps.tally.failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The steps, each counted as one test unless it counts tests itself.
struct Steps {
    tally: Tally,
    started: Instant,
}

impl Default for Steps {
    fn default() -> Self {
        Self { tally: Tally::default(), started: Instant::now() }
    }
}

impl Steps {
    fn check(&mut self, name: &str, step: impl FnOnce() -> anyhow::Result<bool>) -> anyhow::Result<()> {
        println!("== {name}");
        let started = Instant::now();
        let passed = step().with_context(|| format!("step `{name}` could not run"))?;
        let word = if passed { "PASS" } else { "FAIL" };
        println!("{word} {name} ({:.1} s)", started.elapsed().as_secs_f32());
        self.tally.count(passed);
        Ok(())
    }

    fn command(&mut self, name: &str, command: &mut Command) -> anyhow::Result<()> {
        self.check(name, || Ok(command.stdin(Stdio::null()).status()?.success()))
    }

    fn tests(&mut self, name: &str, step: impl FnOnce() -> anyhow::Result<Tally>) -> anyhow::Result<()> {
        println!("== {name}");
        let started = Instant::now();
        let tally = step().with_context(|| format!("step `{name}` could not run"))?;
        println!("{name}: {tally} ({:.1} s)", started.elapsed().as_secs_f32());
        self.tally.add(tally);
        Ok(())
    }
}
