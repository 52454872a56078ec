//! The other end of the network: one port for TCP and UDP. The first byte of a TCP connection says which service it
//! wants; whatever comes over UDP goes back.

use crate::service::{self, Service};
use std::{
    io::{self, ErrorKind, Read, Write},
    net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpListener, TcpStream, UdpSocket},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

const BUFFER_BYTES: usize = 64 << 10;
/// How often the UDP service looks whether it is to stop.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// A server that has its port.
#[derive(Debug)]
pub struct Server {
    streams: TcpListener,
    datagrams: UdpSocket,
    address: SocketAddrV4,
}

impl Server {
    /// Takes the port, or a free one for 0.
    ///
    /// # Errors
    /// The operating system's.
    pub fn bind(address: SocketAddrV4) -> io::Result<Self> {
        let streams = TcpListener::bind(address)?;
        let SocketAddr::V4(address) = streams.local_addr()? else { return Err(ErrorKind::Unsupported.into()) };
        let datagrams = UdpSocket::bind(address)?;
        datagrams.set_read_timeout(Some(LOOK_EVERY))?;
        Ok(Self { streams, datagrams, address })
    }

    /// Where it is.
    #[must_use]
    pub const fn address(&self) -> SocketAddrV4 {
        self.address
    }

    /// Serves until [`stop`] is called.
    ///
    /// # Errors
    /// The operating system's, where nobody can connect any more. What fails within a connection ends that alone.
    pub fn run(self) -> io::Result<()> {
        let stopped = Arc::new(AtomicBool::new(false));
        let stop = Arc::clone(&stopped);
        let datagrams = self.datagrams;
        let echo = thread::spawn(move || echo_datagrams(&datagrams, &stop));
        for stream in self.streams.incoming() {
            let mut stream = stream?;
            let mut letter = [0];
            if stream.set_nodelay(true).and_then(|()| stream.read_exact(&mut letter)).is_err() {
                continue;
            }
            match Service::of(letter[0]) {
                Some(Service::Stop) => break,
                Some(service) => drop(thread::spawn(move || serve(stream, service))),
                None => {}
            }
        }
        stopped.store(true, Ordering::Relaxed);
        // It looks twice a second; what it ends with matters to nobody.
        let _ = echo.join();
        Ok(())
    }
}

/// Tells the server at `address` to stop.
///
/// # Errors
/// The operating system's.
pub fn stop(address: SocketAddrV4) -> io::Result<()> {
    let address =
        if address.ip().is_unspecified() { SocketAddrV4::new(Ipv4Addr::LOCALHOST, address.port()) } else { address };
    service::connect(address, Service::Stop).map(drop)
}

fn serve(mut stream: TcpStream, service: Service) -> io::Result<()> {
    let mut buffer = vec![0; BUFFER_BYTES];
    let mut total = 0_u64;
    loop {
        match service {
            Service::Source => stream.write_all(&buffer)?,
            Service::Sink | Service::Echo | Service::Stop => {
                let count = stream.read(&mut buffer)?;
                total = total.saturating_add(count as u64);
                match (service, buffer.get(..count)) {
                    (Service::Echo, Some(bytes @ [_, ..])) => stream.write_all(bytes)?,
                    (Service::Sink, Some([])) => return stream.write_all(&total.to_le_bytes()),
                    (_, Some([]) | None) => return Ok(()),
                    (_, Some(_)) => {}
                }
            }
        }
    }
}

fn echo_datagrams(socket: &UdpSocket, stopped: &AtomicBool) {
    let mut buffer = [0; 2048];
    while !stopped.load(Ordering::Relaxed) {
        if let Ok((count, from)) = socket.recv_from(&mut buffer) {
            // One that is lost is sent again.
            let _ = socket.send_to(buffer.get(..count).unwrap_or_default(), from);
        }
    }
}
