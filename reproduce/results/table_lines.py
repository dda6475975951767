"""Systems of the paper's Table 2: their names in rows and in `paper.toml`, and the source of their images."""

from dataclasses import dataclass

from reproduce.results.metrics import EBM, GAUSSIAN, SAMPLES


@dataclass(frozen=True)
class System:
    """One line of the table.

    Attributes:
        name: on the command line, and the `learning` of its rows unless that is given.
        title: in the table.
        paper: its keys in `paper.toml` begin with "table2.cifar10." and this; "" if no paper reports it.
        conditional: whether it is class-conditional.
        learning: of its rows.
        source: of its rows.
    """

    name: str
    title: str
    paper: str
    conditional: bool = False
    learning: str = ""
    source: str = SAMPLES

    def __post_init__(self) -> None:
        if not self.learning:
            object.__setattr__(self, "learning", self.name)


SYSTEMS = (
    System("nvae", "NVAE, Gaussian prior", "nvae", learning="two-stage", source=GAUSSIAN),
    System("ours", "ours, two-stage", "ours", learning="two-stage", source=EBM),
    System("ncp-vae", "NCP-VAE", "ncp-vae"),
    System("vaebm", "VAEBM", "vaebm"),
    System("igebm", "IGEBM", "igebm"),
    System("improved-cd", "Improved contrastive divergence", "improvedcd"),
    System("divergence-triangle", "Divergence triangle", "div-triangle"),
    System("adversarial-ebm", "Adversarial EBM", "adv-ebm"),
    System("glow", "GLOW", "glow"),
    System("pixelcnn", "PixelCNN", "pixelcnn"),
    System("biggan", "BigGAN", "biggan", conditional=True),
    System("stylegan2", "StyleGAN2 without ADA", "styleganv2-without-ada"),
    System("ncsn", "NCSN", "ncsn"),
    System("ddpm", "DDPM", "ddpm"),
    System("pixels", "independent pixels: nothing learned", ""),
)
"""First the two that share a backbone, then the others in the paper's order, then those that no paper reports, among
them the floor that every system should beat."""

BASELINES = tuple(system for system in SYSTEMS if system.learning == system.name)
"""Systems that `reproduce.systems` trains; the others are rows of the two-stage recipe."""
