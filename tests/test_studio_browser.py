"""The studio as a person uses it, in headless Chromium, and as strangers try it, over the
network."""

import contextlib
import http.client
import re
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from latentedit.directions import Direction
from latentedit.directions.sigma import measure_sigma
from latentedit.formats.load_model import load_model
from latentedit.inversion.preconditioner import Curvature
from latentedit.inversion.projector import Projector
from latentedit.io.images import note_of, open_image
from latentedit.latent.latent_file import Latent, save_latent
from latentedit.model.model import Model
from latentedit.model.native import save_model
from latentedit.networks.fingerprint import fingerprint
from latentedit.photo.framing import FRAMINGS
from latentedit.studio.web.server import STRANGERS
from tests.helpers import hopper, tiny_discriminator, tiny_generator
from tests.web import PATIENCE, Served, browser, served

SHAPE = {"resolution": 16, "channels": 3, "channel_base": 128}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the file of a small network, a user's folder of three sliders for it, and a
    photo."""
    folder = tmp_path_factory.mktemp("studio")
    generator = tiny_generator(z_dim=16, w_dim=16, **SHAPE)
    model = Model(generator, tiny_discriminator(**SHAPE), FRAMINGS["ffhq"], {"licence": "none"})
    # A model that ships brings its curvature; to measure it here would be half of the search.
    projector = Projector(model)
    model.curvature = Curvature.of(generator, projector.loss(), projector.statistics, probes=8)
    save_model(folder / "model.safetensors", model)
    draws = torch.Generator().manual_seed(0)
    for name in ("smile", "turn", "beard"):
        vector = torch.nn.functional.normalize(torch.randn(generator.w_dim, generator=draws), dim=0)
        direction = Direction(
            name, vector, 0.0, measure_sigma(vector, generator), fingerprint(generator)
        )
        direction.save(folder / "directions" / f"{name}.safetensors")
    open_image(hopper()).save(folder / "grace.jpg")
    return folder


def studio(place: Path, out: Path, *arguments: object) -> Any:
    options = ["--model", place / "model.safetensors", "--out", out, "--no-browser", *arguments]
    return served(
        "studio", *options, cwd=out.parent, LATENTEDIT_DIRECTIONS=str(place / "directions")
    )


@pytest.fixture(scope="module")
def server(place: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A studio that several tests share; each has a page of its own, and begins with a random
    face."""
    with studio(place, tmp_path_factory.mktemp("shared") / "out") as found:
        yield found


class Person:
    """Somebody in front of a page."""

    def __init__(self, context: Any, address: str) -> None:
        from playwright.sync_api import expect

        self.expect = expect
        self.page = context.new_page()
        self.problems: list[str] = []
        self.urls: list[str] = []
        self.page.on(
            "console",
            lambda message: self.problems.append(message.text) if message.type == "error" else None,
        )
        self.page.on("pageerror", lambda error: self.problems.append(str(error)))
        self.page.on("request", lambda request: self.urls.append(request.url))
        self.page.goto(address)
        self.expect(self.page.locator(".app")).to_be_visible()

    def press(self, name: str) -> None:
        self.page.get_by_role("button", name=name, exact=True).click()

    def sees(self, text: str) -> None:
        self.expect(self.page.get_by_text(text).first).to_be_visible()

    def begins(self) -> None:
        """Have a random face open, and its sliders at rest."""
        self.page.wait_for_function("window.socket && window.socket.connected")
        if self.page.get_by_role("button", name="Start with a random face").is_visible():
            self.press("Start with a random face")
        self.mode("edit")
        self.expect(self.slider("smile")).to_be_visible()
        self.page.wait_for_function("studio.drawn.length > 0")

    def mode(self, name: str) -> None:
        self.page.locator(f"nav button[data-mode={name}]").click()

    def slider(self, name: str) -> Any:
        return self.page.locator(f'.slider[data-name="{name}"] input[type=range]')

    @property
    def picture(self) -> str:
        return str(self.page.locator("#after").get_attribute("src"))

    def waits_for_another(self, than: str) -> None:
        self.expect(self.page.locator("#after")).not_to_have_attribute("src", than)

    def amount(self, name: str) -> Any:
        return self.page.locator(f'.slider[data-name="{name}"] output')


