"""U-Net of the diffusion and score systems, from the library diffusers (extra `jlebm[baselines]`)."""

from dataclasses import dataclass

from jaxtyping import Float, Int64
from torch import Tensor, nn
from torch.nn.functional import pixel_shuffle, pixel_unshuffle

from jlebm.errors import UserError


@dataclass(frozen=True)
class UNetConfig:
    """Sizes of the U-Net; the defaults are the DDPM paper's for CIFAR-10 (arXiv 2006.11239, appendix B)."""

    image_shape: tuple[int, int, int] = (3, 32, 32)
    channels: tuple[int, ...] = (128, 256, 256, 256)
    """Channels at each resolution, the finest first."""
    layers: int = 2
    """Residual blocks per resolution."""
    attention: tuple[int, ...] = (16,)
    """Sides of the feature maps with self-attention; if there are any, the coarsest one has it too."""
    norm_groups: int = 32
    dropout: float = 0.0
    patch: int = 1
    """Side of the squares of pixels that become channels before the network: doubling it divides the time
    by four (arXiv 2207.04316)."""

    def __post_init__(self) -> None:
        """Refuse sizes that do not fit together."""
        side = self.patch * 2 ** (len(self.channels) - 1)
        if self.patch < 1 or not self.channels or any(extent % side for extent in self.image_shape[1:]):
            raise UserError(
                f"images of {self.image_shape} cannot be halved {len(self.channels) - 1} times in the U-Net"
            )
        if any(count % self.norm_groups for count in self.channels):
            raise UserError(f"model.channels {self.channels} are not divisible into {self.norm_groups} norm_groups")


class UNet(nn.Module):
    """Network from an image and a noise level to an output of the image's shape."""

    def __init__(self, config: UNetConfig):
        super().__init__()
        try:
            from diffusers import UNet2DModel  # pyright: ignore[reportMissingImports]
        except ImportError as error:
            message = "this system's U-Net is that of diffusers; run: python -m pip install 'jlebm[baselines]'"
            raise UserError(message) from error
        channels, height, _ = config.image_shape
        sides = [height // config.patch // 2**depth for depth in range(len(config.channels))]
        kinds = ["Attn" if side in config.attention else "" for side in sides]
        self.patch = config.patch
        self.network = UNet2DModel(
            in_channels=channels * config.patch**2,
            out_channels=channels * config.patch**2,
            block_out_channels=config.channels,
            layers_per_block=config.layers,
            down_block_types=tuple(f"{kind}DownBlock2D" for kind in kinds),
            up_block_types=tuple(f"{kind}UpBlock2D" for kind in reversed(kinds)),
            add_attention=bool(config.attention),
            attention_head_dim=None,
            norm_num_groups=config.norm_groups,
            norm_eps=1e-6,
            dropout=config.dropout,
            downsample_padding=0,
            flip_sin_to_cos=False,
            freq_shift=1,
        )

    def forward(
        self, x: Float[Tensor, "batch channels height width"], level: Int64[Tensor, " batch"]
    ) -> Float[Tensor, "batch channels height width"]:
        """Return one output per image."""
        out = self.network(pixel_unshuffle(x, self.patch), level, return_dict=False)[0]
        return pixel_shuffle(out, self.patch)
