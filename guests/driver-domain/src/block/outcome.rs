//! What a real virtio disk answers, in the words of the block service: the same for both of its drivers.

use super::Submission;
use rt::virtio::{Failed, Refused};
use services::block::{Features, Status};

/// What a disk can do.
pub(super) fn features(is_read_only: bool, has_cache: bool) -> Features {
    Features { is_read_only, has_cache, ..Features::default() }
}

/// What became of a request that the disk has done.
pub(super) const fn status(outcome: Result<(), Failed>) -> Status {
    match outcome {
        Ok(()) => Status::Ok,
        Err(Failed) => Status::IoError,
    }
}

/// What became of a request that was handed to the driver, which gives one back that it does not take.
#[inline]
pub(super) fn submission<T>(submitted: Result<(), (Refused, T)>) -> Submission {
    match submitted {
        Ok(()) => Submission::Queued,
        Err((Refused::Busy, _)) => Submission::Busy,
        Err((Refused::Invalid, _)) => Submission::Finished(Status::IoError),
    }
}
