"""Session of a command: data, size, metric network, device and provenance, the same for all seeds."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from jlebm.choices import GENERATOR, Scheme
from jlebm.data import Dataset, data_root, writable_cache
from jlebm.engines import parallel, products
from jlebm.evaluation import (
    Extractor,
    ExtractorNotFound,
    ReferenceSet,
    TrainingImages,
    fidelity,
    find_extractor,
    self_check,
)
from jlebm.folders import try_folder
from jlebm.progress import Reporter
from reproduce.measuring.data_root import DataRoot
from reproduce.measuring.provenance import provenance
from reproduce.presets.extents import Size


@dataclass
class Session:
    """The same data, extractor, cache, device and provenance for all seeds."""

    recipe: str
    """Module of `reproduce` that is run, as rows name it."""
    dataset: Dataset
    size: Size
    """Images, references and judged sources; as many training images have their posterior samples decoded."""
    extractor: Extractor | None
    cache: Path
    device: torch.device
    report: Reporter
    provenance: dict[str, Any]
    noise: Scheme = GENERATOR
    """Scheme of the noise of sampled images and latents."""
    training: TrainingImages | None = None
    """Training and held-out images, if the samples are compared with both (--held-out)."""
    missing: dict[str, fidelity.NotMeasured] = field(default_factory=dict)

    @classmethod
    def prepare(
        cls,
        recipe: str,
        dataset: Dataset,
        size: Size,
        root: DataRoot,
        device: torch.device,
        noise: Scheme = GENERATOR,
    ) -> "Session":
        """Find the extractor, if images are judged, and check it before any long work begins."""
        folder, report = data_root(root.folder), root.report
        session = cls(recipe, dataset, size, None, writable_cache(folder), device, report, provenance(device), noise)
        if device.type == "cpu":
            parallel.after_first(lambda: products.decide(session.cache))

        def find() -> Extractor | None:
            try:
                return find_extractor(folder, root.download, report)
            except ExtractorNotFound as missing:
                report.line(f"{missing}")
                return None

        if not size.judged:
            return session
        session.extractor = parallel.after_first(find)
        if session.extractor is not None:
            self_check(session.extractor, device)
            parallel.after_first(lambda: try_folder(session.cache))
        return session

    @property
    def images(self) -> int:
        """Number of images sampled from each prior."""
        return self.size.images

    @property
    def reference(self) -> ReferenceSet:
        """Images that samples are compared with, and the cache of their statistics."""
        return ReferenceSet(self.dataset, self.cache, self.size.reference_images)

    def compare_with(self, held_out: Dataset) -> None:
        """Compare samples with their nearest training images, beside these images that nothing was trained on.

        Raises:
            UserError: they are the training images, of another size, or too few.
        """
        self.training = TrainingImages(self.reference, held_out, self.extractor, self.device, self.report)

    @property
    def references(self) -> int:
        """Number of reference images."""
        return self.size.reference_images or len(self.dataset.images)

    def judged_by(self) -> dict[str, str]:
        """Return the reference and the extractor of a distance between images, for its row."""
        return {
            "reference": fidelity.describe_reference(self.dataset, self.size.reference_images),
            "extractor": str(self.extractor),
        }

    def lacks(self, one: fidelity.NotMeasured) -> None:
        """Record a metric that could not be measured, once per metric."""
        self.missing.setdefault(one.metric, one)

    def not_measured(self) -> list[str]:
        """Return what could not be measured and the remedy, one line per reason."""
        reasons: dict[tuple[str, str], list[str]] = {}
        for one in self.missing.values():
            reasons.setdefault((one.reason, one.remedy), []).append(one.metric)
        return [
            f"not measured: {', '.join(metrics)}: {reason}; {remedy}" for (reason, remedy), metrics in reasons.items()
        ]
