"""MNIST anomaly detection on the development part of the 80/20 protocol: which model, energy fit and score.

Pool of 70,000, shuffled with seed 42; only the first 80 % (56,000) are touched here. Of those without the development
digit a second 80 % trains and 20 % is the normal part of the test, to which all of that digit's images in the 56,000 are
added as anomalies. Digits 1, 4, 5, 7 and 9 occur as normal images only; none of them is ever an anomaly.
"""
import argparse, json, math, subprocess, time

import numpy as np
import torch
from torch import nn
from torchvision.datasets import MNIST

import judge
from jlebm.backbones.conv import ConvBackbone, ConvConfig
from jlebm.distributions import SIGMA_FLOOR, Normal
from jlebm.energies import mlp_energy
from jlebm.evaluation import detection
from jlebm.networks import mlp
from jlebm.randomness import SharedNoise


def split(digit, seed=42):
    parts = [MNIST(judge.ROOT, train=t) for t in (True, False)]
    X, y = torch.cat([p.data for p in parts]), torch.cat([p.targets for p in parts])
    order = torch.from_numpy(np.random.RandomState(seed).permutation(len(X)))[:56_000]
    X, y = X[order].float()[:, None] / 127.5 - 1, y[order]
    normal, odd = X[y != digit], X[y == digit]
    cut = len(normal) * 4 // 5
    return normal[:cut], normal[cut:], odd


class FlatEncoder(nn.Module):
    def __init__(self, hidden, dim):
        super().__init__()
        self.network = nn.Sequential(nn.Flatten(), mlp(784, hidden, 2 * dim))

    def forward(self, x):
        mean, log_sigma = self.network(x).chunk(2, 1)
        return Normal.from_log_sigma(mean, log_sigma, SIGMA_FLOOR)


def make(a, dims):
    config = ConvConfig(
        (1, 28, 28), dims, tuple(int(v) for v in a.channels.split(",")), (128, 128), a.sigma, inference_network=True
    )
    model = ConvBackbone(config)
    if a.generator == "mlp":
        hidden = tuple(int(v) for v in a.hidden.split(","))
        model.generator = nn.Sequential(mlp(dims[-1], hidden[::-1], 784), nn.Tanh(), nn.Unflatten(1, (1, 28, 28)))
        model.encoder = FlatEncoder(hidden, dims[-1])
    return model


def fit_backbone(model, X, a, g):
    noise, begun, step = SharedNoise(g), time.process_time(), 0
    optimizer = torch.optim.Adam(model.parameters(), lr=a.lr, fused=True)
    while (share := (time.process_time() - begun) / a.seconds) < 1:
        for group in optimizer.param_groups:
            group["lr"] = a.lr * min(1, (step + 1) / 100, 2 * (1 - share) + 0.01)
        x = X[torch.randint(len(X), (a.batch,), generator=g)]
        q = model.posterior(x, noise)
        kl = (q.log_prob - model.prior_log_prob(q.latents)).mean()
        residual = (model.decode(q.latents).mean - x).square().flatten(1).sum(1).mean() / (2 * a.sigma**2)
        weight = min(1.0, share / 0.1)
        optimizer.zero_grad()
        (residual + weight * kl).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 100.0)
        optimizer.step()
        step += 1
    return step, residual.item(), kl.item()


@torch.no_grad()
def encode(model, X, g, samples=1):
    """Mean squared error, log p0, log q and latents of each image, averaged over encoder samples."""
    out = []
    for x in X.split(2000):
        each = []
        for _ in range(samples):
            q = model.posterior(x, SharedNoise(g))
            error = (model.decode(q.latents).mean - x).square().flatten(1).sum(1)
            each.append((error, model.prior_log_prob(q.latents), q.log_prob, q.latents))
        out.append((*(torch.stack([e[i] for e in each]) for i in range(3)), tuple(torch.stack(layer) for layer in zip(*(e[3] for e in each)))))
    first = [torch.cat([o[i] for o in out], 1) for i in range(3)]
    latents = tuple(torch.cat([o[3][n] for o in out], 1) for n in range(len(out[0][3])))
    return (*first, latents)


def fit_energy(model, X, a, g):
    dims = model.latent_dims
    energy = mlp_energy(dims, [(a.units, a.units)] * len(dims))
    optimizer = torch.optim.Adam(energy.parameters(), lr=1e-3, weight_decay=0.0, fused=True)
    noise = SharedNoise(g)
    for step in range(a.energy_updates):
        for group in optimizer.param_groups:
            group["lr"] = 1e-3 * (1 - step / a.energy_updates) + 1e-5
        x = X[torch.randint(len(X), (256,), generator=g)]
        with torch.no_grad():
            positive = model.posterior(x, noise).latents
            negative = model.push(tuple(torch.randn(256, d, generator=g) for d in dims))
        up, down = energy(positive).sum(1), energy(negative).sum(1)
        loss = nn.functional.softplus(up).mean() + nn.functional.softplus(-down).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return energy.requires_grad_(False), loss.item()


def fit_expected(z, target, g, updates=1500):
    """A perceptron from z to the log of the error that is usual there."""
    net = mlp(z.shape[1], (128, 128), 1)
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-3, fused=True)
    for step in range(updates):
        i = torch.randint(len(z), (256,), generator=g)
        loss = (net(z[i]).squeeze(1) - target[i]).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return net.requires_grad_(False)


