//! What a core does when it was summoned, or one of its deadlines has passed: virtual CPUs are parked and started,
//! driver domains looked at, devices polled, and the VM is found that the core prepares.

use super::{Core, NOBODY, WAKE_SHIFT, deadline_at, wait_end, wake};
use crate::command;
use crate::device_time;
use crate::guest_cpu::{Awaited, GuestCpu};
use crate::lifecycle;
use crate::machine::{LIVES, WAKES};
use crate::preparation;
use crate::supervision;
use crate::switch::remind;
use crate::vm::Vm;
use aarch64::psci::Power;
use arch::timer;
use core::sync::atomic::{Ordering, fence};
use vdev::Ticks;
use vm_lifecycle::deadline::Duty;
use vm_lifecycle::preparation::Part;
use vm_lifecycle::{CommandSource, Phase, VmCommand};

/// The part of the leader in the end of a life: as in preparing for the next, and nobody else's.
const ENDS: Part = Part::Leads { waits: false };

/// How often a core looks whether a preparation that was put off can go on, in parts of a second.
const RETRIES_PER_SECOND: u64 = 1000;

impl Core {
    /// There is nothing to do any more for the machine that it prepares: others go on, or are not done yet.
    #[cold]
    pub fn end_preparation(&mut self) {
        let Some(vm) = self.preparing.take() else { return };
        let part = if vm.core_of(0) == Some(self.number) { Part::Leads { waits: false } } else { Part::Helps };
        let mut guests = self.vcpus.iter().map(|vcpu| &vcpu.guest);
        let leads_another = guests.any(|guest| guest.index == 0 && guest.vm.phase() == Phase::Preparing);
        if part.has_kept_waiting(leads_another) {
            self.machine.summon(self.number, self.number);
        }
    }

    /// Looks at the machine that it prepares again a little later: something has to end first, and the core is others'
    /// meanwhile.
    #[cold]
    #[inline(never)]
    pub fn put_off_preparation(&mut self) {
        self.preparing = None;
        let later = timer::now().0.saturating_add(timer::frequency() / RETRIES_PER_SECOND);
        self.deadlines.set(Duty::Preparation, Some(Ticks(later)));
    }

    /// Sees to what others have asked this core for, and to what is due.
    #[cold]
    #[inline(never)]
    pub(super) fn see_to(&mut self, requests: u8, now: Ticks) {
        if requests & WAKES != 0 {
            self.wake_queued(now);
        }
        if requests & LIVES != 0 || self.deadlines.is_due(now) {
            self.advance_lives(now);
        }
    }

    /// Wakes the waiting virtual CPUs that others have queued, and whose interrupts have been taken back since: their
    /// guest pays as for any other wake-up. `pick` wakes the others.
    fn wake_queued(&mut self, now: Ticks) {
        let current_ticks = self.count_time(now);
        self.most_ticks = self.most_ticks.max(current_ticks);
        for vcpu in self.vcpus.iter_mut() {
            let guest = &vcpu.guest;
            if guest.waiting && guest.vm.take_queued(guest.index) && wait_end(vcpu, now).is_none_or(|end| end > now) {
                let _ = wake(vcpu, now, self.most_ticks, self.lead_ticks);
            }
        }
    }

    /// Parks what must stop, starts what was turned on, and finds the machine that this core has to prepare.
    fn advance_lives(&mut self, now: Ticks) {
        let current_ticks = self.count_time(now);
        self.most_ticks = self.most_ticks.max(current_ticks);
        // First, since it may find a machine that has to stop.
        let least_ticks = self.most_ticks - self.lead_ticks;
        let looks = self.vcpus.iter_mut().map(|vcpu| supervision::look(&mut vcpu.guest, now, least_ticks));
        let look = looks.min().and_then(deadline_at);
        self.deadlines.set(Duty::Watch, look);
        self.deadlines.set(Duty::Preparation, None);
        let next_poll = self.poll_devices(now);
        self.deadlines.set(Duty::Devices, next_poll);
        loop {
            let mut to_prepare = None;
            if !self.advance_lives_once(&mut to_prepare) {
                let mut to_prepare = to_prepare.map(|(_, vm)| vm);
                if to_prepare.is_none() && !self.machine.has_started() {
                    // As long as no guest runs, every core helps.
                    to_prepare = self.machine.vms.iter().find(|vm| preparation::can_help(vm));
                }
                if self.preparing.is_none() {
                    // As of now, like a virtual CPU that is turned on.
                    self.prepare_ticks = self.prepare_ticks.max(self.most_ticks);
                }
                self.preparing = to_prepare;
                return;
            }
        }
    }

