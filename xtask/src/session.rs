//! One run of a board under QEMU: starts it, passes its output on, keeps the lines, and ends it in time.

use crate::{qemu, symbols::Symbols};
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

/// What Bulkhead's epitaph starts with.
const PANIC_MARK: &str = "BULKHEAD PANIC";
/// What Bulkhead says when it cannot boot: a sentence follows.
const REFUSAL_MARK: &str = "BULKHEAD STOPS";
/// How long QEMU may go on after Bulkhead's last words.
const LAST_WORDS_LIMIT: Duration = Duration::from_secs(5);
/// How often a run looks at its limit while the board says nothing.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// More output than this is not kept: a guest may print without end.
const KEPT_LINES_MAX: usize = 200_000;

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
    pub(crate) lines: Vec<String>,
    /// How it ended.
    pub(crate) ending: Ending,
}

impl Outcome {
    /// What the virtual machine `name` printed: its lines, without the prefix.
    pub(crate) fn guest_lines(&self, name: &str) -> impl Iterator<Item = &str> {
        let prefix = format!("[{name}] ");
        self.lines.iter().filter_map(move |line| line.strip_prefix(&prefix))
    }

    /// Bulkhead's last line, if it panicked or refused to boot: the line that says why.
    pub(crate) fn last_words(&self) -> Option<&str> {
        self.lines.iter().map(String::as_str).find(|line| are_last_words(line))
    }
}

/// Last words come from Bulkhead itself: a guest that prints the same has its own prefix before them.
fn are_last_words(line: &str) -> bool {
    let line = line.strip_prefix("[bulkhead] ").unwrap_or(line);
    line.starts_with(PANIC_MARK) || line.starts_with(REFUSAL_MARK)
}

impl Session<'_> {
    /// Starts `machine` and waits until it ends, by itself or because its time is up.
    ///
    /// # Errors
    /// When QEMU cannot be started, or the log cannot be written. That the run itself failed is no error here.
    pub(crate) fn run(&self, machine: &qemu::Machine) -> anyhow::Result<Outcome> {
        let log = match &self.log {
            Some(path) => {
                if let Some(directory) = path.parent() {
                    std::fs::create_dir_all(directory)?;
                }
                Some(File::create(path).with_context(|| format!("{} cannot be written", path.display()))?)
            }
            None => None,
        };
        let mut command = machine.command();
        command.stdin(match machine.uart {
            qemu::Uart::Terminal => Stdio::inherit(),
            qemu::Uart::Reader | qemu::Uart::Chardev => Stdio::null(),
        });
        self.watch(
            command,
            Output { symbols: self.symbols, echo: self.echo, log, partial: Vec::new(), lines: Vec::new() },
        )
    }

    fn watch(&self, mut command: Command, mut output: Output<'_>) -> anyhow::Result<Outcome> {
        let interrupted = interrupts();
        // One pipe for both, so that QEMU's own complaints stand where they belong.
        let (mut reader, writer) = io::pipe().context("no pipe for QEMU's output")?;
        command.stdout(writer.try_clone()?).stderr(writer);
        let name = command.get_program().to_string_lossy().into_owned();
        let mut child = command.spawn().with_context(|| format!("{name} could not be started"))?;
        // The command holds this end's copies of the pipe; without them the reader sees the end of the output.
        drop(command);
        let started = Instant::now();

        let (sender, receiver) = mpsc::channel::<Vec<u8>>();
        let pump = thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(count @ 1..) = reader.read(&mut buffer) {
                if sender.send(buffer.get(..count).unwrap_or_default().to_vec()).is_err() {
                    break;
                }
            }
        });

        let mut stopped_since: Option<Instant> = None;
        let cut_short = loop {
            match receiver.recv_timeout(LOOK_EVERY) {
                Ok(bytes) => {
                    if output.take(&bytes)? {
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
        while let Ok(bytes) = receiver.recv_timeout(LOOK_EVERY) {
            output.take(&bytes)?;
        }
        drop(receiver);
        // The pump ends with the pipe. A process that QEMU left behind could keep it open, so it is not waited for.
        drop(pump);
        output.finish()?;
        Ok(Outcome { lines: output.lines, ending })
    }
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
    /// The line that has not ended yet.
    partial: Vec<u8>,
    lines: Vec<String>,
}

impl Output<'_> {
    /// Takes the next bytes. Gives whether Bulkhead's last words are in them.
    fn take(&mut self, bytes: &[u8]) -> io::Result<bool> {
        let mut stopped = false;
        for part in bytes.split_inclusive(|byte| *byte == b'\n') {
            self.show(part)?;
            self.partial.extend_from_slice(part);
            if part.ends_with(b"\n") {
                stopped |= self.end_line()?;
            }
        }
        Ok(stopped)
    }

    fn end_line(&mut self) -> io::Result<bool> {
        let line = String::from_utf8_lossy(&self.partial).trim_end_matches(['\r', '\n']).to_owned();
        self.partial.clear();
        let explanations = self.symbols.map(|symbols| symbols.explain(&line)).unwrap_or_default();
        let stopped = are_last_words(&line);
        self.keep(line);
        for explanation in explanations {
            let explanation = format!("             {explanation}");
            self.show(format!("{explanation}\r\n").as_bytes())?;
            self.keep(explanation);
        }
        Ok(stopped)
    }

    fn keep(&mut self, line: String) {
        if self.lines.len() < KEPT_LINES_MAX {
            self.lines.push(line);
        }
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

    fn finish(&mut self) -> io::Result<()> {
        if !self.partial.is_empty() {
            self.end_line()?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(script: &str, limit: Option<Duration>) -> Outcome {
        let session = Session { symbols: None, echo: false, log: None, limit };
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        let output = Output { symbols: None, echo: false, log: None, partial: Vec::new(), lines: Vec::new() };
        session.watch(command, output).expect("the shell starts")
    }

    #[test]
    fn lines_are_kept_in_order_and_without_their_ends() {
        let outcome = run(r"printf '[a] one\r\n[b] two\n'; printf '[a] thr' >&2; printf ee", None);
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
    fn only_bulkhead_itself_has_last_words() {
        assert!(run("echo 'BULKHEAD STOPS: there is no bundle'", None).last_words().is_some());
        assert!(run("echo '[bulkhead] BULKHEAD PANIC: no memory'", None).last_words().is_some());
        assert!(run("echo 'BULKHEAD PANIC: no memory'", None).last_words().is_some());
        assert!(run("echo '[alpha] BULKHEAD PANIC: says the guest'", None).last_words().is_none());
    }
}
