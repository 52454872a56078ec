//! `debug`: QEMU waits before the first instruction, and a debugger with everybody's symbols attaches.
//!
//! The board's UART is a socket that `console` connects to from another terminal, so that a guest can be typed to.
//! gdb is told which programs there are and in which address space each is; `bulkhead.py` does the rest.

pub(crate) mod check;

use super::console;
use crate::{
    bare_metal::{GUEST, guest_elf},
    launch::{self, BoardOptions, Prepared},
    qemu::{UART_CHARDEV, Uart},
    setup,
    system::{ImageName, VmSource},
    systems,
    workspace::Workspace,
};
use anyhow::{Context, bail, ensure};
use object::{Object, ObjectSegment};
use serde::Serialize;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use std::{
    ffi::OsString,
    fs::{self, File},
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, ExitCode, ExitStatus, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

/// The script for gdb.
const SCRIPT: &str = include_str!("bulkhead.py");
/// How often is looked whether gdb has ended.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// The options of `debug`.
#[derive(clap::Args)]
pub(super) struct Debug {
    /// A system of guests/systems, or the path of a .toml file
    #[arg(default_value = super::DEFAULT_SYSTEM)]
    system: String,
    #[command(flatten)]
    board: BoardOptions,
    /// The TCP port between the debugger and QEMU
    #[arg(long, default_value_t = 1234)]
    port: u16,
    /// A guest's program with symbols, such as alpha=/usr/lib/debug/boot/vmlinux-6.1.0-56-arm64 (may be repeated); with
    /// those of a Linux, guests are started with nokaslr
    #[arg(long, value_name = "VM=FILE", value_parser = parse_symbols)]
    symbols: Vec<(String, PathBuf)>,
    /// Further arguments for gdb
    #[arg(last = true, value_name = "GDB ARGS")]
    gdb: Vec<OsString>,
}

/// A program in an address space, as `bulkhead.py` reads it.
#[derive(Debug, PartialEq, Eq, Serialize)]
struct Space {
    name: String,
    /// Nothing for EL2.
    vmid: Option<usize>,
    /// With symbols, where there are some.
    file: Option<PathBuf>,
    /// What is to be added to the addresses in the file.
    offset: u64,
    /// Whether it is a Linux, which moves itself.
    linux: bool,
}

impl Debug {
    pub(super) fn run(self, workspace: &Workspace) -> anyhow::Result<ExitCode> {
        let status = self.attach(workspace, None)?;
        Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }

    /// Runs gdb until it ends; what it prints goes to `output` where that is given.
    fn attach(self, workspace: &Workspace, output: Option<&Path>) -> anyhow::Result<ExitStatus> {
        check_port(self.port)?;
        let gdb = setup::debugger()?;
        let prepared = launch::prepare(workspace, systems::find(workspace, &self.system)?, self.command_line()?)?;
        let spaces = serde_json::to_string(&self.spaces(workspace, &prepared)?)?;
        let logs = workspace.cache().join("logs");
        fs::create_dir_all(&logs)?;
        let (socket, log) = (console::socket(workspace), logs.join("debug.log"));
        let _ = fs::remove_file(&socket);
        let uart = format!(
            "socket,id={UART_CHARDEV},path={},server=on,wait=off,logfile={}",
            socket.display().to_string().replace(',', ",,"),
            log.display().to_string().replace(',', ",,")
        );
        let gdb_server = format!("tcp:localhost:{}", self.port);
        let extra = ["-chardev", &uart, "-S", "-gdb", &gdb_server].map(OsString::from);
        let machine = prepared.machine(workspace, &self.board, Uart::Chardev, extra.into())?;
        let script = logs.join("bulkhead.py");
        fs::write(&script, SCRIPT)?;

        let ended = signals()?;
        let mut qemu = Board::start(machine.command(), &log)?;
        eprintln!(
            "debug: `cargo xtask console` in another terminal is the board's UART; its text is also in {}",
            workspace.display(&log)
        );
        eprintln!("debug: Ctrl-C stops the board's cores; `help bulkhead` says how to find and follow the guests");
        let mut command = Command::new(gdb);
        command
            .args(["-q", "-ex", "set confirm off", "-ex", "set pagination off", "-ex", "set architecture aarch64"])
            .arg("-ex")
            .arg(format!("python gdb.set_convenience_variable('bulkhead_spaces', {})", python_text(&spaces)))
            .arg("-ex")
            .arg(format!("source {}", script.display()))
            .arg("-ex")
            .arg(format!("target remote localhost:{}", self.port))
            .args(&self.gdb);
        if let Some(path) = output {
            let file = File::create(path)?;
            command.stdin(Stdio::null()).stderr(file.try_clone()?).stdout(file);
        }
        let mut gdb = command.spawn().with_context(|| format!("{gdb} could not be started"))?;
        let status = loop {
            if let Some(status) = gdb.try_wait()? {
                break status;
            }
            if ended.load(Ordering::Relaxed) {
                gdb.kill()?;
                break gdb.wait()?;
            }
            if let Some(reason) = qemu.failure()? {
                gdb.kill()?;
                gdb.wait()?;
                bail!("QEMU has failed: {reason}");
            }
            thread::sleep(LOOK_EVERY);
        };
        Ok(status)
    }

    /// What is added to the guests' command lines: a Linux with symbols is to run where it is linked, so that a
    /// breakpoint may be set before it has started.
    fn command_line(&self) -> anyhow::Result<&'static str> {
        for (_, file) in &self.symbols {
            if has_linux_addresses(file)? {
                return Ok("nokaslr");
            }
        }
        Ok("")
    }

    /// EL2 and every guest, each with its symbols where there are some.
    fn spaces(&self, workspace: &Workspace, prepared: &Prepared) -> anyhow::Result<Vec<Space>> {
        let source = &prepared.source;
        for (name, _) in &self.symbols {
            ensure!(
                source.vms().iter().any(|vm| vm.name() == name),
                "--symbols: system `{}` has no vm `{name}`; choose one of these: {}",
                source.name(),
                source.vms().iter().map(VmSource::name).collect::<Vec<_>>().join(", ")
            );
        }
        let board = source.board();
        let mut spaces = vec![Space {
            name: "bulkhead".to_owned(),
            vmid: None,
            file: Some(prepared.program.elf.clone()),
            offset: board.ram_base + board.image_load_offset,
            linux: false,
        }];
        for (index, vm) in source.vms().iter().enumerate() {
            let images = prepared.bundle.images.get(index).map(Vec::as_slice).unwrap_or_default();
            let kernel = images.iter().find(|image| image.role == "kernel").map_or(0, |image| image.span.base);
            let stated = self.symbols.iter().find(|(name, _)| name == vm.name()).map(|(_, file)| file.clone());
            let (file, offset, linux) = match (stated, &vm.kernel) {
                (Some(file), _) => {
                    let is_linux = has_linux_addresses(&file)?;
                    (Some(file), 0, is_linux)
                }
                (None, ImageName::Named(name)) if name.starts_with(GUEST) => {
                    let elf = guest_elf(workspace, name.trim_start_matches(GUEST));
                    (elf, kernel, false)
                }
                (None, ImageName::Named(name)) => elf_with_offset(&source.directory().join(name), kernel),
                (None, ImageName::File(path)) => elf_with_offset(path, kernel),
            };
            // Bulkhead numbers them from 1, in the order of the system.
            spaces.push(Space { name: vm.name().to_owned(), vmid: Some(index + 1), file, offset, linux });
        }
        Ok(spaces)
    }
}

