//! One run of a board under QEMU: starts it, passes its output on, keeps the lines, and ends it in time.

use crate::{
    lines::{self, Joiner, Kept},
    qemu,
    reports::Reports,
    symbols::Symbols,
};
use anyhow::Context;
use std::{
    fs::File,
    io::{self, Read, Write},
    path::PathBuf,
    process::{Child, Command, ExitStatus, Stdio},
    sync::{
        OnceLock,
        atomic::{AtomicBool, Ordering},
        mpsc::{self, RecvTimeoutError},
    },
    thread,
    time::{Duration, Instant},
};

/// How long QEMU may go on after Bulkhead's last words.
const LAST_WORDS_LIMIT: Duration = Duration::from_secs(5);
/// So many rows that break the console's rules are kept.
const UNRULY_ROWS_MAX: usize = 8;
/// How often a run looks at its limit while the board says nothing.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// So many pieces of output wait to be looked at, at most.
const PIECES_MAX: usize = 64;

/// What to do with a run's output, and how long it may take.
pub(crate) struct Session<'a> {
    /// Explains the addresses of an epitaph.
    pub(crate) symbols: Option<&'a Symbols>,
    /// Whether the output also goes to standard output, as it comes.
    pub(crate) echo: bool,
    /// Where the output is also written to.
    pub(crate) log: Option<PathBuf>,
    /// How long the run may take.
    pub(crate) limit: Option<Duration>,
}

/// How a run ended.
#[derive(Debug)]
pub(crate) enum Ending {
    /// QEMU ended by itself.
    Exited(ExitStatus),
    /// It was ended, because its time was up.
    TimedOut(Duration),
    /// It was ended, because Bulkhead had stopped for good and QEMU went on.
    Stopped,
    /// It was ended, because the user interrupted this program.
    Interrupted,
}

/// A finished run.
#[derive(Debug)]
pub(crate) struct Outcome {
    /// The board's output, line by line, without line ends; each line of a backtrace is followed by its explanation.
    /// Of each owner that printed very much, the beginning and the end.
    pub(crate) lines: Vec<String>,
    /// How it ended.
    pub(crate) ending: Ending,
    /// What all of its lines say of the virtual machines.
    pub(crate) reports: Reports,
    /// The rows of the console that break its rules: each begins with an owner's name, is shorter than the terminal is
    /// wide, and has no control characters but those of colours. The first few.
    pub(crate) unruly_rows: Vec<String>,
}

impl Outcome {
    /// The outcome of a run with these lines.
    #[cfg(test)]
    pub(crate) fn of(lines: &[&str], ending: Ending) -> Self {
        let mut outcome = Self { lines: Vec::new(), ending, reports: Reports::default(), unruly_rows: Vec::new() };
        outcome.hear(lines.iter().map(|line| (*line).to_owned()));
        outcome
    }

    /// Adds rows that somebody printed elsewhere than on the board's console, as they come.
    pub(crate) fn hear(&mut self, rows: impl IntoIterator<Item = String>) {
        let (mut joiner, mut kept) = (Joiner::default(), Kept::default());
        let mut hear = |line: String| {
            self.reports.take(&line);
            kept.push(line);
        };
        rows.into_iter().filter_map(|row| joiner.take(&row)).for_each(&mut hear);
        joiner.finish().for_each(&mut hear);
        self.lines.extend(kept.finish());
    }

    /// What the virtual machine `name` printed: its lines, without the prefix.
    pub(crate) fn guest_lines(&self, name: &str) -> impl Iterator<Item = &str> {
        let prefix = format!("[{name}] ");
        self.lines.iter().filter_map(move |line| line.strip_prefix(&prefix))
    }

    /// The lines that no guest has printed.
    pub(crate) fn own_lines(&self) -> impl Iterator<Item = &str> {
        self.lines.iter().map(String::as_str).filter(|line| lines::is_own(line))
    }

    /// Bulkhead's last line, if it panicked or refused to boot: the line that says why.
    pub(crate) fn last_words(&self) -> Option<&str> {
        self.reports.last_words.as_deref()
    }
}

