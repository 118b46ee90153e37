"""Stage 2: attribute-level contrast on single-lesion records, with soft targets.

Rows are (kept frame, finding sentence). Targets are softmax(attribute similarity / tau), so that
two lesions described alike are not pushed apart. Beside them stand class sentences - what a
report says of the whole record - with class-aware targets: "with polyps" / "without polyps" for
every row, and the endoscopist's impression where the report gives one (recipe
``attunement.impression``). Histology never enters the attribute vector.

Two arms take its place in comparisons: ``targets = "one_hot"`` changes the targets and nothing
else; ``targets = "plain"`` is CLIP as it is: identity targets over all that a record says,
multi-lesion and polyp-free records included, no class sentences.

With ``runs`` above 1 the stage is trained as often, each time from stage 1's weights with another
order and other augmentation, and the weights are averaged ("model soups", Wortsman et al., ICML
2022): runs from one start stay close enough for their mean to be a model, and it errs less than
any of them. The paper does not do this; we do, because a few hundred lesions shown ten times over
are learned by heart, and each run learns other accidents.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from training.batches import Augmentation
from training.claims import opinion_sentence, presence_sentence
from training.config import AttunementConfig
from training.errors import ConfigError
from training.feed import rng_for
from training.loop import Schedule, train
from training.losses import (
    attribute_similarity,
    class_aware_targets,
    contrastive_loss,
    effective_targets,
    soft_targets,
)
from training.model import EndoClip, save_weights
from training.reading import Exam, Lesion, similarity_tables
from training.step import Bench, Encoded, Step

__all__ = [
    "AttunementTask",
    "Batch",
    "Sampler",
    "attune",
    "batch_targets",
    "check_band",
    "effective_band",
]

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Batch:
    """One step's rows: lesion rows first, then background rows.

    Attributes:
        frames: (b + g) paths.
        lesions: The b lesion rows' findings; a background row has none.
        texts: The b finding texts; in the plain arm (b + g) texts, background rows included.
        presence: (b + g) classes, 0 with polyps, 1 without.
        presence_texts: (b + g) sentences true of each row's record.
        opinions: (b,) 0 neoplastic, 1 non-neoplastic, -1 none.
        opinion_texts: (b,) impression sentences, "" where none.
    """

    frames: list[Path]
    lesions: list[Lesion]
    texts: list[str]
    presence: Tensor
    presence_texts: list[str]
    opinions: Tensor
    opinion_texts: list[str]


class Sampler:
    """Draws batches: impressions balanced, half of the batches from a single source.

    Args:
        exams: Train exams.
        kept: Kept frames by record id.
        config: Stage settings.
        hard: Frames of polyp-free exams that stage 1 took most for lesions.
    """

    def __init__(
        self,
        exams: Sequence[Exam],
        kept: Mapping[str, list[Path]],
        config: AttunementConfig,
        hard: Collection[Path] = (),
    ) -> None:
        self.config = config
        plain = config.targets == "plain"
        # The plain arm takes every record as it is; soft targets need one lesion per record.
        chosen = [
            e
            for e in exams
            if kept.get(e.record_id) and (len(e.lesions) == 1 or (plain and e.lesions))
        ]
        self.rows = [(e, _merged(e.lesions), kept[e.record_id]) for e in chosen]
        self.negatives = [e for e in exams if not e.positive]
        if len(self.rows) < 2 or not self.negatives:
            raise ConfigError(
                "attunement needs single-lesion and polyp-free records; too few found"
            )
        self.sources = self._single_sources()
        self._hard = [(e, f) for e in self.negatives for f in e.frames if f in hard]

    def _single_sources(self) -> dict[str, float]:
        """Sources that can fill a batch alone, each with its share of the records.

        Drawn frames never do: with an equal share they would be a sixth of what is trained on.
        """
        lesions = Counter(e.source for e, _, _ in self.rows)
        free = Counter(e.source for e in self.negatives)
        enough = {
            source: count
            for source, count in lesions.items()
            if source != "phantom" and count >= self.config.batch // 2 and free[source] > 1
        }
        return {source: count / sum(enough.values()) for source, count in enough.items()}

    def draw(self, rng: np.random.Generator) -> Batch:
        """One batch; everything random comes from ``rng``."""
        pool = list(range(len(self.rows)))
        free = self.negatives
        if self.sources and rng.random() < self.config.single_source:
            source = str(rng.choice(list(self.sources), p=list(self.sources.values())))
            pool = [i for i in pool if self.rows[i][0].source == source]
            free = [e for e in free if e.source == source]
        rows = [self.rows[i] for i in self._balanced(pool, rng)]
        others = [free[i] for i in rng.integers(len(free), size=self.config.background)]
        frames = [kept[rng.integers(len(kept))] for _, _, kept in rows]
        backgrounds = [e.frames[rng.integers(len(e.frames))] for e in others]
        sources = {e.source for e in free}
        hard = [pair for pair in self._hard if pair[0].source in sources]
        for row in range(round(self.config.hard_background * len(others)) if hard else 0):
            others[row], backgrounds[row] = hard[rng.integers(len(hard))]
        frames += backgrounds
        presence = [0] * len(rows) + [1] * len(others)
        texts = [lesion.text for _, lesion, _ in rows]
        if self.config.targets == "plain":
            # Each row's text is all that its record says, and a polyp-free record says
            # something too.
            if self.config.impression:
                texts = [f"{x.text} {x.opinion_text}".strip() for _, x, _ in rows]
            texts += [e.normal_text for e in others]
        opinions, told = [], []
        for _, lesion, _ in rows:
            use = self.config.impression and lesion.opinion >= 0
            opinions.append(lesion.opinion if use else -1)
            told.append(opinion_sentence(lesion.opinion, lesion.opinion_text, rng) if use else "")
        return Batch(
            frames=frames,
            lesions=[lesion for _, lesion, _ in rows],
            texts=texts,
            presence=torch.tensor(presence),
            presence_texts=[presence_sentence(c, rng) for c in presence],
            opinions=torch.tensor(opinions),
            opinion_texts=told,
        )

    def _balanced(self, pool: list[int], rng: np.random.Generator) -> list[int]:
        """Equal shares of neoplastic, non-neoplastic and unstated rows, as far as there are any.

        Both arms draw by the same report-derived classes when impressions are used; the withheld
        arm must not, or the sampling would carry the label.
        """
        classes: dict[int, list[int]] = {}
        for i in pool:
            key = self.rows[i][1].opinion if self.config.impression else -1
            classes.setdefault(key, []).append(i)
        order = sorted(classes)
        return [
            classes[order[j % len(order)]][rng.integers(len(classes[order[j % len(order)]]))]
            for j in range(self.config.batch)
        ]


def _merged(lesions: Sequence[Lesion]) -> Lesion:
    """A record's only lesion, or (plain arm) all of them as one text."""
    if len(lesions) == 1:
        return lesions[0]
    return Lesion(
        text=" ".join(lesion.text for lesion in lesions),
        codes=tuple(-1 for _ in lesions[0].codes),
        opinion=-1,
        opinion_text=" ".join(lesion.opinion_text for lesion in lesions).strip(),
    )


