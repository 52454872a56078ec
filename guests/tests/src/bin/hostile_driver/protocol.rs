//! What client and driver domain agree on: a disk whose contents both know, and sectors of it with a meaning of their
//! own.

/// VIRTIO_BLK_F_BLK_SIZE and VIRTIO_NET_F_GUEST_CSUM, which the client accepts (VIRTIO 1.2, 5.2.3, 5.1.3).
pub(crate) const BLOCK_BLK_SIZE: u64 = 1 << 6;
pub(crate) const NET_GUEST_CSUM: u64 = 1 << 1;
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

/// The most that a client may see of an attack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Harm {
    /// Everything is as it should be.
    None,
    /// Errors and delays; but a sector that is said to have been read has been.
    Errors,
    /// Anything, as long as it stays within the buffers of its requests.
    Data,
    /// The driver domain is started anew, and what Bulkhead says of it is this.
    Restart(&'static str),
}

/// What Bulkhead says of a driver domain that it starts anew.
const DAMAGED: &str = "has damaged the rings of a channel";
const ASKS: &str = "asks to start again";
const SILENT: &str = "shows no sign of life";
const STUCK: &str = "keeps a request for too long";

macro_rules! attacks {
    ($($attack:ident, $harm:ident $(($reason:ident))?, $name:literal;)*) => {
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

            /// The most that its client may see of it.
            pub(crate) const fn harm(self) -> Harm {
                match self { $(Self::$attack => Harm::$harm $(($reason))?),* }
            }
        }
    };
}

attacks! {
    Forged, None, "sequence numbers that nobody gave out complete nothing";
    Foreign, None, "the sequence number of another channel completes nothing of it";
    Twice, None, "a request that is completed again and again is completed once";
    Stale, None, "a completion of another generation completes nothing";
    Lengths, Data, "a completion longer than its request brings no byte more, and a shorter one no more than it says";
    Tails, Errors, "a status that nobody knows is an I/O error, and what stands behind it is not written";
    Pieces, Data, "pieces that end early, twice or too long stay in the buffers of their chain";
    Completions, Restart(DAMAGED), "a completion counter that jumps ahead or goes back is refused";
    Events, None, "an event word of garbage costs doorbells and nothing else";
    Sessions, None, "receptions for another session are nobody's";
    Receptions, Data, "receptions of any length, from anywhere, stay in the buffers for them";
    ReceptionCounter, Restart(DAMAGED), "a reception counter that jumps ahead or goes back is refused";
    Flips, Restart(DAMAGED), "rings that another CPU writes to while Bulkhead reads them do no harm but to the domain";
    Attachments, None, "what no device is cannot be attached";
    AttachedAgain, Errors, "a disk that is attached anew during requests, of another size and with other features, harms nobody";
    Lacking, None, "a device that lacks what its driver has accepted is not attached";
    Redescribed, Data, "a disk whose queue is described anew during requests harms nobody";
    Absent, None, "channels that there are not have nothing to attach or complete";
    ReadyAgain, None, "a domain may be ready more than once, and complete before it is";
    Unknown, None, "calls that nobody knows are not supported";
    Page, None, "the page of calls makes the calls that there are, for channels that there are, and nothing else";
    PageDamage, Restart(DAMAGED), "a domain that says by its page that it has damaged a ring, and spins on that CPU, is started anew";
    Storm, Errors, "a storm of completion calls comes to an end";
    Deaf, Errors, "a doorbell that is disabled rings for nobody";
    Silent, Data, "requests that are completed after their client has given up are nobody's";
    Overwritten, Errors, "what is written over requests that are out does not change what they were";
    Beats, None, "a heartbeat of garbage is a sign of life, as long as it changes";
    NoBeat, Restart(SILENT), "a heartbeat of 0 is no sign of life, whatever else is done";
    LongWait, Restart(SILENT), "a heartbeat that says that it waits for a device says so once too often";
    LastBeat, Restart(SILENT), "a heartbeat that stands still, and serves nobody, is the last";
    Dozes, Restart(SILENT), "a domain that sleeps until a timer of its own, and hangs then, is watched all the same";
    Kept, Restart(STUCK), "a request that is kept costs a restart, after which it is done";
    Neighbours, None, "memory beside its own is out of its reach";
    Reset, Restart(ASKS), "a domain that asks for its own reset in the midst of requests is started anew";
}

impl Attack {
    pub(crate) fn from_number(number: u32) -> Option<Self> {
        Self::ALL.get(number as usize).copied()
    }
}
