//! What a backend says of a device when it attaches: features, configuration space, and the policy of each queue.

/// Offset of the description in a channel.
pub const DESCRIPTION: u64 = 0x800;
/// The most bytes of a configuration space.
pub const CONFIGURATION_SIZE: usize = 256;
/// The most queues of a device.
pub const QUEUES_MAX: usize = 8;
/// The most bytes of a header.
pub const HEADER_SIZE_MAX: usize = 16;
/// The most bytes of a tail.
pub const TAIL_SIZE_MAX: usize = 8;

/// A device, as its backend describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Description {
    /// The features of this kind of device (VIRTIO 1.2, 2.2: bits 0 to 23 and 50 to 63). Those of the transport and of
    /// the queues are EL2's.
    pub features: u64,
    /// The configuration space; zero behind what the device has.
    pub configuration: [u8; CONFIGURATION_SIZE],
    /// How many bytes at the start of the configuration space follow a change while a driver has the device, a multiple
    /// of 4. What else there is was settled with the features, and changes with the next reset.
    pub live_size: u16,
    /// How many queues the device has.
    pub queue_count: u16,
    /// What EL2 does with the chains of each queue; behind `queue_count` there are none.
    pub queues: [QueueDescription; QUEUES_MAX],
}

/// What becomes of a chain with more data than a request may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LongChains {
    /// It fails.
    Refuse,
    /// The request has as much of it as it may have, and the rest is left as it is.
    Cut,
    /// It becomes several requests, one after the other.
    Split,
}

/// What becomes of a request that is out when the backend ends, once there is a new one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Restart {
    /// It is posted again.
    Replay,
    /// Its chain is given back with nothing written.
    Drop,
    /// Its chain fails.
    Fail,
}

/// What EL2 does with the chains of a queue. A chain *fails* when it is given back with the tail
/// [`QueueDescription::failure`], and without data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueueDescription {
    /// Bytes at the start of what a chain gives that travel in the request, at most [`HEADER_SIZE_MAX`].
    pub header_size: u8,
    /// Bytes at the end of a chain's room that travel in the completion, at most [`TAIL_SIZE_MAX`].
    pub tail_size: u8,
    /// What becomes of long chains.
    pub long_chains: LongChains,
    /// The chain is given back when its bytes are copied, and not when the request completes: it has no room for an
    /// answer. Its driver may hear of that later, together with something else.
    pub returns_early: bool,
    /// What becomes of requests when the backend ends and starts again.
    pub restart: Restart,
    /// A request may stay out for ever, and is no reason to take the backend for stuck.
    pub is_patient: bool,
    /// A chain that is filled may be one of several that hold one reception, if the driver has accepted the feature
    /// with this number.
    pub merge_feature: Option<u8>,
    /// Where in a reception the number of the chains that hold it is written, 16 bits: bytes from its start.
    pub count_offset: Option<u8>,
    /// The most bytes of data of one request that are copied.
    pub size_max: u32,
    /// The data of pieces is a multiple of so many bytes, but for the last: a power of two.
    pub piece_unit: u32,
    /// From so many bytes of data on a request is granted; `None` for never.
    pub grant_min: Option<u32>,
    /// The tail of a chain that fails.
    pub failure: [u8; TAIL_SIZE_MAX],
}

impl QueueDescription {
    /// A queue whose chains are refused: where there is no queue.
    pub const NONE: Self = Self {
        header_size: 0,
        tail_size: 0,
        long_chains: LongChains::Refuse,
        returns_early: false,
        restart: Restart::Drop,
        is_patient: true,
        merge_feature: None,
        count_offset: None,
        size_max: 0,
        piece_unit: 1,
        grant_min: None,
        failure: [0; TAIL_SIZE_MAX],
    };

    const LONG_CHAINS: u32 = 0b11;
    const RETURNS_EARLY: u32 = 1 << 2;
    const RESTART_SHIFT: u32 = 3;
    const RESTART: u32 = 0b11 << Self::RESTART_SHIFT;
    const IS_PATIENT: u32 = 1 << 5;
    const MERGES: u32 = 1 << 6;
    const COUNTS: u32 = 1 << 7;
    const IS_GRANTED: u32 = 1 << 8;
    const FLAGS: u32 = 0x1ff;

