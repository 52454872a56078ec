//! A client of para-virtual devices, with a front end that is not Linux's: the `virtio-drivers` crate.
//!
//! It has the habits of a boot loader: it polls, it never enables an interrupt, its queues are shorter than the device
//! allows, it brings each device up again and again, also in the middle of requests. With several CPUs each drives its
//! own devices at the same time in the end.
//!
//! Parameters: `mode=` is `check` (all of the above, the default), `load` (a neighbour that verifies what it reads for
//! `seconds=`, and so notices whoever disturbs it; no request to a disk may take more than `longest=` microseconds),
//! `once` (one round of the same with each device),
//! `reads` (nothing but `requests=` reads of `size=` KiB, 4 if not given, at `depth=`, 1 to 16, from disk `disk=`,
//! driven by interrupts, so that what they cost can be told from Bulkhead's counters; with `writes=1` every second one
//! is a write), `errors` (every disk fails at sector `bad=`), `large` (large requests to each disk, and no resets),
//! `abandoned` (the driver domain is lost for good after a while), `nothing` (there is nothing behind any disk),
//! `given` (a disk has what its image had), `resets` (it resets itself with reads under way), or `sockets` (what it has
//! is a socket device, and its peer is the guest whose CID `peer=` says). `address=` and `peer=` are the last byte of
//! this guest's address in 10.0.2.0/24 and of the other client's, `marker=` a number that both know.
#![no_std]
#![no_main]
#![forbid(unsafe_code)]

mod abandoned;
mod block;
mod console;
mod entropy;
mod errors;
mod frames;
mod given;
mod large;
mod load;
mod network;
mod reads;
mod resets;
mod sockets;
mod together;

use arrayvec::ArrayVec;
use rt::virtio::{Kind, SLOTS_MAX, Slot};
use rt::{gic, machine, virtio};
use testkit::{Outcome, ensure, report};

rt::entry!(main);

type Slots = ArrayVec<Slot, SLOTS_MAX>;

fn main() -> ! {
    // The crate tells of every device that it brings up, and that is often.
    log::set_max_level(log::LevelFilter::Warn);
    let mut slots = virtio::take_slots();
    gic::init();
    gic::init_cpu();
    report::test("the device tree names para-virtual devices", || {
        ensure!(!slots.is_empty(), "there is none");
        Ok(())
    });
    match machine().parameter("mode") {
        Some("load") => load::run(slots),
        Some("once") => load::once(&mut slots),
        Some("reads") => reads::run(slots),
        Some("resets") => resets::run(slots),
        Some("errors") => errors::run(slots),
        Some("large") => slots.iter_mut().filter(|slot| slot.kind() == Some(Kind::Block)).for_each(large::requests),
        Some("abandoned") => abandoned::run(slots),
        Some("given") => given::run(slots),
        Some("sockets") => sockets::run(slots, machine().number("peer", 0)),
        Some("nothing") => report::test("a disk that nobody serves is not there", || errors::missing(&slots)),
        Some(_) | None => {
            for slot in &mut slots {
                check(slot);
            }
            together::run(slots);
        }
    }
    report::finish()
}

/// All that one device has to stand.
fn check(slot: &mut Slot) {
    match slot.kind() {
        Some(Kind::Block) => {
            if block::run(slot) {
                large::run(slot);
            }
        }
        Some(Kind::Network) => network::run(slot),
        Some(Kind::Console) => console::run(slot),
        Some(Kind::Entropy) => entropy::run(slot),
        other => report::test("every device is of a kind that is known", || unknown(other)),
    }
}

fn unknown(kind: Option<Kind>) -> Outcome {
    ensure!(false, "one is {kind:?}");
    Ok(())
}

/// What `virtio-drivers` says, as the reason of a failure.
fn failed(what: &str) -> impl Fn(virtio::Error) -> testkit::Failure {
    move |error| testkit::Failure::new(format_args!("{what}: {error}"))
}
