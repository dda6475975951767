"""Train one top-down hierarchy for a number of seconds of one core, and judge its own prior and its posterior.

    python train_backbone.py --name a1 --seconds 720 --levels 1,128,1,32/4,96,2,8/8,64,2,4/16,32,0,0 --sigma 0.2
"""
import argparse, copy, json, math, subprocess, time
from dataclasses import asdict

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save_file

import judge
from topdown import LAST, TopDown, TopDownConfig


def numbers(text, kind=int):
    return tuple(kind(v) for v in text.split(","))


def grid(images, path, columns=16):
    rows = [np.concatenate(list(images[i : i + columns]), 2) for i in range(0, len(images) // columns * columns, columns)]
    Image.fromarray(np.concatenate(rows, 1).transpose(1, 2, 0)).save(path)


def to_uint8(x):
    return ((x.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8).contiguous().numpy()


def main():
    ap = argparse.ArgumentParser()
    ap.add_argument("--name", required=True)
    ap.add_argument("--seconds", help="of CPU time, so that other work on the machine does not count", type=float, default=720)
    ap.add_argument("--levels", default="1,128,1,32/4,96,2,8/8,64,2,4/16,32,0,0")
    ap.add_argument("--enc", default="0,1,1,0")
    ap.add_argument("--dec", default="0,0,0,1")
    ap.add_argument("--out-width", type=int, default=24)
    ap.add_argument("--sigma", default="0.2")
    ap.add_argument("--beta", type=float, default=1.0)
    ap.add_argument("--warm", type=float, default=0.2, help="share of the time in which the KL's weight rises to beta")
    ap.add_argument("--free", default="0", help="free nats of each group, or one for all")
    ap.add_argument("--lr", type=float, default=2e-3)
    ap.add_argument("--batch", type=int, default=64)
    ap.add_argument("--ema", type=float, default=0.999)
    ap.add_argument("--seed", type=int, default=1)
    ap.add_argument("--out", default="search-out")
    ap.add_argument("--no-judge", action="store_true")
    a = ap.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(a.seed)
    data = judge.dataset()
    images = np.array(data.images)
    held = judge.held_out(len(images))
    rest = np.setdiff1d(np.arange(len(images)), held)
    X = torch.from_numpy(images)
    config = TopDownConfig(
        tuple(numbers(level) for level in a.levels.split("/")), numbers(a.enc), numbers(a.dec), a.out_width, numbers(a.sigma, float)
    )
    model = TopDown(config).to(memory_format=LAST)
    parameters = sum(p.numel() for p in model.parameters())
    ema = copy.deepcopy(model).requires_grad_(False)
    optimizer = torch.optim.Adam(model.parameters(), lr=a.lr, betas=(0.9, 0.99), fused=True)
    g = torch.Generator().manual_seed(a.seed)
    order = torch.from_numpy(rest)
    free = torch.tensor(numbers(a.free, float)).expand(len(model.latent_shapes))
    print(a.name, vars(a), "parameters", parameters, flush=True)
    wall, begun, step, at = time.monotonic(), time.process_time(), 0, len(order)
    while (spent := time.process_time() - begun) < a.seconds:
        share = spent / a.seconds
        rate = a.lr * min(1, (step + 1) / 100) * (1 if share < 0.4 else 0.5 * (1 + math.cos(math.pi * (share - 0.4) / 0.6)) + 1e-3)
        for group in optimizer.param_groups:
            group["lr"] = rate
        if at + a.batch > len(order):
            order, at = order[torch.randperm(len(order), generator=g)], 0
        x = X[order[at : at + a.batch]].float() / 127.5 - 1
        at += a.batch
        if torch.rand((), generator=g) < 0.5:
            x = x.flip(3)
        eps = tuple(torch.randn(a.batch, *s, generator=g) for s in model.latent_shapes)
        distortion, kl, _ = model.elbo_terms(x, eps)
        weight = a.beta * min(1.0, 0.02 + share / a.warm) if a.warm else a.beta
        per = kl.mean(1)
        loss = (distortion.mean() + weight * torch.maximum(per, free).sum()) / 1000
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), 2.0)
        if not torch.isfinite(norm):
            print("gradient not finite at", step, flush=True)
            optimizer.zero_grad(set_to_none=True)
            continue
        optimizer.step()
        decay = min(a.ema, (1 + step) / (10 + step))
        with torch.no_grad():
            torch._foreach_lerp_(list(ema.parameters()), list(model.parameters()), 1 - decay)
        step += 1
        if step % 200 == 0:
            print(step, round(spent), "D %.1f" % distortion.mean().item(), "KL", [round(v, 1) for v in per.tolist()], "norm %.2f" % norm.item(), flush=True)
    cpu, seconds = time.process_time() - begun, time.monotonic() - wall
    stem = f"{a.out}/{a.name}"
    save_file({k: v.contiguous() for k, v in ema.state_dict().items()}, f"{stem}.safetensors", {"config": json.dumps(asdict(config))})
    row = {
        "kind": "backbone", **vars(a), "parameters": parameters, "updates": step, "epochs": round(step * a.batch / len(rest), 2),
        "cpu_seconds": round(cpu, 1), "train_seconds": round(seconds, 1), "device": "cpu-avx512, one core", "dataset": "cifar10",
        "commit": subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True).stdout.strip(),
    }
    if not a.no_judge:
        row |= judged(ema, X[held], data, stem)
    print(json.dumps(row))
    with open(f"{a.out}/runs.jsonl", "a") as file:
        print(json.dumps(row), file=file)


@torch.no_grad()
def judged(model, x, data, stem, seed=0):
    g = torch.Generator().manual_seed(1000 + seed)
    eps = tuple(torch.randn(len(x), *s, generator=g) for s in model.latent_shapes)
    prior = torch.cat([model.push_and_decode(tuple(e[i : i + 100] for e in eps))[1] for i in range(0, len(x), 100)])
    decoded, kls, ds = [], [], []
    for i in range(0, len(x), 100):
        part = x[i : i + 100].float() / 127.5 - 1
        noise = tuple(torch.randn(len(part), *s, generator=g) for s in model.latent_shapes)
        z, kl, _, h, _ = model._infer(part, noise)
        mean = model._image(h)
        decoded.append(mean)
        kls.append(torch.stack(kl).mean(1))
        ds.append((mean - part).square().mean())
    a, b = to_uint8(prior), to_uint8(torch.cat(decoded))
    grid(np.concatenate([x[:32].numpy(), b[:32], a[:96]]), f"{stem}.png")
    return {
        "kl": [round(v, 2) for v in torch.stack(kls).mean(0).tolist()],
        "mse01": round(torch.stack(ds).mean().item() / 4, 5),
        "fid768_gaussian": round(judge.fid768(a, data), 4),
        "fid768_posterior": round(judge.fid768(b, data), 4),
    }


if __name__ == "__main__":
    main()
