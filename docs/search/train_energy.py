"""Learn joint energies on a trained top-down hierarchy, by chains in its whitened noise, and judge the prior.

Options that are compared: where the energy looks (the latents z or their whitened noise), one network a layer or one for
all layers, fresh or persistent chains, their length, the kernel (unadjusted Langevin, or Crank-Nicolson Langevin, which
keeps N(0, I) exactly at any step size), a noise-contrastive start.
"""
import argparse, copy, json, math, subprocess, time

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn import functional as F

import judge
from topdown import LAST, TopDown, TopDownConfig, act
from train_backbone import grid, to_uint8


def load_backbone(path):
    with safe_open(path, "pt") as file:
        made = json.loads(file.metadata()["config"])
    made = {k: tuple(tuple(x) if isinstance(x, list) else x for x in v) if isinstance(v, list) else v for k, v in made.items()}
    model = TopDown(TopDownConfig(**made))
    model.load_state_dict(load_file(path))
    return model.to(memory_format=LAST).requires_grad_(False).eval()


def layer_net(shape, width, units):
    c, side = shape[0], shape[1]
    if side == 1:
        return nn.Sequential(nn.Flatten(), nn.Linear(c, units), nn.SiLU(), nn.Linear(units, units), nn.SiLU(), nn.Linear(units, 1))
    layers = [nn.Conv2d(c, width, 3, padding=1), nn.SiLU()]
    while side > 4:
        layers += [nn.Conv2d(width, width, 4, stride=2, padding=1), nn.SiLU()]
        side //= 2
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(width * side * side, units), nn.SiLU(), nn.Linear(units, 1))


class PerLayer(nn.Module):
    """E(z) = sum_i E_i(z_i)."""

    def __init__(self, shapes, width, units):
        super().__init__()
        self.nets = nn.ModuleList(layer_net(s, width, units) for s in shapes)

    def forward(self, z):
        return torch.cat([net(layer) for net, layer in zip(self.nets, z)], 1).sum(1)


