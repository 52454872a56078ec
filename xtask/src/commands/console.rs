//! `console`: the UART of the board that `debug` has started, in another terminal.

use crate::workspace::Workspace;
use anyhow::{Context, bail, ensure};
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcsetattr};
use std::{
    fs,
    io::{self, IsTerminal, Read, Write},
    net::Shutdown,
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    process::ExitCode,
    thread,
    time::{Duration, Instant},
};

/// Ctrl-A, and then `x`, leaves, as in QEMU.
const ESCAPE: u8 = 1;

/// Where `debug` has the board's UART.
pub(super) fn socket(workspace: &Workspace) -> PathBuf {
    workspace.cache().join("debug.uart")
}

pub(super) fn run(workspace: &Workspace) -> anyhow::Result<ExitCode> {
    let path = socket(workspace);
    let board = UnixStream::connect(&path).with_context(|| {
        format!("no board's UART is at {}; start one with `cargo xtask debug` first", workspace.display(&path))
    })?;
    // What was said before is in the log.
    if let Ok(text) = fs::read(workspace.cache().join("logs/debug.log")) {
        show(&text)?;
    }
    eprintln!("console: Ctrl-A X leaves\r");
    let _raw = Raw::enter()?;
    let mut to_board = board.try_clone()?;
    thread::spawn(move || {
        let _ = type_to(&mut io::stdin().lock(), &mut to_board);
        let _ = to_board.shutdown(Shutdown::Both);
    });
    let (mut board, mut buffer) = (board, [0; 4096]);
    while let Ok(count @ 1..) = board.read(&mut buffer) {
        show(buffer.get(..count).unwrap_or_default())?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Types `keys` to the board again and again until it has said all of `wanted`.
///
/// # Errors
/// What it has not said before it ended, or in time.
pub(super) fn type_until(socket: &Path, keys: &[u8], wanted: &[&str]) -> anyhow::Result<()> {
    const LIMIT: Duration = Duration::from_secs(40);
    const PAUSE: Duration = Duration::from_millis(200);
    let started = Instant::now();
    let mut board = loop {
        match UnixStream::connect(socket) {
            Ok(board) => break board,
            Err(error) if started.elapsed() > LIMIT => return Err(error).context("there is no UART to type to"),
            Err(_) => thread::sleep(PAUSE),
        }
    };
    board.set_read_timeout(Some(PAUSE))?;
    let (mut said, mut buffer) = (String::new(), [0; 4096]);
    while let Some(missing) = wanted.iter().find(|wanted| !said.contains(**wanted)) {
        ensure!(started.elapsed() < LIMIT, "the board has not said {missing:?}");
        match board.read(&mut buffer) {
            Ok(0) => bail!("the board has ended without {missing:?}"),
            Ok(count) => said += &String::from_utf8_lossy(buffer.get(..count).unwrap_or_default()),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => board.write_all(keys)?,
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

fn show(bytes: &[u8]) -> io::Result<()> {
    let mut output = io::stdout().lock();
    output.write_all(bytes)?;
    output.flush()
}

/// Passes keys on until the one that leaves, or until there are no more.
fn type_to(keys: &mut impl Read, board: &mut impl Write) -> io::Result<()> {
    let (mut key, mut is_escaped) = ([0], false);
    while keys.read(&mut key)? == 1 {
        match (is_escaped, key) {
            (true, [b'x' | b'X']) => return Ok(()),
            (false, [ESCAPE]) => is_escaped = true,
            (_, key) => {
                is_escaped = false;
                board.write_all(&key)?;
            }
        }
    }
    Ok(())
}

/// A terminal that passes every key on at once. It is as it was when this ends.
struct Raw(Option<Termios>);

impl Raw {
    fn enter() -> anyhow::Result<Self> {
        if !io::stdin().is_terminal() {
            return Ok(Self(None));
        }
        let before = tcgetattr(io::stdin())?;
        let mut raw = before.clone();
        raw.make_raw();
        tcsetattr(io::stdin(), OptionalActions::Now, &raw)?;
        Ok(Self(Some(before)))
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        if let Some(before) = &self.0 {
            let _ = tcsetattr(io::stdin(), OptionalActions::Now, before);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_passed_on_until_the_one_that_leaves() {
        let mut board = Vec::new();
        type_to(&mut &b"ls\r\x01\x01\x1d2\x01xrest"[..], &mut board).expect("no file");
        assert_eq!(board, b"ls\r\x01\x1d2");
    }
}
