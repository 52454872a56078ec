//! ELF files as kernels: as they are linked, position-independent, and at addresses of their own.

use super::guests::passes;
use crate::{
    bare_metal,
    launch::{self, BoardOptions},
    qemu::Uart,
    session::Session,
    system::{self, AdHoc},
    verdict,
    workspace::Workspace,
};
use anyhow::Context;
use object::{elf, endian::LittleEndian, pod};
use std::{fs, path::Path, time::Duration};

/// A system of the same kind as those that are started here, which come from no file.
pub(super) const SYSTEM: &str = "test-hello";
const PROGRAM: &str = "elf";
const LIMIT: Duration = Duration::from_secs(30);
/// 2 MiB above the start of RAM, where a position-independent program goes, and another place.
const PLACE: u64 = 0x4020_0000;
const OWN_PLACE: u64 = 0x4100_0000;

/// Starts a program both ways.
///
/// # Errors
/// What was not as it should be.
pub(super) fn both(workspace: &Workspace, log: &Path) -> anyhow::Result<()> {
    let program = bare_metal::build_guest(workspace, PROGRAM)?.elf;
    start(workspace, &program, PLACE, log).context("as it is linked")?;
    let mut bytes = fs::read(&program)?;
    move_to(&mut bytes, OWN_PLACE).context("the guest is no ELF file")?;
    let moved = workspace.cache().join("images/elf-at-an-address");
    fs::write(&moved, bytes).with_context(|| format!("{} cannot be written", moved.display()))?;
    start(workspace, &moved, OWN_PLACE, log).context("at an address of its own")?;
    Ok(fs::remove_file(moved)?)
}

fn start(workspace: &Workspace, kernel: &Path, place: u64, log: &Path) -> anyhow::Result<()> {
    let source = system::ad_hoc(&AdHoc {
        board: platform::BOARDS.first().copied().context("no board is known")?,
        cores: 1,
        kernel: kernel.to_owned(),
        initrd: None,
        command_line: format!("at={place}"),
        memory_bytes: 32 << 20,
        vcpus: 1,
        disks: Vec::new(),
        network: false,
    })?;
    let prepared = launch::prepare(workspace, source, "")?;
    let machine = prepared.machine(workspace, &BoardOptions::default(), Uart::Reader, Vec::new())?;
    let session = Session { symbols: None, echo: false, log: Some(log.to_owned()), limit: Some(LIMIT) };
    let outcome = session.run(&machine)?;
    let judged = verdict::whole_run(&prepared.source, &outcome)
        .and_then(|()| prepared.source.vms().iter().try_for_each(|vm| passes(&outcome, vm.name())));
    judged.map_err(anyhow::Error::msg)
}

/// Makes a position-independent program one that has the physical address `place`.
fn move_to(file: &mut [u8], place: u64) -> Option<()> {
    const ENDIAN: LittleEndian = LittleEndian;
    let (header, _) = pod::from_bytes_mut::<elf::FileHeader64<LittleEndian>>(file).ok()?;
    header.e_type.set(ENDIAN, elf::ET_EXEC);
    let (start, count) = (usize::try_from(header.e_phoff.get(ENDIAN)).ok()?, header.e_phnum.get(ENDIAN));
    let parts = file.get_mut(start..)?;
    let (parts, _) = pod::slice_from_bytes_mut::<elf::ProgramHeader64<LittleEndian>>(parts, count.into()).ok()?;
    for part in parts {
        part.p_paddr.set(ENDIAN, part.p_paddr.get(ENDIAN) + place);
    }
    Some(())
}
