//! What Bulkhead itself takes of the board's RAM for a system: its heap, the tables and the device pages of each
//! virtual machine. `cargo xtask check` and EL2 ask for the same sum, and EL2 makes its heap as large as it says.
//!
//! Leaves out Bulkhead's image, which is there before any system, and translation tables of its own.

use crate::{Device, PAGE_SIZE, Span, System, Vm};
use abi::io::CALLS_KIND;

/// The sizes, in bytes, of what EL2 allocates; at least those of its types, which its compiler compares with these.
#[expect(missing_docs, reason = "each is the size of the type of that name")]
pub mod size {
    pub const MACHINE: u64 = 2048;
    pub const VM: u64 = 2048;
    pub const VGIC: u64 = 8192;
    pub const VCPU: u64 = 3072;
    pub const SLOT: u64 = 160;
    pub const VIRTIO_DEVICE: u64 = 4288;
    pub const KEPT_CHAIN: u64 = 128;
    pub const REQUEST: u64 = 32;
    pub const ASSIGNED_DEVICES: u64 = 96;
    pub const IMAGE: u64 = 32;
    pub const POWER: u64 = 32;
    /// A pair of words: a channel's client, a range of random bytes, a page with its address.
    pub const PAIR: u64 = 16;
    /// What a call for a channel has returned.
    pub const RESULT: u64 = 4;
}

/// The bytes of the segments that a kept chain has for itself.
pub const OWN_SEGMENTS: u64 = 64;
/// The bytes of the segments that the long chains of a device share.
pub const SHARED_SEGMENTS: u64 = 4096;

/// What is allocated for a moment while virtual machines are built.
const PASSING: u64 = 8 << 10;
/// Reading a manifest takes so many times its bytes, and so many bytes for a list that claims to be longer than what
/// there is of it.
const READING_FACTOR: u64 = 16;
const READING_MIN: u64 = 16 << 10;

/// The pages of constants that every virtual machine sees where it has no device: the tables for them, of each, and the
/// pages, which they share.
const CONSTANT_TABLES: u64 = 4;
const CONSTANT_PAGES: u64 = 2;
/// The most slots without a device.
pub const VACANT_SLOTS_MAX: usize = 32;

/// So many bytes of heap do to read a manifest of `length` bytes, whatever it says.
#[must_use]
pub const fn reading(length: usize) -> u64 {
    whole_pages((length as u64).saturating_mul(READING_FACTOR).saturating_add(READING_MIN))
}

const fn whole_pages(bytes: u64) -> u64 {
    match bytes.checked_next_multiple_of(PAGE_SIZE) {
        Some(bytes) => bytes,
        None => bytes,
    }
}

/// What one allocation of `bytes` takes: the heap's blocks are powers of two, of 8 bytes at least.
#[must_use]
pub const fn block(bytes: u64) -> u64 {
    match bytes {
        0 => 0,
        1..=8 => 8,
        _ => match bytes.checked_next_power_of_two() {
            Some(block) => block,
            None => u64::MAX,
        },
    }
}

const fn array(count: usize, size: u64) -> u64 {
    block(size.saturating_mul(count as u64))
}

/// The bytes of EL2's heap that a virtio device takes which keeps so many chains and has so many requests out.
#[must_use]
pub const fn virtio_device(chains: u8, requests: u16) -> u64 {
    size::VIRTIO_DEVICE
        .saturating_add(array(chains as usize, size::KEPT_CHAIN))
        .saturating_add(OWN_SEGMENTS.saturating_mul(chains as u64))
        .saturating_add(SHARED_SEGMENTS)
        .saturating_add(array(requests as usize, size::REQUEST))
}

/// What a part of a system takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Share<'a> {
    /// Whose it is.
    pub vm: &'a str,
    /// The kind of its devices; `None` for the virtual machine itself.
    pub kind: Option<&'a str>,
    /// How many devices of that kind it has.
    pub count: usize,
    /// What they take, in bytes.
    pub bytes: u64,
}

impl Share<'_> {
    /// This one, unless the other is larger.
    fn or(self, other: Option<Self>) -> Option<Self> {
        match other {
            Some(other) if other.bytes > self.bytes => Some(other),
            Some(_) | None => Some(self),
        }
    }
}

// Plain loops: whatever iterators are made of is library code, which stays when the boot's is gone.
impl System {
    /// The bytes of EL2's heap that the system takes, beside [`reading`] its manifest.
    #[must_use]
    #[inline(never)]
    pub fn heap_bytes(&self) -> u64 {
        let mut sum = array(self.vms.len(), size::VM).saturating_add(block(size::MACHINE)).saturating_add(PASSING);
        for vm in &self.vms {
            sum = sum.saturating_add(vm.heap_of_itself());
            for device in &vm.devices {
                sum = sum.saturating_add(device.heap_bytes());
            }
        }
        whole_pages(sum)
    }

