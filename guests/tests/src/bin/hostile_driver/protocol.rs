//! What client and driver domain agree on: a disk whose contents both know, and sectors of it with a meaning of their own.

/// The disk's size in sectors.
pub(crate) const SECTORS: u64 = 128;
/// Sectors below this one hold what [`pattern`] says.
pub(crate) const PLAIN_SECTORS: u64 = 120;
/// The client writes here what comes next: the number of an [`Attack`].
pub(crate) const COMMAND: u64 = 120;
/// The client reads here what became of it.
pub(crate) const RESULT: u64 = 121;
pub(crate) const SECTOR_SIZE: usize = 512;
/// What the source of random numbers gives, while it behaves.
pub(crate) const RANDOM: u8 = 0xee;

/// The contents of sector `sector`.
pub(crate) fn pattern(sector: u64) -> [u8; SECTOR_SIZE] {
    let mut bytes = [0; SECTOR_SIZE];
    for (index, word) in bytes.as_chunks_mut::<8>().0.iter_mut().enumerate() {
        *word = ((sector << 8 | index as u64) ^ 0x5ec7).wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes();
    }
    bytes
}

/// How an attack went, from the driver domain's side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum State {
    Running = 1,
    Done = 2,
    Failed = 3,
}

macro_rules! attacks {
    ($($attack:ident, $may_end:literal, $name:literal;)*) => {
        /// What the driver domain does.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(crate) enum Attack { $($attack),* }

        impl Attack {
            /// Every one; the index is its number.
            pub(crate) const ALL: &[Self] = &[$(Self::$attack),*];

            /// What is to be seen of it, as a sentence.
            pub(crate) const fn name(self) -> &'static str {
                match self { $(Self::$attack => concat!("20: ", $name)),* }
            }

            /// Whether the driver domain may be started anew for it.
            pub(crate) const fn may_end_the_domain(self) -> bool {
                match self { $(Self::$attack => $may_end),* }
            }
        }
    };
}

attacks! {
    Forged, false, "sequence numbers that nobody gave out complete nothing";
    Foreign, false, "the sequence number of another channel completes nothing of it";
    Twice, false, "a request that is completed again and again is completed once";
    Stale, false, "a completion of another generation completes nothing";
    Lengths, false, "a completion longer than its request brings no byte more, and a shorter one is an error";
    Statuses, false, "a status that nobody knows is an I/O error";
    Completions, true, "a completion counter that jumps ahead or goes back is refused";
    Events, false, "an event word of garbage costs doorbells and nothing else";
    Receptions, false, "receptions of any length and with any flags stay in the buffers for them";
    ReceptionCounter, true, "a reception counter that jumps ahead or goes back is refused";
    Flips, true, "rings that another CPU writes to while Bulkhead reads them do no harm";
    Attachments, false, "what no device is cannot be attached";
    AttachedAgain, false, "a disk that is attached anew during requests, of another size and with other features, harms nobody";
    Absent, false, "channels that there are not have nothing to attach or complete";
    ReadyAgain, false, "a domain may be ready more than once, and complete before it is";
    Unknown, false, "calls that nobody knows are not supported";
    Storm, false, "a storm of completion calls comes to an end";
    Deaf, false, "a doorbell that is disabled rings for nobody";
    Silent, false, "requests that are completed after their client has given up are nobody's";
    Overwritten, false, "what is written over requests that are out does not change what they were";
    Neighbours, false, "memory beside its own is out of its reach";
    Reset, true, "a domain that asks for its own reset in the midst of requests is started anew";
}

impl Attack {
    pub(crate) fn from_number(number: u32) -> Option<Self> {
        Self::ALL.get(number as usize).copied()
    }
}
