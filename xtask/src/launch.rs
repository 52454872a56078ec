//! From a system's description to a board that is ready to start: builds, fetches and packs what it takes.

use crate::{
    bare_metal::{self, Flavor, Program},
    claim::{self, Claim},
    consoles,
    disks::{self, Age},
    images::{self, HostImages},
    qemu::{Clock, Machine, Uart, Virtio},
    setup,
    symbols::Symbols,
    system::{self, Bundle, BundleOptions, Plug, Source},
    workspace::Workspace,
};
use anyhow::{Context, ensure};
use clap::Args;
use std::{ffi::OsString, path::PathBuf, sync::Arc};

/// The options that choose the board's cores and clock.
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct BoardOptions {
    /// The model of the cores, as QEMU names it (default: the board's)
    #[arg(long, value_name = "MODEL")]
    pub(crate) cpu: Option<String>,
    /// The number of cores (default: as many as the system uses)
    #[arg(long, value_name = "N")]
    pub(crate) smp: Option<u8>,
    /// Count time in instructions, 2^SHIFT ns for each (default 0): the same in every run, however busy the host is
    #[arg(long, value_name = "SHIFT", num_args = 0..=1, require_equals = true, default_missing_value = "0")]
    pub(crate) icount: Option<u8>,
}

/// A system with everything that its start needs.
pub(crate) struct Prepared {
    /// The system's description.
    pub(crate) source: Source,
    /// What its virtual machines are started from.
    pub(crate) bundle: Bundle,
    /// Bulkhead.
    pub(crate) program: Program,
    /// What becomes of the disks that earlier runs have left.
    pub(crate) disks: Age,
    /// That nobody else runs it.
    pub(crate) claim: Arc<Claim>,
}

/// Builds Bulkhead and the bundle of `source`, and sets up what is missing for that. Each machine's command line gets
/// `extra_command_line`.
///
/// # Errors
/// What is wrong with the system or with this machine, in a sentence.
pub(crate) fn prepare(workspace: &Workspace, source: Source, extra_command_line: &str) -> anyhow::Result<Prepared> {
    setup::room(workspace)?;
    setup::qemu(workspace)?;
    prepare_image(workspace, source, extra_command_line)
}

/// As [`prepare`], for a machine that need not have QEMU. What is missing is found, and fetched, before anything is
/// built.
///
/// # Errors
/// As [`prepare`], and when another process runs the system.
pub(crate) fn prepare_image(
    workspace: &Workspace,
    mut source: Source,
    extra_command_line: &str,
) -> anyhow::Result<Prepared> {
    setup::room(workspace)?;
    let claim = claim::claim(workspace, &mut source)?;
    if source.disks().iter().flat_map(|disk| &disk.partitions).any(|partition| partition.content.is_some()) {
        setup::file_system_programs()?;
    }
    images::fetch(workspace, &source)?;
    setup::rust_target(bare_metal::TARGET)?;
    let program = bare_metal::build_hypervisor(workspace, flavor(&source))?;
    let bundle = bundle(workspace, &source, extra_command_line)?;
    Ok(Prepared { source, bundle, program, disks: Age::Kept, claim })
}

/// Which Bulkhead has all the devices of `source`.
fn flavor(source: &Source) -> Flavor {
    let mut devices = source.vms().iter().flat_map(|vm| &vm.devices);
    let has_test_device = devices.any(|device| devices::find(&device.kind).is_some_and(|kind| kind.for_tests));
    if has_test_device { Flavor::WithTestDevices } else { Flavor::Product }
}

/// Builds the bundle of `source` alone.
///
/// # Errors
/// As [`prepare`].
pub(crate) fn bundle(workspace: &Workspace, source: &Source, extra_command_line: &str) -> anyhow::Result<Bundle> {
    images::fetch(workspace, source)?;
    let options = BundleOptions { extra_command_line: extra_command_line.to_owned() };
    Ok(system::bundle(source, &HostImages::new(workspace), &options)?)
}

impl Prepared {
    /// Writes the bundle to the cache and gives the board to start.
    ///
    /// # Errors
    /// When the board has fewer cores than the system uses, or a disk cannot be made.
    pub(crate) fn machine(
        &self,
        workspace: &Workspace,
        options: &BoardOptions,
        uart: Uart,
        extra: Vec<OsString>,
    ) -> anyhow::Result<Machine> {
        let bundle = workspace.cache().join("bundles").join(format!("{}.bundle", self.source.name()));
        self.write_bundle(&bundle)?;
        self.machine_with(workspace, options, uart, extra, self.program.image.clone(), bundle)
    }

    /// As [`Prepared::machine`], for files that lie elsewhere.
    ///
    /// # Errors
    /// When the board has fewer cores than the system uses.
    pub(crate) fn machine_with(
        &self,
        workspace: &Workspace,
        options: &BoardOptions,
        uart: Uart,
        extra: Vec<OsString>,
        kernel: PathBuf,
        bundle: PathBuf,
    ) -> anyhow::Result<Machine> {
        let source = &self.source;
        let board = source.board();
        let cores = options.smp.unwrap_or_else(|| source.cores());
        ensure!(
            cores >= source.cores(),
            "system `{}` uses {} cores, and --smp gives the board only {cores}",
            source.name(),
            source.cores()
        );
        let cpu = options.cpu.clone().unwrap_or_else(|| board.cpu_default.to_owned());
        self.bundle.check_cores(source, &cpu)?;
        Ok(Machine {
            board,
            cpu,
            cores,
            memory_bytes: source.memory_bytes(),
            clock: options.icount.map_or(Clock::Host, |shift| Clock::Instructions { shift, idles: false }),
            uart,
            typed: b"",
            columns: None,
            kernel,
            bundle,
            virtio: self.virtio(workspace)?,
            extra,
            claim: Some(Arc::clone(&self.claim)),
        })
    }

    /// What is in the board's virtio slots, if anything is: disks are made where they are missing.
    fn virtio(&self, workspace: &Workspace) -> anyhow::Result<Option<Virtio>> {
        let plugs = self.source.plugs();
        if plugs.is_empty() {
            return Ok(None);
        }
        let images = disks::provide(workspace, &self.source, self.disks)?;
        let console = consoles::log(workspace, &self.source);
        let directory = console.parent().context("a log lies in a directory")?;
        std::fs::create_dir_all(directory).with_context(|| format!("{} cannot be created", directory.display()))?;
        let mut virtio = Virtio::default();
        for (slot, plug) in plugs {
            match plug {
                Plug::Disk(number) => virtio.disks.extend(images.get(number).map(|image| (slot, image.clone()))),
                Plug::Uplink => virtio.cards.extend(self.source.uplink_mac().map(|mac| (slot, mac))),
                Plug::Card(number) => virtio.cards.push((slot, self.source.card_mac(number))),
                Plug::Console => virtio.console = Some((slot, console.clone())),
                Plug::Entropy => virtio.entropy = Some(slot),
            }
        }
        Ok(Some(virtio))
    }

    /// Writes the bundle to `path`.
    ///
    /// # Errors
    /// When it cannot be written.
    pub(crate) fn write_bundle(&self, path: &std::path::Path) -> anyhow::Result<()> {
        let directory = path.parent().context("a bundle lies in a directory")?;
        std::fs::create_dir_all(directory).with_context(|| format!("{} cannot be created", directory.display()))?;
        std::fs::write(path, &self.bundle.cpio).with_context(|| format!("{} cannot be written", path.display()))
    }

    /// Bulkhead's symbols, for epitaphs.
    pub(crate) fn symbols(&self) -> Option<Symbols> {
        Symbols::read(&self.program.elf)
    }
}
