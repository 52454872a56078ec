//! What the domain says of itself when asked: a line typed at its own console brings the switches' counters.

use crate::client::Client;
use crate::devices::Devices;
use rt::uart::{self, offset};
use rt::{gic, machine, println};
use services::switch::Counters;
use services::vsock::Counters as Streams;

/// How many typed characters are taken at one go: as many as the UART holds, and some.
const CHARACTERS_MAX: usize = 64;

/// Asks for an interrupt when something is typed.
pub fn listen() {
    if let Some(id) = machine().uart_interrupt {
        uart::write(offset::IMSC, uart::INTERRUPT_RX | uart::INTERRUPT_RX_TIMEOUT);
        gic::enable(id);
    }
}

/// Takes what was typed, and answers the end of a line.
pub fn answer(devices: &Devices, clients: &[Client]) {
    let mut is_asked = false;
    for _ in 0..CHARACTERS_MAX {
        let Some(byte) = uart::take() else { break };
        is_asked |= byte == b'\r' || byte == b'\n';
    }
    uart::write(offset::ICR, uart::INTERRUPT_RX | uart::INTERRUPT_RX_TIMEOUT);
    if !is_asked {
        return;
    }
    let name_of = |client: usize| clients.get(client).map_or("?", |client| client.name);
    for (client, counters) in devices.network.counters() {
        let name = client.map_or("uplink", name_of);
        let Counters { frames_in, bytes_in, frames_out, bytes_out, .. } = counters;
        let Counters { dropped_useless, dropped_forged, dropped_rate, dropped_storm, dropped_full, .. } = counters;
        println!("{name}: in {frames_in} frames, {bytes_in} bytes; out {frames_out} frames, {bytes_out} bytes");
        println!(
            "{name}: dropped {dropped_useless} without a destination, {dropped_forged} forged, {dropped_rate} over the \
             rate, {dropped_storm} of a storm, {dropped_full} for want of room"
        );
    }
    for (client, counters) in devices.sockets.counters() {
        let Streams { packets, connections, refused, dropped } = counters;
        let name = name_of(client);
        println!("{name}: {connections} connections, {packets} packets; {refused} refused, {dropped} dropped");
    }
}
