"""The second gate of a lower-precision text graph: what free prompts would lose by it.

Named sets are scored on class embeddings of the fp32 tower, so their figures do not show the
graph that ships. Here the same prompts go through it, as a caller's would.
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

__all__ = ["MOST_AUROC_LOSS", "gate_prompts"]

MOST_AUROC_LOSS = 0.002

LEAST_PAIRS = 2500
"""Positive-negative pairs below which a loss is recorded and not judged: five swapped pairs would
be all of the limit, and near ties swap by rounding (drawn archives: some hundred pairs)."""

Classes = Mapping[str, npt.NDArray[np.float32]]


def gate_prompts(
    encoder: Encoder, found: Sequence[Embedded], reference: Classes, lower: Classes
) -> dict[str, float]:
    """Compare AUROCs under class embeddings of the fp32 and the lower-precision graph.

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
    losses, judged = {}, []
    items = [item for part in found for item in part.items]
    embeddings = np.concatenate([part.embeddings for part in found])
    scored = np.concatenate([part.scored for part in found])
    for task in TASKS:
        y, known = truth(task, items)
        rows = known & scored
        if not 0 < y[rows].sum() < rows.sum():
            continue
        index = encoder.bundle.label_set(task).positive_index or 0
        values = [
            auroc(
                y[rows],
                np.asarray(
                    margin(
                        cosines(embeddings[rows], classes[task]),
                        index,
                        encoder.bundle.manifest.logit_scale,
                    )
                ),
            )
            for classes in (reference, lower)
        ]
        losses[f"text_auroc_loss_{task}"] = values[0] - values[1]
        if int(y[rows].sum()) * int((~y[rows]).sum()) >= LEAST_PAIRS:
            judged.append(f"text_auroc_loss_{task}")
    for name in judged:
        if not losses[name] <= MOST_AUROC_LOSS:
            raise ParityError(losses[name], MOST_AUROC_LOSS, name)
    return losses