impl Session<'_> {
    /// Starts `machine` and waits until it ends, by itself or because its time is up.
    ///
    /// # Errors
    /// When QEMU cannot be started, or the log cannot be written. That the run itself failed is no error here.
    pub(crate) fn run(&self, machine: &qemu::Machine) -> anyhow::Result<Outcome> {
        self.run_logged(machine, &mut |_| false)
    }

    /// As [`Session::run`], for a QEMU that logs. `take` gets what QEMU itself says, line by line, and gives whether it
    /// was for it; what was not is kept as ever.
    ///
    /// # Errors
    /// As [`Session::run`].
    pub(crate) fn run_logged(
        &self,
        machine: &qemu::Machine,
        take: &mut dyn FnMut(&str) -> bool,
    ) -> anyhow::Result<Outcome> {
        let mut command = machine.command();
        command.stdin(match machine.uart {
            qemu::Uart::Terminal => Stdio::inherit(),
            qemu::Uart::Reader | qemu::Uart::Chardev => typed(machine.typed)?,
        });
        self.run_command(command, take)
    }

    /// As [`Session::run_logged`], for a command whose output is the board's.
    ///
    /// # Errors
    /// As [`Session::run`].
    pub(crate) fn run_command(&self, command: Command, take: &mut dyn FnMut(&str) -> bool) -> anyhow::Result<Outcome> {
        let log = match &self.log {
            Some(path) => {
                if let Some(directory) = path.parent() {
                    std::fs::create_dir_all(directory)?;
                }
                Some(File::create(path).with_context(|| format!("{} cannot be written", path.display()))?)
            }
            None => None,
        };
        self.watch(command, Output::new(self, log, take))
    }

    fn watch(&self, mut command: Command, mut output: Output<'_>) -> anyhow::Result<Outcome> {
        let interrupted = interrupts();
        // The board's console has a pipe of its own: QEMU's complaints could else end a guest's row in its middle, and
        // the next would begin with what the guest likes.
        let (console, stdout) = io::pipe().context("no pipe for the board's output")?;
        let (complaints, stderr) = io::pipe().context("no pipe for QEMU's output")?;
        command.stdout(stdout).stderr(stderr);
        let name = command.get_program().to_string_lossy().into_owned();
        let mut child = command.spawn().with_context(|| format!("{name} could not be started"))?;
        // The command holds this end's copies of the pipes; without them the readers see the end of the output.
        drop(command);
        let started = Instant::now();

        // Bounded: who writes faster than is read here waits.
        let (sender, receiver) = mpsc::sync_channel(PIECES_MAX);
        pump(console, Origin::Board, sender.clone());
        pump(complaints, Origin::Emulator, sender);

        let mut stopped_since: Option<Instant> = None;
        let cut_short = loop {
            match receiver.recv_timeout(LOOK_EVERY) {
                Ok((origin, bytes)) => {
                    output.take(origin, &bytes)?;
                    if output.reports.last_words.is_some() {
                        stopped_since.get_or_insert_with(Instant::now);
                    }
                }
                Err(RecvTimeoutError::Disconnected) => break None,
                Err(RecvTimeoutError::Timeout) => {}
            }
            if interrupted.load(Ordering::Relaxed) {
                break Some(Ending::Interrupted);
            }
            if stopped_since.is_some_and(|since| since.elapsed() > LAST_WORDS_LIMIT) {
                break Some(Ending::Stopped);
            }
            if let Some(limit) = self.limit.filter(|limit| started.elapsed() > *limit) {
                break Some(Ending::TimedOut(limit));
            }
        };
        let ending = match cut_short {
            Some(ending) => {
                end(&mut child)?;
                ending
            }
            None => Ending::Exited(child.wait()?),
        };
        while let Ok((origin, bytes)) = receiver.recv_timeout(LOOK_EVERY) {
            output.take(origin, &bytes)?;
        }
        output.finish(ending)
    }
}

/// The end of a pipe from which `bytes` can be read, and then nothing more.
fn typed(bytes: &[u8]) -> io::Result<Stdio> {
    let (reader, mut writer) = io::pipe()?;
    // There is room for them: they are few.
    writer.write_all(bytes)?;
    Ok(reader.into())
}

