//! Reads a system from its TOML file, part by part, and keeps the place of each. After a mistake it goes on: what is
//! left out is not judged, and everything else is.
//!
//! What must hold between the parts is not decided here: `placement` completes what comes out, and the `manifest` crate
//! validates it.

use manifest::MemoryRegion;
use platform::Board;
use std::{fs, path::Path, sync::Arc};
use toml::{
    Spanned,
    de::{DeTable, DeValue},
};
use vdev::guest_map;

mod io;
mod owned;
mod watch;

pub(super) use owned::{all_of, page_of};

use super::{
    Problem, Problems,
    decode::{Context, Decode, Findings},
    form::{DeviceForm, MemoryForm, SystemForm, VmForm},
    placement::{DOORBELL_INTID, complete, region_below},
    problem::{Text, TextSpan, choice},
    slots::Slots,
    source::{DEBIAN, DeviceLines, ImageName, Source, SystemLines, VmLines, VmSource},
    storage::Disk,
    virtio::DeviceKind,
};

/// A description is smaller than this; what is larger is another file.
const FILE_SIZE_MAX: u64 = 4 << 20;

/// What else is wrong with a system than its rules can say, such as an image that is not there.
pub(crate) type Look<'a> = dyn Fn(&Source) -> Result<(), Problems> + 'a;

/// Reads and validates the system in the TOML file `path`; the file's name is the system's. `look` is asked for what
/// there is of the system, so that everything that is wrong is said at once.
///
/// # Errors
/// All [`Problems`] of the file, each with its line, as far as one line is to blame.
pub(crate) fn load(path: &Path, look: &Look<'_>) -> Result<Source, Problems> {
    parse_text(&read(path)?, look)
}

/// As [`load`], with the file's contents given.
#[cfg(test)]
pub(crate) fn parse(path: &Path, text: &str) -> Result<Source, Problems> {
    parse_text(&Text::new(path, text), &|_| Ok(()))
}

/// As [`load`], with the bytes of the file given.
#[cfg(test)]
pub(super) fn parse_bytes(path: &Path, bytes: Vec<u8>, look: &Look<'_>) -> Result<Source, Problems> {
    parse_text(&text_of(path, bytes)?, look)
}

/// Reads a file that may be anything.
fn read(path: &Path) -> Result<Arc<Text>, Problem> {
    let refused = |sentence: String| Problem::new(Some(&Text::new(path, "")), None, sentence);
    let unread = |error: std::io::Error| {
        refused(if error.kind() == std::io::ErrorKind::NotFound {
            "there is no such file; check its name".to_string()
        } else {
            format!("the file cannot be read ({error}); check who may read it")
        })
    };
    let metadata = fs::metadata(path).map_err(unread)?;
    if metadata.is_dir() {
        return Err(refused("this is a directory; give the path of a .toml file in it".to_string()));
    }
    if !metadata.is_file() {
        return Err(refused("this is a device or a pipe; give the path of a .toml file".to_string()));
    }
    if metadata.len() > FILE_SIZE_MAX {
        let (size, most) = (super::size::show_size_rounded(metadata.len()), super::size::show_size(FILE_SIZE_MAX));
        let sentence = format!("the file has {size}, and a system's description {most} at most; check its name");
        return Err(refused(sentence));
    }
    text_of(path, fs::read(path).map_err(unread)?)
}

