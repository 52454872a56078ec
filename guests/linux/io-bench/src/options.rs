//! The program's arguments: which works, how much of each, and where.

pub use crate::amount::Amount;
use crate::{block::Access, network::Exchange};
use std::{net::SocketAddrV4, path::PathBuf};

/// What can be measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Work {
    /// The disk.
    Block(Access),
    /// The network.
    Network(Exchange),
}

/// Every work, by its name.
pub const WORKS: [(&str, Work); 10] = [
    ("read-4k", Work::Block(Access::RandomRead { depth: 1 })),
    ("read-4k-deep", Work::Block(Access::RandomRead { depth: 16 })),
    ("write-4k", Work::Block(Access::RandomWrite { depth: 1 })),
    ("write-4k-deep", Work::Block(Access::RandomWrite { depth: 16 })),
    ("read-1m", Work::Block(Access::SequentialRead)),
    ("write-1m", Work::Block(Access::SequentialWrite)),
    ("tcp-bulk", Work::Network(Exchange::TcpBulk)),
    ("tcp-receive", Work::Network(Exchange::TcpReceive)),
    ("tcp-rr", Work::Network(Exchange::TcpRequests)),
    ("udp-rr", Work::Network(Exchange::UdpRequests)),
];

/// A work that was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Order {
    /// What precedes its name in the report.
    pub prefix: String,
    /// Its name.
    pub name: &'static str,
    /// What it is.
    pub work: Work,
    /// How much of it.
    pub amount: Amount,
}

/// What the program is to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// Serve others until one of them says that it is the last.
    Serve {
        /// For TCP and for UDP.
        port: u16,
    },
    /// Do some works, one after the other.
    Measure {
        /// Disks for the works on disks, taken in turn: one for all, or one for each.
        disks: Vec<PathBuf>,
        /// The server for the works on the network.
        server: Option<SocketAddrV4>,
        /// The works.
        orders: Vec<Order>,
        /// Whether the server is told to stop at the end.
        stops_server: bool,
    },
}

/// Reads the arguments: `serve PORT`, or any of `disk=FILE`, `server=ADDRESS:PORT`, `prefix=TEXT`, `stop` and
/// `WORK=AMOUNT`. A prefix holds for the works after it.
///
/// # Errors
/// The argument that says nothing.
pub fn parse(arguments: impl IntoIterator<Item = String>) -> Result<Command, String> {
    let mut arguments = arguments.into_iter().peekable();
    if arguments.next_if(|first| first == "serve").is_some() {
        let port = arguments.next().and_then(|port| port.parse().ok());
        return port.map(|port| Command::Serve { port }).ok_or_else(|| "`serve` needs the number of a port".to_owned());
    }
    let (mut disks, mut server, mut orders) = (Vec::new(), None, Vec::new());
    let (mut prefix, mut stops_server) = (String::new(), false);
    for argument in arguments {
        let (key, value) = argument.split_once('=').unwrap_or((&argument, ""));
        let unknown = || format!("`{argument}` says nothing; the works are {}", WORKS.map(|(name, _)| name).join(", "));
        match key {
            "disk" => disks.push(PathBuf::from(value)),
            "server" => server = Some(value.parse().map_err(|_| unknown())?),
            "prefix" => value.clone_into(&mut prefix),
            "stop" => stops_server = true,
            _ => {
                let (name, work) = WORKS.into_iter().find(|(name, _)| *name == key).ok_or_else(unknown)?;
                let amount = Amount::parse(value).ok_or_else(unknown)?;
                orders.push(Order { prefix: prefix.clone(), name, work, amount });
            }
        }
    }
    Ok(Command::Measure { disks, server, orders, stops_server })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn words(line: &str) -> Result<Command, String> {
        parse(line.split(' ').map(str::to_owned))
    }

    #[test]
    fn works_are_done_so_often_or_so_long() {
        let Ok(Command::Measure { orders, disks, server, stops_server }) =
            words("disk=/dev/vda server=10.0.2.2:7001 read-4k=2000 prefix=far- tcp-rr=2s stop")
        else {
            panic!("not understood")
        };
        assert_eq!(orders.first().map(|order| order.amount), Some(Amount::Rounds(2000)));
        let last = orders.last().expect("two orders");
        assert_eq!((last.prefix.as_str(), last.amount), ("far-", Amount::Time(Duration::from_secs(2))));
        assert_eq!(disks, [PathBuf::from("/dev/vda")]);
        assert!(server.is_some() && stops_server);
    }

    #[test]
    fn what_says_nothing_is_refused() {
        for line in ["serve", "serve x", "read-4k", "read-4k=many", "read-5k=1", "server=here"] {
            assert!(words(line).is_err(), "{line}");
        }
    }
}
