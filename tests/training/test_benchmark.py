"""A bundle inside LAION's clip_benchmark has the figures that ``evaluate`` gives."""

import io
import json
import tarfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

torch = pytest.importorskip("torch", reason="needs torch (extra `train`)")
pytest.importorskip("webdataset", reason="needs webdataset (extra `train`)")

from model_store.bundle import Bundle  # noqa: E402
from model_store.encoder import Encoder  # noqa: E402
from tests.test_shipped_bundle import newest  # noqa: E402
from tests.tiny_bundle import PINK, RED, build_tiny_bundle, frame_png  # noqa: E402
from tests.training.colour_archive import write_archive  # noqa: E402
from training.__main__ import main  # noqa: E402
from training.benchmark.handle import load  # noqa: E402
from training.benchmark.webdataset import read_webdataset, write_webdataset  # noqa: E402
from training.errors import ArchiveRefused, StaleInput  # noqa: E402
from training.evaluate import frame_figures, probabilities, truth  # noqa: E402
from training.items import Item, embed  # noqa: E402
from training.metrics import auroc  # noqa: E402
from training.protocol import archive_items, data_items  # noqa: E402
from training.sources import read_sources, split_sources, write_source_split  # noqa: E402

DATA = Path(__file__).parents[3] / "shared" / "data" / "colonoscopy" / "dev"
NEEDS = "needs clip-benchmark (extra `train`)"
# webdataset leaves shards to the garbage collector.
open_shards = pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_tiny_bundle(tmp_path_factory.mktemp("benchmark") / "tiny")


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_archive(tmp_path_factory.mktemp("benchmark") / "archive", ("select",))


def one(path: Path, data: bytes, polyp: bool | None) -> Item:
    path.write_bytes(data)
    return Item(path, "exam", polyp, None, path.stem, "", "")


def test_torch_handle_gives_what_the_encoder_gives(bundle: Path) -> None:
    model, transform, tokenizer = load(bundle)
    encoder = Encoder(Bundle.open(bundle))
    images = torch.stack([transform(Image.new("RGB", (80, 90), c)) for c in (RED, PINK)])
    image, text, scale = model(images, tokenizer(["red tissue"]))
    assert image.dtype == text.dtype == torch.float32
    assert np.array_equal(image.numpy(), encoder.encode_images(images.numpy()))
    assert np.array_equal(text.numpy(), encoder.encode_texts(["red tissue"]))
    assert float(scale) == pytest.approx(encoder.bundle.manifest.logit_scale)
    assert not any(p.requires_grad for p in model.eval().parameters())


def test_frames_travel_byte_for_byte_with_their_class(bundle: Path, tmp_path: Path) -> None:
    bmp = io.BytesIO()
    Image.new("RGB", (70, 70), RED).save(bmp, "BMP")
    items = [
        one(tmp_path / "a.png", frame_png(PINK), False),
        one(tmp_path / "b.bmp", bmp.getvalue(), True),
        one(tmp_path / "c.png", frame_png(RED), None),
        one(tmp_path / "d.png", b"no image", True),
    ]
    items.append(replace(items[0], path=tmp_path / "gone.png"))
    label_set = Bundle.open(bundle).label_set("polyp_detection")
    out = tmp_path / "out"
    written = write_webdataset(out, label_set, items)
    assert (written.positives, written.negatives, written.unreadable) == (1, 1, 2)
    with tarfile.open(out / "test" / "0.tar") as tar:
        names = tar.getnames()
        assert sorted(names) == ["000000.cls", "000000.png", "000001.cls", "000001.png"]
        stored = tar.extractfile("000000.png")
        assert stored is not None
        assert stored.read() == frame_png(PINK)
    assert (out / "classnames.txt").read_text("utf-8").split("\n")[:2] == ["polyp", "no polyp"]
    assert "{c}" in (out / "zeroshot_classification_templates.txt").read_text("utf-8")
    prompts = json.loads((out / "prompts.json").read_text("utf-8"))
    assert list(prompts["polyp_detection"]) == ["polyp", "no polyp"]
    task, found = read_webdataset(out)
    assert task == "polyp_detection"
    assert [item.polyp for item in found] == [False, True]
    again = tmp_path / "again"
    write_webdataset(again, label_set, items)
    assert (again / "test/0.tar").read_bytes() == (out / "test/0.tar").read_bytes()


