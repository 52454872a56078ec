//! The guest's console: whole lines to the PL011, from any CPU; also behind the `log` facade.

use crate::{interrupts, uart};
use core::fmt::{self, Write};
use spin::Mutex;

struct Console;

static CONSOLE: Mutex<Console> = Mutex::new(Console);
static LOGGER: Logger = Logger;

impl Write for Console {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for byte in text.bytes() {
            if byte == b'\n' {
                uart::put(b'\r');
            }
            uart::put(byte);
        }
        Ok(())
    }
}

struct Logger;

impl log::Log for Logger {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        print_line(format_args!("{}: {}", record.level(), record.args()));
    }

    fn flush(&self) {}
}

pub(crate) fn init() {
    uart::init();
    // Nobody else can have set a logger: this is the first code that runs.
    let _ = log::set_logger(&LOGGER);
    log::set_max_level(log::LevelFilter::Info);
}

/// Prints one line; other CPUs' lines come before or after it.
pub fn print_line(line: fmt::Arguments<'_>) {
    interrupts::without(|| {
        // A device never refuses a byte for good, so this cannot fail.
        let _ = writeln!(CONSOLE.lock(), "{line}");
    });
}

/// Prints one line even if another CPU, or an interrupted one, holds the console: for the last words of a guest.
pub(crate) fn force_line(line: fmt::Arguments<'_>) {
    interrupts::mask();
    let mut guard = CONSOLE.try_lock();
    let mut console = Console;
    let _ = match &mut guard {
        Some(guard) => writeln!(guard, "{line}"),
        None => writeln!(console, "\n{line}"),
    };
}

/// Prints one line to the guest's console, as `std`'s does.
#[macro_export]
macro_rules! println {
    ($($argument:tt)*) => { $crate::console::print_line(format_args!($($argument)*)) };
}
