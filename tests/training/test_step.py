"""A step's gradient: the same in one pass, in pieces, recomputed; near it in reduced precision."""

import dataclasses
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs torch (extra `train`)")
pytest.importorskip("open_clip", reason="needs open_clip (extra `train`)")

from torch.utils._python_dispatch import TorchDispatchMode  # noqa: E402
from torch.utils._pytree import tree_leaves  # noqa: E402

from tests.training.tiny_stages import (  # noqa: E402
    kept_frames,
    tiny_bench,
    tiny_exams,
    tiny_recipe,
)
from training.attunement import AttunementTask, Sampler  # noqa: E402
from training.batches import plain  # noqa: E402
from training.cleansing import SENTENCES, _Detector, _Pools  # noqa: E402
from training.compute import Machine, machine_for  # noqa: E402
from training.errors import ConfigError  # noqa: E402
from training.feed import Feed  # noqa: E402
from training.loop import Schedule, train  # noqa: E402
from training.losses import caption_loss  # noqa: E402
from training.model import build, freeze, load_spec, train_mode  # noqa: E402
from training.step import Bench, Task, gradients  # noqa: E402
from training.unification import PatientSampler, UnificationTask  # noqa: E402

TASKS = ("cleansing", "attunement", "unification")


@pytest.fixture(scope="module")
def tasks(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Task]:
    exams, recipe = tiny_exams(tmp_path_factory.mktemp("frames")), tiny_recipe()
    kept = kept_frames(exams)
    positive, negative = (
        [f for e in exams if e.positive == told for f in e.frames] for told in (True, False)
    )
    return {
        "cleansing": _Detector("round1", 32, 9, _Pools(positive, negative)),
        "attunement": AttunementTask(Sampler(exams, kept, recipe.attunement)),
        "unification": UnificationTask(PatientSampler(exams, kept, recipe.unification), True),
    }


def _gradient(task: Task, bench: Bench) -> tuple[dict[str, float], torch.Tensor]:
    """Scalars of step 3, and its whole gradient."""
    train_mode(bench.model)
    seed, step, squares = Feed(bench, task, 1, 10).take(3)
    named = gradients(bench, task, step, squares, seed, bench.machine.scaler())
    scale = bench.machine.scaler().get_scale()
    grads = [p.grad.flatten() / scale for p in bench.model.parameters() if p.grad is not None]
    return {name: value.item() for name, value in named.items()}, torch.cat(grads)


def _distance(one: torch.Tensor, other: torch.Tensor) -> float:
    return float((one - other).norm() / one.norm())


def test_the_gradient_is_that_of_a_plain_backward_pass(tasks: dict[str, Task]) -> None:
    # The naive twin: one graph from pixels to loss.
    bench, task = tiny_bench(), tasks["cleansing"]
    _, found = _gradient(task, bench)
    twin = tiny_bench()
    _, step, squares = Feed(twin, task, 1, 10).take(3)
    pixels = step.look.apply(squares.frames, twin.store.contract, task.px)
    texts = twin.model.encode_ids(twin.tokenize(list(SENTENCES)))
    images = twin.model.encode_images(pixels)
    caption_loss(images, texts, twin.model.logit_scale, step.told).backward()
    expected = [p.grad.flatten() for p in twin.model.parameters() if p.grad is not None]
    assert torch.equal(found, torch.cat(expected))


@pytest.mark.parametrize("name", TASKS)
@pytest.mark.parametrize("dropout", [0.0, 0.4])
@pytest.mark.parametrize("pieces", [2, 4, 100])
def test_pieces_give_the_gradient_of_the_whole_batch(
    tasks: dict[str, Task], name: str, dropout: float, pieces: int
) -> None:
    whole = _gradient(tasks[name], tiny_bench(dropout=dropout))
    cut = _gradient(tasks[name], tiny_bench(Machine(accumulate=pieces), dropout))
    assert cut[0] == pytest.approx(whole[0], rel=1e-5, abs=1e-6)
    assert _distance(whole[1], cut[1]) < 1e-5


