"""The three graphs run as the format promises, alone, in batches and from many threads."""

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import helper

from model_store.bundle import Bundle, pack
from model_store.encoder import Encoder
from model_store.errors import BundleCorrupt, EncodeFailed, ProviderUnavailable
from model_store.images import decode
from model_store.label_sets import LabelSet
from tests import tiny_bundle
from tests.tiny_bundle import COLOURS, PINK, RED, frame_png

RNG = np.random.default_rng(3)


def noise(count: int) -> np.ndarray:
    return RNG.integers(0, 256, (count, 64, 64, 3), np.uint8)


def repacked(tiny: Bundle, out: Path, **graphs: bytes) -> Bundle:
    files: dict[str, bytes | Path] = {name: tiny.path / name for name in tiny.manifest.files}
    files |= {f"{name}.onnx": graph for name, graph in graphs.items()}
    return pack(out, tiny_bundle.manifest(), files)


def test_image_embeddings_are_unit_rows(encoder: Encoder) -> None:
    found = encoder.encode_images(noise(5))
    assert found.shape == (5, encoder.dimension)
    assert found.dtype == np.float32
    assert np.allclose(np.linalg.norm(found, axis=1), 1.0, atol=1e-6)


@pytest.mark.parametrize("count", [2, 7, 33, 65])
def test_batch_of_n_equals_n_batches_of_one(encoder: Encoder, count: int) -> None:
    pixels = noise(count)
    together, grids = encoder.encode_images_with_grid(pixels)
    for index in range(count):
        alone, grid = encoder.encode_images_with_grid(pixels[index : index + 1])
        assert np.abs(together[index] - alone[0]).max() < 1e-6
        assert np.abs(grids[index] - grid[0]).max() < 1e-6
    assert np.array_equal(together, encoder.encode_images(pixels))


def test_grid_has_a_place_for_each_part_of_the_frame(encoder: Encoder) -> None:
    pixels = np.full((1, 64, 64, 3), PINK, np.uint8)
    pixels[:, :32, :32] = RED
    _, grid = encoder.encode_images_with_grid(pixels)
    assert grid.shape == (1, 4, 4, 4)
    assert np.allclose(grid[0, 0, 0, :3], tiny_bundle.direction(RED)[:3], atol=1e-6)
    assert np.allclose(grid[0, 3, 3, :3], tiny_bundle.direction(PINK)[:3], atol=1e-6)


def test_no_frames_and_no_texts_give_no_rows(encoder: Encoder) -> None:
    assert encoder.encode_images(noise(0)).shape == (0, 4)
    assert encoder.encode_texts([]).shape == (0, 4)


def test_text_embedding_points_to_its_colour(encoder: Encoder) -> None:
    found = encoder.encode_texts([f"a {name} frame" for name in COLOURS])
    for row, colour in zip(found, COLOURS.values(), strict=True):
        direction = tiny_bundle.direction(colour)
        assert row @ direction / np.linalg.norm(direction) > 0.99


def test_text_embedding_does_not_depend_on_padding(encoder: Encoder) -> None:
    alone = encoder.encode_texts(["red tissue"])
    for length in (1, 5, 74, 200):
        padded = encoder.encode_texts(["red tissue", " ".join(["pink"] * length)])
        assert np.abs(padded[0] - alone[0]).max() < 1e-6


def test_many_texts_keep_their_order(encoder: Encoder) -> None:
    names = [list(COLOURS)[index % 5] for index in range(100)]
    found = encoder.encode_texts(names)
    for name, row in zip(names, found, strict=True):
        assert np.abs(row - encoder.encode_texts([name])[0]).max() < 1e-6


def test_text_tower_is_loaded_on_the_first_free_text_only(tiny: Bundle) -> None:
    encoder = Encoder(tiny, threads=1)
    encoder.encode_images(noise(1))
    encoder.class_embeddings(tiny.label_set("malignancy"))
    assert encoder._text is None
    encoder.encode_texts(["red"])
    assert encoder._text is not None


def test_stored_class_embeddings_equal_those_of_the_prompts(encoder: Encoder) -> None:
    for name, named in encoder.bundle.label_sets.items():
        free = LabelSet("", named.labels)
        assert np.abs(
            encoder.class_embeddings(free) - encoder.bundle.class_embeddings[name]
        ).max() == pytest.approx(0, abs=1e-5)


