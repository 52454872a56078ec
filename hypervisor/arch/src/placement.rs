//! A virtual CPU comes on a core, with all that it has there, and goes off it.

use crate::context::{Guest, Vcpu};
use crate::controls::{HCR_GUEST, HCR_TRAP_WFI};
use crate::cpu::{clear_hidden_registers, instruction_barrier, take_system_error};
use crate::mmu::{self, Stage2};
use crate::registers::VMPIDR_EL2;
use crate::{per_core, timer};
use aarch64_cpu::registers::{CNTVOFF_EL2, HCR_EL2, VTTBR_EL2};
use core::sync::atomic::Ordering;
use tock_registers::interfaces::Writeable;

/// What a virtual CPU has of its VM: loaded with it.
#[derive(Clone, Copy, Debug)]
pub struct Placement {
    /// The VM's stage 2.
    pub stage2: Stage2,
    /// What EL1 reads as MPIDR_EL1, RES1 bit 31 apart.
    pub affinity: u64,
    /// CNTVOFF_EL2: the physical count at which the VM's virtual counter was zero, in ticks.
    pub counter_offset: u64,
    /// Whether WFI comes to EL2: where virtual CPUs share a core.
    pub trap_wait: bool,
}

impl<G: Guest> Vcpu<G> {
    /// Loads the virtual CPU on this core: EL1 and FP registers, stage 2, identity, counter offset.
    #[inline(always)]
    pub fn load(&self, placement: &Placement) {
        per_core::this().loaded.store(self.context.identity, Ordering::Relaxed);
        VTTBR_EL2.set(placement.stage2.vttbr());
        VMPIDR_EL2.set((1 << 31) | placement.affinity);
        CNTVOFF_EL2.set(placement.counter_offset);
        HCR_EL2.set(HCR_GUEST | if placement.trap_wait { HCR_TRAP_WFI } else { 0 });
        if placement.trap_wait {
            mmu::invalidate_local_el1();
        }
        self.context.el1.load();
        self.context.fp.load();
        if self.lazy.is_used {
            self.lazy.load();
        }
        clear_hidden_registers();
        instruction_barrier();
    }

    /// Saves what [`Vcpu::load`] loaded, and stops this core's EL1 timers so that they raise nothing for the next one.
    ///
    /// Returns the syndrome (ESR_EL2) of an SError, if one became pending while this virtual CPU was loaded and was not
    /// taken as its exit. It is this virtual CPU's, as [`Guest::system_error`] would have said, and its VM is to answer
    /// for it: left pending, it would be blamed on the next one, or on EL2.
    ///
    /// # Panics
    /// If the virtual CPU is not loaded on this core.
    #[inline(always)]
    pub fn save(&mut self) -> Option<u64> {
        // Only this core touches its own.
        let loaded = per_core::this().loaded.load(Ordering::Relaxed);
        per_core::this().loaded.store(0, Ordering::Relaxed);
        assert!(loaded == self.context.identity, "a virtual CPU is saved where it is loaded");
        self.context.el1.save();
        self.context.fp.save();
        if self.lazy.is_used {
            self.lazy.save();
        }
        timer::stop_guest_timers();
        // This has the barrier that the timers need.
        take_system_error()
    }

    /// The timers of a virtual CPU that is not loaded, as physical counts; `counter_offset` is its VM's.
    #[inline]
    pub fn saved_timers(&self, counter_offset: u64) -> [Option<u64>; 2] {
        let el1 = &self.context.el1;
        // CNTx_CTL_EL0 (Arm ARM D24.2): ENABLE is bit 0, IMASK bit 1.
        let armed = |control: u64| control & 0b11 == 0b01;
        [
            armed(el1.cntv_ctl).then(|| el1.cntv_cval.saturating_add(counter_offset)),
            armed(el1.cntp_ctl).then_some(el1.cntp_cval),
        ]
    }

    /// Whether [`Vcpu::saved_timers`] may have a timer: one is on.
    #[inline(always)]
    pub fn has_saved_timers(&self) -> bool {
        (self.context.el1.cntv_ctl | self.context.el1.cntp_ctl) & 1 != 0
    }
}
