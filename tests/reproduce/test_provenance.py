import torch

from reproduce.measuring.provenance import provenance


def test_a_row_of_a_cpu_names_these_versions() -> None:
    """Breaks if rows of a CPU, whose digests are stored, get another field."""
    known = provenance(torch.device("cpu"))
    assert set(known) == {"commit", "dirty", "device", "versions"}
    packages = {"torch", "torchvision", "torch-fidelity", "numpy", "scikit-learn", "jlebm"}
    assert set(known["versions"]) == {"python"} | packages
