//! What `image` writes: it starts wherever it was moved to, by its script, and on a board, from U-Boot.

use super::guests::passes;
use crate::{
    commands::image,
    qemu,
    session::{Outcome, Session},
    setup,
    system::{Source, VmSource},
    verdict,
    workspace::Workspace,
};
use anyhow::{Context, ensure};
use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

/// A system with a disk and everything else that is plugged in.
pub(super) const MOVED_SYSTEM: &str = "test-io";
/// A small one, which needs no more of the board than a UART.
pub(super) const BOOTED_SYSTEM: &str = "test-hello";
const LIMIT: Duration = Duration::from_secs(60);

/// Writes an image, moves it, and starts it without a terminal.
///
/// # Errors
/// What was not as it should be.
pub(super) fn moved(workspace: &Workspace, log: &Path) -> anyhow::Result<()> {
    let (written, moved) = (directory(workspace, "written")?, directory(workspace, "moved")?);
    let prepared = image::write_to(workspace, MOVED_SYSTEM, &written)?;
    fs::rename(&written, &moved)?;
    let mut command = Command::new("sh");
    command.arg(moved.join(image::SCRIPT)).current_dir("/");
    judge(&prepared.source, &run(command, log)?)?;
    Ok(fs::remove_dir_all(moved)?)
}

/// Has U-Boot, which the board starts at EL2, find the image on a disk.
///
/// # Errors
/// What was not as it should be.
pub(super) fn by_u_boot(workspace: &Workspace, log: &Path) -> anyhow::Result<()> {
    let (firmware, files) = (setup::u_boot(workspace)?, directory(workspace, "files")?);
    let prepared = image::write_to(workspace, BOOTED_SYSTEM, &files)?;
    let disk = files.with_file_name("u-boot.img");
    write_disk(&files, &disk)?;
    let (source, board) = (&prepared.source, prepared.source.board());
    let mut command = Command::new(qemu::PROGRAM);
    command
        .args(["-M", board.qemu_machine, "-cpu", board.cpu_default, "-smp", &source.cores().to_string()])
        .args(["-m", &format!("{}M", source.memory_bytes() >> 20), "-display", "none", "-serial", "stdio"])
        .args(["-monitor", "none", "-nic", "none", "-no-reboot", "-device", "virtio-blk-device,drive=boot", "-bios"])
        .arg(firmware)
        .args([
            "-drive",
            &format!("if=none,id=boot,format=raw,file={}", disk.display().to_string().replace(',', ",,")),
        ]);
    let outcome = run(command, log)?;
    for said in ["Found U-Boot script /boot.scr", "Starting kernel ..."] {
        ensure!(outcome.lines.iter().any(|line| line.starts_with(said)), "U-Boot has never said {said:?}");
    }
    judge(source, &outcome)?;
    fs::remove_file(disk)?;
    Ok(fs::remove_dir_all(files)?)
}

/// The name of a directory of these scenarios' own that is not there.
fn directory(workspace: &Workspace, name: &str) -> anyhow::Result<PathBuf> {
    let all = workspace.cache().join("images/image");
    fs::create_dir_all(&all).with_context(|| format!("{} cannot be created", all.display()))?;
    let directory = all.join(name);
    if directory.exists() {
        fs::remove_dir_all(&directory)?;
    }
    Ok(directory)
}

fn run(mut command: Command, log: &Path) -> anyhow::Result<Outcome> {
    command.stdin(Stdio::null());
    Session { symbols: None, echo: false, log: Some(log.to_owned()), limit: Some(LIMIT) }
        .run_command(command, &mut |_| false)
}

/// The run has ended well, and every guest but a driver domain has passed its tests.
fn judge(source: &Source, outcome: &Outcome) -> anyhow::Result<()> {
    let testers = source.vms().iter().filter(|vm| vm.doorbell.is_none());
    let judged = verdict::whole_run(source, outcome).and_then(|()| {
        let mut names = testers.map(VmSource::name);
        names.try_for_each(|name| passes(outcome, name))
    });
    judged.map_err(anyhow::Error::msg)
}

/// Where the one partition begins and how large it is, in bytes.
const PARTITION_START: u64 = 1 << 20;
const PARTITION_BYTES: u64 = 16 << 20;
const SECTOR_BYTES: u64 = 512;

/// Writes a disk with one partition (a master boot record), on which the files in `directory` are.
fn write_disk(directory: &Path, disk: &Path) -> anyhow::Result<()> {
    let programs = setup::file_system_programs()?;
    let partition = disk.with_extension("partition");
    fs::File::create(&partition)?.set_len(PARTITION_BYTES)?;
    let mut make = Command::new(programs.mke2fs);
    make.env("MKE2FS_CONFIG", "/dev/null").args(["-q", "-F", "-d"]).arg(directory).arg(&partition);
    setup::run_quietly(&mut make)?;
    let mut bytes = vec![0; usize::try_from(PARTITION_START)?];
    let sectors = |bytes: u64| u32::try_from(bytes / SECTOR_BYTES).map(u32::to_le_bytes);
    // The first entry: bootable, of Linux's type, without the geometry of old disks.
    let entry = [[0x80, 0, 0, 0], [0x83, 0, 0, 0], sectors(PARTITION_START)?, sectors(PARTITION_BYTES)?].concat();
    for (place, part) in [(446, entry.as_slice()), (510, &[0x55, 0xaa])] {
        bytes.get_mut(place..place + part.len()).context("a sector")?.copy_from_slice(part);
    }
    bytes.extend(fs::read(&partition)?);
    fs::remove_file(partition)?;
    fs::write(disk, bytes).with_context(|| format!("{} cannot be written", disk.display()))
}
