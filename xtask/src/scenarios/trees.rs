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
/// How long a boot may be silent.
const LIMIT: Duration = Duration::from_secs(20);
/// What a boot ends in: one sentence, or guests that have run.
const ENDS: [&str; 2] = ["BULKHEAD STOPS: ", "[bulkhead] every vm is off"];

/// Starts `machine` with `count` damaged trees, one after the other. Says how many boot.
///
/// # Errors
/// One that ended in neither a sentence nor a boot.
pub(super) fn run(mut machine: Machine, count: u32, directory: &Path) -> anyhow::Result<String> {
    std::fs::create_dir_all(directory)?;
    let (whole, damaged, kernel) =
        (directory.join("whole.dtb"), directory.join("damaged.dtb"), directory.join("bulkhead.bin"));
    let dump = Machine { extra: vec!["-M".into(), option("dumpdtb=", &whole)], ..machine.clone() };
    dump.command().stdout(Stdio::null()).stderr(Stdio::null()).status()?;
    let whole = std::fs::read(&whole).context("QEMU has written no device tree")?;
    let mut image = std::fs::read(&machine.kernel)?;
    let place = image.windows(4).position(|word| word == KEEPS_ADDRESS).context("Bulkhead begins in another way")?;
    image.get_mut(place..place + 4).context("the image is short")?.copy_from_slice(&HAS_ADDRESS);
    std::fs::write(&kernel, image)?;
    machine.kernel = kernel;
    let place = format!(",addr={TREE_ADDRESS:#x},force-raw=on");
    let mut loader = option("loader,file=", &damaged);
    loader.push(place);
    machine.extra = vec!["-device".into(), loader];
    // The tree is a few KiB in a MiB: its header says where they are.
    let used = whole.iter().rposition(|byte| *byte != 0).unwrap_or(0);
    let (mut boots, mut state) = (0, 1_u64);
    for number in 0..count {
        let mut tree = whole.clone();
        let mut random = |below: usize| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            usize::try_from(state >> 33).unwrap_or(0) % below
        };
        // The first two are whole: they show that the others are refused for their damage.
        if number == 1 {
            tree = with_nops(&whole).context("QEMU's tree has no property `dma-coherent` any more")?;
        }
        for _ in 0..number.saturating_sub(1).min(4) {
            let place = random(used / 4) * 4;
            let word: [u8; 4] = match random(3) {
                0 => [0xff; 4],
                1 => u32::try_from(random(12))?.to_be_bytes(),
                _ => u32::try_from(random(1 << 31))?.to_be_bytes(),
            };
            tree.get_mut(place..place + 4).context("a tree has words")?.copy_from_slice(&word);
        }
        std::fs::write(&damaged, tree)?;
        let end = end_of(&machine).with_context(|| format!("damaged tree {number}, {}", damaged.display()))?;
        boots += u32::from(end == ENDS[1]);
        ensure!(number > 1 || boots == number + 1, "a whole tree is refused");
    }
    Ok(format!("{boots} of {count} trees boot"))
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

/// Which of [`ENDS`] the board says first.
fn end_of(machine: &Machine) -> anyhow::Result<&'static str> {
    let mut child = machine.command().stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?;
    let end = watch(&mut child);
    // It may have ended by itself.
    let _ = child.kill();
    child.wait()?;
    end
}

fn watch(child: &mut Child) -> anyhow::Result<&'static str> {
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
        if let Some(end) = ENDS.into_iter().find(|end| line.contains(end)) {
            return Ok(end);
        }
        last = line;
    }
}
