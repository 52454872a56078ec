//! Bulkhead's share of a Linux start: how long Debian's kernel takes to reach user space on the bare board and as a guest.
//!
//! Both start the same kernel and RAM disk with the same device tree, the one that Bulkhead gives its guest, so that the
//! kernel has the same to do. It polls where it would wait, so that time counts instructions alone, and says itself when it
//! is there.

use super::{
    Figure, Measured, Platform,
    platforms::{board, output_until, reproducible},
};
use crate::{launch, qemu::Uart, setup, systems, workspace::Workspace};
use anyhow::{Context, ensure};
use manifest::Bundle;

const SYSTEM: &str = "bench-linux";
/// What the kernel prints when it starts the first program.
const USER_SPACE: &str = "Run /init as init process";
/// The row.
const ROW: &str = "linux-start";

/// Adds both starts to `measured`.
///
/// # Errors
/// When a start fails.
pub(super) fn measure(workspace: &Workspace, cpu: &str, measured: &mut Measured) -> anyhow::Result<()> {
    let prepared = launch::prepare(workspace, systems::find(workspace, SYSTEM)?, "")?;
    let guest = prepared.source.vms().first().context("the system has no vm")?;
    let tree = Bundle::new(&prepared.bundle.cpio)
        .find(&format!("{}.dtb", guest.name()))
        .map_err(|error| anyhow::anyhow!("the bundle has no device tree: {error}"))?;
    let path = workspace.cache().join("bench/linux.dtb");
    std::fs::create_dir_all(workspace.cache().join("bench"))?;
    std::fs::write(&path, tree).with_context(|| format!("{} cannot be written", path.display()))?;

    let images = setup::linux(workspace)?;
    let mut native = reproducible("virt,gic-version=3", cpu, 1);
    // The last -m holds; QEMU writes it into the device tree.
    native.arg("-m").arg(format!("{}M", guest.memory_bytes() >> 20));
    native.arg("-kernel").arg(images.kernel).arg("-initrd").arg(images.initrd).arg("-dtb").arg(&path);
    native.args(["-append", &guest.command_line]);
    let bulkhead = prepared.machine(workspace, &board(cpu), Uart::Reader, Vec::new())?.command();

    for (platform, command) in [(Platform::Native, native), (Platform::Bulkhead, bulkhead)] {
        let lines = output_until(&command, |line| line.ends_with(USER_SPACE))
            .with_context(|| format!("the start of Linux failed ({platform})"))?;
        let nanoseconds = lines.last().and_then(|line| kernel_time(line)).context("the kernel does not say when")?;
        ensure!(nanoseconds > 0, "the kernel's clock stands still");
        measured.of_mut(platform).insert(ROW, Figure::once(nanoseconds));
    }
    Ok(())
}

/// The kernel's own time of a line, `[guest] [    0.755637] …`, in nanoseconds.
fn kernel_time(line: &str) -> Option<u64> {
    let (before, _) = line.split_once("] Run ")?;
    let (_, time) = before.rsplit_once('[')?;
    let (seconds, microseconds) = time.trim().split_once('.')?;
    let microseconds = seconds.parse::<u64>().ok()?.checked_mul(1_000_000)?.checked_add(microseconds.parse().ok()?)?;
    microseconds.checked_mul(1000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_time_is_read_behind_any_prefix() {
        assert_eq!(kernel_time("[    0.755637] Run /init as init process"), Some(755_637_000));
        assert_eq!(kernel_time("[linux] [    1.000001] Run /init as init process"), Some(1_000_001_000));
        assert_eq!(kernel_time("Run /init as init process"), None);
    }
}
