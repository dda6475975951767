"""NVAE, the deep hierarchy of the two-stage experiments, with a reader of the published checkpoints."""

from jlebm.backbones.nvae.checkpoint import digest_of, load_nvae, save_nvae
from jlebm.backbones.nvae.frozen import frozen_copy
from jlebm.backbones.nvae.network import NVAE
from jlebm.backbones.nvae.nvae_config import NVAEConfig
from jlebm.backbones.nvae.regularisation import re_estimated

__all__ = ["NVAE", "NVAEConfig", "digest_of", "frozen_copy", "load_nvae", "re_estimated", "save_nvae"]
