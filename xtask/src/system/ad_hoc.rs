//! One guest from the command line, as one would start it with QEMU itself.

use manifest::MemoryRegion;
use platform::Board;
use std::path::PathBuf;
use vdev::guest_map;

use super::{
    Problem,
    source::{ImageName, Source, SystemLines, VmLines, VmSource},
};

/// The name of the one guest.
const GUEST_NAME: &str = "guest";
/// What the board has beyond the guest's RAM, at least: Bulkhead, the boot loader's device tree, and the bundle.
const SPARE_BYTES: u64 = 256 << 20;
const GIB: u64 = 1 << 30;

/// The options of `run --kernel`.
#[derive(Clone, Debug)]
pub(crate) struct AdHoc {
    /// The board to run on.
    pub(crate) board: &'static Board,
    /// How many cores the board has.
    pub(crate) cores: u8,
    /// The kernel: any kind that [`super::bundle()`] knows.
    pub(crate) kernel: PathBuf,
    /// The initial RAM disk.
    pub(crate) initrd: Option<PathBuf>,
    /// The kernel's command line; nothing is added to it.
    pub(crate) command_line: String,
    /// The guest's RAM in bytes.
    pub(crate) memory_bytes: u64,
    /// The guest's virtual CPUs; where there are more than cores, they share them.
    pub(crate) vcpus: u8,
}

/// Makes a system with the one guest that `options` describe: its RAM, its CPUs, a UART.
///
/// # Errors
/// A [`Problem`] without file and line: a rule of the `manifest` crate is broken.
pub(crate) fn ad_hoc(options: &AdHoc) -> Result<Source, Problem> {
    let AdHoc { board, cores, memory_bytes, .. } = *options;
    let device = |kind: &devices::Kind| manifest::Device {
        kind: kind.name.to_string(),
        address: kind.default_address,
        size: kind.window_size,
        interrupt: kind.default_interrupt,
        service: None,
    };
    let devices: Vec<_> = devices::find("pl011").map(device).into_iter().collect();
    let vm = VmSource {
        name: GUEST_NAME.to_string(),
        memory: vec![MemoryRegion { guest: guest_map::RAM_BASE, size: memory_bytes, physical: None }],
        cores: (0..options.vcpus).map(|index| index.checked_rem(cores).unwrap_or(0)).collect(),
        kernel: ImageName::File(options.kernel.clone()),
        initrd: options.initrd.clone().map(ImageName::File),
        command_line: options.command_line.clone(),
        tells_identity: false,
        clients: vec![None; devices.len()],
        devices,
        assigned: Vec::new(),
        doorbell: None,
        load_end: u64::MAX,
        lines: VmLines::default(),
    };
    let memory_needed = memory_bytes.saturating_add(SPARE_BYTES).checked_next_multiple_of(GIB).unwrap_or(u64::MAX);
    let source = Source {
        file: None,
        name: GUEST_NAME.to_string(),
        description: format!("One guest: {}", options.kernel.display()),
        board,
        cores,
        memory_bytes: memory_needed.clamp(board.memory_default, board.memory_max),
        vms: vec![vm],
        disks: Vec::new(),
        uplink: false,
        lines: SystemLines::default(),
    };
    source.validate(&source.skeleton())?;
    Ok(source)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options() -> AdHoc {
        AdHoc {
            board: platform::BOARDS[0],
            cores: 2,
            kernel: PathBuf::from("Image"),
            initrd: None,
            command_line: "console=ttyAMA0".to_string(),
            memory_bytes: 512 << 20,
            vcpus: 3,
        }
    }

    #[test]
    fn virtual_cpus_beyond_the_cores_share_them() {
        assert_eq!(ad_hoc(&options()).unwrap().vms()[0].cores, [0, 1, 0]);
    }

    #[test]
    fn the_board_grows_with_the_guest() {
        assert_eq!(ad_hoc(&options()).unwrap().memory_bytes(), 1 << 30);
        let large = AdHoc { memory_bytes: 4 << 30, ..options() };
        assert_eq!(ad_hoc(&large).unwrap().memory_bytes(), 5 << 30);
    }

    #[test]
    fn a_broken_rule_is_a_sentence_without_a_file() {
        let problem = ad_hoc(&AdHoc { vcpus: 0, ..options() }).unwrap_err();
        assert_eq!(problem.to_string(), "vm \"guest\" has no virtual cpu; name a core in its list of cores");
        let problem = ad_hoc(&AdHoc { memory_bytes: u64::MAX, ..options() }).unwrap_err();
        assert!(problem.to_string().contains("memory comes in multiples of 2 MiB"), "{problem}");
        ad_hoc(&AdHoc { cores: 0, ..options() }).unwrap_err();
    }
}
