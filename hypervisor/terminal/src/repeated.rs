//! What guests can bring about again and again: how much of it is logged.

use core::sync::atomic::{AtomicU32, Ordering};

/// Something that EL2 logs because of a guest. Each has so many lines in the life of a virtual machine; after that, one
/// for every doubling of their number, so that no guest fills the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Repeated {
    /// An access or instruction that is refused.
    Refusal,
    /// A virtio protocol that is broken.
    ProtocolError,
    /// A start of a guest, by its number.
    Start,
    /// A start of a driver domain, by its number: its end before, and what follows.
    DriverDomainStart,
    /// An interrupt that nobody owns.
    StrayInterrupt,
}

impl Repeated {
    /// How often it is logged one by one.
    const fn lines(self) -> u32 {
        match self {
            Self::ProtocolError => 4,
            Self::Refusal | Self::StrayInterrupt => 8,
            Self::Start => 16,
            Self::DriverDomainStart => 256,
        }
    }

    /// Whether the one of this number is logged. The first has number 1.
    #[must_use]
    pub const fn is_logged(self, number: u32) -> bool {
        number <= self.lines() || number.is_power_of_two()
    }

    /// Counts one more. Whether it is logged.
    pub fn count(self, counter: &AtomicU32) -> bool {
        self.is_logged(counter.fetch_add(1, Ordering::Relaxed).wrapping_add(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_happens_a_million_times_is_logged_a_few_times() {
        let all = [
            Repeated::Refusal,
            Repeated::ProtocolError,
            Repeated::Start,
            Repeated::DriverDomainStart,
            Repeated::StrayInterrupt,
        ];
        for repeated in all {
            let counter = AtomicU32::new(0);
            let times = if cfg!(miri) { 1000 } else { 1_000_000 };
            let logged: u32 = (0..times).map(|_| u32::from(repeated.count(&counter))).sum();
            assert!((repeated.lines()..=repeated.lines() + 18).contains(&logged), "{repeated:?}: {logged}");
        }
    }

    #[test]
    fn the_first_ones_are_logged() {
        let counter = AtomicU32::new(0);
        assert!((0..8).all(|_| Repeated::Refusal.count(&counter)));
        assert!(!(0..7).any(|_| Repeated::Refusal.count(&counter)));
        assert!(Repeated::Refusal.count(&counter), "the sixteenth");
    }
}
