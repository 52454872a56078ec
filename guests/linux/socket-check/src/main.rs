//! Two guests that may speak to each other check it:
//! `socket-check PEER_CID MIB [resets=N] [restarts=1] [refused=CID] [last=CID]`.
//!
//! Each listens, and sends so many MiB to the other, which says what checksum they had when they came; both at the same
//! time. With `resets` each then talks on an open connection until it is reset so often, and connects anew each time,
//! to a socket of the other's that has listened all along. With `restarts` it first has the other guest reset itself
//! with a connection open, which has to end. `refused` is a CID that this guest may not speak to, and
//! `last` one that it says a word to in the end. One line says what came of it.

#![forbid(unsafe_code)]

mod checksum;
mod server;

use checksum::Checksum;
use server::Server;
use socket2::{Domain, SockAddr, Socket, Type};
use std::{
    io::{self, ErrorKind, Read, Write},
    process::ExitCode,
    thread,
    time::{Duration, Instant},
};

/// Where both listen.
const PORT: u32 = 1024;
/// What is written at a time.
const CHUNK_BYTES: usize = 64 << 10;
/// How long anything may take, the other guest's start included.
const PATIENCE: Duration = Duration::from_secs(120);
/// How long one waits before one asks again.
const PAUSE: Duration = Duration::from_millis(100);
/// How many words go to and fro on a connection that nobody resets.
const WORDS: u64 = 200;

/// What the other end of a connection is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
enum Request {
    /// Take what comes, and say what checksum it had.
    Take = b't',
    /// Give back each word.
    Echo = b'e',
    /// Note that no more comes.
    End = b'x',
    /// Reset the whole guest at once.
    Restart = b'r',
}

fn main() -> ExitCode {
    match run() {
        Ok(line) => {
            println!("ok {line}");
            ExitCode::SUCCESS
        }
        Err(reason) => {
            println!("FAILED {reason}");
            ExitCode::FAILURE
        }
    }
}

/// What the command line says.
#[derive(Clone, Copy, Debug, Default)]
struct Orders {
    peer: u32,
    mebibytes: u64,
    resets: u64,
    restarts: u64,
    refused: Option<u32>,
    last: Option<u32>,
}

impl Orders {
    fn parse(mut words: impl Iterator<Item = String>) -> Option<Self> {
        let mut orders =
            Self { peer: words.next()?.parse().ok()?, mebibytes: words.next()?.parse().ok()?, ..Self::default() };
        for word in words {
            let (key, value) = word.split_once('=')?;
            match key {
                "resets" => orders.resets = value.parse().ok()?,
                "restarts" => orders.restarts = value.parse().ok()?,
                "refused" => orders.refused = Some(value.parse().ok()?),
                "last" => orders.last = Some(value.parse().ok()?),
                _ => return None,
            }
        }
        Some(orders)
    }
}

fn run() -> Result<String, String> {
    let orders = Orders::parse(std::env::args().skip(1));
    let orders =
        orders.ok_or("it is called as socket-check PEER_CID MIB [resets=N] [restarts=1] [refused=CID] [last=CID]")?;
    let server = Server::start().map_err(|error| format!("nobody can listen: {error}"))?;
    let mut line = String::new();
    if let Some(cid) = orders.refused {
        line += &format!("refused={} ", refusal(cid, orders.resets)?);
    }
    for _ in 0..orders.restarts {
        restart(orders.peer)?;
        // What it said before it started again counts no more.
        server.forget();
    }
    if orders.restarts != 0 {
        line += &format!("peer_restarts={} ", orders.restarts);
    }
    let sent = send(orders.peer, orders.mebibytes << 20)?;
    line += &format!("bytes={} sent={sent:016x}", orders.mebibytes << 20);
    for _ in 0..orders.resets {
        talk_until_reset(orders.peer)?;
        // The other's socket listens as before.
        send(orders.peer, 1 << 20)?;
    }
    if orders.resets != 0 {
        line += &format!(" resets={}", orders.resets);
    }
    say_end(orders.peer)?;
    let received = server.wait_for_end(PATIENCE).ok_or("the other guest comes to no end")?;
    line += &format!(" received={} resets_served={}", received.bytes, received.resets);
    if let Some(cid) = orders.last {
        exchange(cid, 1)?;
        line += &format!(" last={cid}");
    }
    Ok(line)
}

/// Says to the guest `cid` that no more comes, and waits until it has heard: this one may be off right after.
fn say_end(cid: u32) -> Result<(), String> {
    with_retries(|| {
        let mut socket = open(cid, Request::End)?;
        // It may be off right after, too.
        let _ = socket.read(&mut [0]);
        Ok(())
    })?
    .map_err(|error| format!("no end: {error}"))
}

/// A connection to the guest `cid`, and what it is for.
fn open(cid: u32, request: Request) -> io::Result<Socket> {
    let mut socket = Socket::new(Domain::VSOCK, Type::STREAM, None)?;
    socket.connect(&SockAddr::vsock(cid, PORT))?;
    socket.set_read_timeout(Some(PATIENCE))?;
    socket.set_write_timeout(Some(PATIENCE))?;
    socket.write_all(&[request as u8])?;
    Ok(socket)
}

