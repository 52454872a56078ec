//! The IPv4 address of a guest's network card: what a system states, what is chosen where it states nothing, and what
//! cannot be.
//!
//! Bulkhead knows nothing of it. The guest is told on its kernel's command line, and the supplied Linux root does as it
//! is told.

use std::net::Ipv4Addr;

use super::{
    Problem, Source, VmSource,
    source::{ImageName, Line},
};

/// The root file systems of `guests/linux`: guests that have one of them talk to one another.
const LINUX: [&str; 2] = ["linux", "linux-bench"];
/// What a system says for a card whose address comes from a DHCP server.
pub(crate) const DHCP: &str = "dhcp";
/// QEMU's user network, 10.0.2.0/24: its gateway, and its name server.
const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 2);
const NAME_SERVER: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 3);
/// The address of the first guest that states none; the DHCP server's are below.
const FIRST: u32 = Ipv4Addr::new(10, 0, 2, 101).to_bits();
const PREFIX: u8 = 24;

/// An address with the length of its network's prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Network {
    pub(crate) address: Ipv4Addr,
    prefix: u8,
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

impl Source {
    /// Where `vm`, if it has a network card, gets that card's address from.
    pub(crate) fn addressing(&self, vm: &VmSource) -> Option<Addressing> {
        let has_own = self.cards_of(vm).next().is_some();
        if let Some(stated) = self.stated_addressing(vm) {
            return Some(match stated.addressing {
                Addressing::Static { network, gateway: None } if network.contains(GATEWAY) => {
                    Addressing::Static { network, gateway: (has_own || self.uplink).then_some(GATEWAY) }
                }
                stated @ (Addressing::Static { .. } | Addressing::Dhcp) => stated,
            });
        }
        if !is_on_switch(vm) {
            return has_own.then_some(Addressing::Dhcp);
        }
        let number =
            self.vms.iter().filter(|vm| is_on_switch(vm) && is_linux(vm)).position(|other| other.name == vm.name)?;
        let address = Ipv4Addr::from_bits(FIRST.saturating_add(u32::try_from(number).unwrap_or(u32::MAX)));
        Some(Addressing::Static {
            network: Network { address, prefix: PREFIX },
            gateway: self.uplink.then_some(GATEWAY),
        })
    }

    fn stated_addressing(&self, vm: &VmSource) -> Option<Stated> {
        let clients = vm.clients.iter().flatten().filter_map(|client| client.addressing);
        let cards = self.cards.iter().filter(|card| card.owner == vm.name).filter_map(|card| card.addressing);
        clients.chain(cards).next()
    }

    /// The words of `vm`'s command line about its address: how it comes by it, and that of the neighbour to talk to.
    pub(super) fn address_words(&self, vm: &VmSource) -> String {
        match self.addressing(vm) {
            None | Some(Addressing::Dhcp) => String::new(),
            Some(Addressing::Static { network, gateway }) => {
                let mut words = format!(" bulkhead.address={network}");
                if let Some(gateway) = gateway {
                    words += &format!(" bulkhead.gateway={gateway}");
                }
                if gateway == Some(GATEWAY) {
                    words += &format!(" bulkhead.nameserver={NAME_SERVER}");
                }
                if let Some((name, address)) = self.peer(vm) {
                    words += &format!(" bulkhead.peer={name}:{address}");
                }
                words
            }
        }
    }

    /// The guest that `vm` talks to, in pairs: each is the other's peer. Both know their addresses beforehand.
    fn peer(&self, vm: &VmSource) -> Option<(&str, Ipv4Addr)> {
        let linux: Vec<_> = self.vms.iter().filter_map(|vm| Some((vm.name(), self.switch_address(vm)?))).collect();
        let number = linux.iter().position(|(name, _)| *name == vm.name)?;
        linux.get(number ^ 1).copied()
    }

    fn switch_address(&self, vm: &VmSource) -> Option<Ipv4Addr> {
        match self.addressing(vm) {
            Some(Addressing::Static { network, .. }) if is_on_switch(vm) && is_linux(vm) => Some(network.address),
            Some(Addressing::Static { .. } | Addressing::Dhcp) | None => None,
        }
    }

