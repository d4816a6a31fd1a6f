"""Auxiliary weights by name: what measures, finds faces or reads words, and is not part of a model.

They are downloaded by ``latentedit model fetch NAME`` and in no other way. Their readers check them
by all digits of the SHA-256.
"""

from dataclasses import dataclass
from pathlib import Path

from latentedit.io.download import Download, verify


@dataclass(frozen=True, kw_only=True)
class Weights(Download):
    """Published weights of an auxiliary network."""

    sha256: str
    bytes: int
    use: str
    """What they are for."""
    digest: str
    """Who states the checksum."""
    folder: str = "weights"

    @property
    def megabytes(self) -> int:
        return round(self.bytes / 2**20)

    @property
    def advice(self) -> str:
        """How to get the file, for messages that name it."""
        return self.downloaded("it")

    def downloaded(self, what: str) -> str:
        """Say which command downloads ``what``."""
        size = f"{self.megabytes} MB" if self.megabytes else f"{self.bytes / 1024:.0f} KB"
        return f'"latentedit model fetch {self.name}" downloads {what} ({size})'


VGG16 = Weights(
    name="vgg16",
    file="vgg16-397923af.pth",
    address="https://download.pytorch.org/models/vgg16-397923af.pth",
    bytes=553_433_881,
    sha256="397923af8e79cdbb6a7127f12361acd7a2f83e06b05044ddf496e83de57a5bf0",
    digest="the first 8 digits are in torchvision's name of the file",
    licence="BSD 3-Clause; trained on ImageNet, whose terms may apply to the weights",
    source="LICENSE and README of pytorch/vision",
    use="LPIPS, a perceptual distance for inversions",
)
INCEPTION = Weights(
    name="inception",
    file="weights-inception-2015-12-05-6726825d.pth",
    address="https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/"
    "weights-inception-2015-12-05-6726825d.pth",
    bytes=95_628_359,
    sha256="6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2",
    digest="the first 8 digits are in torch-fidelity's name of the file",
    licence="Apache 2.0 (TensorFlow's weights, converted)",
    source="torch_fidelity/feature_extractor_inceptionv3.py of toshas/torch-fidelity",
    use="FID, KID and precision as published",
)
YUNET = Weights(
    name="yunet",
    file="face_detection_yunet_2023mar.onnx",
    address="https://github.com/opencv/opencv_zoo/raw/82b38c8f98e7b52aa171400f3e4c722352d0669f/"
    "models/face_detection_yunet/face_detection_yunet_2023mar.onnx",
    bytes=232_589,
    sha256="8f2383e4dd3cfbb4553ea8718107fc0423210dc964f9f4280604804ed2552fa4",
    digest="the file's Git LFS pointer in opencv/opencv_zoo",
    licence="MIT",
    source="models/face_detection_yunet of opencv/opencv_zoo",
    use="a face detector, for --face-detector yunet",
)
CLIP = Weights(
    name="clip",
    file="ViT-B-32.pt",
    address="https://openaipublic.azureedge.net/clip/models/"
    "40d365715913c9da98579312b702a82c18be219cc2a73407c4526f58eba950af/ViT-B-32.pt",
    bytes=353_976_522,
    sha256="40d365715913c9da98579312b702a82c18be219cc2a73407c4526f58eba950af",
    digest="part of the address that clip/clip.py of openai/CLIP gives",
    licence="MIT",
    source="LICENSE of openai/CLIP",
    use="CLIP (ViT-B/32), which compares images with words",
)
WEIGHTS = {one.name: one for one in (VGG16, INCEPTION, YUNET, CLIP)}


def fetched(weights: Weights, elsewhere: Path | None = None) -> Path | None:
    """Return the file of ``weights``, or None if it is not on this machine; nothing is downloaded.

    Args:
        elsewhere: where other programs keep it, such as torch hub's cache.
    """
    if weights.path.is_file():
        return weights.path
    return elsewhere if elsewhere is not None and elsewhere.is_file() else None


def by_name(text: str) -> Path | None:
    """Return the verified file of the weights called ``text``; None if the name is unknown or the
    file is not here.

    Raises:
        Error: the file is not the published one.
    """
    weights = WEIGHTS.get(text)
    if weights is None or not weights.path.is_file():
        return None
    verify(weights)
    return weights.path
