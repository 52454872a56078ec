//! Random numbers that came at one go and go to several clients, each to one of them.

/// How many bytes are asked of the source at a time.
pub const POOL_SIZE: usize = 1024;

/// Random numbers that nobody has got.
#[derive(Debug)]
pub struct Pool {
    bytes: [u8; POOL_SIZE],
    /// Those from here to `end`.
    start: usize,
    end: usize,
}

impl Pool {
    /// Without any.
    #[must_use]
    pub const fn new() -> Self {
        Self { bytes: [0; POOL_SIZE], start: 0, end: 0 }
    }

    /// Hands `take`, which says how many it takes, what there is. If there is nothing, `fill` gets some, and says how
    /// much: it can be slow, so it is called once at most, and there is no more than it gives.
    pub fn give(&mut self, fill: impl FnOnce(&mut [u8]) -> usize, take: impl FnOnce(&[u8]) -> usize) -> usize {
        if self.start >= self.end {
            self.start = 0;
            self.end = fill(&mut self.bytes).min(POOL_SIZE);
        }
        let Some(fresh) = self.bytes.get_mut(self.start..self.end) else { return 0 };
        let count = take(fresh).min(fresh.len());
        // What one client got, no other gets.
        fresh.iter_mut().take(count).for_each(|byte| *byte = 0);
        self.start = self.start.saturating_add(count);
        count
    }
}

impl Default for Pool {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec::Vec;

    /// What a client gets that has room for `room` bytes, of a source that gives `bytes`.
    fn given(pool: &mut Pool, room: usize, bytes: &[u8]) -> Vec<u8> {
        let mut got = Vec::new();
        let fill = |place: &mut [u8]| {
            place[..bytes.len()].copy_from_slice(bytes);
            bytes.len()
        };
        let count = pool.give(fill, |fresh| {
            got.extend(fresh.iter().take(room));
            got.len()
        });
        assert_eq!(count, got.len());
        got
    }

    #[test]
    fn each_number_is_given_once() {
        let mut pool = Pool::new();
        assert_eq!(given(&mut pool, 2, &[1, 2, 3, 4, 5]), [1, 2]);
        assert_eq!(given(&mut pool, 0, &[9]), []);
        assert_eq!(given(&mut pool, 9, &[9]), [3, 4, 5]);
        assert_eq!(pool.bytes, [0; POOL_SIZE], "none is left behind");
        assert_eq!(given(&mut pool, 9, &[6]), [6]);
    }

    #[test]
    fn a_slow_source_is_waited_for_once_and_gives_what_it_has() {
        let mut pool = Pool::new();
        assert_eq!(given(&mut pool, 1024, &[7]), [7]);
        assert_eq!(given(&mut pool, 1024, &[]), []);
    }

    #[test]
    fn a_source_that_claims_too_much_is_not_believed() {
        assert_eq!(Pool::new().give(|_| usize::MAX, |fresh| fresh.len()), POOL_SIZE);
        assert_eq!(Pool::new().give(|_| 3, |_| usize::MAX), 3);
    }
}