    /// Finds two cards of the switch with one address, and one with an address of the user network's own.
    pub(super) fn check_addresses(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        let mut taken: Vec<(&str, Ipv4Addr)> = Vec::new();
        if self.uplink {
            taken.extend([("the uplink", GATEWAY), ("the uplink", NAME_SERVER)]);
        }
        for vm in self.vms.iter().filter(|vm| is_on_switch(vm)) {
            let Some(Addressing::Static { network: Network { address, .. }, .. }) = self.addressing(vm) else {
                continue;
            };
            if let Some((other, _)) = taken.iter().find(|(_, other)| *other == address) {
                let other = if *other == "the uplink" { (*other).to_owned() } else { format!("vm {other:?}") };
                let sentence = format!(
                    "vm {:?} and {other} both have the address {address}; give one another with the key \"ip_address\"",
                    vm.name
                );
                let line = self.stated_addressing(vm).and_then(|stated| stated.line).or(vm.lines.vm);
                problems.push(self.problem(line, sentence));
            }
            taken.push((&vm.name, address));
        }
        problems
    }
}

/// Whether `vm` has a card on a driver domain's switch.
fn is_on_switch(vm: &VmSource) -> bool {
    vm.clients.iter().flatten().any(|client| matches!(client.backend, super::backend::Backend::Network { .. }))
}

fn is_linux(vm: &VmSource) -> bool {
    matches!(&vm.initrd, Some(ImageName::Named(name)) if LINUX.contains(&name.as_str()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::system::reader::parse;
    use std::path::Path;

    /// A system with an uplink and a guest for each of `cards`, which hold the keys of its card.
    fn system(cards: &[&str]) -> Result<Source, String> {
        let mut text =
            "board = \"qemu-virt\"\nmemory = \"1 GiB\"\ncores = 2\n[network]\nuplink = \"user\"\n".to_owned();
        for (number, keys) in cards.iter().enumerate() {
            text += &format!(
                "[[vm]]\nname = \"guest-{number}\"\nmemory = \"64 MiB\"\ncores = [0]\nkernel = \"debian\"\n\
                 initrd = \"linux\"\n[[vm.device]]\nkind = \"virtio-net\"\n{keys}\n"
            );
        }
        text += "[[vm]]\nname = \"io\"\nmemory = \"64 MiB\"\ncores = [1]\nkernel = \"guest:driver-domain\"\n\
                 owns = [\"virtio-mmio\"]\ndriver_domain = true\n";
        parse(Path::new("cards.toml"), &text).map_err(|problems| problems.to_string())
    }

    fn words(cards: &[&str]) -> Vec<String> {
        let source = system(cards).expect("a system");
        source.vms.iter().take(cards.len()).map(|vm| source.address_words(vm)).collect()
    }

    #[test]
    fn what_is_not_stated_is_chosen_and_asks_no_server() {
        let chosen = " bulkhead.gateway=10.0.2.2 bulkhead.nameserver=10.0.2.3";
        assert_eq!(
            words(&["", ""]),
            [
                format!(" bulkhead.address=10.0.2.101/24{chosen} bulkhead.peer=guest-1:10.0.2.102"),
                format!(" bulkhead.address=10.0.2.102/24{chosen} bulkhead.peer=guest-0:10.0.2.101"),
            ]
        );
    }

    #[test]
    fn a_stated_address_is_the_only_one() {
        let stated = "ip_address = \"192.168.7.10/16\"\ngateway = \"192.168.0.1\"";
        assert_eq!(words(&[stated]), [" bulkhead.address=192.168.7.10/16 bulkhead.gateway=192.168.0.1"]);
        assert_eq!(words(&["ip_address = \"172.16.0.2/30\""]), [" bulkhead.address=172.16.0.2/30"]);
        let [near] = words(&["ip_address = \"10.0.2.50/24\""]).try_into().expect("one");
        assert!(near.starts_with(" bulkhead.address=10.0.2.50/24 bulkhead.gateway=10.0.2.2"), "{near}");
    }

    #[test]
    fn a_card_that_asks_a_server_has_no_neighbour_who_knows_its_address() {
        let [first, second, third] = words(&["", "ip_address = \"dhcp\"", ""]).try_into().expect("three");
        assert!(first.ends_with(" bulkhead.peer=guest-2:10.0.2.103"), "{first}");
        assert_eq!(second, "");
        assert!(third.ends_with(" bulkhead.peer=guest-0:10.0.2.101"), "{third}");
    }

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

    #[test]
    fn one_address_for_two_cards_is_refused() {
        let problem = system(&["", "ip_address = \"10.0.2.101/24\""]).expect_err("refused");
        assert!(problem.contains("vm \"guest-1\" and vm \"guest-0\" both have the address 10.0.2.101"), "{problem}");
        let problem = system(&["ip_address = \"10.0.2.2/24\""]).expect_err("refused");
        assert!(problem.contains("vm \"guest-0\" and the uplink both have the address 10.0.2.2"), "{problem}");
    }
}