    /// Polls the devices whose deadlines have passed. Gives when the next is due.
    fn poll_devices(&mut self, now: Ticks) -> Option<Ticks> {
        let mut next: Option<Ticks> = None;
        for index in 0..self.vcpus.len() {
            let Some((before, [vcpu, ..])) = self.vcpus.split_at_mut_checked(index) else { break };
            let vm = vcpu.guest.vm;
            // First, since there seldom are any.
            if !vm.io.slots.iter().any(|slot| slot.deadline(self.number).is_some()) {
                continue;
            }
            if before.iter().any(|other| core::ptr::eq(other.guest.vm, vm)) {
                continue;
            }
            let round = device_time::poll(self.machine, vm, self.number, now, &mut vcpu.guest.polled);
            next = next.into_iter().chain(round.next).min();
            self.charge_polls(vm, round.polls);
        }
        next
    }

    /// As for a wake-up: who was interrupted for it has paid with its own time. A virtual CPU that runs pays before one
    /// that sleeps; and none, however long it is off, comes to owe more than a lead.
    fn charge_polls(&mut self, vm: &Vm, polls: u64) {
        let charge = polls * (self.lead_ticks >> WAKE_SHIFT);
        let most = self.most_ticks + self.lead_ticks;
        let of_vm = self.vcpus.iter_mut().map(|vcpu| &mut vcpu.guest).filter(|guest| core::ptr::eq(guest.vm, vm));
        let payer = of_vm.reduce(|payer, guest| {
            let runs = |guest: &GuestCpu| guest.may_run && !guest.waiting;
            if !runs(payer) && runs(guest) { guest } else { payer }
        });
        if let Some(payer) = payer {
            payer.ticks = (payer.ticks + charge).min(most.max(payer.ticks));
        }
    }

