//! What must hold of a system before a virtual machine is built from it.
//!
//! The checks stop at the first broken rule, and go from the whole to the parts: later ones rely on earlier ones.

use alloc::vec::Vec;

mod assigned;
mod each;
mod services;

use crate::{
    BoardLimits, Bundle, DEVICES_MAX, Device, Error, GUEST_ADDRESS_BITS, INTERRUPT_MAX, INTERRUPT_MIN, LOADS_MAX,
    MEMORY_ALIGN, MemoryRegion, NAME_LENGTH_MAX, Name, PAGE_SIZE, Place, REGIONS_MAX, Rule, SEEDS_MAX, Span, System,
    VCPUS_MAX, VMS_MAX, Vcpu, Vm,
};

/// An instruction's size: an entry point is a multiple of it (Arm ARM D1.3.6, PC alignment).
const ENTRY_ALIGN: u64 = 4;
/// A device tree's alignment (Devicetree Specification 0.4, 5.6).
const DEVICE_TREE_ALIGN: u64 = 8;
/// A device tree's header: the least that must lie in RAM (Devicetree Specification 0.4, 5.2).
const DEVICE_TREE_SIZE_MIN: u64 = 40;
const SYSTEM_NAME_LENGTH_MAX: usize = 64;

type Check<'a> = Result<(), Error<'a>>;

