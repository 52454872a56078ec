//! U-Boot at its prompt, where somebody types.

use crate::{
    launch::{self, BoardOptions},
    qemu::Uart,
    session::Session,
    systems, verdict,
    workspace::Workspace,
};
use anyhow::ensure;
use std::{
    fs,
    io::{self, Write},
    path::Path,
    thread,
    time::{Duration, Instant},
};

/// The system that is started.
pub(super) const SYSTEM: &str = "test-u-boot-prompt";
/// The first key of all ends the countdown to U-Boot's boot. `arch` is a variable of its environment.
const TYPED: &[u8] = b"\recho it is $arch; poweroff\r";
const TYPE_EVERY: Duration = Duration::from_millis(200);
/// The last line that is whole before the countdown.
const LAST_BEFORE_COUNTDOWN: &str = "Net: ";
const LIMIT: Duration = Duration::from_secs(60);

/// Types until U-Boot has done what it was told, and turned itself off.
///
/// # Errors
/// What was not as it should be.
pub(super) fn answers(workspace: &Workspace, log: &Path) -> anyhow::Result<()> {
    let prepared = launch::prepare(workspace, systems::find(workspace, SYSTEM)?, "")?;
    let machine = prepared.machine(workspace, &BoardOptions::default(), Uart::Reader, Vec::new())?;
    // One of an earlier run says nothing of this one.
    let _ = fs::remove_file(log);
    let started = Instant::now();
    let (reader, mut writer) = io::pipe()?;
    let mut command = machine.command();
    command.stdin(reader);
    let output = log.to_owned();
    let typist = thread::spawn(move || {
        // Keys that are hit too early are lost. Those after them have to be heard.
        let _ = writer.write_all(b"\r\r\r\r");
        // Then nobody types before there is something to see.
        let is_up =
            || fs::read(&output).is_ok_and(|text| String::from_utf8_lossy(&text).contains(LAST_BEFORE_COUNTDOWN));
        while !is_up() && started.elapsed() < LIMIT {
            thread::sleep(TYPE_EVERY);
        }
        // Ends with QEMU.
        while writer.write_all(TYPED).is_ok() {
            thread::sleep(TYPE_EVERY);
        }
    });
    let session = Session { symbols: None, echo: false, log: Some(log.to_owned()), limit: Some(LIMIT) };
    let outcome = session.run_command(command, &mut |_| false)?;
    verdict::whole_run(&prepared.source, &outcome).map_err(anyhow::Error::msg)?;
    // With the prompt is what was typed, and its answer is in the next line.
    for said in ["=> ", "it is arm"] {
        let is_said =
            prepared.source.vms().iter().any(|vm| outcome.guest_lines(vm.name()).any(|line| line.contains(said)));
        ensure!(is_said, "U-Boot has never said {said:?}");
    }
    let _ = typist.join();
    Ok(())
}
