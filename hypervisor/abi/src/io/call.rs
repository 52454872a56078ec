//! What a backend asks of EL2, and the two ways to ask: an HVC, and a store to a page that EL2 emulates.
//!
//! The page is for software that cannot execute HVC, such as a program in user space. A system gives it to a backend
//! as a device of the kind [`CALLS_KIND`]; all such pages of a VM are the same one.
//!
//! | offset | name | store | load |
//! | --- | --- | --- | --- |
//! | 0x000 | ATTACH | makes the call for this channel | – |
//! | 0x004 | READY | makes the call, whatever the value | – |
//! | 0x008 | COMPLETE | makes the call for this channel | – |
//! | 0x800 + 4·*n* | RESULT | – | what the last store to ATTACH or COMPLETE for channel *n* returned |
//!
//! All are words. A result is the low half of what the HVC returns: 0 if there was no such store since the backend
//! started, and that of [`INVALID_PARAMETER`] for a channel that does not exist, of which a store to a register does
//! nothing. READY always returns 0, and has no result. What the table does not have, and any other width, ends in an
//! external abort.

#[cfg(doc)]
use super::INVALID_PARAMETER;

/// The function id of "attach": the description of channel `x1`'s device is in the channel. Returns 0; 1, if an
/// interrupt was pending: call again, which goes on with the description that was read; or -3 (invalid parameter), and
/// then nothing has changed: there is no such channel; the description is malformed, has more queues
/// than the manifest allocated, or a queue whose sizes contradict one another; header, tail or early return of a queue
/// in use differ; or a feature is missing that the frontend's driver has accepted. It may be repeated: a driver is told
/// of a configuration that has changed.
pub const FUNCTION_ATTACH: u32 = 0xc600_0010;

/// The function id of "ready": every channel is attached, and frontends may start. Returns 0. "Complete" for each
/// channel follows, until it returns 0: what was out when an earlier start of the backend ended is posted again by
/// that.
pub const FUNCTION_READY: u32 = 0xc600_0011;

/// The function id of "complete": channel `x1` has completions or receptions. Returns 0, -3 (no such channel), or 1 if
/// there was more than EL2 does at one go: call again.
pub const FUNCTION_COMPLETE: u32 = 0xc600_0012;

/// What a manifest calls the page.
pub const CALLS_KIND: &str = "calls";

/// The `compatible` string of the page's node in the backend's device tree; `reg` says where it is.
pub const CALLS_COMPATIBLE: &str = "bulkhead,calls";

/// The size of the page in bytes.
pub const CALLS_SIZE: u64 = 4096;

/// Offset of the results.
const RESULTS: u64 = 0x800;

/// A call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Call {
    /// [`FUNCTION_ATTACH`].
    Attach,
    /// [`FUNCTION_READY`].
    Ready,
    /// [`FUNCTION_COMPLETE`].
    Complete,
}

impl Call {
    /// Every call.
    pub const ALL: [Self; 3] = [Self::Attach, Self::Ready, Self::Complete];

    /// Its function id.
    #[inline]
    #[must_use]
    pub const fn function(self) -> u32 {
        match self {
            Self::Attach => FUNCTION_ATTACH,
            Self::Ready => FUNCTION_READY,
            Self::Complete => FUNCTION_COMPLETE,
        }
    }

    /// The call with the function id `function`.
    #[inline]
    #[must_use]
    pub const fn of_function(function: u32) -> Option<Self> {
        match function {
            FUNCTION_COMPLETE => Some(Self::Complete),
            FUNCTION_ATTACH => Some(Self::Attach),
            FUNCTION_READY => Some(Self::Ready),
            _ => None,
        }
    }

    /// The offset of its register in the page.
    #[inline]
    #[must_use]
    pub const fn register(self) -> u64 {
        match self {
            Self::Attach => 0x000,
            Self::Ready => 0x004,
            Self::Complete => 0x008,
        }
    }

    /// The call whose register is at `offset` of the page.
    #[inline]
    #[must_use]
    pub const fn at_register(offset: u64) -> Option<Self> {
        match offset {
            0x000 => Some(Self::Attach),
            0x004 => Some(Self::Ready),
            0x008 => Some(Self::Complete),
            _ => None,
        }
    }

    /// Whether it is for a channel, whose result says what it has returned.
    #[inline]
    #[must_use]
    pub const fn is_for_channel(self) -> bool {
        match self {
            Self::Attach | Self::Complete => true,
            Self::Ready => false,
        }
    }
}

/// The offset of the result of channel `number` in the page; `None` where the page has none.
#[inline]
#[must_use]
pub const fn result_register(number: u32) -> Option<u64> {
    let offset = RESULTS + 4 * number as u64;
    if offset < CALLS_SIZE { Some(offset) } else { None }
}

/// The channel whose result is at `offset` of the page.
#[inline]
#[must_use]
pub const fn channel_of_result(offset: u64) -> Option<u64> {
    if offset < RESULTS || offset >= CALLS_SIZE || !offset.is_multiple_of(4) {
        None
    } else {
        Some((offset - RESULTS) / 4)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_ways_to_ask_know_every_call_and_nothing_else() {
        for call in Call::ALL {
            assert_eq!(
                (Call::of_function(call.function()), Call::at_register(call.register())),
                (Some(call), Some(call))
            );
        }
        let known = |offset: &u64| Call::at_register(*offset).is_some();
        assert_eq!((0..2 * CALLS_SIZE).filter(known).count(), Call::ALL.len());
        let known = |function: &u32| Call::of_function(*function).is_some();
        assert_eq!((0xc600_0000..0xc600_0100).filter(known).count(), Call::ALL.len());
    }

    #[test]
    fn each_channel_has_a_result_of_its_own_apart_from_the_calls() {
        for number in 0..64 {
            let offset = result_register(number).unwrap();
            assert_eq!((channel_of_result(offset), Call::at_register(offset)), (Some(number.into()), None));
        }
        for offset in [0, 4, 0x7fc, 0x801, 0x802, 0x1000, 0x1800, u64::MAX] {
            assert_eq!(channel_of_result(offset), None, "{offset:#x}");
        }
        assert_eq!((result_register(511), result_register(512), result_register(u32::MAX)), (Some(0xffc), None, None));
    }
}
