"""Clips: frames are read in order, the crop is steady, neighbours get similar latents, and edits
come back into the frames."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from latentedit.errors import Error
from latentedit.formats.load_latent import load_latent
from latentedit.inversion.clip import ClipOptions, TemporalChange, invert_clip
from latentedit.inversion.options import InversionOptions, ProjectorSettings
from latentedit.inversion.perceptual import DiscriminatorDistance
from latentedit.inversion.projector import Projector
from latentedit.io.clips import open_clip
from latentedit.io.video import save_video
from latentedit.latent.w_statistics import sample_z
from latentedit.photo.alignment import quad_of_window
from latentedit.photo.tracking import quad_of_square, squares, steady, track_face
from tests.helpers import complaint, hopper, tiny_discriminator, tiny_generator, works


@pytest.fixture(scope="module")
def projector() -> Projector:
    perceptual = DiscriminatorDistance(tiny_discriminator())
    return Projector(tiny_generator(), ProjectorSettings(perceptual, cache=False))


def moving(projector: Projector, count: int = 5) -> Iterator[torch.Tensor]:
    """Noisy pictures along a way in w."""
    generator = projector.generator
    ends = generator.mapping(sample_z(0, 12, 2))
    draws = torch.Generator().manual_seed(1)
    for number in range(count):
        ws = torch.lerp(ends[:1], ends[1:], 0.1 * number)
        picture = generator.synthesis(ws)
        yield picture + 0.2 * torch.randn(picture.shape, generator=draws)


def test_neighbours_get_similar_latents(projector: Projector) -> None:
    """Linked, w changes much less from frame to frame, and the pictures change less, too."""
    means = {}
    for linked in (True, False):
        change = TemporalChange(projector.statistics)
        search = InversionOptions(steps=20, noise="frozen")
        options = ClipOptions(search, later_steps=20, linked=linked)
        for found in invert_clip(projector, moving(projector), options):
            change.add(found.ws, found.image)
        assert len(change.of_w) == 4
        means[linked] = change.means
    assert means[True][0] < 0.5 * means[False][0]
    assert means[True][1] < means[False][1]


def test_a_strong_neighbour_holds_w(projector: Projector) -> None:
    search = InversionOptions(steps=6, noise="frozen", neighbour_weight=1e5)
    first, second = invert_clip(projector, moving(projector, 2), ClipOptions(search, 6))
    assert torch.allclose(first.ws, second.ws, atol=0.05)
    free = InversionOptions(steps=6, noise="frozen", neighbour_weight=0)
    first, second = invert_clip(projector, moving(projector, 2), ClipOptions(free, 6))
    assert not torch.allclose(first.ws, second.ws, atol=0.05)
    with pytest.raises(Error, match=r"neighbour must have shape \[1, 6, 12\]"):
        projector.invert(torch.zeros(1, 1, 16, 16), free, neighbour=torch.zeros(1, 12))
    with pytest.raises(Error, match="later_steps must be at least 1"):
        ClipOptions(later_steps=0)
    with pytest.raises(Error, match="needs at least 2 frames"):
        _ = TemporalChange(projector.statistics).means


def test_change_is_measured() -> None:
    """Of frames that differ by one standard deviation in every direction, and by half the range."""
    statistics = Projector(tiny_generator(), ProjectorSettings(cache=False)).statistics
    change = TemporalChange(statistics)
    ws = statistics.mean.expand(1, 6, -1)
    change.add(ws, torch.full((1, 1, 16, 16), -1.0))
    change.add(ws + torch.ones(12) @ statistics.colouring, torch.zeros(1, 1, 16, 16))
    assert change.means == pytest.approx((1.0, 0.5), abs=1e-3)


def test_crops_are_steady() -> None:
    quads = [quad_of_window(10.0 + n, 20.0, 40.0) for n in range(30)]
    for quad in quads:
        assert np.allclose(quad_of_square(squares([quad])[0]), quad)
    draws = np.random.RandomState(0)
    shaky = [quad_of_window(x + draws.randn(), y + draws.randn(), 40.0) for (x, y), *_ in quads]
    smooth = np.array(steady(shaky, 3.0))
    jump = np.abs(np.diff(np.array(shaky), axis=0)).mean()
    assert np.abs(np.diff(smooth, axis=0) - [1.0, 0.0]).mean() < 0.3 * jump
    missing = [None if n in (4, 5, 29) else quad for n, quad in enumerate(quads)]
    filled = steady(missing, 0.0)
    assert np.allclose(filled[:29], quads[:29])
    assert np.allclose(filled[29], quads[28])
    with pytest.raises(Error, match="the face was found in 1 of 3 frames"):
        steady([quads[0], None, None])
    # Half a turn is not a jump.
    turned = [quad_of_square((0, 0, 3, angle)) for angle in (3.1, 3.2, 3.3)]
    assert np.allclose(np.diff(squares(turned)[:, 3]), 0.1)


def test_the_face_is_followed() -> None:
    with Image.open(hopper()) as file:
        photo = file.convert("RGB")
    frames = [
        photo,
        Image.new("RGB", photo.size),
        photo.transform(photo.size, Image.Transform.AFFINE, (1, 0, -20, 0, 1, 0)),
    ]
    framing = {"kind": "face", "eyes": [[0.36, 0.47], [0.63, 0.47]]}
    found = list(track_face(frames, framing))
    assert found[1] is None
    first, last = np.array(found[0]), np.array(found[2])
    assert np.allclose(last - first, [20, 0], atol=6)
    with pytest.raises(Error, match="no face found"):
        list(track_face([frames[1]], framing))


def test_frames_are_read_in_order(tmp_path: Path) -> None:
    pictures = [Image.new("RGB", (320, 256), (20 * n, 0, 200 - 20 * n)) for n in range(11)]
    (tmp_path / "frames").mkdir()
    for number, picture in enumerate(pictures):
        picture.save(tmp_path / "frames" / f"frame{number}.png")
    for name in ("a.mp4", "a.webm", "a.gif"):
        save_video(tmp_path / name, pictures, fps=10)
    for name in ("frames", "a.mp4", "a.webm", "a.gif"):
        clip = open_clip(tmp_path / name)
        reds = [float(np.asarray(frame)[..., 0].mean()) for frame in clip]
        assert reds == pytest.approx([20.0 * n for n in range(11)], abs=6), name
        assert len(list(clip)) == 11  # it can be read again
        assert clip.fps == pytest.approx(24 if name == "frames" else 10)


def test_what_is_no_clip(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "list.m3u8").write_text("#EXTM3U\n/etc/passwd\n")
    (tmp_path / "cut.mp4").write_bytes(b"\0\0\0\x18ftypmp42" + bytes(20))
    for name, message in (
        ("none", "no such file or folder"),
        ("empty", "no images in this folder"),
        ("list.m3u8", "not an image that Pillow can read"),
        ("cut.mp4", "a video that OpenCV cannot read"),
    ):
        with pytest.raises(Error, match=message):
            list(open_clip(tmp_path / name))
    for number, size in enumerate(((20, 20), (20, 21))):
        Image.new("RGB", size).save(tmp_path / "empty" / f"{number}.png")
    with pytest.raises(Error, match="its frames have different sizes"):
        list(open_clip(tmp_path / "empty"))


def test_nothing_is_printed_of_a_damaged_video(tmp_path: Path) -> None:
    """FFmpeg and OpenCV print on their own, past Python."""
    save_video(tmp_path / "a.mp4", [Image.new("RGB", (256, 256), (n, 0, 0)) for n in (9, 99, 199)])
    data = bytearray((tmp_path / "a.mp4").read_bytes())
    data[60:400] = bytes(340)
    (tmp_path / "b.mp4").write_bytes(data)
    (tmp_path / "c.mp4").write_bytes(data[:500])
    lines = (
        "import sys",
        "from latentedit.errors import Error",
        "from latentedit.io.clips import open_clip",
        "for name in sys.argv[1:]:",
        "    try: print(len(list(open_clip(name))))",
        "    except Error as error: print(error)",
    )
    program = [sys.executable, "-c", "\n".join(lines)]
    names = [str(tmp_path / name) for name in ("b.mp4", "c.mp4")]
    done = subprocess.run([*program, *names], capture_output=True, text=True, check=True)
    assert done.stderr == ""
    assert len(done.stdout.splitlines()) == 2


def test_a_clip_is_inverted_edited_and_written_back(
    tmp_path: Path, tiny_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    np.save("x.npy", np.eye(12)[0])
    model = ("--model", tiny_file)
    works("directions", "import", "x.npy", *model, "--out", "x.safetensors")
    Path("clip").mkdir()
    y, x = np.mgrid[0:60, 0:80]
    for number in range(3):
        pixels = 128 + 100 * np.sin((x + number) / 13) * np.cos(y / 14)
        Image.fromarray(pixels.astype(np.uint8)).save(f"clip/{number}.png")
    short = ("--steps", "4", "--later-steps", "2", "--crop", "10,8,40")
    said = works("video", "invert", "clip", *short, *model, "--out", "latents").stdout
    assert "from frame to frame, w changes by" in said
    assert "wrote 3 latents into latents" in said
    names = [f"frame-{n:05d}.safetensors" for n in (1, 2, 3)]
    assert sorted(path.name for path in Path("latents").iterdir()) == names
    found = load_latent(Path("latents") / names[2])
    assert found.crop == quad_of_window(10, 8, 40)
    assert found.settings["frame"] == 3

    edit = ("video", "edit", "latents", *model, "--set", "x.safetensors=2", "--force")
    paste = ("--clip", "clip", "--difference")
    works(*edit, *paste, "--out", "edited")
    works(*edit, *paste, "--fps", "5", "--out", "edited.gif")
    works(*edit, "--out", "faces.gif")
    after = [np.asarray(Image.open(f"edited/{n:05d}.png")) for n in (1, 2, 3)]
    before = [np.asarray(Image.open(f"clip/{n}.png").convert("RGB")) for n in range(3)]
    for old, new in zip(before, after, strict=True):
        assert new.shape == old.shape
        changed = (new != old).reshape(60, 80, -1).any(axis=2)
        assert changed[8:48, 10:50].any()
        assert not changed[:8].any()
    with Image.open("edited.gif") as file, Image.open("faces.gif") as faces:
        assert (file.n_frames, file.info["duration"]) == (3, 200)  # type: ignore[attr-defined]
        assert faces.size == (256, 256)

    Image.new("L", (80, 60)).save("clip/9.png")
    assert "has more frames than latents" in complaint(*edit, *paste, "--out", "more.gif")
    assert "needs --clip" in complaint(*edit, "--difference", "--out", "more.gif")
    assert "has latents of frames" in complaint(
        "video", "invert", "clip", *model, "--out", "latents"
    )
    assert "no latents of frames" in complaint("video", "edit", "clip", *model, "--out", "more.gif")
    absolute = ("video", "edit", "latents", *model, "--set", "x.safetensors=:2")
    assert "a score would differ from frame to frame" in complaint(*absolute, "--out", "more.gif")
    assert not Path("more.gif").exists()
