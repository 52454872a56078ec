//! From the bundle to virtual machines: everything that allocates.

use crate::assigned::{Assigned, AssignedDevices};
use crate::boot::{refuse, step};
use crate::console;
use crate::entropy::Pool;
use crate::guest_cpu::{GuestCpu, Left};
use crate::machine::{self, Machine};
use crate::scheduler::VCPUS;
use crate::supervision;
use crate::vm::{Config, Image, Io, Slot, State, VirtioDevice, Vm};
use aarch64::psci::Power;
use abi::io::CALLS_KIND;
use alloc::boxed::Box;
use alloc::vec::Vec;
use arch::board::{Board, RANGES_MAX, Range, Ranges};
use arch::boot::CORES_MAX;
use arch::context::Vcpu;
use arch::device_window::DeviceWindow;
use arch::gic::{self, Gic};
use arch::list_registers::VirtualInterface;
use arch::memory::{GuestRam, MemoryBlock, PhysicalMemory};
use arch::mmu::{HypMap, Stage2, Windows};
use arch::shadow::{ReadablePage, ShadowPage};
use core::sync::atomic::AtomicU32;
use devices::virtio_mmio::{vacant_word, vacant_words};
use manifest::takes::{self, size};
use manifest::{BoardLimits, Bundle, GicWindows, MemoryRegion, Span, System};
use memory::PhysAddr;
use vdev::bus::{Bus, Recent};
use vdev::guest_map::{
    FLASH_BASE, FLASH_SIZE, GICD_BASE, GICD_SIZE, GICR_BASE, GICR_STRIDE, VIRTIO_SLOTS, VIRTIO_STRIDE, virtio_address,
};
use vdev::{GuestAddr, Ticks};
use vgic::{CpuInterface, IntId, VCPUS_MAX, Vgic};
use virtio_transport::in_flight::{KeptChain, Place};
use virtio_transport::room::OWN_SEGMENTS;
use virtio_transport::virtqueue::{SEGMENTS_MAX, Segment};
use vm_lifecycle::watch::Watch;

const TABLE_SIZE: u64 = arch::mmu::TABLE_SIZE;
/// Guest RAM starts at a multiple of this, so that stage 2 maps it in blocks.
const BLOCK_SIZE: u64 = 2 << 20;
/// The SPIs of a machine: as many as the vGIC has.
const SPIS: usize = 32 * vgic::SPI_WORDS;

// What the sum of a system's heap rests on.
const _: () = {
    assert!(size_of::<Machine>() as u64 <= size::MACHINE);
    assert!(size_of::<Vm>() as u64 <= size::VM);
    assert!(size_of::<Vgic>() as u64 <= size::VGIC);
    assert!(size_of::<Vcpu<GuestCpu>>() as u64 <= size::VCPU);
    assert!(size_of::<Slot>() as u64 <= size::SLOT);
    assert!(size_of::<VirtioDevice>() as u64 <= size::VIRTIO_DEVICE);
    assert!(size_of::<AssignedDevices>() as u64 <= size::ASSIGNED_DEVICES);
    assert!(size_of::<DeviceWindow>() as u64 <= size::PAIR);
    assert!(size_of::<(u64, ReadablePage)>() as u64 <= size::PAIR && VIRTIO_SLOTS as usize <= takes::VACANT_SLOTS_MAX);
    assert!(size_of::<Image>() as u64 <= size::IMAGE);
    assert!(size_of::<Power>() as u64 <= size::POWER);
    assert!(size_of::<KeptChain>() as u64 <= size::KEPT_CHAIN && size_of::<Place>() as u64 <= size::REQUEST);
    assert!(segment_bytes(OWN_SEGMENTS) <= takes::OWN_SEGMENTS);
    assert!(segment_bytes(SEGMENTS_MAX) <= takes::SHARED_SEGMENTS);
    assert!(manifest::CHAINS_MAX as usize <= virtio_transport::in_flight::CHAINS_MAX);
    assert!(CORES_MAX <= 16 && manifest::VMS_MAX <= terminal::console::GUESTS_MAX);
};

const _: () =
    assert!(VCPUS_MAX >= manifest::VCPUS_MAX, "the vGIC has room for every virtual CPU that a manifest may ask for");

