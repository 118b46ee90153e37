"""The objectives of the three stages: pure functions of tensors.

Shape letters: ``b`` batch rows, ``d`` embedding width, ``p`` records, ``n`` frames of a record,
``q`` text sets, ``m`` texts of a set, ``a`` attributes. All embeddings are unit rows.

The paper (arXiv 2505.09435) gives no equation that could be read; each formula below is a choice,
with its reason. Every function has a naive twin in ``tests/training/test_losses.py``.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = [
    "attribute_similarity",
    "caption_loss",
    "class_aware_targets",
    "contrastive_loss",
    "effective_targets",
    "pairwise_scores",
    "soft_cross_entropy",
    "soft_targets",
    "unified_codes",
    "union_similarity",
]


def soft_cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """Mean cross entropy between target rows and softmax rows.

    Args:
        logits: (b, c), any range.
        targets: (b, c), rows sum to 1.

    Returns:
        Scalar, >= 0.
    """
    return -(targets * F.log_softmax(logits, dim=-1)).sum(-1).mean()


def class_aware_targets(row_classes: Tensor, column_classes: Tensor) -> Tensor:
    """Equal mass on every column of the row's class.

    Two standard sentences cover a whole archive in cleansing, so half of the "negatives" of plain
    InfoNCE carry the identical caption; sharing the mass stops identical pairs from being pushed
    apart (METHOD 1.2, trap 1; FLAIR's target with keepdims).

    Args:
        row_classes: (b,) integer classes.
        column_classes: (c,) integer classes.

    Returns:
        (b, c) float; rows sum to 1, or are all zero where no column has the row's class.
    """
    same = (row_classes[:, None] == column_classes[None, :]).float()
    return same / same.sum(-1, keepdim=True).clamp_min(1.0)


def contrastive_loss(
    images: Tensor, texts: Tensor, scale: Tensor, targets: Tensor, text_targets: Tensor
) -> Tensor:
    """Symmetric contrastive loss with given targets (one-hot, class-aware or soft).

    Args:
        images: (b, d) unit rows.
        texts: (b, d) unit rows.
        scale: Scalar logit scale, positive.
        targets: (b, b), image-to-text target rows.
        text_targets: (b, b), text-to-image target rows.

    Returns:
        Scalar: mean of the two soft cross entropies.
    """
    logits = scale * images @ texts.T
    return 0.5 * (soft_cross_entropy(logits, targets) + soft_cross_entropy(logits.T, text_targets))


def caption_loss(images: Tensor, captions: Tensor, scale: Tensor, classes: Tensor) -> Tensor:
    """Cross entropy of each image over class captions, class c being caption c.

    The image half of a class-aware contrast in which every class is one caption embedding.

    Args:
        images: (b, d) unit rows.
        captions: (c, d) unit rows.
        scale: Scalar logit scale.
        classes: (b,) integers in 0..c-1, on the CPU; -1 = not known, the row is left out.

    Returns:
        Scalar; 0 when no row has a known class.
    """
    known = classes >= 0
    if not bool(known.any()):
        return images.sum() * 0.0
    return F.cross_entropy(scale * images[known] @ captions.T, classes[known].to(images.device))


def attribute_similarity(
    left: Tensor, right: Tensor, tables: Sequence[Tensor], minimum_joint: int = 3
) -> Tensor:
    """Mean agreement over the attributes known on both sides.

    s_ij = sum_a k_ia k_ja K_a[l_ia, r_ja] / sum_a k_ia k_ja; the paper does not give its
    similarity, we choose the mean over jointly known attributes because "not mentioned" is no
    evidence of difference. Fewer than ``minimum_joint`` jointly known attributes give 0: silence
    is not similarity.

    Args:
        left: (b, a) integer codes, -1 = not mentioned.
        right: (c, a) likewise.
        tables: One (levels, levels) similarity table in 0..1 per attribute (nominal: identity,
            ordinal: 1 - |rank difference| / (levels - 1), Paris: graded by group).
        minimum_joint: Jointly known attributes needed.

    Returns:
        (b, c) in 0..1.
    """
    total = torch.zeros(len(left), len(right))
    joint = torch.zeros(len(left), len(right))
    for a, table in enumerate(tables):
        known = (left[:, a] >= 0)[:, None] & (right[:, a] >= 0)[None, :]
        agree = table[left[:, a].clamp_min(0)][:, right[:, a].clamp_min(0)]
        total += agree * known
        joint += known
    return torch.where(joint >= minimum_joint, total / joint.clamp_min(1.0), torch.zeros(()))


def soft_targets(similarity: Tensor, tau: float, identical: Tensor) -> Tensor:
    """Target rows softmax(s / tau), own pair and identical texts at full similarity.

    A softmax at temperature 1 is uniform (31 effective targets of 32) and teaches nothing; about
    0.1-0.2 keeps 2-8 (METHOD 1.3). Columns with identical text get identical mass.

    Args:
        similarity: (b, b) in 0..1.
        tau: Temperature, > 0.
        identical: (b, b) bool, True where the two rows carry the same text; its diagonal is True.

    Returns:
        (b, b), rows sum to 1.
    """
    return F.softmax(torch.where(identical, torch.ones(()), similarity) / tau, dim=-1)


def effective_targets(targets: Tensor) -> Tensor:
    """Perplexity exp(entropy) of each target row: (b, c) -> (b,), between 1 and c."""
    return torch.exp(-(targets * targets.clamp_min(1e-12).log()).sum(-1))


def unified_codes(codes: Sequence[Tensor], levels: Sequence[int]) -> Tensor:
    """Per-attribute union of a record's findings as multi-hot vectors.

    Args:
        codes: One (findings, a) integer tensor per record, -1 = not mentioned.
        levels: Number of levels of each attribute.

    Returns:
        (p, sum(levels)) float multi-hot rows; a block is zero where nothing was mentioned.
    """
    rows = []
    for record in codes:
        blocks = []
        for a, size in enumerate(levels):
            block = torch.zeros(size)
            known = record[:, a][record[:, a] >= 0]
            block[known] = 1.0
            blocks.append(block)
        rows.append(torch.cat(blocks))
    return torch.stack(rows)


def union_similarity(union: Tensor, levels: Sequence[int], minimum_joint: int = 3) -> Tensor:
    """Mean overlap of two records' unified attributes over those known on both sides.

    s_pq = mean_a |u_pa n u_qa| / |u_pa u u_qa| over attributes with a value on both sides; fewer
    than ``minimum_joint`` of them give 0, as in ``attribute_similarity``. The paper does not give
    this; we choose the Jaccard overlap because a value that only one record's lesions have
    is a difference, and an attribute that one report leaves out is none.

    Args:
        union: (p, sum(levels)) multi-hot rows of ``unified_codes``.
        levels: Number of levels of each attribute.
        minimum_joint: Jointly known attributes needed.

    Returns:
        (p, p) in 0..1.
    """
    total = torch.zeros(len(union), len(union))
    joint = torch.zeros(len(union), len(union))
    for block in union.split(list(levels), dim=-1):
        known = block.sum(-1) > 0
        both = block @ block.T
        either = block.sum(-1)[:, None] + block.sum(-1)[None, :] - both
        jointly = known[:, None] & known[None, :]
        total += torch.where(jointly, both / either.clamp_min(1.0), torch.zeros(()))
        joint += jointly
    return torch.where(joint >= minimum_joint, total / joint.clamp_min(1.0), torch.zeros(()))


def pairwise_scores(
    frames: Tensor, mask: Tensor, texts: Tensor, text_mask: Tensor, unify: torch.nn.Module
) -> Tensor:
    """S_pq: text set q attends to the frames of record p; mean cosine of pooled vector and text.

    Attention is computed for *all* (p, q), never only inside a record: contrasting inside-record
    attention with its own record leaks the text into the image side (top-1 1.00 on pure noise).

    Args:
        frames: (p, n, d) unit rows, padded.
        mask: (p, n) bool, True = a frame.
        texts: (q, m, d) unit rows, padded.
        text_mask: (q, m) bool.
        unify: Module mapping (frames (n, d), mask (n,), queries (k, d)) to (pooled (k, d),
            attention (k, n)), batched over leading axes of frames and mask.

    Returns:
        (p, q) in -1..1.
    """
    q, m, d = texts.shape
    pooled, _ = unify(frames, mask, texts.reshape(q * m, d))  # (p, q*m, d)
    cosine = (pooled * texts.reshape(1, q * m, d)).sum(-1).reshape(len(frames), q, m)
    weight = text_mask.float()
    return (cosine * weight).sum(-1) / weight.sum(-1).clamp_min(1.0)
