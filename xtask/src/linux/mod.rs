//! What the Linux guests are made of: Debian's arm64 kernel, and a root file system of busybox and one script.

pub(crate) mod root_file_system;
