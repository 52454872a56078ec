//! A virtual machine with one simulated core for each virtual CPU, and the part of EL2 around the vGIC: it syncs before
//! register accesses, and flushes whoever is kicked.

use std::boxed::Box;
use std::vec::Vec;

use vdev::Width;

use super::core::Core;
use crate::{CpuInterface, Frame, IntId, Kicks, Vgic, needs_sync};

pub const CTLR: u64 = 0x0;
pub const IGROUPR: u64 = 0x80;
pub const ISENABLER: u64 = 0x100;
pub const ICENABLER: u64 = 0x180;
pub const ISPENDR: u64 = 0x200;
pub const ICPENDR: u64 = 0x280;
pub const ISACTIVER: u64 = 0x300;
pub const ICACTIVER: u64 = 0x380;
pub const IPRIORITYR: u64 = 0x400;
pub const ICFGR: u64 = 0xc00;
pub const IROUTER: u64 = 0x6000;
pub const SGI_BASE: u64 = 0x1_0000;

pub struct Machine {
    pub vgic: Box<Vgic>,
    pub cpus: Vec<(CpuInterface, Core)>,
    /// Every kick that went to another core than the one that acted.
    pub remote_kicks: usize,
}

impl Machine {
    /// A machine as it comes out of reset.
    pub fn new(vcpus: usize, list_registers: usize) -> Self {
        let cpus = (0..vcpus).map(|_| (CpuInterface::new(), Core::new(list_registers))).collect();
        Self { vgic: Box::new(Vgic::new(vcpus, 64)), cpus, remote_kicks: 0 }
    }

    /// A machine whose guest has initialised its interrupt controller and enabled everything at priority 0xa0.
    pub fn ready(vcpus: usize, list_registers: usize) -> Self {
        let mut machine = Self::new(vcpus, list_registers);
        machine.gicd_write(0, CTLR, 0b10);
        for word in 1..3 {
            machine.gicd_write(0, ISENABLER + 4 * word, 0xffff_ffff);
        }
        for register in 8..24 {
            machine.gicd_write(0, IPRIORITYR + 4 * register, 0xa0a0_a0a0);
        }
        for vcpu in 0..vcpus {
            machine.gicr_write(vcpu, vcpu, SGI_BASE + ISENABLER, 0xffff_ffff);
            for register in 0..8 {
                machine.gicr_write(vcpu, vcpu, SGI_BASE + IPRIORITYR + 4 * register, 0xa0a0_a0a0);
            }
        }
        machine
    }

    /// The interrupt controller goes back to power-on.
    pub fn restart(&self) {
        (0..self.vgic.reset_steps()).for_each(|step| self.vgic.reset_step(step));
    }

    /// Runs a flush on every core that is kicked, until nobody is.
    pub fn kick(&mut self, kicks: Kicks) {
        let mut waiting = kicks;
        let mut rounds = 0;
        while !waiting.is_empty() {
            let mut next = Kicks::NONE;
            for vcpu in waiting.iter() {
                next |= self.flush(vcpu);
            }
            self.remote_kicks += next.iter().count();
            waiting = next;
            rounds += 1;
            assert!(rounds < 20, "kicks never end");
        }
    }

    /// One core flushes, and again for as long as its maintenance interrupt is asserted.
    pub fn flush(&mut self, vcpu: usize) -> Kicks {
        let (interface, core) = &mut self.cpus[vcpu];
        let mut kicks = interface.flush(&self.vgic, vcpu, core);
        let mut rounds = 0;
        while core.maintenance() {
            kicks |= interface.flush(&self.vgic, vcpu, core);
            rounds += 1;
            assert!(rounds < 4, "the maintenance interrupt never ends");
        }
        assert!(!kicks.contains(vcpu), "a flush leaves nothing to do for itself");
        kicks
    }

    fn prepare(&mut self, vcpu: usize, frame: Frame, offset: u64) {
        if needs_sync(frame, offset) {
            let (interface, core) = &mut self.cpus[vcpu];
            interface.sync(&self.vgic, vcpu, frame, offset, core);
            let stale = self.vgic.stale(vcpu, frame, offset);
            self.kick(stale);
        }
    }

    pub fn gicd_read(&mut self, vcpu: usize, offset: u64) -> u32 {
        self.prepare(vcpu, Frame::Distributor, offset);
        self.vgic.distributor_read(offset, Width::Word).expect("the load is answered") as u32
    }

