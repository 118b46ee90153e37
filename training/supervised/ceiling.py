"""A supervised fine-tune of the recipe's image tower, and its figures beside a bundle's zero-shot.

The tower starts where cleansing starts (ImageNet), with as many layers frozen, the same pixels and
augmentation, and learns two labels from the items of the train part: a polyp is visible, and the
lesion is neoplastic. No report and no sentence is involved. Steps draw every class of every task
alike; an item counts for the tasks whose truth is known. Windows and whole-frame views come with
the archive, crops and frames with the data; the data's whole frames always show a polyp, so they
teach malignancy alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor, nn

from model_store.encoder import Encoder
from training.batches import Augmentation, FrameStore, plain
from training.config import ModelConfig
from training.errors import ArchiveRefused
from training.evaluate import TASKS, frame_margins, truth
from training.items import Embedded, Item
from training.loop import Schedule
from training.metrics import auroc, auroc_interval, paired_interval
from training.model import EndoClip, build, freeze, load_spec, train_mode

__all__ = ["Settings", "ceiling_figures", "ceiling_table", "score_items", "train_ceiling"]

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Settings:
    """How the tower is tuned.

    Attributes:
        epochs: Items drawn, in multiples of their number.
        batch: Items a step.
        lr: Peak learning rate of the tower; the new outputs learn four times as fast.
        px: Side of the training pixels.
        seed: Of weights, order and augmentation.
    """

    epochs: float = 7.0
    batch: int = 32
    lr: float = 3e-4
    px: int = 176
    seed: int = 1


class Ceiling(nn.Module):
    """The image tower with one logit a task, in the order of ``TASKS``."""

    def __init__(self, model: EndoClip) -> None:
        super().__init__()
        self.model = model
        self.outputs = nn.Linear(model.dim, len(TASKS))

    def forward(self, pixels: Tensor) -> Tensor:
        """(b, 3, s, s) normalised pixels -> (b, 2) logits."""
        return torch.as_tensor(self.outputs(self.model.clip.visual(pixels).float()))


def train_ceiling(
    items: Sequence[Item], towers: ModelConfig, settings: Settings
) -> tuple[Ceiling, FrameStore]:
    """Fine-tune on labelled items.

    Args:
        items: Of the train part; whatever is not known of them is left out.
        towers: Gives the architecture and its frozen layers.
        settings: Steps and rates.

    Returns:
        The model in evaluation mode, and the store its frames came from.

    Raises:
        ArchiveRefused: The items lack a class of a task.
        FrameUnreadable: An item cannot be read.
    """
    labels, known = _labels(items)
    chances = _chances(labels, known)
    torch.manual_seed(settings.seed)
    spec = load_spec(towers.config)
    model, _ = build(spec, towers.weights or None if towers.pretrained else None, towers.pretrained)
    freeze(model, towers.frozen_blocks, towers.frozen_text_layers)
    ceiling = Ceiling(model.to(memory_format=torch.channels_last))
    store = FrameStore(spec.contract)
    visual = [p for p in model.clip.visual.parameters() if p.requires_grad]
    groups = [{"params": visual}, {"params": list(ceiling.outputs.parameters())}]
    optimiser = torch.optim.AdamW(groups, settings.lr, weight_decay=0.01)
    steps = max(1, round(settings.epochs * len(items) / settings.batch))
    schedule = Schedule(steps, settings.lr, settings.seed, 0.0)
    rng = np.random.default_rng([settings.seed, 0x5093])
    train_mode(model)
    with _bar() as progress:
        for step in progress.track(range(steps), description="supervised"):
            rows = rng.choice(len(items), settings.batch, p=chances)
            look = Augmentation.draw(len(rows), rng, keep_shape=False)
            frames = store.get([items[i].path for i in rows])
            logits = ceiling(look.apply(frames, store.contract, settings.px))
            loss = F.binary_cross_entropy_with_logits(logits, labels[rows], known[rows].float())
            for group, factor in zip(optimiser.param_groups, (1.0, 4.0), strict=True):
                group["lr"] = settings.lr * factor * schedule.factor(step)
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            nn.utils.clip_grad_norm_([p for g in groups for p in g["params"]], 1.0)
            optimiser.step()
    return ceiling.eval(), store


def _labels(items: Sequence[Item]) -> tuple[Tensor, Tensor]:
    """Truth (n, 2) float and whether it counts (n, 2) bool."""
    pairs = [truth(task, items) for task in TASKS]
    # The data's whole frames have no negative of their endoscopes: they would teach the source.
    mixed = np.array([item.kind != "frame" for item in items])
    pairs[0] = (pairs[0][0], pairs[0][1] & mixed)
    labels, known = (torch.from_numpy(np.stack(columns, 1)) for columns in zip(*pairs, strict=True))
    return labels.float(), known


def _chances(labels: Tensor, known: Tensor) -> Floats:
    """Chances (n,) of being drawn: every class of every task has the same share."""
    chances = np.zeros(len(labels))
    for k, task in enumerate(TASKS):
        for value in (0.0, 1.0):
            rows = (known[:, k] & (labels[:, k] == value)).numpy()
            if not rows.any():
                raise ArchiveRefused(f"{task}: expected train items of both classes, found one")
            chances[rows] += 1.0 / rows.sum()
    return np.asarray(chances / chances.sum())


def score_items(ceiling: Ceiling, store: FrameStore, items: Sequence[Item]) -> Floats:
    """Logits (n, 2) of items at the contract's full size, without augmentation."""
    side, rows = store.contract.size, []
    with torch.inference_mode():
        for start in range(0, len(items), 32):
            frames = store.get([item.path for item in items[start : start + 32]])
            rows.append(ceiling(plain(frames, store.contract, side)).double().numpy())
    return np.concatenate(rows)


