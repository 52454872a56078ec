//! Trees written by hand, and many that are damaged.

use super::{Conduit, Description, Missing, Range, Survey, read};
use std::{format, vec, vec::Vec};

/// Writes a flattened device tree (Devicetree Specification 0.4, chapter 5).
#[derive(Default)]
struct Writer {
    structure: Vec<u8>,
    strings: Vec<u8>,
    reservations: Vec<(u64, u64)>,
    /// Whether each token has FDT_NOP tokens before it.
    has_nops: bool,
}

impl Writer {
    fn word(&mut self, word: u32) {
        self.structure.extend(word.to_be_bytes());
    }

    fn token(&mut self, token: u32) {
        if self.has_nops {
            self.word(4);
            self.word(4);
        }
        self.word(token);
    }

    fn padded(&mut self, bytes: &[u8]) {
        self.structure.extend(bytes);
        self.structure.resize(self.structure.len().next_multiple_of(4), 0);
    }

    fn node(&mut self, name: &str, inside: impl FnOnce(&mut Self)) -> &mut Self {
        self.token(1);
        self.padded(format!("{name}\0").as_bytes());
        inside(self);
        self.token(2);
        self
    }

    fn bytes(&mut self, name: &str, value: &[u8]) -> &mut Self {
        let place = self.strings.len() as u32;
        self.strings.extend(format!("{name}\0").as_bytes());
        self.token(3);
        self.word(value.len() as u32);
        self.word(place);
        self.padded(value);
        self
    }

    fn text(&mut self, name: &str, value: &str) -> &mut Self {
        self.bytes(name, format!("{value}\0").as_bytes())
    }

    fn cells(&mut self, name: &str, cells: &[u32]) -> &mut Self {
        let value: Vec<u8> = cells.iter().flat_map(|cell| cell.to_be_bytes()).collect();
        self.bytes(name, &value)
    }

    fn finish(&mut self) -> Vec<u8> {
        self.token(9);
        let structure = 40 + 16 * (self.reservations.len() + 1);
        let strings = structure + self.structure.len();
        let total = strings + self.strings.len();
        let sizes = [self.strings.len(), self.structure.len()];
        let header = [0xd00d_feed, total, structure, strings, 40, 17, 16, 0, sizes[0], sizes[1]];
        let mut tree: Vec<u8> = header.iter().flat_map(|field| (*field as u32).to_be_bytes()).collect();
        for (address, size) in self.reservations.iter().chain([&(0, 0)]) {
            tree.extend(address.to_be_bytes());
            tree.extend(size.to_be_bytes());
        }
        tree.extend(&self.structure);
        tree.extend(&self.strings);
        tree
    }
}

/// A board as QEMU's `virt` describes itself, in short, with `more` at the end of its root.
fn board(cores: &[u32], more: impl FnOnce(&mut Writer)) -> Vec<u8> {
    let reservations = vec![(0x5000_0000, 0x1000), (0x6000_0000, 0)];
    write_board(Writer { reservations, ..Writer::default() }, cores, more)
}

