//! What each client has of a disk's queue: how many bytes, and whose turn it is.

use arrayvec::ArrayVec;

/// The most channels whose requests go to one disk.
pub const CHANNELS_MAX: usize = 32;
/// The most bytes that one virtual machine has in a disk's queue, by all its devices: a slow disk is done with those of
/// all before anybody takes it for dead. A single request may have more.
pub const BYTES_MAX: u64 = 8 << 20;

/// Whose a request is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owner {
    /// The place of the channel.
    pub channel: usize,
    /// The place of the first channel of the same virtual machine.
    pub vm: usize,
}

/// Why a request does not go into the queue now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Its virtual machine has enough there.
    Enough,
    /// It is another channel's turn.
    Turn,
}

/// The shares of one disk's queue.
#[derive(Clone, Debug, Default)]
pub struct Shares {
    /// By virtual machine.
    bytes: [u64; CHANNELS_MAX],
    /// The channels that the queue had no room for in all of their turn, the first one first.
    waiting: ArrayVec<u8, CHANNELS_MAX>,
}

impl Shares {
    /// Whether a request for `bytes` bytes may go into the queue.
    ///
    /// # Errors
    /// Why not.
    #[inline]
    pub fn admit(&mut self, owner: Owner, bytes: u64) -> Result<(), Refusal> {
        let queued = self.bytes.get(owner.vm).copied().unwrap_or(0);
        if queued != 0 && queued.saturating_add(bytes) > BYTES_MAX {
            // What keeps it from its turn is its own doing.
            self.pass(owner.channel);
            return Err(Refusal::Enough);
        }
        let is_its_turn = self.waiting.first().is_none_or(|first| usize::from(*first) == owner.channel);
        if is_its_turn { Ok(()) } else { Err(Refusal::Turn) }
    }

    /// The queue had no room for anything of `channel` in its turn.
    pub fn miss(&mut self, channel: usize) {
        if !self.waiting.iter().any(|each| usize::from(*each) == channel) {
            // There are no more channels than there is room for.
            let _ = self.waiting.try_push(channel as u8);
        }
    }

    /// A request of `channel` was served.
    #[inline]
    pub fn pass(&mut self, channel: usize) {
        if !self.waiting.is_empty() {
            self.waiting.retain(|each| usize::from(*each) != channel);
        }
    }

    /// A request that was admitted is in the queue.
    #[inline]
    pub fn add(&mut self, vm: usize, bytes: u64) {
        if let Some(queued) = self.bytes.get_mut(vm) {
            *queued = queued.saturating_add(bytes);
        }
    }

    /// It has finished.
    #[inline]
    pub fn remove(&mut self, vm: usize, bytes: u64) {
        if let Some(queued) = self.bytes.get_mut(vm) {
            *queued = queued.saturating_sub(bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{collections::VecDeque, vec};

    const MIB: u64 = 1 << 20;

    fn put(shares: &mut Shares, owner: Owner, bytes: u64) -> Result<(), Refusal> {
        shares.admit(owner, bytes)?;
        shares.pass(owner.channel);
        shares.add(owner.vm, bytes);
        Ok(())
    }

    #[test]
    fn a_virtual_machine_has_so_many_bytes_in_a_queue_by_all_its_devices() {
        let mut shares = Shares::default();
        let [first, second, other] = [(0, 0), (1, 0), (2, 2)].map(|(channel, vm)| Owner { channel, vm });
        assert_eq!(put(&mut shares, first, 4 * MIB), Ok(()));
        assert_eq!(put(&mut shares, second, 4 * MIB), Ok(()));
        for owner in [first, second] {
            assert_eq!(put(&mut shares, owner, 512), Err(Refusal::Enough));
        }
        assert_eq!(put(&mut shares, other, 4 * MIB), Ok(()));
        shares.remove(0, 4 * MIB);
        assert_eq!(put(&mut shares, first, 4 * MIB), Ok(()));
    }

    #[test]
    fn one_request_is_admitted_however_long_it_is() {
        let mut shares = Shares::default();
        let owner = Owner { channel: 0, vm: 0 };
        assert_eq!(put(&mut shares, owner, 64 * MIB), Ok(()));
        assert_eq!(put(&mut shares, owner, 512), Err(Refusal::Enough));
        shares.remove(0, 64 * MIB);
        assert_eq!(put(&mut shares, owner, 512), Ok(()));
    }

    #[test]
    fn who_has_enough_keeps_nobody_from_the_queue() {
        let mut shares = Shares::default();
        let [one, other] = [0, 1].map(|place| Owner { channel: place, vm: place });
        shares.miss(0);
        assert_eq!(put(&mut shares, other, 512), Err(Refusal::Turn));
        shares.add(0, BYTES_MAX);
        assert_eq!(put(&mut shares, one, 512), Err(Refusal::Enough));
        assert_eq!(put(&mut shares, other, 512), Ok(()));
    }

    #[test]
    fn a_full_queue_is_shared_evenly() {
        // Rounds that begin with each in turn, and a queue that frees little in every second one, or in each.
        for (clients, freed, every) in [(2, 4, 2), (2, 1, 1), (3, 4, 3), (3, 16, 2), (5, 1, 5)] {
            let (mut shares, mut queue, mut served) = (Shares::default(), VecDeque::new(), vec![0; clients]);
            for round in 0..if cfg!(miri) { 100 } else { 3000 } {
                for place in (0..clients).map(|place| (place + round) % clients) {
                    let mut count = 0;
                    while count < 16 {
                        let owner = Owner { channel: place, vm: place };
                        if queue.len() == 32 || shares.admit(owner, 512).is_err() {
                            if count == 0 {
                                shares.miss(place);
                            }
                            break;
                        }
                        shares.pass(place);
                        shares.add(place, 512);
                        queue.push_back(place);
                        served[place] += 1;
                        count += 1;
                    }
                }
                if round % every == 0 {
                    queue.drain(..freed.min(queue.len())).for_each(|place| shares.remove(place, 512));
                }
            }
            let (least, most) = (served.iter().min().copied().unwrap(), served.iter().max().copied().unwrap());
            assert!(least * 10 >= most * 7, "{clients} clients, {freed} in {every}: {served:?}");
        }
    }
}
