//! Whole systems under QEMU, each started once and judged by what its guests report.
//!
//! To add one: write a system into `guests/systems`, and a [`Scenario`] into the list of one of the files here.

mod boot;
mod elf;
mod guests;
mod image;
mod io;
mod limits;
mod linux;
mod prompt;
mod trees;

use crate::{
    bare_metal::{self, Flavor, Program},
    commands::debug,
    consoles, counters,
    launch::{self, BoardOptions, Prepared},
    pool::Job,
    qemu::Uart,
    results::Results,
    session::{self, Outcome, Session},
    setup, symbols,
    system::Source,
    systems, verdict,
    workspace::Workspace,
};
use anyhow::{Context, bail};
use std::{
    ffi::OsString,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

/// What `ci` calls all of them.
pub(crate) const STEP: &str = "scenarios under QEMU";
/// How long a run may take whose clock is instructions. A busy machine makes it longer and changes nothing else: the
/// limit ends what hangs.
const COUNTED_LIMIT_SECONDS: u64 = 600;
/// How much of a failed run's output is shown.
const TAIL_LINES: usize = 25;

/// A system, how it is started, and what must come of it.
struct Scenario {
    /// A sentence that says what holds.
    name: String,
    /// The system in `guests/systems`.
    system: &'static str,
    /// The model of the cores, where it is not the board's default.
    cpu: Option<&'static str>,
    /// Added to every guest's command line.
    command_line: &'static str,
    /// What is damaged before the start.
    damage: Damage,
    /// How long the run may take.
    limit_seconds: u64,
    /// Where time is counted in instructions: how long one takes, as 2^n ns. A scenario that measures time does so,
    /// since a busy host would otherwise look like a busy neighbour.
    icount: Option<u8>,
    /// Judges the run.
    verdict: fn(&Source, &Outcome) -> Result<(), String>,
}

/// What is damaged, or poorer than usual, to see what becomes of it.
#[derive(Clone, Copy)]
enum Damage {
    /// All is as it should be.
    None,
    /// The device tree, so many times in so many ways.
    Trees(u32),
    /// The bundle.
    Bundle(fn(Vec<u8>) -> Vec<u8>),
    /// A function of Bulkhead's: its first instruction is an undefined one.
    Function(&'static str),
    /// The first of the two functions of Bulkhead's: it begins with a jump to the second.
    Jump(&'static str, &'static str),
    /// Each of the system's disks: gives QEMU's name of what takes its place, if anything does. The second path is that
    /// of a directory for files of one's own.
    Disks(fn(&Path, &Path) -> anyhow::Result<Option<PathBuf>>),
    /// Bulkhead in the place of the board's firmware, at EL3: all cores of the board start there.
    Firmware,
    /// The board: further arguments for QEMU.
    Board(&'static [&'static str]),
    /// The board's UART: bytes that come before anybody listens.
    Uart(&'static [u8]),
}

/// A scenario that starts a system in its own way.
struct Other {
    /// A sentence that says what holds.
    name: &'static str,
    /// The system, which nobody else may run meanwhile.
    system: &'static str,
    /// What must be there before.
    set_up: fn(&Workspace) -> anyhow::Result<()>,
    /// Does it, and judges it. What is printed goes to the file.
    check: fn(&Workspace, &Path) -> anyhow::Result<()>,
}

const OTHERS: [Other; 6] = [
    Other {
        name: "gdb stops in EL2, in a guest and at Ctrl-C, each with its own symbols",
        system: debug::check::SYSTEM,
        set_up: |_| setup::debugger().map(drop),
        check: debug::check::stops,
    },
    Other {
        name: "gdb stops in a driver domain, and in that one of two like guests that is named, while both are typed to",
        system: debug::check::CLIENTS,
        set_up: |_| setup::debugger().map(drop),
        check: debug::check::stops_in_clients,
    },
    Other {
        name: "an ELF file is a kernel, as it is linked and at an address of its own",
        system: elf::SYSTEM,
        set_up: |_| Ok(()),
        check: elf::both,
    },
    Other {
        name: "an image that was moved starts with its own disk by its script",
        system: image::MOVED_SYSTEM,
        set_up: |_| Ok(()),
        check: image::moved,
    },
    Other {
        name: "U-Boot as a guest comes to its prompt, and does what is typed there",
        system: prompt::SYSTEM,
        set_up: |workspace| setup::u_boot(workspace).map(drop),
        check: prompt::answers,
    },
    Other {
        name: "U-Boot at EL2 finds an image on a disk, and starts it by its script",
        system: image::BOOTED_SYSTEM,
        set_up: |workspace| {
            setup::file_system_programs()?;
            setup::u_boot(workspace).map(drop)
        },
        check: image::by_u_boot,
    },
];

/// Every scenario, in the order in which they run.
fn all() -> Vec<Scenario> {
    let mut scenarios = boot::scenarios();
    scenarios.extend(guests::scenarios());
    scenarios.extend(io::scenarios());
    scenarios.extend(limits::scenarios());
    scenarios.extend(linux::scenarios());
    scenarios
}

/// The names of all scenarios.
pub(crate) fn names() -> Vec<String> {
    all().into_iter().map(|scenario| scenario.name).chain(OTHERS.map(|other| other.name.to_owned())).collect()
}

/// The scenarios whose names contain `filter`, or all, as work to be done side by side.
///
/// # Errors
/// When something is wrong with this machine rather than with a scenario.
pub(crate) fn jobs<'a>(workspace: &'a Workspace, filter: Option<&str>) -> anyhow::Result<Vec<Job<'a>>> {
    let is_asked_for = |name: &str| filter.is_none_or(|filter| name.contains(filter));
    let scenarios: Vec<_> = all().into_iter().filter(|scenario| is_asked_for(&scenario.name)).collect();
    let others: Vec<_> = OTHERS.into_iter().filter(|other| is_asked_for(other.name)).collect();
    if scenarios.is_empty() && others.is_empty() {
        return Ok(Vec::new());
    }
    // Two scenarios must not install the same thing at the same time.
    setup::qemu(workspace)?;
    if scenarios.len() > 1 {
        setup::file_system_programs()?;
    }
    others.iter().try_for_each(|other| (other.set_up)(workspace))?;
    // One failure says it: each scenario would only repeat it.
    if let Err(error) = bare_metal::build_hypervisor(workspace, Flavor::Product) {
        let work = move || Err(error.context("Bulkhead does not build"));
        return Ok(vec![Job { step: STEP, uses: None, cores: 1, work: Box::new(work) }]);
    }
    let mut jobs: Vec<_> = scenarios.into_iter().map(|scenario| scenario.job(workspace)).collect();
    jobs.extend(others.into_iter().map(|Other { name, system, check, .. }| {
        let work = move || {
            let (started, log) = (Instant::now(), log_path(workspace, name));
            let result = check(workspace, &log);
            conclude(workspace, name, &log, started, result)
        };
        Job { step: STEP, uses: Some(system.to_owned()), cores: cores_of(workspace, system), work: Box::new(work) }
    }));
    Ok(jobs)
}

