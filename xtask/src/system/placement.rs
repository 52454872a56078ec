//! Where a driver domain and what it serves go: memory that is the same for guest and board, and the channels at its
//! end.
//!
//! ```text
//! end of the board's RAM
//!    channel 0, channel 1, …     downwards, in the order of the clients
//!    RAM disks                   downwards
//!    …                           the driver domain's own: kernel, device tree, heap
//! start of its memory
//! ```

use abi::io::Layout;
use manifest::{MemoryRegion, PAGE_SIZE, Service};

use super::{
    Problem, Source,
    backend::{Backend, Client},
    cards,
    overlaps::check_overlaps,
    plugs::{VIRTIO_MMIO, check_plugs},
    size::show_size_rounded,
    sockets,
    source::VmSource,
    virtio::Needs,
};

/// The doorbell's INTID: an SPI beyond those of the boards' devices.
pub(crate) const DOORBELL_INTID: u32 = 112;

/// The region of a driver domain's `size` bytes of RAM, below `end`, an address of the board.
pub(crate) const fn region_below(end: u64, size: u64) -> MemoryRegion {
    let base = end.saturating_sub(size);
    MemoryRegion { guest: base, size, physical: Some(base) }
}

/// Finds the driver domain of each client, gives network cards their addresses, and places channels and RAM disks.
///
/// Reports a client that nobody can serve, a slice with two owners, a driver domain without room; then not everything
/// is placed.
pub(crate) fn complete(source: &mut Source, mut report: impl FnMut(Problem)) {
    let mut problems = check_plugs(source);
    let driver = source.driver().map(|driver| driver.name.clone());
    for disk in source.disks.iter_mut().filter(|disk| disk.owner.is_none()) {
        disk.owner.clone_from(&driver);
    }
    problems.extend(check_overlaps(source));
    problems.extend(source.check_addresses());
    problems.extend(cards::check_macs(source));
    problems.extend(sockets::check(source));
    cards::give_macs(source);
    let mut plan = Plan { rooms: source.vms.iter().map(|vm| Room { end: vm.memory_end(), channels: 0 }).collect() };
    let mut services = Vec::new();
    for (index, vm) in source.vms.iter().enumerate() {
        for (device, client) in vm.clients.iter().enumerate() {
            let service = client.as_ref().map(|client| plan.service(source, (index, device), client));
            services.push(service.transpose().unwrap_or_else(|problem| {
                problems.push(problem);
                None
            }));
        }
    }
    if !problems.is_empty() {
        problems.into_iter().for_each(report);
        return;
    }
    let clients = source.vms.iter_mut().flat_map(|vm| vm.devices.iter_mut().zip(&mut vm.clients));
    for ((device, client), service) in clients.zip(services) {
        if let (Some(service), Some(Client { backend: Backend::RamDisk { span, .. }, .. })) = (&service, client) {
            span.base = plan.take(service.provider, span.size);
        }
        device.service = service;
    }
    for (vm, room) in source.vms.iter_mut().zip(&plan.rooms) {
        vm.load_end = room.end;
    }
    source.vms.iter().filter_map(|vm| check_room(source, vm).err()).for_each(&mut report);
}

/// What is given away so far.
struct Plan {
    /// For each virtual machine.
    rooms: Vec<Room>,
}

/// What a driver domain has left.
struct Room {
    /// The end of the memory that nothing is placed in.
    end: u64,
    channels: u16,
}

impl Plan {
    fn service(&mut self, source: &Source, place: (usize, usize), client: &Client) -> Result<Service, Problem> {
        let provider = provider_of(source, place, client)?;
        let Needs { device_id, filled, requests, chains, window_size, .. } = client.backend.kind().needs();
        let size = (Layout::new(filled).request_window() + window_size).next_multiple_of(PAGE_SIZE);
        let channel = self.rooms.get_mut(usize::from(provider)).map_or(0, |room| {
            room.channels = room.channels.saturating_add(1);
            room.channels.saturating_sub(1)
        });
        let address = self.take(provider, size);
        let queues = client.queues;
        Ok(Service { provider, channel, address, size, device_id, queues, filled, requests, chains })
    }

    /// Takes `size` bytes off the end of what `provider` has left.
    fn take(&mut self, provider: u8, size: u64) -> u64 {
        let Some(room) = self.rooms.get_mut(usize::from(provider)) else { return 0 };
        room.end = room.end.saturating_sub(size.checked_next_multiple_of(PAGE_SIZE).unwrap_or(size));
        room.end
    }
}

/// The driver domain of a client: the one it names, or the only one there is.
fn provider_of(source: &Source, (vm, device): (usize, usize), client: &Client) -> Result<u8, Problem> {
    let Some(owner) = source.vms.get(vm) else { return Ok(u8::MAX) };
    let kind = owner.devices.get(device).map_or("", |device| &device.kind);
    let refused = |reason: String| {
        let sentence = format!("device {kind:?} of vm {:?} {reason}", owner.name);
        Err(source.problem(owner.lines.device(device), sentence))
    };
    let is_other = |(index, _): &(usize, &VmSource)| *index != vm;
    let mut domains = source.vms.iter().enumerate().filter(|(_, vm)| vm.doorbell.is_some()).filter(is_other);
    let found = match &client.driver {
        Some(name) => match domains.find(|(_, domain)| domain.name == *name) {
            Some(found) => found,
            None => {
                return refused(format!(
                    "is to be served by vm {name:?}, which is no other vm with driver_domain = true; name one that is"
                ));
            }
        },
        None => match (domains.next(), domains.next()) {
            (Some(only), None) => only,
            (None, _) => {
                return refused(
                    "needs a driver domain, and the system has no other vm with driver_domain = true; add one"
                        .to_string(),
                );
            }
            (Some((_, first)), Some((_, second))) => {
                return refused(format!(
                    "could be served by vm {:?} and by vm {:?}; say which with the key \"driver\"",
                    first.name, second.name
                ));
            }
        },
    };
    let (index, domain) = found;
    let hardware = match &client.backend {
        Backend::Disk { disk, .. } => source.disks.get(*disk).map(|disk| source.driver_of(disk)),
        Backend::Console | Backend::Entropy => Some(source.driver()),
        Backend::RamDisk { .. } | Backend::Network { .. } | Backend::Socket { .. } => None,
    };
    match hardware {
        Some(Some(owner)) if owner.name != domain.name => refused(format!(
            "is served by vm {:?}, but the real device for that is driven by vm {:?}; let the one who drives it serve it",
            domain.name, owner.name
        )),
        Some(None) => refused(format!(
            "is served by vm {:?}, which has no real device for that; let that vm own {VIRTIO_MMIO:?}",
            domain.name
        )),
        // More machines than a byte counts are refused by the rules.
        Some(Some(_)) | None => Ok(u8::try_from(index).unwrap_or(u8::MAX)),
    }
}

fn check_room(source: &Source, vm: &VmSource) -> Result<(), Problem> {
    let taken = vm.memory_end().saturating_sub(vm.load_end);
    let most = vm.memory.last().map_or(0, |region| region.size);
    if taken <= most {
        return Ok(());
    }
    let sentence = format!(
        "the channels and RAM disks of vm {:?} need {} of its memory, but it has {}; give it more",
        vm.name,
        show_size_rounded(taken),
        show_size_rounded(most)
    );
    Err(source.problem(vm.lines.memory, sentence))
}
