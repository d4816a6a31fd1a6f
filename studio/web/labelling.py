"""Labelling on a page: one question, two keys."""

from nicegui import Client, app, ui

from latentedit.directions.labelling.desk import Desk
from latentedit.studio.web.questions import end_points
from latentedit.studio.web.server import STATIC, Studio
from latentedit.studio.web.tags import Tag, icon, sign_button

AUC = (
    "Area under the ROC curve on held-out answers. The page asks about the samples that the "
    "probe is least certain about, so"
    " its AUC on all samples is higher."
)
STYLES = (
    '<link rel="stylesheet" href="static/studio.css"><script src="static/studio.js"></script>'
    '<script src="static/drag.js"></script>'
    '<meta name="referrer" content="no-referrer">'
)


def question_form() -> None:
    """Draw the question; the page's script fills it, and sends the answers."""
    with Tag("div", "part question", data_label="true"):
        Tag("h1", id="question", aria_live="polite", text="…")
        with Tag("div", "card"):
            Tag("img", id="sample", alt="")
            Tag("p", "over empty", hidden=True, id="label-over")
        Tag("p", "soft small", "", id="label-file")
        with Tag("div", "answers"):
            for id_, value, text, key in (("no", "0", "No", "← F"), ("yes", "1", "Yes", "→ J")):
                with Tag("button", f"button {id_}", type="button", id=id_, data_value=value):
                    Tag("span", "text", text)
                    Tag("kbd", text=key, aria_hidden="true")
        with Tag("div", "row"):
            for id_, text, key in (("label-undo", "Undo", "U"), ("label-skip", "Skip", "S")):
                with Tag("button", "button quiet", type="button", id=id_):
                    Tag("span", "text", text)
                    Tag("kbd", "hide-small", key, aria_hidden="true")
            Tag("button", "button quiet", type="button", id="label-done", text="Done")
        with Tag(
            "div",
            "bar",
            id="label-bar",
            role="progressbar",
            aria_label="Labelled",
            aria_valuemin="0",
        ):
            Tag("span", "part-yes")
            Tag("span", "part-no")
        with Tag("div", "counts"):
            for name in ("yes", "no", "left"):
                with Tag("span", text=f"{name} "):
                    Tag("b", id=f"count-{name}", text="0")
            Tag(
                "span",
                "soft",
                id="label-auc",
                hidden=True,
                title=AUC,
            )
        Tag("p", "soft", "", id="label-message", role="status")


def build_labelling(studio: Studio, desk: Desk) -> None:
    """Register the page of ``directions label``, and its end points."""
    app.add_static_files("/static", STATIC, max_cache_age=60)
    end_points(app, lambda: desk, studio.finish)

    @ui.page("/", title=f"{desk.labelling.column}? - latentedit", response_timeout=30)
    def page(client: Client) -> None:
        ui.add_head_html(STYLES)
        with Tag("div", "app plain"):
            with Tag("header", "head"):
                with Tag("div", "brand"):
                    icon("mark")
                    Tag("span", "word", "latentedit")
                    Tag("span", "face-name", desk.labelling.column)
                Tag("div", "spring")
                theme = sign_button("theme", "Colours").classes("theme")
                theme.on("click", js_handler="() => studio.nextTheme()")
            with Tag("main", "main wide"), Tag("div", "stage"):
                question_form()
        Tag("div", "toasts", id="toasts")
        client.on_connect(lambda: client.run_javascript("studio.paint(); studio.label.open(true)"))
