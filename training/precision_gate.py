"""The second gate of lower-precision graphs: what scores would lose by them.

Named sets are scored on class embeddings of the fp32 text tower, so their figures do not show the
int8 text graph that ships: the same prompts go through it, as a caller's would. An int8 image graph
is looked at before it takes the other's place; all later figures are its own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from model_store.encoder import Encoder
from model_store.scoring import cosines, margin
from training.errors import ParityError
from training.evaluate import TASKS, truth
from training.items import Embedded
from training.metrics import auroc
from training.precision import MINIMUM_COSINE

__all__ = ["MOST_AUROC_LOSS", "gate_images", "gate_prompts"]

MOST_AUROC_LOSS = 0.002

LEAST_PAIRS = 2500
"""Positive-negative pairs below which a loss is recorded and not judged: five swapped pairs would
be all of the limit, and near ties swap by rounding (drawn archives: some hundred pairs)."""

Rows = npt.NDArray[np.float32]
Classes = Mapping[str, Rows]


def gate_prompts(
    encoder: Encoder, found: Sequence[Embedded], reference: Classes, lower: Classes
) -> dict[str, float]:
    """Compare AUROCs under class embeddings of the fp32 and the lower-precision text graph.

    Args:
        encoder: Gives the label sets and the logit scale.
        found: Items, of parts that are not kept for closing figures.
        reference: Label set -> (k, d) unit class embeddings, fp32 graph.
        lower: The same of the candidate.

    Returns:
        By task, ``text_auroc_loss_<task>``: the reference's AUROC minus the candidate's; below 0
        where the candidate is the better one. A task whose items lack a class is left out.

    Raises:
        ParityError: A loss, measured on at least ``LEAST_PAIRS``, is beyond ``MOST_AUROC_LOSS``.
    """
    return _losses("text", encoder, (found, reference), (found, lower))


def gate_images(
    encoder: Encoder, reference: Sequence[Embedded], lower: Sequence[Embedded]
) -> dict[str, float]:
    """Compare embeddings and AUROCs of the fp32 and the lower-precision image graph.

    Args:
        encoder: Gives the label sets, their class embeddings and the logit scale.
        reference: Items through the fp32 graph, of parts not kept for closing figures.
        lower: The same items through the candidate.

    Returns:
        ``image_cosine_min``, and by task ``image_auroc_loss_<task>`` as from ``gate_prompts``.

    Raises:
        ParityError: The smallest cosine is below ``MINIMUM_COSINE``, or a loss, measured on at
            least ``LEAST_PAIRS``, is beyond ``MOST_AUROC_LOSS``.
    """
    least = min(
        float((one.embeddings * other.embeddings).sum(axis=1)[one.scored].min(initial=1.0))
        for one, other in zip(reference, lower, strict=True)
    )
    if not least >= MINIMUM_COSINE:
        raise ParityError(1.0 - least, 1.0 - MINIMUM_COSINE, "lower-precision image tower")
    classes = encoder.bundle.class_embeddings
    losses = _losses("image", encoder, (reference, classes), (lower, classes))
    return {"image_cosine_min": least} | losses


def _losses(
    name: str, encoder: Encoder, *sides: tuple[Sequence[Embedded], Classes]
) -> dict[str, float]:
    """AUROC by task of the first side minus that of the second, each items and classes."""
    losses: dict[str, float] = {}
    for task in TASKS:
        (first, pairs), (second, _) = (_auroc(encoder, task, *side) for side in sides)
        if pairs == 0:
            continue
        loss = losses[f"{name}_auroc_loss_{task}"] = first - second
        if pairs >= LEAST_PAIRS and not loss <= MOST_AUROC_LOSS:
            raise ParityError(loss, MOST_AUROC_LOSS, f"{name}_auroc_loss_{task}")
    return losses


def _auroc(
    encoder: Encoder, task: str, found: Sequence[Embedded], classes: Classes
) -> tuple[float, int]:
    """AUROC of a task over what is scored, and the pairs that it is of; 0 without both classes."""
    y, known = truth(task, [item for part in found for item in part.items])
    rows = known & np.concatenate([part.scored for part in found])
    pairs = int(y[rows].sum()) * int((~y[rows]).sum())
    if pairs == 0:
        return 0.0, 0
    embeddings = np.concatenate([part.embeddings for part in found])[rows]
    index = encoder.bundle.label_set(task).positive_index or 0
    z = margin(cosines(embeddings, classes[task]), index, encoder.bundle.manifest.logit_scale)
    return auroc(y[rows], np.asarray(z)), pairs
