"""Odd arguments and settings, a kind a line: each is refused by one sentence that names what is wrong."""

from pathlib import Path

import pytest
import torch

from jlebm import sizes
from jlebm.energies import ConvEnergy
from jlebm.errors import UserError, exit_on_user_error
from jlebm.training import initial_state
from reproduce import anomaly, celebahq256, cifar10, evaluate, generate, ood, priors, table
from tests.commands import instead
from tests.reliability.commands import places
from tests.small import backbone, experiment, two_stage_experiment

HUGE = 10**30
# A setting of the two-layer model, and the words of its sentence.
SETTINGS = {
    # What is no assignment, or of no key.
    "=": "unknown configuration key ''",
    "training": "sets nothing; write KEY=VALUE",
    "model.channels": "sets nothing; write KEY=VALUE",
    "training={}": "unknown configuration key 'training'",
    "model=3": "unknown configuration key 'model'",
    "prior_chain=null": "unknown configuration key 'prior_chain'",
    "seed=3": "unknown configuration key 'seed'",
    "preset=cpu": "names the rows",
    # The wrong type.
    "training.batch_size=1.5": "give a whole number",
    "training.batch_size=true": "give a whole number",
    "model.channels=8": "model.channels' cannot be 8",
    "model.precision=fp8": "known are: bf16, float32, tf32",
    "prior_chain.start=foo": "known are: ancestral, standard-normal",
    "prior_chain.metropolis=True": "true",
    # Numbers out of their range.
    "training.batch_size=0": "at least one step and one image",
    "training.batch_size=-3": "at least one step and one image",
    "training.budget_seconds=NaN": "give a finite number",
    "model.likelihood_sigma=0": "must be positive",
    "model.conditional_hidden=[0,0]": "must be at least 1",
    "model.conditional_hidden=[-5]": "must be at least 1",
    "model.channels=[0,32,16]": "must be at least 1",
    "model.channels=[-1,32,16]": "must be at least 1",
    "model.latent_dims=[0,32]": "must be at least 1",
    "energy_hidden=[[-1],[64]]": "must be at least 1",
    "energy_hidden=[[0],[64]]": "must be at least 1",
    "optimizer.beta1=-0.1": "must lie in [0, 1)",
    "optimizer.beta1=2": "must lie in [0, 1)",
    "optimizer.beta2=1.0": "must lie in [0, 1)",
    "optimizer.ema_decay=1": "between 0 and 1",
    "optimizer.energy_lr=0": "must be positive",
    "optimizer.generator_lr=-1": "must be positive",
    "optimizer.generator_lr=Infinity": "give a finite number",
    "optimizer.energy_l2=-1e9": "not be negative",
    "prior_chain.epsilon=0": "must be positive",
    "prior_chain.epsilon=NaN": "give a finite number",
    "prior_chain.steps=-1": "must be at least 0",
    "kl_weight=0": "kl_weight must be positive",
    "kl_warmup=-1": "must be at least 0",
    # Counts that never end.
    "prior_chain.steps=1" + "0" * 24: "'prior_chain.steps' must be at most 1000000000, not 1000000000000000000000000",
    "posterior_chain.steps=1000000001": "'posterior_chain.steps' must be at most 1000000000",
    "training.steps=1" + "0" * 24: "more than 1,000,000,000 steps never ends",
    "kl_warmup=1000000001": "'kl_warmup' must be at most 1000000000",
    # What does not fit together.
    "model.latent_dims=[]": "model.latent_dims 0",
    "model.latent_dims=[16]": "model.latent_dims 1",
    "model.latent_dims=[16,32,8]": "model.latent_dims 3",
    "model.image_shape=[3,64,64]": "the model is for images of",
    "model.precision=tf32": "that a CPU does not have",
    "prior_chain.space=noise": "starts from an ancestral draw",
    "training.batch_size=1000000000": "the dataset holds",
    f"training.batch_size={HUGE}": "the dataset holds",
    # Sizes that no memory holds.
    "energy_hidden=[[1000000000],[64]]": "GB; the largest size in its configuration is energy_hidden = 1000000000",
    "energy_hidden=[[1000000000,1000000000],[64]]": "the largest size in its configuration is energy_hidden",
    "energy_hidden=[[34359738368,34359738368],[64]]": "'energy_hidden' must be at most 1000000000, not 34359738368",
    f"energy_hidden=[[{HUGE}],[64]]": f"'energy_hidden' must be at most 1000000000, not {HUGE}",
    "model.conditional_hidden=[1000000000]": "the largest size in its configuration is model.conditional_hidden",
    "model.latent_dims=[16,1000000000]": "the largest size in its configuration is model.latent_dims = 1000000000",
    "model.channels=[1000000,1000000,1000000]": "the largest size in its configuration is model.channels = 1000000",
}
USUAL = ("--preset", "tiny", "--dataset", "photos", "--device", "cpu", "--images", "60")


