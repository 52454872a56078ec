//! The network: a long TCP stream, and questions of one byte with answers of one byte, one at a time.

use crate::{
    amount::{Amount, repeat},
    report::{Report, Running},
    service::{Service, connect},
};
use std::{
    io::{self, ErrorKind, Read, Write},
    net::{Ipv4Addr, Shutdown, SocketAddrV4, TcpStream, UdpSocket},
    time::Duration,
};

/// What is written at a time.
const CHUNK_BYTES: usize = 64 << 10;
/// Exchanges before the clock starts: addresses are resolved, windows open.
const WARM_UP_ROUNDS: u64 = 64;
/// What is sent before the clock starts, in chunks.
const WARM_UP_CHUNKS: u64 = 8;
/// How long an answer may take: a datagram that is lost is sent again.
const PATIENCE: Duration = Duration::from_secs(1);

/// A way to use a network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exchange {
    /// As much as goes, to the server.
    TcpBulk,
    /// As much as comes, from the server.
    TcpReceive,
    /// A byte there and a byte back over TCP.
    TcpRequests,
    /// A byte there and a byte back over UDP.
    UdpRequests,
}

/// Talks to the server at `address` so often or so long.
///
/// # Errors
/// The operating system's, and a server that says something else than it should.
pub fn measure(address: SocketAddrV4, exchange: Exchange, amount: Amount) -> io::Result<Report> {
    match exchange {
        Exchange::TcpBulk => send(connect(address, Service::Sink)?, amount),
        Exchange::TcpReceive => receive(connect(address, Service::Source)?, amount),
        Exchange::TcpRequests => {
            let mut stream = connect(address, Service::Echo)?;
            requests(amount, || {
                stream.write_all(&[1])?;
                stream.read_exact(&mut [0])
            })
        }
        Exchange::UdpRequests => {
            // A server that takes streams is there for datagrams too.
            drop(connect(address, Service::Echo)?);
            let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
            socket.connect(address)?;
            socket.set_read_timeout(Some(PATIENCE))?;
            let mut number = 0_u32;
            requests(amount, || {
                number = number.wrapping_add(1);
                ask(&socket, number.to_le_bytes())
            })
        }
    }
}

/// Sends `question` until its answer comes.
fn ask(socket: &UdpSocket, question: [u8; 4]) -> io::Result<()> {
    loop {
        socket.send(&question)?;
        let mut answer = [0; 4];
        loop {
            match socket.recv(&mut answer) {
                Ok(4) if answer == question => return Ok(()),
                // The answer to one that was sent twice.
                Ok(_) => {}
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => break,
                Err(error) => return Err(error),
            }
        }
    }
}

fn requests(amount: Amount, mut ask: impl FnMut() -> io::Result<()>) -> io::Result<Report> {
    (0..WARM_UP_ROUNDS).try_for_each(|_| ask())?;
    let running = Running::start();
    let (rounds, median) = repeat(amount, ask)?;
    Ok(Report { median, ..running.stop(rounds, rounds) })
}

/// The clock stops when the server has said that it has everything.
fn send(mut stream: TcpStream, amount: Amount) -> io::Result<Report> {
    let chunk = vec![0x5a; CHUNK_BYTES];
    (0..WARM_UP_CHUNKS).try_for_each(|_| stream.write_all(&chunk))?;
    let running = Running::start();
    let (rounds, _) = repeat(amount, || stream.write_all(&chunk))?;
    stream.shutdown(Shutdown::Write)?;
    let mut total = [0; 8];
    stream.read_exact(&mut total)?;
    let bytes = rounds.saturating_mul(CHUNK_BYTES as u64);
    let report = running.stop(rounds, bytes);
    let sent = bytes.saturating_add(WARM_UP_CHUNKS * CHUNK_BYTES as u64);
    if u64::from_le_bytes(total) == sent {
        return Ok(report);
    }
    Err(io::Error::other(format!("of {sent} bytes the server got {}", u64::from_le_bytes(total))))
}

fn receive(mut stream: TcpStream, amount: Amount) -> io::Result<Report> {
    let mut chunk = vec![0; CHUNK_BYTES];
    (0..WARM_UP_CHUNKS).try_for_each(|_| stream.read_exact(&mut chunk))?;
    let running = Running::start();
    let (rounds, _) = repeat(amount, || stream.read_exact(&mut chunk))?;
    Ok(running.stop(rounds, rounds.saturating_mul(CHUNK_BYTES as u64)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::{self, Server};
    use std::{net::SocketAddr, thread};

    #[test]
    fn every_exchange_works_with_the_server_until_it_is_stopped() {
        let server = Server::bind(SocketAddrV4::new(Ipv4Addr::LOCALHOST, 0)).expect("a server");
        let address = server.address();
        let serving = thread::spawn(move || server.run());
        let exchanges = [Exchange::TcpBulk, Exchange::TcpReceive, Exchange::TcpRequests, Exchange::UdpRequests];
        for exchange in exchanges {
            let report = measure(address, exchange, Amount::Rounds(20)).expect("measured");
            assert_eq!(report.rounds, 20, "{exchange:?}");
            assert!(report.nanoseconds > 0);
        }
        server::stop(address).expect("stopped");
        serving.join().expect("a thread").expect("served");
        assert!(TcpStream::connect(SocketAddr::from(address)).is_err(), "nobody serves any more");
    }
}
