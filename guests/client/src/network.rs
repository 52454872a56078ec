//! A network card: its address, the gateway, the other client, and frames that nobody may see.

use crate::failed;
use crate::frames::{self, BROADCAST, Frame, GATEWAY, Mac, Seen};
use core::sync::atomic::{AtomicBool, Ordering};
use rt::virtio::{Platform, Slot};
use rt::{machine, println, timer};
use testkit::{Failure, Outcome, ensure, report};
use virtio_drivers::device::net::{TxBuffer, VirtIONet};
use virtio_drivers::transport::mmio::MmioTransport;

/// Entries of a queue.
const QUEUE: usize = 16;
const BUFFER: usize = 2048;
const SECOND_MICROSECONDS: u64 = 1_000_000;
/// How long the gateway or the other client may take to answer.
const ANSWER_SECONDS: u64 = 20;
/// How often one asks again.
const ASK_EVERY_MICROSECONDS: u64 = 200_000;
/// How often the device is brought up.
const STARTS: usize = 4;
/// The numbers of frames of our own: one with a forged source, one with the true one.
const FORGED: u8 = 0xbb;
const GENUINE: u8 = 0x11;

type Driver<'a> = VirtIONet<Platform, MmioTransport<'a>, QUEUE>;

/// A card and who we are.
struct Card<'a> {
    driver: Driver<'a>,
    mac: Mac,
    address: u8,
}

/// What has come since the guest started, whichever test was running: the other client does not wait for ours.
/// It has asked for an echo and got it.
static ANSWERED: AtomicBool = AtomicBool::new(false);
/// A frame with its true source came.
static GENUINE_CAME: AtomicBool = AtomicBool::new(false);
/// A frame with a forged source came.
static FORGED_CAME: AtomicBool = AtomicBool::new(false);

pub(crate) fn run(slot: &mut Slot) {
    report::test("a network card has the address that the system gives it", || address(slot));
    report::test("the gateway answers, however often the card is brought up", || gateway(slot));
    if let Some(peer) = machine().parameter("peer") {
        let peer = peer.parse().unwrap_or(0);
        report::test("the other client answers, and sees no frame with a forged source", || other_client(slot, peer));
    }
}

impl<'a> Card<'a> {
    fn open(slot: &'a mut Slot) -> Result<Self, Failure> {
        let transport = slot.lend().map_err(failed("the registers"))?;
        let mut driver = Driver::new(transport, BUFFER).map_err(failed("the driver"))?;
        driver.disable_interrupts();
        let mac = driver.mac_address();
        let address = machine().number("address", u64::from(mac[5] & 0x7f | 0x40)) as u8;
        Ok(Self { driver, mac, address })
    }

    fn me(&self) -> (Mac, u8) {
        (self.mac, self.address)
    }

    fn send(&mut self, frame: &Frame) -> Outcome {
        self.driver.send(TxBuffer::from(frame)).map_err(failed("a frame to send"))
    }

    /// Looks at what has come, answers what is to be answered, and gives what the caller waits for.
    fn look(&mut self) -> Result<Option<Seen>, Failure> {
        if !self.driver.can_recv() {
            return Ok(None);
        }
        let buffer = self.driver.receive().map_err(failed("a frame that came"))?;
        let seen = frames::read(buffer.packet(), self.address);
        self.driver.recycle_rx_buffer(buffer).map_err(failed("a buffer given back"))?;
        match seen {
            Some(Seen::WhoHas { asker, asker_mac }) => {
                let reply = frames::we_have(self.me(), (asker_mac, asker));
                self.send(&reply)?;
            }
            Some(Seen::Ping { from, from_mac, sequence }) => {
                let reply = frames::pong(self.me(), (from_mac, from), sequence);
                self.send(&reply)?;
                ANSWERED.store(true, Ordering::Relaxed);
            }
            Some(Seen::Own { number: FORGED }) => FORGED_CAME.store(true, Ordering::Relaxed),
            Some(Seen::Own { number: GENUINE }) => GENUINE_CAME.store(true, Ordering::Relaxed),
            Some(Seen::Own { .. } | Seen::Has { .. } | Seen::Pong { .. }) | None => {}
        }
        Ok(seen)
    }

