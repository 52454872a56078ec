//! What the Linux guests are made of: Debian's arm64 kernel and its modules, and a root file system of busybox and a
//! few scripts, in an archive or on a partition.

mod boot_script;
pub(crate) mod initial_archive;
pub(crate) mod modules;
mod partition;
pub(crate) mod program;
pub(crate) mod root_file_system;

pub(crate) use partition::{Kernel, root_partition};
