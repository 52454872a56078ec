//! Every broken rule of a system, for people who want to mend all of them at once. EL2 needs the first one alone.
//!
//! Each part is judged by itself: one that breaks a rule leaves the others to be judged. Only what adds memory up, or
//! looks for something in it, waits until all memory is right: it would repeat what is said already.

use super::{Check, VmChecker, assigned::check_region_one_to_one};
use crate::{BoardLimits, Error, Place, System};

impl System {
    /// As [`System::validate`], with every broken rule, as far as rules that rely on others can be checked: of one
    /// region, device or virtual CPU, the first one.
    pub fn each_error<'a>(&'a self, board: &BoardLimits<'_>, mut report: impl FnMut(Error<'a>)) {
        let mut is_memory_good = true;
        let mut keep = |error: Error<'a>| {
            is_memory_good &= !matches!(error.place(), Place::Memory(_) | Place::Region(..));
            report(error);
        };
        let whole = [self.check_name(), self.check_cores(board), self.check_vm_count()];
        whole.into_iter().filter_map(Result::err).for_each(&mut keep);
        self.each_error_of_parts(board, keep);
        if !is_memory_good {
            return;
        }
        self.check_memory_sum(board).err().into_iter().for_each(&mut report);
        for (index, vm) in self.vms.iter().enumerate() {
            for (number, region) in vm.memory.iter().enumerate() {
                check_region_one_to_one((index, vm), number, region).err().into_iter().for_each(&mut report);
            }
        }
        self.each_check_of_services().filter_map(Result::err).for_each(report);
    }

    /// The rules that the parts of a system break, alone and beside each other, whatever else it has or lacks.
    pub fn each_error_of_parts<'a>(&'a self, board: &BoardLimits<'_>, mut report: impl FnMut(Error<'a>)) {
        let mut keep = |check: Check<'a>| check.map_err(&mut report).is_ok();
        // Where their number itself is wrong, that is said once.
        let cores = if (1..=board.cores).contains(&self.cores) { self.cores } else { board.cores };
        for (index, vm) in self.vms.iter().enumerate() {
            keep(self.check_vm_name(index, vm));
            let checker = VmChecker { index, vm, board };
            keep(checker.check_vcpu_count());
            for (number, vcpu) in vm.vcpus.iter().enumerate() {
                keep(checker.check_vcpu(number, vcpu, cores));
            }
            let mut has_memory = keep(checker.check_region_count());
            for (number, region) in vm.memory.iter().enumerate() {
                has_memory &= keep(checker.check_region(number, region))
                    && keep(self.check_physical_region(board, (index, vm), (number, region)));
            }
            keep(checker.check_device_count());
            for (number, device) in vm.devices.iter().enumerate() {
                keep(checker.check_kind(number, device));
                keep(checker.check_window(number, device));
                keep(checker.check_interrupt(number, device));
            }
            keep(checker.check_assigned_count());
            for (number, device) in vm.assigned.iter().enumerate() {
                keep(checker.check_assigned_device(number, device));
                keep(self.check_owner((index, vm), number, device));
            }
            keep(checker.check_doorbell());
            for time in checker.watch_times() {
                keep(checker.check_watch_time(time));
            }
            if has_memory {
                keep(checker.check_start());
            }
        }
    }
}