def test_a_new_user_saves_a_smile_and_loses_nothing(place: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with browser() as context:
        with studio(place, out) as first:
            person = Person(context, first.address)
            page, expect = person.page, person.expect
            expect(page).to_have_url(first.address.partition("?")[0])
            page.locator("#file").set_input_files(place / "grace.jpg")
            person.sees("Is the crop right?")
            expect(page.locator("#crop .chosen")).to_be_visible()
            page.locator("#crop .crop").focus()
            before = page.locator("#crop .chosen").get_attribute("points")
            page.keyboard.press("ArrowLeft")
            expect(page.locator("#crop .chosen")).not_to_have_attribute("points", before)
            person.press("Find this face")
            # The search may end before it is looked at, or at this moment.
            stop = page.get_by_role("button", name="Stop, keep the best so far")
            expect(stop.or_(person.slider("smile")).filter(visible=True).first).to_be_visible()
            with contextlib.suppress(Exception):
                page.get_by_alt_text("The picture that the search has found so far").wait_for(
                    timeout=3000
                )
                stop.click(timeout=1000)
            expect(person.slider("smile")).to_be_visible()
            page.wait_for_function("studio.drawn.length > 0")

            plain = person.picture
            person.slider("smile").focus()
            page.keyboard.press("PageUp")
            expect(person.amount("smile")).to_have_text(re.compile(r"^\+\d"))
            person.waits_for_another(plain)
            amount = person.amount("smile").inner_text()

            page.keyboard.down("b")
            expect(page.locator("#frame")).to_have_class("frame held")
            expect(page.locator("#before")).to_have_attribute("src", plain)
            page.keyboard.up("b")
            expect(page.locator("#frame")).to_have_class("frame")
            page.keyboard.press("d")
            expect(page.locator("#divider")).to_be_visible()
            page.keyboard.press("ArrowLeft")
            expect(page.locator("#divider")).to_have_attribute("aria-valuenow", "48")
            page.locator(".segments label").filter(has_text="Photo").click()
            expect(page.get_by_alt_text("Your photo", exact=True).last).to_be_visible()
            expect(page.locator("#before")).not_to_have_attribute("src", plain)

            person.slider("turn").focus()
            page.keyboard.press("l")
            expect(person.slider("turn")).to_be_disabled()
            page.keyboard.press("Control+z")
            expect(person.slider("turn")).to_be_enabled()
            page.keyboard.press("Control+z")
            expect(person.amount("smile")).to_have_text("0")
            page.keyboard.press("Control+Shift+z")
            expect(person.amount("smile")).to_have_text(amount)

            page.keyboard.press("Control+s")
            command = re.compile(r"latentedit edit out/\.studio/.*--set smile=")
            expect(page.locator("#command")).to_have_value(command)
            person.press("Picture")
            person.sees("Saved grace-smile.png")
            assert note_of(out / "grace-smile.png").startswith("Rendered by latentedit")
            assert open_image(out / "grace-smile.png").size == (16, 16)
            assert not person.problems, person.problems
            first.kill()

        with studio(place, out) as second:
            person = Person(context, second.address)
            person.sees("You were editing grace")
            person.press("Continue")
            person.expect(person.amount("smile")).to_have_text(amount)
            assert not person.problems, person.problems


def test_a_latent_file_is_dropped_and_another_models_is_refused(
    server: Served, place: Path, tmp_path: Path
) -> None:
    generator = load_model(place / "model.safetensors").generator
    ws = torch.zeros(1, generator.num_ws, generator.w_dim)
    save_latent(tmp_path / "mine.safetensors", Latent(ws, None, fingerprint(generator), "w"))
    save_latent(tmp_path / "other.safetensors", Latent(ws, None, "f" * 64, "w"))
    with browser() as context:
        person = Person(context, server.address)
        person.page.wait_for_function("window.socket && window.socket.connected")
        person.page.locator("#file").set_input_files(tmp_path / "mine.safetensors")
        person.expect(person.page.locator(".face-name")).to_have_text("mine")
        person.expect(person.slider("smile")).to_be_visible()
        person.page.locator("#file").set_input_files(tmp_path / "other.safetensors")
        words = "other.safetensors: this latent belongs to the generator"
        person.expect(person.page.locator(".toast.bad").last).to_contain_text(words)


def test_files_that_are_no_photos_are_refused_in_words(server: Served, tmp_path: Path) -> None:
    (tmp_path / "broken.jpg").write_bytes(b"\xff\xd8\xff" + b"\0" * 500)
    (tmp_path / "notes.png").write_text("no picture")
    (tmp_path / "large.jpg").write_bytes(b"\0" * (41 * 2**20))
    with browser() as context:
        person = Person(context, server.address)
        person.page.wait_for_function("window.socket && window.socket.connected")
        for name, words in (
            ("broken.jpg", "broken.jpg: "),
            ("notes.png", "notes.png: "),
            ("large.jpg", "at most 40 MB"),
        ):
            person.page.locator("#file").set_input_files(tmp_path / name)
            person.expect(person.page.locator(".toast.bad").last).to_contain_text(words)
            assert "/" not in person.page.locator(".toast.bad").last.inner_text()


def test_nothing_comes_from_elsewhere_and_the_policy_holds(server: Served) -> None:
    with browser() as context:
        person = Person(context, server.address)
        person.begins()
        for mode in ("faces", "mix", "grid", "paste", "discover", "edit"):
            person.mode(mode)
        own = f"http://127.0.0.1:{server.port}/"
        assert all(url.startswith((own, "data:", "blob:")) for url in person.urls), person.urls
        assert not person.problems, person.problems
        assert server.secret not in person.page.content()
        assert person.page.evaluate("document.cookie") == ""
        strange = context.browser.new_context()
        strange.set_default_timeout(1000 * PATIENCE)
        stranger = strange.new_page()
        answer = stranger.goto(server.address.partition("?")[0])
        assert answer.status == 403
        assert "the key to this page" in stranger.content()


def test_another_page_of_the_same_browser_cannot_use_the_cookie(
    server: Served, place: Path
) -> None:
    """It is of the same host, so that its requests would be of the same site."""
    with browser() as context:
        person = Person(context, server.address)
        person.begins()
        evil = context.new_page()
        evil.route(
            "http://127.0.0.1:1/",
            lambda route: route.fulfill(body="<h1>evil</h1>", content_type="text/html"),
        )
        evil.goto("http://127.0.0.1:1/")
        place_ = server.address.partition("?")[0]
        tried = """async (place) => {
          const found = [];
          const post = {method: "POST", body: "x"};
          for (const [path, options] of [["", {}], ["upload", post], ["label/undo", post]]) {
            try {
              const all = {credentials: "include", mode: "no-cors", ...options};
              found.push((await fetch(place + path, all)).type);
            } catch { found.push("failed"); }
          }
          const end = "_nicegui_ws/socket.io/?EIO=4&transport=websocket";
          const socket = new WebSocket(place.replace("http", "ws") + end);
          found.push(await new Promise((done) => {
            socket.onopen = () => done("open");
            socket.onerror = () => done("failed");
          }));
          return found;
        }"""
        found = evil.evaluate(tried, place_)
        assert found[-1] == "failed"
        assert set(found[:-1]) <= {"failed", "opaque"}
        assert (
            evil.evaluate(
                "async (place) => await fetch(place).then(() => 'read', () => 'failed')", place_
            )
            == "failed"
        )


def raw(server: Served, path: str, method: str = "GET", **headers: str) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
    try:
        given = {
            **server.headers,
            **{name.replace("_", "-"): value for name, value in headers.items()},
        }
        connection.request(
            method, path, headers={name: value for name, value in given.items() if value}
        )
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def test_no_path_reaches_a_file(server: Served) -> None:
    for path in (
        *(
            "/file/0",
            "/file/-1",
            "/file/../../etc/passwd",
            "/file/%2e%2e%2fmodel.safetensors",
            "/static/../server.py",
        ),
        *(
            "/static/%2e%2e/app.py",
            "/static//etc/passwd",
            "/_nicegui/x",
            "/.studio/session.json",
            "/session.json",
        ),
    ):
        status, body = raw(server, f"{server.place}{path}")
        assert status in (403, 404, 405), path
        assert b"root:" not in body
        assert b"from latentedit" not in body


def test_what_is_no_page_of_the_studio_gets_nothing(server: Served) -> None:
    upgrade = {
        "Connection": "Upgrade",
        "Upgrade": "websocket",
        "Sec_WebSocket_Version": "13",
        "Sec_WebSocket_Key": "a" * 22 + "==",
    }
    socket_path = f"{server.place}/_nicegui_ws/socket.io/?EIO=4&transport=websocket"
    assert raw(server, f"{server.place}/")[0] == 200
    assert raw(server, f"{server.place}/", Host="evil.example")[0] == 403
    assert raw(server, f"{server.place}/upload", "POST", Origin="http://evil.example")[0] == 403
    assert raw(server, socket_path, Origin="http://evil.example", **upgrade)[0] == 403
    assert raw(server, socket_path, Host="evil.example", **upgrade)[0] == 403
    assert raw(server, socket_path, Cookie="", **upgrade)[0] == 403
    assert raw(server, f"{server.place}/docs")[0] == 404
    # As long polling, the other way of socket.io.
    polling = f"{server.place}/_nicegui_ws/socket.io/?EIO=4&transport=polling"
    assert raw(server, polling, Origin="http://evil.example")[0] == 403
    assert raw(server, polling, Cookie="")[0] == 403


def test_an_endless_upload_is_cut(server: Served) -> None:
    with socket.create_connection(("127.0.0.1", server.port), 60) as connection:
        head = "".join(f"{name}: {value}\r\n" for name, value in server.headers.items())
        request = (
            f"POST {server.place}/upload HTTP/1.1\r\nHost: "
            f"127.0.0.1:{server.port}\r\n{head}Transfer-Encoding: chunked\r\n\r\n"
        )
        connection.sendall(request.encode())
        piece = b"100000\r\n" + b"\0" * 2**20 + b"\r\n"
        answer = b""
        try:
            for _ in range(45):
                connection.sendall(piece)
            answer = connection.recv(100)
        except OSError:  # cut while it was being sent
            answer = b"HTTP/1.1 413"
    assert answer.startswith((b"HTTP/1.1 413", b"HTTP/1.1 422"))


def test_strangers_that_say_nothing_do_not_keep_the_owner_out(server: Served) -> None:
    idle = [socket.create_connection(("127.0.0.1", server.port), 10) for _ in range(STRANGERS + 9)]
    try:
        assert raw(server, f"{server.place}/")[0] == 200
    finally:
        for connection in idle:
            connection.close()


def test_a_slider_is_found_by_labelling(server: Served) -> None:
    with browser() as context:
        person = Person(context, server.address)
        person.begins()
        page, expect = person.page, person.expect
        person.mode("discover")
        page.locator("#attribute").fill("hat")
        person.press("Label faces")
        expect(page.locator("#question")).to_have_text("hat?")
        for number in range(12):
            expect(page.locator("#count-left")).to_have_text(str(120 - number))
            expect(page.locator("#yes")).to_be_enabled()
            page.keyboard.press("j" if number % 3 else "f")
        expect(page.locator("#count-left")).to_have_text("108")
        page.keyboard.press("u")
        expect(page.locator("#count-left")).to_have_text("109")
        person.press("Make the slider")
        person.sees("Hat is a slider now")
        person.sees("AUC on held-out answers")
        person.press("Try it")
        plain = person.picture
        person.slider("hat").focus()
        page.keyboard.press("PageUp")
        person.waits_for_another(plain)

        person.mode("discover")
        person.press("Find by SeFa")
        page.locator("#component-name").fill("drift")
        person.press("Save under this name")
        person.sees("Drift is among your sliders now.")
        person.mode("edit")
        expect(person.slider("drift")).to_be_visible()
        assert not person.problems, person.problems


def test_faces_are_mixed_and_drawn_as_a_grid(server: Served) -> None:
    with browser() as context:
        person = Person(context, server.address)
        person.begins()
        page, expect = person.page, person.expect
        for seed in (3, 7):
            person.mode("faces")
            page.get_by_role("button", name=f"Edit the face of seed {seed}").click()
            expect(page.locator(".face-name")).to_have_text(f"face-{seed}")
        person.mode("mix")
        expect(page.get_by_role("button", name="Mix with face-3").first).to_be_visible()
        image = page.get_by_alt_text("The mixture of both faces")
        expect(image).to_have_attribute("src", re.compile("^data:"))
        page.locator("section[aria-label=Mix] input[type=range]").press("End")
        person.press("Edit this mixture")
        expect(person.slider("smile")).to_be_visible()
        person.mode("grid")
        page.get_by_label("Down").select_option("turn")
        person.press("Draw")
        expect(page.locator(".table .tile")).to_have_count(25)
        person.press("Save as picture")
        person.sees("-smile-turn.png")
        page.get_by_role("button", name="Edit Smile +2.0, Turn -1.0").click()
        expect(person.amount("smile")).to_have_text("+2")
        expect(person.amount("turn")).to_have_text("\u22121")
        assert not person.problems, person.problems


CONTRAST = """() => {
  const canvas = document.createElement("canvas").getContext("2d", {willReadFrequently: true});
  const parsed = (colour) => {
    canvas.clearRect(0, 0, 1, 1); canvas.fillStyle = colour; canvas.fillRect(0, 0, 1, 1);
    const [r, g, b, a] = canvas.getImageData(0, 0, 1, 1).data;
    return [r, g, b, a / 255];
  };
  const light = ([r, g, b]) => {
    const linear = (v) => v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
    const [x, y, z] = [r, g, b].map((v) => linear(v / 255));
    return 0.2126 * x + 0.7152 * y + 0.0722 * z;
  };
  const over = (top, below) => [0, 1, 2].map((i) => top[i] * top[3] + below[i] * (1 - top[3]));
  const found = [];
  for (const element of document.querySelectorAll("body *")) {
    const written = (node) => node.nodeType === 3 && node.textContent.trim();
    const own = [...element.childNodes].some(written);
    if (!own || !element.checkVisibility({visibilityProperty: true})) continue;
    if (element.closest(".unseen, .veil, :disabled, #popup, .skip")) continue;
    if (element.matches("option, script, style")) continue;
    const style = getComputedStyle(element);
    const layers = [];
    for (let up = element; up; up = up.parentElement) {
      layers.push(parsed(getComputedStyle(up).backgroundColor));
    }
    let back = [255, 255, 255];
    for (const layer of layers.reverse()) back = over(layer, back);
    const ink = over(parsed(style.color), back);
    const [a, b] = [light(ink), light(back)].sort((x, y) => y - x);
    const ratio = (a + 0.05) / (b + 0.05), size = parseFloat(style.fontSize);
    const needed = size >= 24 || (size >= 18.66 && +style.fontWeight >= 700) ? 3 : 4.5;
    const said = element.textContent.trim().slice(0, 30);
    const name = `${element.tagName}.${element.className}`;
    if (ratio < needed) found.push(`${name} "${said}" ${ratio.toFixed(2)}`);
  }
  return found;
}"""
NAMELESS = """() => [...document.querySelectorAll(
  "button, input, select, textarea, [role=slider], img"
)].filter((element) => {
  if (!element.checkVisibility({visibilityProperty: true})) return false;
  const labels = [...(element.labels || [])].map((label) => label.textContent).join("");
  const text = element.getAttribute("aria-label") || labels || element.textContent
    || element.getAttribute("alt");
  return element.tagName === "IMG" ? element.getAttribute("alt") === null : !(text || "").trim();
}).map((element) => element.outerHTML.slice(0, 120))"""
SMALL = """() => [...document.querySelectorAll(
  "button, select, input:not([type=range])"
)].filter((element) => {
  const box = element.getBoundingClientRect();
  return element.checkVisibility({visibilityProperty: true})
    && box.width && Math.min(box.width, box.height) < 24
    && !element.closest("label");
}).map((element) => element.outerHTML.slice(0, 120))"""


CHECKS = (CONTRAST, NAMELESS, SMALL)


@pytest.mark.parametrize("width", [360, 1280, 3840])
def test_for_everyone(server: Served, width: int) -> None:
    """Contrast as WCAG AA asks, names for screen readers, targets of 24 pixels, and nothing beyond
    the edge of the page."""
    height = width * 9 // 16 if width > 1000 else 780
    with browser(viewport={"width": width, "height": height}) as context:
        person = Person(context, server.address)
        person.begins()
        page = person.page
        assert [faults(person, page, scheme, width) for scheme in ("light", "dark")] == [[], []]


def faults(person: Person, page: Any, scheme: str, width: int) -> list[tuple[str, Any]]:
    """Return what is wrong with the parts of the page in this colour scheme, each with its part."""
    found: list[tuple[str, Any]] = []
    # colours that change gradually would be measured on the way
    page.emulate_media(color_scheme=scheme, reduced_motion="reduce")
    page.wait_for_function(f"matchMedia('(prefers-color-scheme: {scheme})').matches")
    page.wait_for_function("!document.getAnimations().some((one) => one instanceof CSSTransition)")
    for mode in ("edit", "drag", "faces", "mix", "grid", "paste", "discover"):
        person.mode(mode)
        person.expect(page.locator(f"nav button[data-mode={mode}]")).to_have_attribute(
            "aria-current", "page"
        )
        found += [(mode, one) for check in CHECKS for one in page.evaluate(check)]
        wide = page.evaluate("document.documentElement.scrollWidth")
        found += [(mode, f"{wide} pixels wide")] if wide > width else []
    page.get_by_role("button", name="Keys (?)").click()
    found += [("keys", one) for one in page.evaluate(CONTRAST)]
    page.keyboard.press("Escape")
    return found


def test_points_are_dragged_by_mouse_and_by_key(server: Served) -> None:
    with browser() as context:
        person = Person(context, server.address)
        person.begins()
        page, expect = person.page, person.expect
        person.mode("drag")
        field = page.locator("#drag")
        expect(page.locator("#drag-image")).to_have_attribute("src", re.compile("^data:"))
        page.wait_for_function("document.querySelector('#drag-mask').width === 16")
        before = page.locator("#drag-image").get_attribute("src")
        expect(page.locator("#drag-go")).to_be_disabled()

        box = field.bounding_box()
        assert box is not None

        def at(x: float, y: float) -> tuple[float, float]:
            return box["x"] + (x + 0.5) / 16 * box["width"], box["y"] + (y + 0.5) / 16 * box[
                "height"
            ]

        page.mouse.click(*at(4, 4))
        page.mouse.click(*at(10, 4))
        field.focus()
        page.keyboard.press("ArrowRight")
        page.keyboard.press("Enter")
        page.keyboard.press("Enter")
        pairs = page.evaluate("studio.drag.pairs.map((pair) => [...pair.from, ...pair.to])")
        assert pairs == [pytest.approx([4, 4, 10, 4], abs=0.2), [9, 8, 9, 8]]
        page.get_by_text("Rectangle", exact=True).click()
        # by way of the server
        expect(page.locator("body")).to_have_attribute("data-drag-tool", "rectangle")
        page.mouse.move(*at(1, 1))
        page.mouse.down()
        page.mouse.move(*at(14, 10))
        page.mouse.up()
        expect(page.locator("#drag-mask")).to_have_class("on")

        page.locator("#drag-go").click()
        person.sees("pixels left:")
        command = page.locator("#drag-command").input_value()
        assert "--mask" in command
        assert "--from 9,8 --to 9,8" in command
        person.press("Undo (Ctrl+Z)")
        expect(page.locator("#drag-image")).to_have_attribute("src", before)
        assert person.problems == []


def test_everything_is_reached_by_tab_and_focus_is_seen(server: Served) -> None:
    with browser() as context:
        person = Person(context, server.address)
        person.begins()
        page = person.page
        page.locator("body").click(position={"x": 640, "y": 20})
        seen: list[str] = []
        for _ in range(60):
            page.keyboard.press("Tab")
            facts = page.evaluate(
                """() => { const e = document.activeElement, s = getComputedStyle(e);
                const name = e.getAttribute("aria-label") || e.id || e.textContent.trim();
                return [name, s.outlineStyle !== "none", e.tagName]; }"""
            )
            if facts[2] == "BODY":
                break
            assert facts[1], facts
            seen.append(facts[0])
        assert {
            "hold",
            "divide",
            "s-smile",
            "s-turn",
            "Lock Smile: other sliders leave it as it is",
        } <= set(seen), seen


def test_a_photo_can_be_given_on_the_command_line(place: Path, tmp_path: Path) -> None:
    Image.new("RGB", (64, 64), "white").save(tmp_path / "blank.png")
    with studio(place, tmp_path / "out", tmp_path / "blank.png") as server, browser() as context:
        person = Person(context, server.address)
        person.sees("Is the crop right?")
        person.sees("No face was found")
        person.press("Another photo")
        person.sees("Drop a photo of a face")
        out, err = server.interrupt()
        assert server.process.returncode == 0
        assert "the session is kept" in out + err