/// What the heap has for so many segments of a chain, in bytes.
const fn segment_bytes(segments: usize) -> u64 {
    takes::block((segments * size_of::<Segment>()) as u64)
}

/// Builds the system that the bundle describes.
///
/// Refuses to boot with a sentence that says what is wrong with the bundle, or what does not fit the board.
#[inline(never)]
pub fn build(board: &Board, gic: Gic, map: &mut HypMap) -> &'static Machine {
    let mut memory = step(PhysicalMemory::take(board));
    let bytes = memory.bundle();
    if bytes.is_empty() {
        refuse!(
            "there is no bundle: give QEMU one with -initrd, or the boot loader's equivalent (cargo xtask image makes it)"
        );
    }
    let bundle = Bundle::new(bytes);
    // The manifest says how large the heap is, and to read it takes some already.
    give_heap(takes::reading(step(bundle.manifest_file()).len()), &mut memory);
    let system = step(bundle.manifest());
    check(&system, &bundle, board, &memory);

    let fixed = reserve(&system, &mut memory);
    give_heap(system.heap_bytes(), &mut memory);
    let constants = Constants::new(&mut memory);
    let per_core = vcpus_per_core(&system);
    let mut material =
        Material { system: &system, bundle: &bundle, board, map, memory: &mut memory, fixed, constants, per_core };
    let mut vms = Vec::with_capacity(system.vms.len());
    for (number, vm) in system.vms.iter().enumerate() {
        let channels = channels_of(&system, number);
        vms.push(build_vm(number, vm, channels, &mut material));
    }
    let vms: &'static [Vm] = Box::leak(vms.into_boxed_slice());
    for vm in vms {
        vm.io.assigned.configure(&gic);
    }
    let cores = usize::from(system.cores);
    let machine = machine::install(Machine::new(gic, board.uart_interrupt, cores, vms, Pool::new(board)));
    place_vcpus(machine, per_core);
    log::info!(
        "system {}: {} vms, {} of {} KiB of EL2 heap, {} MiB of RAM spare",
        system.name,
        vms.len(),
        arch::heap::used() / 1024,
        arch::heap::size() / 1024,
        memory.free() >> 20
    );
    if vms.len() > 1 {
        console::help();
    }
    machine
}

/// What virtual machines are made of.
struct Material<'a> {
    system: &'a System,
    bundle: &'a Bundle<'static>,
    board: &'a Board,
    map: &'a mut HypMap,
    memory: &'a mut PhysicalMemory,
    fixed: Fixed,
    constants: Constants,
    per_core: [usize; CORES_MAX],
}

/// Pages that every machine sees and none can change.
struct Constants {
    /// Virtio slots without a device.
    vacant_slots: ReadablePage,
    /// Erased flash.
    erased_flash: ReadablePage,
}

impl Constants {
    fn new(memory: &mut PhysicalMemory) -> Self {
        let mut page = |word: u64| {
            let block = memory.allocate(TABLE_SIZE, TABLE_SIZE);
            let Some(block) = block else { refuse!("no RAM is left for what all vms see") };
            ShadowPage::filled(block, word)
        };
        let mut vacant_slots = page(0);
        for offset in vacant_words() {
            vacant_slots.set(offset, vacant_word(offset));
        }
        Self { vacant_slots: vacant_slots.readable(), erased_flash: page(u64::MAX).readable() }
    }
}

/// RAM at fixed physical addresses, in the manifest's order.
type Fixed = alloc::vec::IntoIter<MemoryBlock>;

/// Gives the heap `bytes` more. From the lowest place, since the system may fix addresses of others.
fn give_heap(bytes: u64, memory: &mut PhysicalMemory) {
    // At a multiple of its largest block: then its blocks, which are powers of two, fill it without a gap.
    match memory.allocate_lowest(bytes, 1 << bytes.checked_ilog2().unwrap_or(0)) {
        Some(block) => arch::heap::add(block),
        None => refuse!(
            "the board has no {} KiB of RAM in one piece for Bulkhead's own heap; give the board more or the vms less",
            bytes >> 10
        ),
    }
}

