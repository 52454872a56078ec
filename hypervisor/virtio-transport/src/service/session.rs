//! What the frontend's driver makes of its device: features, queues, and the session that a reset ends.

use super::super::channel::State;
use super::super::counters::add;
use super::{ProtocolError, Service};
use crate::virtqueue::{Features, Virtqueue};
use vdev::{GuestMemory, QueueLayout};

impl Service {
    /// The frontend's driver is ready, and has accepted `features`.
    pub fn negotiated(&mut self, features: u64) {
        self.state = State { is_live: true, features, ..self.state };
        self.is_state_new = true;
    }

    /// Queue `index` is ready.
    pub fn start_queue(&mut self, index: u16, layout: QueueLayout, features: Features) {
        if let Some(queue) = self.queues.get_mut(usize::from(index)) {
            *queue = Some(Virtqueue::new(layout, features));
        }
    }

    /// Queue `index` is no more: what is out for it is given to nobody.
    pub fn stop_queue(&mut self, index: u16) {
        if let Some(queue) = self.queues.get_mut(usize::from(index)) {
            *queue = None;
            self.forget_partial(Some(index));
            if self.reception.index == index {
                self.put_back();
            }
            self.in_flight.forget_chains(Some(index));
        }
    }

    /// The frontend resets the device, or is itself reset: a new session begins.
    pub fn reset(&mut self) {
        let is_begun = self.state.is_live || self.queues.iter().any(Option::is_some);
        self.queues.iter_mut().for_each(|queue| *queue = None);
        self.blocked = 0;
        self.deferred = 0;
        self.used = 0;
        // A store that has to come again, since grants are out, begins no further session.
        if is_begun {
            self.state = State { session: self.state.session.wrapping_add(1), is_live: false, features: 0 };
            self.is_state_new = true;
        }
        self.forget_partial(None);
        self.put_back();
        self.in_flight.forget_chains(None);
    }

    /// Shows the backend the state of the device, if it has changed. Returns whether it has: its doorbell is to be
    /// rung.
    pub fn publish_state(&mut self, backend: &impl GuestMemory) -> bool {
        let is_new = core::mem::take(&mut self.is_state_new);
        if is_new {
            // A channel lies in its backend's memory, as was checked.
            let _ = self.channel.publish_state(backend, self.state);
            add(&mut self.counters.doorbells, 1);
        }
        is_new
    }

    /// The frontend, or the backend, has broken the protocol. The frontend's device needs a reset then; a backend's
    /// claim is disregarded. Returns whether the backend wants its doorbell rung.
    #[cold]
    pub fn report_error(&mut self, error: ProtocolError, backend: &impl GuestMemory) -> bool {
        match error {
            ProtocolError::Frontend(error) => {
                self.counters.refuse(error);
                self.reset();
                // What was posted before the frontend's mistake is out. A backend that does not hear of it would be
                // blamed for keeping it.
                let doorbell = self.channel.publish(backend).unwrap_or(false);
                add(&mut self.counters.doorbells, u64::from(doorbell));
                self.publish_state(backend) | doorbell
            }
            ProtocolError::Backend => {
                add(&mut self.counters.stale, 1);
                false
            }
        }
    }
}