    /// Sends `question` until `wanted` says that the answer came.
    fn ask<T>(&mut self, question: &Frame, what: &str, wanted: impl Fn(Seen) -> Option<T>) -> Result<T, Failure> {
        let limit = timer::now() + timer::ticks(ANSWER_SECONDS * SECOND_MICROSECONDS);
        while timer::now() < limit {
            self.send(question)?;
            let again = timer::now() + timer::ticks(ASK_EVERY_MICROSECONDS);
            while timer::now() < again {
                if let Some(answer) = self.look()?.and_then(&wanted) {
                    return Ok(answer);
                }
            }
        }
        Err(Failure::new(format_args!("{what} has not answered in {ANSWER_SECONDS} s")))
    }

    /// Finds who has `address` and has one echo of it.
    fn reach(&mut self, address: u8, sequence: u16, what: &str) -> Result<Mac, Failure> {
        let question = frames::who_has(self.me(), address);
        let mac = self.ask(&question, what, |seen| {
            if let Seen::Has { address: owner, mac } = seen { (owner == address).then_some(mac) } else { None }
        })?;
        let question = frames::ping(self.me(), (mac, address), sequence);
        self.ask(&question, what, |seen| (seen == Seen::Pong { from: address, sequence }).then_some(()))?;
        Ok(mac)
    }
}

fn address(slot: &mut Slot) -> Outcome {
    let mac = Card::open(slot)?.mac;
    let [a, b, c, d, e, f] = mac;
    println!("the card has {a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{f:02x}");
    ensure!(mac != [0; 6] && mac != BROADCAST && a & 1 == 0, "{mac:02x?} is no card's address");
    if let Some(wanted) = machine().parameter("mac") {
        let parts = || wanted.split(':').map(|part| u8::from_str_radix(part, 16).ok());
        ensure!(parts().eq(mac.into_iter().map(Some)), "it is not {wanted}");
    }
    Ok(())
}

fn gateway(slot: &mut Slot) -> Outcome {
    for start in 0..STARTS {
        let mut card = Card::open(slot)?;
        card.reach(GATEWAY, 0x100 + start as u16, "the gateway")?;
    }
    Ok(())
}

fn other_client(slot: &mut Slot, peer: u8) -> Outcome {
    let mut card = Card::open(slot)?;
    let mac = card.reach(peer, 0x200, "the other client")?;
    ensure!(mac != card.mac, "the other client has our own address");
    let stranger = [0x52, 0x54, 0, 0xde, 0xad, 1];
    // Sources that are not ours: nobody's, the other client's, everybody's. In order, so that whoever saw the true one
    // would have seen those as well.
    for source in [stranger, mac, BROADCAST, [0; 6]] {
        card.send(&frames::own(source, FORGED))?;
    }
    let limit = timer::now() + timer::ticks(ANSWER_SECONDS * SECOND_MICROSECONDS);
    // Frames may be lost on the way to one who is not there yet, so they are sent again until both have seen all.
    let mut again = 0;
    let mut rest_of_time = u64::MAX;
    while timer::now() < limit.min(rest_of_time) {
        if timer::now() >= again {
            card.send(&frames::own(stranger, FORGED))?;
            let true_one = frames::own(card.mac, GENUINE);
            card.send(&true_one)?;
            again = timer::now() + timer::ticks(ASK_EVERY_MICROSECONDS);
        }
        card.look()?;
        if ANSWERED.load(Ordering::Relaxed) && GENUINE_CAME.load(Ordering::Relaxed) && rest_of_time == u64::MAX {
            // The other one may still want an echo.
            rest_of_time = timer::now() + timer::ticks(2 * SECOND_MICROSECONDS);
        }
    }
    ensure!(ANSWERED.load(Ordering::Relaxed), "the other client has not asked for an echo");
    ensure!(GENUINE_CAME.load(Ordering::Relaxed), "no frame with a true source came");
    ensure!(!FORGED_CAME.load(Ordering::Relaxed), "a frame with a forged source came");
    Ok(())
}

/// One echo of the gateway.
pub(crate) fn load(slot: &mut Slot) -> Outcome {
    Card::open(slot)?.reach(GATEWAY, 0x300, "the gateway").map(drop)
}
