//! System descriptions: TOML in, bundle out.
//!
//! [`load`] reads and validates a file of `guests/systems`, [`bundle()`] reads the images, places them in guest RAM,
//! writes each guest's device tree and packs it all, and [`report()`] says who owns what. Whatever is wrong is a
//! [`Problem`]: a sentence with file and line.
//!
//! What must hold of a system is decided in the `manifest` crate, with the very code that EL2 runs; this module finds
//! the line. What it leaves out: building and downloading images (behind [`Images`]), and starting anything.

mod ad_hoc;
mod addressing;
mod archive;
mod backend;
mod bundle;
mod cards;
mod channels;
mod decode;
mod device_tree;
mod form;
mod identity;
mod ip;
mod kernel;
mod layout;
mod notes;
mod overlaps;
mod placement;
mod plugs;
mod problem;
mod reader;
mod report;
mod size;
mod slots;
mod sockets;
mod source;
mod storage;
pub(crate) mod virtio;

#[cfg(test)]
mod invalid;

pub(crate) use ad_hoc::{AdHoc, ad_hoc};
pub(crate) use backend::Mac;
pub(crate) use bundle::{Bundle, BundleOptions, Contents, Images, bundle};
pub(crate) use plugs::Plug;
pub(crate) use problem::{Problem, Problems, choice, nearest};
pub(crate) use reader::load;
pub(crate) use report::{json, json_of_problems, report};
pub(crate) use size::{parse_size, show_size_rounded};
pub(crate) use source::{DEBIAN, ImageName, Source, VmSource};
#[cfg(test)]
pub(crate) use storage::Partition;
pub(crate) use storage::{Content, Disk};