fn text_of(path: &Path, bytes: Vec<u8>) -> Result<Arc<Text>, Problem> {
    if bytes.iter().all(u8::is_ascii_whitespace) {
        let sentence = "the file is empty; write a system into it, as in guests/systems/two-linux.toml";
        return Err(Problem::new(Some(&Text::new(path, "")), Some((0..0).into()), sentence));
    }
    let is_binary = bytes.contains(&0);
    String::from_utf8(bytes).map(|text| Text::new(path, &text)).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        let byte = error.as_bytes().get(at).copied().unwrap_or_default();
        // Each wrong byte is shown as a replacement character of three bytes, the first at its own place.
        let text = Text::new(path, &String::from_utf8_lossy(error.as_bytes()));
        let sentence = if is_binary {
            format!("the byte {byte:#04x} is no text: the file is binary; give the path of a text file")
        } else {
            format!("the byte {byte:#04x} is no UTF-8, the only encoding of TOML; save the file as UTF-8")
        };
        let width = char::REPLACEMENT_CHARACTER.len_utf8();
        Problem::new(Some(&text), Some((at..at.saturating_add(width)).into()), sentence)
    })
}

fn parse_text(text: &Arc<Text>, look: &Look<'_>) -> Result<Source, Problems> {
    let (table, errors) = DeTable::parse_recoverable(text.as_str());
    Problems::check(not_toml(text, &errors))?;
    let findings = Findings::new(Arc::clone(text));
    let source = {
        let reader = Reader { findings: &findings };
        let span = table.span();
        let context = Context { findings: &findings, key: "", owner: "" };
        let form = SystemForm::decode(Spanned::new(span, DeValue::Table(table.into_inner())), &context);
        form.and_then(|form| reader.system(form))
    };
    let mut source = match source {
        Some(source) => source,
        None => return Err(Problems::of(findings.into_problems())),
    };
    if !findings.is_incomplete() {
        complete(&mut source, |problem| findings.lost_to(problem));
    }
    let system = source.skeleton();
    // Where something is missing, what is there is still judged by itself.
    if findings.is_incomplete() {
        source.problems_of_parts(&system, |problem| findings.add(problem));
    } else {
        source.problems(&system, |problem| findings.add(problem));
    }
    if let Err(problems) = look(&source) {
        problems.into_iter().for_each(|problem| findings.add(problem));
    }
    Problems::check(findings.into_problems())?;
    Ok(source)
}

/// What the TOML reader says, as sentences that also say what to do.
fn not_toml(text: &Arc<Text>, errors: &[toml::de::Error]) -> Vec<Problem> {
    const TWICE: &str = "duplicate key";
    let span_of = |error: &toml::de::Error| error.span().map(TextSpan::from);
    let is_section = |error: &toml::de::Error| {
        error.message() == TWICE
            && error.span().is_some_and(|span| {
                let before = text.as_str().get(..span.start).unwrap_or_default();
                before.rsplit('\n').next().unwrap_or_default().trim_start().starts_with('[')
            })
    };
    // The keys of a section that is there twice are there twice too, which is no news.
    let has_sections = errors.iter().any(is_section);
    let shown = errors.iter().filter(|error| !has_sections || error.message() != TWICE || is_section(error));
    let problem = |error: &toml::de::Error| {
        let word = span_of(error).map_or("", |span| text.get(span));
        let message = error.message().replace('\n', " ");
        let sentence = if is_section(error) {
            format!("the section [{word}] is there a second time; write [[{word}]], in double brackets, each time")
        } else if message == TWICE {
            format!("the key {word:?} is there a second time; remove one of them")
        } else {
            format!("this is no TOML: {message}; correct it")
        };
        Problem::new(Some(text), span_of(error), sentence)
    };
    shown.map(problem).collect()
}

/// Turns the TOML form into a [`Source`], and checks what the `manifest` crate does not know about.
pub(super) struct Reader<'a> {
    findings: &'a Findings,
}

/// The place of a value that may be there.
fn span_of<T>(value: &Option<Spanned<T>>) -> Option<TextSpan> {
    value.as_ref().map(|value| value.span().into())
}

