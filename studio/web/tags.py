"""Plain HTML elements for NiceGUI pages; the studio's own style sheet draws them."""

from collections.abc import Callable
from typing import Any, Self

from nicegui.element import Element


class Tag(Element):
    """One HTML element with a text and attributes.

    Args:
        attributes: ``aria_label`` stands for ``aria-label``; True for an attribute without a value, None for none.
    """

    def __init__(self, tag: str, classes: str = "", text: str | None = None, **attributes: Any) -> None:
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
    return {_plain(name): value for name, value in attributes.items() if value is not None and value is not False}


def icon(name: str) -> Tag:
    """A drawn sign, silent for screen readers."""
    return Tag("span", f"icon icon-{name}", aria_hidden="true")


def button(text: str, handler: Callable[[], Any] | None = None, *, kind: str = "", sign: str = "", **attributes: Any) -> Tag:
    """A button with a text, and a sign before it."""
    made = Tag("button", f"button {kind}".strip(), type="button", **attributes)
    with made:
        if sign:
            icon(sign)
        Tag("span", "text", text)
    if handler is not None:
        made.click(handler)
    return made


def sign_button(sign: str, label: str, handler: Callable[[], Any] | None = None, **attributes: Any) -> Tag:
    """A button that shows a sign alone; ``label`` is its name."""
    attributes.setdefault("title", label)
    made = Tag("button", "sign", type="button", aria_label=label, **attributes)
    with made:
        icon(sign)
    if handler is not None:
        made.click(handler)
    return made
