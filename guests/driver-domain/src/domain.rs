//! The domain: attaches the clients and serves them, round after round.

use crate::block::{self, Submission};
use crate::calls::Calls;
use crate::channel::{Channel, Ticket};
use crate::client::{Client, Service};
use crate::devices::Devices;
use crate::heartbeat::Heartbeat;
use crate::kill::{Kill, Phase};
use crate::status;
use crate::tree::{self, CHANNELS_MAX, ChannelNode, Purpose};
use crate::vsock::{PIECES_PER_TURN, Progress};
use abi::io::{Call, INVALID_PARAMETER, Layout};
use alloc::boxed::Box;
use arrayvec::ArrayVec;
use core::sync::atomic::{Ordering, fence};
use rt::shared::Shared;
use rt::{gic, interrupts, machine, println, timer};

/// How many requests of one channel are served in one round, so that none starves.
const REQUESTS_PER_ROUND: usize = 16;
/// How many interrupts are acknowledged at one go.
const INTERRUPTS_PER_ROUND: usize = 64;

/// How long EL2 may not hear of a frame that was sent, in microseconds. A TCP that bounds what lies in its card's queue
/// allows for a millisecond.
const QUIET_MICROSECONDS: u64 = 1000;

/// What came of a round.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Round {
    /// Something was done, or could not be: there may be more.
    Busy,
    /// Whoever wants something from now on says so by interrupt, once all channels are announced.
    Quiet,
}

/// All clients and all devices.
pub struct Domain {
    devices: Devices,
    calls: Calls,
    clients: ArrayVec<Client, CHANNELS_MAX>,
    /// The client that comes first in the next round.
    first: usize,
    /// A client waits for room in a disk's queue.
    is_crowded: bool,
    /// The timer is armed, because EL2 has not heard of all that was sent.
    is_timed: bool,
    heartbeat: Heartbeat,
    kill: Option<Kill>,
}

impl Domain {
    /// A domain without clients.
    #[inline(never)]
    pub fn new(devices: Devices) -> Box<Self> {
        let heartbeat = Heartbeat::default();
        let clients = ArrayVec::new_const();
        let calls = Calls::chosen(tree::call_page());
        Box::new(Self { devices, calls, clients, first: 0, is_crowded: false, is_timed: false, heartbeat, kill: None })
    }

    /// Attaches the client of `node`. One whose device is missing is told of, and stays without.
    // Out of line, as what it calls: what each needs of the stack it gives back.
    #[inline(never)]
    pub fn attach(&mut self, node: &ChannelNode) {
        let ChannelNode { number, memory, client: name, .. } = *node;
        let place = self.clients.len();
        let memory = Shared::claim(memory.start, memory.size);
        if let (0, Some(memory)) = (number, memory) {
            self.heartbeat = Heartbeat::new(memory);
        }
        let channel = memory.and_then(|memory| Channel::new(number, self.calls, memory, Layout::new(node.filled)));
        let Some(channel) = channel else {
            println!("driver-domain: channel {number} of {name} is not in this domain's free RAM; not served");
            return;
        };
        let Some(service) = self.service(place, node, channel.session()) else { return };
        let description = service.describe(node.queues, channel.window_size());
        let answer = description.map_or(INVALID_PARAMETER, |description| channel.attach(&description));
        if answer != 0 {
            // It keeps its place, which ports and consoles know it by; no request will come.
            println!("driver-domain: channel {number} of {name}: attach says {}; not served", answer as i64);
        }
        // As many channels were read from the tree as there is room for.
        if self.clients.try_push(Client { name, channel, service, printed: 0 }).is_err() {
            println!("driver-domain: channel {number} of {name} is one too many; not served");
        }
    }

