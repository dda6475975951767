"""Latents of posterior samples and of both priors of a hierarchy with energies on its features, for the fitted test.

    python latents.py search-out/a3.safetensors search-out/e5.safetensors 2000 latents.npz
"""
import json, sys

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import load_file

import judge
from train_energy import OfFeatures, Potential, load_backbone, run

STEPS, BATCH, SEED = 40, 100, 77


def main(backbone_path, energy_path, count, out):
    torch.set_num_threads(1)
    images = np.array(judge.dataset().images)
    backbone = load_backbone(backbone_path)
    shapes = backbone.latent_shapes
    with safe_open(energy_path, "pt") as file:
        made, sizes = (json.loads(file.metadata()[name]) for name in ("settings", "sizes"))
    level = [level for level in backbone.config.levels if level[2]][-1]
    energy = OfFeatures(level[1], level[0], made["width"], made["units"])
    energy.load_state_dict(load_file(energy_path))
    energy.requires_grad_(False)
    potential = Potential(backbone, energy, "h")
    g = torch.Generator().manual_seed(SEED)
    fresh = lambda n: tuple(torch.randn(n, *shape, generator=g) for shape in shapes)
    flat = lambda z: torch.cat([layer.flatten(1) for layer in z], 1).numpy()
    chosen = (2 * np.arange(count) + 1) * len(images) // (2 * count)
    parts = {"posterior": [], "gaussian": [], "ebm": []}
    for first in range(0, count, BATCH):
        x = torch.from_numpy(images[chosen[first : first + BATCH]]).float() / 127.5 - 1
        with torch.no_grad():
            parts["posterior"].append(flat(backbone.posterior_noise(x, fresh(BATCH))[0]))
            parts["gaussian"].append(flat(backbone.push(fresh(BATCH))))
        eps = run(fresh(BATCH), potential, sizes, STEPS, g, "cn")
        with torch.no_grad():
            parts["ebm"].append(flat(backbone.push(eps)))
    np.savez(out, shapes=json.dumps(shapes), **{name: np.concatenate(some) for name, some in parts.items()})


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4])