def test_class_embeddings_of_free_labels_agree_with_a_naive_loop(encoder: Encoder) -> None:
    prompts = [["red tissue"], ["pink frame", "white", "green tissue"], ["blue", "red"]]
    free = LabelSet.from_free([{"label": str(i), "prompts": p} for i, p in enumerate(prompts)])
    found = encoder.class_embeddings(free)
    for row, sentences in zip(found, prompts, strict=True):
        mean = np.mean([encoder.encode_texts([sentence])[0] for sentence in sentences], axis=0)
        assert np.abs(row - mean / np.linalg.norm(mean)).max() < 1e-6


def test_a_free_set_named_like_a_stored_one_is_not_taken_for_it(encoder: Encoder) -> None:
    labels = encoder.bundle.label_set("malignancy").labels[::-1]
    found = encoder.class_embeddings(LabelSet("malignancy", labels))
    stored = encoder.bundle.class_embeddings["malignancy"]
    assert np.abs(found - stored[::-1]).max() < 1e-5


def test_eight_threads_get_what_one_gets(encoder: Encoder) -> None:
    batches = [noise(1 + index % 4) for index in range(40)]
    texts = [f"{list(COLOURS)[index % 5]} tissue" for index in range(40)]

    def work(index: int) -> tuple[np.ndarray, np.ndarray]:
        return encoder.encode_images(batches[index]), encoder.encode_texts([texts[index]])

    expected = [work(index) for index in range(40)]
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(work, range(40)))
    for one, other in zip(expected, found, strict=True):
        assert np.array_equal(one[0], other[0])
        assert np.array_equal(one[1], other[1])


def test_first_free_texts_of_eight_threads_load_one_tower(tiny: Bundle) -> None:
    encoder = Encoder(tiny, threads=1)
    with ThreadPoolExecutor(8) as pool:
        towers = list(pool.map(lambda _: id(encoder._text_tower()), range(8)))
    assert len(set(towers)) == 1


def test_unify_agrees_with_a_naive_loop(encoder: Encoder) -> None:
    frames, queries = encoder.encode_images(noise(6)), encoder.encode_texts(["red", "pink"])
    mask = np.array([True, False, True, True, False, True])
    pooled, attention = encoder.unify(frames, mask, queries)
    for j, query in enumerate(queries):
        weights = [
            np.exp(14.0 * float(query @ frame)) if seen else 0.0
            for frame, seen in zip(frames, mask, strict=True)
        ]
        mixed = sum(w * f for w, f in zip(weights, frames, strict=True)) / sum(weights)
        assert attention[j] == pytest.approx(np.array(weights) / sum(weights), abs=1e-5)
        assert pooled[j] == pytest.approx(mixed / np.linalg.norm(mixed), abs=1e-5)


def test_masked_frames_change_nothing(encoder: Encoder) -> None:
    frames, queries = encoder.encode_images(noise(4)), encoder.encode_texts(["red", "pink"])
    alone, _ = encoder.unify(frames, np.ones(4, np.bool_), queries)
    more = np.concatenate([frames, encoder.encode_images(noise(30))])
    padded, attention = encoder.unify(more, np.arange(34) < 4, queries)
    assert np.abs(alone - padded).max() < 1e-6
    assert not attention[:, 4:].any()


@pytest.mark.parametrize("count", [0, 1, 5])
def test_without_a_visible_frame_unify_gives_zeros(encoder: Encoder, count: int) -> None:
    frames, queries = encoder.encode_images(noise(count)), encoder.encode_texts(["red", "pink"])
    pooled, attention = encoder.unify(frames, np.zeros(count, np.bool_), queries)
    assert pooled.shape == (2, 4)
    assert attention.shape == (2, count)
    assert not pooled.any()
    assert not attention.any()


def test_numbers_that_are_not_finite_are_an_error(tiny: Bundle, tmp_path: Path) -> None:
    graph = tiny_bundle.image_tower(mean_shift=float("nan"))
    broken = Encoder(repacked(tiny, tmp_path / "nan", image_tower=graph), threads=1)
    with pytest.raises(EncodeFailed, match="finite numbers in embedding"):
        broken.encode_images(noise(2))