def ceiling_figures(
    items: Sequence[Item], logits: Floats, zero_shot: tuple[Encoder, Embedded] | None = None
) -> dict[str, Any]:
    """AUROC by kind of item and task, and a bundle's lead over it on the same items.

    Args:
        items: Of the measured part.
        logits: (n, 2) from ``score_items``.
        zero_shot: A bundle and the items through it. An item that its gate sets aside has the
            margin that its embedding would have had.

    Returns:
        By kind, by task: ``items``, ``supervised`` (``auroc`` with interval) and, with a bundle,
        ``zero_shot`` and ``lead`` with the paired interval over source groups.
    """
    figures: dict[str, Any] = {}
    kinds = np.array([item.kind for item in items])
    for kind in sorted(set(kinds.tolist())):
        for k, task in enumerate(TASKS):
            y, known = truth(task, items)
            rows = np.flatnonzero(known & (kinds == kind)).tolist()
            told = y[rows]
            if not 0 < told.sum() < len(told):
                continue
            units = [(items[i].group,) for i in rows]
            one: dict[str, Any] = {"items": len(rows)}
            one["supervised"] = _area(told, logits[rows, k], units)
            if zero_shot is not None:
                margins = frame_margins(zero_shot[0], task, zero_shot[1])[rows]
                one["zero_shot"] = _area(told, margins, units)
                low, high = paired_interval(told, margins, logits[rows, k], units)
                lead = one["zero_shot"]["auroc"] - one["supervised"]["auroc"]
                one["lead"] = {"value": lead, "low": low, "high": high}
            figures.setdefault(kind, {})[task] = one
    return figures


def _area(y: npt.NDArray[np.bool_], score: Floats, units: Any) -> dict[str, float]:
    low, high = auroc_interval(y, score, units)
    return {"auroc": auroc(y, score), "low": low, "high": high}


def ceiling_table(figures: dict[str, Any]) -> str:
    """The figures as Markdown, one row a kind and task."""
    lines = [
        "| items | task | supervised (95 %) | zero-shot (95 %) | lead of zero-shot (95 %) |",
        "|---|---|---|---|---|",
    ]
    for kind, tasks in figures.items():
        for task, one in tasks.items():
            row = [f"{kind} ({one['items']})", task, _told(one["supervised"]), "-", "-"]
            if "zero_shot" in one:
                row[3], lead = _told(one["zero_shot"]), one["lead"]
                row[4] = f"{lead['value']:+.3f} ({lead['low']:+.3f} to {lead['high']:+.3f})"
            lines.append("| " + " | ".join(row) + " |")
    return "\n".join(lines)


def _told(area: dict[str, float]) -> str:
    return f"{area['auroc']:.3f} ({area['low']:.3f}-{area['high']:.3f})"


def _bar() -> Progress:
    return Progress(
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    )