/// Who has written to a pipe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Origin {
    /// The board, on its UART.
    Board,
    /// QEMU itself.
    Emulator,
}

/// Passes on what comes out of `pipe`, until it ends. A process that QEMU left behind could keep it open, so that is
/// not waited for.
fn pump(mut pipe: impl Read + Send + 'static, origin: Origin, sender: mpsc::SyncSender<(Origin, Vec<u8>)>) {
    thread::spawn(move || {
        let mut buffer = [0; 16384];
        while let Ok(count @ 1..) = pipe.read(&mut buffer) {
            if sender.send((origin, buffer.get(..count).unwrap_or_default().to_vec())).is_err() {
                break;
            }
        }
    });
}

/// Ends `child`: politely first, because QEMU then restores the terminal.
fn end(child: &mut Child) -> io::Result<()> {
    let asked = Command::new("kill").arg(child.id().to_string()).stderr(Stdio::null()).status();
    if asked.is_ok_and(|status| status.success()) {
        for _ in 0..20 {
            if child.try_wait()?.is_some() {
                return Ok(());
            }
            thread::sleep(Duration::from_millis(100));
        }
    }
    child.kill()?;
    child.wait().map(drop)
}

/// Whether the user has asked this program to end, since a session began.
pub(crate) fn interrupted() -> bool {
    interrupts().load(Ordering::Relaxed)
}

/// Whether the user has asked this program to end. From the first call on, that no longer ends it at once: a session
/// ends QEMU first.
fn interrupts() -> &'static AtomicBool {
    static INTERRUPTED: AtomicBool = AtomicBool::new(false);
    static HANDLER: OnceLock<()> = OnceLock::new();
    HANDLER.get_or_init(|| {
        if let Err(error) = ctrlc::set_handler(|| INTERRUPTED.store(true, Ordering::Relaxed)) {
            eprintln!("warning: an interrupt will leave QEMU running ({error})");
        }
    });
    &INTERRUPTED
}

/// What becomes of the output.
struct Output<'a> {
    symbols: Option<&'a Symbols>,
    echo: bool,
    log: Option<File>,
    /// The rows that have not ended yet: the board's and QEMU's.
    partial: [Vec<u8>; 2],
    joiner: Joiner,
    kept: Kept,
    reports: Reports,
    unruly_rows: Vec<String>,
    /// Who takes what QEMU itself says.
    take_logged: &'a mut dyn FnMut(&str) -> bool,
}

impl<'a> Output<'a> {
    fn new(session: &Session<'a>, log: Option<File>, take_logged: &'a mut dyn FnMut(&str) -> bool) -> Self {
        Self {
            symbols: session.symbols,
            echo: session.echo,
            log,
            partial: Default::default(),
            joiner: Joiner::default(),
            kept: Kept::default(),
            reports: Reports::default(),
            unruly_rows: Vec::new(),
            take_logged,
        }
    }

    /// Takes the next bytes.
    fn take(&mut self, origin: Origin, bytes: &[u8]) -> io::Result<()> {
        for part in bytes.split_inclusive(|byte| *byte == b'\n') {
            self.show(part)?;
            self.partial[origin as usize].extend_from_slice(part);
            if part.ends_with(b"\n") {
                self.end_row(origin)?;
            }
        }
        Ok(())
    }

    fn end_row(&mut self, origin: Origin) -> io::Result<()> {
        let bytes = std::mem::take(&mut self.partial[origin as usize]);
        let row = String::from_utf8_lossy(&bytes);
        let row = row.trim_end_matches(['\r', '\n']);
        if origin == Origin::Emulator {
            // Whatever it looks like, nobody on the board has said it.
            if !(self.take_logged)(row) {
                self.kept.push_of_nobody(row.to_owned());
            }
            return Ok(());
        }
        if self.unruly_rows.len() < UNRULY_ROWS_MAX && lines::is_unruly(row) {
            self.unruly_rows.push(row.to_owned());
        }
        match self.joiner.take(row) {
            Some(line) => self.end_line(line),
            None => Ok(()),
        }
    }