impl Reader<'_> {
    pub(super) fn problem(&self, span: impl Into<TextSpan>, sentence: impl Into<String>) -> Problem {
        Problem::new(Some(&self.findings.text), Some(span.into()), sentence)
    }

    /// A number of cores, or the number of a core.
    fn core_number(&self, number: &Spanned<u64>) -> Result<u8, Problem> {
        u8::try_from(*number.get_ref()).map_err(|_| {
            let sentence = format!("no board has {} cores; use a smaller number", number.get_ref());
            self.problem(number.span(), sentence)
        })
    }

    /// Keeps what a system may have of something, so that whatever comes later stays small.
    fn bounded<T>(&self, mut all: Vec<Spanned<T>>, most: usize, owner: &str, what: &str) -> Vec<Spanned<T>> {
        if let Some(first) = all.get(most) {
            let sentence = format!("{owner} has {} {what}, but at most {most} are possible; remove some", all.len());
            self.findings.lost(first.span(), sentence);
            all.truncate(most);
        }
        all
    }

    fn system(&self, form: SystemForm) -> Option<Source> {
        let keep = self.findings;
        let board = platform::find(form.board.get_ref()).ok_or_else(|| {
            let known = platform::BOARDS.iter().map(|board| board.name);
            let (name, choice) = (form.board.get_ref(), choice(form.board.get_ref(), known));
            self.problem(form.board.span(), format!("the board {name:?} is not known; {choice}"))
        });
        let board = keep.keep(board)?;
        let lines =
            SystemLines { cores: span_of(&form.cores), memory: span_of(&form.memory), network: span_of(&form.network) };
        let mut memory_bytes = form.memory.map_or(board.memory_default, |memory| memory.get_ref().0);
        if memory_bytes > board.memory_max {
            let (most, name) = (super::size::show_size(board.memory_max), board.name);
            let sentence = format!("the board {name:?} has at most {most} of memory; give it less");
            keep.add(Problem::new(Some(&keep.text), lines.memory, sentence));
            memory_bytes = board.memory_max;
        }
        let mut disks = Vec::new();
        for disk in self.bounded(form.disk, io::DISKS_MAX, "the board", "disks") {
            let disk = self.disk(&disks, disk);
            disks.extend(keep.keep(disk));
        }
        let uplink = form.network.map_or(Ok(false), |network| self.uplink(&network.get_ref().uplink));
        let uplink = keep.keep(uplink).unwrap_or(false);
        let cards = self.bounded(form.card, io::DISKS_MAX, "the board", "cards");
        let cards = cards.into_iter().filter_map(|card| keep.keep(self.card(card))).collect();
        let mut whole = Whole { board, end: board.ram_base.saturating_add(memory_bytes), disks: &disks };
        let vms = self.bounded(form.vm, manifest::VMS_MAX, "the system", "vms");
        let vms = vms.into_iter().map(|vm| self.vm(vm, &mut whole)).collect();
        let cores = form.cores.map_or(Ok(board.cores_default), |cores| self.core_number(&cores));
        let path = keep.text.path();
        Some(Source {
            text: Some(Arc::clone(&keep.text)),
            name: path.file_stem().map_or_else(String::new, |stem| stem.to_string_lossy().into_owned()),
            description: form.description.unwrap_or_default(),
            board,
            cores: keep.keep(cores).unwrap_or(board.cores_default),
            memory_bytes,
            vms,
            disks,
            uplink,
            cards,
            lines,
        })
    }

    fn vm(&self, form: Spanned<VmForm>, whole: &mut Whole<'_>) -> VmSource {
        let (keep, span) = (self.findings, form.span());
        let form = form.into_inner();
        let owns = form.owns.as_ref().map_or(&[][..], |owns| owns.get_ref());
        let mut lines = VmLines {
            vm: Some(span.into()),
            name: Some(form.name.span().into()),
            cores: Some(form.cores.span().into()),
            memory: Some(form.memory.span().into()),
            kernel: Some(form.kernel.span().into()),
            initrd: span_of(&form.initrd),
            owns: span_of(&form.owns),
            driver_domain: span_of(&form.driver_domain),
            ..VmLines::default()
        };
        let is_driver_domain = form.driver_domain.as_ref().is_some_and(|stated| *stated.get_ref());
        if let (true, DEBIAN) = (is_driver_domain, form.kernel.get_ref().as_str()) {
            let name = form.name.get_ref();
            let sentence = format!(
                "vm {name:?} is a driver domain, and Debian's Linux serves nobody as one; write kernel = \
                 \"guest:driver-domain\""
            );
            keep.report(form.kernel.span(), sentence);
        }
        let watch = self.watch(&form, is_driver_domain);
        let mut assigned = Vec::new();
        for owned in owns {
            if let Some(device) = keep.keep(self.owned(form.name.get_ref(), owned, whole.board)) {
                lines.owned.push(Some(owned.span().into()));
                assigned.push(device);
            }
        }
        let mut cores = Vec::new();
        let mut shares_cores = form.shared_cores.as_ref().is_some_and(|stated| *stated.get_ref());
        for core in form.cores.get_ref() {
            if let Some(number) = keep.keep(self.core_number(core)) {
                lines.core.push(Some(core.span().into()));
                if !shares_cores && cores.contains(&number) {
                    // One sentence says it for all of them.
                    shares_cores = true;
                    let sentence = format!(
                        "vm {:?} has two virtual cpus on core {number}, which could only take turns; give each a core \
                         of its own, or say shared_cores = true",
                        form.name.get_ref()
                    );
                    keep.report(core.span(), sentence);
                }
                cores.push(number);
            }
        }
        let name = form.name.into_inner();
        // What a device reads and writes by itself, it does at physical addresses.
        let is_one_to_one = is_driver_domain || assigned.iter().any(|device: &manifest::Assigned| device.dma);
        let memory = match form.memory.into_inner() {
            MemoryForm::Size(size) => {
                lines.regions = vec![lines.memory];
                vec![if is_one_to_one {
                    whole.take(size.0)
                } else {
                    MemoryRegion { guest: guest_map::RAM_BASE, size: size.0, physical: None }
                }]
            }
            MemoryForm::Regions(regions) => {
                lines.regions = regions.iter().map(|region| Some(region.span().into())).collect();
                let region = |form: &super::form::RegionForm| MemoryRegion {
                    guest: form.at,
                    size: form.size.0,
                    physical: form.physical,
                };
                regions.iter().map(|form| region(form.get_ref())).collect()
            }
        };
        let (mut devices, mut clients) = (Vec::new(), Vec::new());
        let mut slots = Slots::new(&form.device, &assigned);
        for device in self.bounded(form.device, manifest::DEVICES_MAX, &format!("vm {name:?}"), "devices") {
            let device = device.into_inner();
            let client = keep.keep(self.client(&name, &device, whole.disks));
            let read = keep.keep(self.device(&name, &device, &mut slots));
            if let (Some(client), Some((device, device_lines))) = (client, read) {
                devices.push(device);
                clients.push(client);
                lines.devices.push(device_lines);
            }
        }
        VmSource {
            name,
            memory,
            cores,
            kernel: ImageName::Named(form.kernel.into_inner()),
            initrd: form.initrd.map(|initrd| ImageName::Named(initrd.into_inner())),
            command_line: form.command_line.unwrap_or_default(),
            tells_identity: true,
            devices,
            clients,
            assigned,
            doorbell: is_driver_domain.then_some(DOORBELL_INTID),
            watch,
            load_end: u64::MAX,
            lines,
        }
    }

    fn device(
        &self,
        vm: &str,
        form: &DeviceForm,
        slots: &mut Slots,
    ) -> Result<(manifest::Device, DeviceLines), Problem> {
        let name = form.kind.get_ref().as_str();
        let span = Some(form.kind.span().into());
        let lines = DeviceLines {
            kind: span,
            address: span_of(&form.address).or(span),
            interrupt: span_of(&form.interrupt).or(span),
        };
        let Some(kind) = DeviceKind::find(name) else {
            let choice = choice(name, DeviceKind::names());
            let sentence = format!("vm {vm:?} has a device of kind {name:?}, which is not known; {choice}");
            return Err(self.problem(form.kind.span(), sentence));
        };
        if let (
            Some(interrupt),
            DeviceKind::Emulated(devices::Kind { default_interrupt: None, .. }) | DeviceKind::Calls,
        ) = (&form.interrupt, kind)
        {
            let sentence = format!("device {name:?} of vm {vm:?} has no interrupt; remove the key \"interrupt\"");
            return Err(self.problem(interrupt.span(), sentence));
        }
        let stated = form.address.as_ref().map(|address| *address.get_ref());
        let (address, interrupt) = match (kind, stated) {
            (DeviceKind::Emulated(kind), _) => (stated.unwrap_or(kind.default_address), kind.default_interrupt),
            (DeviceKind::Calls, _) => (stated.unwrap_or(guest_map::CALLS_BASE), None),
            (DeviceKind::Virtio(_), Some(address)) => (address, Slots::interrupt_at(address)),
            (DeviceKind::Virtio(_), None) => slots.next().ok_or_else(|| {
                let sentence = format!(
                    "vm {vm:?} has no virtio slot left for device {name:?}; let it have fewer devices, or own fewer of the \
                     board's slots, as in owns = [\"virtio-mmio:0-7\"]"
                );
                self.problem(form.kind.span(), sentence)
            })?,
        };
        let device = manifest::Device {
            kind: kind.name().to_string(),
            address,
            size: kind.window_size(),
            interrupt: form.interrupt.as_ref().map(|interrupt| *interrupt.get_ref()).or(interrupt),
            service: None,
            configuration: self.configuration(vm, form, kind)?,
        };
        Ok((device, lines))
    }

    /// What the model of an emulated device is told.
    fn configuration(&self, vm: &str, form: &DeviceForm, kind: DeviceKind) -> Result<Vec<u8>, Problem> {
        let (Some(text), DeviceKind::Emulated(kind)) = (&form.configuration, kind) else { return Ok(Vec::new()) };
        // One that takes none has been told so.
        if kind.configuration_max > 0 && text.get_ref().len() > kind.configuration_max {
            let (name, most) = (kind.name, kind.configuration_max);
            let sentence =
                format!("the configuration of device {name:?} of vm {vm:?} has more than {most} bytes; shorten it");
            return Err(self.problem(text.span(), sentence));
        }
        Ok(text.get_ref().clone().into_bytes())
    }
}

