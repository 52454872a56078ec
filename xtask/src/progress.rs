//! Shows what takes time: a spinner on a terminal, one plain line per step elsewhere.

use indicatif::{ProgressBar, ProgressStyle};
use std::{io::IsTerminal, time::Duration};

/// Runs `work`, showing `what` (such as "fetching Debian's arm64 kernel") until it ends.
pub(crate) fn step<T>(what: &str, work: impl FnOnce() -> anyhow::Result<T>) -> anyhow::Result<T> {
    if !std::io::stderr().is_terminal() {
        eprintln!("set-up: {what}");
        return work();
    }
    let bar = ProgressBar::new_spinner();
    if let Ok(style) = ProgressStyle::with_template("{spinner} set-up: {msg} ({elapsed})") {
        bar.set_style(style);
    }
    bar.set_message(what.to_owned());
    bar.enable_steady_tick(Duration::from_millis(120));
    let result = work();
    let took = bar.elapsed().as_secs_f32();
    bar.finish_and_clear();
    match &result {
        Ok(_) => eprintln!("set-up: {what}: done in {took:.1} s"),
        Err(_) => eprintln!("set-up: {what}: failed"),
    }
    result
}