fn write_board(mut tree: Writer, cores: &[u32], more: impl FnOnce(&mut Writer)) -> Vec<u8> {
    tree.node("", |root| {
        root.text("compatible", "linux,dummy-virt").cells("#address-cells", &[2]).cells("#size-cells", &[2]);
        root.node("memory@40000000", |node| {
            node.text("device_type", "memory").cells("reg", &[0, 0x4000_0000, 0, 0x4000_0000]);
        });
        root.node("cpus", |cpus| {
            cpus.cells("#address-cells", &[1]).cells("#size-cells", &[0]);
            for core in cores {
                cpus.node(&format!("cpu@{core:x}"), |cpu| {
                    cpu.text("device_type", "cpu").cells("reg", &[*core]);
                });
            }
        });
        root.node("psci", |node| {
            node.text("compatible", "arm,psci-1.0").text("method", "smc");
        });
        root.node("intc@8000000", |node| {
            node.text("compatible", "arm,gic-v3");
            node.cells("reg", &[0, 0x0800_0000, 0, 0x1_0000, 0, 0x080a_0000, 0, 0xf6_0000]);
        });
        root.node("pcie@10000000", |node| {
            node.text("compatible", "pci-host-ecam-generic").cells("reg", &[0x40, 0x1000_0000, 0, 0x1000_0000]);
            node.cells("ranges", &[0x0200_0000, 0, 0x1000_0000, 0, 0x1000_0000, 0, 0x2eff_0000]);
        });
        root.node("pl011@9000000", |node| {
            node.text("compatible", "arm,pl011")
                .cells("reg", &[0, 0x0900_0000, 0, 0x1000])
                .cells("interrupts", &[0, 1, 4]);
        });
        root.node("chosen", |node| {
            node.cells("linux,initrd-start", &[0x4800_0000]).cells("linux,initrd-end", &[0x4900_0000]);
            node.text("bootargs", "bulkhead.console=lines").bytes("rng-seed", &[7; 32]);
        });
        more(root);
    });
    tree.finish()
}

fn described(tree: &[u8], own: u64) -> Result<Description, Missing> {
    read(Survey::of(&mut tree.to_vec()), 0x4000_0000, own)
}

#[test]
fn a_board_is_what_its_tree_says() {
    let tree = board(&[0, 1], |_| {});
    let found = described(&tree, 0).unwrap();
    assert_eq!(found.memory[..], [Range { start: 0x4000_0000, size: 0x4000_0000 }]);
    assert_eq!((found.uart.start, found.uart_interrupt, found.conduit), (0x0900_0000, 33, Conduit::Smc));
    assert_eq!(found.bundle, Some(Range { start: 0x4800_0000, size: 0x0100_0000 }));
    assert_eq!((found.seed, found.console_in_lines), (Some([7; 32]), true));
    assert!(found.pcie.is_some() && found.devices.contains(&0x0900_0000));
    assert_eq!(Survey::of(&mut tree.clone()).uart(), Some(0x0900_0000));
}

#[test]
fn a_clock_is_where_both_its_name_and_its_registers_are() {
    let with_clock = |name: &str, address| {
        described(
            &board(&[0], |root| {
                root.node(name, |node| {
                    node.text("compatible", "arm,pl031").cells("reg", &[0, address, 0, 0x1000]);
                });
            }),
            0,
        )
    };
    assert_eq!(with_clock("pl031@9010000", 0x0901_0000).unwrap().clock, Some(0x0901_0000));
    assert_eq!(with_clock("pl031@9010000", 0x0902_0000).unwrap().clock, None);
    assert_eq!(with_clock("pl031@9010800", 0x0901_0800).unwrap().clock, None, "within a page");
    assert_eq!(described(&board(&[0], |_| {}), 0).unwrap().clock, None);
    let on_a_bus = board(&[0], |root| {
        root.node("bus@9000000", |bus| {
            bus.node("pl031@9010000", |node| {
                node.text("compatible", "arm,pl031").cells("reg", &[0, 0x0901_0000, 0, 0x1000]);
            });
        });
    });
    assert_eq!(described(&on_a_bus, 0).unwrap().clock, None, "the bus may have addresses of its own");
}

#[test]
fn nop_tokens_are_ignored_wherever_they_are() {
    let [plain, with_nops] = [false, true].map(|has_nops| {
        write_board(Writer { has_nops, ..Writer::default() }, &[0, 1], |root| {
            root.node("reserved-memory", |node| {
                node.cells("#address-cells", &[2]).cells("#size-cells", &[2]).node("memory@70000000", |node| {
                    node.cells("reg", &[0, 0x7000_0000, 0, 0x10_0000]);
                });
            });
        })
    });
    assert!(with_nops.len() > plain.len() + 400);
    let found = |tree: &[u8]| {
        let found = described(tree, 0).unwrap();
        format!("{:?}", Description { device_tree: Range { start: 0, size: 0 }, ..found })
    };
    assert_eq!(found(&with_nops), found(&plain));
    let size = |tree: &[u8]| described(tree, 0).unwrap().device_tree.size;
    assert_eq!(size(&with_nops), with_nops.len() as u64, "the tree keeps its place");
}

