//! Socket devices: who may speak to whom.

use std::fmt::Write;

use super::{Problem, Source, VmSource, backend::Backend};

/// A client's socket device.
struct Socket<'a> {
    vm: &'a VmSource,
    device: usize,
    /// The driver domain that it names, if it does.
    driver: Option<&'a String>,
    cid: u32,
    peers: &'a [String],
}

fn sockets(source: &Source) -> impl Iterator<Item = Socket<'_>> {
    source.vms.iter().flat_map(|vm| {
        vm.clients.iter().enumerate().filter_map(move |(device, client)| {
            let client = client.as_ref()?;
            let Backend::Socket { cid, peers } = &client.backend else { return None };
            Some(Socket { vm, device, driver: client.driver.as_ref(), cid: *cid, peers })
        })
    })
}

/// The CID of the machine `vm`, if it has a socket device.
fn cid_of(source: &Source, vm: &str) -> Option<u32> {
    sockets(source).find(|socket| socket.vm.name == vm).map(|socket| socket.cid)
}

/// What a guest is told of its own device: `bulkhead.cid=3`, and of its peers: `bulkhead.sockets-to=beta:4`.
pub(super) fn words(source: &Source, vm: &VmSource) -> String {
    let mut words = String::new();
    let Some(socket) = sockets(source).find(|socket| socket.vm.name == vm.name) else { return words };
    // Writing to a string cannot fail.
    let _ = write!(words, " bulkhead.cid={}", socket.cid);
    let peers = socket.peers.iter().filter_map(|peer| Some(format!("{peer}:{}", cid_of(source, peer)?)));
    let peers: Vec<_> = peers.collect();
    if !peers.is_empty() {
        let _ = write!(words, " bulkhead.sockets-to={}", peers.join(","));
    }
    words
}

/// Refuses two devices with one CID, a second device of a machine, for which Linux has no use, and peers that are not
/// there or do not agree.
pub(super) fn check(source: &Source) -> Vec<Problem> {
    let mut problems = Vec::new();
    for (number, socket) in sockets(source).enumerate() {
        let name = &socket.vm.name;
        let mut refused = |reason: String| {
            let sentence = format!("device \"virtio-vsock\" of vm {name:?} {reason}");
            problems.push(source.problem(socket.vm.lines.device(socket.device), sentence));
        };
        if let Some(other) =
            sockets(source).take(number).find(|other| other.vm.name == *name || other.cid == socket.cid)
        {
            let other = &other.vm.name;
            refused(match other == name {
                true => "is its second one, and a guest has use for one alone; remove it".to_string(),
                false => format!("has the cid {} of vm {other:?}; give it another", socket.cid),
            });
            continue;
        }
        for (place, peer) in socket.peers.iter().enumerate() {
            let found = sockets(source).find(|other| other.vm.name == *peer);
            match found {
                _ if peer == name => refused("names its own vm as a peer; remove it there".to_string()),
                _ if socket.peers.iter().take(place).any(|other| other == peer) => {
                    refused(format!("names the peer {peer:?} twice; remove one of them"));
                }
                None => refused(format!(
                    "is to speak to vm {peer:?}, which has no device of that kind; give it one, or name another"
                )),
                Some(other) if other.driver != socket.driver => refused(format!(
                    "is to speak to vm {peer:?}, which another driver domain serves; let one serve both"
                )),
                Some(other) if !other.peers.contains(name) => refused(format!(
                    "is to speak to vm {peer:?}, which is not to speak to it; add {name:?} to the peers of vm {peer:?}, \
                     or remove {peer:?} here"
                )),
                Some(_) => {}
            }
        }
    }
    problems
}
