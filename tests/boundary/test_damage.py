"""Arrays and sounds on disk in which a byte of a header is another one: told as damage, or read as they were."""

from __future__ import annotations

import zipfile
from contextlib import suppress

import numpy as np
import pytest
import torch
from scipy.io import wavfile

from fewstep.cli.generate.shards import _check_sound
from fewstep.errors import InputError
from fewstep.journal import Journal
from fewstep.metrics.images import image_batches
from fewstep.metrics.statistics import FeatureStatistics
from fewstep.skip_analysis.images import chosen_images

VALUES = (0, 1, 8, 12, 20, 63, 64, 127, 128, 206, 255)
"""Written over a byte: ends of ranges, versions and methods of zip that there are and are not, flags."""


def journal(folder):
    Journal(folder)("key", lambda: (torch.arange(3.0),))
    path = next(folder.glob("*.npz"))

    def read():
        found = Journal(folder)._read(path.name)
        assert found is None or torch.equal(found[0], torch.arange(3.0))

    return path, read


def statistics(folder):
    path = folder / "statistics.npz"
    np.savez(path, mu=np.zeros(2), sigma=np.eye(2))
    return path, lambda: FeatureStatistics.load(path)


def pictures(folder):
    path = folder / "images.npz"
    np.savez(path, images=np.zeros((2, 2, 2, 1), np.uint8), labels=np.arange(2))
    return path, lambda: (list(image_batches(path)), chosen_images(path, 2))


def sound(folder):
    path = folder / "sound.wav"
    wavfile.write(path, 8000, np.zeros((4, 2), np.int16))
    return path, lambda: _check_sound(path)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("make", [journal, statistics, pictures, sound])
def test_a_byte_of_a_header_may_be_another_one(make, tmp_path):
    path, read = make(tmp_path)
    whole = path.read_bytes()
    places = range(len(whole))
    if zipfile.is_zipfile(path):  # All but the arrays, whose headers other tests change and whose bytes have checksums.
        first = whole.index(b"\x93NUMPY")
        places = [*range(first), *range(whole.index(b"PK\x01\x02"), len(whole))]
    for place in places:
        for value in VALUES:
            path.write_bytes(whole[:place] + bytes([value]) + whole[place + 1 :])
            with suppress(InputError):
                read()
