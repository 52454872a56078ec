//! The command line of QEMU: a board from `platform`, with Bulkhead as the kernel and the bundle as the initial RAM
//! disk.

mod virtio;

pub(crate) use virtio::Virtio;

use crate::claim::Claim;
use platform::Board;
use std::{
    ffi::{OsStr, OsString},
    path::PathBuf,
    process::Command,
    sync::Arc,
};

/// The program that emulates the boards.
pub(crate) const PROGRAM: &str = "qemu-system-aarch64";

/// What [`Uart::Chardev`] calls its character device.
pub(crate) const UART_CHARDEV: &str = "uart";

/// Who has the other end of the board's UART.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Uart {
    /// A person at a terminal: keys reach the board, and Ctrl-A X ends QEMU.
    Terminal,
    /// A program that only reads.
    Reader,
    /// The character device [`UART_CHARDEV`], which further arguments define.
    Chardev,
}

/// How the board's time passes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Clock {
    /// With the host's clock.
    Host,
    /// A fixed time for each instruction of any core, 2^`shift` ns: the same in every run, however busy the host is.
    Instructions {
        /// 0 for 1 ns.
        shift: u8,
        /// While all cores are idle, time passes with the host's clock. Else it jumps to the next deadline at once: the
        /// same in every run too, but then seconds pass while a disk of the host's is read.
        idles: bool,
    },
}

/// A board under QEMU and what is loaded onto it.
#[derive(Clone, Debug)]
pub(crate) struct Machine {
    /// The board.
    pub(crate) board: &'static Board,
    /// The model of its cores, as QEMU names it.
    pub(crate) cpu: String,
    /// The number of cores.
    pub(crate) cores: u8,
    /// The size of its RAM, in bytes.
    pub(crate) memory_bytes: u64,
    /// How its time passes.
    pub(crate) clock: Clock,
    /// Who has the other end of its UART.
    pub(crate) uart: Uart,
    /// What comes to its UART at once, before it runs: of a [`Uart::Reader`].
    pub(crate) typed: &'static [u8],
    /// How wide the terminal is that shows what comes from it, if it is one.
    pub(crate) columns: Option<u16>,
    /// `bulkhead.bin`.
    pub(crate) kernel: PathBuf,
    /// The bundle.
    pub(crate) bundle: PathBuf,
    /// What is in the virtio slots; without it they are empty.
    pub(crate) virtio: Option<Virtio>,
    /// Further arguments, as the user gave them.
    pub(crate) extra: Vec<OsString>,
    /// That nobody else runs the system, where it has disks of its own.
    #[expect(dead_code, reason = "it is kept for as long as the machine may run")]
    pub(crate) claim: Option<Arc<Claim>>,
}

impl Machine {
    /// QEMU's arguments.
    pub(crate) fn arguments(&self) -> Vec<OsString> {
        let mut arguments: Vec<OsString> = Vec::new();
        let mut option = |name: &str, value: &OsStr| arguments.extend([name.into(), value.to_owned()]);
        let machine = match self.clock {
            Clock::Host => self.board.qemu_machine.to_owned(),
            Clock::Instructions { .. } => {
                format!("{},{}", self.board.qemu_machine, self.board.qemu_machine_reproducible)
            }
        };
        option("-M", machine.as_ref());
        option("-cpu", self.cpu.as_ref());
        option("-smp", self.cores.to_string().as_ref());
        option("-m", format!("{}M", self.memory_bytes >> 20).as_ref());
        option("-display", "none".as_ref());
        match self.uart {
            Uart::Chardev => {
                option("-serial", format!("chardev:{UART_CHARDEV}").as_ref());
                option("-monitor", "none".as_ref());
            }
            Uart::Terminal => option("-serial", "mon:stdio".as_ref()),
            Uart::Reader => {
                option("-serial", "stdio".as_ref());
                option("-monitor", "none".as_ref());
            }
        }
        // A guest's unfinished line would otherwise be shown at once, and again when it is continued.
        let lines = (self.uart == Uart::Reader).then(|| "bulkhead.console=lines".to_owned());
        let columns = self.columns.map(|columns| format!("bulkhead.columns={columns}"));
        let words: Vec<_> = lines.into_iter().chain(columns).collect();
        if !words.is_empty() {
            option("-append", words.join(" ").as_ref());
        }
        match &self.virtio {
            None => option("-nic", "none".as_ref()),
            Some(virtio) => virtio.arguments().iter().for_each(|[name, value]| option(&name.to_string_lossy(), value)),
        }
        if let Clock::Instructions { shift, idles } = self.clock {
            option("-icount", format!("shift={shift},sleep={}", if idles { "on" } else { "off" }).as_ref());
            option("-rtc", "base=2020-01-01T00:00:00,clock=vm".as_ref());
            option("-seed", "1".as_ref());
        }
        // Bulkhead's panic reaches QEMU through this device, and QEMU then ends with a failing status.
        option("-device", "pvpanic-pci".as_ref());
        option("-action", "panic=exit-failure".as_ref());
        option("-kernel", self.kernel.as_ref());
        option("-initrd", self.bundle.as_ref());
        arguments.push("-no-reboot".into());
        arguments.extend(self.extra.iter().cloned());
        arguments
    }

