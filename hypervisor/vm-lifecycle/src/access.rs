//! Accesses that are answered later: which virtual CPUs of a VM wait for one, and what came of it.
//!
//! A virtual CPU waits for one access at a time, whatever device it is to. The answer goes to its mailbox here, and the
//! virtual CPU's own core takes it out. An answer to an access that nobody waits for, since the virtual CPU was turned
//! off or its VM has stopped, finds nothing and is counted.
//!
//! What this module leaves out: which register the answer is for, and who is told.

use vdev::AccessId;
use vgic::VCPUS_MAX;

/// What a virtual CPU waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mailbox {
    /// Nothing.
    Empty,
    /// The answer to this access.
    Awaits(AccessId),
    /// Nothing any more: the answer is here.
    Answered(u64),
}

/// The accesses that the virtual CPUs of one VM wait for.
#[derive(Clone, Debug)]
pub struct Accesses {
    mailboxes: [Mailbox; VCPUS_MAX],
    late: u32,
}

impl Accesses {
    /// Nobody waits.
    #[must_use]
    pub const fn new() -> Self {
        Self { mailboxes: [Mailbox::Empty; VCPUS_MAX], late: 0 }
    }

    /// Virtual CPU `vcpu` waits for the answer to `access` from now on, and for no other.
    pub fn begin(&mut self, vcpu: usize, access: AccessId) {
        self.set(vcpu, Mailbox::Awaits(access));
    }

    /// The answer to `access` is `value`. Gives the virtual CPU that has waited for it.
    pub fn answer(&mut self, access: AccessId, value: u64) -> Option<usize> {
        let vcpu = self.mailboxes.iter().position(|mailbox| *mailbox == Mailbox::Awaits(access));
        match vcpu {
            Some(vcpu) => self.set(vcpu, Mailbox::Answered(value)),
            None => self.late = self.late.saturating_add(1),
        }
        vcpu
    }

    /// The answer that virtual CPU `vcpu` has waited for, once.
    pub fn take(&mut self, vcpu: usize) -> Option<u64> {
        let Some(Mailbox::Answered(value)) = self.mailboxes.get(vcpu).copied() else { return None };
        self.set(vcpu, Mailbox::Empty);
        Some(value)
    }

    /// Virtual CPU `vcpu` waits for nothing any more.
    pub fn end(&mut self, vcpu: usize) {
        self.set(vcpu, Mailbox::Empty);
    }

    /// Whether virtual CPU `vcpu` waits, or has not taken its answer.
    #[must_use]
    pub fn is_waiting(&self, vcpu: usize) -> bool {
        self.mailboxes.get(vcpu).is_some_and(|mailbox| *mailbox != Mailbox::Empty)
    }

    /// How many virtual CPUs wait, or have not taken their answer.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.mailboxes.iter().filter(|mailbox| **mailbox != Mailbox::Empty).count()
    }

    /// How many answers came for which nobody waited.
    #[must_use]
    pub const fn late(&self) -> u32 {
        self.late
    }

    fn set(&mut self, vcpu: usize, mailbox: Mailbox) {
        if let Some(entry) = self.mailboxes.get_mut(vcpu) {
            *entry = mailbox;
        }
    }
}

impl Default for Accesses {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIRST: AccessId = AccessId(1);
    const SECOND: AccessId = AccessId(2);

    #[test]
    fn an_answer_reaches_who_waits_for_it_once() {
        let mut accesses = Accesses::new();
        accesses.begin(0, FIRST);
        accesses.begin(3, SECOND);
        assert_eq!((accesses.take(0), accesses.take(3)), (None, None));
        assert_eq!(accesses.answer(SECOND, 7), Some(3));
        assert_eq!((accesses.take(0), accesses.take(3), accesses.take(3)), (None, Some(7), None));
        assert_eq!((accesses.waiting(), accesses.late()), (1, 0));
        assert!(accesses.is_waiting(0) && !accesses.is_waiting(3));
    }

    #[test]
    fn a_second_answer_finds_nobody() {
        let mut accesses = Accesses::new();
        accesses.begin(0, FIRST);
        assert_eq!((accesses.answer(FIRST, 7), accesses.answer(FIRST, 8)), (Some(0), None));
        assert_eq!((accesses.take(0), accesses.late()), (Some(7), 1));
    }

    #[test]
    fn an_answer_that_comes_after_the_end_of_the_wait_reaches_no_later_access() {
        let mut accesses = Accesses::new();
        accesses.begin(0, FIRST);
        accesses.end(0);
        accesses.begin(0, SECOND);
        assert_eq!((accesses.answer(FIRST, 7), accesses.take(0)), (None, None));
        assert_eq!((accesses.answer(SECOND, 8), accesses.take(0)), (Some(0), Some(8)));
        accesses.begin(0, FIRST);
        let _ = accesses.answer(FIRST, 9);
        accesses.end(0);
        assert_eq!((accesses.take(0), accesses.waiting(), accesses.late()), (None, 0, 1));
    }

    #[test]
    fn a_virtual_cpu_that_there_is_not_waits_for_nothing() {
        let mut accesses = Accesses::new();
        accesses.begin(VCPUS_MAX, FIRST);
        accesses.end(usize::MAX);
        assert_eq!((accesses.answer(FIRST, 7), accesses.take(VCPUS_MAX), accesses.waiting()), (None, None, 0));
    }
}
