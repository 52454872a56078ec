//! The scenarios that gdb plays: it is given commands, and what it prints is judged.

use super::{Debug, console, python_text};
use crate::{launch::BoardOptions, workspace::Workspace};
use anyhow::{anyhow, bail};
use std::{
    ffi::OsString,
    fs::{self, File},
    net::TcpListener,
    path::Path,
    thread,
};

/// The system that [`stops`] starts.
pub(crate) const SYSTEM: &str = "test-spinner";
/// The system that [`stops_in_clients`] starts: a driver domain, and two guests that are the same program.
pub(crate) const CLIENTS: &str = "test-io-clients";

/// Has gdb stop in EL2, in a guest, and at Ctrl-C, and looks whether each stop has the symbols of who runs. What gdb
/// prints goes to `log`.
///
/// # Errors
/// What is missing in it.
pub(crate) fn stops(workspace: &Workspace, log: &Path) -> anyhow::Result<()> {
    let commands = [
        "bulkhead break bulkhead bulkhead::construct::build_devices",
        "bulkhead break attacker spinner::main",
        "continue",
        "backtrace 1",
        "delete 1",
        "continue",
        "backtrace 1",
        "bulkhead where",
        // By its vectors a Linux that has moved is found; a bare-metal guest has some, too.
        "python print('vectors are', 'found' if address_of('exception_vectors') == vector_base() else 'lost')",
        "python space, before, real = current(), current().offset, vector_base",
        "python vector_base = lambda: 0xffff800009010800",
        "python space.vectors = 0xffff800008010800; find_linux(space); print('moved by', hex(space.offset))",
        "python space.vectors, space.offset, vector_base = None, before, real",
        "delete",
        // As Ctrl-C at its terminal would.
        "python import os, signal, threading; threading.Timer(2, lambda: os.kill(os.getpid(), signal.SIGINT)).start()",
        "continue",
        "echo still here\\n",
    ];
    let wanted = [
        "#0  bulkhead::construct::build_devices ",
        "#0  spinner::main ",
        ": attacker at EL1, pc 0x",
        "vectors are found",
        "moved by 0x1000000",
        "SIGINT",
        "still here",
    ];
    says(workspace, log, SYSTEM, &commands, &wanted)
}

/// Has gdb stop in a driver domain, and in the second of two guests at an address that the first passes too, and types
/// to the board meanwhile. What gdb prints goes to `log`.
///
/// # Errors
/// What is missing in it, or in what the board has said.
pub(crate) fn stops_in_clients(workspace: &Workspace, log: &Path) -> anyhow::Result<()> {
    let (socket, done) = (console::socket(workspace), log.with_extension("done"));
    let _ = fs::remove_file(&done);
    let interrupt = format!(
        "python import os, signal, subprocess, threading; threading.Thread(target=lambda: (subprocess.run(['sh', '-c', \
         'until [ -e \"$0\" ]; do sleep 0.1; done', {}]), os.kill(os.getpid(), signal.SIGINT))).start()",
        python_text(&done.display().to_string())
    );
    // Ctrl-] and 3: what is typed is then for the third guest. The other one of the two has run on.
    let typing = thread::spawn(move || {
        let typed = console::type_until(&socket, b"\x1d3", &["input goes to beta", "[alpha] PASS "]);
        File::create(done).map_err(anyhow::Error::from).and(typed)
    });
    let commands = [
        "bulkhead break driver-domain driver_domain::main",
        "bulkhead break beta bulkhead_guest_client::main",
        "continue",
        "backtrace 1",
        "python print('first stop in', current().name)",
        "continue",
        "backtrace 1",
        "python print('second stop in', current().name)",
        // As Ctrl-C at its terminal would, once the board has answered.
        &interrupt,
        "continue",
        "echo still here\\n",
    ];
    let wanted = [
        "#0  driver_domain::main ",
        "first stop in driver-domain",
        "#0  bulkhead_guest_client::main ",
        "second stop in beta",
        "SIGINT",
        "still here",
    ];
    says(workspace, log, CLIENTS, &commands, &wanted)?;
    typing.join().map_err(|_| anyhow!("nobody has typed"))?
}

/// Gives gdb `commands` for `system`, and looks for what it is to print in their course.
fn says(workspace: &Workspace, log: &Path, system: &str, commands: &[&str], wanted: &[&str]) -> anyhow::Result<()> {
    let port = TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port();
    let mut gdb: Vec<OsString> = vec!["-nx".into(), "-batch".into()];
    gdb.extend(commands.iter().flat_map(|command| ["-ex", command]).map(OsString::from));
    let debug = Debug { system: system.to_owned(), board: BoardOptions::default(), port, symbols: Vec::new(), gdb };
    if let Some(directory) = log.parent() {
        fs::create_dir_all(directory)?;
    }
    debug.attach(workspace, Some(log))?;
    let text = fs::read_to_string(log)?;
    match wanted.iter().find(|wanted| !text.contains(**wanted)) {
        None => Ok(()),
        Some(wanted) => bail!("gdb does not say {wanted:?}"),
    }
}