def test_dropout_is_drawn_anew_each_step_and_alike_on_both_passes(tasks: dict[str, Task]) -> None:
    task = tasks["attunement"]
    first, again = (_gradient(task, tiny_bench(dropout=0.4))[0]["total"] for _ in range(2))
    assert first == again
    assert first != _gradient(task, tiny_bench())[0]["total"]


@pytest.mark.parametrize("name", TASKS)
def test_recomputed_activations_give_the_same_gradient(tasks: dict[str, Task], name: str) -> None:
    whole = _gradient(tasks[name], tiny_bench())
    again = _gradient(tasks[name], tiny_bench(Machine(checkpointing=True)))
    assert again[0] == whole[0]
    assert _distance(whole[1], again[1]) < 1e-6


@pytest.mark.parametrize("name", TASKS)
@pytest.mark.parametrize(("precision", "far"), [("bf16", 0.1), ("fp16", 0.02)])
def test_reduced_precision_is_near_full_precision_over_some_steps(
    tasks: dict[str, Task], name: str, precision: str, far: float, tmp_path: Path
) -> None:
    machine = Machine(precision=precision, accumulate=2)
    full, reduced = (
        _gradient(tasks[name], tiny_bench()),
        _gradient(tasks[name], tiny_bench(machine)),
    )
    assert _distance(full[1], reduced[1]) < far
    assert _distance(full[1], reduced[1]) > 1e-6  # it is reduced
    schedule = Schedule(4, 1e-3, 1, 60.0)
    losses = [
        train(tmp_path / str(i), tasks[name], bench, schedule)
        for i, bench in enumerate((tiny_bench(), tiny_bench(machine)))
    ]
    assert losses[1] == pytest.approx(losses[0], rel=5e-3)


def test_embeddings_and_losses_are_full_precision_under_autocast(tasks: dict[str, Task]) -> None:
    bench = tiny_bench(Machine(precision="bf16"))
    with bench.machine.autocast():
        images = bench.model.encode_images(torch.zeros(2, 3, 32, 32))
        texts = bench.model.encode_ids(bench.tokenize(["a polyp"]))
    assert images.dtype == texts.dtype == torch.float32


def test_a_step_whose_scaled_gradient_overflows_is_left_out_and_the_scale_halved(
    tasks: dict[str, Task], tmp_path: Path
) -> None:
    @dataclasses.dataclass(frozen=True)
    class Steep:
        task: Task
        name = "steep"
        px = 32

        def draw(self, rng: np.random.Generator) -> Any:
            return self.task.draw(rng)

        def losses(self, model: Any, encoded: Any, told: Any) -> dict[str, torch.Tensor]:
            found = self.task.losses(model, encoded, told)
            return {"steep_loss": found["caption_loss"] * 1e36}

    bench = tiny_bench(Machine(precision="fp16"))
    before = bench.model.clip.visual.head.weight.detach().clone()
    train(tmp_path, Steep(tasks["cleansing"]), bench, Schedule(2, 1e-3, 1, 60.0))
    assert torch.equal(before, bench.model.clip.visual.head.weight)
    state = torch.load(tmp_path / "steep.ckpt")
    assert state["scaler"]["scale"] == 65536 / 4