def refused(main, said: list[str], folder: Path, capsys: pytest.CaptureFixture[str], usual=USUAL) -> str:
    """Run a command, expect exit code 2 and one sentence at the end, and return it."""
    try:
        code = exit_on_user_error(lambda: main(instead([*places(folder), *usual], said)))()
    except SystemExit as stopped:  # tyro's
        code = stopped.code
    errors = capsys.readouterr().err
    assert code == 2, errors
    assert "Traceback" not in errors
    assert errors.count("error: ") <= 1
    assert {path.name for path in folder.rglob("*.jsonl")} <= {"events.jsonl"}  # nothing was measured
    return errors


@pytest.mark.parametrize("setting", SETTINGS)
def test_a_setting_of_the_joint_model(setting: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Breaks if a setting of a kind ends in a traceback, in hours of work, or in a sentence that does not name it."""
    assert SETTINGS[setting] in refused(cifar10.main, ["--set", setting], tmp_path, capsys)


# Sizes of every other kind of model, by its command; the table's systems on a backbone take no --set.
ABSURD = {
    "ladder": (cifar10.main, ["--model", "ladder"], "model.features=1000000000"),
    "ladder, conditionals": (cifar10.main, ["--model", "ladder"], "model.conditional_hidden=[1000000000]"),
    "backbone": (cifar10.main, ["--model", "two-stage"], "backbone.model.num_channels_enc=1000000"),
    "groups": (cifar10.main, ["--model", "two-stage"], "backbone.model.num_groups_per_scale=1000000"),
    "cells": (celebahq256.main, ["--dataset", "photos256"], "backbone.model.num_cell_per_cond_enc=100000000"),
    **{
        name: (table.main, ["--systems", name], setting)
        for name, setting in {
            "glow": "model.hidden=1000000000",
            "pixelcnn": "model.hidden=1000000000",
            "biggan": "model.latent_dim=1000000000",
            "stylegan2": "model.latent_dim=1000000000",
            "divergence-triangle": "model.latent_dim=1000000000",
            "igebm": "model.buffer=1000000000",
            "improved-cd": "model.channels=[1000000,1000000]",
            "adversarial-ebm": "model.channels=[1000000,1000000]",
            "ddpm": "model.channels=[1000000,1000000]",
            "ncsn": "model.channels=[1000000,1000000]",
        }.items()
    },
}


# Networks whose many cells are built, without memory, before their parameters are counted.
MANY_CELLS = ("groups", "cells")
SLOW = [pytest.param(kind, marks=pytest.mark.slow) if kind in MANY_CELLS else kind for kind in ABSURD]


@pytest.mark.parametrize("kind", SLOW)
def test_a_size_that_no_memory_holds(kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Breaks if a kind of model allocates what it is asked for, or builds for ever, before it is compared."""
    main, said, setting = ABSURD[kind]
    if kind in ("ddpm", "ncsn"):
        pytest.importorskip("diffusers")
    sentence = refused(main, [*said, "--set", setting], tmp_path, capsys)
    assert f"the largest size in its configuration is {setting.partition('=')[0].removeprefix('backbone.')}" in sentence


def test_energies_that_no_memory_holds() -> None:
    """Breaks if energies on a trained backbone, which is there already, are allocated before they are counted."""
    one = two_stage_experiment(energy=ConvEnergy(4, 10**9))
    with pytest.raises(UserError, match=r"takes more than .* GB.* energy.units = 1000000000"):
        initial_state(one, 1, torch.device("cpu"), backbone())


def test_a_size_is_refused_before_it_is_allocated(monkeypatch: pytest.MonkeyPatch) -> None:
    """Breaks if the count allocates, draws from the global generator, or forgets a copy of the training."""
    before = torch.get_rng_state()
    one = experiment()
    held = sum(value.numel() for value in one.build().parameters()) * 4 * sizes.COPIES
    torch.set_rng_state(before)
    monkeypatch.setattr(sizes, "memory_of", lambda device: held)
    sizes.refuse_what_does_not_fit(one.build, one.to_json(), torch.device("cpu"))
    assert torch.equal(torch.get_rng_state(), before)
    monkeypatch.setattr(sizes, "memory_of", lambda device: held - 1)
    with pytest.raises(UserError, match="training the model takes more than"):
        sizes.refuse_what_does_not_fit(one.build, one.to_json(), torch.device("cpu"))


OPTIONS = {
    ("--seeds", "1", "1"): "each only once",
    ("--seeds",): "at least one seed",
    ("--seeds", "3", "-1"): "--seeds needs at least one seed, each only once and none negative, not 3 -1",
    ("--model", "two-stage", "--training-seed", "-1"): "--training-seed needs at least one seed",
    ("--model", "two-stage", "--energies-seed", "-1"): "none negative, not -1",
    ("--seeds", "one"): "--seeds",
    ("--budget", "1" + "0" * 400 + "h"): "shorter than a thousand years",
    ("--budget", "-5s"): "must be positive",
    ("--budget", "soon"): "not a time",
    ("--images", "-1"): "at least 50",
    ("--images", "0"): "at least 50",
    ("--images", "1" + "0" * 40): "GB free",
    ("--images", "many"): "--images",
    ("--dataset", ""): "empty text",
    ("--dataset", "../x"): "there is no dataset",
    ("--dataset", "CIFAR11"): "nearest known one is 'cifar10'",
    ("--preset", ""): "empty text",
    ("--preset", "huge"): "unknown preset 'huge'; the nearest known one is",
    ("--preset", "long"): "unknown preset 'long'; --model two-stage has it",
    ("--device", "cuda:99"): "--device cuda:99 was asked for",
    ("--device", "meta"): "unknown device",
    ("--data-root", "/dev/null"): "/dev/null is not a folder",
    ("--results", "/proc"): "cannot be written",
    ("--results", "/dev/null"): "cannot be written",
    ("--runs", "/proc"): "GB free",
    ("--runs", "x" * 300): "cannot be used",
    ("--model", "two-stage", "--backbone-checkpoint", "/dev/null"): "a pipe, a socket or a device",
    ("--model", "ladder", "--learning", "variational"): "leave it out",
    ("--model", "none"): "--model",
}


@pytest.mark.parametrize("said", OPTIONS, ids=lambda said: " ".join(said)[:40])
def test_an_option_of_a_recipe(said: tuple[str, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Breaks if an option that is out of range, of another type, or of a place that is none is a traceback."""
    assert OPTIONS[said] in refused(cifar10.main, list(said), tmp_path, capsys)


OTHERS = {
    "table": (table.main, ["--systems", "none"], "not a system"),
    "table, images": (table.main, ["--images", "-1"], "--images must be at least"),
    "table, seeds": (table.main, ["--seeds", "1", "1"], "each only once"),
    "table, a negative seed": (table.main, ["--seeds", "-3"], "none negative, not -3"),
    "priors, a negative seed": (priors.main, ["--seeds", "-3"], "none negative, not -3"),
    "anomaly, a negative seed": (anomaly.main, ["--seeds", "-3"], "none negative, not -3"),
    "anomaly": (anomaly.main, ["--digits", "11"], "digit"),
    "priors": (priors.main, ["--priors", "none"], "no prior of the ladder"),
    "ood": (ood.main, ["--run", "/there-is-none", "--outside", "digits"], "there-is-none"),
    "ood, device": (ood.main, ["--run", "/dev/null", "--outside", "digits"], "/dev/null"),
    "evaluate": (evaluate.main, ["--images", "/dev/zero", "--against", "digits"], "/dev/zero"),
    "evaluate, against": (evaluate.main, ["--images", "x", "--against", "CIFAR10"], "x"),
    "generate": (generate.main, ["--run", "/dev/null", "--seeds", "0-3", "--out", "x.npz"], "/dev/null"),
    "generate, run": (
        generate.main,
        ["--run", "nope", "--seeds", "0", "--out", "x.npz"],
        "no run folder or weights file",
    ),
    "generate, seeds": (generate.main, ["--run", "x", "--seeds", "3-1", "--out", "x.npz"], "must ascend"),
    "generate, out": (generate.main, ["--run", "x", "--seeds", "0", "--out", "x.gif"], "x.gif"),
}


@pytest.mark.parametrize("case", OTHERS)
def test_an_option_of_another_command(case: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Breaks if a command other than the recipes reads such an option in a way of its own."""
    main, said, words = OTHERS[case]
    code = exit_on_user_error(lambda: main([*said, "--device", "cpu"]))()
    errors = capsys.readouterr().err
    assert code == 2, errors
    assert words in errors.splitlines()[-1]
    assert errors.splitlines()[-1].startswith("error: ")
