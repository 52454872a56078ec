//! What a backend says of a device, checked: nothing that the manifest did not allocate, and nothing that EL2 cannot
//! do.

use super::QUEUES_MAX;
use super::window::RUN_MAX;
use abi::io::{
    CONFIGURATION_SIZE, DescriptionWords, HEADER_SIZE_MAX, LongChains, QueueDescription, Restart, TAIL_SIZE_MAX,
    WINDOW_PAGE_SIZE,
};
use core::fmt;

/// What a manifest allocates for a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Allocation {
    /// How many queues it may have.
    pub queues: u16,
    /// Which of them are filled by the backend unasked, a bit each.
    pub filled: u32,
    /// How many requests are out at a time. Those that the frontend has forgotten count: however often it resets its
    /// device, it keeps no more of the backend busy, or of its memory granted.
    pub requests: u16,
    /// How many chains are kept for them.
    pub chains: u8,
}

/// The smallest request that may be granted, in bytes: a grant of less costs more than the copy.
const GRANT_MIN: u32 = WINDOW_PAGE_SIZE as u32;
/// The largest unit of pieces in bytes.
const PIECE_UNIT_MAX: u32 = 64 << 10;

/// Why a description is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// It says what there is not.
    Malformed,
    /// It has more queues than the manifest allocated.
    Queues,
    /// The part of the configuration space that changes is no part of it.
    Configuration,
    /// A queue's header, tail, sizes or features are beyond their limits, or contradict one another.
    Queue,
    /// A queue's header or tail has another size than what is out was made with, or its chains go back at another time.
    OtherSizes,
    /// It lacks a feature that the frontend's driver has accepted.
    FeaturesLost,
}

impl fmt::Display for Refused {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Malformed => "it says what there is not",
            Self::Queues => "it has more queues than the manifest allocates",
            Self::Configuration => "what changes of its configuration space is no part of it",
            Self::Queue => "the sizes of a queue are too large, or contradict one another",
            Self::OtherSizes => "the header, the tail or the return of a queue in use differs",
            Self::FeaturesLost => "it lacks a feature that the driver has accepted",
        })
    }
}

/// Checks `description` against what was allocated; the request window has `window` bytes. What it says of each queue
/// goes into `policies`.
///
/// # Errors
/// See [`Refused`]; what is in `policies` then is of no use.
pub fn check(
    description: &DescriptionWords,
    allocation: &Allocation,
    window: u64,
    policies: &mut [QueueDescription; QUEUES_MAX],
) -> Result<(), Refused> {
    let (live_size, queue_count) = (description.live_size(), description.queue_count());
    if queue_count > allocation.queues || usize::from(queue_count) > QUEUES_MAX {
        return Err(Refused::Queues);
    }
    if !live_size.is_multiple_of(4) || usize::from(live_size) > CONFIGURATION_SIZE {
        return Err(Refused::Configuration);
    }
    for (index, policy) in (0..).zip(policies) {
        *policy = description.queue(index).ok_or(Refused::Malformed)?;
        let is_filled = allocation.filled.wrapping_shr(u32::from(index)) & 1 != 0;
        let is_sound = if is_filled { is_filled_sound(policy) } else { is_request_sound(policy, window) };
        if index < queue_count && !is_sound {
            return Err(Refused::Queue);
        }
    }
    Ok(())
}

fn is_filled_sound(queue: &QueueDescription) -> bool {
    queue.header_size == 0
        && queue.tail_size == 0
        && !queue.returns_early
        && queue.merge_feature.is_none_or(|feature| feature < 64)
        // It is in the header of the kind: a frontend's buffers may be of a byte each.
        && queue.count_offset.is_none_or(|offset| usize::from(offset) <= HEADER_SIZE_MAX)
}

fn is_request_sound(queue: &QueueDescription, window: u64) -> bool {
    let are_bytes_sound = usize::from(queue.header_size) <= HEADER_SIZE_MAX
        && usize::from(queue.tail_size) <= TAIL_SIZE_MAX
        && u64::from(queue.size_max) <= window.min(u64::from(RUN_MAX).saturating_mul(WINDOW_PAGE_SIZE));
    let is_unit_sound = queue.piece_unit.is_power_of_two() && queue.piece_unit <= PIECE_UNIT_MAX;
    let are_pieces_sound = queue.long_chains != LongChains::Split || queue.piece_unit <= queue.size_max;
    // A chain with a tail does not go back without one: its driver would find what was there before.
    let is_restart_sound = queue.restart != Restart::Drop || queue.tail_size == 0;
    // What goes back early has no answer, and is not its frontend's to keep.
    let is_early_sound = !queue.returns_early || (queue.tail_size == 0 && queue.grant_min.is_none());
    // A frontend waits for its grants when it resets its device, and nobody waits for ever.
    let is_grant_sound =
        queue.grant_min.is_none_or(|bytes| bytes >= GRANT_MIN && bytes >= queue.piece_unit && !queue.is_patient);
    is_restart_sound && are_bytes_sound && is_unit_sound && are_pieces_sound && is_early_sound && is_grant_sound
}

