"""Each objective against a naive twin in plain loops: values and gradients."""

import math
from itertools import pairwise

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs torch (extra `train`)")

from training.losses import (  # noqa: E402
    attribute_similarity,
    caption_loss,
    class_aware_targets,
    contrastive_loss,
    effective_targets,
    pairwise_scores,
    soft_targets,
    unified_codes,
    union_similarity,
)
from training.model import Unify  # noqa: E402
from training.reading import LEVELS, similarity_tables  # noqa: E402

D = 8


def _unit(*shape: int, seed: int = 0) -> torch.Tensor:
    rows = torch.randn(*shape, D, generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.normalize(rows, dim=-1)


def _codes(rows: int, seed: int, known: float = 0.7) -> torch.Tensor:
    rng = np.random.default_rng(seed)
    values = np.stack([rng.integers(0, levels, rows) for levels in LEVELS], 1)
    return torch.from_numpy(np.where(rng.random(values.shape) < known, values, -1))


def _naive_contrast(
    images: list[list[float]], texts: list[list[float]], scale: float, targets: list[list[float]]
) -> float:
    """Mean over rows of -sum_j target_ij log softmax_j(scale <v_i, t_j>)."""
    total = 0.0
    for i, image in enumerate(images):
        logits = [scale * sum(a * b for a, b in zip(image, text, strict=True)) for text in texts]
        norm = math.log(sum(math.exp(x) for x in logits))
        total -= sum(t * (x - norm) for t, x in zip(targets[i], logits, strict=True))
    return total / len(images)


def test_contrastive_loss_equals_its_naive_twin_in_value_and_gradient() -> None:
    images, texts = _unit(5, seed=1).double(), _unit(5, seed=2).double()
    images.requires_grad_()
    targets = torch.softmax(
        torch.randn(5, 5, generator=torch.Generator().manual_seed(3)).double(), -1
    )
    backward = torch.softmax(
        torch.randn(5, 5, generator=torch.Generator().manual_seed(4)).double(), -1
    )
    loss = contrastive_loss(images, texts, torch.tensor(7.0), targets, backward)
    loss.backward()

    def naive(v: list[list[float]]) -> float:
        t = texts.tolist()
        return 0.5 * (
            _naive_contrast(v, t, 7.0, targets.tolist())
            + _naive_contrast(t, v, 7.0, backward.tolist())
        )

    assert loss.item() == pytest.approx(naive(images.tolist()), abs=1e-9)
    for i, j in [(0, 0), (3, 5), (4, 7)]:
        up, down = images.tolist(), images.tolist()
        up[i][j] += 1e-5
        down[i][j] -= 1e-5
        assert images.grad is not None
        assert images.grad[i, j].item() == pytest.approx((naive(up) - naive(down)) / 2e-5, abs=1e-6)


def test_class_aware_targets_share_mass_over_equal_captions() -> None:
    targets = class_aware_targets(torch.tensor([0, 1, 2]), torch.tensor([0, 1, 0, 1, 1]))
    assert targets.tolist() == [
        [0.5, 0.0, 0.5, 0.0, 0.0],
        pytest.approx([0.0, 1 / 3, 0.0, 1 / 3, 1 / 3]),
        [0.0] * 5,
    ]


def test_caption_loss_leaves_rows_of_unknown_class_out() -> None:
    images, captions = _unit(4, seed=5), _unit(2, seed=6)
    known = caption_loss(images[:2], captions, torch.tensor(5.0), torch.tensor([0, 1]))
    mixed = caption_loss(images, captions, torch.tensor(5.0), torch.tensor([0, 1, -1, -1]))
    assert mixed.item() == pytest.approx(known.item())
    nothing = caption_loss(images, captions, torch.tensor(5.0), torch.full((4,), -1))
    assert nothing.item() == 0.0


def test_attribute_similarity_equals_its_naive_twin() -> None:
    tables = similarity_tables()
    left, right = _codes(6, 1), _codes(7, 2)
    found = attribute_similarity(left, right, tables, minimum_joint=3)
    for i in range(6):
        for j in range(7):
            total, joint = 0.0, 0
            for a, table in enumerate(tables):
                x, y = int(left[i, a]), int(right[j, a])
                if x >= 0 and y >= 0:
                    total += float(table[x, y])
                    joint += 1
            expected = total / joint if joint >= 3 else 0.0
            assert found[i, j].item() == pytest.approx(expected, abs=1e-6)


def test_lesions_described_alike_get_equal_mass_and_silence_is_not_similarity() -> None:
    tables = similarity_tables()
    codes = _codes(3, 3, known=1.0)
    codes[1] = codes[0]
    codes[2, 2:] = -1  # two attributes known: fewer than three
    similarity = attribute_similarity(codes, codes, tables)
    targets = soft_targets(similarity, 0.15, torch.eye(3, dtype=torch.bool))
    assert targets[0, 0].item() == pytest.approx(targets[0, 1].item())
    assert similarity[2].tolist() == [0.0, 0.0, 0.0]
    assert targets[2].argmax().item() == 2


def test_identical_texts_share_mass_even_when_nothing_is_known() -> None:
    same = torch.tensor([[True, True, False], [True, True, False], [False, False, True]])
    targets = soft_targets(torch.zeros(3, 3), 0.15, same)
    assert targets[0, 0].item() == pytest.approx(targets[0, 1].item())
    assert targets[0, 0].item() > 0.49


@pytest.mark.parametrize(
    ("tau", "low", "high"), [(1.0, 25.0, 32.0), (0.15, 1.3, 16.0), (0.02, 1.0, 1.2)]
)
def test_effective_targets_show_the_silent_failures_of_temperature(
    tau: float, low: float, high: float
) -> None:
    codes = _codes(32, 4)
    similarity = attribute_similarity(codes, codes, similarity_tables())
    found = effective_targets(soft_targets(similarity, tau, torch.eye(32, dtype=torch.bool)))
    assert low <= float(found.median()) <= high


def test_unified_codes_are_the_union_of_a_records_findings() -> None:
    codes = torch.tensor([[0, -1], [2, 1]])
    assert unified_codes([codes], [3, 2]).tolist() == [[1.0, 0.0, 1.0, 0.0, 1.0]]


def test_union_similarity_equals_its_naive_twin() -> None:
    levels = [3, 2, 4, 3]
    rng = np.random.default_rng(5)
    union = torch.from_numpy((rng.random((6, 12)) < 0.35).astype(np.float32))
    union[0, :8] = 0.0  # two attributes known at most: below the minimum
    found = union_similarity(union, levels, 3)
    edges = np.cumsum([0, *levels])
    for p in range(6):
        for q in range(6):
            overlaps = []
            for a, b in pairwise(edges):
                one = {i for i in range(a, b) if union[p, i]}
                other = {i for i in range(a, b) if union[q, i]}
                if one and other:
                    overlaps.append(len(one & other) / len(one | other))
            expected = float(np.mean(overlaps)) if len(overlaps) >= 3 else 0.0
            assert found[p, q].item() == pytest.approx(expected)


def test_an_attribute_that_one_record_leaves_out_is_no_difference() -> None:
    levels = [2, 2, 2, 2]
    whole = unified_codes([torch.tensor([[0, 1, 0, 1]]), torch.tensor([[0, 1, 0, -1]])], levels)
    assert union_similarity(whole, levels)[0, 1].item() == pytest.approx(1.0)


def _trained_unify() -> Unify:
    unify = Unify(D)
    with torch.no_grad():
        for layer in (unify.query, unify.key):
            layer.weight += 0.1 * torch.randn(D, D, generator=torch.Generator().manual_seed(9))
    return unify


@pytest.mark.parametrize("count", [6, 60])
def test_unify_equals_its_naive_twin(count: int) -> None:
    unify, frames, queries = _trained_unify(), _unit(count, seed=1), _unit(2, seed=2)
    mask = torch.tensor([True, True, False, True, True, False] * (count // 6))
    pooled, attention = unify(frames, mask, queries)
    q, k = (layer.weight.detach().numpy() for layer in (unify.query, unify.key))
    valid = [i for i in range(count) if mask[i]]
    scale = math.exp(unify.log_scale.item()) * {4: 1.0, 40: 1 + math.log(40 / 8) / 4}[len(valid)]
    for j in range(2):
        logits = [scale * float((q @ queries[j].numpy()) @ (k @ frames[i].numpy())) for i in valid]
        weights = [math.exp(x - max(logits)) for x in logits]
        weights = [w / sum(weights) for w in weights]
        vector = sum(w * frames[i].numpy() for w, i in zip(weights, valid, strict=True))
        assert pooled[j].tolist() == pytest.approx(
            (vector / np.linalg.norm(vector)).tolist(), abs=1e-5
        )
        assert attention[j, valid].tolist() == pytest.approx(weights, abs=1e-5)
        assert attention[j, [2, 5]].tolist() == [0.0, 0.0]


@pytest.mark.parametrize("lead", [4.0, 6.0])
def test_the_weight_of_one_frame_does_not_fade_with_the_number_of_others(lead: float) -> None:
    unify = Unify(2)
    cosine = 1 - lead / math.exp(unify.log_scale.item())
    other = torch.tensor([[cosine, math.sqrt(1 - cosine**2)]])
    weights = []
    for n in (8, 40, 400, 4000):
        frames = torch.cat([torch.tensor([[1.0, 0.0]]), other.expand(n - 1, 2)])
        query, mask = torch.tensor([[1.0, 0.0]]), torch.ones(n, dtype=torch.bool)
        weights.append(unify(frames, mask, query)[1][0, 0].item())
    fixed = 1 / (1 + 3999 * math.exp(-lead))  # what a scale that does not grow would leave
    assert min(weights) > 0.8 > fixed + 0.1
    assert max(weights) - min(weights) < 0.05


def test_unify_does_not_depend_on_frame_order_padding_or_batch() -> None:
    unify, frames, queries = _trained_unify(), _unit(5, seed=1), _unit(3, seed=2)
    mask = torch.ones(5, dtype=torch.bool)
    pooled, attention = unify(frames, mask, queries)
    order = torch.tensor([3, 1, 4, 0, 2])
    shuffled, moved = unify(frames[order], mask, queries)
    assert torch.allclose(pooled, shuffled, atol=1e-6)
    assert torch.allclose(attention[:, order], moved, atol=1e-6)
    padded = torch.cat([frames, _unit(4, seed=3)])
    longer = torch.cat([mask, torch.zeros(4, dtype=torch.bool)])
    assert torch.allclose(unify(padded, longer, queries)[0], pooled, atol=1e-6)
    batch = torch.stack([padded] * 8)
    assert torch.allclose(unify(batch, longer.expand(8, -1), queries)[0][5], pooled, atol=1e-6)


def test_a_patient_of_one_frame_is_that_frame() -> None:
    frame = _unit(1, seed=4)
    pooled, attention = _trained_unify()(frame, torch.ones(1, dtype=torch.bool), _unit(3, seed=5))
    assert torch.allclose(pooled, frame.expand(3, -1), atol=1e-6)
    assert torch.equal(attention, torch.ones(3, 1))


def test_unify_without_a_valid_frame_gives_zeros_not_nan() -> None:
    pooled, attention = _trained_unify()(
        _unit(3), torch.zeros(3, dtype=torch.bool), _unit(2, seed=1)
    )
    assert pooled.abs().max().item() == 0.0
    assert attention.abs().max().item() == 0.0


def _leaky_scores(
    frames: torch.Tensor, mask: torch.Tensor, texts: torch.Tensor, unify: Unify
) -> torch.Tensor:
    """What must not be done: each record's texts attend to its own frames only, then contrast."""
    own = torch.stack(
        [unify(f, m, t)[0].mean(0) for f, m, t in zip(frames, mask, texts, strict=True)]
    )
    means = torch.stack([f[m].mean(0) for f, m in zip(frames, mask, strict=True)])
    unit = torch.nn.functional.normalize
    return unit(own, dim=-1) @ unit(means, dim=-1).T


def _top1_on_noise(leaky: bool, trials: int = 150, records: int = 8, dim: int = 256) -> float:
    generator = torch.Generator().manual_seed(0)
    unify, hits = Unify(dim), 0
    with torch.no_grad():
        for _ in range(trials):
            frames = torch.nn.functional.normalize(
                torch.randn(records, 9, dim, generator=generator), dim=-1
            )
            texts = torch.nn.functional.normalize(
                torch.randn(records, 3, dim, generator=generator), dim=-1
            )
            mask = torch.ones(records, 9, dtype=torch.bool)
            told = torch.ones(records, 3, dtype=torch.bool)
            scores = (
                _leaky_scores(frames, mask, texts, unify)
                if leaky
                else pairwise_scores(frames, mask, texts, told, unify)
            )
            hits += int((scores.argmax(1) == torch.arange(records)).sum())
    return hits / (trials * records)


def test_pairwise_scores_find_nothing_in_pure_noise() -> None:
    # Chance is 0.125, its standard error over 1,200 decisions 0.0095.
    assert abs(_top1_on_noise(leaky=False) - 0.125) < 4 * 0.0095


def test_the_noise_test_fails_on_the_leaky_form() -> None:
    assert _top1_on_noise(leaky=True) > 0.9


def test_pairwise_scores_ignore_padded_texts_and_equal_single_records() -> None:
    unify, frames, texts = _trained_unify(), _unit(3, 4, seed=1), _unit(2, 3, seed=2)
    mask = torch.tensor([[True] * 4, [True] * 2 + [False] * 2, [True] * 3 + [False]])
    told = torch.tensor([[True, True, False], [True, True, True]])
    scores = pairwise_scores(frames, mask, texts, told, unify)
    for p in range(3):
        for q in range(2):
            chosen = texts[q][told[q]]
            pooled, _ = unify(
                frames[p][mask[p]], torch.ones(int(mask[p].sum()), dtype=torch.bool), chosen
            )
            assert scores[p, q].item() == pytest.approx(
                (pooled * chosen).sum(-1).mean().item(), abs=1e-5
            )