impl System {
    /// Checks every rule that can be checked without the bundle's other files.
    ///
    /// # Errors
    /// [`Error::Broken`] for the first rule that is broken.
    #[inline(never)]
    pub fn validate(&self, board: &BoardLimits<'_>) -> Check<'_> {
        self.check_counts(board)?;
        self.check_names()?;
        for (index, vm) in self.vms.iter().enumerate() {
            let checker = VmChecker { index, vm, board };
            checker.check_vcpus(self.cores)?;
            checker.check_memory()?;
            checker.check_devices()?;
            checker.check_assigned()?;
            checker.check_doorbell()?;
            checker.check_watch()?;
            checker.check_start()?;
        }
        self.check_physical_memory(board)?;
        self.check_owners()?;
        self.check_one_to_one()?;
        self.check_services()
    }

    /// Checks that the bundle holds every file to load, that each lies in its machine's RAM, and that none lies over
    /// another. Call it after [`System::validate`].
    ///
    /// # Errors
    /// [`Error::NoSuchFile`], damage to the archive, or [`Error::Broken`].
    #[inline(never)]
    pub fn validate_files(&self, bundle: &Bundle<'_>) -> Check<'_> {
        for (vm_index, vm) in self.vms.iter().enumerate() {
            let mut taken: Vec<(Span, &str)> = Vec::new();
            for (index, load) in vm.loads.iter().enumerate() {
                let place = Place::Load(vm_index, index);
                let data = bundle.find(&load.file)?;
                let span = Span::new(load.address, u64::try_from(data.len()).unwrap_or(u64::MAX));
                if !vm.has_memory(span) {
                    return broken(place, vm.outside_memory("file", Some(&load.file), span));
                }
                if let Some((_, other)) = taken.iter().find(|(other, _)| other.overlaps(span)) {
                    let (file, other) = (Name(&load.file), Name(other));
                    return broken(place, Rule::LoadsOverlap { vm: Name(&vm.name), file, other });
                }
                self.check_apart_from_channels(vm_index, &load.file, span, place)?;
                taken.push((span, &load.file));
            }
        }
        Ok(())
    }

    fn check_counts(&self, board: &BoardLimits<'_>) -> Check<'_> {
        self.check_name()?;
        self.check_cores(board)?;
        self.check_vm_count()
    }

    fn check_name(&self) -> Check<'_> {
        let printable = self.name.bytes().all(|byte| byte.is_ascii_graphic() || byte == b' ');
        if self.name.is_empty() || self.name.len() > SYSTEM_NAME_LENGTH_MAX || !printable {
            return broken(Place::System, Rule::SystemName);
        }
        Ok(())
    }

    fn check_cores(&self, board: &BoardLimits<'_>) -> Check<'_> {
        if self.cores == 0 {
            return broken(Place::Cores, Rule::NoCores);
        }
        if self.cores > board.cores {
            return broken(Place::Cores, Rule::CoresBeyondBoard { cores: self.cores, board: board.cores });
        }
        Ok(())
    }

    fn check_vm_count(&self) -> Check<'_> {
        match self.vms.len() {
            0 => broken(Place::System, Rule::NoVm),
            count if count > VMS_MAX => broken(Place::Vm(VMS_MAX), Rule::TooManyVms { count }),
            _ => Ok(()),
        }
    }

    fn check_names(&self) -> Check<'_> {
        self.vms.iter().enumerate().try_for_each(|(index, vm)| self.check_vm_name(index, vm))
    }

    fn check_vm_name<'a>(&'a self, index: usize, vm: &'a Vm) -> Check<'a> {
        let (place, name) = (Place::Name(index), Name(&vm.name));
        if !is_vm_name(&vm.name) {
            return broken(place, Rule::BadName { vm: name });
        }
        if reads_like_own(&vm.name) {
            return broken(place, Rule::ReservedName { vm: name });
        }
        if self.vms.iter().take(index).any(|other| other.name == vm.name) {
            return broken(place, Rule::NameTaken { vm: name });
        }
        Ok(())
    }

    /// What overlaps `span` of the RAM whose physical address is fixed, before region `index` of machine `vm_index`.
    /// Looked at anew for each instead of kept in a list: this also runs where there is little heap.
    fn fixed_before(&self, vm_index: usize, index: usize, span: Span) -> Option<(Span, &Vm)> {
        for (number, vm) in self.vms.iter().enumerate().take(vm_index.saturating_add(1)) {
            let regions = if number == vm_index { index } else { vm.memory.len() };
            for region in vm.memory.iter().take(regions) {
                if let Some(other) = region.physical_span().filter(|other| other.overlaps(span)) {
                    return Some((other, vm));
                }
            }
        }
        None
    }

    fn check_physical_memory(&self, board: &BoardLimits<'_>) -> Check<'_> {
        for (vm_index, vm) in self.vms.iter().enumerate() {
            for (index, region) in vm.memory.iter().enumerate() {
                self.check_physical_region(board, (vm_index, vm), (index, region))?;
            }
        }
        self.check_memory_sum(board)
    }

    fn check_physical_region<'a>(
        &'a self,
        board: &BoardLimits<'_>,
        (vm_index, vm): (usize, &'a Vm),
        (index, region): (usize, &MemoryRegion),
    ) -> Check<'a> {
        let Some(span) = region.physical_span() else { return Ok(()) };
        let (place, vm) = (Place::Region(vm_index, index), Name(&vm.name));
        if !board.memory.iter().any(|ram| ram.contains(span)) {
            return broken(place, Rule::PhysicalOutsideBoard { vm, region: span });
        }
        match self.fixed_before(vm_index, index, span) {
            None => Ok(()),
            Some((other, other_vm)) => {
                let other_vm = Name(&other_vm.name);
                broken(place, Rule::PhysicalOverlap { vm, region: span, other_vm, other })
            }
        }
    }

    fn check_memory_sum(&self, board: &BoardLimits<'_>) -> Check<'_> {
        let needed = self.vms.iter().fold(0_u64, |sum, vm| sum.saturating_add(vm.memory_bytes()));
        let available = board.memory.iter().fold(0_u64, |sum, ram| sum.saturating_add(ram.size));
        let (own, reserved) = (self.own_bytes(), board.reserved);
        if needed.saturating_add(reserved).saturating_add(own) > available {
            let largest = self.largest_share();
            let rule = Rule::MemoryBeyondBoard { needed, reserved, own, largest, board: available };
            return broken(Place::BoardMemory, rule);
        }
        Ok(())
    }
}

impl Vm {
    /// Whether every byte of `span` lies in one region of this machine's RAM.
    #[must_use]
    pub fn has_memory(&self, span: Span) -> bool {
        self.memory.iter().any(|region| region.guest_span().contains(span))
    }

    fn outside_memory<'a>(&'a self, what: &'static str, file: Option<&'a str>, span: Span) -> Rule<'a> {
        Rule::OutsideMemory { vm: Name(&self.name), what, file: file.map(Name), address: span.base, size: span.size }
    }
}

/// Checks one virtual machine.
struct VmChecker<'a, 'b> {
    index: usize,
    vm: &'a Vm,
    board: &'b BoardLimits<'b>,
}