#[test]
fn what_is_reserved_is_no_device_whatever_it_is_compatible_with() {
    let [before, after] = [true, false].map(|is_before| {
        let mut tree = Writer::default();
        let reserved = |root: &mut Writer| {
            root.node("reserved-memory", |reserved| {
                reserved.node("trap@0", |node| {
                    node.text("compatible", "arm,pl011").text("compatible", "arm,gic-v3");
                });
            });
        };
        tree.node("", |root| {
            if is_before {
                reserved(root);
            }
            root.node("pl011@9000000", |node| {
                node.text("compatible", "arm,pl011").cells("reg", &[0, 0x0900_0000, 0, 0x1000]);
            });
            if !is_before {
                reserved(root);
            }
        });
        tree.finish()
    });
    for mut tree in [before, after] {
        assert_eq!(Survey::of(&mut tree).uart(), Some(0x0900_0000));
    }
}

#[test]
fn the_core_that_boots_comes_first_wherever_the_tree_has_it() {
    let cores: Vec<u32> = (0..20).collect();
    let places = [(19, 0), (1, 0), (0, 1)];
    for (own, second) in places.into_iter().take(if cfg!(miri) { 1 } else { 3 }) {
        let found = described(&board(&cores, |_| {}), own).unwrap();
        assert_eq!((found.cores.len(), found.cores[0], found.cores[1]), (super::CORES_MAX, own, second));
        assert_eq!(found.cores.iter().filter(|core| **core == own).count(), 1);
    }
}

#[test]
fn reserved_memory_called_memory_is_no_ram_and_a_reservation_of_nothing_reserves_nothing() {
    let tree = board(&[0], |root| {
        root.node("reserved-memory", |reserved| {
            reserved.cells("#address-cells", &[2]).cells("#size-cells", &[2]);
            reserved.node("memory@7000000", |node| {
                node.cells("reg", &[0, 0x7000_0000, 0, 0x10_0000]).bytes("no-map", &[]);
            });
            reserved.node("nothing@0", |node| {
                node.cells("reg", &[0, 0x7100_0000, 0, 0]);
            });
        });
        root.node("memory@100000000", |node| {
            node.cells("reg", &[1, 0, 0, 0x1000_0000]);
        });
    });
    let found = described(&tree, 0).unwrap();
    let reserved = Range { start: 0x7000_0000, size: 0x10_0000 };
    assert_eq!(found.memory.len(), 2, "what follows the reservations is RAM again: {:?}", found.memory);
    assert_eq!(found.reserved[..], [Range { start: 0x5000_0000, size: 0x1000 }, reserved]);
    assert_eq!(found.no_map[..], [reserved]);
}

#[test]
fn a_board_without_a_gicv3_is_told_so_and_has_a_uart_to_be_told_on() {
    let mut tree = board(&[0], |_| {});
    let place = tree.windows(10).position(|bytes| bytes == b"arm,gic-v3").unwrap();
    tree[place + 9] = b'2';
    assert!(described(&tree, 0).unwrap_err().contains("gic-version=3"));
    assert_eq!(Survey::of(&mut tree.clone()).uart(), Some(0x0900_0000));
}

#[test]
fn a_uart_whose_addresses_contradict_each_other_is_not_believed() {
    let tree = board(&[0], |_| {});
    let places: Vec<usize> = (0..tree.len() - 4).filter(|place| tree[*place..*place + 4] == [9, 0, 0, 0]).collect();
    assert!(!places.is_empty());
    for place in places {
        let mut tree = tree.clone();
        tree[place + 1] = 1;
        assert_ne!(Survey::of(&mut tree.clone()).uart(), Some(0x0901_0000));
    }
}

