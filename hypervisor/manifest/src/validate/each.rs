//! Every broken rule of a system, for people who want to mend all of them at once. EL2 needs the first one alone.

use super::{Check, VmChecker};
use crate::{BoardLimits, Error, System};

impl System {
    /// As [`System::validate`], with every broken rule, as far as rules that rely on others can be checked.
    pub fn each_error<'a>(&'a self, board: &BoardLimits<'_>, mut report: impl FnMut(Error<'a>)) {
        let mut is_good = true;
        let mut keep = |error| {
            is_good = false;
            report(error);
        };
        self.check_counts(board).err().into_iter().for_each(&mut keep);
        self.each_error_of_parts(board, keep);
        if !is_good {
            return;
        }
        // What follows compares virtual machines of which each is right by itself.
        let checks = [self.check_physical_memory(board), self.check_owners(), self.check_one_to_one()];
        for error in checks.into_iter().chain([self.check_services()]).filter_map(Result::err) {
            report(error);
        }
    }

    /// The rules that virtual machines break whatever else the system has or lacks, and those for their names.
    pub fn each_error_of_parts<'a>(&'a self, board: &BoardLimits<'_>, mut report: impl FnMut(Error<'a>)) {
        let mut keep = |check: Check<'a>| check.map_err(&mut report).is_ok();
        // Where their number itself is wrong, that is said once.
        let cores = if (1..=board.cores).contains(&self.cores) { self.cores } else { board.cores };
        keep(self.check_names());
        for (index, vm) in self.vms.iter().enumerate() {
            let checker = VmChecker { index, vm, board };
            keep(checker.check_vcpus(cores));
            let has_memory = keep(checker.check_memory());
            keep(checker.check_devices());
            keep(checker.check_assigned());
            keep(checker.check_doorbell());
            keep(checker.check_watch());
            if has_memory {
                keep(checker.check_start());
            }
        }
    }
}