#[cfg(test)]
mod tests {
    use super::*;
    use abi::io::{DESCRIPTION, Description};

    const WINDOW: u64 = 0x4_0000;
    const DISK: Allocation = Allocation { queues: 2, filled: 0, requests: 30, chains: 30 };

    fn queue() -> QueueDescription {
        QueueDescription {
            header_size: 16,
            tail_size: 1,
            long_chains: LongChains::Split,
            restart: Restart::Replay,
            is_patient: false,
            size_max: 0x4_0000,
            piece_unit: 4096,
            grant_min: Some(0x4000),
            ..QueueDescription::NONE
        }
    }

    fn disk(queue: QueueDescription) -> Description {
        let mut queues = [QueueDescription::NONE; QUEUES_MAX];
        queues[0] = queue;
        Description { features: 0, configuration: [0; CONFIGURATION_SIZE], live_size: 8, queue_count: 1, queues }
    }

    fn check(description: &Description, allocation: &Allocation, window: u64) -> Result<(), Refused> {
        let words = description.to_words();
        let mut copy = DescriptionWords::NONE;
        for (offset, part) in copy.parts_mut() {
            let first = (offset - DESCRIPTION) as usize / 16;
            part.copy_from_slice(&words.as_chunks().0[first..first + part.len()]);
        }
        let mut policies = [QueueDescription::NONE; QUEUES_MAX];
        super::check(&copy, allocation, window, &mut policies)?;
        let count = usize::from(description.queue_count);
        assert_eq!(policies[..count], description.queues[..count]);
        assert!(policies[count..].iter().all(|policy| *policy == QueueDescription::NONE));
        Ok(())
    }

    #[test]
    fn a_backend_may_use_less_than_was_allocated_and_never_more() {
        assert_eq!(check(&disk(queue()), &DISK, WINDOW), Ok(()));
        for (count, result) in [(0, Ok(())), (2, Ok(())), (3, Err(Refused::Queues)), (u16::MAX, Err(Refused::Queues))] {
            let mut description = disk(queue());
            description.queue_count = count;
            description.queues[1] = queue();
            assert_eq!(check(&description, &DISK, WINDOW), result, "{count}");
        }
    }

    #[test]
    fn what_changes_is_whole_words_of_the_configuration_space() {
        for (size, is_sound) in [(0, true), (256, true), (2, false), (260, false), (u16::MAX, false)] {
            let description = Description { live_size: size, ..disk(queue()) };
            assert_eq!(check(&description, &DISK, WINDOW).is_ok(), is_sound, "{size}");
        }
    }

    #[test]
    fn a_queue_keeps_to_what_there_is_room_for() {
        let bad = [
            QueueDescription { header_size: 17, ..queue() },
            QueueDescription { tail_size: 9, ..queue() },
            QueueDescription { size_max: 0x4_0001, ..queue() },
            QueueDescription { size_max: u32::MAX, ..queue() },
            QueueDescription { piece_unit: 0, ..queue() },
            QueueDescription { piece_unit: 513, ..queue() },
            QueueDescription { piece_unit: 1 << 17, ..queue() },
            QueueDescription { size_max: 2048, ..queue() },
            QueueDescription { grant_min: Some(512), ..queue() },
            QueueDescription { returns_early: true, ..queue() },
            QueueDescription { restart: Restart::Drop, ..queue() },
            QueueDescription { is_patient: true, ..queue() },
            QueueDescription { returns_early: true, tail_size: 0, ..queue() },
        ];
        for queue in bad {
            assert_eq!(check(&disk(queue), &DISK, WINDOW), Err(Refused::Queue), "{queue:?}");
        }
        let early = QueueDescription { returns_early: true, tail_size: 0, grant_min: None, ..queue() };
        assert_eq!(check(&disk(early), &DISK, WINDOW), Ok(()));
        assert_eq!(check(&disk(queue()), &DISK, 0x1000), Err(Refused::Queue), "the window is smaller");
    }

    #[test]
    fn a_filled_queue_has_no_requests() {
        let card = Allocation { filled: 1, ..DISK };
        let filled = QueueDescription { merge_feature: Some(15), count_offset: Some(10), ..QueueDescription::NONE };
        assert_eq!(check(&disk(filled), &card, WINDOW), Ok(()));
        assert_eq!(check(&disk(queue()), &card, WINDOW), Err(Refused::Queue));
        for bad in
            [QueueDescription { merge_feature: Some(64), ..filled }, QueueDescription { returns_early: true, ..filled }]
        {
            assert_eq!(check(&disk(bad), &card, WINDOW), Err(Refused::Queue), "{bad:?}");
        }
    }
}
