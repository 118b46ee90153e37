"""The handle gives what the encoder gives, under the names that other CLIP models have."""

import pickle
from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from model_store.bundle import Bundle
from model_store.encoder import Encoder
from model_store.errors import BundleNotFound, EncodeFailed
from model_store.handle import load
from model_store.images import decode
from tests.tiny_bundle import PINK, RED, frame_jpeg, frame_png


def test_handle_encodes_as_the_service_does(tiny: Bundle) -> None:
    model, preprocess, tokenizer = load(tiny.path, threads=1)
    files = [frame_png(RED), frame_jpeg(PINK)]
    pixels = np.stack([preprocess(Image.open(BytesIO(data))) for data in files])
    assert np.array_equal(pixels, [decode(data, tiny.manifest.input) for data in files])
    encoder = Encoder(tiny, threads=1)
    assert np.array_equal(model.encode_image(pixels, normalize=True), encoder.encode_images(pixels))
    texts = ["red tissue", "a frame of pink colour", ""]
    ids = tokenizer(texts)
    assert ids.shape == (3, tiny.manifest.text.context_length)
    assert np.array_equal(model.encode_text(ids), encoder.encode_texts(texts))
    assert np.array_equal(tokenizer("red tissue"), ids[:1])


def test_scaled_cosines_are_the_margin_of_a_zero_shot_answer(tiny: Bundle) -> None:
    model, preprocess, tokenizer = load(str(tiny.path), threads=1)
    image = model.encode_image(preprocess(Image.open(BytesIO(frame_png(RED))))[None])
    text = model.encode_text(tokenizer(["red tissue", "pink tissue"]))
    logits = np.exp(model.logit_scale) * image @ text.T
    assert np.exp(model.logit_scale) == pytest.approx(tiny.manifest.logit_scale)
    assert logits[0, 0] > logits[0, 1]


def test_a_lying_camera_is_put_upright(tiny: Bundle) -> None:
    _, preprocess, _ = load(tiny.path, threads=1)
    picture = Image.new("RGB", (96, 96), PINK)
    picture.paste(RED, (0, 0, 96, 40))
    exif = Image.Exif()
    exif[0x0112] = 6
    out = BytesIO()
    picture.save(out, "PNG", exif=exif)
    opened = Image.open(BytesIO(out.getvalue()))
    turned = decode(out.getvalue(), tiny.manifest.input)
    assert np.array_equal(preprocess(opened), turned)
    # Loaders convert first, as webdataset does; the orientation travels along.
    assert np.array_equal(preprocess(opened.convert("RGB")), turned)
    assert not np.array_equal(preprocess(picture), turned)


def test_preprocess_may_be_sent_to_a_worker(tiny: Bundle) -> None:
    _, preprocess, _ = load(tiny.path, threads=1)
    picture = Image.new("RGB", (80, 70), RED)
    assert np.array_equal(pickle.loads(pickle.dumps(preprocess))(picture), preprocess(picture))


def test_nothing_in_gives_nothing_out(tiny: Bundle) -> None:
    model, _, tokenizer = load(tiny.path, threads=1)
    assert model.encode_text(tokenizer([])).shape == (0, tiny.manifest.embedding_dim)
    empty = np.zeros((0, 64, 64, 3), np.uint8)
    assert model.encode_image(empty).shape == (0, tiny.manifest.embedding_dim)


def test_pixels_of_another_kind_are_refused(tiny: Bundle) -> None:
    model, _, _ = load(tiny.path, threads=1)
    with pytest.raises(EncodeFailed, match="expected uint8 pixels as `preprocess` gives them"):
        model.encode_image(np.zeros((1, 64, 64, 3), np.float32))
    with pytest.raises(BundleNotFound):
        load(tiny.path / "elsewhere")
