//! An SPI is sent to another virtual CPU at the moment at which its old target takes it.

use std::boxed::Box;
use std::cell::{Cell, RefCell};
use std::rc::Rc;

use vdev::Width;

use super::core::Core;
use super::machine::*;
use crate::{CpuInterface, IntId, Kicks, Vgic};

const DEVICE: u32 = 40;
const OLD: usize = 0;
const NEW: usize = 1;

std::thread_local! {
    static MEANWHILE: Cell<Option<Box<dyn FnOnce()>>> = const { Cell::new(None) };
}

/// What another core does, once, after this one has marked an interrupt as in flight and before it looks whether it may
/// have it.
pub fn meanwhile() {
    if let Some(action) = MEANWHILE.take() {
        action();
    }
}

/// Two virtual CPUs, with the SPI enabled.
struct Pair {
    vgic: Vgic,
    cpus: [RefCell<(CpuInterface, Core)>; 2],
}

impl Pair {
    fn new() -> Rc<Self> {
        let pair = Self {
            vgic: Vgic::new(2, 32),
            cpus: [OLD, NEW].map(|_| RefCell::new((CpuInterface::new(), Core::new(2)))),
        };
        pair.write(CTLR, Width::Word, 0b10);
        pair.write(ISENABLER + 4, Width::Word, 1 << (DEVICE - 32));
        Rc::new(pair)
    }

    /// A store to the distributor; whoever is told of it flushes at once, unless it is in the middle of something.
    fn write(&self, offset: u64, width: Width, value: u64) {
        self.kick(self.vgic.distributor_write(offset, width, value).expect("the store is taken"));
    }

    fn kick(&self, kicks: Kicks) {
        for vcpu in kicks.iter() {
            if let Ok(mut cpu) = self.cpus[vcpu].try_borrow_mut() {
                let (interface, core) = &mut *cpu;
                let others = interface.flush(&self.vgic, vcpu, core);
                drop(cpu);
                self.kick(others);
            }
        }
    }

    fn route_to_new(&self) {
        self.write(IROUTER + 8 * u64::from(DEVICE), Width::DoubleWord, NEW as u64);
    }

    /// The old target does `action`, and tells whom it has to.
    fn old_target_does(&self, action: impl FnOnce(&mut CpuInterface, &mut Core) -> Kicks) {
        let kicks = {
            let (interface, core) = &mut *self.cpus[OLD].borrow_mut();
            action(interface, core)
        };
        assert!(MEANWHILE.take().is_none(), "it has taken the interrupt in flight");
        self.kick(kicks);
    }

    #[track_caller]
    fn only_the_new_target_has_it(&self) {
        let listed = [OLD, NEW].map(|vcpu| self.cpus[vcpu].borrow().1.listed());
        assert_eq!(listed, [std::vec![], std::vec![DEVICE]]);
    }
}

/// The interrupt arrives, the old target flushes, and loses it in the middle of that.
fn loses_it_while_it_flushes(pair: &Rc<Pair>) {
    let told = pair.vgic.inject(IntId::new(DEVICE), OLD);
    assert_eq!(told, Kicks::one(OLD));
    let other = pair.clone();
    MEANWHILE.set(Some(Box::new(move || other.route_to_new())));
    pair.old_target_does(|interface, core| interface.flush(&pair.vgic, OLD, core));
    pair.only_the_new_target_has_it();
}

#[test]
fn one_that_is_rerouted_while_its_old_target_takes_it_is_not_lost() {
    // It is level-sensitive, which takes the whole of a flush.
    loses_it_while_it_flushes(&Pair::new());
}

#[test]
fn nor_is_an_edge_that_is_rerouted_so() {
    let pair = Pair::new();
    pair.write(ICFGR + 4 * u64::from(DEVICE / 16), Width::Word, 2 << (2 * (DEVICE % 16)));
    loses_it_while_it_flushes(&pair);
}

#[test]
fn nor_one_that_gets_its_line_and_another_route_while_its_old_target_takes_it() {
    let pair = Pair::new();
    pair.write(ICFGR + 4 * u64::from(DEVICE / 16), Width::Word, 2 << (2 * (DEVICE % 16)));
    let _is_flushed_below = pair.vgic.inject(IntId::new(DEVICE), OLD);
    let other = pair.clone();
    MEANWHILE.set(Some(Box::new(move || {
        other.write(ICFGR + 4 * u64::from(DEVICE / 16), Width::Word, 0);
        other.kick(other.vgic.set_line(IntId::new(DEVICE), OLD, true));
        other.route_to_new();
    })));
    pair.old_target_does(|interface, core| interface.flush(&pair.vgic, OLD, core));
    pair.only_the_new_target_has_it();
}

#[test]
fn nor_an_assigned_devices_that_the_guest_makes_pending_and_reroutes_meanwhile() {
    let pair = Pair::new();
    pair.vgic.link(IntId::new(DEVICE), 77);
    let other = pair.clone();
    MEANWHILE.set(Some(Box::new(move || {
        other.write(ISPENDR + 4, Width::Word, 1 << (DEVICE - 32));
        other.route_to_new();
    })));
    pair.old_target_does(|interface, core| interface.deliver_linked_shared(&pair.vgic, OLD, IntId::new(DEVICE), core));
    pair.only_the_new_target_has_it();
}