/// `VM=FILE`.
fn parse_symbols(text: &str) -> Result<(String, PathBuf), String> {
    let (vm, file) = text.split_once('=').ok_or("write VM=FILE, as in alpha=vmlinux")?;
    let file = PathBuf::from(file);
    if !file.is_file() {
        return Err(format!("there is no file {}", file.display()));
    }
    Ok((vm.to_owned(), file))
}

/// Whether `file` is linked for the upper half of the address space, as Linux is.
fn has_linux_addresses(file: &Path) -> anyhow::Result<bool> {
    let bytes = fs::read(file).with_context(|| format!("{} cannot be read", file.display()))?;
    let elf =
        object::File::parse(&*bytes).with_context(|| format!("{} is no ELF file with symbols", file.display()))?;
    Ok(elf.entry() >> 48 == 0xffff)
}

/// A kernel that is an ELF file has its own symbols: where it says, or, position-independent, moved to `base`.
fn elf_with_offset(path: &Path, base: u64) -> (Option<PathBuf>, u64, bool) {
    let Ok(bytes) = fs::read(path) else { return (None, 0, false) };
    let Ok(elf) = object::File::parse(&*bytes) else { return (None, 0, false) };
    let low = elf.segments().map(|segment| segment.address()).min().unwrap_or(0);
    let offset = if elf.kind() == object::ObjectKind::Dynamic { base.wrapping_sub(low) } else { 0 };
    (Some(path.to_owned()), offset, false)
}

/// # Errors
/// Where somebody listens there.
fn check_port(port: u16) -> anyhow::Result<()> {
    let free = TcpListener::bind(("127.0.0.1", port));
    free.map(drop).with_context(|| {
        format!("the port {port} cannot be used, perhaps by another `cargo xtask debug`; choose another with --port")
    })
}

/// Ctrl-C is for gdb alone. What ends this program instead sets the flag.
fn signals() -> anyhow::Result<Arc<AtomicBool>> {
    let (ended, ignored) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
    signal_hook::flag::register(SIGINT, ignored)?;
    signal_hook::flag::register(SIGTERM, Arc::clone(&ended))?;
    signal_hook::flag::register(SIGHUP, Arc::clone(&ended))?;
    Ok(ended)
}

/// A QEMU that ends with this value, and with this program, however that ends.
struct Board {
    child: Child,
    log: PathBuf,
}

