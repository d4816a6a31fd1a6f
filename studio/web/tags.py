"""Plain HTML elements for NiceGUI pages; the studio's own style sheet draws them."""

import functools
from collections.abc import Callable, Iterable
from typing import Any, Self

from nicegui.element import Element


class Tag(Element):
    """One HTML element with a text and attributes.

    Args:
        attributes: ``aria_label`` stands for ``aria-label``; True for an attribute without a value,
            None for none.
    """

    def __init__(
        self, tag: str, classes: str = "", text: str | None = None, **attributes: Any
    ) -> None:
        super().__init__(tag)
        if classes:
            self.classes(classes)
        if text is not None:
            self._text = text
        self._props.update(_attributes(attributes))

    def say(self, text: str) -> Self:
        """Change the text."""
        if self._text != text:
            self._text = text
            self.update()
        return self

    def set(self, **attributes: Any) -> Self:
        """Change attributes; None removes one."""
        before = dict(self._props)
        self._props.update(_attributes(attributes))
        for name, value in attributes.items():
            if value is None or value is False:
                self._props.pop(_plain(name), None)
        if dict(self._props) != before:
            self.update()
        return self

    def show(self, on: bool) -> Self:
        """Show or hide it, from screen readers too."""
        return self.set(hidden=True if on is False else None)

    def click(self, handler: Callable[[], Any]) -> Self:
        """Call ``handler`` when it is clicked, or activated by key."""
        self.on("click", lambda _: handler(), js_handler="() => emit()")
        return self


def _plain(name: str) -> str:
    return name.rstrip("_").replace("_", "-")


def _attributes(attributes: dict[str, Any]) -> dict[str, Any]:
    return {
        _plain(name): value
        for name, value in attributes.items()
        if value is not None and value is not False
    }


def icon(name: str) -> Tag:
    """Return a drawn sign, silent for screen readers."""
    return Tag("span", f"icon icon-{name}", aria_hidden="true")


def button(
    text: str,
    handler: Callable[[], Any] | None = None,
    *,
    kind: str = "",
    sign: str = "",
    **attributes: Any,
) -> Tag:
    """Return a button with a text, and a sign before it."""
    made = Tag("button", f"button {kind}".strip(), type="button", **attributes)
    with made:
        if sign:
            icon(sign)
        Tag("span", "text", text)
    if handler is not None:
        made.click(handler)
    return made


def calls(function: Callable[..., Any], *arguments: Any) -> Callable[..., Any]:
    """Return a handler that calls ``function`` with ``arguments``, and what the event brings after
    them."""
    return functools.partial(function, *arguments)


def sign_button(
    sign: str, label: str, handler: Callable[[], Any] | None = None, **attributes: Any
) -> Tag:
    """Return a button that shows a sign alone; ``label`` is its name."""
    attributes.setdefault("title", label)
    made = Tag("button", "sign", type="button", aria_label=label, **attributes)
    with made:
        icon(sign)
    if handler is not None:
        made.click(handler)
    return made


def hint(text: str) -> Tag:
    """Return a small, quiet sentence."""
    return Tag("p", "soft small", text)


class Field:
    """A labelled input; ``handler`` is called with its value.

    Args:
        event: "input" for every change, "change" for the last.
        attributes: of the input.
    """

    def __init__(
        self,
        title: str,
        handler: Callable[[Any], None],
        *,
        tag: str = "input",
        event: str = "change",
        **attributes: Any,
    ) -> None:
        self.box = Tag("label", "field")
        with self.box:
            self.title = Tag("span", text=title)
            self.input = Tag(tag, **attributes)
        value = "+e.target.value" if attributes.get("type") == "range" else "e.target.value"
        self.input.on(event, lambda e: handler(e.args), js_handler=f"(e) => emit({value})")

    def options(self, pairs: Iterable[tuple[str, str]], chosen: str) -> None:
        """Offer (value, text) in a select."""
        self.input.clear()
        with self.input:
            for value, text in pairs:
                Tag("option", text=text, value=value, selected=True if value == chosen else None)


def text_field(title: str, handler: Callable[[Any], None], **attributes: Any) -> Field:
    """Return a line of text."""
    return Field(
        title,
        handler,
        event="input",
        type="text",
        spellcheck="false",
        autocomplete="off",
        **attributes,
    )


def range_field(
    title: str,
    handler: Callable[[Any], None],
    low: float,
    high: float,
    value: float,
    **options: Any,
) -> Field:
    """Return a plain slider."""
    options.setdefault("event", "input")
    options.setdefault("step", "0.01")
    return Field(
        title, handler, type="range", min=str(low), max=str(high), value=str(value), **options
    )


def choices(
    name: str,
    title: str,
    options: Iterable[tuple[str, str, str]],
    chosen: str,
    handler: Callable[[str], None],
) -> None:
    """Radio buttons as cards: key, title and text of each."""
    with Tag("div", "choices", role="radiogroup", aria_label=title):
        for key, heading, text in options:
            with Tag("label", "choice"):
                radio = Tag(
                    "input",
                    type="radio",
                    name=name,
                    value=key,
                    checked=True if key == chosen else None,
                )
                radio.on(
                    "change",
                    lambda e: handler(str(e.args)),
                    js_handler="(e) => emit(e.target.value)",
                )
                Tag("b", text=heading)
                Tag("span", text=text)


def command_box(place: str, rows: int) -> Tag:
    """Return a command line that can be copied."""
    Tag("h3", text="The same on the command line")
    box = Tag(
        "textarea",
        "code",
        rows=rows,
        readonly=True,
        id=place,
        aria_label="Command line",
        spellcheck="false",
    )
    button("Copy", sign="copy").on("click", js_handler=f"() => studio.copy('#{place}')")
    return box