def test_input_of_another_shape_is_an_error_with_its_cause(encoder: Encoder) -> None:
    with pytest.raises(EncodeFailed) as caught:
        encoder.encode_images(np.zeros((1, 32, 32, 3), np.uint8))
    assert caught.value.__cause__ is not None


def test_graph_the_runtime_does_not_load_is_refused(tiny: Bundle, tmp_path: Path) -> None:
    model = onnx.load_from_string(tiny_bundle.unify())
    model.graph.node.append(helper.make_node("NoSuchOperator", ["frames"], ["x"]))
    bundle = repacked(tiny, tmp_path / "b", unify=model.SerializeToString())
    with pytest.raises(BundleCorrupt, match=r"unify\.onnx"):
        Encoder(bundle)


def test_provider_is_the_one_the_session_uses(encoder: Encoder) -> None:
    assert encoder.provider == "CPUExecutionProvider"


def test_provider_that_is_not_there_is_refused_unless_fallback_is_allowed(tiny: Bundle) -> None:
    with pytest.raises(ProviderUnavailable) as caught:
        Encoder(tiny, provider="NoSuchExecutionProvider")
    assert caught.value.asked == "NoSuchExecutionProvider"
    fallen = Encoder(tiny, provider="NoSuchExecutionProvider", allow_fallback=True)
    assert fallen.provider == "CPUExecutionProvider"


@pytest.mark.skipif(
    "CUDAExecutionProvider" not in ort.get_available_providers(),
    reason="this build of the runtime has no CUDA provider",
)
def test_cuda_is_used_or_refused_and_never_silently_replaced(tiny: Bundle) -> None:
    fallen = Encoder(tiny, provider="CUDAExecutionProvider", allow_fallback=True)
    if fallen.provider == "CUDAExecutionProvider":
        assert Encoder(tiny, provider="CUDAExecutionProvider").provider == fallen.provider
        return
    with pytest.raises(ProviderUnavailable) as caught:
        Encoder(tiny, provider="CUDAExecutionProvider")
    assert caught.value.got == fallen.provider == "CPUExecutionProvider"


def test_a_red_frame_is_nearest_to_the_red_label(encoder: Encoder) -> None:
    contract, named = encoder.bundle.manifest.input, encoder.bundle.label_set("colour")
    pixels = np.stack([decode(frame_png(c), contract) for c in (RED, PINK, COLOURS["white"])])
    cosine = encoder.encode_images(pixels) @ encoder.class_embeddings(named).T
    assert [named.names[index] for index in cosine.argmax(axis=1)] == ["red", "pink", "pale"]


def test_the_package_needs_none_of_the_heavy_ones() -> None:
    code = (
        "import sys, model_store;"
        "heavy = {'torch', 'fastapi', 'service', 'training', 'pydantic', 'onnx', 'transformers'};"
        "sys.exit(', '.join(heavy & set(sys.modules)) or 0)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def traces_of_telemetry(imports: str, graph: Path, home: Path) -> list[str]:
    """What the runtime keeps below a home of its own, to be sent, once it opened a graph."""
    home.mkdir()
    open_graph = "import onnxruntime as ort; ort.InferenceSession({!r}, providers=[{!r}])"
    script = f"{imports}; {open_graph.format(str(graph), 'CPUExecutionProvider')}"
    # A CI variable alone silences it, and would hide what a user's machine does.
    kept = {name: os.environ[name] for name in ("PATH", "PYTHONPATH") if name in os.environ}
    subprocess.run(
        [sys.executable, "-c", script],
        check=True,
        env=kept | {"HOME": str(home)},
        cwd=Path(__file__).parents[2],
        capture_output=True,
    )
    return [path.name for path in home.rglob("*") if path.is_file()]


@pytest.mark.parametrize("package", ["model_store", "training"])
def test_runtime_prepares_no_telemetry(tiny: Bundle, tmp_path: Path, package: str) -> None:
    assert not traces_of_telemetry(f"import {package}", tiny.path / "unify.onnx", tmp_path / "home")


def test_telemetry_guard_can_fail(tiny: Bundle, tmp_path: Path) -> None:
    version = tuple(int(part) for part in ort.__version__.split(".")[:2])
    if sys.platform != "linux" or version < (1, 29):
        pytest.skip("this build of the runtime has no telemetry")
    assert traces_of_telemetry("import os", tiny.path / "unify.onnx", tmp_path / "home")