    #[inline(never)]
    fn service(&mut self, place: usize, node: &ChannelNode, session: Option<u32>) -> Option<Service> {
        let ChannelNode { number, client: name, .. } = *node;
        let vm = self.clients.iter().position(|client| client.name == name).unwrap_or(place);
        let devices = &mut self.devices;
        let without = |what: &str| println!("driver-domain: channel {number} of {name}: {what}; not served");
        match node.purpose {
            Purpose::Disk { disk, .. } if !devices.block.is_virtio(disk) => {
                println!("driver-domain: channel {number} of {name}: there is no disk {disk}; not served");
                None
            }
            Purpose::Disk { disk, part, read_only } => {
                match devices.block.attach(disk, vm, part, read_only, node.serial) {
                    Ok(attachment) => Some(Service::Block(attachment)),
                    Err(error) => {
                        println!("driver-domain: channel {number} of {name}: disk {disk}, {part}: {error}; not served");
                        None
                    }
                }
            }
            Purpose::RamDisk { memory, part, read_only } => {
                let disk = devices.block.ram_disk(memory);
                let attachment =
                    disk.and_then(|disk| devices.block.attach(disk, vm, part, read_only, node.serial).ok());
                if attachment.is_none() {
                    without("its disk of RAM is not in this domain's free RAM");
                }
                attachment.map(Service::Block)
            }
            Purpose::Network { address, rate } => {
                let port = devices.network.add_client(place, address, rate);
                if port.is_none() {
                    without("the switch has no port left");
                }
                port.map(|port| Service::Network { port, address })
            }
            Purpose::Console => {
                if !devices.console.is_present() {
                    without("there is no console");
                    return None;
                }
                devices.console.add_client(place);
                Some(Service::Console)
            }
            Purpose::Entropy => {
                if !devices.entropy.is_present() {
                    without("there is no source of random numbers");
                    return None;
                }
                Some(Service::Entropy)
            }
            Purpose::Socket { cid, peers } => {
                let peers = peers.as_chunks().0.iter().map(|cell| u32::from_be_bytes(*cell));
                let port = devices.sockets.add_client(place, cid, peers, session);
                if port.is_none() {
                    without("the switch of streams has no port left");
                }
                port.map(|port| Service::Socket { port, cid })
            }
        }
    }

    /// Serves the clients for ever.
    #[inline(never)]
    pub fn run(mut self: Box<Self>) -> ! {
        println!("driver-domain: serving {} devices", self.clients.len());
        self.calls.make(Call::Ready, 0);
        self.kill = Kill::asked_for(self.heartbeat.generation());
        gic::enable(timer::VIRTUAL_TIMER);
        loop {
            self.heartbeat.beat();
            let round = self.round();
            // Also while there is more to do: whoever has taken something looks once more anyway, after this.
            if self.announce() || round == Round::Busy {
                continue;
            }
            let is_quiet = || self.clients.iter().any(|client| client.channel.is_quiet());
            if !self.is_timed && (is_quiet() || self.devices.sockets.is_waiting()) {
                self.is_timed = true;
                timer::arm(timer::now() + timer::ticks(QUIET_MICROSECONDS));
            }
            // Interrupts stay masked: one that is pending ends the wait and is acknowledged here.
            interrupts::wait();
            for _ in 0..INTERRUPTS_PER_ROUND {
                let Some(id) = gic::acknowledge() else { break };
                if Some(id) == machine().uart_interrupt {
                    status::answer(&self.devices, &self.clients);
                } else if id == timer::VIRTUAL_TIMER {
                    self.hasten();
                } else {
                    self.devices.acknowledge_interrupt(id);
                }
                gic::end(id);
            }
        }
    }

    /// The timer has fired: EL2 hears of everything in the next round.
    fn hasten(&mut self) {
        timer::disarm();
        self.is_timed = false;
        for client in &mut self.clients {
            client.channel.hasten();
        }
    }

    /// Does what there is to do once.
    fn round(&mut self) -> Round {
        // What clients have done beside sending decides what becomes of what they send.
        let mut worked = self.devices.sockets.poll(&mut self.clients);
        let count = self.clients.len();
        for place in (self.first..count).chain(0..self.first) {
            worked |= self.serve(place);
        }
        self.first = if self.first + 1 < count { self.first + 1 } else { 0 };

        let Self { devices, clients, kill, .. } = self;
        devices.block.kick();
        if let Some(kill) = kill {
            kill.kicked();
        }
        // Each disk says by interrupt when its next command has finished. So this alone is no reason for another look,
        // unless a client waits for room in a disk's queue.
        let has_finished = devices.block.poll(|tag, status| {
            if let Some(kill) = kill {
                kill.strike(Phase::Done);
            }
            if let Some(client) = clients.get_mut(tag.owner.channel) {
                block::finish(&mut client.channel, &tag, status);
            }
        });
        worked |= has_finished && core::mem::take(&mut self.is_crowded);
        worked |= devices.network.poll(clients);
        worked |= devices.console.poll(clients);
        for client in clients {
            client.channel.tell();
            worked |= client.channel.is_untold();
        }
        if worked { Round::Busy } else { Round::Quiet }
    }

