"""Load datasets by name as uint8 images, in memory or memory-mapped; embedded, local or downloaded."""

from jlebm.data.cache import writable_cache
from jlebm.data.catalogue import CATALOGUE
from jlebm.data.derived import chosen, every, held_out, pooled, without
from jlebm.data.formats import ImageSource, read_image_folder, read_image_zip
from jlebm.data.loading import Dataset, DatasetNotFound, data_root, load

__all__ = [
    "CATALOGUE",
    "Dataset",
    "DatasetNotFound",
    "ImageSource",
    "chosen",
    "data_root",
    "every",
    "held_out",
    "load",
    "pooled",
    "read_image_folder",
    "read_image_zip",
    "without",
    "writable_cache",
]
