//! A console without MULTIPORT (VIRTIO 1.2, 5.3).

use super::{copy_size_max, description, optional, pair};
use abi::io::{Description, LongChains, QueueDescription};

/// VIRTIO_CONSOLE_F_SIZE (VIRTIO 1.2, 5.3.3).
const SIZE: u64 = 1 << 0;
/// So many bytes of the configuration space follow a change while there is a driver: all of them.
const LIVE_SIZE: u16 = 4;

/// A console, as its driver sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Console {
    /// Its width in characters; 0 for "not stated".
    pub columns: u16,
    /// Its height in characters; 0 for "not stated".
    pub rows: u16,
}

impl Console {
    /// Describes the console, with a request window of `window_size` bytes.
    #[must_use]
    pub fn describe(&self, window_size: u64) -> Description {
        let Self { columns, rows } = *self;
        let features = optional(SIZE, columns != 0 && rows != 0);
        // A console takes whatever it is given, if only as much as the window holds; what was printed is not printed
        // again.
        let printed = QueueDescription {
            long_chains: LongChains::Cut,
            returns_early: true,
            size_max: copy_size_max(window_size),
            ..QueueDescription::NONE
        };
        // VIRTIO 1.2, 5.3.4: `cols`, `rows`; the rest needs features.
        description(features, &[pair(columns, rows)], LIVE_SIZE, [QueueDescription::NONE, printed])
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::half;
    use super::*;
    use abi::io::Restart;

    #[test]
    fn a_console_states_its_size() {
        let console = Console { columns: 80, rows: 25 }.describe(64 << 10);
        assert_eq!((console.features, console.live_size), (SIZE, 4));
        assert_eq!((half(&console, 0), half(&console, 2)), (80, 25));
        let unstated = Console { columns: 80, rows: 0 }.describe(64 << 10);
        assert_eq!(unstated.features, 0);
    }

    #[test]
    fn any_amount_of_text_is_taken() {
        let console = Console { columns: 80, rows: 25 }.describe(64 << 10);
        assert_eq!(console.queue_count, 2);
        let printed = console.queues[1];
        assert_eq!((printed.long_chains, printed.size_max), (LongChains::Cut, 64 << 10));
        assert_eq!((printed.header_size, printed.tail_size, printed.restart), (0, 0, Restart::Drop));
        assert!(printed.returns_early && printed.is_patient);
    }
}
