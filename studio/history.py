"""What can be undone: the states of a session, one after another."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any

from latentedit.errors import FormatError
from latentedit.io.budget import check_things

DEEPEST = 500
"""States that are kept; the oldest go first."""


@dataclass(frozen=True)
class Setting:
    """Where one slider stands."""

    amount: float = 0.0
    """In sigmas."""
    layers: str | None = None
    """As `latentedit.latent.layers.parse_layers` takes it; None for the slider's own."""


@dataclass(frozen=True)
class State:
    """One moment of a session: which face, and where its sliders stand."""

    face: str
    """Key of the latent; "" where none is open."""
    settings: Mapping[str, Setting] = field(default_factory=lambda: MappingProxyType({}))
    """Sliders that are not at rest, by name, in the order in which they were first moved."""
    locks: frozenset[str] = frozenset()
    """Sliders whose scores are held."""

    def moved(self, name: str, amount: float) -> "State":
        """Return the state with one slider at ``amount``."""
        before = self.settings.get(name, Setting())
        return self._with(name, replace(before, amount=amount))

    def layered(self, name: str, layers: str | None) -> "State":
        """Return the state with one slider limited to ``layers``."""
        before = self.settings.get(name, Setting())
        return self._with(name, replace(before, layers=layers))

    def locked(self, name: str, on: bool) -> "State":
        """Return the state with one slider held, or no longer."""
        locks = self.locks | {name} if on else self.locks - {name}
        return replace(self, locks=locks)

    def at_rest(self) -> "State":
        """Return the state of the same face with every slider at 0."""
        return State(self.face)

    def _with(self, name: str, setting: Setting) -> "State":
        settings = {**self.settings, name: setting}
        if setting == Setting():
            del settings[name]
        return replace(self, settings=MappingProxyType(settings))

    def facts(self) -> dict[str, Any]:
        """Return the state as JSON."""
        return {
            "face": self.face,
            "settings": {name: [s.amount, s.layers] for name, s in self.settings.items()},
            "locks": sorted(self.locks),
        }

    @classmethod
    def of(cls, facts: Any) -> "State":
        """Return the state that `facts` gave; raise `Error` for anything else."""
        try:
            check_things(facts, most=5000)
            settings = {
                str(n): Setting(float(a), None if la is None else str(la))
                for n, (a, la) in facts["settings"].items()
            }
            if not all(abs(setting.amount) <= 1000 for setting in settings.values()):
                raise ValueError
            return cls(
                str(facts["face"]), MappingProxyType(settings), frozenset(map(str, facts["locks"]))
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise FormatError("not a state of a session") from error


class History:
    """States in their order, and the one that counts."""

    def __init__(self, state: State | None = None) -> None:
        self.states = [state or State("")]
        self.place = 0

    @property
    def state(self) -> State:
        return self.states[self.place]

    def push(self, state: State) -> bool:
        """Make ``state`` the newest and forget what was undone; return False if nothing changed."""
        if state == self.state:
            return False
        self.states = [*self.states[: self.place + 1], state][-DEEPEST:]
        self.place = len(self.states) - 1
        return True

    @property
    def can_undo(self) -> bool:
        return self.place > 0

    @property
    def can_redo(self) -> bool:
        return self.place < len(self.states) - 1

    def undo(self) -> State:
        """Go one state back, if there is one."""
        self.place = max(self.place - 1, 0)
        return self.state

    def redo(self) -> State:
        """Go one state forward, if there is one."""
        self.place = min(self.place + 1, len(self.states) - 1)
        return self.state

    def faces(self) -> set[str]:
        """Return the keys of the latents that some state needs."""
        return {state.face for state in self.states} - {""}