def test_what_cannot_be_a_data_set_is_refused_and_leaves_nothing(
    bundle: Path, archive: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    label_set = Bundle.open(bundle).label_set("polyp_detection")
    item = one(tmp_path / "a.png", frame_png(RED), True)
    with pytest.raises(ArchiveRefused, match="found 1 polyp and 0 no_polyp"):
        write_webdataset(tmp_path / "out", label_set, [item])
    with pytest.raises(StaleInput, match="expected no such folder"):
        write_webdataset(tmp_path, label_set, [item])
    with pytest.raises(StaleInput, match="expected a folder that `training webdataset` wrote"):
        read_webdataset(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]
    options = ["--bundle", str(bundle), "--archive", str(archive), "--out", str(tmp_path / "out")]
    assert main(["webdataset", *options, "--kind", "crop"]) == 1
    assert "out of scope, view; found crop (crop and frame need --data)" in capsys.readouterr().err


@open_shards
@pytest.mark.parametrize("task", ["polyp_detection", "malignancy"])
def test_clip_benchmark_and_evaluate_agree(
    task: str, bundle: Path, archive: Path, tmp_path: Path
) -> None:
    pytest.importorskip("clip_benchmark", reason=NEEDS)
    out = tmp_path / "views"
    options = ["--bundle", str(bundle), "--archive", str(archive), "--out", str(out)]
    assert main(["webdataset", *options, "--kind", "view", "--task", task]) == 0
    file = tmp_path / "compared.json"
    compare = ["clip-benchmark", "--bundle", str(bundle), "--dataset", str(out)]
    assert main([*compare, "--out", str(file)]) == 0
    found = json.loads(file.read_text("utf-8"))
    encoder = Encoder(Bundle.open(bundle))
    figures = frame_figures(encoder, embed(encoder, archive_items(archive, "select")))
    expected = figures["view"][task]
    assert found["items"] == expected["positives"] + expected["negatives"]
    assert found["evaluate"]["auroc"] == pytest.approx(expected["auroc"], abs=1e-9)
    assert 0.5 < found["evaluate"]["auroc"] < 1.0
    for name in ("clip_benchmark", "clip_benchmark_prompts"):
        for figure, value in found["evaluate"].items():
            assert found[name][figure] == pytest.approx(value, abs=1e-3)


@open_shards
def test_shipped_bundle_has_its_figures_on_real_crops_in_clip_benchmark(tmp_path: Path) -> None:
    pytest.importorskip("clip_benchmark", reason=NEEDS)
    if not DATA.is_dir():
        pytest.skip("needs ../shared/data/colonoscopy")
    from training.benchmark.clip_benchmark import compare

    write_source_split(tmp_path / "source_split.json", split_sources(read_sources(DATA)))
    crops = [item for item in data_items(DATA, tmp_path, "select") if item.kind == "crop"][::3]
    encoder = Encoder(Bundle.open(newest()))
    write_webdataset(tmp_path / "wds", encoder.bundle.label_set("polyp_detection"), crops)
    found = compare(newest(), tmp_path / "wds")
    y, _ = truth("polyp_detection", crops)
    expected = auroc(y, probabilities(encoder, "polyp_detection", embed(encoder, crops)))
    assert found["clip_benchmark"]["auroc"] == pytest.approx(expected, abs=1e-3)
    assert found["clip_benchmark"] == pytest.approx(found["evaluate"], abs=1e-3)
    # Prompts pass the int8 text graph, whose own gate allows 0.002.
    assert found["clip_benchmark_prompts"]["auroc"] == pytest.approx(expected, abs=3e-3)


def test_its_own_command_line_knows_the_model_type() -> None:
    models = pytest.importorskip("clip_benchmark.models", reason=NEEDS)
    from clip_benchmark.metrics import zeroshot_classification

    from training.benchmark.clip_benchmark import MODEL_TYPE, register

    register()
    register()
    assert models.MODEL_TYPES.count(MODEL_TYPE) == 1
    outputs = torch.tensor([[3.0, 1.0, 2.0], [0.0, 2.0, 1.0], [1.0, 2.0, 3.0]])
    hits = zeroshot_classification.accuracy(outputs, torch.tensor([0, 2, 0]), topk=(1, 2))
    assert hits == pytest.approx([1 / 3, 2 / 3])