    fn end_line(&mut self, line: String) -> io::Result<()> {
        self.reports.take(&line);
        let symbols = self.symbols.filter(|_| lines::is_own(&line));
        let explanations = symbols.map(|symbols| symbols.explain(&line)).unwrap_or_default();
        self.kept.push(line);
        for explanation in explanations {
            let explanation = format!("             {explanation}");
            self.show(format!("{explanation}\r\n").as_bytes())?;
            self.kept.push_of_nobody(explanation);
        }
        Ok(())
    }

    fn show(&mut self, bytes: &[u8]) -> io::Result<()> {
        if self.echo {
            let mut stdout = io::stdout().lock();
            stdout.write_all(bytes)?;
            stdout.flush()?;
        }
        if let Some(log) = &mut self.log {
            log.write_all(bytes)?;
        }
        Ok(())
    }

    fn finish(mut self, ending: Ending) -> anyhow::Result<Outcome> {
        for origin in [Origin::Board, Origin::Emulator] {
            if !self.partial[origin as usize].is_empty() {
                self.end_row(origin)?;
            }
        }
        for line in std::mem::take(&mut self.joiner).finish() {
            self.end_line(line)?;
        }
        let Self { kept, reports, unruly_rows, .. } = self;
        Ok(Outcome { lines: kept.finish(), ending, reports, unruly_rows })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(script: &str, limit: Option<Duration>) -> Outcome {
        let session = Session { symbols: None, echo: false, log: None, limit };
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        session.watch(command, Output::new(&session, None, &mut |_| false)).expect("the shell starts")
    }

    #[test]
    fn lines_are_kept_in_order_and_without_their_ends() {
        let outcome = run(r"printf '[a] one\r\n[b] two\n'; printf '[a] thr\\\r\n[a] ee'", None);
        assert_eq!(outcome.lines, ["[a] one", "[b] two", "[a] three"]);
        assert_eq!(outcome.guest_lines("a").collect::<Vec<_>>(), ["one", "three"]);
        assert!(matches!(outcome.ending, Ending::Exited(status) if status.success()));
    }

    #[test]
    fn a_run_without_end_is_ended() {
        let outcome = run("echo up; exec sleep 60", Some(Duration::from_millis(300)));
        assert_eq!(outcome.lines, ["up"]);
        assert!(matches!(outcome.ending, Ending::TimedOut(_)), "{:?}", outcome.ending);
    }

    #[test]
    fn a_failing_status_is_passed_on() {
        assert!(matches!(run("exit 3", None).ending, Ending::Exited(status) if status.code() == Some(3)));
    }

    #[test]
    fn what_qemu_says_breaks_no_row_and_is_nobodys_word() {
        let script =
            r"printf '[a] one '; echo '[bulkhead] BULKHEAD STOPS: x' >&2; sleep 0.3; printf 'BULKHEAD STOPS: y\r\n'";
        let outcome = run(script, None);
        assert_eq!(outcome.last_words(), None);
        assert_eq!(outcome.guest_lines("a").collect::<Vec<_>>(), ["one BULKHEAD STOPS: y"]);
    }

    #[test]
    fn a_failure_behind_more_lines_than_are_kept_is_judged() {
        let script =
            "yes '[a] a line of some length that is printed again and again' | head -n 100000; echo '[a] FAIL x'";
        let outcome = run(script, None);
        assert_eq!(outcome.reports.of("a").failure.as_deref(), Some("FAIL x"));
    }

    #[test]
    fn only_bulkhead_itself_has_last_words() {
        assert!(run("echo 'BULKHEAD STOPS: there is no bundle'", None).last_words().is_some());
        assert!(run("echo '[bulkhead] BULKHEAD PANIC: no memory'", None).last_words().is_some());
        assert!(run("echo '[alpha] BULKHEAD PANIC: says the guest'", None).last_words().is_none());
    }

    #[test]
    fn rows_without_an_owner_are_noted() {
        let outcome =
            run("echo '[a] fine'; echo stray; printf '[a] \\033[2J\\n[a] \\033[0;0;31mred\\033[0;0;39m\\n'", None);
        assert_eq!(outcome.unruly_rows, ["stray", "[a] \x1b[2J"]);
    }
}
