//! Damaged device trees: whatever a boot loader passes, Bulkhead boots or says why not.

use crate::qemu::Machine;
use anyhow::{Context, bail, ensure};
use std::{
    ffi::OsString,
    io::{BufRead, BufReader},
    path::Path,
    process::{Child, Stdio},
    sync::mpsc,
    thread,
    time::Duration,
};

/// Where a tree is put: RAM of the smallest board that nothing else is loaded to.
const TREE_ADDRESS: u64 = 0x5000_0000;
/// `mov x19, x0` keeps the address that the boot loader passed; `mov x19, #0x50000000` takes its place.
const KEEPS_ADDRESS: [u8; 4] = 0xaa00_03f3_u32.to_le_bytes();
const HAS_ADDRESS: [u8; 4] = 0xd2aa_0013_u32.to_le_bytes();
/// `mov x19, #0`: the boot loader has passed nothing.
const HAS_NOTHING: [u8; 4] = 0xd280_0013_u32.to_le_bytes();
/// How long a boot may be silent.
const LIMIT: Duration = Duration::from_secs(20);
/// What a boot ends in: one sentence, or guests that have run.
const SENTENCE: &str = "BULKHEAD STOPS: ";
const BOOT: &str = "[bulkhead] every vm is off";

/// Starts `machine` with `count` damaged trees, one after the other. Says how many boot.
///
/// # Errors
/// One that ended in neither a sentence nor a boot, or in another sentence than it must.
pub(super) fn run(mut machine: Machine, count: u32, directory: &Path) -> anyhow::Result<String> {
    std::fs::create_dir_all(directory)?;
    let (whole, damaged, kernel) =
        (directory.join("whole.dtb"), directory.join("damaged.dtb"), directory.join("bulkhead.bin"));
    let dump = Machine { extra: vec!["-M".into(), option("dumpdtb=", &whole)], ..machine.clone() };
    dump.command().stdout(Stdio::null()).stderr(Stdio::null()).status()?;
    let whole = std::fs::read(&whole).context("QEMU has written no device tree")?;
    let image = std::fs::read(&machine.kernel)?;
    let place = image.windows(4).position(|word| word == KEEPS_ADDRESS).context("Bulkhead begins in another way")?;
    machine.kernel.clone_from(&kernel);
    let mut loader = option("loader,file=", &damaged);
    loader.push(format!(",addr={TREE_ADDRESS:#x},force-raw=on"));
    machine.extra = vec!["-device".into(), loader];
    let start = |first: [u8; 4], tree: &[u8]| {
        let mut image = image.clone();
        image.get_mut(place..place + 4).context("the image is short")?.copy_from_slice(&first);
        std::fs::write(&kernel, image)?;
        std::fs::write(&damaged, tree)?;
        end_of(&machine)
    };
    for (what, first, tree, expected) in known_cases(&whole)? {
        let end = start(first, &tree).context(what)?;
        ensure!(end.contains(expected), "{what}: the last words were {end:?}, without {expected:?}");
    }
    let mut state = 1_u64;
    let mut random = |below: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(state >> 33).unwrap_or(0) % below
    };
    // The tree is a few KiB in a MiB: its header says where they are.
    let used = whole.iter().rposition(|byte| *byte != 0).unwrap_or(0);
    let mut boots = 0;
    for number in 0..count {
        let mut tree = whole.clone();
        for _ in 0..=number.min(3) {
            let place = random(used / 4) * 4;
            let word: [u8; 4] = match random(3) {
                0 => [0xff; 4],
                1 => u32::try_from(random(12))?.to_be_bytes(),
                _ => u32::try_from(random(1 << 31))?.to_be_bytes(),
            };
            tree.get_mut(place..place + 4).context("a tree has words")?.copy_from_slice(&word);
        }
        let end = start(HAS_ADDRESS, &tree).with_context(|| format!("damaged tree {number}, {}", damaged.display()))?;
        boots += u32::from(end.contains(BOOT));
    }
    Ok(format!("{boots} of {count} damaged trees boot"))
}

