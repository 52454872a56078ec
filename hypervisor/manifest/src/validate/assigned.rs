//! Physical devices: each lies apart from everything else and has one owner. Doorbells, and the memory of those who
//! drive devices without an SMMU.

use super::{Check, VmChecker, broken, is_guest_span, is_size};
use crate::{
    ASSIGNED_INSTANCES_MAX, ASSIGNED_INTERRUPTS_MAX, ASSIGNED_MAX, Assigned, Device, MemoryRegion, Name, Owner,
    PAGE_SIZE, Place, Rule, SILENCE_MAX, System, Vm, WATCH_MS_MAX, WATCH_MS_MIN, Watch,
};

/// What a doorbell is called where a rule names a device.
const DOORBELL: &str = "doorbell";

impl<'a> VmChecker<'a, '_> {
    pub(super) fn check_assigned(&self) -> Check<'a> {
        self.check_assigned_count()?;
        let mut devices = self.vm.assigned.iter().enumerate();
        devices.try_for_each(|(index, device)| self.check_assigned_device(index, device))
    }

    pub(super) fn check_assigned_count(&self) -> Check<'a> {
        let place = Place::Assigned(self.index, ASSIGNED_MAX);
        self.check_count("physical devices", self.vm.assigned.len(), ASSIGNED_MAX, place)
    }

    pub(super) fn check_assigned_device(&self, index: usize, device: &'a Assigned) -> Check<'a> {
        let place = Place::Assigned(self.index, index);
        self.check_assigned_window(index, device, place)?;
        self.check_instances(device, place)?;
        let count = device.interrupts.len();
        self.check_count("interrupts of a physical device", count, ASSIGNED_INTERRUPTS_MAX, place)?;
        for interrupt in &device.interrupts {
            self.check_assigned_interrupt(index, device, *interrupt, place)?;
        }
        Ok(())
    }

    fn check_assigned_window(&self, index: usize, device: &'a Assigned, place: Place) -> Check<'a> {
        let window = device.span();
        if !is_size(window.size, PAGE_SIZE) || !window.base.is_multiple_of(PAGE_SIZE) || !is_guest_span(window) {
            return broken(place, Rule::AssignedWindow { vm: self.name(), device: Name(&device.name), window });
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
                let (vm, device) = (self.name(), Name(&device.name));
                broken(place, Rule::AssignedOver { vm, device, window, what, other })
            }
        }
    }

    /// Whoever silences the device stays within its registers, and comes to an end.
    fn check_instances(&self, device: &'a Assigned, place: Place) -> Check<'a> {
        self.check_count("stores that silence a physical device", device.silence.len(), SILENCE_MAX, place)?;
        let size = device.instance_size;
        let count = device.size.checked_div(size).unwrap_or(u64::MAX);
        let within = |offset: u32| offset.is_multiple_of(4) && u64::from(offset) < size;
        if count > ASSIGNED_INSTANCES_MAX
            || !size.is_multiple_of(4)
            || !device.size.is_multiple_of(size)
            || !device.silence.iter().all(|store| within(store.offset))
        {
            return broken(place, Rule::AssignedInstances { vm: self.name(), device: Name(&device.name), size });
        }
        Ok(())
    }

    fn check_assigned_interrupt(&self, index: usize, device: &'a Assigned, interrupt: u32, place: Place) -> Check<'a> {
        self.check_spi(&device.name, interrupt, place)?;
        if self.board.kept_interrupts.contains(&interrupt) {
            return taken(self.vm, device, interrupt, Owner::Bulkhead, place);
        }
        if device.interrupts.iter().filter(|other| **other == interrupt).count() > 1 {
            return taken(self.vm, device, interrupt, Owner::Itself, place);
        }
        self.check_unused(&device.name, interrupt, index, place)
    }

    pub(super) fn check_doorbell(&self) -> Check<'a> {
        let Some(doorbell) = self.vm.doorbell else { return Ok(()) };
        let place = Place::Doorbell(self.index);
        self.check_spi(DOORBELL, doorbell, place)?;
        self.check_unused(DOORBELL, doorbell, self.vm.assigned.len(), place)
    }

    pub(super) fn check_watch(&self) -> Check<'a> {
        self.watch_times().into_iter().try_for_each(|time| self.check_watch_time(time))
    }

    pub(super) fn watch_times(&self) -> [(&'static str, u32); 4] {
        let Watch { heartbeat_ms, request_ms, startup_ms, restart_limit: _, restart_window_ms } = self.vm.watch;
        [
            ("heartbeat", heartbeat_ms),
            ("request deadline", request_ms),
            ("startup deadline", startup_ms),
            ("restart window", restart_window_ms),
        ]
    }

    pub(super) fn check_watch_time(&self, (what, milliseconds): (&'static str, u32)) -> Check<'a> {
        if (WATCH_MS_MIN..=WATCH_MS_MAX).contains(&milliseconds) {
            return Ok(());
        }
        broken(Place::Doorbell(self.index), Rule::WatchTime { vm: self.name(), what, milliseconds })
    }

    /// Checks that neither a virtual device nor one of the first `count` physical devices has `interrupt`.
    fn check_unused(&self, device: &'a str, interrupt: u32, count: usize, place: Place) -> Check<'a> {
        let has_it = |other: &&Device| other.interrupt == Some(interrupt);
        let virtual_device = self.vm.devices.iter().find(has_it).map(|other| &other.kind);
        let mut assigned = self.vm.assigned.iter().take(count);
        let other = virtual_device
            .or_else(|| assigned.find(|other| other.interrupts.contains(&interrupt)).map(|other| &other.name));
        let Some(other) = other else { return Ok(()) };
        let (vm, device, other) = (self.name(), Name(device), Name(other));
        broken(place, Rule::InterruptTaken { vm, device, other, interrupt })
    }
}

impl System {
    /// Without an SMMU a device reads and writes physical addresses, whatever its owner believes that they are: so the
    /// memory of whoever owns a device that does is where it believes it to be.
    pub(super) fn check_one_to_one(&self) -> Check<'_> {
        for (index, vm) in self.vms.iter().enumerate() {
            let mut regions = vm.memory.iter().enumerate();
            regions.try_for_each(|(number, region)| check_region_one_to_one((index, vm), number, region))?;
        }
        Ok(())
    }

    /// Checks that no two machines own the same physical device or physical interrupt.
    pub(super) fn check_owners(&self) -> Check<'_> {
        for (vm_index, vm) in self.vms.iter().enumerate() {
            for (index, device) in vm.assigned.iter().enumerate() {
                self.check_owner((vm_index, vm), index, device)?;
            }
        }
        Ok(())
    }

    /// Checks that no machine before `vm` owns its device, or an interrupt of that.
    pub(super) fn check_owner<'a>(
        &'a self,
        (vm_index, vm): (usize, &'a Vm),
        index: usize,
        device: &'a Assigned,
    ) -> Check<'a> {
        let mut others = self.vms.iter().take(vm_index);
        others.try_for_each(|other_vm| check_apart(vm, device, other_vm, Place::Assigned(vm_index, index)))
    }
}

pub(super) fn check_region_one_to_one<'a>(
    (index, vm): (usize, &'a Vm),
    number: usize,
    region: &MemoryRegion,
) -> Check<'a> {
    let owns_masters = || vm.doorbell.is_some() || vm.assigned.iter().any(|device| device.dma);
    if region.physical == Some(region.guest) || !owns_masters() {
        return Ok(());
    }
    let (vm, region) = (Name(&vm.name), region.guest_span());
    broken(Place::Region(index, number), Rule::NotOneToOne { vm, region })
}

fn check_apart<'a>(vm: &'a Vm, device: &'a Assigned, other_vm: &'a Vm, place: Place) -> Check<'a> {
    for other in &other_vm.assigned {
        if other.span().overlaps(device.span()) {
            let (window, other_vm) = (device.span(), Name(&other_vm.name));
            let (vm, device) = (Name(&vm.name), Name(&device.name));
            return broken(place, Rule::AssignedTaken { vm, device, window, other_vm });
        }
        if let Some(interrupt) = device.interrupts.iter().find(|interrupt| other.interrupts.contains(interrupt)) {
            let owner = Owner::Other { device: Name(&other.name), vm: Name(&other_vm.name) };
            return taken(vm, device, *interrupt, owner, place);
        }
    }
    Ok(())
}

fn taken<'a>(vm: &'a Vm, device: &'a Assigned, interrupt: u32, owner: Owner<'a>, place: Place) -> Check<'a> {
    let (vm, device) = (Name(&vm.name), Name(&device.name));
    broken(place, Rule::AssignedInterruptTaken { vm, device, interrupt, owner })
}

#[cfg(test)]
mod tests;