    /// Has time pass with the host's clock while all cores are idle, if there are disks: a request takes as long as the
    /// host does, and no driver domain is to be blamed for that. What is measured, or compared between runs, does
    /// without.
    pub(crate) fn wait_for_disks(&mut self) {
        let has_disks = self.virtio.as_ref().is_some_and(|virtio| !virtio.disks.is_empty());
        if let Clock::Instructions { idles, .. } = &mut self.clock {
            *idles = has_disks;
        }
    }

    /// The command, ready to start.
    pub(crate) fn command(&self) -> Command {
        let mut command = Command::new(PROGRAM);
        command.args(self.arguments());
        command
    }

    /// The command as one would type it into a shell.
    pub(crate) fn line(&self) -> String {
        let mut line = PROGRAM.to_owned();
        for argument in self.arguments() {
            line.push(' ');
            line.push_str(&quoted(&argument.to_string_lossy()));
        }
        line
    }
}

/// `word` as a shell takes it: quoted where it must be.
fn quoted(word: &str) -> String {
    let plain = |character: char| character.is_ascii_alphanumeric() || "-_=,.:/+@".contains(character);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

/// QEMU as it counts instructions, with the same board as Bulkhead's runs, and nothing loaded.
pub(crate) fn reproducible(machine: &str, cpu: &str, cores: u8) -> Command {
    let mut command = Command::new(PROGRAM);
    command
        .args(["-M", &format!("{machine},dtb-randomness=off"), "-cpu", cpu, "-smp", &cores.to_string(), "-m", "512M"])
        .args(["-display", "none", "-serial", "stdio", "-monitor", "none", "-nic", "none", "-no-reboot"])
        .args(["-icount", "shift=0,sleep=off", "-rtc", "base=2020-01-01T00:00:00,clock=vm", "-seed", "1"]);
    command
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A board without anything plugged in.
    pub(crate) fn machine() -> Machine {
        let board = platform::find("qemu-virt").expect("the board is known");
        Machine {
            board,
            cpu: board.cpu_default.to_owned(),
            cores: 4,
            memory_bytes: 1 << 30,
            clock: Clock::Host,
            uart: Uart::Reader,
            typed: b"",
            columns: None,
            kernel: "bulkhead.bin".into(),
            bundle: "two linux.bundle".into(),
            virtio: None,
            extra: vec!["-d".into(), "guest_errors".into()],
            claim: None,
        }
    }

    #[test]
    fn the_gic_version_is_always_stated() {
        // QEMU's default with `virtualization=on` is a GICv2.
        assert!(machine().line().contains("gic-version=3"));
    }

    #[test]
    fn the_time_of_a_run_with_disks_does_not_jump_while_they_are_read() {
        let mut machine = Machine { clock: Clock::Instructions { shift: 4, idles: false }, ..machine() };
        machine.wait_for_disks();
        assert!(machine.line().contains("-icount shift=4,sleep=off"), "{}", machine.line());
        machine.virtio = Some(Virtio { disks: vec![(0, "a.img".into())], ..Virtio::default() });
        machine.wait_for_disks();
        assert!(machine.line().contains("-icount shift=4,sleep=on"), "{}", machine.line());
    }

    #[test]
    fn the_width_of_the_terminal_is_told() {
        let line = Machine { columns: Some(132), ..machine() }.line();
        assert!(line.contains("-append 'bulkhead.console=lines bulkhead.columns=132'"), "{line}");
        assert!(!machine().line().contains("columns"), "{}", machine().line());
    }

    #[test]
    fn a_file_name_with_a_space_is_quoted() {
        assert!(machine().line().contains("-initrd 'two linux.bundle'"), "{}", machine().line());
    }

    #[test]
    fn what_the_user_adds_comes_last_and_so_wins() {
        assert!(machine().line().ends_with("-d guest_errors"));
    }

    #[test]
    fn counted_instructions_leave_nothing_to_chance() {
        let line = Machine { clock: Clock::Instructions { shift: 0, idles: false }, ..machine() }.line();
        for part in ["-icount shift=0,sleep=off", "dtb-randomness=off", "clock=vm", "-seed 1"] {
            assert!(line.contains(part), "{part} is missing: {line}");
        }
    }
}