def batch_targets(batch: Batch, config: AttunementConfig, tables: list[Tensor]) -> Tensor:
    """Target rows (b, b) of a batch: attribute-soft, or the identity in the two other arms."""
    if config.targets != "soft":
        return torch.eye(len(batch.texts))
    codes = torch.tensor([lesion.codes for lesion in batch.lesions])
    similarity = attribute_similarity(codes, codes, tables, config.minimum_joint)
    same = torch.tensor([[a == b for b in batch.texts] for a in batch.texts])
    return soft_targets(similarity, config.tau, same)


def effective_band(sampler: Sampler, batches: int, seed: int) -> tuple[float, float, float]:
    """Quartiles of the effective number of targets over a recipe's real batches.

    The stage teaches nothing near the batch size and is one-hot again near 1; the default recipe
    must keep its median within 2-8 of 32.
    """
    tables = similarity_tables()
    found = [
        effective_targets(
            batch_targets(sampler.draw(rng_for(seed, "attunement", i)), sampler.config, tables)
        )
        for i in range(batches)
    ]
    quartiles = np.quantile(torch.cat(found).numpy(), [0.25, 0.5, 0.75])
    return float(quartiles[0]), float(quartiles[1]), float(quartiles[2])


@dataclass(frozen=True)
class _Told:
    """What the losses of a step need: its rows, target rows (b, b), and which texts are whose."""

    batch: Batch
    targets: Tensor
    opinions: list[str]
    presence: list[str]


