//! A driver domain that does what no driver domain should, and the client that it serves: whatever it does, the client
//! sees errors, wrong data or silence at worst, and not a byte outside the buffers of its own requests changes.
//!
//! One program for both, since the client decides what comes next: its memory outlives a driver domain that is started
//! anew. `role=driver` (the default) or `role=client`.
//!
//! | module | its one question |
//! | --- | --- |
//! | `protocol` | what do the two agree on? |
//! | `port` | what is in one channel? |
//! | `domain` | how does the driver domain behave while it behaves? |
//! | `rings`, `calls`, `page` | what does it do when it does not? |
//! | `lane` | what may happen to one queue of the client? |
//! | `client` | what does the client ask for, and find? |
#![no_std]
#![no_main]
#![forbid(unsafe_code)]

mod calls;
mod client;
mod domain;
mod lane;
mod page;
mod port;
mod protocol;
mod rings;

use rt::{gic, machine};

rt::entry!(main);

fn main() -> ! {
    gic::init();
    gic::init_cpu();
    match machine().parameter("role") {
        Some("client") => client::run(),
        Some(_) | None => domain::run(&[rings::run, calls::run]),
    }
}
