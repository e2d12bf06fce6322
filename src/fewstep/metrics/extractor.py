"""Feature extractors by name: images in, the vectors that metrics compare out."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

import torch
from torch import Tensor

from fewstep import checks
from fewstep.errors import InputError, reason_of, unknown_name
from fewstep.metrics import foreign
from fewstep.metrics.classifier import load_classifier
from fewstep.metrics.moments import Moments
from fewstep.storage import check_readable

__all__ = ["NAMES", "Extractor", "features", "reference"]

EMBEDDED = "fashion-mnist"
NAMES = {
    EMBEDDED: "the embedded classifier: 64 features of grey images of 28×28 or 32×32 pixels",
    "torchscript:FILE": "a TorchScript module: float images [n, C, H, W] in [−1, 1] to features [n, d]; its method "
    "head, if it has one, takes these to logits",
    "dinov2:FOLDER": "DINOv2 as transformers saves it: the class token of RGB images",
    "inception:FILE": "Inception's 2048 features, those of the FID, with torch-fidelity's or pytorch-fid's weights",
}


@dataclass(frozen=True)
class Extractor:
    """Images to features.

    Attributes:
        name: as it was asked for, without the path.
        hash: the first 16 hexadecimal digits of the SHA-256 of the weights, and of a folder's ``config.json``.
        network: the function behind it.
        device: where it is called.
        head: the features to logits of classes, for the inception score; None where there are no classes.
    """

    name: str
    hash: str
    network: Callable[[Tensor], Tensor]
    device: torch.device = torch.device("cpu")
    head: Callable[[Tensor], Tensor] | None = None

    def __post_init__(self) -> None:
        """Check the attributes."""
        for name in ("name", "hash"):
            checks.instance(str, name, getattr(self, name), "give a word")
        checks.function("network", self.network, "give a function of images [n, C, H, W]")
        checks.check_callback("head", self.head)
        object.__setattr__(self, "device", checks.device("device", self.device, meta=True))

    @property
    def tag(self) -> str:
        """Name and hash: two results are comparable only if it is the same."""
        return f"{self.name}@{self.hash}"

    @torch.no_grad()
    def __call__(self, images: Tensor) -> Tensor:
        """Return the features float32 [n, d] of images [n, C, H, W] in [−1, 1], on the images' device.

        ``from_uint8`` makes such images. On a GPU convolutions are in full float32 meanwhile, not in TF32.

        Raises:
            InputError: if the images are of another type or size than the features need, or not finite.
        """
        if not isinstance(images, Tensor) or not images.is_floating_point() or images.ndim != 4:
            raise InputError("images must be a float tensor [n, C, H, W] in [−1, 1]: from_uint8(array) makes it.")
        if not bool(torch.isfinite(images).all()):
            raise InputError("an image holds NaN or infinity: leave it out, or sample it again.")
        try:
            made = self._asked(images)
        except torch.cuda.OutOfMemoryError as error:
            raise InputError(
                f"{len(images)} images do not fit in {self.device}'s memory: use smaller batches."
            ) from error
        except RuntimeError as error:
            raise InputError(
                f"the features {self.name!r} do not take images {tuple(images.shape)}: {reason_of(error, -1)}"
            ) from error
        if not isinstance(made, Tensor) or made.ndim != 2 or len(made) != len(images):
            shape = tuple(made.shape) if isinstance(made, Tensor) else type(made).__name__
            raise InputError(f"the features {self.name!r} are {shape}: they must be [n, d].")
        return made.to(images.device, torch.float32)

    def _asked(self, images: Tensor) -> Tensor:
        with _full_precision(self.device):
            return self.network(images.to(self.device, torch.float32))


@contextmanager
def _full_precision(device: torch.device) -> Iterator[None]:
    """Compute convolutions on a GPU in float32 throughout; how that is said depends on torch's version."""
    if device.type != "cuda":
        yield
        return
    conv = getattr(torch.backends.cudnn, "conv", None)
    newer = hasattr(conv, "fp32_precision")
    place, name, exact = (conv, "fp32_precision", "ieee") if newer else (torch.backends.cudnn, "allow_tf32", False)
    before = getattr(place, name)
    setattr(place, name, exact)
    try:
        yield
    finally:
        setattr(place, name, before)


def features(name: str, device: torch.device | str = "cpu") -> Extractor:
    """Return the features of that name, one of ``NAMES``, computed on ``device``.

    Nothing is downloaded: weights come with the package or from the path after the colon.

    Raises:
        InputError: if there are no such features, or the file is missing or damaged.
        MissingPackageError: if the features need a package that is not installed.
    """
    kind, _, path = checks.instance(str, "name", name, f"give one of {', '.join(NAMES)}").partition(":")
    place = checks.device("device", device, meta=True)
    if name == EMBEDDED:
        with resources.as_file(resources.files("fewstep.metrics") / "fashion_mnist") as folder:
            return embedded(folder, place)
    if kind in ("torchscript", "dinov2", "inception") and path:
        return Extractor(kind, file_hash(Path(path)), *getattr(foreign, kind)(Path(path), place))
    raise unknown_name("features", name, NAMES)


def reference(name: str = EMBEDDED) -> Moments:
    """Return the statistics of the training images that come with the package: of Fashion-MNIST's 60,000.

    Raises:
        InputError: if there are none of that name.
    """
    checks.as_word("reference", name, (EMBEDDED,))
    with resources.as_file(resources.files("fewstep.metrics") / "fashion_mnist" / "statistics.npz") as path:
        return Moments.load(path)


def file_hash(path: Path) -> str:
    """Return the first 16 hexadecimal digits of the SHA-256 of a file, or of weights and settings in a folder."""
    if path.is_dir():
        files = sorted(p for p in path.iterdir() if p.suffix == ".safetensors" or p.name == "config.json")
    else:
        files = [check_readable(path, "the file")]
    digest = hashlib.sha256()
    try:
        for file in files:
            with file.open("rb") as stream:
                while block := stream.read(1 << 20):
                    digest.update(block)
    except OSError as error:
        raise InputError(f"{str(path)!r} cannot be read: {error}.") from error
    if path.is_dir() and not any(file.suffix == ".safetensors" for file in files):
        raise InputError(f"there are no weights (.safetensors) in {str(path)!r}: save the model there first.")
    return digest.hexdigest()[:16]


def embedded(folder: Path, device: torch.device = Extractor.device) -> Extractor:
    """Return the features 'fashion-mnist' with the weights in ``folder``."""
    weights = folder / "classifier.safetensors"
    classifier = load_classifier(weights).to(device)
    return Extractor(EMBEDDED, file_hash(weights), classifier.features, device, classifier.head)
