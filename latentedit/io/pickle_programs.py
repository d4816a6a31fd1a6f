"""The programs that pickles are: read through before they are followed, and what they get to hold.

A pickle calls functions by name and sets the state of objects. Nothing is followed before its sizes
and depths are known to be those of a network, and nothing that it holds can be changed by it.
"""

import pickletools
from collections.abc import Callable
from typing import Any, BinaryIO, NoReturn

from latentedit.errors import FormatError
from latentedit.io.budget import DEEPEST, Budget

WIDEST = 1_000_000
"""What a tuple holds when it is written out; official files have some hundred."""
REFUSED = (
    "PERSID",
    "BINPERSID",
    "EXT1",
    "EXT2",
    "EXT4",
    "INST",
    "OBJ",
    "NEXT_BUFFER",
    "READONLY_BUFFER",
)
"""Instructions that no network file needs."""
WITH_STORAGES = tuple(name for name in REFUSED if name != "BINPERSID")
"""The same for torch's own files, which refer to their storages so."""
WORK = 64 << 20
"""Bytes that functions may be given beyond eight times the pickle's own: a memory of one string is
no licence to copy it."""
CALLS = ("REDUCE", "NEWOBJ", "NEWOBJ_EX")
INTEGERS = ("INT", "LONG", "BININT", "BININT1", "BININT2", "LONG1", "LONG4")
Shape = tuple[int, int, int]
"""Depth of an object, and the number of things and of bytes in it when it is written out."""
FILLING = ("APPEND", "APPENDS", "SETITEM", "SETITEMS", "ADDITEMS", "BUILD")


class Sealed:
    """Base of the objects that a pickle gets to hold: it can neither set their attributes nor their
    state."""

    __slots__ = ()

    def __setstate__(self, state: Any) -> None:
        raise FormatError("an object with a state that it cannot have")


class Builder(Sealed):
    """A function that a pickle may call."""

    __slots__ = ("_build",)
    _build: Callable[..., Any]

    def __init__(self, build: Callable[..., Any]) -> None:
        object.__setattr__(self, "_build", build)

    def __call__(self, *arguments: Any) -> Any:
        return self._build(*arguments)

    def __setattr__(self, name: str, value: Any) -> NoReturn:
        raise FormatError("an attempt to change a function")


def check_program(
    stream: BinaryIO,
    budget: Budget,
    refused: tuple[str, ...] = REFUSED,
    largest: int | None = 2**63 - 1,
) -> None:
    """Read a pickle's instructions without following them.

    Args:
        budget: of the whole file, which pickles within pickles share.
        largest: whole number that may occur; None lets nothing but one number through.

    Raises:
        Error: one of those ``refused``, too many of them, containers nested too deeply, tuples of
            the same tuples again and again, or a place in the table of objects (which the unpickler
            allocates) far beyond their number.
    """
    stack: list[Shape] = []
    marks: list[int] = []
    memo: dict[int, Shape] = {}
    work = read = 0

    for count, (opcode, argument, _) in enumerate(pickletools.genops(stream)):
        name = opcode.name
        if name in refused:
            raise FormatError(f"the pickle has the instruction {name}, which no network file needs")
        budget.take("instructions")
        if count % 1024 == 0:
            budget.check_time()
        if largest is None and name not in ("PROTO", "FRAME", "LONG1", "STOP"):
            raise FormatError("not a file of weights")
        if (
            largest is not None
            and isinstance(argument, int)
            and name in INTEGERS
            and abs(argument) > largest
        ):
            raise FormatError("a number far larger than the file")

        if isinstance(argument, bytes | bytearray | str):
            read += len(argument)
        if name in ("PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"):
            place = len(memo) if name == "MEMOIZE" else argument
            if not isinstance(place, int) or not 0 <= place <= count + 1:
                raise FormatError(f"a reference to the object number {str(place)[:20]} of {count}")
            memo[place] = stack[-1]
            continue

        before = list(opcode.stack_before)
        taken: list[Shape] = []
        if name == "MARK":
            marks.append(len(stack))
            continue
        if name == "POP" and marks and marks[-1] == len(stack):
            marks.pop()
            continue
        if pickletools.markobject in before:
            start = marks.pop()
            taken = stack[start:]
            del stack[start:]
            before = before[: before.index(pickletools.markobject)]

        if len(before) > len(stack) - (marks[-1] if marks else 0):
            raise FormatError("an instruction without its objects")

        for _ in before:
            taken.insert(0, stack.pop())
        if name in ("GET", "BINGET", "LONG_BINGET"):
            made = memo.get(argument if isinstance(argument, int) else -1, (0, 1, 0))
        elif name == "DUP":
            made = taken[0]
        elif name in FILLING:
            made = (
                max(taken[0][0], 1 + max((shape[0] for shape in taken[1:]), default=-1)),
                taken[0][1],
                taken[0][2],
            )
        else:
            length = len(argument) if isinstance(argument, bytes | bytearray | str) else 0
            given = length + sum(shape[2] for shape in taken)
            if name in CALLS:
                work = work + given
                given = 0
                if work > 8 * read + WORK:
                    raise FormatError("the same data given to functions again and again")
            made = (
                1 + max((shape[0] for shape in taken), default=-1),
                1 + sum(shape[1] for shape in taken),
                given,
            )

        if made[0] > DEEPEST:
            raise FormatError(f"containers nested more than {DEEPEST} deep")
        if made[1] > WIDEST and name not in FILLING:
            raise FormatError(f"tuples within one another that hold more than {WIDEST} things")
        stack += [made] * len(opcode.stack_after)
