"""Embedded datasets: real images that come with scikit-learn and need neither files nor a network."""

from functools import lru_cache

import numpy as np
from jaxtyping import Int64, UInt8
from PIL import Image

PHOTO_SEED = 20230606  # fixed, so that the crops are the same everywhere


def digits() -> tuple[UInt8[np.ndarray, "1797 8 8 1"], Int64[np.ndarray, " 1797"]]:
    """Return scikit-learn's 1,797 handwritten digits of 8 x 8 pixels and their classes.

    The sixteen levels 0..16 of the file become 0..255 by rounding.
    """
    from sklearn.datasets import load_digits

    levels, classes = load_digits(return_X_y=True)
    images = np.rint(np.asarray(levels) * (255 / 16)).astype(np.uint8)
    return images.reshape(-1, 8, 8, 1), np.asarray(classes, np.int64)


def digits28() -> tuple[UInt8[np.ndarray, "1797 28 28 1"], Int64[np.ndarray, " 1797"]]:
    """Return the same digits at MNIST's size: enlarged to 20 x 20 pixels (Pillow's BICUBIC), with a black border of 4.

    MNIST's digits fit into 20 x 20 pixels too.
    """
    small, classes = digits()
    images = np.zeros((len(small), 28, 28, 1), np.uint8)
    for index, image in enumerate(small):
        enlarged = Image.fromarray(image[:, :, 0]).resize((20, 20), Image.Resampling.BICUBIC)
        images[index, 4:-4, 4:-4, 0] = np.asarray(enlarged)
    return images, classes


def photos() -> tuple[UInt8[np.ndarray, "5000 32 32 3"], Int64[np.ndarray, " 5000"]]:
    """Return 5,000 crops of scikit-learn's two photographs, 32 x 32 pixels, labelled by the photograph.

    The two photographs alternate. A crop is a square of 32 to 128 pixels at a uniform place, both drawn from
    a fixed seed, and is reduced to 32 pixels by averaging the area below each pixel (Pillow's BOX filter).
    The draws use the generator's raw 64-bit stream, which numpy keeps the same from version to version.
    """
    return _crops(5000, 32, 128)


def photos64() -> tuple[UInt8[np.ndarray, "1000 64 64 3"], Int64[np.ndarray, " 1000"]]:
    """Return 1,000 crops made like those of `photos`, from squares of 64 to 256 pixels reduced to 64."""
    return _crops(1000, 64, 256)


def photos256() -> tuple[UInt8[np.ndarray, "64 256 256 3"], Int64[np.ndarray, " 64"]]:
    """Return 64 crops made like those of `photos`, from squares of 256 to 427 pixels, a photograph's height."""
    return _crops(64, 256, 427)


def _crops(
    count: int, size: int, largest: int
) -> tuple[UInt8[np.ndarray, "count size size 3"], Int64[np.ndarray, " count"]]:
    """Return `count` crops of the two photographs, in turn, and the photograph of each."""
    return _cut(count, size, largest), np.arange(count, dtype=np.int64) % 2


@lru_cache(maxsize=1)  # 15 MB at most; a command loads its dataset more than once
def _cut(count: int, size: int, largest: int) -> UInt8[np.ndarray, "count size size 3"]:
    """Cut `count` squares of `size` to `largest` pixels from the photographs and reduce them to `size`; read-only."""
    from sklearn.datasets import load_sample_images

    photographs = [Image.fromarray(photograph) for photograph in load_sample_images().images]
    draws = np.random.PCG64(PHOTO_SEED).random_raw(3 * count).reshape(count, 3)
    images = np.empty((count, size, size, 3), np.uint8)
    for index, draw in enumerate(draws.tolist()):
        photograph = photographs[index % len(photographs)]
        side = size + draw[0] % (largest - size + 1)
        left = draw[1] % (photograph.width - side + 1)
        top = draw[2] % (photograph.height - side + 1)
        crop = photograph.crop((left, top, left + side, top + side))
        images[index] = np.asarray(crop.resize((size, size), Image.Resampling.BOX))
    images.flags.writeable = False
    return images