/// How many cores `system` keeps busy. One that is not there is found by its run.
fn cores_of(workspace: &Workspace, system: &str) -> usize {
    systems::find(workspace, system).map_or(1, |source| usize::from(source.cores()))
}

/// Says what came of the scenario `name`, and of one that failed also how its output ends.
///
/// # Errors
/// When the user has ended it.
fn conclude(
    workspace: &Workspace,
    name: &str,
    log: &Path,
    started: Instant,
    result: anyhow::Result<()>,
) -> anyhow::Result<Results> {
    let time = started.elapsed();
    let mut results = Results { times: vec![(name.to_owned(), time)], ..Results::default() };
    match result {
        Ok(()) => {
            println!("PASS {name} ({:.1} s)", time.as_secs_f32());
            results.tally.count(true);
        }
        Err(_) if session::interrupted() => bail!("interrupted"),
        Err(reason) => {
            println!("FAIL {name}: {reason:#}");
            show_tail(workspace, log);
            results.fail(format!("{name}: {reason:#}"));
        }
    }
    Ok(results)
}

/// What is there to be judged.
enum Ended {
    /// A run of a system, which nobody else may start before it is judged: its disks are looked at.
    Run(Box<Prepared>, Outcome),
    /// Many boots, which have been judged: what there is to say of them.
    Boots(String),
}