/// Takes the RAM whose physical address the system fixes, before anything else is put there.
#[inline(never)]
fn reserve(system: &System, memory: &mut PhysicalMemory) -> Fixed {
    let count = system.vms.iter().map(|vm| vm.memory.len()).sum();
    let mut blocks = Vec::with_capacity(count);
    for vm in &system.vms {
        for region in &vm.memory {
            if let Some(start) = region.physical {
                let block = memory.allocate_at(PhysAddr(start), region.size);
                blocks.push(block.unwrap_or_else(|| no_room(&vm.name, region.guest, region.size)));
            }
        }
    }
    blocks.into_iter()
}

#[cold]
fn no_room(name: &str, guest: u64, size: u64) -> ! {
    refuse!(
        "the board has no {} MiB of RAM in one piece for vm {name} at {guest:#x}; give the board more or the vm less",
        size >> 20
    )
}

#[inline(never)]
fn check(system: &System, bundle: &Bundle<'_>, board: &Board, memory: &PhysicalMemory) {
    let ram: Vec<Span> = board.memory.iter().map(|range| Span::new(range.start, range.size)).collect();
    let total = ram.iter().fold(0_u64, |sum, span| sum.saturating_add(span.size));
    let kept = [board.uart, board.distributor, board.redistributors].map(|range| Span::new(range.start, range.size));
    let limits = BoardLimits {
        cores: board.cores.len() as u8,
        memory: &ram,
        reserved: total.saturating_sub(memory.free()),
        gic: GicWindows {
            distributor: Span::new(GICD_BASE, GICD_SIZE),
            redistributors: GICR_BASE,
            redistributor_size: GICR_STRIDE,
        },
        kept: &kept,
        kept_interrupts: &[board.uart_interrupt],
    };
    step(system.validate(&limits).and_then(|()| system.validate_files(bundle)));
}

#[inline(never)]
fn build_vm(number: usize, vm: &manifest::Vm, channels: Vec<(usize, usize)>, material: &mut Material<'_>) -> Vm {
    let Devices { bus, slots, virtio, pages } = build_devices(material.system, vm, material.memory);
    let is_free = |span: &Span| !taken(vm).any(|other| other.overlaps(*span));
    let vacant = vacant_slots(is_free);
    let flash = Some(Span::new(FLASH_BASE, FLASH_SIZE)).filter(is_free);
    let flash = flash.map(|Span { base, size }| (Range { start: base, size }, material.constants.erased_flash));
    let mut registers = Vec::with_capacity(vm.assigned.len());
    for device in &vm.assigned {
        let window = DeviceWindow::new(material.board, material.map, device.address, device.size);
        let window = window.and_then(|window| match device.silence.is_empty() || window.is_there(material.board) {
            true => Ok(window),
            false => Err("are no devices of this board"),
        });
        match window {
            Ok(window) => registers.push(window),
            Err(why) => refuse!("the registers of {} of vm {} {why}", device.name, vm.name),
        }
    }
    let windows =
        Windows { pages: &pages, vacant: (&vacant, material.constants.vacant_slots), flash, registers: &registers };
    let (ram, stage2) = build_memory(number, vm, &windows, material);
    let vgic = new_vgic(vm.vcpus.len());
    let assigned = vm.assigned.iter().zip(registers).map(|(device, window)| AssignedDevices::new(device, window));
    let assigned = Assigned::new(assigned.collect());
    for intid in assigned.interrupts() {
        vgic.link(IntId::new(intid), intid);
    }
    for timer in [gic::VIRTUAL_TIMER, gic::PHYSICAL_TIMER] {
        vgic.link(IntId::new(timer), timer);
    }
    let mut images = Vec::with_capacity(vm.loads.len());
    for load in &vm.loads {
        let bytes = step(material.bundle.find(&load.file));
        images.push(Image { address: load.address, bytes });
    }
    let (mut cores, mut sharing) = ([0; VCPUS_MAX], 0);
    for (index, (core, vcpu)) in cores.iter_mut().zip(&vm.vcpus).enumerate() {
        *core = vcpu.core;
        if material.per_core[usize::from(vcpu.core)] > 1 {
            sharing |= 1 << index;
        }
    }
    let config = Config {
        number,
        name: vm.name.clone(),
        channels,
        doorbell: vm.doorbell.map(IntId::new),
        console: console::add_guest(&vm.name),
        images,
        seeds: vm.seeds.iter().map(|seed| (seed.address, seed.size as usize)).collect(),
        entry: vm.entry,
        device_tree: vm.device_tree,
        cores,
        clock: material.board.time(),
        sharing,
    };
    let has_page = vm.devices.iter().any(|device| device.kind == CALLS_KIND);
    let results = config.channels.iter().filter(|_| has_page).map(|_| AtomicU32::new(0)).collect();
    let state = State::new(vm.vcpus.len(), Watch::new(supervision::limits(&vm.watch)));
    Vm::new(config, ram, stage2, vgic, Io { slots, virtio, assigned, results, bus }, state)
}

