//! A socket device: whom this guest may not speak to refuses it at once; who may comes, and nobody else.

use crate::{Slots, failed};
use rt::timer;
use rt::virtio::{Kind, Platform, Slot};
use testkit::{Failure, Outcome, ensure, report};
use virtio_drivers::device::socket::{
    DisconnectReason, VirtIOSocket, VsockAddr, VsockConnectionManager, VsockEvent, VsockEventType,
};
use virtio_drivers::transport::mmio::MmioTransport;

/// The device's number (VIRTIO 1.2, 5).
const DEVICE_ID: u32 = 19;
/// Bytes of a buffer for what comes: a packet as the driver domain cuts them.
const BUFFER: usize = 2048;
/// Where every guest listens.
const PORT: u32 = 1024;
const OWN_PORT: u32 = 2000;
/// The first CID that a guest can have, and so many more; then those of nobody, of the host and of anybody.
const CIDS: [u64; 9] = [3, 4, 5, 6, 0, 1, 2, 0xffff_ffff, 1 << 32 | 4];
/// How long a refusal may take.
const REFUSAL_MICROSECONDS: u64 = 5_000_000;
/// How long the peer may take to come, its start included.
const PEER_MICROSECONDS: u64 = 120_000_000;
/// How long one sleeps where nothing has come.
const PAUSE_MICROSECONDS: u64 = 1000;

type Manager<'a> = VsockConnectionManager<Platform, MmioTransport<'a>, BUFFER>;

/// `peer` is the CID of the only guest that this one may speak to.
pub(crate) fn run(mut slots: Slots, peer: u64) {
    let Some(slot) = slots.iter_mut().find(|slot| slot.kind() == Some(Kind::Other(DEVICE_ID))) else {
        report::test("there is a socket device", || Err(Failure::new(format_args!("there is none"))));
        return;
    };
    report::test("whom this guest may not speak to refuses it at once", || is_refused(slot, peer));
    report::test("the peer comes, and gets its words back, and nobody else comes", || answer(slot, peer));
}

fn open(slot: &mut Slot) -> Result<Manager<'_>, Failure> {
    let transport = slot.lend().map_err(failed("the registers"))?;
    Ok(Manager::new(VirtIOSocket::new(transport).map_err(failed("the driver"))?))
}

/// The next event, if one comes in time.
fn next(manager: &mut Manager<'_>, microseconds: u64) -> Result<Option<VsockEvent>, Failure> {
    let end = timer::now() + timer::ticks(microseconds);
    while timer::now() < end {
        if let Some(event) = manager.poll().map_err(failed("a look at what has come"))? {
            return Ok(Some(event));
        }
        timer::sleep(PAUSE_MICROSECONDS);
    }
    Ok(None)
}

fn is_refused(slot: &mut Slot, peer: u64) -> Outcome {
    let mut manager = open(slot)?;
    for cid in CIDS.into_iter().filter(|cid| *cid != peer) {
        manager.connect(VsockAddr { cid, port: PORT }, OWN_PORT).map_err(failed("a request"))?;
        let event = next(&mut manager, REFUSAL_MICROSECONDS)?;
        let reset = VsockEventType::Disconnected { reason: DisconnectReason::Reset };
        ensure!(event.as_ref().is_some_and(|event| event.event_type == reset), "of cid {cid:#x} comes {event:?}");
    }
    Ok(())
}

fn answer(slot: &mut Slot, peer: u64) -> Outcome {
    let mut manager = open(slot)?;
    manager.listen(PORT);
    let mut words = 0;
    loop {
        let Some(event) = next(&mut manager, PEER_MICROSECONDS)? else {
            ensure!(false, "nobody comes");
            return Ok(());
        };
        ensure!(event.source.cid == peer, "{event:?} is of somebody else");
        match event.event_type {
            VsockEventType::Received { .. } => {
                let mut bytes = [0; 64];
                let length =
                    manager.recv(event.source, PORT, &mut bytes).map_err(failed("what has come"))?.min(bytes.len());
                // The first byte says that the others are to come back.
                let start = usize::from(words == 0).min(length);
                words += 1;
                if start != length {
                    let answer = &bytes[start..length];
                    manager.send(event.source, PORT, answer).map_err(failed("an answer"))?;
                }
            }
            VsockEventType::Disconnected { .. } if words != 0 => return Ok(()),
            VsockEventType::Disconnected { .. }
            | VsockEventType::ConnectionRequest
            | VsockEventType::Connected
            | VsockEventType::CreditRequest
            | VsockEventType::CreditUpdate => {}
        }
    }
}
