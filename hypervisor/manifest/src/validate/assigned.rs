//! Physical devices: each lies apart from everything else and has one owner. Doorbells, and the memory of those who drive
//! devices without an SMMU.

use alloc::{format, string::ToString};

use super::{Check, VmChecker, broken, is_guest_span, is_size};
use crate::{
    ASSIGNED_INTERRUPTS_MAX, ASSIGNED_MAX, Assigned, Device, MemoryRegion, PAGE_SIZE, Place, Rule, Span, System, Vm,
};

/// What a doorbell is called where a rule names a device.
const DOORBELL: &str = "doorbell";

impl VmChecker<'_> {
    pub(super) fn check_assigned(&self) -> Check {
        let assigned = &self.vm.assigned;
        let place = Place::Assigned(self.index, ASSIGNED_MAX);
        self.check_count("physical devices", assigned.len(), ASSIGNED_MAX, place)?;
        for (index, device) in assigned.iter().enumerate() {
            let place = Place::Assigned(self.index, index);
            self.check_assigned_window(index, device, place)?;
            let count = device.interrupts.len();
            self.check_count("interrupts of a physical device", count, ASSIGNED_INTERRUPTS_MAX, place)?;
            for interrupt in &device.interrupts {
                self.check_assigned_interrupt(index, device, *interrupt, place)?;
            }
        }
        Ok(())
    }

    fn check_assigned_window(&self, index: usize, device: &Assigned, place: Place) -> Check {
        let window = device.span();
        if !is_size(window.size, PAGE_SIZE) || !window.base.is_multiple_of(PAGE_SIZE) || !is_guest_span(window) {
            return broken(place, Rule::AssignedWindow { vm: self.name(), device: device.name.clone(), window });
        }
        let ram = self.board.memory.iter().copied().map(|span| ("the board's RAM", span));
        let kept = self.board.kept.iter().copied().map(|span| ("what Bulkhead keeps", span));
        let gic = self.gic_windows().into_iter().map(|span| ("the vm's interrupt controller", span));
        let own = self.vm.memory.iter().map(|region| ("the vm's memory", region.guest_span()));
        let devices = self.vm.devices.iter().map(|device| ("a virtual device", device.span()));
        let others = self.vm.assigned.iter().take(index).map(|other| ("another physical device", other.span()));
        let mut all = ram.chain(kept).chain(gic).chain(own).chain(devices).chain(others);
        match all.find(|(_, span)| span.overlaps(window)) {
            None => Ok(()),
            Some((what, other)) => {
                let (vm, device) = (self.name(), device.name.clone());
                broken(place, Rule::AssignedOver { vm, device, window, what, other })
            }
        }
    }

    fn check_assigned_interrupt(&self, index: usize, device: &Assigned, interrupt: u32, place: Place) -> Check {
        self.check_spi(&device.name, interrupt, place)?;
        if self.board.kept_interrupts.contains(&interrupt) {
            return taken(self.vm, device, interrupt, "Bulkhead", place);
        }
        if device.interrupts.iter().filter(|other| **other == interrupt).count() > 1 {
            return taken(self.vm, device, interrupt, "it already", place);
        }
        self.check_unused(&device.name, interrupt, index, place)
    }

    pub(super) fn check_doorbell(&self) -> Check {
        let Some(doorbell) = self.vm.doorbell else { return Ok(()) };
        let place = Place::Doorbell(self.index);
        self.check_spi(DOORBELL, doorbell, place)?;
        self.check_unused(DOORBELL, doorbell, self.vm.assigned.len(), place)?;
        match self.vm.memory.iter().position(|region| region.physical != Some(region.guest)) {
            None => Ok(()),
            Some(index) => {
                let region = self.vm.memory.get(index).map_or(Span::new(0, 0), MemoryRegion::guest_span);
                broken(Place::Region(self.index, index), Rule::NotOneToOne { vm: self.name(), region })
            }
        }
    }

    /// Checks that neither a virtual device nor one of the first `count` physical devices has `interrupt`.
    fn check_unused(&self, device: &str, interrupt: u32, count: usize, place: Place) -> Check {
        let has_it = |other: &&Device| other.interrupt == Some(interrupt);
        let virtual_device = self.vm.devices.iter().find(has_it).map(|other| &other.kind);
        let mut assigned = self.vm.assigned.iter().take(count);
        let other = virtual_device
            .or_else(|| assigned.find(|other| other.interrupts.contains(&interrupt)).map(|other| &other.name));
        let Some(other) = other else { return Ok(()) };
        let (vm, device, other) = (self.name(), device.to_string(), other.clone());
        broken(place, Rule::InterruptTaken { vm, device, other, interrupt })
    }
}

impl System {
    /// Checks that no two machines own the same physical device or physical interrupt.
    pub(super) fn check_owners(&self) -> Check {
        for (vm_index, vm) in self.vms.iter().enumerate() {
            for (index, device) in vm.assigned.iter().enumerate() {
                let place = Place::Assigned(vm_index, index);
                for other_vm in self.vms.iter().take(vm_index) {
                    check_apart(vm, device, other_vm, place)?;
                }
            }
        }
        Ok(())
    }
}

fn check_apart(vm: &Vm, device: &Assigned, other_vm: &Vm, place: Place) -> Check {
    for other in &other_vm.assigned {
        if other.span().overlaps(device.span()) {
            let (window, other_vm) = (device.span(), other_vm.name.clone());
            let (vm, device) = (vm.name.clone(), device.name.clone());
            return broken(place, Rule::AssignedTaken { vm, device, window, other_vm });
        }
        if let Some(interrupt) = device.interrupts.iter().find(|interrupt| other.interrupts.contains(interrupt)) {
            let owner = format!("{:?} of vm {:?}", other.name, other_vm.name);
            return taken(vm, device, *interrupt, &owner, place);
        }
    }
    Ok(())
}

fn taken(vm: &Vm, device: &Assigned, interrupt: u32, owner: &str, place: Place) -> Check {
    let (vm, device, owner) = (vm.name.clone(), device.name.clone(), owner.to_string());
    broken(place, Rule::AssignedInterruptTaken { vm, device, interrupt, owner })
}

#[cfg(test)]
mod tests;