/// The pages of virtio slots that are free: those that adjoin are one range.
fn vacant_slots(is_free: impl Fn(&Span) -> bool) -> Ranges {
    const _: () = assert!(VIRTIO_SLOTS as usize <= 2 * RANGES_MAX, "every second slot begins a range at most");
    let mut vacant = Ranges::new();
    for start in (0..VIRTIO_SLOTS).filter_map(virtio_address) {
        if !is_free(&Span::new(start, VIRTIO_STRIDE)) {
            continue;
        }
        match vacant.last_mut() {
            Some(last) if last.start + last.size == start => last.size += VIRTIO_STRIDE,
            // There is room, as the assertion above says.
            _ => drop(vacant.try_push(Range { start, size: VIRTIO_STRIDE })),
        }
    }
    vacant
}

/// What a machine's own has in its address space: RAM, virtual devices, physical ones.
fn taken(vm: &manifest::Vm) -> impl Iterator<Item = Span> {
    let memory = vm.memory.iter().map(MemoryRegion::guest_span);
    memory.chain(vm.devices.iter().map(manifest::Device::span)).chain(vm.assigned.iter().map(manifest::Assigned::span))
}

/// Apart, so that its copy on the way to the heap is not in a large frame.
#[inline(never)]
fn new_vgic(vcpus: usize) -> &'static Vgic {
    Box::leak(Box::new(Vgic::new(vcpus, SPIS)))
}

/// Gives the machine its RAM, in blocks as large as fit, and maps it.
#[inline(never)]
fn build_memory(
    number: usize,
    vm: &manifest::Vm,
    windows: &Windows<'_>,
    material: &mut Material<'_>,
) -> (GuestRam, Stage2) {
    let name = &vm.name;
    let tables = material.memory.allocate(vm.table_bytes(), TABLE_SIZE);
    let Some(tables) = tables else { refuse!("no RAM is left for the tables of vm {name}") };
    let mut ram = GuestRam::new();
    for MemoryRegion { guest, size, physical } in &vm.memory {
        let block = match physical {
            Some(_) => material.fixed.next(),
            None => material.memory.allocate(*size, BLOCK_SIZE),
        };
        let block = block.unwrap_or_else(|| no_room(name, *guest, *size));
        if ram.add(*guest, block).is_err() {
            refuse!("vm {name} has more than {} regions of RAM", arch::memory::REGIONS_MAX);
        }
    }
    // VMID 0 is EL2's own convention for "no guest".
    match Stage2::build(tables, number as u8 + 1, &ram, windows) {
        Ok(stage2) => (ram, stage2),
        Err(error) => refuse!("what vm {name} has cannot be mapped: {error}"),
    }
}

/// The devices of a virtual machine, by kind.
struct Devices {
    bus: Bus<{ crate::vm::DEVICES_MAX }>,
    slots: Vec<Slot>,
    virtio: Vec<VirtioDevice>,
    /// The pages of the para-virtual ones, with their guest addresses.
    pages: Vec<(u64, ReadablePage)>,
}

