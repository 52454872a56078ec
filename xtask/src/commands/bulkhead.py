"""Address spaces for gdb: whose code a core runs, and that one's symbols.

EL2 and the guests run at the same virtual addresses, so their symbols cannot all be loaded at once. At each stop this
script asks the core for its exception level and for the VMID in VTTBR_EL2, and loads what belongs to them. `cargo xtask
debug` starts gdb with it and with a list of address spaces in the convenience variable $bulkhead_spaces.
"""

import json

import gdb


class Space:
    """A program with symbols: EL2 (no VMID), or a guest."""

    def __init__(self, stated):
        self.name = stated["name"]
        self.vmid = stated["vmid"]
        # Each has a path and an offset; none where there are no symbols.
        self.file = stated["file"]
        self.offset = stated["offset"]
        # A Linux kernel chooses where it runs: its vectors tell.
        self.is_linux = stated["linux"]


class State:
    spaces = []
    loaded = None
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


def linux_offset(space):
    """How far a Linux kernel has moved itself: VBAR_EL1 is the address of `vectors` once it runs at its own addresses."""
    there = register("VBAR_EL1")
    symbol = gdb.execute("info address vectors", to_string=True)
    linked = int(symbol.split("address ")[1].split()[0].rstrip("."), 16)
    return (there - linked) & 0xFFFFFFFFFFFFFFFF if there else 0


def load(space):
    """Makes the symbols of `space` the only ones."""
    if State.loaded is space:
        return False
    gdb.execute("symbol-file", to_string=True)
    State.loaded = space
    if not space.file:
        return True
    try:
        gdb.execute("symbol-file {} -o {:#x}".format(space.file, space.offset), to_string=True)
        if space.is_linux:
            offset = linux_offset(space)
            if offset:
                gdb.execute("symbol-file {} -o {:#x}".format(space.file, offset), to_string=True)
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
            places = gdb.decode_line(location)[1]
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