impl<'a> VmChecker<'a, '_> {
    fn name(&self) -> Name<'a> {
        Name(&self.vm.name)
    }

    fn check_vcpus(&self, cores: u8) -> Check<'a> {
        self.check_vcpu_count()?;
        self.vm.vcpus.iter().enumerate().try_for_each(|(index, vcpu)| self.check_vcpu(index, vcpu, cores))
    }

    fn check_vcpu_count(&self) -> Check<'a> {
        let place = Place::Vcpus(self.index);
        match self.vm.vcpus.len() {
            0 => broken(place, Rule::NoVcpu { vm: self.name() }),
            count if count > VCPUS_MAX => broken(place, Rule::TooManyVcpus { vm: self.name(), count }),
            _ => Ok(()),
        }
    }

    fn check_vcpu(&self, index: usize, vcpu: &Vcpu, cores: u8) -> Check<'a> {
        if vcpu.core < cores {
            return Ok(());
        }
        broken(Place::Vcpu(self.index, index), Rule::NoSuchCore { vm: self.name(), core: vcpu.core, cores })
    }

    fn check_memory(&self) -> Check<'a> {
        self.check_region_count()?;
        self.vm.memory.iter().enumerate().try_for_each(|(index, region)| self.check_region(index, region))
    }

    fn check_region_count(&self) -> Check<'a> {
        let regions = &self.vm.memory;
        if regions.is_empty() {
            return broken(Place::Memory(self.index), Rule::NoMemory { vm: self.name() });
        }
        self.check_count("regions of memory", regions.len(), REGIONS_MAX, Place::Region(self.index, REGIONS_MAX))
    }

    /// Checks a region, and that it lies behind the one before it.
    fn check_region(&self, index: usize, region: &MemoryRegion) -> Check<'a> {
        let place = Place::Region(self.index, index);
        self.check_region_alone(region, place)?;
        let (vm, span) = (self.name(), region.guest_span());
        let previous = index.checked_sub(1).and_then(|index| self.vm.memory.get(index));
        match previous.map(MemoryRegion::guest_span) {
            Some(other) if other.overlaps(span) => broken(place, Rule::MemoryOverlap { vm, region: span, other }),
            Some(other) if other.base > span.base => broken(place, Rule::MemoryOrder { vm, region: span }),
            Some(_) | None => Ok(()),
        }
    }

    fn check_region_alone(&self, region: &MemoryRegion, place: Place) -> Check<'a> {
        if !is_size(region.size, MEMORY_ALIGN) {
            return broken(place, Rule::MemorySize { vm: self.name(), size: region.size });
        }
        let addresses = [("address", Some(region.guest)), ("physical address", region.physical)];
        for (what, address) in addresses {
            if let Some(address) = address.filter(|address| !address.is_multiple_of(MEMORY_ALIGN)) {
                return broken(place, Rule::MemoryUnaligned { vm: self.name(), what, address });
            }
        }
        let span = region.guest_span();
        if !is_guest_span(span) {
            return broken(place, Rule::MemoryBeyondGuest { vm: self.name(), base: span.base, size: span.size });
        }
        match self.gic_windows().into_iter().find(|gic| gic.overlaps(span)) {
            None => Ok(()),
            Some(gic) => broken(place, Rule::MemoryOverGic { vm: self.name(), region: span, gic }),
        }
    }

    fn check_devices(&self) -> Check<'a> {
        self.check_device_count()?;
        for (index, device) in self.vm.devices.iter().enumerate() {
            self.check_kind(index, device)?;
            self.check_window(index, device)?;
            self.check_interrupt(index, device)?;
        }
        Ok(())
    }

    fn check_device_count(&self) -> Check<'a> {
        let count = self.vm.devices.len();
        self.check_count("devices", count, DEVICES_MAX, Place::Device(self.index, DEVICES_MAX))
    }

    fn check_kind(&self, index: usize, device: &'a Device) -> Check<'a> {
        if device.kind != abi::io::CALLS_KIND || self.vm.doorbell.is_some() {
            return Ok(());
        }
        let rule = Rule::CallsOfNobody { vm: self.name(), device: Name(&device.kind) };
        broken(Place::Device(self.index, index), rule)
    }

    fn check_window(&self, index: usize, device: &'a Device) -> Check<'a> {
        let place = Place::DeviceAddress(self.index, index);
        let (vm, name, window) = (self.name(), Name(&device.kind), device.span());
        if !is_size(window.size, PAGE_SIZE) {
            return broken(place, Rule::DeviceSize { vm, device: name, size: window.size });
        }
        if !window.base.is_multiple_of(PAGE_SIZE) {
            return broken(place, Rule::DeviceUnaligned { vm, device: name, address: window.base });
        }
        if !is_guest_span(window) {
            let rule = Rule::DeviceBeyondGuest { vm, device: name, base: window.base, size: window.size };
            return broken(place, rule);
        }
        if let Some(gic) = self.gic_windows().into_iter().find(|gic| gic.overlaps(window)) {
            return broken(place, Rule::DeviceOverGic { vm, device: name, window, gic });
        }
        let mut regions = self.vm.memory.iter().map(MemoryRegion::guest_span);
        if let Some(region) = regions.find(|region| region.overlaps(window)) {
            return broken(place, Rule::DeviceOverMemory { vm, device: name, window, region });
        }
        let mut others = self.vm.devices.iter().take(index);
        match others.find(|other| other.span().overlaps(window)) {
            None => Ok(()),
            Some(other) => {
                let other = Name(&other.kind);
                broken(place, Rule::WindowTaken { vm, device: name, other, window })
            }
        }
    }

    fn check_interrupt(&self, index: usize, device: &'a Device) -> Check<'a> {
        let Some(interrupt) = device.interrupt else { return Ok(()) };
        let place = Place::DeviceInterrupt(self.index, index);
        self.check_spi(&device.kind, interrupt, place)?;
        let (vm, name) = (self.name(), Name(&device.kind));
        let mut others = self.vm.devices.iter().take(index);
        match others.find(|other| other.interrupt == Some(interrupt)) {
            None => Ok(()),
            Some(other) => {
                let other = Name(&other.kind);
                broken(place, Rule::InterruptTaken { vm, device: name, other, interrupt })
            }
        }
    }

    fn check_spi(&self, device: &'a str, interrupt: u32, place: Place) -> Check<'a> {
        if (INTERRUPT_MIN..=INTERRUPT_MAX).contains(&interrupt) {
            return Ok(());
        }
        broken(place, Rule::InterruptOutOfRange { vm: self.name(), device: Name(device), interrupt })
    }

    fn check_start(&self) -> Check<'a> {
        let (place, vm) = (Place::Start(self.index), self.vm);
        self.check_count("files", vm.loads.len(), LOADS_MAX, place)?;
        self.check_count("seeds", vm.seeds.len(), SEEDS_MAX, place)?;

        let starts = [
            ("the entry point", Span::new(vm.entry, ENTRY_ALIGN), ENTRY_ALIGN),
            ("the device tree", Span::new(vm.device_tree, DEVICE_TREE_SIZE_MIN), DEVICE_TREE_ALIGN),
        ];
        for (what, span, align) in starts {
            if !span.base.is_multiple_of(align) {
                return broken(place, Rule::StartUnaligned { vm: self.name(), what, address: span.base, align });
            }
            if !vm.has_memory(span) {
                return broken(place, vm.outside_memory(what, None, span));
            }
        }
        for seed in &vm.seeds {
            let span = Span::new(seed.address, u64::from(seed.size));
            if !vm.has_memory(span) {
                return broken(place, vm.outside_memory("a seed", None, span));
            }
        }
        for (index, load) in vm.loads.iter().enumerate() {
            // The file's size is not known here: `validate_files` checks the rest.
            let span = Span::new(load.address, 1);
            if !vm.has_memory(span) {
                return broken(Place::Load(self.index, index), vm.outside_memory("file", Some(&load.file), span));
            }
        }
        Ok(())
    }

    fn check_count(&self, what: &'static str, count: usize, most: usize, place: Place) -> Check<'a> {
        if count > most {
            return broken(place, Rule::TooMany { vm: self.name(), what, count, most });
        }
        Ok(())
    }

    fn gic_windows(&self) -> [Span; 2] {
        [self.board.gic.distributor, self.board.gic.redistributor_span(self.vm.vcpus.len())]
    }
}

/// Bulkhead's name, which stands before its own lines on the console.
const OWN_NAME: &str = "bulkhead";

/// Whether Bulkhead's own name can be read in `name`: case, hyphens, and digits that look like letters apart.
fn reads_like_own(name: &str) -> bool {
    let letters = name.chars().filter(|letter| *letter != '-').map(|letter| match letter {
        '0' => 'o',
        '1' => 'l',
        '3' => 'e',
        '4' => 'a',
        '8' => 'b',
        other => other.to_ascii_lowercase(),
    });
    let mut rest = OWN_NAME.chars();
    // Its letters all differ, so that a mismatch can only begin it anew.
    for letter in letters {
        if !rest.as_str().starts_with(letter) {
            rest = OWN_NAME.chars();
        }
        if rest.as_str().starts_with(letter) {
            rest.next();
        }
        if rest.as_str().is_empty() {
            return true;
        }
    }
    false
}

fn is_vm_name(name: &str) -> bool {
    let is_allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    !name.is_empty() && name.len() <= NAME_LENGTH_MAX && name.bytes().all(is_allowed)
}

fn is_size(size: u64, unit: u64) -> bool {
    size != 0 && size.is_multiple_of(unit)
}

/// Whether a guest can address all of `span`.
fn is_guest_span(span: Span) -> bool {
    Span::new(0, 1 << GUEST_ADDRESS_BITS).contains(span)
}

fn broken(place: Place, rule: Rule<'_>) -> Check<'_> {
    Err(Error::Broken { place, rule })
}

#[cfg(test)]
pub(crate) mod tests;