    /// All that Bulkhead takes of the board's RAM for the system, in bytes.
    #[must_use]
    #[inline(never)]
    pub fn own_bytes(&self) -> u64 {
        let mut sum = self.heap_bytes().saturating_add(CONSTANT_PAGES.saturating_mul(PAGE_SIZE));
        for vm in &self.vms {
            sum = sum.saturating_add(vm.table_bytes());
            for device in &vm.devices {
                sum = sum.saturating_add(device.page_bytes());
            }
        }
        sum
    }

    /// Who takes the most of it: a virtual machine itself, or all its devices of one kind.
    #[must_use]
    #[inline(never)]
    pub fn largest_share(&self) -> Option<Share<'_>> {
        let mut largest: Option<Share<'_>> = None;
        for vm in &self.vms {
            let bytes = vm.heap_of_itself().saturating_add(vm.table_bytes());
            largest = Share { vm: &vm.name, kind: None, count: 1, bytes }.or(largest);
            for device in &vm.devices {
                let mut share = Share { vm: &vm.name, kind: Some(&device.kind), count: 0, bytes: 0 };
                for other in &vm.devices {
                    if other.kind == device.kind {
                        share.count = share.count.saturating_add(1);
                        share.bytes = share.bytes.saturating_add(other.heap_bytes()).saturating_add(other.page_bytes());
                    }
                }
                largest = share.or(largest);
            }
        }
        largest
    }
}

impl Vm {
    /// The bytes of its stage-2 tables: a root; for each region of RAM one for each GiB and one for each end; for each
    /// window of registers one of level 2 and one of level 3, which those near by share.
    #[must_use]
    #[inline(never)]
    pub fn table_bytes(&self) -> u64 {
        let mut tables = CONSTANT_TABLES.saturating_add(1);
        for region in &self.memory {
            tables = tables.saturating_add(region.size >> 30).saturating_add(2);
        }
        for device in self.devices.iter().filter(|device| device.service.is_some()) {
            tables = tables.saturating_add(self.tables_of(device.span()));
        }
        for device in &self.assigned {
            tables = tables.saturating_add(self.tables_of(device.span()));
        }
        tables.saturating_mul(PAGE_SIZE)
    }

    /// The tables of a window, of which the first in each 2 MiB has them.
    fn tables_of(&self, window: Span) -> u64 {
        let near = |other: Span| other.base >> 21 == window.base >> 21;
        let is_before = |other: Span| near(other) && other.base < window.base;
        let services = self.devices.iter().filter(|device| device.service.is_some());
        for other in services.map(Device::span) {
            if is_before(other) {
                return window.size >> 21;
            }
        }
        for other in &self.assigned {
            if is_before(other.span()) {
                return window.size >> 21;
            }
        }
        (window.size >> 21).saturating_add(2)
    }

    /// Of the heap: the virtual machine without its devices, but for what their arrays are rounded up by.
    #[inline(never)]
    fn heap_of_itself(&self) -> u64 {
        let mut services = 0_usize;
        for device in &self.devices {
            services = services.saturating_add(usize::from(device.service.is_some()));
        }
        let emulated = self.devices.len().saturating_sub(services);
        let rounding = |count: usize, size: u64| array(count, size).saturating_sub(size.saturating_mul(count as u64));
        let mut sum = [
            block(size::VGIC),
            block(self.name.len() as u64),
            // Those of one core lie in one array, whose rounding up is no more than another of each.
            size::VCPU.saturating_mul(2).saturating_mul(self.vcpus.len() as u64),
            array(self.vcpus.len(), size::POWER),
            array(self.vcpus.len(), 1),
            array(self.loads.len(), size::IMAGE),
            array(self.seeds.len(), size::PAIR),
            rounding(emulated, size::SLOT),
            rounding(services, size::VIRTIO_DEVICE),
            // The pages of its devices and vacant slots, and the windows of physical ones, while its stage 2 is built.
            array(services.saturating_add(VACANT_SLOTS_MAX), size::PAIR),
            array(self.assigned.len(), size::PAIR),
            array(self.assigned.len(), size::ASSIGNED_DEVICES),
            // How many a driver domain serves is known when all others are; they are few bytes.
            if self.doorbell.is_some() { array(crate::CHANNELS_MAX, size::PAIR) } else { 0 },
        ]
        .into_iter()
        .fold(0, u64::saturating_add);
        for device in &self.assigned {
            let lists = array(device.silence.len(), 8).saturating_add(array(device.interrupts.len(), 4));
            sum = sum.saturating_add(lists);
        }
        sum
    }
}

impl Device {
    /// The bytes of EL2's heap that the device takes.
    #[must_use]
    #[inline(never)]
    pub fn heap_bytes(&self) -> u64 {
        let Some(service) = &self.service else {
            let results = if self.kind == CALLS_KIND { array(crate::CHANNELS_MAX, size::RESULT) } else { 0 };
            return size::SLOT.saturating_add(block(self.configuration.len() as u64)).saturating_add(results);
        };
        virtio_device(service.chains, service.requests)
    }

    /// The bytes of the page that its registers are read from.
    fn page_bytes(&self) -> u64 {
        if self.service.is_some() { PAGE_SIZE } else { 0 }
    }
}

#[cfg(test)]
mod tests;
