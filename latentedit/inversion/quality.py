"""The usual choices of space, steps and tuning, by name."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Quality:
    """How much time an inversion may take, and what it aims at."""

    space: str
    """"w" or "w+"."""
    noise: str
    """"optimise" or "frozen"."""
    share: float
    """Of the method's usual number of steps."""
    tune_steps: int
    """Steps of pivotal tuning after the search; 0 for none."""

    def steps(self, method: str = "quasi-newton") -> int:
        """Return the number of steps for a method of `latentedit.inversion.options.STEPS`."""
        from latentedit.inversion.options import STEPS

        return round(STEPS[method] * self.share)


QUALITIES = {
    # All of the short search goes to w, where sliders find it.
    "fast": Quality("w+", "frozen", 0.3, 0),
    "balanced": Quality("w+", "optimise", 1.0, 0),
    # What w does not reach is left to the generator, which keeps the likeness through edits.
    "best": Quality("w+", "frozen", 1.0, 200),
}
"""From the fastest to the one most like the photo."""
USUAL = "balanced"
