//! What a TCP connection to the server is for, and how one is made.

use std::{
    io::{self, Write},
    net::{SocketAddrV4, TcpStream},
    thread,
    time::Duration,
};

/// How often a server that is not there yet is asked again, and at which intervals.
const ATTEMPTS: u32 = 150;
const ATTEMPT_INTERVAL: Duration = Duration::from_millis(200);

/// What a TCP connection is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Service {
    /// Everything is read; at its end comes the number of bytes, as eight bytes in little-endian order.
    Sink,
    /// Bytes come until the connection ends.
    Source,
    /// What comes goes back.
    Echo,
    /// The server stops.
    Stop,
}

impl Service {
    /// The byte that asks for it.
    pub(crate) const fn letter(self) -> u8 {
        match self {
            Self::Sink => b's',
            Self::Source => b'g',
            Self::Echo => b'e',
            Self::Stop => b'q',
        }
    }

    pub(crate) fn of(letter: u8) -> Option<Self> {
        [Self::Sink, Self::Source, Self::Echo, Self::Stop].into_iter().find(|service| service.letter() == letter)
    }
}

/// Connects to one of the services of the server at `address`, which may still have to start.
pub(crate) fn connect(address: SocketAddrV4, service: Service) -> io::Result<TcpStream> {
    let mut attempt = 0;
    let mut stream = loop {
        match TcpStream::connect(address) {
            Ok(stream) => break stream,
            Err(error) if attempt == ATTEMPTS => return Err(error),
            Err(_) => attempt += 1,
        }
        thread::sleep(ATTEMPT_INTERVAL);
    };
    stream.set_nodelay(true)?;
    stream.write_all(&[service.letter()])?;
    Ok(stream)
}