def scores(model, energy, sets, a, g):
    """Every score, high for anomalies, of the training, normal and anomalous images."""
    found = {}
    sets = {"train": sets[0][:10_000], "normal": sets[1], "odd": sets[2]}
    raw = {name: encode(model, X, g, 8) for name, X in sets.items()}
    basic = {}
    for name, (error, log_p0, log_q, latents) in raw.items():
        E = torch.stack([energy(tuple(layer[s] for layer in latents)) for s in range(len(error))])  # samples, images, layers
        basic[name] = {
            "R": error.mean(0), "P": -log_p0.mean(0), "E": E.sum(2).mean(0), "E_top": E[..., 0].mean(0), "E_bottom": E[..., -1].mean(0),
            "KL": (log_q - log_p0).mean(0), "z": torch.cat([layer.mean(0) for layer in latents], 1),
        }
    expected = fit_expected(basic["train"]["z"], basic["train"]["R"].log(), g)
    bank = basic["train"]["z"]
    scale = bank.std(0)
    for part in basic.values():
        part["rel"] = part["R"].log() - expected(part["z"]).squeeze(1)
        z = part["z"] / scale
        part["kNN"] = torch.cat([torch.cdist(c, bank / scale).topk(6, largest=False).values[:, -1] for c in z.split(1000)])
        part["U"] = part["E"] + part["P"]
    stats = {k: (v.mean(), v.std()) for k, v in basic["train"].items() if k != "z"}
    for name, part in basic.items():
        s = {k: (v - stats[k][0]) / stats[k][1] for k, v in part.items() if k != "z"}
        found[name] = {
            "literal": part["R"] / (2 * a.sigma**2) + part["P"] + part["E"],
            "literal, Gaussian twin": part["R"] / (2 * a.sigma**2) + part["P"],
            "reconstruction": part["R"], "energies": part["E"], "top energy": part["E_top"], "bottom energy": part["E_bottom"],
            "-ELBO": part["R"] / (2 * a.sigma**2) + part["KL"], "-log p(z)": part["U"], "-log p0(z)": part["P"],
            "zR+zE": s["R"] + s["E"], "zR+2zE": s["R"] + 2 * s["E"], "zR+zU": s["R"] + s["U"], "R/18+E": part["R"] / 18 + part["E"],
            "rel": part["rel"], "zrel+zE": s["rel"] + s["E"], "zrel+2zE": s["rel"] + 2 * s["E"], "zrel+zU": s["rel"] + s["U"], "kNN in z": part["kNN"],
            "zR+zrel+2zE": s["R"] + s["rel"] + 2 * s["E"],
        }
    spread = {k: round(basic["normal"][k].std().item(), 2) for k in ("R", "P", "E")}
    return found, spread


def main():
    ap = argparse.ArgumentParser()
    ap.add_argument("--name", required=True)
    ap.add_argument("--digits", default="0,2,3,6,8")
    ap.add_argument("--generator", choices=("mlp", "conv"), default="mlp")
    ap.add_argument("--channels", default="64,32,16")
    ap.add_argument("--hidden", default="512,512")
    ap.add_argument("--dims", default="8,16", help="top to bottom")
    ap.add_argument("--sigma", type=float, default=1.0)
    ap.add_argument("--seconds", type=float, default=50, help="of CPU time, of the backbone, a digit")
    ap.add_argument("--energy-updates", type=int, default=2500)
    ap.add_argument("--units", type=int, default=256)
    ap.add_argument("--lr", type=float, default=1e-3)
    ap.add_argument("--batch", type=int, default=128)
    ap.add_argument("--seed", type=int, default=1)
    ap.add_argument("--out", default="search-out")
    a = ap.parse_args()
    torch.set_num_threads(1)
    dims = tuple(int(v) for v in a.dims.split(","))
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True).stdout.strip()
    for digit in (int(v) for v in a.digits.split(",")):
        assert digit in (0, 2, 3, 6, 8), "a reported digit"
        torch.manual_seed(a.seed)
        g = torch.Generator().manual_seed(a.seed)
        begun = time.monotonic()
        sets = split(digit)
        model = make(a, dims)
        updates, residual, kl = fit_backbone(model, sets[0], a, g)
        model.requires_grad_(False)
        energy, nce = fit_energy(model, sets[0], a, g)
        found, spread = scores(model, energy, sets, a, g)
        each = {k: detection(found["odd"][k].numpy(), found["normal"][k].numpy(), f"digit {digit}") for k in found["odd"]}
        row = {
            "kind": "anomaly", **vars(a), "digit": digit, "share": round(len(sets[2]) / (len(sets[1]) + len(sets[2])), 4),
            "train_images": len(sets[0]), "normal": len(sets[1]), "anomalies": len(sets[2]), "updates": updates, "R/2s2": round(residual, 2), "kl": round(kl, 2),
            "nce_loss": round(nce, 4), "spread_nats": spread, "wall_seconds": round(time.monotonic() - begun, 1),
            "auprc": {k: round(v.auprc, 4) for k, v in each.items()}, "auroc": {k: round(v.auroc, 4) for k, v in each.items()},
            "dataset": "mnist", "device": "cpu-avx512, one core", "commit": commit,
        }
        print(json.dumps(row), flush=True)
        with open(f"{a.out}/runs.jsonl", "a") as file:
            print(json.dumps(row), file=file)


if __name__ == "__main__":
    main()