    pub fn gicd_write(&mut self, vcpu: usize, offset: u64, value: u32) {
        self.prepare(vcpu, Frame::Distributor, offset);
        let kicks = self.vgic.distributor_write(offset, Width::Word, u64::from(value));
        self.kick(kicks.expect("the store is taken"));
    }

    pub fn gicr_read(&mut self, vcpu: usize, frame: usize, offset: u64) -> u32 {
        self.prepare(vcpu, Frame::Redistributor(frame), offset);
        self.vgic.redistributor_read(frame, offset, Width::Word).expect("the load is answered") as u32
    }

    pub fn gicr_write(&mut self, vcpu: usize, frame: usize, offset: u64, value: u32) {
        self.prepare(vcpu, Frame::Redistributor(frame), offset);
        let kicks = self.vgic.redistributor_write(frame, offset, Width::Word, u64::from(value));
        self.kick(kicks.expect("the store is taken"));
    }

    pub fn route(&mut self, intid: u32, router: u64) {
        let offset = IROUTER + 8 * u64::from(intid);
        let kicks = self.vgic.distributor_write(offset, Width::DoubleWord, router).expect("the store is taken");
        self.kick(kicks);
    }

    pub fn set_priority(&mut self, intid: u32, priority: u8) {
        let offset = IPRIORITYR + u64::from(intid);
        let kicks = self.vgic.distributor_write(offset, Width::Byte, u64::from(priority));
        self.kick(kicks.expect("the store is taken"));
    }

    /// Makes the SPI edge-triggered.
    pub fn make_edge(&mut self, intid: u32) {
        let offset = ICFGR + 4 * u64::from(intid / 16);
        let value = self.gicd_read(0, offset) | 2 << (2 * (intid % 16));
        self.gicd_write(0, offset, value);
    }

    pub fn edge(&mut self, intid: u32) {
        let kicks = self.vgic.inject(IntId::new(intid), 0);
        self.kick(kicks);
    }

    pub fn line(&mut self, intid: u32, level: bool) {
        let kicks = self.vgic.set_line(IntId::new(intid), 0, level);
        self.kick(kicks);
    }

    pub fn sgi(&mut self, source: usize, value: u64) {
        let kicks = self.vgic.send_sgi(source, value);
        self.kick(kicks);
    }

    /// The guest's virtual CPU `vcpu` reads ICC_IAR1_EL1.
    pub fn acknowledge(&mut self, vcpu: usize) -> u32 {
        let intid = self.cpus[vcpu].1.acknowledge();
        self.maintain(vcpu);
        intid
    }

    /// Takes the maintenance interrupt of the core of `vcpu`, if it is asserted.
    pub fn maintain(&mut self, vcpu: usize) {
        if self.cpus[vcpu].1.maintenance() {
            self.kick(Kicks::one(vcpu));
        }
    }

    /// The guest's virtual CPU `vcpu` writes ICC_EOIR1_EL1.
    pub fn end(&mut self, vcpu: usize, intid: u32) {
        self.cpus[vcpu].1.end(intid);
        self.maintain(vcpu);
    }

    /// The guest's virtual CPU `vcpu` writes ICC_EOIR1_EL1 with EOImode = 1.
    pub fn drop_priority(&mut self, vcpu: usize) {
        self.cpus[vcpu].1.drop_priority();
        self.maintain(vcpu);
    }

    /// The guest's virtual CPU `vcpu` writes ICC_DIR_EL1.
    pub fn deactivate(&mut self, vcpu: usize, intid: u32) {
        let (interface, core) = &mut self.cpus[vcpu];
        if core.traps_deactivation() {
            interface.deactivate_listed_or_spilled(&self.vgic, vcpu, IntId::new(intid), core);
            return self.kick(Kicks::one(vcpu));
        }
        core.deactivate(intid);
        self.maintain(vcpu);
    }

    /// Acknowledges and ends interrupts until there are none; gives them in order.
    pub fn drain(&mut self, vcpu: usize) -> Vec<u32> {
        let mut seen = Vec::new();
        loop {
            let intid = self.acknowledge(vcpu);
            if intid == super::core::SPURIOUS {
                return seen;
            }
            seen.push(intid);
            assert!(seen.len() < 1000, "interrupts never end");
            self.end(vcpu, intid);
        }
    }

    pub fn core(&self, vcpu: usize) -> &Core {
        &self.cpus[vcpu].1
    }
}
