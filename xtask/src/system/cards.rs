//! The addresses of clients' network cards: stated ones are held to the rules, and the others are chosen.

use super::{
    Problem, Source,
    backend::{Backend, Client, Mac},
    source::VmSource,
};

/// A client's card, in the order of the system.
struct Card<'a> {
    vm: &'a VmSource,
    device: usize,
    client: &'a Client,
}

fn cards(source: &Source) -> impl Iterator<Item = Card<'_>> {
    source.vms.iter().flat_map(|vm| {
        vm.clients.iter().enumerate().filter_map(move |(device, client)| {
            let client = client.as_ref().filter(|client| matches!(client.backend, Backend::Network { .. }))?;
            Some(Card { vm, device, client })
        })
    })
}

/// The addresses that name no one card, and those that two cards of one driver domain have.
pub(super) fn check_macs(source: &Source) -> Vec<Problem> {
    let mut problems = Vec::new();
    let is_beside = |card: &Card<'_>, other: &Card<'_>| other.client.driver == card.client.driver;
    for (number, card) in cards(source).enumerate() {
        let Some(mac) = card.client.mac else { continue };
        let name = &card.vm.name;
        let kind = card.client.backend.kind().name();
        let mut refused = |sentence| problems.push(source.problem(card.vm.lines.device(card.device), sentence));
        // Bit 0 of the first byte is set in the address of a group (IEEE 802, 8.2).
        let [first, ..] = mac;
        if first & 1 != 0 || mac == [0; 6] {
            refused(format!(
                "the mac address of device {kind:?} of vm {name:?} does not name one card; use one with an even first \
                 byte that is not all zeroes"
            ));
        } else if let Some(other) =
            cards(source).take(number).find(|other| is_beside(&card, other) && other.client.mac == Some(mac))
        {
            let other = &other.vm.name;
            refused(format!(
                "device {kind:?} of vm {name:?} has the mac address of a card of vm {other:?}; give it another"
            ));
        }
    }
    problems
}

/// Gives an address to each card that has none.
pub(super) fn give_macs(source: &mut Source) {
    let mut taken: Vec<_> = cards(source).filter_map(|card| card.client.mac).collect();
    for vm in &mut source.vms {
        for (device, client) in vm.clients.iter_mut().enumerate() {
            let Some(client) = client else { continue };
            if let (Backend::Network { .. }, None) = (&client.backend, client.mac) {
                let Mac(mac) = Mac::generate(&source.name, &format!("{}/{device}", vm.name), &taken);
                taken.push(mac);
                client.mac = Some(mac);
            }
        }
    }
}
