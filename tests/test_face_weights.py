"""What counts how much in a face crop."""

import pytest
import torch

from latentedit.inversion.face_weights import STRENGTH, at_size, face_weights
from latentedit.inversion.perceptual import DiscriminatorDistance, choose, distance
from latentedit.inversion.projector import invert
from latentedit.photo.framing import FRAMINGS
from tests.helpers import tiny_discriminator, tiny_generator


def test_the_face_counts_and_the_mean_is_one() -> None:
    weights = face_weights(FRAMINGS["ffhq"], 128)
    assert weights is not None
    assert weights.shape == (1, 1, 128, 128)
    assert float(weights.mean()) == pytest.approx(1, abs=1e-5)
    # FFHQ has the eyes at 0.475 of the height, the mouth at 0.74, both inside; the corners are
    # backdrop.
    for x, y in ((48, 61), (80, 61), (64, 95)):
        assert float(weights[0, 0, y, x] / weights[0, 0, 2, 2]) == pytest.approx(STRENGTH, rel=0.2)
    torch.testing.assert_close(weights, weights.flip(3))


def test_a_model_without_framing_weighs_all_pixels_the_same() -> None:
    assert face_weights(None, 64) is None
    assert face_weights({"kind": "none"}, 64) is None
    equal = face_weights(FRAMINGS["ffhq"], 64, strength=1.0)
    assert equal is not None
    torch.testing.assert_close(equal, torch.ones(1, 1, 64, 64))


def test_smaller_maps_keep_the_mean() -> None:
    weights = face_weights(FRAMINGS["ffhq"], 64)
    assert weights is not None
    assert float(at_size(weights, 8, 8).mean()) == pytest.approx(1, abs=1e-5)
    assert float(at_size(weights, 8, 8)[0, 0, 4, 4]) > float(at_size(weights, 8, 8)[0, 0, 0, 0])


def test_a_focus_of_ones_changes_no_distance_and_a_face_counts_more() -> None:
    discriminator, random = tiny_discriminator(), torch.Generator().manual_seed(0)
    image = torch.randn(1, 1, 16, 16, generator=random)
    backdrop, face = image.clone(), image.clone()
    backdrop[:, :, :3, :3] += 1
    face[:, :, 8:11, 7:10] += 1
    plain, ones = (
        DiscriminatorDistance(discriminator),
        DiscriminatorDistance(discriminator, torch.ones(1, 1, 16, 16)),
    )
    torch.testing.assert_close(plain.features(face), ones.features(face))
    focused = choose("discriminator", discriminator, focus=face_weights(FRAMINGS["ffhq"], 16))[0]
    assert focused.name != plain.name  # the cache of preconditioners goes by it

    def share(of: DiscriminatorDistance) -> float:
        far, near = (float(distance(of.features(x), of.features(image))) for x in (face, backdrop))
        return far / near

    assert isinstance(focused, DiscriminatorDistance)
    assert share(focused) > 1.2 * share(plain)


def test_a_search_with_focus_spends_its_effort_on_the_face() -> None:
    generator, random = tiny_generator(), torch.Generator().manual_seed(1)
    image = torch.randn(1, 1, 16, 16, generator=random).clamp(-1, 1)
    focus = torch.full((1, 1, 16, 16), 0.1)
    focus[:, :, 4:12, 4:12] = 3.7
    errors = []
    for weights in (None, focus):
        distance_ = DiscriminatorDistance(tiny_discriminator())
        found = invert(
            generator,
            image,
            "w+",
            40,
            perceptual=distance_,
            pixel_weight=100.0,
            noise="frozen",
            focus=weights,
        )
        errors.append((found.image_own_noise - image).square())
    plain, focused = (float(error[:, :, 4:12, 4:12].mean()) for error in errors)
    assert focused < plain
    assert found.settings["focus"] == "face"
