"""The ladder of priors (Tables 1 and 5 of the paper): from a VAE to two layers with a joint EBM prior, part by part.

The names are those on the command line, in a row's `model` and in its variation.
"""

from dataclasses import dataclass

from reproduce.results.identity import Option
from reproduce.results.metrics import EBM, GAUSSIAN


@dataclass(frozen=True)
class PriorLine:
    """One prior of the ladder.

    Attributes:
        name: on the command line.
        title: in a table.
        layers: of latents, one or two.
        learning: of its rows: "gaussian" and "variational" have an inference network, "joint-mle" posterior chains.
        source: whose samples are this prior's.
        paper: its keys in `paper.toml` without the dataset, "table1.{}.vae"; "" if the paper reports none.
        twin: the same model with a Gaussian prior, learned the same way; "" for that itself.
    """

    name: str
    title: str
    layers: int
    learning: str
    source: str = GAUSSIAN
    paper: str = ""
    twin: str = ""

    @property
    def has_energies(self) -> bool:
        """Whether its layers have energies."""
        return self.source == EBM

    @property
    def variation(self) -> dict[str, Option]:
        """The option that names it, and tells its rows from those of the preset's other priors."""
        return {"priors": self.name}


LADDER = (
    PriorLine("vae", "one layer, Gaussian, inference network (VAE)", 1, "gaussian", paper="table1.{}.vae"),
    PriorLine("abp", "one layer, Gaussian, posterior chains (ABP)", 1, "joint-mle", paper="table1.{}.abp"),
    PriorLine("lebm", "one layer, EBM, posterior chains (LEBM)", 1, "joint-mle", EBM, "table1.{}.lebm", "abp"),
    PriorLine("gaussian-chains", "two layers, Gaussian, posterior chains", 2, "joint-mle"),
    PriorLine("gaussian-inference", "two layers, Gaussian, inference network", 2, "gaussian"),
    PriorLine(
        "joint-chains",
        "two layers, joint EBM, posterior chains",
        2,
        "joint-mle",
        EBM,
        "table1.{}.ours",
        "gaussian-chains",
    ),
    PriorLine(
        "joint-inference",
        "two layers, joint EBM, inference network",
        2,
        "variational",
        EBM,
        "table5.{}.variational.fid",
        "gaussian-inference",
    ),
)
"""From the fewest parts to the most."""
