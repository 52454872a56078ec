//! The driver domain: a guest that owns the real devices and serves those of other guests.
//!
//! Clients never come here: EL2 has the registers and the queues of their devices, and passes on what they ask for
//! through a channel for each device (`abi::io`), without knowing what it means. This guest says what each device is,
//! and decides which sectors, frames and streams a client may have. Its CPU sees requests and copies of data, never a
//! client's memory (the DMA of its devices is trusted).
//!
//! Reading order: this file, `domain.rs` (the rounds), `channel.rs` (the wire), `block/service.rs`, `network.rs`. What
//! is decided without touching memory or devices is in the crate `services`, with its tests.
//!
//! What this guest leaves out: interrupt handlers and threads. It polls in rounds and sleeps when a round found
//! nothing; interrupts only end the sleep. A flush, a line on the console and random numbers are waited for; nothing
//! else is.
#![no_std]
#![no_main]
#![forbid(unsafe_code)]

extern crate alloc;

mod block;
mod calls;
mod channel;
mod client;
mod console;
mod devices;
mod domain;
mod entropy;
mod heartbeat;
mod kill;
mod network;
mod status;
mod tree;
mod vsock;

use devices::Devices;
use domain::Domain;
use rt::gic::Trigger;
use rt::{gic, machine, println, psci};

rt::entry!(main);

fn main() -> ! {
    // Its clients wait for it, and EL2 remembers what they wait for.
    rt::restart_after_panic();
    // What the drivers have to tell at less than a warning is said here in our own words.
    log::set_max_level(log::LevelFilter::Warn);
    gic::init();
    gic::init_cpu();
    println!("driver-domain: {}: looking for devices", machine().name());
    let devices = Devices::bring_up();

    let channels = tree::channels();
    if channels.is_empty() {
        println!("driver-domain: no clients; turning off");
        psci::system_off();
        rt::interrupts::park()
    }
    match tree::doorbell() {
        Some(id) => {
            gic::set_trigger(id, Trigger::Edge);
            gic::enable(id);
        }
        None => println!("driver-domain: the device tree names no doorbell; clients are heard of by chance"),
    }
    status::listen();
    let mut domain = Domain::new(devices);
    for node in &channels {
        domain.attach(node);
    }
    domain.run()
}
