//! Where the interrupts of assigned devices come: each is taken once, on the core of the virtual CPU that the guest has
//! routed it to.
//!
//! On a core that the owner shares with others, an interrupt may come in their time, to wake the owner: once, and then
//! not before the owner's next turn. Else a device that its owner leaves unserved could interrupt its neighbours at
//! will.

use crate::vm::Vm;
use arch::gic::Gic;
use core::sync::atomic::{Ordering, fence};
use vgic::IntId;

/// Has the physical interrupt `intid`, if it is one of `vm`'s, come where its guest has just routed the virtual one: to
/// the core of that virtual CPU. One that goes nowhere does not come before it goes somewhere.
///
/// Two virtual CPUs that route it at the same moment may leave it at the core of one and the vGIC with the other. It
/// then takes a detour over the first.
#[inline(never)]
pub fn reroute(gic: &Gic, vm: &Vm, intid: u32) {
    if vm.io.assigned.has(intid) {
        settle(gic, vm, intid, || {});
    }
}

/// The physical interrupt `intid` of `vm` has come to a core where `vm` does not run: it does not come there again
/// before its virtual CPU has had a turn.
#[cold]
#[inline(never)]
pub fn hold_back(gic: &Gic, vm: &Vm, intid: u32) {
    settle(gic, vm, intid, || gic.disable_spi(intid));
}

/// Has `intid` come to the core of its virtual CPU if that is there; else it waits for it, and `away` says how.
fn settle(gic: &Gic, vm: &Vm, intid: u32, away: impl FnOnce()) {
    let target = || {
        let vcpu = vm.vgic.target(IntId::new(intid))?;
        Some((vcpu, vm.core_of(vcpu)?))
    };
    let mut to = target();
    if to.is_none() {
        // Wherever it came last, it would come again as often as its guest ends it there.
        gic.disable_spi(intid);
        vm.io.assigned.displace(intid);
        // Another virtual CPU may have routed it somewhere meanwhile.
        fence(Ordering::SeqCst);
        to = target();
    }
    let Some((vcpu, core)) = to else { return };
    if !vm.is_at_hand(vcpu) {
        away();
        vm.io.assigned.displace(intid);
        // The virtual CPU looks for such interrupts when it has said that it is there.
        fence(Ordering::SeqCst);
        if !vm.is_at_hand(vcpu) {
            return;
        }
    }
    let _ = vm.io.assigned.place(intid);
    gic.enable_spi(intid, core);
}

/// Virtual CPU `vcpu` of `vm` has its turn on `core`: what waited for it comes.
#[cold]
#[inline(never)]
pub fn bring_back(gic: &Gic, vm: &Vm, vcpu: usize, core: usize) {
    for intid in vm.io.assigned.interrupts() {
        if vm.vgic.target(IntId::new(intid)) == Some(vcpu) && vm.io.assigned.place(intid) {
            gic.enable_spi(intid, core);
        }
    }
}
