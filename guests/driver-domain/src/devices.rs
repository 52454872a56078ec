//! The real devices: finds them, brings them up, and knows whose an interrupt is.

use crate::block::{BlockDevice, BlockService, PlainDisk, Tag, VirtioDisk};
use crate::console::ConsoleService;
use crate::entropy::EntropyService;
use crate::network::NetworkService;
use crate::vsock::SocketService;
use abi::io::SEGMENTS_MAX;
use alloc::boxed::Box;
use arrayvec::ArrayVec;
use rt::virtio::{self, Block, Console, Entropy, Error, Kind, Network, PlainBlock, SLOTS_MAX, Slot};
use rt::{gic, println};

/// Whose an interrupt is.
#[derive(Clone, Copy, Debug)]
enum Owner {
    Disk(usize),
    Uplink(usize),
    Console,
    Entropy,
}

/// The services, with the real devices behind them.
pub struct Devices {
    /// Disks.
    pub block: BlockService,
    /// The switch and its uplinks.
    pub network: NetworkService,
    /// The console.
    pub console: ConsoleService,
    /// The source of random numbers.
    pub entropy: EntropyService,
    /// Streams between clients, which need no real device.
    pub sockets: SocketService,
    owners: ArrayVec<(u32, Owner), SLOTS_MAX>,
}

impl Devices {
    /// Brings up every device in a slot, and says what there is. One that fails is told of and left alone.
    #[inline(never)]
    pub fn bring_up() -> Self {
        let mut devices = Self {
            block: BlockService::default(),
            network: NetworkService::new(),
            console: ConsoleService::default(),
            entropy: EntropyService::new(),
            sockets: SocketService::new(),
            owners: ArrayVec::new(),
        };
        for slot in virtio::take_slots() {
            let Some(kind) = slot.kind() else { continue };
            let (address, interrupt) = (slot.registers().start, slot.interrupt());
            slot.enable_interrupt();
            match devices.add(kind, slot) {
                Ok(Some(owner)) => devices.owners.push((interrupt, owner)),
                Ok(None) => {
                    gic::disable(interrupt);
                    println!("driver-domain: {address:#x}: {kind:?}: not used");
                }
                Err(error) => {
                    gic::disable(interrupt);
                    println!("driver-domain: {address:#x}: {kind:?}: does not come up: {error}");
                }
            }
        }
        devices
    }

    fn add(&mut self, kind: Kind, slot: Slot) -> Result<Option<Owner>, Error> {
        let address = slot.registers().start;
        Ok(match kind {
            Kind::Block => {
                let takes_grants = Block::<Tag>::takes_granted(&slot, u32::from(SEGMENTS_MAX))?;
                let disk: Box<dyn BlockDevice> = if takes_grants {
                    Box::new(VirtioDisk(Block::new(slot)?))
                } else {
                    Box::new(PlainDisk(PlainBlock::new(slot)?))
                };
                let mebibytes = disk.sectors() >> 11;
                let note = if disk.features().is_read_only { ", read-only" } else { "" };
                let way = if takes_grants { "" } else { ", without grants" };
                let number = self.block.add(disk);
                if let Some(number) = number {
                    println!("driver-domain: {address:#x}: disk {number}, {mebibytes} MiB{note}{way}");
                }
                number.map(Owner::Disk)
            }
            Kind::Network => {
                let card = Network::new(slot)?;
                let [a, b, c, d, e, f] = card.mac_address();
                let number = self.network.add_uplink(card);
                if let Some(number) = number {
                    println!(
                        "driver-domain: {address:#x}: uplink {number}, {a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{f:02x}"
                    );
                }
                number.map(Owner::Uplink)
            }
            Kind::Console if !self.console.is_present() => {
                self.console.set(Console::new(slot)?);
                println!("driver-domain: {address:#x}: console");
                Some(Owner::Console)
            }
            Kind::Entropy if !self.entropy.is_present() => {
                self.entropy.set(Entropy::new(slot)?);
                println!("driver-domain: {address:#x}: entropy");
                Some(Owner::Entropy)
            }
            Kind::Console | Kind::Entropy | Kind::Other(_) => None,
        })
    }

    /// Acknowledges interrupt `id` at its device, if it is a device's.
    #[inline]
    pub fn acknowledge_interrupt(&mut self, id: u32) {
        let Some(&(_, owner)) = self.owners.iter().find(|(interrupt, _)| *interrupt == id) else { return };
        match owner {
            Owner::Disk(number) => self.block.acknowledge_interrupt(number),
            Owner::Uplink(number) => self.network.acknowledge_interrupt(number),
            Owner::Console => self.console.acknowledge_interrupt(),
            Owner::Entropy => self.entropy.acknowledge_interrupt(),
        }
    }
}
