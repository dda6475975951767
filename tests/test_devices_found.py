"""What a GPU's owner is told: why none is found, which one is taken, and what to change when memory runs out."""

from pathlib import Path

import pytest
import torch

from jlebm import devices
from jlebm.devices import OutOfMemory, peak_memory, resolve_device, versions_of, why_no_gpu, within_memory
from jlebm.engines.precision import in_force
from jlebm.errors import UserError

CPU, GPU = torch.device("cpu"), torch.device("cuda")
FULL = "CUDA out of memory. Tried to allocate 20.00 GiB. GPU 0 has a total capacity of 79.15 GiB"


def test_a_device_without_a_gpu_build_or_driver_is_told_of(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Nothing where there is no such device; the build or the driver where there is one."""
    here = str(tmp_path)
    assert why_no_gpu((str(tmp_path / "absent"),)) == ""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.version, "cuda", None)
    assert "a build without CUDA" in why_no_gpu((here,))
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(devices, "driver_version", lambda: "535.10")
    assert why_no_gpu((here,)).endswith(
        "is built for CUDA 13.0, which needs a driver that is new enough, and the driver is 535.10"
    )
    monkeypatch.setattr(devices, "driver_version", lambda: "")
    assert "no driver answers" in why_no_gpu((here,))
    monkeypatch.setattr(devices, "NVIDIA", (here,))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert why_no_gpu((here,)) == ""


@pytest.fixture
def gpus(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Pretend that there are three GPUs; the ones that were made current."""
    current: list[int] = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    monkeypatch.setattr(torch.cuda, "set_device", current.append)
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    before = [switch.fp32_precision for switch in SWITCHES]
    legacy = torch.backends.cudnn.allow_tf32
    yield current
    torch.backends.cudnn.allow_tf32 = legacy
    for switch, value in zip(SWITCHES, before, strict=True):
        switch.fp32_precision = value


SWITCHES = (torch.backends.cuda.matmul, torch.backends.cudnn.conv, torch.backends.cudnn.rnn)


def test_one_of_several_gpus_is_named(gpus: list[int]) -> None:
    """cuda:1 is the second; one that is not there, another spelling and Apple's are a sentence each."""
    assert resolve_device("cuda:1") == torch.device("cuda", 1)
    assert gpus == [1]
    assert in_force() == ("ieee", "ieee")
    assert resolve_device("cuda") == GPU
    for name, sentence in (("cuda:3", "cuda:0 to cuda:2"), ("cuda:x", "unknown device"), ("mps", "float64")):
        with pytest.raises(UserError, match=sentence):
            resolve_device(name)


def test_a_process_takes_the_gpu_that_it_is_shown(gpus: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    """Under torchrun: its own number of those that all see, or the only one that is visible to it."""
    monkeypatch.setenv("LOCAL_RANK", "2")
    assert resolve_device("auto") == torch.device("cuda", 2)
    with pytest.raises(UserError, match="each process takes its own GPU"):
        resolve_device("cuda:1")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(UserError, match="start no more processes"):
        resolve_device("cuda")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5")
    assert resolve_device("cuda") == torch.device("cuda", 0)


def test_a_full_gpu_is_a_sentence() -> None:
    """With how much was asked for, and what to set; other errors stay what they are."""
    with pytest.raises(OutOfMemory, match=r"no room for 20.00 GiB more; set x") as caught, within_memory("set x"):
        raise torch.OutOfMemoryError(FULL)
    assert caught.value.exit_code == 2
    with pytest.raises(RuntimeError, match="shape"), within_memory("set x"):
        raise RuntimeError("shape")


def test_a_cpus_row_names_no_gpu() -> None:
    """Breaks if rows of a CPU, whose digests are stored, get another field."""
    assert versions_of(CPU) == peak_memory(CPU) == {}


def test_a_gpus_row_names_its_software(monkeypatch: pytest.MonkeyPatch) -> None:
    """CUDA, cuDNN and driver, as far as they answer, and the peak of memory."""
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(torch.backends.cudnn, "version", lambda: 91900)
    monkeypatch.setattr(devices, "driver_version", lambda: "")
    assert versions_of(GPU) == {"cuda": "13.0", "cudnn": "91900"}
    monkeypatch.setattr(torch.cuda, "max_memory_reserved", lambda device: 3 * 2**30)
    assert peak_memory(GPU) == {"peak memory": "3.0 GiB"}
