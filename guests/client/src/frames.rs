//! Ethernet frames, as bytes: ARP (RFC 826), ICMP echo (RFC 792), and one of our own.
//!
//! What this module leaves out: everything else of IP. The addresses are 10.0.2.0/24, as QEMU's user network has them.

use arrayvec::ArrayVec;

/// A frame that is short enough for everything here.
pub(crate) type Frame = ArrayVec<u8, 128>;
pub(crate) type Mac = [u8; 6];

/// The gateway of QEMU's user network, by the last byte of its address.
pub(crate) const GATEWAY: u8 = 2;
pub(crate) const BROADCAST: Mac = [0xff; 6];

const TYPE_IP: [u8; 2] = [0x08, 0x00];
const TYPE_ARP: [u8; 2] = [0x08, 0x06];
/// For local experiments (IEEE 802, 9.2.4).
const TYPE_OWN: [u8; 2] = [0x88, 0xb5];
const ARP_REQUEST: u8 = 1;
const ARP_REPLY: u8 = 2;
const ECHO_REQUEST: u8 = 8;
const ECHO_REPLY: u8 = 0;

/// What a received frame is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Seen {
    /// Somebody asks who has our address.
    WhoHas { asker: u8, asker_mac: Mac },
    /// Somebody says who has an address.
    Has { address: u8, mac: Mac },
    /// Somebody wants an echo.
    Ping { from: u8, from_mac: Mac, sequence: u16 },
    /// An echo came back.
    Pong { from: u8, sequence: u16 },
    /// One of our own, with its payload's number.
    Own { number: u8 },
}

fn ip(address: u8) -> [u8; 4] {
    [10, 0, 2, address]
}

fn start(to: Mac, from: Mac, kind: [u8; 2]) -> Frame {
    let mut frame = Frame::new();
    frame.extend(to.into_iter().chain(from).chain(kind));
    frame
}

fn arp(operation: u8, from: (Mac, u8), to: (Mac, u8)) -> Frame {
    let ethernet = if operation == ARP_REQUEST { BROADCAST } else { to.0 };
    let mut frame = start(ethernet, from.0, TYPE_ARP);
    frame.extend([0, 1, 8, 0, 6, 4, 0, operation]);
    frame.extend(from.0.into_iter().chain(ip(from.1)).chain(to.0).chain(ip(to.1)));
    frame
}

/// Who has `address`?
pub(crate) fn who_has(from: (Mac, u8), address: u8) -> Frame {
    arp(ARP_REQUEST, from, ([0; 6], address))
}

/// We have our address.
pub(crate) fn we_have(from: (Mac, u8), to: (Mac, u8)) -> Frame {
    arp(ARP_REPLY, from, to)
}

/// An echo, please.
pub(crate) fn ping(from: (Mac, u8), to: (Mac, u8), sequence: u16) -> Frame {
    echo(ECHO_REQUEST, from, to, sequence)
}

/// The echo.
pub(crate) fn pong(from: (Mac, u8), to: (Mac, u8), sequence: u16) -> Frame {
    echo(ECHO_REPLY, from, to, sequence)
}

fn echo(kind: u8, from: (Mac, u8), to: (Mac, u8), sequence: u16) -> Frame {
    const LENGTH: u8 = 20 + 8 + 32;
    let mut frame = start(to.0, from.0, TYPE_IP);
    let mut header = [0x45, 0, 0, LENGTH, 0, 0, 0, 0, 64, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    header[12..16].copy_from_slice(&ip(from.1));
    header[16..].copy_from_slice(&ip(to.1));
    let sum = checksum(&header);
    header[10..12].copy_from_slice(&sum);
    let [high, low] = sequence.to_be_bytes();
    let mut message = [0x42; 40];
    message[..8].copy_from_slice(&[kind, 0, 0, 0, 0x42, 0x48, high, low]);
    let sum = checksum(&message);
    message[2..4].copy_from_slice(&sum);
    frame.extend(header.into_iter().chain(message));
    frame
}

/// A frame of our own to everybody.
pub(crate) fn own(source: Mac, number: u8) -> Frame {
    let mut frame = start(BROADCAST, source, TYPE_OWN);
    frame.extend([number; 46]);
    frame
}

/// RFC 1071.
fn checksum(bytes: &[u8]) -> [u8; 2] {
    let mut sum: u32 = bytes.chunks_exact(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]]))).sum();
    while sum > 0xffff {
        sum = (sum >> 16) + (sum & 0xffff);
    }
    (!(sum as u16)).to_be_bytes()
}

/// What `frame` is to the one with `address`, if anything.
pub(crate) fn read(frame: &[u8], address: u8) -> Option<Seen> {
    let (header, rest) = frame.split_first_chunk::<14>()?;
    let mac = |bytes: &[u8]| bytes.first_chunk::<6>().copied();
    let source = mac(&header[6..])?;
    let is_ours = |bytes: Option<&[u8]>| bytes == Some(&ip(address));
    match [header[12], header[13]] {
        TYPE_ARP => {
            let (operation, asker_mac, asker) = (*rest.get(7)?, mac(rest.get(8..)?)?, *rest.get(17)?);
            match operation {
                ARP_REQUEST if is_ours(rest.get(24..28)) => Some(Seen::WhoHas { asker, asker_mac }),
                ARP_REPLY => Some(Seen::Has { address: asker, mac: asker_mac }),
                _ => None,
            }
        }
        TYPE_IP if is_ours(rest.get(16..20)) && *rest.get(9)? == 1 && *rest.first()? == 0x45 => {
            let (from, kind) = (*rest.get(15)?, *rest.get(20)?);
            let sequence = u16::from_be_bytes([*rest.get(26)?, *rest.get(27)?]);
            let length = usize::from(u16::from_be_bytes([*rest.get(2)?, *rest.get(3)?]));
            // A sum over bytes that hold their own checksum is zero.
            if checksum(rest.get(20..length)?) != [0, 0] {
                return None;
            }
            match kind {
                ECHO_REQUEST => Some(Seen::Ping { from, from_mac: source, sequence }),
                ECHO_REPLY => Some(Seen::Pong { from, sequence }),
                _ => None,
            }
        }
        TYPE_OWN => Some(Seen::Own { number: *rest.first()? }),
        _ => None,
    }
}