class AttunementTask:
    """The stage's task (``training.step.Task``).

    Args:
        sampler: Draws the rows.
        run: Which of the stage's runs this is, from 1; each has a random stream of its own.
    """

    def __init__(self, sampler: Sampler, run: int = 1) -> None:
        self.name = "attunement" if run == 1 else f"attunement{run}"
        self.sampler = sampler
        self.px = sampler.config.px
        self._tables = similarity_tables()

    def draw(self, rng: np.random.Generator) -> Step:
        """Lesion frames, background frames and their texts."""
        config, batch = self.sampler.config, self.sampler.draw(rng)
        targets = batch_targets(batch, config, self._tables)
        look = Augmentation.draw(len(batch.frames), rng, keep_shape=True)
        opinions, presence = [], []
        if config.targets != "plain":
            stated = zip(batch.opinion_texts, batch.opinions.tolist(), strict=True)
            opinions = [text for text, opinion in stated if opinion >= 0]
            presence = list(dict.fromkeys(batch.presence_texts))
        texts = [*batch.texts, *opinions, *presence]
        return Step(batch.frames, look, texts, _Told(batch, targets, opinions, presence))

    def losses(self, model: EndoClip, encoded: Encoded, told: _Told) -> dict[str, Tensor]:
        """Named losses over all rows."""
        batch, images, scale = told.batch, encoded.images, model.logit_scale
        b, weight = len(batch.texts), self.sampler.config.class_weight
        findings, opinions, presence = encoded.texts.split(
            [b, len(told.opinions), len(told.presence)]
        )
        targets = told.targets.to(images.device)
        plain = self.sampler.config.targets == "plain"
        backward = targets if plain else targets.T / targets.sum(0)[:, None]
        losses = {
            "finding_loss": contrastive_loss(images[:b], findings, scale, targets, backward),
            "effective_targets": effective_targets(told.targets).median(),
        }
        if plain:
            return losses
        kinds = torch.stack([batch.presence[batch.presence_texts.index(x)] for x in told.presence])
        losses["presence_loss"] = weight * _class_contrast(
            images, presence, scale, batch.presence, kinds
        )
        if len(told.opinions) > 1:
            known = torch.nonzero(batch.opinions >= 0).flatten()
            classes = batch.opinions[known]
            losses["opinion_loss"] = weight * _class_contrast(
                images[known], opinions, scale, classes, classes
            )
        return losses


def _class_contrast(
    images: Tensor, texts: Tensor, scale: Tensor, rows: Tensor, columns: Tensor
) -> Tensor:
    """Image-to-text contrast with class-aware targets: texts of the same claim share the mass.

    Args:
        images: (b, d) unit rows.
        texts: (c, d) unit rows.
        scale: Scalar logit scale.
        rows: (b,) classes of the images, on the CPU.
        columns: (c,) classes of the texts, on the CPU.
    """
    logits = scale * images @ texts.T
    target = class_aware_targets(rows, columns)
    told = target.sum(-1) > 0  # a row whose claim no text of the step makes says nothing
    if not bool(told.any()):
        return logits.sum() * 0.0
    # -log of the summed mass over the texts of the row's class: which of several equal claims is
    # picked does not matter, only that none of the other class is.
    logp = torch.log_softmax(logits[told], -1)
    other = (target[told] <= 0).to(logits.device)
    return -torch.logsumexp(logp.masked_fill(other, -1e9), -1).mean()


def check_band(config: AttunementConfig, median: float) -> None:
    """Judge the effective number of targets before a step is trained.

    Targets that are nearly one-hot (reports that state little, attributes dropped on purpose) train
    as CLIP does, with a warning; a hospital's run must not end there after hours of cleansing.

    Args:
        config: Stage settings.
        median: From ``effective_band``.

    Raises:
        ConfigError: Targets are so soft that nothing is told apart.
    """
    most = max(config.batch / 4, 4.0)  # 8 of 32; a toy batch cannot be held to a quarter
    told = (
        f"attunement.tau = {config.tau:g}: expected a median of 2 to {most:g} effective "
        f"targets of {config.batch}, found {median:.1f}"
    )
    if config.targets == "soft" and median > most:
        raise ConfigError(f"{told}; lower it")
    if config.targets == "soft" and median < 2:
        log.warning("%s: nearly one-hot; raise it, or lower attunement.minimum_joint", told)


def attune(folder: Path, bench: Bench, sampler: Sampler, schedule: Schedule) -> dict[str, Any]:
    """Train stage 2 and write ``weights.pt``.

    Returns:
        Figures for the stamp: rows, effective-target quartiles, last losses of the last run.

    Raises:
        ConfigError: As ``check_band``.
    """
    quartiles = effective_band(sampler, 20, schedule.seed)
    check_band(sampler.config, quartiles[1])
    runs, first = sampler.config.runs, _copied(bench.model)
    mean: dict[str, Tensor] = {}
    for run in range(1, runs + 1):
        bench.model.load_state_dict(first)
        history = train(folder, AttunementTask(sampler, run), bench, schedule)
        for name, value in bench.model.state_dict().items():
            if not value.is_floating_point():  # a count of batches, the same in every run
                mean[name] = value.clone()
            else:
                mean[name] = mean.get(name, torch.zeros_like(value)) + value / runs
    bench.model.load_state_dict(mean)
    save_weights(bench.model, folder / "weights.pt")
    return {
        "rows": len(sampler.rows),
        "effective_targets_quartiles": quartiles,
        "last_loss": float(np.mean(history[-20:])),
    }


def _copied(model: EndoClip) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in model.state_dict().items()}
