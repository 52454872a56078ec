//! EL2's own translation (stage 1) and the guests' (stage 2): turning them on and keeping TLBs honest.
//!
//! Leaves out the table format: `memory::table` builds both.

mod hyp_map;
mod stage2;

pub use crate::table_pool::TABLE_SIZE;
pub use hyp_map::{HypMap, Unmappable, remove_boot_code};
pub(crate) use stage2::configure_stage2;
pub use stage2::{Stage2, Windows};

use core::arch::asm;

/// Drops this core's EL1 TLB entries of the current VMID: two virtual CPUs of one VM on one core may use the same ASID
/// for different tables. The caller's ISB, or the ERET to the guest, completes it.
pub(crate) fn invalidate_local_el1() {
    // SAFETY: TLB maintenance changes no mapping.
    unsafe { asm!("isb", "tlbi vmalle1", "dsb nsh", options(nostack)) };
}

/// Translates by an AT instruction (Arm ARM C5.5).
macro_rules! translate {
    ($form:literal, $virtual_address:expr) => {{
        let (before, result): (u64, u64);
        // SAFETY: AT reads tables and reports in PAR_EL1, which is the guest's and is put back. An external abort on
        // its walk would be taken to EL2. But the guest's stage 2 is in force for the walk, and HCR_EL2.PTW keeps it
        // off device memory: what is not the guest's RAM is a fault in PAR_EL1.
        unsafe {
            asm!("mrs {0}, par_el1", concat!("at ", $form, ", {2}"), "isb", "mrs {1}, par_el1", "msr par_el1, {0}",
                out(reg) before, out(reg) result, in(reg) $virtual_address, options(nostack));
        }
        let _ = before;
        if result & 1 != 0 { None } else { Some((result & 0x000f_ffff_ffff_f000) | ($virtual_address & 0xfff)) }
    }};
}

/// Asks the MMU what intermediate physical address a guest's virtual address has, as EL1 would see it. `None` if the
/// guest's own stage 1 does not translate it.
///
/// The exit path needs this for permission faults, where HPFAR_EL2 is not valid (Arm ARM D19.2.62).
pub fn translate_stage1(virtual_address: u64) -> Option<u64> {
    translate!("s1e1r", virtual_address)
}

/// The same, as EL0 would see it.
pub(crate) fn translate_stage1_at_el0(virtual_address: u64) -> Option<u64> {
    translate!("s1e0r", virtual_address)
}
