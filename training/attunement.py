"""Stage 2: attribute-level contrast on single-lesion records, with soft targets.

Rows are (kept frame, finding sentence). Targets are softmax(attribute similarity / tau), so that
two lesions described alike are not pushed apart. Beside them stand class sentences - what a
report says of the whole record - with class-aware targets: "with polyps" / "without polyps" for
every row, and the endoscopist's impression where the report gives one (recipe
``attunement.impression``). Histology never enters the attribute vector.

Two arms take its place in comparisons: ``targets = "one_hot"`` changes the targets and nothing
else; ``targets = "plain"`` is CLIP as it is: identity targets over all that a record says,
multi-lesion and polyp-free records included, no class sentences.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from training.batches import FrameStore, augment
from training.claims import opinion_sentence, presence_sentence
from training.config import AttunementConfig
from training.errors import ConfigError
from training.loop import Schedule, rng_for, train
from training.losses import (
    attribute_similarity,
    class_aware_targets,
    contrastive_loss,
    effective_targets,
    soft_targets,
)
from training.model import EndoClip, parameter_groups, save_weights, train_mode
from training.reading import Exam, Lesion, similarity_tables

__all__ = ["Batch", "Sampler", "attune", "batch_targets", "effective_band"]


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
    """

    def __init__(
        self, exams: Sequence[Exam], kept: Mapping[str, list[Path]], config: AttunementConfig
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
        frames += [e.frames[rng.integers(len(e.frames))] for e in others]
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


def _losses(
    model: EndoClip,
    tokenize: Any,
    images: Tensor,
    batch: Batch,
    targets: Tensor,
    config: AttunementConfig,
) -> dict[str, Tensor]:
    """Encode all texts of the step once and compute the named losses."""
    b = len(batch.texts)
    if config.targets == "plain":
        texts = model.encode_ids(tokenize(batch.texts))
        loss = contrastive_loss(images[:b], texts, model.logit_scale, targets, targets)
        return {"finding_loss": loss}
    known = torch.nonzero(batch.opinions >= 0).flatten()
    told = [batch.opinion_texts[i] for i in known.tolist()]
    distinct = list(dict.fromkeys(batch.presence_texts))
    encoded = model.encode_ids(tokenize(batch.texts + told + distinct))
    findings, opinions, presence = encoded.split([b, len(told), len(distinct)])
    scale = model.logit_scale
    losses = {
        "finding_loss": contrastive_loss(
            images[:b], findings, scale, targets, targets.T / targets.sum(0)[:, None]
        )
    }
    kinds = torch.stack([batch.presence[batch.presence_texts.index(text)] for text in distinct])
    losses["presence_loss"] = config.class_weight * _class_contrast(
        images, presence, scale, batch.presence, kinds
    )
    if len(told) > 1:
        classes = batch.opinions[known]
        losses["opinion_loss"] = config.class_weight * _class_contrast(
            images[known], opinions, scale, classes, classes
        )
    return losses


def _class_contrast(
    images: Tensor, texts: Tensor, scale: Tensor, rows: Tensor, columns: Tensor
) -> Tensor:
    """Image-to-text contrast with class-aware targets: texts of the same claim share the mass."""
    logits = scale * images @ texts.T
    target = class_aware_targets(rows, columns)
    told = target.sum(-1) > 0  # a row whose claim no text of the step makes says nothing
    if not bool(told.any()):
        return logits.sum() * 0.0
    # -log of the summed mass over the texts of the row's class: which of several equal claims is
    # picked does not matter, only that none of the other class is.
    logp = torch.log_softmax(logits[told], -1)
    return -torch.logsumexp(logp.masked_fill(target[told] <= 0, -1e9), -1).mean()


def attune(
    folder: Path,
    model: EndoClip,
    tokenize: Any,
    store: FrameStore,
    sampler: Sampler,
    schedule: Schedule,
) -> dict[str, Any]:
    """Train stage 2 and write ``weights.pt``.

    Returns:
        Figures for the stamp: rows, effective-target quartiles, last losses.
    """
    config = sampler.config
    tables = similarity_tables()
    quartiles = effective_band(sampler, 20, schedule.seed)
    most = max(config.batch / 4, 4.0)  # 8 of 32; a toy batch cannot be held to a quarter
    if config.targets == "soft" and not 2.0 <= quartiles[1] <= most:
        raise ConfigError(
            f"attunement.tau = {config.tau:g}: expected a median of 2 to {most:g} effective "
            f"targets of {config.batch}, found {quartiles[1]:.1f}; "
            + ("raise" if quartiles[1] < 2 else "lower")
            + " it"
        )

    def losses(_step: int, rng: np.random.Generator) -> Mapping[str, Tensor]:
        batch = sampler.draw(rng)
        targets = batch_targets(batch, config, tables)
        pixels = augment(store.get(batch.frames), store.contract, config.px, rng, keep_shape=True)
        named = _losses(model, tokenize, model.encode_images(pixels), batch, targets, config)
        return named | {"effective_targets": effective_targets(targets).median()}

    train_mode(model)
    history = train(folder, "attunement", model, parameter_groups(model), schedule, losses)
    save_weights(model, folder / "weights.pt")
    return {
        "rows": len(sampler.rows),
        "effective_targets_quartiles": quartiles,
        "last_loss": float(np.mean(history[-20:])),
    }
