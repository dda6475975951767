"""Rows of format 1, which packed a variation, a layer, a detection or levels into text.

The reader stays until the last run begun before format 2 has been stored. A row of that time keeps its digest, taken
from its line in format 1; `packed` rebuilds that line.
"""

import re
from collections.abc import Mapping
from typing import Any

from jlebm.errors import UserError
from reproduce.results.identity import Of, Option, options, recipe_of

KINDS: Mapping[str, type] = {
    "decoder": str,
    "training_seed": int,
    "energies_seed": int,
    "chain_steps": int,
    "drift": str,
    "chain_noise": bool,
    "temperature": float,
    "batch_norm": str,
    "decoding": str,
    "backbone_checkpoint": str,
    "development": bool,
}
"""Types of the options of a variation, in the order in which they follow the preset."""
ADDED = ("format", "recipe", "model", "variation", "layer", "target", "score", "bits")
DETECTED = ("anomaly", "out-of-distribution")
BITS = re.compile(r"(\d+) bits a colour")


def unpacked(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of a row in format 2 from those in format 1, including its digest.

    Raises:
        UserError: a variation has an option that no recipe knew.
    """
    preset, variation = _variation(str(fields["preset"]))
    source, layer, target, score = _source(str(fields["source"]))
    bits = BITS.fullmatch(str(fields["chain"]))
    recipe, model = recipe_of(str(fields["protocol"]), str(fields["learning"]))
    return {
        **fields,
        "preset": preset,
        "source": source,
        "chain": "" if bits else fields["chain"],
        "format": 1,
        "recipe": recipe,
        "model": model,
        "variation": variation,
        "layer": layer,
        "target": target,
        "score": score,
        "bits": int(bits[1]) if bits else None,
    }


def packed(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of a row in format 1, behind its first digest, from those in format 2."""
    variation: Mapping[str, Option] = fields["variation"]
    words = [str(fields["preset"]), *options(variation)]
    old = {name: value for name, value in fields.items() if name not in ADDED}
    old["preset"] = " ".join(words)
    old["source"] = Of(fields["source"], fields["layer"], fields["target"], fields["score"]).name
    if fields["bits"] is not None:
        old["chain"] = f"{fields['bits']} bits a colour"
    return old


def _variation(text: str) -> tuple[str, dict[str, Option]]:
    preset, *flags = re.split(r" --", text)
    found: dict[str, Option] = {}
    for flag in flags:
        word, _, value = flag.partition(" ")
        name = word.removeprefix("no-").replace("-", "_")
        kind = KINDS.get(name)
        if kind is None or (kind is bool) != (value == ""):
            raise UserError(f"the preset {text!r} has --{flag}, which is no option of a variation")
        found[name] = not word.startswith("no-") if kind is bool else kind(value)
    return preset, found


def _source(text: str) -> tuple[str, str, str, str]:
    source, _, rest = text.partition("/")
    if source not in DETECTED:
        return source, rest, "", ""
    target, _, score = rest.partition("/")
    return source, "", target, score
