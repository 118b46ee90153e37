"""Fit the two adapters of a bundle to labelled frames; every choice is made inside those frames."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import numpy.typing as npt
from sklearn.linear_model import LogisticRegression

from model_store.adapters import Adapter, CacheAdapter, LinearAdapter, affinity
from training.fewshot.frames import Floats, Frames, draw_shots, folds
from training.metrics import auroc

__all__ = ["ADAPTERS", "fit_cache", "fit_linear", "out_of_fold"]

INVERSE_PENALTIES = (0.1, 1.0, 10.0, 100.0, 1000.0)
"""scikit-learn's C. Unit embeddings lie within 2 of each other: 0.1 gives about the difference of
the class means, 1000 separates a hundred frames."""
ALPHAS = (0.0, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0)
BETAS = (5.5, 1.0, 2.0, 10.0, 20.0)
PAPER = (1.0, 5.5)
"""Best alpha and beta of Tip-Adapter's ablation on ImageNet, for shots that leave no choice."""
LARGEST_CACHE = 64
"""Keys per class; the paper's largest cache has 16. 128 keys of 256 numbers are 0.7 MB of JSON."""


def fit_linear(frames: Frames) -> LinearAdapter:
    """Fit a logistic regression on the embeddings.

    Its penalty is the one with the least log loss of frames held out by group; equal ones go to
    the stronger penalty. With one group a class nothing can be held out and 1.0 is taken; of one
    shot a class all penalties give one direction, the difference of the two.
    """
    losses = [_held_out_loss(frames, c) for c in INVERSE_PENALTIES]
    told = not np.isnan(losses[0])
    chosen = INVERSE_PENALTIES[int(np.argmin(losses))] if told else 1.0
    fit = _logistic(frames, chosen)
    weights = fit.coef_[0] - frames.direction
    return LinearAdapter(tuple(weights.tolist()), float(fit.intercept_[0]))


def fit_cache(frames: Frames) -> CacheAdapter:
    """Keep the frames as keys, after Tip-Adapter without training (see ``CacheAdapter``).

    The paper searches alpha and beta on a validation set, which a few shots do not come with. We
    take the pair with the best AUROC where every key is looked up among the keys of other groups;
    equal ones go to the smaller alpha, so that shots that show no gain leave zero-shot as it is.
    Where no key has keys of both classes in other groups, the paper's pair is taken.
    """
    rows = draw_shots(frames, LARGEST_CACHE, np.random.default_rng(0))
    keys = frames.rows(rows)
    alpha, beta = _chosen_pair(keys)
    return CacheAdapter(
        tuple(tuple(row) for row in keys.embeddings.tolist()),
        tuple(keys.y.tolist()),
        alpha,
        beta,
    )


ADAPTERS: Mapping[str, Callable[[Frames], Adapter]] = {"linear": fit_linear, "cache": fit_cache}


def out_of_fold(frames: Frames, fit: Callable[[Frames], Adapter]) -> Floats:
    """Corrected margins (n,), each by an adapter that saw no frame of its group; NaN where none."""
    margins = np.full(len(frames.y), np.nan)
    for fitted, held in folds(frames):
        adapter = fit(frames.rows(fitted))
        margins[held] = frames.margin[held] + adapter.correction(frames.embeddings[held])
    return margins


def _logistic(frames: Frames, inverse_penalty: float) -> LogisticRegression:
    return LogisticRegression(C=inverse_penalty, max_iter=5000).fit(frames.embeddings, frames.y)


def _held_out_loss(frames: Frames, inverse_penalty: float) -> float:
    losses = []
    for fitted, held in folds(frames):
        fit = _logistic(frames.rows(fitted), inverse_penalty)
        logit = fit.decision_function(frames.embeddings[held])
        losses.append(np.logaddexp(0.0, np.where(frames.y[held], -logit, logit)))
    return float(np.concatenate(losses).mean()) if losses else float("nan")


def _chosen_pair(keys: Frames) -> tuple[float, float]:
    other = keys.groups[:, None] != keys.groups[None, :]
    sides = [other & (keys.y == positive) for positive in (True, False)]
    usable = np.logical_and(*(side.any(axis=1) for side in sides))
    y, z = keys.y[usable], keys.margin[usable]
    best, chosen = -1.0, PAPER
    if not 0 < y.sum() < len(y):
        return chosen
    for beta in BETAS:
        near = affinity(keys.embeddings, keys.embeddings, beta)[usable]
        gain = _mean_over(near, sides[0][usable]) - _mean_over(near, sides[1][usable])
        for alpha in ALPHAS:
            found = auroc(y, z + alpha * gain)
            if (found, -alpha) > (best, -chosen[0]):
                best, chosen = found, (alpha, beta)
    return chosen


def _mean_over(values: Floats, mask: npt.NDArray[np.bool_]) -> Floats:
    return np.asarray((values * mask).sum(axis=1) / mask.sum(axis=1))