class _OneDevice(TorchDispatchMode):
    """Refuses operations on tensors of two devices, as CUDA does; meta alone lets some pass."""

    allowed = (
        "aten::index",
        "aten::index_put",
        "aten::_index_put",
        "aten::copy_",
        "aten::_to_copy",
    )

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        tensors = [x for x in tree_leaves((args, kwargs)) if isinstance(x, torch.Tensor)]
        devices = {x.device.type for x in tensors if x.dim()}  # a CPU scalar may go with anything
        if len(devices) > 1 and not func._schema.name.startswith(self.allowed):
            raise RuntimeError(f"{func}: tensors on {sorted(devices)}")
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("name", TASKS)
def test_a_step_keeps_everything_that_is_multiplied_on_the_device(
    tasks: dict[str, Task], name: str
) -> None:
    # Stands in for CUDA: `meta` computes shapes only, and refuses to be looked at.
    machine = Machine(device=torch.device("meta"), accumulate=2)
    bench, task = tiny_bench(machine), tasks[name]
    train_mode(bench.model)
    seed, step, squares = Feed(bench, task, 1, 10).take(3)
    assert squares.frames.device.type == "cpu"
    with _OneDevice():
        named = gradients(bench, task, step, squares, seed, machine.scaler())
    assert named["total"].device.type == "meta"
    grads = [p.grad for p in bench.model.parameters() if p.grad is not None]
    assert len(grads) >= 8
    assert all(grad.device.type == "meta" for grad in grads)


@pytest.mark.parametrize(
    "what",
    [lambda a, b: torch.nn.functional.linear(a, b), lambda a, b: a @ b.T, lambda a, b: a * b],
)
def test_the_test_of_devices_can_fail(what: Callable[..., object]) -> None:
    here, there = torch.zeros(3, 3), torch.zeros(3, 3, device="meta")
    with pytest.raises(RuntimeError), _OneDevice():
        what(there, here)


def test_the_scoring_pass_normalises_on_the_device_of_its_frames() -> None:
    frames = torch.zeros(2, 40, 40, 3, dtype=torch.uint8, device="meta")
    with _OneDevice():
        assert plain(frames, load_spec("lite0-minilm").contract, 32).device.type == "meta"


def test_cuda_is_refused_where_there_is_none() -> None:
    if torch.cuda.is_available():
        pytest.skip("this machine has CUDA")
    config = dataclasses.replace(tiny_recipe().compute, device="cuda")
    with pytest.raises(ConfigError, match="found none"):
        machine_for(config)


def test_compiling_without_a_compiler_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    config = dataclasses.replace(tiny_recipe().compute, compile=True)
    with pytest.raises(ConfigError, match="C\\+\\+ compiler"):
        machine_for(config)


@pytest.mark.slow
def test_a_compiled_image_tower_trains_the_same_step(tasks: dict[str, Task]) -> None:
    if not shutil.which("g++"):
        pytest.skip("needs g++")
    whole = _gradient(tasks["cleansing"], tiny_bench())
    bench = tiny_bench(Machine(compile=True))
    compiled = _gradient(tasks["cleansing"], bench)
    assert compiled[0] == pytest.approx(whole[0], rel=1e-5)
    assert _distance(whole[1], compiled[1]) < 1e-4
    assert set(bench.model.state_dict()) == set(tiny_bench().model.state_dict())


@pytest.mark.slow
@pytest.mark.parametrize("frozen_text", [6, 4])
def test_the_shipped_towers_give_one_gradient_whole_in_pieces_and_recomputed(
    tasks: dict[str, Task], frozen_text: int
) -> None:
    # Four of MiniLM's six layers frozen: the other two train, with dropout.
    def bench(machine: Machine) -> Bench:
        torch.manual_seed(0)
        spec = load_spec("lite0-minilm")
        model, tokenize = build(spec)
        freeze(model, 2, frozen_text)
        contract = dataclasses.replace(spec.contract, size=64)
        store = dataclasses.replace(tiny_bench(machine)).store
        store.contract = contract
        return Bench(machine.place(model), tokenize, store, machine)

    whole = _gradient(tasks["attunement"], bench(Machine()))
    for machine in (Machine(accumulate=3), Machine(checkpointing=True, accumulate=2)):
        cut = _gradient(tasks["attunement"], bench(machine))
        assert cut[0] == pytest.approx(whole[0], rel=1e-4)
        # 4e-4 to 3e-3 measured: where much of a frame is one colour, rounding sends much of a map
        # over a kink of ReLU6 at once.
        assert _distance(whole[1], cut[1]) < 1e-2
