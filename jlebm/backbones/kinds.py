"""The backbones of joint training by their configurations."""

from typing import TypeAlias

from torch import nn

from jlebm.backbones.conv import ConvBackbone, ConvConfig
from jlebm.backbones.ladder import LadderBackbone, LadderConfig
from jlebm.backbones.topdown import TopDownBackbone, TopDownConfig

BackboneConfig: TypeAlias = ConvConfig | LadderConfig | TopDownConfig
KINDS: dict[type, type[nn.Module]] = {
    ConvConfig: ConvBackbone,
    LadderConfig: LadderBackbone,
    TopDownConfig: TopDownBackbone,
}


def backbone_of(config: BackboneConfig) -> ConvBackbone | LadderBackbone | TopDownBackbone:
    """Build a backbone with weights drawn from torch's global generator."""
    built = KINDS[type(config)](config)
    assert isinstance(built, ConvBackbone | LadderBackbone | TopDownBackbone)
    return built