/// What the parts of a system share while they are read.
struct Whole<'a> {
    board: &'static Board,
    /// The end of the board's RAM that no driver domain has yet.
    end: u64,
    disks: &'a [Disk],
}

impl Whole<'_> {
    fn take(&mut self, size: u64) -> MemoryRegion {
        let region = region_below(self.end, size);
        self.end = region.guest;
        region
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;

    #[test]
    fn what_is_no_description_is_named_as_what_it_is() {
        let directory = std::env::temp_dir().join(format!("bulkhead-reader-{}", std::process::id()));
        fs::create_dir_all(&directory).expect("created");
        let huge = directory.join("huge.toml");
        // No byte of it is written.
        File::create(&huge).and_then(|file| file.set_len(FILE_SIZE_MAX + 1)).expect("created");
        let cases = [
            (huge, "the file has 5 MiB, and a system's description 4 MiB at most; check its name"),
            (directory.clone(), "this is a directory; give the path of a .toml file in it"),
            (directory.join("absent.toml"), "there is no such file; check its name"),
            ("/dev/null".into(), "this is a device or a pipe; give the path of a .toml file"),
        ];
        let found = cases.clone().map(|(path, _)| load(&path, &|_| Ok(())).map(drop).expect_err("none").to_string());
        fs::remove_dir_all(&directory).expect("removed");
        for ((path, sentence), found) in cases.into_iter().zip(found) {
            assert_eq!(found, format!("{}: {sentence}", path.display()));
        }
    }
}
