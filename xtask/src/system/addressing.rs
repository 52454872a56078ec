//! Where each network card gets its IPv4 address from, and what its guest is told.

use std::net::Ipv4Addr;

use super::{
    Problem, Source, VmSource,
    backend::Backend,
    ip::{Addressing, Network, PREFIX, Stated},
    source::ImageName,
};

/// The root file systems of `guests/linux`: guests that have one of them talk to one another.
const LINUX: [&str; 2] = ["linux", "linux-bench"];

/// QEMU's user network, 10.0.2.0/24: its gateway, and its name server.
const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 2);

const NAME_SERVER: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 3);

/// The address of the first guest that states none; the DHCP server's are below.
const FIRST: u32 = Ipv4Addr::new(10, 0, 2, 101).to_bits();

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
    vm.clients.iter().flatten().any(|client| matches!(client.backend, Backend::Network { .. }))
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
    fn one_address_for_two_cards_is_refused() {
        let problem = system(&["", "ip_address = \"10.0.2.101/24\""]).expect_err("refused");
        assert!(problem.contains("vm \"guest-1\" and vm \"guest-0\" both have the address 10.0.2.101"), "{problem}");
        let problem = system(&["ip_address = \"10.0.2.2/24\""]).expect_err("refused");
        assert!(problem.contains("vm \"guest-0\" and the uplink both have the address 10.0.2.2"), "{problem}");
    }
}
