//! What Bulkhead takes from its first instruction to the guest's, without what every loader takes: clearing the
//! guest's RAM and copying its images.
//!
//! A guest can tell when it was started: that is where its virtual counter stood at zero. Two more starts, one with
//! more RAM and one with a larger image, say what clearing and copying take for each byte, and that is taken off.

use super::{Figure, Figures, platforms::board};
use crate::{
    bare_metal::{self, Flavor, Program},
    claim,
    disks::Age,
    launch::{self, Prepared},
    qemu::Uart,
    session::Session,
    system::{self, AdHoc},
    verdict,
    workspace::Workspace,
};
use anyhow::{Context, ensure};
use std::{path::Path, time::Duration};

const LIMIT: Duration = Duration::from_secs(60);
const MIB: u64 = 1 << 20;
/// The starts: RAM and size of the RAM disk. The first is the one that counts.
const MEMORY: [u64; 2] = [32 * MIB, 64 * MIB];
const RAMDISK: [u64; 2] = [MIB, 2 * MIB];
/// The RAM of the start of which nothing is left out.
const WHOLE_MEMORY: u64 = 1024 * MIB;

/// The instructions of a start with one guest, clearing and copying aside; and of one with much RAM, all included.
///
/// # Errors
/// When a run fails.
pub(super) fn measure(workspace: &Workspace, cpu: &str) -> anyhow::Result<[Figure; 2]> {
    let program = bare_metal::build_hypervisor(workspace, Flavor::Product)?;
    let kernel = bare_metal::build_guest(workspace, "bench")?.image;
    let kernel_size = std::fs::metadata(&kernel)?.len();
    let start = |memory, ramdisk| started(workspace, cpu, &program, &kernel, memory, ramdisk);
    let [memory, more_memory] = MEMORY;
    let [ramdisk, larger_ramdisk] = RAMDISK;

    let whole = start(memory, ramdisk)?;
    let clearing = slope(whole, start(more_memory, ramdisk)?, more_memory - memory) * memory as f64;
    let copying =
        slope(whole, start(memory, larger_ramdisk)?, larger_ramdisk - ramdisk) * (ramdisk + kernel_size) as f64;
    // The device tree is a few hundred bytes, and its copy stays in.
    let alone = (whole as f64 - clearing - copying).max(0.0).round() as u64;
    Ok([Figure::once(alone), Figure::once(start(WHOLE_MEMORY, ramdisk)?)])
}

fn slope(less: u64, more: u64, bytes: u64) -> f64 {
    more.saturating_sub(less) as f64 / bytes as f64
}

/// When a guest with `memory` bytes of RAM and `ramdisk` bytes of RAM disk begins, in instructions since the start.
fn started(
    workspace: &Workspace,
    cpu: &str,
    program: &Program,
    kernel: &Path,
    memory: u64,
    ramdisk: u64,
) -> anyhow::Result<u64> {
    let board_data = platform::find("qemu-virt").context("the board qemu-virt is known")?;
    let initrd = workspace.cache().join(format!("bench/{}-mib.ramdisk", ramdisk / MIB));
    std::fs::create_dir_all(workspace.cache().join("bench"))?;
    std::fs::write(&initrd, vec![0x5a_u8; usize::try_from(ramdisk)?])?;
    let mut source = system::ad_hoc(&AdHoc {
        board: board_data,
        cores: 1,
        kernel: kernel.to_owned(),
        initrd: Some(initrd),
        command_line: "bench=boot".to_owned(),
        memory_bytes: memory,
        vcpus: 1,
        disks: Vec::new(),
        network: false,
    })?;
    let claim = claim::claim(workspace, &mut source)?;
    let bundle = launch::bundle(workspace, &source, "")?;
    let program = Program { elf: program.elf.clone(), image: program.image.clone() };
    let prepared = Prepared { source, bundle, program, disks: Age::Kept, claim };
    let machine = prepared.machine(workspace, &board(cpu), Uart::Reader, Vec::new())?;
    let outcome = Session { symbols: None, echo: false, log: None, limit: Some(LIMIT) }.run(&machine)?;
    verdict::ended_well(&outcome).map_err(anyhow::Error::msg)?;
    let name = prepared.source.vms().first().map_or("", |vm| vm.name());
    let figures = Figures::from_lines(outcome.guest_lines(name));
    let start = figures.get("boot").context("the guest does not say when it was started")?.total;
    ensure!(start > 0, "the guest's virtual counter has no offset, so it cannot tell when it was started");
    Ok(start)
}
