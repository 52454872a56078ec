//! The system console: the board's UART, shared by Bulkhead's log and every guest.

use arch::uart::Uart;
use log::{Level, LevelFilter, Log, Metadata, Record};
use spin::mutex::TicketMutex;
use terminal::console::{Console, GuestIndex, Sink, UnfinishedLines};

/// The multiplexer and the UART behind it.
struct SystemConsole {
    multiplexer: Console,
    uart: Option<Output>,
}

struct Output(Uart);

impl Sink for Output {
    fn put(&mut self, byte: u8) {
        self.0.put(byte);
    }
}

/// Never held while a device or another lock is taken. First come, first served: a guest that prints without end cannot
/// keep the others out.
static CONSOLE: TicketMutex<SystemConsole> =
    TicketMutex::new(SystemConsole { multiplexer: Console::new(), uart: None });

struct Logger;

impl Log for Logger {
    fn enabled(&self, _metadata: &Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &Record<'_>) {
        let prefix = match record.level() {
            Level::Error => "error: ",
            Level::Warn => "warning: ",
            Level::Info | Level::Debug | Level::Trace => "",
        };
        with(|multiplexer, output| multiplexer.log_line(format_args!("{prefix}{}", record.args()), output));
    }

    fn flush(&self) {}
}

fn with<R: Default>(action: impl FnOnce(&mut Console, &mut Output) -> R) -> R {
    let mut console = CONSOLE.lock();
    let SystemConsole { multiplexer, uart } = &mut *console;
    uart.as_mut().map(|output| action(multiplexer, output)).unwrap_or_default()
}

/// Gives the console its UART, behind which is a terminal of so many columns, and makes it the log's target.
pub fn install(uart: Uart, whole_lines: bool, columns: Option<u16>) {
    let mut console = CONSOLE.lock();
    if let Some(columns) = columns {
        console.multiplexer.set_columns(columns);
    }
    console.uart = Some(Output(uart));
    if whole_lines {
        console.multiplexer.set_unfinished_lines(UnfinishedLines::Held);
    }
    drop(console);
    // Both fail only if done twice.
    let _ = log::set_logger(&Logger);
    log::set_max_level(LevelFilter::Info);
}

/// Adds a guest.
pub fn add_guest(name: &str) -> GuestIndex {
    CONSOLE.lock().multiplexer.add_guest(name)
}

/// Says which keys switch the input between guests.
pub fn help() {
    with(|multiplexer, output| multiplexer.help_line(output));
}

/// Shows what `guest` has begun to say, when it stops.
pub fn flush(guest: GuestIndex) {
    with(|multiplexer, output| multiplexer.flush_guest(guest, output));
}

/// Takes a byte that was typed on the UART, if there is one: whose device is to look for it, if it is for a guest.
pub fn take_input() -> Option<Option<GuestIndex>> {
    with(|multiplexer, output| output.0.take().map(|byte| multiplexer.input(byte, output)))
}

/// One guest's end of the console.
pub struct GuestConsole(GuestIndex);

impl GuestConsole {
    /// The end of `guest`.
    pub fn new(guest: GuestIndex) -> Self {
        Self(guest)
    }
}

impl vdev::Console for GuestConsole {
    fn put(&mut self, byte: u8) {
        with(|multiplexer, output| multiplexer.guest_put(self.0, byte, output));
    }

    fn take(&mut self) -> Option<u8> {
        with(|multiplexer, _| multiplexer.take(self.0))
    }
}