    /// Returns whether a machine was stopped or has stopped by this, so that the virtual CPUs have to be looked at
    /// again. Terminates: each does so once, and what follows is not done here.
    fn advance_lives_once(&mut self, to_prepare: &mut Option<(Part, &'static Vm)>) -> bool {
        let mut changed = false;
        for index in 0..self.vcpus.len() {
            let Some(vcpu) = self.vcpus.get_mut(index) else { break };
            let (vm, number) = (vcpu.guest.vm, vcpu.guest.index);
            let Some(power) = vm.state.power.get(number) else { continue };
            match vm.phase() {
                Phase::Running => {
                    if vcpu.guest.is_leaving {
                        // Off for others (AFFINITY_INFO) when nothing of it is left in the core.
                        vcpu.guest.is_leaving = false;
                        vm.state.left_over.fetch_or(core::mem::take(&mut vcpu.guest.unfinished), Ordering::Relaxed);
                        self.discard(index);
                        power.turn_off();
                        if vm.is_driver_domain() && vm.state.power.iter().all(Power::is_off) {
                            let source = CommandSource::Vm(vm.config.number);
                            command::request(self.machine, vm, VmCommand::Stop, source, self.number);
                            changed = true;
                        }
                    } else if let Some((entry, argument)) = power.take_start() {
                        self.discard(index);
                        if let Some(vcpu) = self.vcpus.get_mut(index) {
                            lifecycle::start(vcpu, entry, argument);
                        }
                    } else if !power.is_on() && self.loaded == Some(index) {
                        self.discard(index);
                    }
                }
                Phase::Preparing if number == 0 || preparation::can_help(vm) => {
                    let part = match number {
                        0 => Part::Leads { waits: preparation::has_granted(vm) },
                        _ => Part::Helps,
                    };
                    if to_prepare.is_none_or(|(other, _)| part.comes_before(other)) {
                        *to_prepare = Some((part, vm));
                    }
                }
                Phase::StoppingForOff | Phase::StoppingForReset => {
                    // As long as this one is not parked, the machine cannot go on to its next phase.
                    if !vm.is_parked(number) {
                        power.turn_off();
                        self.discard(index);
                        vm.park(number);
                        if let Some(leader) = vm.core_of(0).filter(|_| vm.has_stopped()) {
                            self.machine.summon(leader, self.number);
                            changed = true;
                        }
                    }
                    if number == 0 && vm.has_stopped() && to_prepare.is_none_or(|(other, _)| ENDS.comes_before(other)) {
                        *to_prepare = Some((ENDS, vm));
                    }
                }
                Phase::Preparing | Phase::Off => {}
            }
            // Whatever changes this summons the core.
            let may_run = vm.is_running() && power.is_on() && !self.awaits_answer(index);
            if let Some(vcpu) = self.vcpus.get_mut(index) {
                if may_run && !vcpu.guest.may_run {
                    let ticks = vcpu.guest.ticks.max(self.most_ticks);
                    let lag_ticks = self.counted.0.wrapping_sub(ticks);
                    (vcpu.guest.ticks, vcpu.guest.lag_ticks, vcpu.guest.looked_ticks) = (ticks, lag_ticks, ticks);
                }
                vcpu.guest.may_run = may_run;
            }
            // Pairs with the one in `hand_over`.
            fence(Ordering::SeqCst);
            if vm.state.left_over.load(Ordering::Relaxed) != 0 {
                self.claim_deferred_io(index, may_run);
            }
        }
        changed
    }

    /// Whether virtual CPU `index` waits for the answer to an access. One that has its answer goes on with it.
    fn awaits_answer(&mut self, index: usize) -> bool {
        let Some(vcpu) = self.vcpus.get_mut(index) else { return false };
        let Some(awaited) = vcpu.guest.awaits else { return false };
        let (vm, number) = (vcpu.guest.vm, vcpu.guest.index);
        let Some(value) = vm.state.accesses.lock().take(number) else {
            let unfinished = core::mem::take(&mut vcpu.guest.unfinished);
            if unfinished != 0 {
                self.machine.hand_over(vm, unfinished, self.number);
            }
            if self.loaded == Some(index) {
                // Its timers raise nothing while it cannot take it.
                self.unload();
            }
            return true;
        };
        vcpu.guest.awaits = None;
        if let Awaited::Load(transfer) = awaited {
            vcpu.set_register(transfer.transfer, transfer.extend(value & transfer.width.mask()));
        }
        // It comes before one that runs, as a virtual CPU does that an interrupt wakes.
        self.current = NOBODY;
        false
    }

    /// What others have left over at the devices of its machine is seen to by virtual CPU `index`, if it may run, or
    /// by another one that is on.
    #[cold]
    #[inline(never)]
    fn claim_deferred_io(&mut self, index: usize, may_run: bool) {
        let Some(vcpu) = self.vcpus.get_mut(index) else { return };
        let vm = vcpu.guest.vm;
        if !may_run {
            if vm.is_running() {
                self.machine.hand_over(vm, 0, self.number);
            }
            return;
        }
        vcpu.guest.unfinished |= vm.state.left_over.swap(0, Ordering::Relaxed);
        if vcpu.guest.waiting {
            if self.loaded == Some(index) {
                vcpu.guest.waiting = false;
            } else {
                let _ = wake(vcpu, self.counted, self.most_ticks, self.lead_ticks);
            }
        }
        remind(self.machine, self.number);
    }
}
