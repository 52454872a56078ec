//! What a real virtio disk answers, in the words of the block service: the same for both of its drivers.

use super::Submission;
use abi::io::{FEATURE_FLUSH, FEATURE_READ_ONLY, Status};
use rt::virtio::{Failed, Refused};

/// The `FEATURE_` bits of a disk.
pub(super) const fn features(is_read_only: bool, has_cache: bool) -> u64 {
    let read_only = if is_read_only { FEATURE_READ_ONLY } else { 0 };
    let flush = if has_cache { FEATURE_FLUSH } else { 0 };
    read_only | flush
}

/// What became of a request that the disk has done.
pub(super) const fn status(outcome: Result<(), Failed>) -> Status {
    match outcome {
        Ok(()) => Status::Done,
        Err(Failed) => Status::Failed,
    }
}

/// What became of a request that was handed to the driver, which gives one back that it does not take.
#[inline]
pub(super) fn submission<T>(submitted: Result<(), (Refused, T)>) -> Submission {
    match submitted {
        Ok(()) => Submission::Queued,
        Err((Refused::Busy, _)) => Submission::Busy,
        Err((Refused::Invalid, _)) => Submission::Finished(Status::Failed),
    }
}
