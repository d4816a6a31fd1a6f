"""Words as the text transformer of CLIP reads them: byte pair encoding (Sennrich et al. 2016; as
Radford et al. 2019 apply it to bytes).
"""

import gzip
import html
import importlib.util
import os
import re
from collections.abc import Sequence
from functools import cached_property
from itertools import pairwise
from pathlib import Path

import torch
from torch import Tensor

from latentedit.errors import ArgumentError, FormatError, NotFoundError, quoted

FILE = "bpe_simple_vocab_16e6.txt.gz"
"""Name of the published list of merges."""
LARGEST = 1 << 24
"""Bytes of a list of merges that are read; the published one has 3 MB."""
START = "<|startoftext|>"
END = "<|endoftext|>"
_WORDS = re.compile(r"'s|'t|'re|'ve|'m|'ll|'d|[^\W\d_]+|\d|(?:[^\s\w]|_)+")


def find_vocabulary(weights: str | os.PathLike[str]) -> Path:
    """Return the list of merges for CLIP weights: in their folder, or of an installed open_clip.

    Raises:
        Error: there is none.
    """
    folder = Path(weights) if os.path.isdir(weights) else Path(weights).parent
    places = [folder / "merges.txt", folder / FILE] if os.path.isdir(weights) else [folder / FILE]
    package = importlib.util.find_spec("open_clip")
    places += [
        Path(place) / FILE for place in (package and package.submodule_search_locations) or []
    ]
    for place in places:
        if place.is_file():
            return place
    raise NotFoundError(
        f"CLIP needs its list of word parts, {FILE}",
        advice="give it with `vocabulary`, put it beside the weights, or pip install"
        ' "latentedit[text]"',
    )


class Words:
    """Splits texts into the numbers of their parts.

    Args:
        path: the list of merges, a pair a line, the first line a title: CLIP's
            ``bpe_simple_vocab_16e6.txt.gz``, or ``merges.txt`` of Hugging Face's layout.
        count: size of the vocabulary, which is that of the network's embedding.

    Raises:
        Error: no such file, another kind of file, or fewer merges than the vocabulary needs.
    """

    def __init__(self, path: str | os.PathLike[str], count: int) -> None:
        symbols = list(_byte_letters().values())
        needed = count - 2 * len(symbols) - 2
        self.path = Path(path)
        lines = _lines(self.path)[1:]
        pairs = [tuple(line.split(" ")) for line in lines[: max(needed, 0)]]
        if needed < 0 or len(pairs) < needed or any(len(pair) != 2 for pair in pairs):
            raise FormatError(
                f"expected a list of at least {needed} merges, two words a line", path=path
            )
        names = [*symbols, *(f"{symbol}</w>" for symbol in symbols), *map("".join, pairs)]
        self.numbers = {name: number for number, name in enumerate([*names, START, END])}
        self.ranks = {pair: rank for rank, pair in enumerate(pairs)}
        self.letters = _byte_letters()

    def __call__(self, texts: Sequence[str], length: int) -> Tensor:
        """Return the numbers of every text's parts between those of start and end, ``[N, length]``.

        Raises:
            Error: a text of more parts.
        """
        rows = torch.zeros(len(texts), length, dtype=torch.long)
        for row, text in zip(rows, texts, strict=True):
            parts = [self.numbers[START], *self.parts(text), self.numbers[END]]
            if len(parts) > length:
                raise ArgumentError(
                    f"the text {quoted(text)} has {len(parts) - 2} word parts; CLIP reads at most "
                    f"{length - 2}"
                )
            row[: len(parts)] = torch.tensor(parts)
        return rows

    def parts(self, text: str) -> list[int]:
        """Return the numbers of the parts of ``text``, in lower case and with single spaces."""
        plain = " ".join(html.unescape(html.unescape(text)).lower().split())
        found = []
        for word in _WORDS.findall(plain):
            letters = [self.letters[byte] for byte in word.encode()]
            found += [self.numbers[part] for part in self._merged(letters)]
        return found

    def _merged(self, letters: list[str]) -> list[str]:
        """Join the pair of the lowest rank, everywhere, until no pair is in the list."""
        parts = [*letters[:-1], f"{letters[-1]}</w>"]
        while len(parts) > 1:
            pairs = set(pairwise(parts))
            best = min(pairs, key=lambda pair: self.ranks.get(pair, len(self.ranks)))
            if best not in self.ranks:
                break
            joined = []
            at = 0
            while at < len(parts):
                if tuple(parts[at : at + 2]) == best:
                    joined.append("".join(best))
                    at += 2
                else:
                    joined.append(parts[at])
                    at += 1
            parts = joined
        return parts

    @cached_property
    def end(self) -> int:
        return self.numbers[END]


def _byte_letters() -> dict[int, str]:
    """Return a printable letter for every byte: its own in Latin-1, or one from 256 on."""
    own = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in own]
    letters = {byte: chr(byte) for byte in own}
    return letters | {byte: chr(256 + number) for number, byte in enumerate(others)}


def _lines(path: Path) -> list[str]:
    try:
        with open(path, "rb") as file:
            packed = file.read(2) == b"\x1f\x8b"
        with gzip.open(path) if packed else open(path, "rb") as stream:
            data = stream.read(LARGEST + 1)
    except (OSError, EOFError) as error:
        if not path.is_file():
            raise NotFoundError("no such list of word parts", path=path) from error
        raise FormatError("not a list of word parts, or damaged", path=path) from error
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        raise FormatError("not a list of word parts: no text in UTF-8", path=path) from error
    if len(data) > LARGEST:
        raise FormatError("a list of word parts that is far too long", path=path)
    return text.splitlines()
