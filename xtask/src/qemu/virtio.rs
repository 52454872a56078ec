//! What is plugged into the board's virtio slots: disks, network cards, console, entropy.

use crate::system::Mac;
use std::{ffi::OsString, path::PathBuf};

/// The devices in the slots, each with its slot's number.
#[derive(Clone, Debug, Default)]
pub(crate) struct Virtio {
    /// Raw images.
    pub(crate) disks: Vec<(u32, PathBuf)>,
    /// The addresses of network cards; each is on a user network of QEMU's.
    pub(crate) cards: Vec<(u32, Mac)>,
    /// Where the text goes that is written to the console.
    pub(crate) console: Option<(u32, PathBuf)>,
    /// The source of entropy.
    pub(crate) entropy: Option<u32>,
}

impl Virtio {
    /// QEMU's arguments, as pairs.
    pub(crate) fn arguments(&self) -> Vec<[OsString; 2]> {
        // QEMU's slots are of the legacy kind unless told otherwise.
        let mut arguments = vec![pair("-global", "virtio-mmio.force-legacy=false")];
        let plug = |slot: u32, device: &str| pair("-device", format!("{device},bus=virtio-mmio-bus.{slot}"));
        for (number, (slot, disk)) in self.disks.iter().enumerate() {
            let mut drive = OsString::from(format!(
                "if=none,id=disk{number},format=raw,cache=writeback,discard=unmap,read-only={},file=",
                if is_read_only(disk) { "on" } else { "off" }
            ));
            drive.push(with_commas_doubled(disk));
            arguments.push(["-drive".into(), drive]);
            arguments.push(plug(*slot, &format!("virtio-blk-device,drive=disk{number}")));
        }
        if self.cards.is_empty() {
            arguments.push(pair("-nic", "none"));
        }
        for (number, (slot, mac)) in self.cards.iter().enumerate() {
            arguments.push(pair("-netdev", format!("user,id=card{number}")));
            arguments.push(plug(*slot, &format!("virtio-net-device,netdev=card{number},mac={mac}")));
        }
        if let Some((slot, path)) = &self.console {
            let mut console = OsString::from("file,id=console,path=");
            console.push(with_commas_doubled(path));
            arguments.push(["-chardev".into(), console]);
            arguments.push(plug(*slot, "virtio-serial-device"));
            arguments.push(pair("-device", "virtconsole,chardev=console"));
        }
        if let Some(slot) = self.entropy {
            // Seeded by -seed where that is given: random numbers that are the same in every run.
            arguments.push(pair("-object", "rng-builtin,id=entropy"));
            arguments.push(plug(slot, "virtio-rng-device,rng=entropy"));
        }
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
    fn each_device_is_in_its_slot() {
        let virtio = Virtio { disks: vec![(0, "a.img".into()), (17, "b,c.img".into())], ..Virtio::default() };
        let line = line(&virtio);
        assert!(line.contains("virtio-blk-device,drive=disk0,bus=virtio-mmio-bus.0"), "{line}");
        assert!(line.contains("virtio-blk-device,drive=disk1,bus=virtio-mmio-bus.17"), "{line}");
        assert!(line.contains("file=b,,c.img"), "{line}");
        assert!(line.contains("-nic none"), "{line}");
    }

    #[test]
    fn a_network_card_is_on_the_user_network() {
        let virtio = Virtio { cards: vec![(3, Mac([0x52, 0x54, 0, 0, 0, 1]))], ..Virtio::default() };
        let line = line(&virtio);
        assert!(line.contains("netdev=card0,mac=52:54:00:00:00:01,bus=virtio-mmio-bus.3"), "{line}");
        assert!(!line.contains("-nic"), "{line}");
    }

    #[test]
    fn slots_are_never_of_the_legacy_kind() {
        assert!(line(&Virtio::default()).contains("virtio-mmio.force-legacy=false"));
    }
}
