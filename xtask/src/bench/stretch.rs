//! The longest stretch at EL2 without a look at whether an interrupt is pending: for so long one waits at most.
//!
//! QEMU logs every instruction of Bulkhead's section `.text`, one by one, while a system does what takes EL2 longest;
//! `trace` counts as the log comes. `cargo xtask bench stretch` measures this alone, and names the functions.

mod trace;

use super::platforms::board;
use crate::{
    launch,
    qemu::{Machine, Uart},
    session::Session,
    symbols::Functions,
    systems, verdict,
    workspace::Workspace,
};
use anyhow::{Context, ensure};
use object::{Object, ObjectSection};
use std::{ffi::OsString, fmt, fs, time::Duration};
use trace::{Code, Stretch, Stretches, Tracer};

/// The system: a client's large requests, copied and granted, restarts without end, many pending interrupts.
const SYSTEM: &str = "bench-stretch";
/// How long the run may take, in which each instruction is printed.
const LIMIT: Duration = Duration::from_secs(300);
/// Where Bulkhead is put, from the start of RAM: QEMU tells instructions by their virtual addresses, so no guest may
/// run at Bulkhead's. A driver domain's RAM lies elsewhere by itself.
const PLACE: u64 = 96 << 20;
/// `text_offset` in the header of a Linux `Image`, which says so (Linux `Documentation/arch/arm64/booting.rst`).
const TEXT_OFFSET: std::ops::Range<usize> = 8..16;
/// Where a core's life begins: nothing before can be interrupted, since no guest runs.
const BEGIN: &str = "bulkhead::run::run";
/// What writes to the console: a line of the log, a character of a guest's and with it maybe a row.
const WRITERS: [&str; 2] = [
    "<bulkhead::console::Logger as log::Log>::log",
    "<bulkhead::console::GuestConsole as bulkhead_vdev::Console>::put",
];
/// So many functions of a stretch are named.
const NAMED: usize = 5;

/// Traces the system on cores of model `cpu`.
///
/// # Errors
/// When something does not build, or the run fails.
pub(crate) fn measure(workspace: &Workspace, cpu: &str) -> anyhow::Result<Stretches> {
    let prepared = launch::prepare(workspace, systems::find(workspace, SYSTEM)?, "")?;
    let source = &prepared.source;
    let is_clear = source.vms().iter().all(|vm| vm.doorbell.is_some() || vm.memory_bytes() <= PLACE);
    ensure!(is_clear, "a vm of system {} runs where Bulkhead does", source.name());

    let elf = fs::read(&prepared.program.elf)?;
    let file = object::File::parse(elf.as_slice()).context("Bulkhead is no ELF file")?;
    let functions = Functions::of(&file);
    let address = |name| functions.address(name).with_context(|| format!("Bulkhead has no function `{name}`"));
    let text = file.section_by_name(".text").context("Bulkhead has no section .text")?;
    let words = text.data()?.chunks_exact(4);
    let code = Code {
        base: source.board().ram_base + PLACE + text.address(),
        linked: text.address(),
        words: words.filter_map(|word| Some(u32::from_le_bytes(word.try_into().ok()?))).collect(),
        begin: address(BEGIN)?,
        writers: WRITERS.into_iter().map(address).collect::<anyhow::Result<_>>()?,
    };

    let mut machine = prepared.machine(workspace, &board(cpu), Uart::Reader, logging(&code))?;
    machine.wait_for_disks();
    place(workspace, &mut machine)?;
    let mut tracer = Tracer::new(&code, &functions);
    let symbols = prepared.symbols();
    let session = Session { symbols: symbols.as_ref(), echo: false, log: None, limit: Some(LIMIT) };
    let outcome = session.run_logged(&machine, &mut |line| tracer.take(line))?;
    verdict::whole_run(source, &outcome).map_err(anyhow::Error::msg).with_context(|| format!("system {SYSTEM}"))?;
    let found = tracer.finish();
    ensure!(found.longest > 0, "QEMU has logged nothing of Bulkhead");
    Ok(found)
}

/// What has QEMU log each instruction of `code`, each time.
fn logging(code: &Code) -> Vec<OsString> {
    let range = format!("{:#x}+{:#x}", code.base, 4 * code.words.len());
    ["-accel", "tcg,one-insn-per-tb=on", "-d", "exec,nochain", "-dfilter", &range].map(OsString::from).into()
}

/// Has QEMU load Bulkhead to [`PLACE`].
fn place(workspace: &Workspace, machine: &mut Machine) -> anyhow::Result<()> {
    let mut image = fs::read(&machine.kernel)?;
    image.get_mut(TEXT_OFFSET).context("Bulkhead has no header")?.copy_from_slice(&PLACE.to_le_bytes());
    machine.kernel = workspace.cache().join("images/bulkhead-stretch.bin");
    fs::write(&machine.kernel, image).with_context(|| format!("{} cannot be written", machine.kernel.display()))
}

impl Stretches {
    /// Prints the longest of each kind.
    pub(crate) fn print(&self, cpu: &str) {
        println!("{cpu}: the longest stretches at EL2 without a look at ISR_EL1, by the function with most of each");
        self.kinds.iter().for_each(|stretch| println!("  {stretch}"));
    }
}

impl fmt::Display for Stretch {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} instructions", self.instructions)?;
        if self.written > 0 {
            write!(formatter, " and {} of writing to the console", self.written)?;
        }
        for (index, (function, count)) in self.functions.iter().take(NAMED).enumerate() {
            write!(formatter, "{} {count} in {function}", if index == 0 { ":" } else { "," })?;
        }
        let others = self.functions.len().saturating_sub(NAMED);
        if others > 0 { write!(formatter, ", and {others} functions more") } else { Ok(()) }
    }
}