/// Does `attempt` until it succeeds: the other guest, or whoever stands between, may not be up yet.
fn with_retries<T>(mut attempt: impl FnMut() -> io::Result<T>) -> Result<io::Result<T>, String> {
    let start = Instant::now();
    loop {
        match attempt() {
            Err(error) if is_passing(&error) && start.elapsed() < PATIENCE => thread::sleep(PAUSE),
            result => return Ok(result),
        }
    }
}

/// Whether the same may succeed a little later.
fn is_passing(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::ConnectionReset | ErrorKind::TimedOut | ErrorKind::BrokenPipe | ErrorKind::NotConnected
    )
}

/// Tries to reach the guest `cid`, which this one may not speak to. Returns how it was refused. Whoever refuses may end
/// before it does so, as often as `lost` says.
fn refusal(cid: u32, lost: u64) -> Result<&'static str, String> {
    let mut lost = 0..lost;
    loop {
        match open(cid, Request::Echo) {
            Ok(_) => return Err(format!("cid {cid} answers, which this guest may not speak to")),
            Err(error) if error.kind() == ErrorKind::ConnectionReset => return Ok("ECONNRESET"),
            Err(error) if error.kind() == ErrorKind::TimedOut && lost.next().is_some() => {}
            Err(error) => return Err(format!("cid {cid} is not refused at once, but: {error}")),
        }
    }
}

/// Sends so many bytes to the guest `cid`, and compares what came of them there. Returns their checksum.
fn send(cid: u32, bytes: u64) -> Result<u64, String> {
    with_retries(|| {
        let mut socket = open(cid, Request::Take)?;
        socket.write_all(&bytes.to_le_bytes())?;
        let mut checksum = Checksum::default();
        let mut chunk = vec![0; CHUNK_BYTES];
        // Differs from one attempt to the next, so that nothing of an earlier one can pass.
        let mut random = checksum::Random::new();
        let mut left = bytes;
        while left != 0 {
            random.fill(&mut chunk);
            let length = usize::try_from(left).unwrap_or(usize::MAX).min(chunk.len());
            let part = chunk.get(..length).unwrap_or_default();
            checksum.add(part);
            socket.write_all(part)?;
            left -= length as u64;
        }
        let mut answer = [0; 8];
        socket.read_exact(&mut answer)?;
        let (here, there) = (checksum.value(), u64::from_le_bytes(answer));
        if here == there {
            return Ok(here);
        }
        Err(io::Error::other(format!("{bytes} bytes have the checksum {here:016x} here and {there:016x} there")))
    })?
    .map_err(|error| format!("cid {cid} does not take {bytes} bytes: {error}"))
}

/// Has the guest `cid` reset itself in the middle of a connection. Nobody at the other end can close that; it has to
/// end here all the same.
fn restart(cid: u32) -> Result<(), String> {
    exchange(cid, WORDS)?;
    let mut socket = with_retries(|| open(cid, Request::Echo))?.map_err(|error| format!("no connection: {error}"))?;
    echo(&mut socket, 0).map_err(|error| format!("cid {cid} does not answer: {error}"))?;
    open(cid, Request::Restart).map_err(|error| format!("cid {cid} is not asked to restart: {error}"))?;
    match socket.read(&mut [0]) {
        Ok(0) => Ok(()),
        Ok(_) => Err(format!("cid {cid} says what nobody has asked for")),
        Err(error) if is_reset(&socket, &error) => Ok(()),
        Err(error) => Err(format!("a connection does not end with the guest at its other end: {error}")),
    }
}

/// Sends words to the guest `cid` and gets each back, `count` of them.
fn exchange(cid: u32, count: u64) -> Result<(), String> {
    with_retries(|| {
        let mut socket = open(cid, Request::Echo)?;
        (0..count).try_for_each(|word| echo(&mut socket, word))
    })?
    .map_err(|error| format!("cid {cid} does not answer: {error}"))
}

fn echo(socket: &mut Socket, word: u64) -> io::Result<()> {
    socket.write_all(&word.to_le_bytes())?;
    let mut answer = [0; 8];
    socket.read_exact(&mut answer)?;
    match u64::from_le_bytes(answer) {
        same if same == word => Ok(()),
        other => Err(io::Error::other(format!("the word {word} comes back as {other}"))),
    }
}

/// Whether `socket` has failed with `error` because it was reset: who writes just then is told that there is no
/// connection, and the reset stays with the socket.
fn is_reset(socket: &Socket, error: &io::Error) -> bool {
    let pending = || matches!(socket.take_error(), Ok(Some(error)) if error.kind() == ErrorKind::ConnectionReset);
    error.kind() == ErrorKind::ConnectionReset || pending()
}

/// Talks to the guest `cid` on one connection until that is reset.
fn talk_until_reset(cid: u32) -> Result<(), String> {
    exchange(cid, WORDS)?;
    let mut socket = with_retries(|| open(cid, Request::Echo))?.map_err(|error| format!("no connection: {error}"))?;
    let start = Instant::now();
    let mut word = 0;
    while start.elapsed() < PATIENCE {
        match echo(&mut socket, word) {
            Ok(()) => word += 1,
            Err(error) if is_reset(&socket, &error) => return Ok(()),
            Err(error) => return Err(format!("a connection ends with `{error}` and not with a reset")),
        }
        thread::sleep(Duration::from_millis(1));
    }
    Err("nobody has reset a connection".to_owned())
}
