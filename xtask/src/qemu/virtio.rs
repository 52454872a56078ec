//! What is plugged into the board's virtio slots, from slot 0 on: disks, network card, console, entropy.

use std::{ffi::OsString, path::PathBuf};

/// The devices of a driver domain.
#[derive(Clone, Debug, Default)]
pub(crate) struct Virtio {
    /// Raw images, in the order in which the system numbers them.
    pub(crate) disks: Vec<PathBuf>,
    /// The address of the network card, if there is one; it is on QEMU's user network.
    pub(crate) uplink: Option<String>,
    /// Where the text goes that is written to the console.
    pub(crate) console: PathBuf,
}

impl Virtio {
    /// QEMU's arguments, as pairs.
    pub(super) fn arguments(&self) -> Vec<[OsString; 2]> {
        // QEMU's slots are of the legacy kind unless told otherwise.
        let mut arguments = vec![pair("-global", "virtio-mmio.force-legacy=false")];
        let mut slot = 0_u32;
        let mut plug = |arguments: &mut Vec<_>, device: &str| {
            arguments.push(pair("-device", format!("{device},bus=virtio-mmio-bus.{slot}")));
            slot = slot.saturating_add(1);
        };
        for (number, disk) in self.disks.iter().enumerate() {
            let mut drive = OsString::from(format!(
                "if=none,id=disk{number},format=raw,cache=writeback,discard=unmap,read-only={},file=",
                if is_read_only(disk) { "on" } else { "off" }
            ));
            drive.push(with_commas_doubled(disk));
            arguments.push(["-drive".into(), drive]);
            plug(&mut arguments, &format!("virtio-blk-device,drive=disk{number}"));
        }
        match &self.uplink {
            None => arguments.push(pair("-nic", "none")),
            Some(mac) => {
                arguments.push(pair("-netdev", "user,id=uplink"));
                plug(&mut arguments, &format!("virtio-net-device,netdev=uplink,mac={mac}"));
            }
        }
        let mut console = OsString::from("file,id=console,path=");
        console.push(with_commas_doubled(&self.console));
        arguments.push(["-chardev".into(), console]);
        plug(&mut arguments, "virtio-serial-device");
        arguments.push(pair("-device", "virtconsole,chardev=console"));
        // Seeded by -seed where that is given: random numbers that are the same in every run.
        arguments.push(pair("-object", "rng-builtin,id=entropy"));
        plug(&mut arguments, "virtio-rng-device,rng=entropy");
        arguments
    }
}

fn pair(name: &str, value: impl Into<OsString>) -> [OsString; 2] {
    [name.into(), value.into()]
}

fn is_read_only(path: &std::path::Path) -> bool {
    std::fs::metadata(path).is_ok_and(|metadata| metadata.permissions().readonly())
}

/// A path as QEMU's option parser takes it.
fn with_commas_doubled(path: &std::path::Path) -> OsString {
    path.to_str().map_or_else(|| path.as_os_str().to_owned(), |text| text.replace(',', ",,").into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(virtio: &Virtio) -> String {
        let words = virtio.arguments().into_iter().flatten().map(|word| word.into_string().expect("text"));
        words.collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn disks_come_first_so_that_their_slots_are_their_numbers() {
        let virtio = Virtio { disks: vec!["a.img".into(), "b,c.img".into()], ..Virtio::default() };
        let line = line(&virtio);
        assert!(line.contains("virtio-blk-device,drive=disk0,bus=virtio-mmio-bus.0"), "{line}");
        assert!(line.contains("virtio-blk-device,drive=disk1,bus=virtio-mmio-bus.1"), "{line}");
        assert!(line.contains("file=b,,c.img"), "{line}");
        assert!(line.contains("-nic none"), "{line}");
    }

    #[test]
    fn a_network_card_is_on_the_user_network() {
        let virtio = Virtio { uplink: Some("52:54:00:00:00:01".to_owned()), ..Virtio::default() };
        let line = line(&virtio);
        assert!(line.contains("netdev=uplink,mac=52:54:00:00:00:01,bus=virtio-mmio-bus.0"), "{line}");
        assert!(!line.contains("-nic"), "{line}");
    }

    #[test]
    fn slots_are_never_of_the_legacy_kind() {
        assert!(line(&Virtio::default()).contains("virtio-mmio.force-legacy=false"));
    }
}
