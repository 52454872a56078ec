//! Taking interrupts on this CPU: the mask, waiting, and the guest's handler.

use aarch64_cpu::asm as instruction;
use aarch64_cpu::registers::{DAIF, Readable, Writeable};
use core::sync::atomic::{AtomicUsize, Ordering};

static HANDLER: AtomicUsize = AtomicUsize::new(0);

/// What the guest does with an interrupt: called on the CPU that took it, with that CPU's index and the INTID, between
/// acknowledgement and end of interrupt, interrupts masked.
pub type Handler = fn(usize, u32);

/// Sets the handler of every CPU. Without one an interrupt is acknowledged and ended, and nothing else.
pub fn set_handler(handler: Handler) {
    HANDLER.store(handler as usize, Ordering::Release);
}

/// The handler, if there is one.
pub(crate) fn handler() -> Option<Handler> {
    let handler = HANDLER.load(Ordering::Acquire);
    // SAFETY: only `set_handler` writes a value other than zero, and it writes a `Handler`.
    (handler != 0).then(|| unsafe { core::mem::transmute::<usize, Handler>(handler) })
}

/// Masks interrupts on this CPU.
pub fn mask() {
    DAIF.write(DAIF::D::Masked + DAIF::A::Masked + DAIF::I::Masked + DAIF::F::Masked);
}

/// Lets interrupts in on this CPU.
pub fn unmask() {
    DAIF.write(DAIF::D::Masked + DAIF::A::Masked + DAIF::I::Unmasked + DAIF::F::Masked);
}

/// Runs `body` with interrupts masked, and puts the mask back as it was.
pub fn without<R>(body: impl FnOnce() -> R) -> R {
    let before = DAIF.get();
    mask();
    let result = body();
    DAIF.set(before);
    result
}

/// Waits for an interrupt, masked or not.
pub fn wait() {
    instruction::wfi();
}

/// Stops this CPU for good: it waits with interrupts masked.
pub fn park() -> ! {
    mask();
    loop {
        instruction::wfi();
    }
}