    /// The words of the description.
    #[must_use]
    const fn to_words(self) -> [u64; 4] {
        let long_chains = match self.long_chains {
            LongChains::Refuse => 0,
            LongChains::Cut => 1,
            LongChains::Split => 2,
        };
        let restart = match self.restart {
            Restart::Replay => 0,
            Restart::Drop => 1,
            Restart::Fail => 2,
        };
        let mut flags = long_chains | restart << Self::RESTART_SHIFT;
        if self.returns_early {
            flags |= Self::RETURNS_EARLY;
        }
        if self.is_patient {
            flags |= Self::IS_PATIENT;
        }
        let (mut merge_feature, mut count_offset, mut grant_min) = (0, 0, 0);
        if let Some(feature) = self.merge_feature {
            flags |= Self::MERGES;
            merge_feature = feature;
        }
        if let Some(offset) = self.count_offset {
            flags |= Self::COUNTS;
            count_offset = offset;
        }
        if let Some(bytes) = self.grant_min {
            flags |= Self::IS_GRANTED;
            grant_min = bytes;
        }
        let bytes = u32::from_le_bytes([self.header_size, self.tail_size, merge_feature, count_offset]);
        [
            super::pair(flags, bytes),
            super::pair(self.size_max, self.piece_unit),
            grant_min as u64,
            u64::from_le_bytes(self.failure),
        ]
    }

    /// The description that these words say; `None` if they say what there is not.
    const fn from_words(words: &[u64; QUEUE_WORDS]) -> Option<Self> {
        let &[first, sizes, grant_min, failure] = words;
        let flags = first as u32;
        let [header_size, tail_size, merge_feature, count_offset] = ((first >> 32) as u32).to_le_bytes();
        let long_chains = match flags & Self::LONG_CHAINS {
            0 => LongChains::Refuse,
            1 => LongChains::Cut,
            2 => LongChains::Split,
            _ => return None,
        };
        let restart = match (flags & Self::RESTART) >> Self::RESTART_SHIFT {
            0 => Restart::Replay,
            1 => Restart::Drop,
            2 => Restart::Fail,
            _ => return None,
        };
        if flags & !Self::FLAGS != 0 {
            return None;
        }
        Some(Self {
            header_size,
            tail_size,
            long_chains,
            returns_early: flags & Self::RETURNS_EARLY != 0,
            restart,
            is_patient: flags & Self::IS_PATIENT != 0,
            merge_feature: if flags & Self::MERGES != 0 { Some(merge_feature) } else { None },
            count_offset: if flags & Self::COUNTS != 0 { Some(count_offset) } else { None },
            size_max: sizes as u32,
            piece_unit: (sizes >> 32) as u32,
            grant_min: if flags & Self::IS_GRANTED != 0 { Some(grant_min as u32) } else { None },
            failure: failure.to_le_bytes(),
        })
    }
}

/// A description as it lies in a channel: whoever reads it copies the words once, and sees in the copy what they say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DescriptionWords {
    head: [u64; HEAD_WORDS],
    configuration: [u64; CONFIGURATION_WORDS],
    queues: [[u64; QUEUE_WORDS]; QUEUES_MAX],
}

impl DescriptionWords {
    /// Of a device without features and queues.
    pub const NONE: Self =
        Self { head: [0; HEAD_WORDS], configuration: [0; CONFIGURATION_WORDS], queues: [[0; QUEUE_WORDS]; QUEUES_MAX] };

    /// Where the words go that are to be copied, each part with its offset in the channel.
    pub fn parts_mut(&mut self) -> [(u64, &mut [[u64; 2]]); 3] {
        let configuration = DESCRIPTION + size_of_val(&self.head) as u64;
        let queues = configuration + size_of_val(&self.configuration) as u64;
        [
            (DESCRIPTION, self.head.as_chunks_mut().0),
            (configuration, self.configuration.as_chunks_mut().0),
            (queues, self.queues.as_flattened_mut().as_chunks_mut().0),
        ]
    }

    /// See [`Description::features`].
    #[must_use]
    pub const fn features(&self) -> u64 {
        let [features, _] = self.head;
        features
    }

    /// See [`Description::live_size`].
    #[must_use]
    pub const fn live_size(&self) -> u16 {
        let [_, sizes] = self.head;
        sizes as u16
    }

    /// See [`Description::queue_count`]. There may be fewer queues than that.
    #[must_use]
    pub const fn queue_count(&self) -> u16 {
        let [_, sizes] = self.head;
        (sizes >> 16) as u16
    }

    /// The configuration space, in little-endian words.
    #[must_use]
    pub const fn configuration(&self) -> &[u64; CONFIGURATION_WORDS] {
        &self.configuration
    }

