//! Disks: what stands behind a client's block device, and the service that keeps each client within its slice.

mod device;
mod outcome;
mod part;
mod plain_disk;
mod ram_disk;
mod service;
mod virtio_disk;

pub use device::{BlockDevice, Command, Data, Submission, Tag};
pub use part::Part;
pub use plain_disk::PlainDisk;
pub use ram_disk::RamDisk;
pub use service::{Attachment, BlockService, Serial, finish};
pub use virtio_disk::VirtioDisk;
