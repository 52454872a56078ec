//! Which of the VMs that are being prepared a core works for.
//!
//! The core of a VM's virtual CPU 0 leads: it begins, and it ends. Others help to clear RAM meanwhile, and a core that
//! helps one VM may lead another.

#[cfg(test)]
mod tests;

/// What a core can do for a VM that is being prepared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// It leads.
    Leads {
        /// Devices may still write to the memory: there is nothing to do yet but to look again later.
        waits: bool,
    },
    /// It helps.
    Helps,
}

impl Part {
    /// Whether this comes before the part `other`, which was found earlier. One that waits keeps no other VM of the
    /// core waiting, and none waits for one that the core only helps.
    #[must_use]
    pub const fn comes_before(self, other: Self) -> bool {
        match (self, other) {
            (_, Self::Leads { waits: true }) | (Self::Leads { waits: false }, Self::Helps) => true,
            (_, Self::Leads { waits: false }) | (Self::Helps | Self::Leads { waits: true }, Self::Helps) => false,
        }
    }

    /// Whether the core has to look for another part at once when there is nothing to do in this one any more: nobody
    /// tells it of a VM that it leads, and that had to wait while it helped. Whoever clears the last piece of a VM's
    /// RAM tells its leader.
    #[must_use]
    pub const fn has_kept_waiting(self, leads_another: bool) -> bool {
        matches!(self, Self::Helps) && leads_another
    }
}
