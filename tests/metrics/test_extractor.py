"""Features by name: the embedded classifier is a good one, and others' networks come from local files."""

from importlib import resources

import numpy as np
import pytest
import safetensors.torch
import torch
from support.waiting import needs_gpu

from fewstep.errors import InputError
from fewstep.metrics import Extractor, features, frechet_distance, from_uint8, reference
from fewstep.metrics.classifier import load_classifier
from fewstep.metrics.extractor import _full_precision

EMBEDDED = resources.files("fewstep.metrics") / "fashion_mnist"


def test_the_embedded_classifier_is_small_and_knows_its_classes(shared):
    weights = EMBEDDED / "classifier.safetensors"
    assert weights.stat().st_size <= 2**20
    with np.load(shared / "data" / "fashion_mnist.npz") as data:
        images, labels = from_uint8(data["test_images"]), torch.from_numpy(data["test_labels"])
    classifier = load_classifier(weights)
    found = torch.cat([classifier(some).argmax(1) for some in images.split(1000)])
    assert float((found == labels).float().mean()) >= 0.91


def test_held_out_images_are_near_the_shipped_statistics_and_noisy_ones_are_not(shared):
    with np.load(shared / "data" / "fashion_mnist.npz") as data:
        images = from_uint8(data["test_images"][::3])
    extractor = features("fashion-mnist")
    assert reference("fashion-mnist").count == 60_000
    assert reference("fashion-mnist").features == extractor.tag
    near = frechet_distance(extractor(images), reference())
    noise = 0.2 * torch.randn(images.shape, generator=torch.Generator().manual_seed(0))
    assert frechet_distance(extractor(images + noise), reference()) > 20 * near


def test_padding_changes_nothing_and_one_image_is_like_many():
    extractor = features("fashion-mnist")
    images = from_uint8(np.random.default_rng(0).integers(0, 255, (3, 28, 28, 1), np.uint8))
    padded = torch.nn.functional.pad(images, (2, 2, 2, 2), value=-1.0)
    made = extractor(images)
    assert made.shape == (3, 64) and made.dtype == torch.float32
    assert torch.equal(extractor(padded), made)
    assert torch.allclose(extractor(images[1:2])[0], made[1], atol=1e-5)


def test_the_network_is_asked_on_its_device_and_answers_on_the_images():
    asked = []
    extractor = Extractor(
        "own", "", lambda x: asked.append(x.device.type) or torch.zeros(len(x), 3), torch.device("meta")
    )
    assert extractor(torch.zeros(2, 1, 28, 28)).device.type == "cpu" and asked == ["meta"]
    embedded = features("fashion-mnist", "meta")
    assert embedded.device.type == "meta" and embedded.tag == features("fashion-mnist").tag
    assert {p.device.type for p in embedded.network.__self__.parameters()} == {"meta"}


def test_meanwhile_convolutions_are_exact_and_afterwards_as_they_were():
    cudnn = torch.backends.cudnn
    place, name = (cudnn.conv, "fp32_precision") if hasattr(cudnn, "conv") else (cudnn, "allow_tf32")
    before, tf32 = getattr(place, name), cudnn.allow_tf32
    with pytest.raises(KeyError), _full_precision(torch.device("cuda")):
        assert getattr(place, name) in ("ieee", False)
        raise KeyError
    assert getattr(place, name) == before and cudnn.allow_tf32 == tf32


def test_images_that_do_not_fit_in_memory_are_no_matter_of_their_shape():
    def network(images):
        raise torch.cuda.OutOfMemoryError("CUDA out of memory")

    with pytest.raises(InputError, match="2 images do not fit in cpu's memory: use smaller batches"):
        Extractor("own", "", network)(torch.zeros(2, 1, 28, 28))


@needs_gpu
def test_on_a_gpu_the_features_are_those_of_the_cpu():
    images = torch.rand(16, 1, 28, 28, generator=torch.Generator().manual_seed(0)) * 2 - 1
    found = features("fashion-mnist", "cuda")(images)
    assert found.device.type == "cpu"
    torch.testing.assert_close(found, features("fashion-mnist")(images), rtol=1e-4, atol=1e-4)


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
def test_a_torchscript_file(tmp_path):
    class Sums(torch.nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return images.sum((2, 3))

    torch.jit.save(torch.jit.trace(Sums(), torch.zeros(1, 3, 8, 8)), str(tmp_path / "sums.pt"))
    extractor = features(f"torchscript:{tmp_path / 'sums.pt'}")
    assert extractor.name == "torchscript" and len(extractor.hash) == 16
    assert torch.equal(extractor(torch.ones(2, 3, 8, 8)), torch.full((2, 3), 64.0))
    (tmp_path / "sums.pt").write_bytes(b"nothing")
    with pytest.raises(InputError, match="not a TorchScript file"):
        features(f"torchscript:{tmp_path / 'sums.pt'}")


def test_dinov2_from_a_folder(tmp_path):
    transformers = pytest.importorskip("transformers")
    config = transformers.Dinov2Config(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, image_size=28, patch_size=14
    )
    model = transformers.Dinov2Model(config)
    model.save_pretrained(tmp_path)
    extractor = features(f"dinov2:{tmp_path}")
    images = torch.rand(2, 1, 28, 28, generator=torch.Generator().manual_seed(0)) * 2 - 1
    made = extractor(images)
    mean, deviation = torch.tensor([[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]]).view(2, 3, 1, 1)
    expected = model.eval()(((images + 1) / 2 - mean) / deviation).last_hidden_state[:, 0]
    assert torch.allclose(made, expected, atol=1e-5)
    weights = tmp_path / "model.safetensors"
    whole = weights.read_bytes()
    safetensors.torch.save_file({"other": torch.zeros(2)}, weights, metadata={"format": "pt"})
    with pytest.raises(InputError, match="no weights for"):
        features(f"dinov2:{tmp_path}")
    weights.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match="holds no model of transformers"):
        features(f"dinov2:{tmp_path}")


@pytest.mark.parametrize(
    ("call", "answer"),
    [
        (lambda: features("fashion-mnits"), "did you mean 'fashion-mnist'"),
        (lambda: features("torchscript:missing.pt"), "cannot be read"),
        (lambda: features("fashion-mnist")(torch.zeros(2, 3, 32, 32)), "grey images"),
        (lambda: features("fashion-mnist")(torch.full((1, 1, 28, 28), torch.nan)), "NaN"),
        (lambda: from_uint8(np.zeros((2, 28, 28), np.uint8)), "give uint8"),
        (lambda: reference("cifar"), "unknown reference"),
    ],
)
def test_mistakes_are_answered(call, answer):
    with pytest.raises(InputError, match=answer):
        call()
