//! Which virtual CPUs must look at their list registers.

use super::interrupt::{Bits, mask};

/// The virtual CPUs whose cores must run [`CpuInterface::flush`](super::CpuInterface::flush), as a bitmap of their
/// indices. The virtual CPU that acted may be among them; its caller flushes locally.
#[must_use = "an interrupt waits until the cores named here flush"]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kicks(u32);

impl Kicks {
    /// Nobody.
    pub const NONE: Self = Self(0);

    /// The virtual CPU `vcpu` alone; below 16.
    #[inline]
    pub const fn one(vcpu: usize) -> Self {
        Self(mask(vcpu as u32))
    }

    /// Whether nobody needs to be kicked.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Whether `vcpu` is among them.
    #[must_use]
    #[inline]
    pub const fn contains(self, vcpu: usize) -> bool {
        self.0 & Self::one(vcpu).0 != 0
    }

    /// All of them but `vcpu`: the ones that need a physical interrupt when `vcpu` acts.
    #[inline]
    pub const fn without(self, vcpu: usize) -> Self {
        Self(self.0 & !Self::one(vcpu).0)
    }

    /// The indices of the virtual CPUs, lowest first.
    pub fn iter(self) -> impl Iterator<Item = usize> {
        Bits(self.0).map(|bit| bit as usize)
    }
}

impl core::ops::BitOr for Kicks {
    type Output = Self;

    #[inline]
    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

impl core::ops::BitOrAssign for Kicks {
    #[inline]
    fn bitor_assign(&mut self, other: Self) {
        self.0 |= other.0;
    }
}