#[inline(never)]
fn build_devices(system: &System, vm: &manifest::Vm, memory: &mut PhysicalMemory) -> Devices {
    // Para-virtual devices are large: no room for more of them than there are.
    let count = vm.devices.iter().filter(|device| device.service.is_some()).count();
    let (mut virtio, mut pages) = (Vec::with_capacity(count), Vec::with_capacity(count + VIRTIO_SLOTS as usize));
    let (mut bus, mut slots) = (Bus::new(), Vec::with_capacity(vm.devices.len() - count));
    for device in &vm.devices {
        let (name, kind) = (&vm.name, &device.kind);
        let number = if let Some(service) = &device.service {
            let Some(interrupt) = device.interrupt else { refuse!("the {kind} of vm {name} has no interrupt") };
            let page = memory.allocate(TABLE_SIZE, TABLE_SIZE);
            let Some(page) = page else { refuse!("no RAM is left for the devices of vm {name}") };
            let page = ShadowPage::new(page);
            pages.push((device.address, page.readable()));
            let provider = system.vms.get(usize::from(service.provider));
            // A grant that nobody could end would be for ever.
            let devices = provider.map_or(&[][..], |vm| &vm.assigned).iter().filter(|device| device.dma);
            let may_grant = devices.clone().count() != 0 && devices.clone().all(|device| !device.silence.is_empty());
            virtio.push(VirtioDevice::new(page, IntId::new(interrupt), service, may_grant));
            usize::from(crate::vm::FIRST_VIRTIO_NUMBER) + virtio.len() - 1
        } else if kind == CALLS_KIND {
            usize::from(crate::vm::CALLS_NUMBER)
        } else {
            let Some(model) = devices::find(kind) else {
                refuse!("vm {name} has a device of kind {kind}, which this Bulkhead does not know; build both anew")
            };
            let configuration = device.configuration.clone().into_boxed_slice();
            slots.push(Slot::new((model.make)(), device.interrupt.map(IntId::new), configuration));
            slots.len() - 1
        };
        if let Err(error) = bus.insert(GuestAddr(device.address), device.size, number as u16) {
            refuse!("vm {name}, device {kind} at {:#x}: {error}", device.address);
        }
    }
    Devices { bus, slots, virtio, pages }
}

/// What the virtual machine `number` serves, by channel: the client's place, and the index of its device.
fn channels_of(system: &System, number: usize) -> Vec<(usize, usize)> {
    let most = if system.vms.get(number).is_some_and(|vm| vm.doorbell.is_some()) { manifest::CHANNELS_MAX } else { 0 };
    let mut channels = Vec::with_capacity(most);
    for (client, vm) in system.vms.iter().enumerate() {
        let services = vm.devices.iter().filter_map(|device| device.service.as_ref());
        for (index, service) in services.enumerate().filter(|(_, service)| usize::from(service.provider) == number) {
            let place = channels.partition_point(|(channel, _)| *channel < service.channel);
            channels.insert(place, (service.channel, (client, index)));
        }
    }
    // The manifest was checked: the numbers count from 0, each once.
    channels.into_iter().map(|(_, device)| device).collect()
}

/// How many virtual CPUs each core has.
fn vcpus_per_core(system: &System) -> [usize; CORES_MAX] {
    let mut per_core = [0; CORES_MAX];
    for vcpu in system.vms.iter().flat_map(|vm| &vm.vcpus) {
        per_core[usize::from(vcpu.core)] += 1;
    }
    per_core
}

/// Makes the virtual CPUs and puts each where its core will look for it.
#[inline(never)]
fn place_vcpus(machine: &'static Machine, per_core: [usize; CORES_MAX]) {
    for (vcpus, count) in VCPUS.iter().zip(per_core) {
        vcpus.lock().reserve_exact(count);
    }
    for vm in machine.vms {
        for index in 0..vm.vcpu_count() {
            let Some(core) = vm.core_of(index) else { continue };
            let guest = GuestCpu {
                machine,
                vm,
                index,
                core,
                shares_core: per_core[core] > 1,
                interface: CpuInterface::new(),
                virtual_interface: VirtualInterface::reset(),
                exits: 0,
                left: Left::Reschedule,
                may_run: false,
                waiting: false,
                ticks: 0,
                lag_ticks: 0,
                polled: Ticks(0),
                looked_ticks: 0,
                announced: 0,
                is_leaving: false,
                unfinished: 0,
                recent: Recent::none(),
                next_access: index as u64,
                is_pending: false,
                awaits: None,
            };
            VCPUS[core].lock().push(Vcpu::new(guest));
        }
    }
}
