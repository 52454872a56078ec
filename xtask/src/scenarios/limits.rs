//! The largest systems there can be: what `check` accepts starts.

use super::{COUNTED_LIMIT_SECONDS, Damage, Scenario, io};
use crate::{session::Outcome, system::Source};

/// The least share of its heap that EL2 must have used, in percent: if it is less, the sum is no sum of what there is.
const HEAP_USED_MIN: u64 = 60;

pub(super) fn scenarios() -> Vec<Scenario> {
    let scenario = |name: &str, system| Scenario {
        name: name.to_owned(),
        system,
        cpu: None,
        command_line: "",
        damage: Damage::None,
        limit_seconds: COUNTED_LIMIT_SECONDS,
        // More cores than the host has: in turn they come to an end the soonest.
        icount: Some(0),
        verdict: every_guest_starts,
    };
    vec![
        scenario("sixteen guests start on sixteen cores", "test-sixteen"),
        scenario("eight clients with a device of each kind check themselves", "test-eight-clients"),
        scenario("clients with as many devices and channels as there can be start", "test-devices"),
    ]
}

fn every_guest_starts(source: &Source, outcome: &Outcome) -> Result<(), String> {
    io::every_client_passes(source, outcome)?;
    heap_is_as_summed(outcome)
}

/// EL2 made its heap as large as the sum of what the system takes, and has used about that.
fn heap_is_as_summed(outcome: &Outcome) -> Result<(), String> {
    const END: &str = " KiB of EL2 heap";
    let line = outcome.lines.iter().find(|line| line.starts_with("[bulkhead] system ") && line.contains(END));
    let words = line.and_then(|line| line.split_once(END)).map(|(start, _)| start.rsplit(' ').collect::<Vec<_>>());
    let number = |index: usize| words.as_ref().and_then(|words| words.get(index)?.parse::<u64>().ok());
    let (Some(size), Some(used)) = (number(0), number(2)) else {
        return Err("Bulkhead has not said what its heap has taken".to_owned());
    };
    if used > size || used * 100 < size * HEAP_USED_MIN {
        return Err(format!("{used} KiB of {size} KiB of EL2's heap are used"));
    }
    println!("     EL2's heap: {used} of {size} KiB");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::Ending;
    use std::time::Duration;

    fn judged(line: &str) -> Result<(), String> {
        let ending = Ending::TimedOut(Duration::ZERO);
        heap_is_as_summed(&Outcome::of(&[line], ending))
    }

    #[test]
    fn a_heap_that_is_much_too_large_is_no_sum() {
        judged("[bulkhead] system x: 3 vms, 70 of 100 KiB of EL2 heap, 4 MiB of RAM spare").expect("about right");
        judged("[bulkhead] system x: 3 vms, 50 of 100 KiB of EL2 heap, 4 MiB of RAM spare").expect_err("too large");
        judged("[guest] system x: 3 vms, 70 of 100 KiB of EL2 heap, 4 MiB of RAM spare").expect_err("a guest's");
    }
}
