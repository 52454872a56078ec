//! The IPv4 address of a guest's network card: what a system states, what is chosen where it states nothing, and what
//! cannot be.
//!
//! Bulkhead knows nothing of it. The guest is told on its kernel's command line, and the supplied Linux root does as it
//! is told.

use std::net::Ipv4Addr;

use super::problem::Line;

/// What a system says for a card whose address comes from a DHCP server.
pub(crate) const DHCP: &str = "dhcp";
pub(super) const PREFIX: u8 = 24;

/// An address with the length of its network's prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Network {
    pub(crate) address: Ipv4Addr,
    pub(super) prefix: u8,
}

/// Where a card gets its address from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Addressing {
    /// A server is asked.
    Dhcp,
    /// It is this one; what is elsewhere goes to the gateway, if there is one.
    Static { network: Network, gateway: Option<Ipv4Addr> },
}

/// What a system states of a card, with the lines of both keys.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stated {
    pub(crate) addressing: Addressing,
    pub(crate) line: Line,
}

impl Network {
    /// Reads `10.0.2.101/24`: the address of a host, within a network.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (address, prefix) = text.split_once('/')?;
        let is_number = !prefix.is_empty() && prefix.bytes().all(|digit| digit.is_ascii_digit());
        let network = Self { address: address.parse().ok()?, prefix: prefix.parse().ok().filter(|_| is_number)? };
        network.is_host().then_some(network)
    }

    /// The bits that all addresses of the network have in common.
    const fn mask(self) -> u32 {
        match u32::MAX.checked_shl(32_u32.saturating_sub(self.prefix as u32)) {
            Some(mask) => mask,
            None => 0,
        }
    }

    /// Whether the address is one that a card can have: neither the network's own, nor everybody's, nor none at all.
    fn is_host(self) -> bool {
        let Self { address, prefix } = self;
        let host = address.to_bits() & !self.mask();
        let is_one = host != 0 && host != !self.mask();
        (1..=30).contains(&prefix)
            && is_one
            && !address.is_multicast()
            && !address.is_loopback()
            && address.octets()[0] != 0
    }

    /// Whether `other` is an address of this network.
    pub(crate) const fn contains(self, other: Ipv4Addr) -> bool {
        (self.address.to_bits() ^ other.to_bits()) & self.mask() == 0
    }
}

impl std::fmt::Display for Network {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{}/{}", self.address, self.prefix)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_that_no_card_can_have_are_none() {
        for text in [
            "10.0.2.101",
            "10.0.2.0/24",
            "10.0.2.255/24",
            "127.0.0.1/8",
            "224.0.0.5/8",
            "0.1.2.3/8",
            "10.0.2.1/31",
            "10.0.2.1/0",
            "10.0.2.1/+8",
            "10.0.2.1/",
            "10.0.2/24",
            "10.0.2.1/33",
        ] {
            assert_eq!(Network::parse(text), None, "{text}");
        }
        let network = Network::parse("10.0.2.101/24").expect("an address");
        assert_eq!(network.to_string(), "10.0.2.101/24");
        assert!(network.contains(Ipv4Addr::new(10, 0, 2, 2)) && !network.contains(Ipv4Addr::new(10, 0, 3, 2)));
    }
}
