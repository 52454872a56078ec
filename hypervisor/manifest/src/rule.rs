//! The rules, each with the sentence a user sees when it is broken.

use core::fmt::{self, Write};

use crate::takes::Share;
use crate::{
    ASSIGNED_INSTANCES_MAX, Address, CHANNELS_MAX, GUEST_ADDRESS_BITS, INTERRUPT_MAX, INTERRUPT_MIN, MEMORY_ALIGN,
    NAME_LENGTH_MAX, PAGE_SIZE, QUEUES_MAX, Span, VCPUS_MAX, VMS_MAX, WATCH_MS_MAX, WATCH_MS_MIN,
};

/// A rule that a system breaks, with what breaks it. `vm` is always the virtual machine's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the fields are the words of the sentence that `Display` writes")]
pub enum Rule<'a> {
    /// A system's name is short and printable: it is printed at boot.
    SystemName,
    /// There is something to run.
    NoVm,
    /// At most [`VMS_MAX`] virtual machines.
    TooManyVms { count: usize },
    /// A system uses at least one core.
    NoCores,
    /// A system uses no more cores than the board has.
    CoresBeyondBoard { cores: u8, board: u8 },
    /// A name is 1 to [`NAME_LENGTH_MAX`] characters out of `a-z0-9-`.
    BadName { vm: Name<'a> },
    /// No vm's name reads like Bulkhead's own, which stands before its lines on the console.
    ReservedName { vm: Name<'a> },
    /// Names are unique.
    NameTaken { vm: Name<'a> },
    /// A virtual machine has at least one virtual CPU.
    NoVcpu { vm: Name<'a> },
    /// A virtual machine has at most [`VCPUS_MAX`] virtual CPUs.
    TooManyVcpus { vm: Name<'a>, count: usize },
    /// A virtual CPU is pinned to a core that the system uses.
    NoSuchCore { vm: Name<'a>, core: u8, cores: u8 },
    /// A virtual machine has RAM.
    NoMemory { vm: Name<'a> },
    /// A list of one virtual machine has a bound.
    TooMany { vm: Name<'a>, what: &'static str, count: usize, most: usize },
    /// The size of a region of RAM is a multiple of [`MEMORY_ALIGN`], and not zero.
    MemorySize { vm: Name<'a>, size: u64 },
    /// The addresses of a region of RAM are multiples of [`MEMORY_ALIGN`].
    MemoryUnaligned { vm: Name<'a>, what: &'static str, address: u64 },
    /// A region of RAM lies within [`GUEST_ADDRESS_BITS`].
    MemoryBeyondGuest { vm: Name<'a>, base: u64, size: u64 },
    /// Regions of RAM come in ascending order of guest address.
    MemoryOrder { vm: Name<'a>, region: Span },
    /// Regions of RAM of one virtual machine do not overlap.
    MemoryOverlap { vm: Name<'a>, region: Span, other: Span },
    /// RAM does not cover the interrupt controller.
    MemoryOverGic { vm: Name<'a>, region: Span, gic: Span },
    /// RAM fixed at a physical address is RAM of the board.
    PhysicalOutsideBoard { vm: Name<'a>, region: Span },
    /// RAM fixed at a physical address belongs to one virtual machine.
    PhysicalOverlap { vm: Name<'a>, region: Span, other_vm: Name<'a>, other: Span },
    /// All RAM together, Bulkhead's included, fits the board.
    MemoryBeyondBoard { needed: u64, reserved: u64, own: u64, largest: Option<Share<'a>>, board: u64 },
    /// The size of a device's window is a multiple of [`PAGE_SIZE`], and not zero.
    DeviceSize { vm: Name<'a>, device: Name<'a>, size: u64 },
    /// The address of a device's window is a multiple of [`PAGE_SIZE`].
    DeviceUnaligned { vm: Name<'a>, device: Name<'a>, address: u64 },
    /// A device's window lies within [`GUEST_ADDRESS_BITS`].
    DeviceBeyondGuest { vm: Name<'a>, device: Name<'a>, base: u64, size: u64 },
    /// A device's window does not cover RAM.
    DeviceOverMemory { vm: Name<'a>, device: Name<'a>, window: Span, region: Span },
    /// A device's window does not cover the interrupt controller.
    DeviceOverGic { vm: Name<'a>, device: Name<'a>, window: Span, gic: Span },
    /// A device's window is its own.
    WindowTaken { vm: Name<'a>, device: Name<'a>, other: Name<'a>, window: Span },
    /// A device's interrupt is an SPI that the virtual distributor has.
    InterruptOutOfRange { vm: Name<'a>, device: Name<'a>, interrupt: u32 },
    /// A device's interrupt is its own.
    InterruptTaken { vm: Name<'a>, device: Name<'a>, other: Name<'a>, interrupt: u32 },
    /// What a virtual machine starts with lies in its RAM.
    OutsideMemory { vm: Name<'a>, what: &'static str, file: Option<Name<'a>>, address: u64, size: u64 },
    /// The entry point and the device tree lie at multiples of this many bytes.
    StartUnaligned { vm: Name<'a>, what: &'static str, address: u64, align: u64 },
    /// Files are not loaded over one another.
    LoadsOverlap { vm: Name<'a>, file: Name<'a>, other: Name<'a> },
    /// A physical device's window is made of pages, and a guest can address it.
    AssignedWindow { vm: Name<'a>, device: Name<'a>, window: Span },
    /// A physical device is a few equal instances, and what silences one are stores to its own registers.
    AssignedInstances { vm: Name<'a>, device: Name<'a>, size: u64 },
    /// A physical device covers nothing else: neither RAM nor what Bulkhead keeps, nor another device of its owner's.
    AssignedOver { vm: Name<'a>, device: Name<'a>, window: Span, what: &'static str, other: Span },
    /// A physical device has one owner.
    AssignedTaken { vm: Name<'a>, device: Name<'a>, window: Span, other_vm: Name<'a> },
    /// A physical interrupt has one owner.
    AssignedInterruptTaken { vm: Name<'a>, device: Name<'a>, interrupt: u32, owner: Owner<'a> },
    /// A driver domain's RAM is where its devices see it: guest address and physical address are the same.
    NotOneToOne { vm: Name<'a>, region: Span },
    /// The page of calls is a driver domain's.
    CallsOfNobody { vm: Name<'a>, device: Name<'a> },
    /// Another machine, which is a driver domain, stands behind a para-virtual device.
    NoProvider { vm: Name<'a>, device: Name<'a> },
    /// A channel is made of pages and lies in its driver domain's RAM, apart from other channels.
    BadChannel { vm: Name<'a>, device: Name<'a>, channel: Span, why: &'static str },
    /// A driver domain's channels have different numbers, from 0 without a gap, and are no more than [`CHANNELS_MAX`].
    ChannelNumber { vm: Name<'a>, device: Name<'a>, channel: u16 },
    /// A file of a driver domain is not loaded over a channel.
    LoadOverChannel { vm: Name<'a>, file: Name<'a>, channel: Span },
    /// A virtio device has one to [`QUEUES_MAX`] queues.
    Queues { vm: Name<'a>, device: Name<'a>, queues: u16 },
    /// What is allocated for a virtio device fits it: filled queues are queues that it has, and it has room for a
    /// request and a chain, for no more requests than [`REQUESTS_MAX`](crate::REQUESTS_MAX) and no more chains than
    /// [`CHAINS_MAX`](crate::CHAINS_MAX).
    Allocation { vm: Name<'a>, device: Name<'a> },
    /// The times of a watch are neither too short for anybody nor for ever.
    WatchTime { vm: Name<'a>, what: &'static str, milliseconds: u32 },
}

impl fmt::Display for Rule<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::SystemName => out.write_str("a system's name has 1 to 64 printable characters; give it a plain one"),
            Self::NoVm => out.write_str("the system has no vm; add a [[vm]] section"),
            Self::TooManyVms { count } => {
                write!(out, "the system has {count} vms, but at most {VMS_MAX} are possible; remove some")
            }
            Self::NoCores => out.write_str("the system uses no core; give it one at least"),
            Self::CoresBeyondBoard { cores, board } => {
                write!(out, "the system uses {cores} cores, but the board has {board}; use no more than it has")
            }
            Self::BadName { vm } => write!(
                out,
                "{vm:?} cannot be the name of a vm; use 1 to {NAME_LENGTH_MAX} characters out of a-z, 0-9 and -"
            ),
            Self::ReservedName { vm } => write!(
                out,
                "{vm:?} cannot be the name of a vm: on the console it would pass for Bulkhead itself; choose another"
            ),
            Self::NameTaken { vm } => write!(out, "two vms have the name {vm:?}; rename one of them"),
            Self::NoVcpu { vm } => write!(out, "vm {vm:?} has no virtual cpu; name a core in its list of cores"),
            Self::TooManyVcpus { vm, count } => {
                write!(
                    out,
                    "vm {vm:?} has {count} virtual cpus, but at most {VCPUS_MAX} are possible; name fewer cores"
                )
            }
            Self::NoSuchCore { vm, core, cores } => write!(
                out,
                "vm {vm:?} is to run on core {core}, but the system has cores 0 to {}; choose one of those",
                cores.saturating_sub(1)
            ),
            Self::NoMemory { vm } => write!(out, "vm {vm:?} has no memory; give it some"),
            Self::TooMany { vm, what, count, most } => {
                write!(out, "vm {vm:?} has {count} {what}, but at most {most} are possible; remove some")
            }
            Self::MemorySize { vm, size } => write!(
                out,
                "vm {vm:?} is to have {} of memory, but memory comes in multiples of {} MiB; round it up",
                Bytes(*size),
                MEMORY_ALIGN >> 20
            ),
            Self::MemoryUnaligned { vm, what, address } => write!(
                out,
                "the {what} of memory of vm {vm:?} is {}, but it must be a multiple of {} MiB; move it",
                Address(*address),
                MEMORY_ALIGN >> 20
            ),
            Self::MemoryBeyondGuest { vm, base, size } => write!(
                out,
                "memory of vm {vm:?} ({size:#x} bytes at {}) ends beyond a guest's {GUEST_ADDRESS_BITS} address bits; \
                 move or shrink it",
                Address(*base)
            ),
            Self::MemoryOrder { vm, region } => {
                write!(out, "memory {region} of vm {vm:?} comes after a higher address; order the regions by address")
            }
            Self::MemoryOverlap { vm, region, other } => {
                write!(out, "memory {region} of vm {vm:?} overlaps its memory {other}; move one of them")
            }
            Self::MemoryOverGic { vm, region, gic } => {
                write!(out, "memory {region} of vm {vm:?} overlaps its interrupt controller at {gic}; move the memory")
            }
            Self::PhysicalOutsideBoard { vm, region } => {
                write!(out, "vm {vm:?} is to have physical memory {region}, but the board has no RAM there; move it")
            }
            Self::PhysicalOverlap { vm, region, other_vm, other } => write!(
                out,
                "vm {vm:?} and vm {other_vm:?} both own physical memory: {region} overlaps {other}; move one of them"
            ),
            Self::MemoryBeyondBoard { needed, reserved, own, largest, board } => {
                write!(
                    out,
                    "the vms need {} of memory, Bulkhead {}, and what it keeps for them {}",
                    Bytes(*needed),
                    Bytes(*reserved),
                    whole_kib(*own)
                )?;
                if let Some(Share { vm, kind, count, bytes }) = largest {
                    let bytes = whole_kib(*bytes);
                    match kind {
                        Some(kind) => write!(out, " (of which {count} {kind} of vm {:?} take {bytes})", Name(vm))?,
                        None => write!(out, " (of which vm {:?} takes {bytes})", Name(vm))?,
                    }
                }
                write!(out, ", but the board has {}; give the vms less, or the board more", Bytes(*board))
            }
            Self::DeviceSize { vm, device, size } => write!(
                out,
                "device {device:?} of vm {vm:?} has a window of {}, but windows come in multiples of {} KiB; round it up",
                Bytes(*size),
                PAGE_SIZE >> 10
            ),
            Self::DeviceUnaligned { vm, device, address } => write!(
                out,
                "device {device:?} of vm {vm:?} is at {}, but it must be at a multiple of {} KiB; move it",
                Address(*address),
                PAGE_SIZE >> 10
            ),
            Self::DeviceBeyondGuest { vm, device, base, size } => write!(
                out,
                "device {device:?} of vm {vm:?} ({size:#x} bytes at {}) ends beyond a guest's {GUEST_ADDRESS_BITS} \
                 address bits; move it",
                Address(*base)
            ),
            Self::DeviceOverMemory { vm, device, window, region } => write!(
                out,
                "device {device:?} of vm {vm:?} at {window} overlaps the vm's memory {region}; move one of them"
            ),
            Self::DeviceOverGic { vm, device, window, gic } => write!(
                out,
                "device {device:?} of vm {vm:?} at {window} overlaps the interrupt controller at {gic}; move the device"
            ),
            Self::WindowTaken { vm, device, other, window } => write!(
                out,
                "devices {other:?} and {device:?} of vm {vm:?} both own addresses in {window}; move one of them"
            ),
            Self::InterruptOutOfRange { vm, device, interrupt } => write!(
                out,
                "device {device:?} of vm {vm:?} has interrupt {interrupt}, but a device's interrupt is an SPI, \
                 {INTERRUPT_MIN} to {INTERRUPT_MAX}; choose one of those"
            ),
            Self::InterruptTaken { vm, device, other, interrupt } => write!(
                out,
                "devices {other:?} and {device:?} of vm {vm:?} both own interrupt {interrupt}; give one another"
            ),
            Self::OutsideMemory { vm, what, file, address, size } => {
                out.write_str(what)?;
                if let Some(file) = file {
                    write!(out, " {file:?}")?;
                }
                let address = Address(*address);
                write!(
                    out,
                    " of vm {vm:?} ({size:#x} bytes at {address}) does not lie in the vm's memory; give it more memory"
                )
            }
            Self::StartUnaligned { vm, what, address, align } => write!(
                out,
                "{what} of vm {vm:?} is at {}, but it must be at a multiple of {align}; move it",
                Address(*address)
            ),
            Self::LoadsOverlap { vm, file, other } => {
                write!(
                    out,
                    "files {other:?} and {file:?} of vm {vm:?} are to be loaded over one another; move one of them"
                )
            }
            Self::AssignedWindow { vm, device, window } => write!(
                out,
                "physical device {device:?} of vm {vm:?} at {window} is not made of pages of {} KiB within a guest's \
                 {GUEST_ADDRESS_BITS} address bits; correct its window",
                PAGE_SIZE >> 10
            ),
            Self::AssignedInstances { vm, device, size } => write!(
                out,
                "physical device {device:?} of vm {vm:?} is not made of {ASSIGNED_INSTANCES_MAX} instances at most, of \
                 {size:#x} bytes each, with the registers that silence it; correct what the board says of it"
            ),
            Self::AssignedOver { vm, device, window, what, other } => write!(
                out,
                "physical device {device:?} of vm {vm:?} at {window} overlaps {what} at {other}; it cannot be given away \
                 like this: move the other, or do without"
            ),
            Self::AssignedTaken { vm, device, window, other_vm } => write!(
                out,
                "vm {vm:?} and vm {other_vm:?} both own the physical device {device:?} at {window}; give it to one of \
                 them"
            ),
            Self::AssignedInterruptTaken { vm, device, interrupt, owner } => write!(
                out,
                "the physical device {device:?} of vm {vm:?} has interrupt {interrupt}, which belongs to {owner}; it has \
                 one owner"
            ),
            Self::NotOneToOne { vm, region } => write!(
                out,
                "vm {vm:?} drives physical devices, but its memory {region} is not at the same physical address; state it"
            ),
            Self::CallsOfNobody { vm, device } => write!(
                out,
                "device {device:?} of vm {vm:?} is for the calls of a driver domain, and this vm is none; remove it, or \
                 say driver_domain = true"
            ),
            Self::NoProvider { vm, device } => {
                write!(out, "nobody serves device {device:?} of vm {vm:?}; name another vm that is a driver domain")
            }
            Self::BadChannel { vm, device, channel, why } => {
                write!(out, "the channel {channel} of device {device:?} of vm {vm:?} {why}; move it")
            }
            Self::ChannelNumber { vm, device, channel } => write!(
                out,
                "device {device:?} of vm {vm:?} has channel number {channel}, which is taken or too high; number a driver \
                 domain's channels from 0, {CHANNELS_MAX} at most"
            ),
            Self::LoadOverChannel { vm, file, channel } => write!(
                out,
                "file {file:?} of vm {vm:?} is to be loaded over the channel {channel}; give the vm more memory"
            ),
            Self::Queues { vm, device, queues } => write!(
                out,
                "device {device:?} of vm {vm:?} is to have {queues} queues, but 1 to {QUEUES_MAX} are possible; choose \
                 one of those"
            ),
            Self::WatchTime { vm, what, milliseconds } => write!(
                out,
                "the {what} of vm {vm:?} is {milliseconds} ms, but {WATCH_MS_MIN} to {WATCH_MS_MAX} are possible; choose \
                 one of those"
            ),
            Self::Allocation { vm, device } => write!(
                out,
                "what is allocated for device {device:?} of vm {vm:?} is for no device; make the system with this \
                 Bulkhead's xtask"
            ),
        }
    }
}

/// A size in the largest unit that keeps it whole.
struct Bytes(u64);

impl fmt::Display for Bytes {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (shift, unit) in [(30, "GiB"), (20, "MiB"), (10, "KiB")] {
            let count = self.0 >> shift;
            if count != 0 && count << shift == self.0 {
                return write!(out, "{count} {unit}");
            }
        }
        write!(out, "{} bytes", self.0)
    }
}

fn whole_kib(bytes: u64) -> Bytes {
    Bytes(bytes.checked_next_multiple_of(1 << 10).unwrap_or(bytes))
}

/// A name that a system gives to something. It may be anything until its rule has been checked, so `Debug` quotes it
/// and shows what a console would act on as its number.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Name<'a>(pub &'a str);

impl fmt::Debug for Name<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_char('"')?;
        for character in self.0.chars() {
            match character {
                '"' | '\\' => write!(out, "\\{character}")?,
                _ if character.is_control() => write!(out, "\\u{{{:x}}}", u32::from(character))?,
                _ => out.write_char(character)?,
            }
        }
        out.write_char('"')
    }
}

/// Who has an interrupt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owner<'a> {
    /// Bulkhead.
    Bulkhead,
    /// The device that is to have it once more.
    Itself,
    /// Another machine's device.
    Other {
        /// The device.
        device: Name<'a>,
        /// The machine.
        vm: Name<'a>,
    },
}

impl fmt::Display for Owner<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bulkhead => out.write_str("Bulkhead"),
            Self::Itself => out.write_str("it already"),
            Self::Other { device, vm } => write!(out, "{device:?} of vm {vm:?}"),
        }
    }
}