impl Scenario {
    /// The scenario as work. Two of one system would write the same disks, consoles and bundle.
    fn job(self, workspace: &Workspace) -> Job<'_> {
        // With instructions as the clock, QEMU runs the cores by turns.
        let cores = match self.icount {
            Some(_) => 1,
            None => cores_of(workspace, self.system),
        };
        let uses = Some(self.system.to_owned());
        let work = move || {
            let (started, log) = (Instant::now(), log_path(workspace, &self.name));
            let ended = self.run(workspace, log.clone());
            // What the judge says and the result stay together, whoever else has something to say.
            let _whole = std::io::stdout().lock();
            conclude(workspace, &self.name, &log, started, ended.and_then(|ended| self.judge(ended)))
        };
        Job { step: STEP, uses, cores, work: Box::new(work) }
    }

    fn run(&self, workspace: &Workspace, log: PathBuf) -> anyhow::Result<Ended> {
        // A log of an earlier run must not be taken for this one's.
        if log.exists() {
            std::fs::remove_file(&log)?;
        }
        let source = systems::find(workspace, self.system)?;
        let mut prepared = launch::prepare(workspace, source, self.command_line)?;
        if let Damage::Bundle(damage) = self.damage {
            prepared.bundle.cpio = damage(prepared.bundle.cpio);
        }
        let options = BoardOptions { cpu: self.cpu.map(str::to_owned), smp: None, icount: self.icount };
        let arguments = if let Damage::Board(arguments) = self.damage { arguments } else { &[] };
        let extra = arguments.iter().map(Into::into).collect();
        let mut machine = prepared.machine(workspace, &options, Uart::Reader, extra)?;
        match self.damage {
            Damage::Function(function) => machine.kernel = broken(workspace, &prepared.program, function, None)?,
            Damage::Jump(from, to) => machine.kernel = broken(workspace, &prepared.program, from, Some(to))?,
            Damage::Uart(bytes) => machine.typed = bytes,
            Damage::Trees(count) => {
                return trees::run(machine, count, &workspace.cache().join("images/trees")).map(Ended::Boots);
            }
            Damage::Firmware => {
                let arguments = ["-M", "secure=on", "-smp", "2", "-bios"].map(OsString::from);
                machine.extra.extend(arguments.into_iter().chain([machine.kernel.clone().into()]));
            }
            Damage::None | Damage::Bundle(_) | Damage::Disks(_) | Damage::Board(_) => {}
        }
        if let (Damage::Disks(damage), Some(virtio)) = (self.damage, &mut machine.virtio) {
            let directory = workspace.cache().join("disks/damaged");
            std::fs::create_dir_all(&directory)?;
            let disks = std::mem::take(&mut virtio.disks);
            for (slot, disk) in disks {
                virtio.disks.extend(damage(&disk, &directory)?.map(|disk| (slot, disk)));
            }
        }
        let symbols = prepared.symbols();
        let limit = Some(Duration::from_secs(self.limit_seconds));
        let mut outcome = Session { symbols: symbols.as_ref(), echo: false, log: Some(log), limit }.run(&machine)?;
        consoles::hear(workspace, &prepared.source, &mut outcome);
        Ok(Ended::Run(Box::new(prepared), outcome))
    }

    fn judge(&self, ended: Ended) -> anyhow::Result<()> {
        let (prepared, outcome) = match ended {
            Ended::Run(prepared, outcome) => (prepared, outcome),
            Ended::Boots(remark) => {
                println!("     {remark}");
                return Ok(());
            }
        };
        let source = &prepared.source;
        (self.verdict)(source, &outcome).map_err(|reason| {
            print!("{}", counters::table(&counters::collect(&outcome.lines)));
            for sentence in verdict::unfinished(source, &outcome) {
                println!("     {sentence}");
            }
            anyhow::Error::msg(reason)
        })
    }
}

/// A copy of `program` whose function `function` fails, or jumps to `target`.
fn broken(workspace: &Workspace, program: &Program, function: &str, target: Option<&str>) -> anyhow::Result<PathBuf> {
    let mut image = std::fs::read(&program.image)?;
    // Linked at address 0, where the flat image begins.
    let address = symbols::address_of(&program.elf, function)?;
    let new = match target {
        None => 0, // UDF #0
        Some(target) => {
            let distance = symbols::address_of(&program.elf, target)?.wrapping_sub(address);
            0x1400_0000 | u32::try_from(distance >> 2 & 0x3ff_ffff)? // B
        }
    };
    let address = usize::try_from(address)?;
    let instruction =
        image.get_mut(address..address + 4).with_context(|| format!("`{function}` lies outside the image"))?;
    instruction.copy_from_slice(&new.to_le_bytes());
    let path = workspace.cache().join("images/bulkhead-broken.bin");
    std::fs::write(&path, image)?;
    Ok(path)
}

/// Where the output of the scenario `name` goes: `target/bulkhead/logs/two-linux-guests-on-cortex-a57.log`.
fn log_path(workspace: &Workspace, name: &str) -> PathBuf {
    let mut file = String::new();
    for character in name.chars() {
        if character.is_ascii_alphanumeric() {
            file.push(character.to_ascii_lowercase());
        } else if !file.ends_with('-') {
            file.push('-');
        }
    }
    workspace.cache().join("logs").join(format!("{}.log", file.trim_matches('-')))
}

fn show_tail(workspace: &Workspace, log: &Path) {
    let Ok(text) = std::fs::read(log) else { return };
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<&str> = text.lines().collect();
    for line in lines.get(lines.len().saturating_sub(TAIL_LINES)..).unwrap_or_default() {
        println!("    | {line}");
    }
    println!("    the whole output: {}", workspace.display(log));
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn no_two_scenarios_share_a_name_or_a_log() {
        let workspace = Workspace::find().expect("a workspace");
        let logs: BTreeSet<_> = names().iter().map(|name| log_path(&workspace, name)).collect();
        assert_eq!(logs.len(), names().len());
    }

    #[test]
    fn every_scenario_names_a_system_that_there_is() {
        let workspace = Workspace::find().expect("a workspace");
        let known = systems::names(&workspace).expect("systems");
        let others = OTHERS.map(|other| (other.name.to_owned(), other.system));
        for (name, system) in all().into_iter().map(|scenario| (scenario.name, scenario.system)).chain(others) {
            assert!(known.iter().any(|known| known == system), "`{name}`: no {system}");
        }
    }
}