impl Board {
    fn start(command: Command, log: &Path) -> anyhow::Result<Self> {
        let errors = log.with_extension("errors");
        let output = File::create(&errors).with_context(|| format!("{} cannot be written", errors.display()))?;
        // The kernel ends it when this program is killed; where there is no `setpriv`, it is ended in every other case.
        let mut guarded = Command::new("setpriv");
        guarded.args(["--pdeathsig", "KILL", "--"]).arg(command.get_program()).args(command.get_args());
        let has_guard = Command::new("setpriv").arg("--version").output().is_ok();
        let mut command = if has_guard { guarded } else { command };
        command.stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output);
        // Ctrl-C at the debugger stops the board's cores; it must not reach QEMU itself.
        std::os::unix::process::CommandExt::process_group(&mut command, 0);
        let child = command.spawn().context("QEMU could not be started")?;
        Ok(Self { child, log: errors })
    }

    /// What QEMU said, if it has ended by itself with a failure.
    fn failure(&mut self) -> anyhow::Result<Option<String>> {
        match self.child.try_wait()? {
            Some(status) if !status.success() => {
                let text = fs::read_to_string(&self.log).unwrap_or_default();
                Ok(Some(format!("{status}: {}", text.trim())))
            }
            Some(_) | None => Ok(None),
        }
    }
}

impl Drop for Board {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// `text` as Python writes it.
fn python_text(text: &str) -> String {
    format!("'{}'", text.replace('\\', r"\\").replace('\'', r"\'"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::process::{Pid, Signal, getpgid, kill_process_group};
    use std::io::{BufRead, BufReader};

    #[test]
    fn a_port_that_is_in_use_is_refused_with_what_to_do() {
        let taken = TcpListener::bind(("127.0.0.1", 0)).expect("a port");
        let port = taken.local_addr().expect("an address").port();
        let sentence = check_port(port).expect_err("taken").to_string();
        assert!(sentence.contains("choose another with --port"), "{sentence}");
    }

    /// The test below, in a process of its own: it does what `debug` does, and then nothing.
    const HELD: &str = "BULKHEAD_TEST_HELD";

    /// Whether this process runs: one that has ended is a zombie until somebody asks for its status.
    fn runs(process: Pid) -> bool {
        let stat = fs::read_to_string(format!("/proc/{}/stat", process.as_raw_nonzero())).unwrap_or_default();
        stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with(['Z', 'X']))
    }

    #[test]
    fn an_interrupt_ends_neither_session_nor_qemu_and_qemu_does_not_survive_a_killed_session() {
        if let Some(log) = std::env::var_os(HELD) {
            let _ended = signals().expect("signals");
            let mut command = Command::new("sleep");
            command.arg("60");
            let board = Board::start(command, Path::new(&log)).expect("a start");
            println!("\nboard {}", board.child.id());
            thread::sleep(Duration::from_secs(60));
            return;
        }
        let name = "commands::debug::tests::\
                    an_interrupt_ends_neither_session_nor_qemu_and_qemu_does_not_survive_a_killed_session";
        let log = std::env::temp_dir().join(format!("bulkhead-held-{}.log", std::process::id()));
        let mut session = Command::new(std::env::current_exe().expect("a program"));
        session.args(["--exact", "--nocapture", name]).env(HELD, &log).stdout(Stdio::piped());
        let mut session = std::os::unix::process::CommandExt::process_group(&mut session, 0).spawn().expect("a start");
        let lines = BufReader::new(session.stdout.take().expect("its output")).lines();
        let number = lines.map_while(Result::ok).find_map(|line| line.strip_prefix("board ")?.parse().ok());
        let board = number.and_then(Pid::from_raw).expect("a board");
        let own = Pid::from_child(&session);
        let groups = (getpgid(Some(own)), getpgid(Some(board)));

        // Ctrl-C at a terminal.
        kill_process_group(own, Signal::INT).expect("a signal");
        thread::sleep(Duration::from_millis(300));
        let after_interrupt = (runs(own), runs(board));
        session.kill().expect("a signal");
        session.wait().expect("an end");
        let is_gone = (0..100).any(|_| {
            thread::sleep(Duration::from_millis(50));
            !runs(board)
        });
        let _ = rustix::process::kill_process(board, Signal::KILL);
        let _ = fs::remove_file(log.with_extension("errors"));
        assert_eq!(groups, (Ok(own), Ok(board)), "each has a process group of its own");
        assert_eq!(after_interrupt, (true, true), "Ctrl-C is for the debugger alone");
        assert!(is_gone, "QEMU has survived");
    }

    #[test]
    fn what_was_started_ends_with_its_board() {
        let log = std::env::temp_dir().join(format!("bulkhead-board-{}.log", std::process::id()));
        let mut command = Command::new("sleep");
        command.arg("600");
        let board = Board::start(command, &log).expect("a start");
        let process = PathBuf::from(format!("/proc/{}", board.child.id()));
        let is_alive = process.is_dir();
        let errors = board.log.clone();
        drop(board);
        assert!(is_alive && !process.exists(), "{}", process.display());
        let _ = fs::remove_file(errors);
    }
}
