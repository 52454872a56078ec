//! A network card, with frames in flight both ways.

use super::{Error, Slot, Transport};
use crate::dma::Platform;
use alloc::boxed::Box;
use core::ptr::NonNull;
use virtio_drivers::device::net::VirtIONetRaw;
use virtio_drivers::transport::InterruptStatus;

/// The depth of each queue.
const DEPTH: usize = 64;
/// Room for a frame and the device's header, and what the crate asks for at least (1526).
const BUFFER_SIZE: usize = 2048;

type Buffer = [u8; BUFFER_SIZE];

/// A network card.
pub struct Network {
    driver: VirtIONetRaw<Platform, Transport, DEPTH>,
    /// Buffer `n` is the device's from `receive_begin` to `receive_complete` of token `n`.
    receive: NonNull<[Buffer; DEPTH]>,
    /// Buffer `n` is the device's while bit `n` of `free` is clear.
    transmit: NonNull<[Buffer; DEPTH]>,
    free: u64,
    /// Of what is in flight, by token: the buffer and how many of its bytes.
    sent: [Option<(usize, usize)>; DEPTH],
}

const _: () = assert!(DEPTH <= u64::BITS as usize, "a word has a bit for each buffer");

fn buffers() -> Option<NonNull<[Buffer; DEPTH]>> {
    let layout = core::alloc::Layout::new::<[Buffer; DEPTH]>();
    // SAFETY: the layout is not empty.
    NonNull::new(unsafe { alloc::alloc::alloc_zeroed(layout) }).map(NonNull::cast)
}

impl Network {
    /// Brings the card in `slot` up, with all its receive buffers posted.
    ///
    /// # Errors
    /// What the device or the crate objects to; [`Error::DmaError`] where there is no memory for buffers.
    pub fn new(slot: Slot) -> Result<Box<Self>, Error> {
        let driver = VirtIONetRaw::new(slot.transport()?)?;
        let (Some(receive), Some(transmit)) = (buffers(), buffers()) else { return Err(Error::DmaError) };
        let mut card = Box::new(Self { driver, receive, transmit, free: u64::MAX, sent: [None; DEPTH] });
        for index in 0..DEPTH {
            // SAFETY: a fresh queue gives its tokens in order (`begin_receive` checks that), so no buffer is posted
            // twice.
            unsafe { card.begin_receive(index)? };
        }
        Ok(card)
    }

    /// The address that the device gives itself.
    #[must_use]
    pub fn mac_address(&self) -> [u8; 6] {
        self.driver.mac_address()
    }

    /// Acknowledges the device's interrupt.
    pub fn acknowledge_interrupt(&mut self) -> InterruptStatus {
        self.driver.ack_interrupt()
    }

    /// Posts receive buffer `index`.
    ///
    /// # Safety
    /// The buffer must not be the device's already.
    unsafe fn begin_receive(&mut self, index: usize) -> Result<(), Error> {
        // SAFETY: the buffers are allocated for good, and the caller vouches that this one is ours.
        let buffer = unsafe { &mut (*self.receive.as_ptr())[index] };
        // SAFETY: nobody touches the buffer until `receive` has its token back.
        let token = unsafe { self.driver.receive_begin(buffer)? };
        // A queue gives the entry that was freed last first, so the token is the buffer's index. Were it not, buffer
        // and token could not be matched again.
        if usize::from(token) == index { Ok(()) } else { Err(Error::WrongToken) }
    }

    /// Shows the next frame that has arrived to `handle`, and gives its buffer back to the device; `None` where there
    /// is no frame.
    pub fn receive<R>(&mut self, handle: impl FnOnce(&mut [u8]) -> R) -> Option<R> {
        let token = self.driver.poll_receive()?;
        let index = usize::from(token);
        if index >= DEPTH {
            return None;
        }
        // SAFETY: the device has given this buffer back: it was posted under this token, and `receive_complete` below
        // fails unless that is the next used entry.
        let buffer = unsafe { &mut (*self.receive.as_ptr())[index] };
        // SAFETY: the buffer is the one that was posted under this token.
        let (header, length) = unsafe { self.driver.receive_complete(token, buffer) }.ok()?;
        let end = header.saturating_add(length).min(BUFFER_SIZE);
        let result = buffer.get_mut(header..end).map(handle);
        // SAFETY: the buffer was just taken from the queue. A failure leaves the queue one buffer shorter.
        let _ = unsafe { self.begin_receive(index) };
        result
    }

    /// How many frames can be sent before buffers must be taken back.
    #[must_use]
    pub const fn room(&self) -> usize {
        self.free.count_ones() as usize
    }

    /// Sends the frame that `fill` puts at the start of the buffer it is given, as many bytes as it returns; `false`
    /// where the queue is full, and then `fill` is not called.
    pub fn send(&mut self, fill: impl FnOnce(&mut [u8]) -> usize) -> bool {
        let index = self.free.trailing_zeros() as usize;
        if index >= DEPTH {
            return false;
        }
        // SAFETY: the buffers are allocated for good, and this one's bit says that it is ours.
        let buffer = unsafe { &mut (*self.transmit.as_ptr())[index] };
        // The crate's header asks for nothing: no checksum to do, no segmentation.
        let Ok(header) = self.driver.fill_buffer_header(buffer) else { return false };
        let Some(frame) = buffer.get_mut(header..) else { return false };
        let length = header + fill(frame).min(frame.len());
        let Some(bytes) = buffer.get(..length) else { return false };
        // SAFETY: the bit is cleared below, so nobody touches the buffer until `reap` has its token back.
        let Ok(token) = (unsafe { self.driver.transmit_begin(bytes) }) else { return false };
        self.sent[usize::from(token) % DEPTH] = Some((index, length));
        self.free &= !(1 << index);
        true
    }

    /// Takes back the buffers of the frames that were sent. Says whether there were any.
    pub fn reap(&mut self) -> bool {
        let before = self.free;
        // No more than a queue full at once.
        for _ in 0..DEPTH {
            let Some(token) = self.driver.poll_transmit() else { break };
            let Some((index, length)) = self.sent.get_mut(usize::from(token)).and_then(Option::take) else { break };
            // SAFETY: the device has given the buffer back, and its bit is still clear.
            let bytes = unsafe { &(&(*self.transmit.as_ptr()))[index][..length] };
            // SAFETY: these are the bytes that were sent under this token.
            let _ = unsafe { self.driver.transmit_complete(token, bytes) };
            self.free |= 1 << index;
        }
        self.free != before
    }
}
