//! What a device holds: all of it comes back, whatever its frontend and its backend do.

use super::Service;

/// What devices hold at a moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Holdings {
    /// Requests that are out, those that the frontend has forgotten among them.
    pub requests: usize,
    /// Chains of the frontend that are kept.
    pub chains: u32,
    /// Pages of request windows in use.
    pub window_pages: u32,
    /// Requests that are out with the frontend's own memory.
    pub grants: u32,
}

impl Holdings {
    /// Adds what another device holds.
    pub const fn add(&mut self, other: &Self) {
        self.requests = self.requests.saturating_add(other.requests);
        self.chains = self.chains.saturating_add(other.chains);
        self.window_pages = self.window_pages.saturating_add(other.window_pages);
        self.grants = self.grants.saturating_add(other.grants);
    }
}

impl Service {
    /// What the device holds.
    #[must_use]
    pub fn holdings(&self) -> Holdings {
        Holdings {
            requests: self.in_flight.count_out(),
            chains: self.in_flight.chains_kept(),
            window_pages: self.window.taken(),
            grants: self.grants_out.into(),
        }
    }
}