    /// Asks for interrupts where they are not asked for yet, and says whether to look once more before sleeping.
    fn announce(&mut self) -> bool {
        let mut is_news = false;
        for client in &mut self.clients {
            is_news |= client.channel.announce();
        }
        // The event words, and those that the drivers write to the devices' rings, before the next look at counters
        // (VIRTIO 1.2, 2.7.7.1): whoever produced before must be seen by that look.
        fence(Ordering::SeqCst);
        is_news
    }

    /// Serves some requests of the client at `place`; says whether there were any.
    #[inline]
    fn serve(&mut self, place: usize) -> bool {
        let Self { devices, clients, is_crowded, heartbeat, kill, .. } = self;
        let mut worked = false;
        let mut pieces_left = PIECES_PER_TURN;
        for _ in 0..REQUESTS_PER_ROUND {
            let Some(Client { channel, service, name, printed }) = clients.get_mut(place) else { break };
            let Some(request) = channel.peek() else { break };
            let ticket = Ticket::of(&request);
            match service {
                Service::Block(attachment) => {
                    if let Some(kill) = kill {
                        kill.strike(Phase::Posted);
                    }
                    let waits = devices.block.waits(attachment, &request);
                    if waits {
                        heartbeat.wait();
                    }
                    let submission = devices.block.serve(attachment, place, channel, &request);
                    if waits {
                        heartbeat.beat();
                    }
                    match submission {
                        busy @ (Submission::Busy | Submission::Enough) => {
                            if busy == Submission::Busy && !worked {
                                devices.block.miss(attachment, place);
                            }
                            *is_crowded = true;
                            break;
                        }
                        Submission::Queued => kill.iter_mut().for_each(Kill::queued),
                        Submission::Finished(_) => {}
                    }
                    channel.take();
                }
                Service::Network { port, .. } => {
                    let (port, frame) = (*port, channel.readable(&request));
                    devices.network.transmit(clients, port, &request, frame);
                    let Some(Client { channel, .. }) = clients.get_mut(place) else { break };
                    channel.take();
                    channel.complete_quietly(&ticket.completion(0));
                }
                // The devices behind these are waited for: one wait, and it is the next client's turn.
                Service::Console => {
                    heartbeat.wait();
                    let is_done = devices.console.print(place, name, channel.readable(&request), printed);
                    heartbeat.beat();
                    if is_done {
                        *printed = 0;
                        channel.take();
                        channel.complete(&ticket.completion(0));
                    }
                    worked = true;
                    break;
                }
                Service::Entropy => {
                    heartbeat.wait();
                    let written = devices.entropy.fill(channel.writable(&request));
                    heartbeat.beat();
                    channel.take();
                    channel.complete(&ticket.completion(written));
                    worked = true;
                    break;
                }
                Service::Socket { port, .. } => {
                    if let Some(kill) = kill {
                        kill.strike(Phase::Posted);
                    }
                    let (port, packet) = (*port, channel.readable(&request));
                    let progress = devices.sockets.transmit(clients, port, &request, packet, &mut pieces_left);
                    if let Some(kill) = kill {
                        kill.strike(Phase::Submitted);
                    }
                    if progress != Progress::Done {
                        worked |= progress == Progress::More;
                        break;
                    }
                    let Some(Client { channel, .. }) = clients.get_mut(place) else { break };
                    channel.take();
                    channel.complete(&ticket.completion(0));
                    if let Some(kill) = kill {
                        kill.strike(Phase::Done);
                    }
                }
            }
            worked = true;
        }
        worked
    }
}
