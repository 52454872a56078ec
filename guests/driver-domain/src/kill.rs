//! The domain ends itself now and then, for a test of what its clients see of that: `driver-domain.kill=MILLISECONDS`
//! on its command line says how long after each start, `driver-domain.kills=NUMBER` how often in all.
//!
//! It does so in the middle of a request of a disk or of a packet of a stream: which phase of one, and how it ends, is
//! another with every start.

use rt::{machine, println, psci, timer};

/// How far a request is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Taken from the ring, and the device knows nothing of it.
    Posted,
    /// The device has it, or the receiver's channel.
    Submitted,
    /// It is done, and nobody has been told.
    Done,
}

/// How the domain ends.
#[derive(Clone, Copy, Debug)]
enum End {
    Panic,
    Reset,
    Off,
    Hang,
}

/// The end that is to come.
pub struct Kill {
    /// When it may come, in ticks.
    due: u64,
    phase: Phase,
    end: End,
    /// A request has been put into a device's queue, and the device has not been told.
    is_queued: bool,
}

impl Kill {
    /// The end that the command line asks for, in start number `generation`.
    pub fn asked_for(generation: u32) -> Option<Self> {
        let milliseconds = machine().number("driver-domain.kill", 0);
        let is_over = u64::from(generation) > machine().number("driver-domain.kills", u64::MAX);
        (milliseconds != 0 && !is_over).then(|| Self::new(generation, milliseconds))
    }

    /// The end of start number `generation`, counted from 1, that comes `milliseconds` from now or later.
    fn new(generation: u32, milliseconds: u64) -> Self {
        const PHASES: [Phase; 3] = [Phase::Posted, Phase::Submitted, Phase::Done];
        const ENDS: [End; 4] = [End::Panic, End::Reset, End::Off, End::Hang];
        // Three and four have no divisor in common: twelve starts in a row see every pair.
        let turn = generation.wrapping_sub(1) as usize;
        Self {
            due: timer::now().saturating_add(timer::ticks(milliseconds.saturating_mul(1000))),
            phase: PHASES[turn % PHASES.len()],
            end: ENDS[turn % ENDS.len()],
            is_queued: false,
        }
    }

    /// A block request is in its device's queue.
    pub const fn queued(&mut self) {
        self.is_queued = true;
    }

    /// The devices know of what is in their queues.
    pub fn kicked(&mut self) {
        if core::mem::take(&mut self.is_queued) {
            self.strike(Phase::Submitted);
        }
    }

    /// A block request is in `phase`: ends the domain, if it is time.
    pub fn strike(&self, phase: Phase) {
        if phase != self.phase || timer::now() < self.due {
            return;
        }
        let name = match phase {
            Phase::Posted => "posted",
            Phase::Submitted => "submitted",
            Phase::Done => "done",
        };
        let end = match self.end {
            End::Panic => "panic",
            End::Reset => "reset",
            End::Off => "off",
            End::Hang => "hang",
        };
        println!("driver-domain: ends itself: phase={name} end={end}");
        match self.end {
            End::Panic => panic!("as asked for"),
            End::Reset => psci::system_reset(),
            End::Off => psci::system_off(),
            End::Hang => {}
        }
        // Interrupts are masked all the time: nothing but EL2 ends this.
        loop {
            core::hint::spin_loop();
        }
    }
}
