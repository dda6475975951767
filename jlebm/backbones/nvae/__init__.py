"""NVAE, the deep hierarchy of the two-stage experiments; reads the published checkpoints."""

from jlebm.backbones.nvae.checkpoint import load_nvae
from jlebm.backbones.nvae.config import NVAEConfig
from jlebm.backbones.nvae.frozen import frozen_copy
from jlebm.backbones.nvae.network import NVAE

__all__ = ["NVAE", "NVAEConfig", "frozen_copy", "load_nvae"]