/// Deals with a tree as the boot does: to come back is to pass.
fn survives(tree: &[u8]) -> bool {
    match described(tree, 0) {
        Ok(_) => true,
        Err(sentence) => {
            assert!(sentence.len() > 20, "{sentence}");
            false
        }
    }
}

#[test]
fn every_damaged_tree_is_read_or_refused_and_none_panics() {
    let whole = board(&[0, 1, 2, 3], |root| {
        root.node("reserved-memory", |node| {
            node.cells("#address-cells", &[2]).cells("#size-cells", &[2]).node("memory@70000000", |node| {
                node.cells("reg", &[0, 0x7000_0000, 0, 0x10_0000]);
            });
        });
    });
    assert!(survives(&whole));
    let rounds = if cfg!(miri) { 16 } else { 20_000 };
    let mut state = 1_u64;
    let mut random = |below: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize % below
    };
    let mut read = 0;
    for _ in 0..rounds {
        let mut tree = whole.clone();
        for _ in 0..=random(4) {
            let place = random(tree.len() / 4) * 4;
            match random(6) {
                0 => tree[place + random(4)] = random(256) as u8,
                1 => tree[place + random(4)] ^= 1 << random(8),
                // A token, a length or an offset of another kind.
                2 => tree[place..place + 4].copy_from_slice(&(random(12) as u32).to_be_bytes()),
                3 => tree[place..place + 4].copy_from_slice(&[0xff; 4]),
                4 => {
                    let from = random(tree.len() / 4) * 4;
                    tree.copy_within(from..from + 4, place);
                }
                _ => tree.truncate(place.max(8)),
            }
            if tree.len() < 8 {
                break;
            }
        }
        read += usize::from(survives(&tree));
    }
    assert!(read > rounds / 50 && read < rounds, "{read} of {rounds} were read: the damage is no test");
}

#[test]
fn a_tree_cut_anywhere_is_refused() {
    let whole = board(&[0], |_| {});
    let step = if cfg!(miri) { 97 } else { 1 };
    for length in (0..whole.len()).step_by(step) {
        assert!(described(&whole[..length], 0).is_err(), "{length}");
    }
}

#[test]
fn what_the_crate_would_panic_at_is_refused_with_a_sentence() {
    let refused = |tree: &[u8], part: &str| {
        let sentence = described(tree, 0).unwrap_err();
        assert!(sentence.contains(part), "{sentence}");
    };
    let mut nameless = board(&[0], |_| {});
    let word = |tree: &[u8], at: usize| u32::from_be_bytes(tree[at..at + 4].try_into().unwrap());
    // The root's token and name, and its first property's token, length and name: where the strings end.
    let name = word(&nameless, 8) as usize + 16;
    let end_of_strings = word(&nameless, 32);
    nameless[name..name + 4].copy_from_slice(&end_of_strings.to_be_bytes());
    refused(&nameless, "ends in the middle");
    let short_cells = board(&[0], |root| {
        root.node("soc", |soc| {
            soc.bytes("#address-cells", &[0, 2]).node("x@0", |node| {
                node.cells("reg", &[0]);
            });
        });
    });
    refused(&short_cells, "no number");
    fn nest(node: &mut Writer, depth: usize) {
        node.node("n", |inner| {
            if depth > 0 {
                nest(inner, depth - 1);
            }
        });
    }
    refused(&board(&[0], |root| nest(root, 100)), "too deep");
    let late = board(&[0], |root| {
        root.node("a", |_| {}).text("late", "x");
    });
    refused(&late, "out of place");
    let mut name = board(&[0], |_| {});
    let place = name.windows(4).position(|bytes| bytes == b"psci").unwrap();
    name[place] = 0xff;
    refused(&name, "no text");
}