/// A tree, what begins with the address of it or without, and what must come of it.
type Case = (&'static str, [u8; 4], Vec<u8>, &'static str);

/// Trees of which it is known what comes of them. Those that are whole show that others are refused for their damage;
/// where no UART can be found in the tree, the sentence comes on the board's known one.
fn known_cases(whole: &[u8]) -> anyhow::Result<Vec<Case>> {
    let nops = with_nops(whole).context("QEMU's tree has no property `dma-coherent` any more")?;
    let magic = [&[0; 4][..], whole.get(4..).unwrap_or_default()].concat();
    let without_uart = with_other_uart(whole).context("QEMU's tree has no PL011 any more")?;
    Ok(vec![
        ("a whole tree", HAS_ADDRESS, whole.to_vec(), BOOT),
        ("a tree with NOPs", HAS_ADDRESS, nops, BOOT),
        ("no address of a tree", HAS_NOTHING, whole.to_vec(), "x0 does not hold the address of a device tree"),
        ("a tree without its magic number", HAS_ADDRESS, magic, "x0 does not point to a device tree"),
        ("a tree without a PL011", HAS_ADDRESS, without_uart, "the board has no PL011 UART"),
    ])
}

/// The tree whose UART is one that Bulkhead does not know.
fn with_other_uart(tree: &[u8]) -> Option<Vec<u8>> {
    let mut tree = tree.to_vec();
    let known = b"arm,pl011\0";
    let place = tree.windows(known.len()).position(|bytes| bytes == known)?;
    tree.get_mut(place..place + known.len())?.copy_from_slice(b"arm,pl999\0");
    Some(tree)
}

/// The tree with FDT_NOP tokens in the place of each property `dma-coherent`, which has no value and says nothing to
/// Bulkhead, as libfdt's `fdt_nop_property` leaves it (Devicetree Specification 0.4, 5.4.1).
fn with_nops(tree: &[u8]) -> Option<Vec<u8>> {
    let mut words: Vec<u32> = tree.as_chunks().0.iter().copied().map(u32::from_be_bytes).collect();
    let strings = tree.get(usize::try_from(*words.get(3)?).ok()?..)?;
    let name = b"\0dma-coherent\0";
    let name = u32::try_from(strings.windows(name.len()).position(|bytes| bytes == name)? + 1).ok()?;
    for place in 0..words.len() {
        if let Some(property) = words.get_mut(place..place + 3)
            && property == [3, 0, name]
        {
            property.fill(4);
        }
    }
    Some(words.into_iter().flat_map(u32::to_be_bytes).collect())
}

fn option(name: &str, path: &Path) -> OsString {
    let mut option = OsString::from(name);
    option.push(path);
    option
}

/// The line that the board ends with: [`SENTENCE`] or [`BOOT`] is in it.
fn end_of(machine: &Machine) -> anyhow::Result<String> {
    let mut child = machine.command().stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?;
    let end = watch(&mut child);
    // It may have ended by itself.
    let _ = child.kill();
    child.wait()?;
    end
}

fn watch(child: &mut Child) -> anyhow::Result<String> {
    let (sender, lines) = mpsc::channel();
    let output = child.stdout.take().context("QEMU has no output")?;
    thread::spawn(move || {
        for line in BufReader::new(output).split(b'\n').map_while(Result::ok) {
            if sender.send(String::from_utf8_lossy(&line).into_owned()).is_err() {
                break;
            }
        }
    });
    let mut last = String::from("nothing");
    loop {
        let Ok(line) = lines.recv_timeout(LIMIT) else { bail!("no sentence and no boot; the last words were: {last}") };
        if [SENTENCE, BOOT].iter().any(|end| line.contains(end)) {
            return Ok(line);
        }
        last = line;
    }
}
