//! `ci`: everything that must hold before a change lands. `.ci/run` calls this and nothing else.
//!
//! What is quick and finds most comes first; then what takes long is done side by side.

use super::doc;
use crate::{
    bare_metal::{self, TARGET, cargo},
    bench, deny, fuzz, host_tests, miri,
    pool::{self, Job},
    results::{Results, time_line},
    scenarios, setup, tidy,
    workspace::Workspace,
};
use anyhow::Context;
use std::{
    process::{Command, ExitCode, Stdio},
    time::{Duration, Instant},
};

/// How long the virtqueue takes random steps: some thousands of runs.
const FUZZ_SECONDS: u32 = 10;
/// The steps that are done side by side, besides those of [`miri`] and [`scenarios`].
const MEASUREMENTS: &str = "measurements";
const FUZZING: &str = "the virtqueue beside its reference, at random";

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
    steps.tests("host tests", || host_tests::run(workspace, None))?;
    let strict = |mut command: Command| {
        command.env("RUSTDOCFLAGS", "-D warnings");
        command
    };
    steps.command("documentation", &mut strict(doc::host(workspace)))?;
    steps.command("documentation of the bare-metal crates", &mut strict(doc::bare_metal(workspace)))?;
    steps.check("index of the documentation", || {
        Ok(doc::index(workspace).inspect_err(|error| println!("{error:#}")).is_ok())
    })?;
    let mut omitted = Vec::new();
    steps.tests("licences and advisories of dependencies", || {
        let checked = deny::check(workspace)?;
        omitted.extend(checked.omitted.map(|what| format!("NOT CHECKED {what}")));
        Ok(checked.results)
    })?;
    if !miri::is_there(workspace) {
        omitted.push(format!("NOT CHECKED {}", miri::MISSING));
    }
    // Here, and again where it is not overlooked.
    omitted.iter().for_each(|line| println!("{line}"));
    steps.side_by_side(jobs(workspace)?)?;

    steps.print_times();
    omitted.iter().for_each(|line| println!("{line}"));
    steps.results.print_failures();
    println!("== {} s in all", steps.started.elapsed().as_secs());
    println!("{}", steps.results.tally);
    Ok(if steps.results.tally.failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// What takes long: first what takes longest in one piece.
fn jobs(workspace: &Workspace) -> anyhow::Result<Vec<Job<'_>>> {
    let work = || bench::check(workspace);
    let mut jobs = vec![Job { step: MEASUREMENTS, uses: None, cores: 1, work: Box::new(work) }];
    jobs.extend(scenarios::jobs(workspace, None)?);
    if miri::is_there(workspace) {
        jobs.extend(miri::jobs(workspace)?);
    }
    let work = || fuzz::random(workspace, FUZZ_SECONDS);
    jobs.push(Job { step: FUZZING, uses: None, cores: 1, work: Box::new(work) });
    Ok(jobs)
}

/// The steps, each counted as one test unless it counts tests itself.
struct Steps {
    results: Results,
    /// How long each step took.
    times: Vec<(&'static str, Duration)>,
    /// What took the longest of the steps that say so of each test.
    slowest: Vec<(&'static str, Vec<String>)>,
    started: Instant,
}

impl Default for Steps {
    fn default() -> Self {
        Self { results: Results::default(), times: Vec::new(), slowest: Vec::new(), started: Instant::now() }
    }
}

impl Steps {
    fn check(&mut self, name: &'static str, step: impl FnOnce() -> anyhow::Result<bool>) -> anyhow::Result<()> {
        println!("== {name}");
        let started = Instant::now();
        let passed = step().with_context(|| format!("step `{name}` could not run"))?;
        let time = started.elapsed();
        if passed {
            println!("PASS {name} ({:.1} s)", time.as_secs_f32());
            self.results.tally.count(true);
        } else {
            println!("FAIL {name} ({:.1} s)", time.as_secs_f32());
            self.results.fail(name);
        }
        self.times.push((name, time));
        Ok(())
    }

    fn command(&mut self, name: &'static str, command: &mut Command) -> anyhow::Result<()> {
        self.check(name, || Ok(command.stdin(Stdio::null()).status()?.success()))
    }

    fn tests(&mut self, name: &'static str, step: impl FnOnce() -> anyhow::Result<Results>) -> anyhow::Result<()> {
        println!("== {name}");
        let started = Instant::now();
        let results = step().with_context(|| format!("step `{name}` could not run"))?;
        self.count(name, results, started.elapsed());
        Ok(())
    }

    /// Does `jobs`; the time of a step is then the sum of its jobs'.
    fn side_by_side(&mut self, jobs: Vec<Job<'_>>) -> anyhow::Result<()> {
        let mut names: Vec<_> = jobs.iter().map(|job| job.step).collect();
        names.dedup();
        println!("== side by side: {}", names.join("; "));
        let mut done = pool::run(jobs)?;
        for name in names {
            let (mut results, mut time) = (Results::default(), Duration::ZERO);
            for job in done.extract_if(.., |job| job.step == name) {
                results.add(job.results);
                time += job.time;
            }
            self.count(name, results, time);
        }
        Ok(())
    }

    fn count(&mut self, name: &'static str, results: Results, time: Duration) {
        println!("{name}: {} ({:.1} s)", results.tally, time.as_secs_f32());
        self.times.push((name, time));
        if !results.times.is_empty() {
            self.slowest.push((name, results.slowest()));
        }
        self.results.add(results);
    }

    fn print_times(&self) {
        for (name, lines) in &self.slowest {
            println!("== the slowest of {name}");
            lines.iter().for_each(|line| println!("{line}"));
        }
        println!("== the steps, of some of which two or more jobs ran at a time");
        self.times.iter().for_each(|(name, time)| println!("{}", time_line(name, *time)));
    }
}
