//! The end that listens: one socket for as long as the program runs.

use crate::{CHUNK_BYTES, PORT, Request, checksum::Checksum};
use socket2::{Domain, SockAddr, Socket, Type};
use std::{
    io::{self, ErrorKind, Read, Write},
    sync::{Arc, Condvar, Mutex, PoisonError},
    thread,
    time::Duration,
};

/// More connections than one guest has open at a time.
const BACKLOG: i32 = 16;
/// `VMADDR_CID_ANY`: whoever this guest is.
const ANY: u32 = u32::MAX;

/// What has come so far.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Received {
    /// Bytes that came whole.
    pub(crate) bytes: u64,
    /// Connections that ended with ECONNRESET here.
    pub(crate) resets: u64,
    /// The other guest has said that no more comes.
    is_end: bool,
}

type Shared = Arc<(Mutex<Received>, Condvar)>;

/// A socket that listens, with a thread for each connection.
pub(crate) struct Server(Shared);

impl Server {
    /// Listens from here on.
    pub(crate) fn start() -> io::Result<Self> {
        let socket = Socket::new(Domain::VSOCK, Type::STREAM, None)?;
        socket.bind(&SockAddr::vsock(ANY, PORT))?;
        socket.listen(BACKLOG)?;
        let shared = Shared::default();
        let server = Self(Arc::clone(&shared));
        thread::spawn(move || {
            while let Ok((connection, _)) = socket.accept() {
                let shared = Arc::clone(&shared);
                thread::spawn(move || {
                    let served = serve(&connection);
                    let is_reset = matches!(&served, Err(error) if crate::is_reset(&connection, error));
                    note(&shared, |received| received.add(served, is_reset));
                });
            }
        });
        Ok(server)
    }

    /// Waits until the other guest has come to an end, but no longer than `patience`.
    pub(crate) fn wait_for_end(&self, patience: Duration) -> Option<Received> {
        let (received, changed) = &*self.0;
        let received = received.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = changed.wait_timeout_while(received, patience, |received| !received.is_end);
        let (received, result) = waited.unwrap_or_else(PoisonError::into_inner);
        (!result.timed_out()).then_some(*received)
    }

    /// Forgets what has come so far.
    pub(crate) fn forget(&self) {
        note(&self.0, |received| *received = Received::default());
    }
}

fn note(shared: &Shared, change: impl FnOnce(&mut Received)) {
    let (received, changed) = &**shared;
    change(&mut received.lock().unwrap_or_else(PoisonError::into_inner));
    changed.notify_all();
}

/// What came of a connection.
enum Served {
    Bytes(u64),
    End,
    Nothing,
}

impl Received {
    fn add(&mut self, served: io::Result<Served>, is_reset: bool) {
        match served {
            Ok(Served::Bytes(bytes)) => self.bytes += bytes,
            Ok(Served::End) => self.is_end = true,
            Ok(Served::Nothing) => {}
            Err(_) => self.resets += u64::from(is_reset),
        }
    }
}

fn serve(mut connection: &Socket) -> io::Result<Served> {
    let mut request = [0];
    connection.read_exact(&mut request)?;
    match request {
        [byte] if byte == Request::Take as u8 => take(&mut connection).map(Served::Bytes),
        [byte] if byte == Request::Echo as u8 => loop {
            let mut word = [0; 8];
            match connection.read_exact(&mut word) {
                Err(error) if error.kind() == ErrorKind::UnexpectedEof => return Ok(Served::Nothing),
                result => result?,
            }
            connection.write_all(&word)?;
        },
        [byte] if byte == Request::End as u8 => {
            let _ = connection.write_all(&request);
            Ok(Served::End)
        }
        [byte] if byte == Request::Restart as u8 => {
            // Nothing is closed before (Documentation/admin-guide/sysrq.rst: `b`).
            std::fs::write("/proc/sysrq-trigger", "b").map(|()| Served::Nothing)
        }
        _ => Ok(Served::Nothing),
    }
}

fn take(connection: &mut &Socket) -> io::Result<u64> {
    let mut length = [0; 8];
    connection.read_exact(&mut length)?;
    let length = u64::from_le_bytes(length);
    let mut checksum = Checksum::default();
    let mut chunk = vec![0; CHUNK_BYTES];
    let mut left = length;
    while left != 0 {
        let part = usize::try_from(left).unwrap_or(usize::MAX).min(chunk.len());
        let part = chunk.get_mut(..part).unwrap_or_default();
        // Whole chunks, so that both ends cut the checksum alike.
        connection.read_exact(part)?;
        checksum.add(part);
        left -= part.len() as u64;
    }
    connection.write_all(&checksum.value().to_le_bytes())?;
    Ok(length)
}
