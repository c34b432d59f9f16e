"""Step 2: from token ids to weights.

Every epoch cuts the training row into windows at a new offset and shuffles them. The learning rate rises, then falls to
zero along a cosine, and the last weights are the result: the held-out loss is watched, never chosen by, so that it
stays a fair measure. Writes `weights.pt` and `log.jsonl` into the work folder.
"""

import argparse
import json
import math
import os
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from bench.running.program import run_program
from scripts.train.model import Llama, Shape
from scripts.train.prepare import Tokens

EVALUATE_EVERY = 250
N_WARMUP = 100  # steps in which the learning rate rises


def windows(row: Tokens, n_ctx: int, n_batch: int, rng: np.random.Generator) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield one epoch of inputs and targets, each `(n_batch, n_ctx)`, in random order."""
    starts = np.arange(rng.integers(n_ctx), len(row) - n_ctx, n_ctx)
    rng.shuffle(starts)
    for index in range(0, len(starts) - n_batch + 1, n_batch):
        picked = np.stack([row[start : start + n_ctx + 1] for start in starts[index : index + n_batch]])
        block = torch.from_numpy(picked.astype(np.int64))
        yield block[:, :-1], block[:, 1:]


def learning_rate(step: int, n_steps: int, peak: float) -> float:
    """Return the rate of this step: a linear rise over `N_WARMUP` steps, then half a cosine down to zero."""
    if step < N_WARMUP:
        return peak * (step + 1) / N_WARMUP
    return peak * 0.5 * (1 + math.cos(math.pi * (step - N_WARMUP) / (n_steps - N_WARMUP)))


def optimizers(model: Llama, lr: float, decay: float) -> list[torch.optim.Optimizer]:
    """Return Muon for the layers' matrices and AdamW for the embedding and the norms."""
    hidden = [weight for weight in model.blk.parameters() if weight.dim() == 2]
    norms = [weight for weight in model.parameters() if weight.dim() == 1]
    groups = [
        {"params": [model.token_embd.weight], "weight_decay": decay},
        {"params": norms, "weight_decay": 0.0},
    ]
    return [
        torch.optim.Muon(hidden, lr=lr, weight_decay=decay, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(groups, lr=lr, betas=(0.9, 0.95), fused=True),
    ]


def evaluate(model: Llama, row: Tokens, n_ctx: int, n_batch: int, device: torch.device) -> float:
    """Return the mean loss over a row cut into windows without overlap (coarser than `ggufphys bench quality`)."""
    batches = windows(row, n_ctx, n_batch, np.random.default_rng(0))
    with torch.no_grad(), torch.autocast(device.type, torch.bfloat16):
        losses = [float(model(tokens.to(device), targets.to(device))) for tokens, targets in batches]
    return sum(losses) / len(losses)


def main() -> None:
    """Train and write the weights."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--work", type=Path, default=Path("build/train"), help="the work folder")
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--batch", type=int, default=12, help="sequences a step")
    parser.add_argument("--lr", type=float, default=4e-3, help="peak learning rate")
    parser.add_argument("--decay", type=float, default=0.1, help="weight decay")
    parser.add_argument("--steps", type=int, help="stop the schedule after so many steps")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--compile", action=argparse.BooleanOptionalAction, default=True)
    args = parser.parse_args()

    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    torch.manual_seed(args.seed)
    rng = np.random.default_rng(args.seed)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    train: Tokens = np.load(args.work / "train.npy")
    held_out: Tokens = np.load(args.work / "held_out.npy")
    shape = Shape()
    model = Llama(shape).to(device)
    forward = torch.compile(model) if args.compile else model
    optims = optimizers(model, args.lr, args.decay)
    steps_an_epoch = (len(train) // shape.n_ctx_train - 1) // args.batch
    n_steps = args.steps or args.epochs * steps_an_epoch

    step, began = 0, time.monotonic()
    with (args.work / "log.jsonl").open("w") as log:
        while step < n_steps:
            for tokens, targets in windows(train, shape.n_ctx_train, args.batch, rng):
                with torch.autocast(device.type, torch.bfloat16):
                    loss = forward(tokens.to(device), targets.to(device))
                loss.backward()
                torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
                for optim in optims:
                    for group in optim.param_groups:
                        group["lr"] = learning_rate(step, n_steps, args.lr)
                    optim.step()
                    optim.zero_grad()
                step += 1
                record = {"step": step, "seconds": round(time.monotonic() - began, 1), "loss": round(loss.item(), 4)}
                if step % EVALUATE_EVERY == 0 or step == n_steps:
                    n_batch = min(args.batch, 8)
                    record["held_out"] = round(evaluate(model, held_out, shape.n_ctx_train, n_batch, device), 4)
                    save(args.work / "weights.pt", model)
                    print(record, f"of {n_steps} steps", flush=True)
                print(json.dumps(record), file=log, flush=True)
                if step == n_steps:
                    break


def save(path: Path, model: Llama) -> None:
    """Write the shape and the weights, whole or not at all."""
    partial = path.with_suffix(".partial")
    torch.save({"shape": asdict(model.shape), "weights": model.state_dict()}, partial)
    partial.replace(path)


if __name__ == "__main__":
    run_program(main)