    /// The description of queue `index`; `None` if the words say what there is not. What may be true of no device is
    /// for the reader to find.
    #[must_use]
    pub fn queue(&self, index: u16) -> Option<QueueDescription> {
        match self.queues.get(usize::from(index)) {
            Some(words) if index < self.queue_count() => QueueDescription::from_words(words),
            _ => Some(QueueDescription::NONE),
        }
    }
}

/// Words of 64 bits in front of the configuration space.
const HEAD_WORDS: usize = 2;
const CONFIGURATION_WORDS: usize = CONFIGURATION_SIZE / 8;
const QUEUE_WORDS: usize = 4;

impl Description {
    /// The size of a description in words of 64 bits, an even number.
    pub const WORDS: usize = HEAD_WORDS + CONFIGURATION_WORDS + QUEUES_MAX * QUEUE_WORDS;

    /// The words of the description.
    #[must_use]
    pub fn to_words(&self) -> [u64; Self::WORDS] {
        let mut words = [0; Self::WORDS];
        let head = [self.features, self.live_size as u64 | (self.queue_count as u64) << 16];
        let (configuration, _) = self.configuration.as_chunks();
        let configuration = configuration.iter().map(|bytes| u64::from_le_bytes(*bytes));
        let queues = self.queues.iter().flat_map(|queue| queue.to_words());
        let all = head.into_iter().chain(configuration).chain(queues);
        words.iter_mut().zip(all).for_each(|(word, value)| *word = value);
        words
    }
}

const _: () = assert!(Description::WORDS.is_multiple_of(2) && Description::WORDS * 8 <= 0x800);

#[cfg(test)]
mod tests {
    use super::*;

    fn disk() -> Description {
        let queue = QueueDescription {
            header_size: 16,
            tail_size: 1,
            long_chains: LongChains::Split,
            returns_early: false,
            restart: Restart::Replay,
            is_patient: false,
            merge_feature: None,
            count_offset: None,
            size_max: 0x4_0000,
            piece_unit: 4096,
            grant_min: Some(0x4000),
            failure: [1, 0, 0, 0, 0, 0, 0, 0],
        };
        let mut queues = [QueueDescription::NONE; QUEUES_MAX];
        queues[0] = queue;
        queues[1] = QueueDescription {
            long_chains: LongChains::Cut,
            returns_early: true,
            restart: Restart::Fail,
            is_patient: true,
            merge_feature: Some(15),
            count_offset: Some(10),
            grant_min: None,
            ..queue
        };
        let configuration = core::array::from_fn(|index| index as u8);
        Description { features: 1 << 50 | 3, configuration, live_size: 8, queue_count: 2, queues }
    }

    /// What a reader copies.
    fn copied(words: [u64; Description::WORDS]) -> DescriptionWords {
        let mut copy = DescriptionWords::NONE;
        for (offset, part) in copy.parts_mut() {
            let first = (offset - DESCRIPTION) as usize / 16;
            part.copy_from_slice(&words.as_chunks().0[first..first + part.len()]);
        }
        copy
    }

    #[test]
    fn a_description_reads_back_as_it_was_written() {
        let copy = copied(disk().to_words());
        let configuration = copy.configuration().map(u64::to_le_bytes);
        let queues = core::array::from_fn(|index| copy.queue(index as u16).unwrap());
        let description = Description {
            features: copy.features(),
            configuration: core::array::from_fn(|index| configuration.as_flattened()[index]),
            live_size: copy.live_size(),
            queue_count: copy.queue_count(),
            queues,
        };
        assert_eq!(description, disk());
        assert_eq!(copy.queue(QUEUES_MAX as u16), Some(QueueDescription::NONE));
    }

    #[test]
    fn behind_the_last_queue_there_is_none_whatever_lies_there() {
        let mut words = disk().to_words();
        words[HEAD_WORDS + CONFIGURATION_WORDS + 2 * QUEUE_WORDS..].fill(u64::MAX);
        assert_eq!(copied(words).queue(2), Some(QueueDescription::NONE));
    }

    #[test]
    fn what_there_is_not_is_no_description() {
        let first_queue = HEAD_WORDS + CONFIGURATION_WORDS;
        for flags in [3, 3 << 3, 1 << 9, 1 << 31] {
            let mut words = disk().to_words();
            words[first_queue] |= flags;
            assert_eq!(copied(words).queue(0), None, "{flags:#x}");
        }
    }
}
