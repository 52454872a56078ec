"""Address spaces for gdb: whose code a core runs, and that one's symbols.

EL2 and the guests run at the same virtual addresses, so their symbols cannot all be loaded at once. At each stop this
script asks the core for its exception level and for the VMID in VTTBR_EL2, and loads what belongs to them. `cargo xtask
debug` starts gdb with it and with a list of address spaces in the convenience variable $bulkhead_spaces.
"""

import json
import re

import gdb


class Space:
    """A program with symbols: EL2 (no VMID), or a guest."""

    def __init__(self, stated):
        self.name = stated["name"]
        self.vmid = stated["vmid"]
        # Each has a path and an offset; none where there are no symbols.
        self.file = stated["file"]
        self.offset = stated["offset"]
        # A Linux kernel may choose where it runs: its vectors tell, which are linked at this address.
        self.is_linux = stated["linux"]
        self.vectors = None


class State:
    spaces = []
    # The space whose symbols are loaded, and what is added to their addresses.
    loaded = None
    offset = None
    chosen = None


def register(name):
    """A register of the selected core; nothing where QEMU does not show it."""
    try:
        return int(gdb.selected_frame().read_register(name)) & 0xFFFFFFFFFFFFFFFF
    except (gdb.error, ValueError):
        try:
            return int(gdb.parse_and_eval("$" + name)) & 0xFFFFFFFFFFFFFFFF
        except (gdb.error, ValueError):
            return None


def level():
    """The exception level: PSTATE bits 3 and 2 (Arm ARM C5.2.2)."""
    status = register("cpsr")
    return None if status is None else (status >> 2) & 3


def current():
    """The space that the selected core is in."""
    here = level()
    if here is None:
        return None
    if here >= 2:
        return next((space for space in State.spaces if space.vmid is None), None)
    root = register("VTTBR_EL2")
    if root is None:
        return None
    # The VMID of 8 or 16 bits (Arm ARM D24.2.197); Bulkhead uses the low 8.
    vmid = (root >> 48) & 0xFF
    return next((space for space in State.spaces if space.vmid == vmid), None)


def address_of(symbol):
    """The address of a symbol. It may be assembly's and have no type, and any language may be the current one."""
    text = gdb.execute("info address " + symbol, to_string=True)
    found = re.search("0x[0-9a-f]+", text)
    if found is None:
        raise gdb.error(text.strip())
    return int(found.group(), 16)


def vector_base():
    """VBAR_EL1 of the selected core. QEMU calls it VBAR."""
    base = register("VBAR_EL1")
    return register("VBAR") if base is None else base


def find_linux(space):
    """Learns how far a Linux kernel has moved itself. A core tells that runs it, once it is at its own addresses."""
    if space.vectors is None or current() is not space:
        return
    base = vector_base()
    if base is not None and base >> 48 == 0xFFFF:
        space.offset = (base - space.vectors) & 0xFFFFFFFFFFFFFFFF


def load(space):
    """Makes the symbols of `space` the only ones."""
    find_linux(space)
    if State.loaded is space and State.offset == space.offset:
        return False
    gdb.execute("symbol-file", to_string=True)
    State.loaded, State.offset = space, space.offset
    if not space.file:
        return True
    try:
        gdb.execute("symbol-file {} -o {:#x}".format(space.file, space.offset), to_string=True)
        if space.is_linux and space.vectors is None:
            space.vectors = address_of("vectors")
            load(space)
    except gdb.error as error:
        print("the symbols of {} cannot be loaded: {}".format(space.name, error))
    return True


def stopped(_event):
    if State.chosen is not None:
        return
    space = current()
    if space is not None and load(space):
        # What gdb has said about this stop was said with another program's symbols.
        print("[{}]".format(space.name))
        gdb.execute("frame")


class SpaceBreakpoint(gdb.Breakpoint):
    """A place in one address space: the same address elsewhere is passed over."""

    def __init__(self, space, address, what):
        super().__init__("*{:#x}".format(address), gdb.BP_HARDWARE_BREAKPOINT)
        self.space = space
        self.what = what

    def stop(self):
        if current() is not self.space:
            return False
        print("{} of {}".format(self.what, self.space.name))
        return True


def find(name):
    space = next((space for space in State.spaces if space.name == name), None)
    if space is None:
        names = ", ".join(space.name for space in State.spaces)
        raise gdb.GdbError("there is no address space {}; choose one of these: {}".format(name, names))
    return space


class Bulkhead(gdb.Command):
    """Address spaces: whose code runs, and whose symbols are used.

bulkhead where       says in which space each core is
bulkhead break NAME LOCATION
                     stops at a function or line of one space, such as `bulkhead break alpha start_kernel`
bulkhead use NAME    keeps to the symbols of one space, to set breakpoints there
bulkhead follow      goes back to those of the selected core"""

    def __init__(self):
        super().__init__("bulkhead", gdb.COMMAND_USER, gdb.COMPLETE_NONE)

    def invoke(self, argument, _from_tty):
        words = argument.split()
        if words == ["where"]:
            self.where()
        elif words == ["follow"]:
            State.chosen = None
            space = current()
            if space is not None:
                load(space)
        elif len(words) == 2 and words[0] == "use":
            State.chosen = find(words[1])
            load(State.chosen)
        elif len(words) == 3 and words[0] == "break":
            self.stop_at(find(words[1]), words[2])
        else:
            raise gdb.GdbError(self.__doc__)

    def stop_at(self, space, location):
        before = State.loaded
        load(space)
        try:
            try:
                places = gdb.decode_line(location)[1]
            except gdb.error as error:
                raise gdb.GdbError("{}: {}".format(space.name, error))
            if not places:
                raise gdb.GdbError("{} has no {}".format(space.name, location))
            SpaceBreakpoint(space, places[0].pc, location)
        finally:
            if before is not None:
                load(before)

    def where(self):
        selected = gdb.selected_thread()
        for thread in sorted(gdb.selected_inferior().threads(), key=lambda thread: thread.num):
            thread.switch()
            space = current()
            name = "nobody known" if space is None else space.name
            print("core {}: {} at EL{}, pc {:#x}".format(thread.num - 1, name, level(), register("pc")))
        if selected is not None:
            selected.switch()


def begin():
    stated = gdb.convenience_variable("bulkhead_spaces")
    State.spaces = [Space(one) for one in json.loads(stated.string())]
    Bulkhead()
    gdb.events.stop.connect(stopped)
    for space in State.spaces:
        if space.vmid is None:
            load(space)


begin()