class Joint(nn.Module):
    """One network that sees all layers: maps of each resolution enter on the way down to 4x4, the vectors at its end."""

    def __init__(self, shapes, width, units):
        super().__init__()
        self.by_side = {}
        for index, s in enumerate(shapes):
            self.by_side.setdefault(s[1], []).append(index)
        self.sides = sorted((s for s in self.by_side if s > 1), reverse=True)
        self.enter, self.down = nn.ModuleList(), nn.ModuleList()
        for n, side in enumerate(self.sides):
            c = sum(shapes[i][0] for i in self.by_side[side])
            self.enter.append(nn.Conv2d(c, width, 3, padding=1))
            self.down.append(nn.Conv2d(width, width, 4, stride=2, padding=1) if side > 4 else nn.Conv2d(width, width, 3, padding=1))
        flat = sum(shapes[i][0] for i in self.by_side.get(1, []))
        last = self.sides[-1] if self.sides[-1] <= 4 else self.sides[-1] // 2
        self.head = nn.Sequential(nn.Linear(width * last**2 + flat, units), nn.SiLU(), nn.Linear(units, units), nn.SiLU(), nn.Linear(units, 1))

    def forward(self, z):
        h = None
        for n, side in enumerate(self.sides):
            own = self.enter[n](torch.cat([z[i] for i in self.by_side[side]], 1))
            if h is not None:
                if h.shape[-1] != side:
                    h = F.avg_pool2d(h, h.shape[-1] // side)
                own = own + h
            h = F.silu(self.down[n](F.silu(own)))
        flat = [h.flatten(1)] + [z[i].flatten(1) for i in self.by_side.get(1, [])]
        return self.head(torch.cat(flat, 1)).squeeze(1)


class OfFeatures(nn.Module):
    """E(z) through the decoder's own features of all latents together."""

    def __init__(self, channels, side, width, units):
        super().__init__()
        layers = [nn.Conv2d(channels, width, 3, padding=1), nn.SiLU()]
        while side > 4:
            layers += [nn.Conv2d(width, width, 4, stride=2, padding=1), nn.SiLU()]
            side //= 2
        self.net = nn.Sequential(*layers, nn.Flatten(), nn.Linear(width * side**2, units), nn.SiLU(), nn.Linear(units, 1))

    def forward(self, h):
        return self.net(h).squeeze(1)


class Potential:
    """The energy as a function of the whitened noise, and its gradient there."""

    def __init__(self, backbone, energy, space):
        self.backbone, self.energy, self.space = backbone, energy, space

    def __call__(self, eps):
        return self.energy(self.seen(eps))

    def seen(self, eps):
        """What the energy is a function of."""
        return eps if self.space == "eps" else self.backbone.push(eps) if self.space == "z" else self.backbone.features(eps)

    def gradient(self, eps):
        eps = tuple(e.detach().requires_grad_() for e in eps)
        value = self(eps)
        return value.detach(), torch.autograd.grad(value.sum(), eps)


def move(eps, grad, sizes, g, kernel):
    out = []
    for e, d, s in zip(eps, grad, sizes):
        xi = torch.randn(e.shape, generator=g)
        if kernel == "ula":
            out.append(e - s * (d + e) + math.sqrt(2 * s) * xi)
        else:  # Crank-Nicolson in the Gaussian part: exact for N(0, I)
            out.append(((2 - s) * e - 2 * s * d + math.sqrt(8 * s) * xi) / (2 + s))
    return tuple(out)


def run(eps, potential, sizes, steps, g, kernel):
    for _ in range(steps):
        _, grad = potential.gradient(eps)
        eps = move(eps, grad, sizes, g, kernel)
    return tuple(e.detach() for e in eps)


def log_acceptance(u, v, value_u, value_v, grad_u, grad_v, s, kernel):
    dot = lambda a, b: (a * b).flatten(1).sum(1)
    if kernel == "ula":
        full_u, full_v = grad_u + u, grad_v + v
        forward = (v - u + s * full_u).square().flatten(1).sum(1) / (4 * s)
        back = (u - v + s * full_v).square().flatten(1).sum(1) / (4 * s)
        return (value_u + dot(u, u) / 2) - (value_v + dot(v, v) / 2) + forward - back

    def rho(a, b, value, grad):
        return value + dot(b - a, grad) / 2 + s / 4 * dot(a + b, grad) + s / 4 * dot(grad, grad)

    return rho(u, v, value_u, grad_u) - rho(v, u, value_v, grad_v)


def probe(eps, potential, sizes, g, kernel):
    """Mean Metropolis acceptance of a move of each layer alone."""
    value, grad = potential.gradient(eps)
    out = []
    for i, s in enumerate(sizes):
        moved = move(eps[i : i + 1], grad[i : i + 1], [s], g, kernel)
        there = eps[:i] + moved + eps[i + 1 :]
        new, new_grad = potential.gradient(there)
        out.append(log_acceptance(eps[i], moved[0], value, new, grad[i], new_grad[i], s, kernel).clamp(max=0).exp().mean().item())
    return out


def main():
    ap = argparse.ArgumentParser()
    ap.add_argument("--name", required=True)
    ap.add_argument("--backbone", required=True)
    ap.add_argument("--seconds", help="of CPU time, so that other work on the machine does not count", type=float, default=480)
    ap.add_argument("--space", choices=("z", "eps", "h"), default="z")
    ap.add_argument("--net", choices=("layer", "joint"), default="layer")
    ap.add_argument("--width", type=int, default=48)
    ap.add_argument("--units", type=int, default=128)
    ap.add_argument("--kernel", choices=("ula", "cn"), default="cn")
    ap.add_argument("--steps", type=int, default=20)
    ap.add_argument("--size", type=float, default=0.02)
    ap.add_argument("--largest", type=float, default=0.5)
    ap.add_argument("--adapt", type=int, default=1)
    ap.add_argument("--target", type=float, default=0.75)
    ap.add_argument("--buffer", type=int, default=0)
    ap.add_argument("--restart", type=float, default=0.05)
    ap.add_argument("--nce", type=float, default=0.0, help="share of the time for a noise-contrastive start")
    ap.add_argument("--lr", type=float, default=1e-3)
    ap.add_argument("--l2", type=float, default=1e-3)
    ap.add_argument("--batch", type=int, default=64)
    ap.add_argument("--ema", type=float, default=0.995)
    ap.add_argument("--seed", type=int, default=1)
    ap.add_argument("--evals", default="20,60")
    ap.add_argument("--out", default="search-out")
    ap.add_argument("--known", type=float, default=None, help="fid768 of the Gaussian prior of these very noises, measured before")
    ap.add_argument("--no-judge", action="store_true")
    ap.add_argument("--no-buffer-judge", action="store_true")
    a = ap.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(a.seed)
    data = judge.dataset()
    images = np.array(data.images)
    rest = torch.from_numpy(np.setdiff1d(np.arange(len(images)), judge.held_out(len(images))))
    X = torch.from_numpy(images)
    backbone = load_backbone(a.backbone)
    shapes = backbone.latent_shapes
    if a.space == "h":
        level = [level for level in backbone.config.levels if level[2]][-1]
        energy = OfFeatures(level[1], level[0], a.width, a.units)
    else:
        energy = (PerLayer if a.net == "layer" else Joint)(shapes, a.width, a.units)
    ema = copy.deepcopy(energy).requires_grad_(False)
    optimizer = torch.optim.Adam(energy.parameters(), lr=a.lr, betas=(0.9, 0.999), fused=True)
    g = torch.Generator().manual_seed(a.seed)
    potential = Potential(backbone, energy, a.space)
    sizes = [a.size] * len(shapes)
    fresh = lambda n: tuple(torch.randn(n, *s, generator=g) for s in shapes)
    buffer = fresh(a.buffer) if a.buffer else None
    print(a.name, vars(a), "shapes", shapes, flush=True)
    wall, begun, step, phase = time.monotonic(), time.process_time(), 0, "nce" if a.nce else "chains"
    kept = (0, copy.deepcopy(ema.state_dict()))
    while (spent := time.process_time() - begun) < a.seconds:
        share = spent / a.seconds
        if phase == "nce" and share > a.nce:
            phase = "chains"
            print("chains from update", step, flush=True)
        for group in optimizer.param_groups:
            group["lr"] = a.lr * min(1, (step + 1) / 50) * (0.5 * (1 + math.cos(math.pi * share)) + 0.01)
        x = X[rest[torch.randint(len(rest), (a.batch,), generator=g)]].float() / 127.5 - 1
        with torch.no_grad():
            z, white = backbone.posterior_noise(x, fresh(a.batch))
            positive = z if a.space == "z" else potential.seen(white)
        if phase == "nce":
            with torch.no_grad():
                negative = potential.seen(fresh(a.batch))
        else:
            if buffer is None:
                start = fresh(a.batch)
            else:
                index = torch.randint(a.buffer, (a.batch,), generator=g)
                anew = torch.rand(a.batch, generator=g) < a.restart
                start = tuple(torch.where(anew.reshape(-1, 1, 1, 1), f, b[index]) for f, b in zip(fresh(a.batch), buffer))
            energy.requires_grad_(False)
            if a.adapt and step % 10 == 0:
                accepted = probe(start, potential, sizes, g, a.kernel)
                sizes = [min(a.largest, max(1e-3, s * (1.15 if r > a.target else 1 / 1.15))) for s, r in zip(sizes, accepted)]
            end = run(start, potential, sizes, a.steps, g, a.kernel)
            energy.requires_grad_(True)
            if buffer is not None:
                for b, e in zip(buffer, end):
                    b[index] = e
            with torch.no_grad():
                negative = potential.seen(end)
        up, down = energy(positive), energy(negative)
        if phase == "nce":
            loss = F.softplus(up).mean() + F.softplus(-down).mean()
        else:
            loss = up.mean() - down.mean() + a.l2 * (up.square().mean() + down.square().mean())
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(energy.parameters(), 5.0)
        optimizer.step()
        with torch.no_grad():
            torch._foreach_lerp_(list(ema.parameters()), list(energy.parameters()), 1 - min(a.ema, (1 + step) / (10 + step)))
        difference = (up.mean() - down.mean()).item()
        if phase == "chains" and abs(difference) > 100:
            print("diverged at", step, "going back to update", kept[0], flush=True)
            ema.load_state_dict(kept[1])
            break
        if step % 50 == 0:
            if abs(difference) < 20:
                kept = (step, copy.deepcopy(ema.state_dict()))
            print(step, round(spent), phase, "diff %.3f" % (up.mean() - down.mean()).item(), "E+ %.2f sd %.2f" % (up.mean().item(), up.std().item()), "sizes", [round(s, 3) for s in sizes], flush=True)
        step += 1
    cpu, seconds = time.process_time() - begun, time.monotonic() - wall
    stem = f"{a.out}/{a.name}"
    save_file(ema.state_dict(), f"{stem}.safetensors", {"settings": json.dumps(vars(a)), "sizes": json.dumps(sizes), "backbone": a.backbone.split("/")[-1]})
    row = {
        "kind": "energy", **vars(a), "backbone": a.backbone.split("/")[-1], "updates": step, "cpu_seconds": round(cpu, 1), "train_seconds": round(seconds, 1), "sizes": [round(s, 4) for s in sizes],
        "parameters": sum(p.numel() for p in energy.parameters()), "dataset": "cifar10", "device": "cpu-avx512, one core",
        "commit": subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True).stdout.strip(),
    }
    if not a.no_judge:
        judged_potential = Potential(backbone, ema, a.space)
        g = torch.Generator().manual_seed(1000)
        eps = tuple(torch.randn(judge.COUNT, *s, generator=g) for s in shapes)  # the Gaussian prior's of train_backbone
        g = torch.Generator().manual_seed(2000)
        decode = lambda noise: to_uint8(torch.cat([backbone.push_and_decode(tuple(e[i : i + 100] for e in noise))[1] for i in range(0, len(noise[0]), 100)]))
        with torch.no_grad():
            before = decode(eps)
        row["fid768_gaussian"] = a.known or round(judge.fid768(before, data), 4)
        row["fid768_chain"], done, pictures, row["energy_mean"], row["noise_rms"] = {}, 0, [before[:48]], {}, {}
        for length in [int(v) for v in a.evals.split(",")]:
            parts = [run(tuple(e[i : i + 100] for e in eps), judged_potential, sizes, length - done, g, a.kernel) for i in range(0, judge.COUNT, 100)]
            eps, done = tuple(torch.cat(p) for p in zip(*parts)), length
            with torch.no_grad():
                made = decode(eps)
                row["energy_mean"][length] = round(torch.cat([judged_potential(tuple(e[i : i + 100] for e in eps)) for i in range(0, judge.COUNT, 100)]).mean().item(), 2)
            row["noise_rms"][length] = [round(e.square().mean().sqrt().item(), 3) for e in eps]
            pictures.append(made[:48])
            row["fid768_chain"][length] = round(judge.fid768(made, data), 4)
            print("chain", length, row["fid768_chain"][length], flush=True)
        if buffer is not None and not a.no_buffer_judge:
            with torch.no_grad():
                made = decode(tuple(b[: judge.COUNT] for b in buffer))
            pictures.append(made[:48])
            row["fid768_buffer"] = round(judge.fid768(made, data), 4)
        grid(np.concatenate(pictures), f"{stem}.png")
    print(json.dumps(row))
    with open(f"{a.out}/runs.jsonl", "a") as file:
        print(json.dumps(row), file=file)


if __name__ == "__main__":
    main()
