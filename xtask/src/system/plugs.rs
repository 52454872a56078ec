//! What is plugged into the board's real virtio slots, and so who drives it: whoever owns the slot.
//!
//! A disk or a card with an `owner` goes into the slots of that virtual machine. Everything else goes into those of the
//! driver domain, the first one that owns some: the other disks, the card of the uplink, a console, a source of
//! entropy.

use super::{
    Problem, Source,
    backend::Mac,
    problem::{Line, choice},
    source::{Card, VmSource},
    storage::Disk,
};

/// The physical device through which disks, network, console and entropy come.
pub(crate) const VIRTIO_MMIO: &str = "virtio-mmio";

/// What is in a slot. Numbers are places in the system's lists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Plug {
    /// A disk.
    Disk(usize),
    /// The card of the driver domain's switch.
    Uplink,
    /// A card with an owner.
    Card(usize),
    /// A console.
    Console,
    /// A source of entropy.
    Entropy,
}

impl Source {
    /// The driver domain that drives what nobody else owns.
    pub(crate) fn driver(&self) -> Option<&VmSource> {
        self.vms.iter().find(|vm| vm.doorbell.is_some() && vm.owns(VIRTIO_MMIO))
    }

    /// The machine in whose slots `disk` is.
    pub(crate) fn driver_of(&self, disk: &Disk) -> Option<&VmSource> {
        match &disk.owner {
            Some(owner) => self.vms.iter().find(|vm| vm.name == *owner),
            None => self.driver(),
        }
    }

    /// The disks that `vm` drives, with their numbers, in the order of their slots.
    pub(crate) fn disks_of<'a>(&'a self, vm: &'a VmSource) -> impl Iterator<Item = (usize, &'a Disk)> {
        let is_its_own = |disk: &Disk| self.driver_of(disk).is_some_and(|driver| driver.name == vm.name);
        self.disks.iter().enumerate().filter(move |(_, disk)| is_its_own(disk))
    }

    /// The addresses of the cards that `vm` drives, those of a driver domain's uplink apart.
    pub(crate) fn cards_of<'a>(&'a self, vm: &'a VmSource) -> impl Iterator<Item = [u8; 6]> {
        let is_its_own = |card: &Card| card.owner == vm.name;
        (0..).zip(&self.cards).filter(move |(_, card)| is_its_own(card)).map(|(number, _)| self.card_mac(number).0)
    }

    /// The address of the card with this number.
    pub(crate) fn card_mac(&self, number: usize) -> Mac {
        let stated = self.cards.get(number).and_then(|card| card.mac);
        stated.map_or_else(|| Mac::generate(&self.name, &format!("card/{number}"), &[]), Mac)
    }

    /// What is in which slot of the board.
    pub(crate) fn plugs(&self) -> Vec<(u32, Plug)> {
        let all = self.vms.iter().flat_map(|vm| slots_of(self, vm).into_iter().zip(plugs_of(self, vm)));
        all.collect()
    }
}

/// The numbers of the slots that `vm` owns.
fn slots_of(source: &Source, vm: &VmSource) -> Vec<u32> {
    let first =
        source.board.devices.iter().find(|device| device.name == VIRTIO_MMIO).map_or(0, |slots| slots.interrupt);
    let owned = vm.assigned.iter().filter(|device| device.name == VIRTIO_MMIO);
    owned.flat_map(|device| &device.interrupts).map(|intid| intid.saturating_sub(first)).collect()
}

/// What goes into the slots of `vm`.
fn plugs_of(source: &Source, vm: &VmSource) -> Vec<Plug> {
    let is_driver = source.driver().is_some_and(|driver| driver.name == vm.name);
    let mut plugs: Vec<_> = source.disks_of(vm).map(|(number, _)| Plug::Disk(number)).collect();
    plugs.extend((is_driver && source.uplink).then_some(Plug::Uplink));
    let cards = source.cards.iter().enumerate().filter(|(_, card)| card.owner == vm.name);
    plugs.extend(cards.map(|(number, _)| Plug::Card(number)));
    if is_driver {
        plugs.extend([Plug::Console, Plug::Entropy]);
    }
    plugs
}

/// Refuses disks and cards that nobody drives, and owners with fewer slots than there is to plug in.
pub(super) fn check_plugs(source: &Source) -> Vec<Problem> {
    let disks = source.disks.iter().map(|disk| (format!("the disk {:?}", disk.name), disk.owner.as_deref(), disk.line));
    let cards = source.cards.iter().map(|card| ("the card".to_string(), Some(card.owner.as_str()), card.line));
    let uplink = source.uplink.then(|| ("the network".to_string(), None, source.lines.network));
    let all = disks.chain(cards).chain(uplink);
    let mut problems: Vec<_> =
        all.filter_map(|(what, owner, line)| check_owner(source, &what, owner, line).err()).collect();
    for vm in &source.vms {
        let (slots, plugs) = (slots_of(source, vm).len(), plugs_of(source, vm).len());
        // An owner without any is refused above.
        if slots > 0 && plugs > slots {
            let sentence = format!(
                "vm {:?} owns {slots} slots of {VIRTIO_MMIO:?}, but {plugs} devices are to be in them; let it own more",
                vm.name
            );
            problems.push(source.problem(vm.lines.owns.or(vm.lines.vm), sentence));
        }
    }
    problems
}

fn check_owner(source: &Source, what: &str, owner: Option<&str>, line: Line) -> Result<(), Problem> {
    let refused = |end: String| Err(source.problem(line, format!("{what} {end}")));
    let Some(owner) = owner else {
        if source.driver().is_some() {
            return Ok(());
        }
        return refused(format!("has no driver; add a vm with driver_domain = true that owns {VIRTIO_MMIO:?}"));
    };
    match source.vms.iter().find(|vm| vm.name == owner) {
        None => {
            let choice = choice(owner, source.vms.iter().map(VmSource::name));
            refused(format!("has the owner {owner:?}, which is no vm; {choice}"))
        }
        Some(vm) if !vm.owns(VIRTIO_MMIO) => refused(format!(
            "has the owner {owner:?}, which owns no slot to plug it into; let it own some, as in owns = \
             [\"{VIRTIO_MMIO}:24-31\"]"
        )),
        Some(_) => Ok(()),
    }
}
