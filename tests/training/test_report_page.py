"""The page of a drawn run: every section, nothing loaded, hostile text harmless, gaps named."""

import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import pytest

pytest.importorskip("torch", reason="needs torch (extra `train`)")
pytest.importorskip("open_clip", reason="needs open_clip (extra `train`)")

from training.__main__ import main
from training.records import read, read_truth, write_jsonl

pytestmark = pytest.mark.slow

VOID = {"meta", "img", "br", "hr", "link", "input"}
SECTIONS = {
    *("summary", "curves", "cleansing", "attributes", "attunement", "unification"),
    *("evaluation", "failures", "checks", "reproduction"),
}
HOSTILE = (
    "<script>alert(1)</script> \"'><img src=https://example.org/x onerror=alert(1)> $x$ {{7*7}}"
)


class Page(HTMLParser):
    """A parsed page: its elements and its text; unbalanced elements are an error."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open[-1:] != ["style"]:
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(self.words)

    def ids(self) -> list[str]:
        return [attrs["id"] or "" for _, attrs in self.elements if "id" in attrs]


def _report(run: Path, out: Path, *options: str) -> Page:
    assert main(["report", str(run), "--out", str(out), *options]) == 0
    return Page(out.read_text("utf-8"))


def _loaded(page: Page) -> list[str]:
    """Whatever a browser would fetch or run."""
    found = []
    for tag, attrs in page.elements:
        if tag in {"script", "link", "iframe", "object", "embed", "base", "form"}:
            found.append(tag)
        for name, value in attrs.items():
            local = (value or "").startswith(("#", "data:image/"))
            if name in {"src", "href", "srcset", "action", "data"} and not local:
                found.append(f"{name}={value}")
            if name.startswith("on") or "url(" in (value or "").replace("url(#", ""):
                found.append(f"{name}={value}")
    return found


@pytest.fixture(scope="module")
def path(smoke_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("report") / "report.html"
    _report(smoke_run, out)
    return out


@pytest.fixture(scope="module")
def page(path: Path) -> Page:
    return Page(path.read_text("utf-8"))


def test_every_section_is_there_and_every_link_leads_somewhere(page: Page) -> None:
    ids = page.ids()
    assert set(ids) >= SECTIONS
    assert len(ids) == len(set(ids))
    targets = {
        (attrs["href"] or "")[1:]
        for tag, attrs in page.elements
        if tag in {"a", "use"} and "href" in attrs
    }
    assert targets <= set(ids)


def test_the_page_loads_nothing_and_forbids_it_too(page: Page, path: Path) -> None:
    assert _loaded(page) == []
    policies = [a["content"] for t, a in page.elements if t == "meta" and "http-equiv" in a]
    assert len(policies) == 1
    assert (policies[0] or "").startswith("default-src 'none'")
    assert path.stat().st_size < 8e6


def test_the_guard_against_loading_can_fail() -> None:
    assert _loaded(Page('<img src="https://example.org/x.png">'))
    assert _loaded(Page("<script></script>"))
    assert _loaded(Page('<p onclick="x()" style="background: url(x.png)">a</p>'))


def test_every_picture_has_words(page: Page) -> None:
    pictures = [attrs for tag, attrs in page.elements if tag == "img"]
    drawings = [attrs for tag, attrs in page.elements if tag == "svg"]
    assert len(pictures) > 40
    assert len(drawings) > 15
    assert all(attrs.get("alt") for attrs in pictures)
    assert all(attrs.get("aria-label") for attrs in drawings)


def test_readings_hold_the_figures_of_the_stages(page: Page, smoke_run: Path) -> None:
    report = json.loads((smoke_run / "1-cleansing" / "report.json").read_text("utf-8"))
    assert f"{report['select']['auroc_round2']:.3f} after round 2" in page.text
    assert "Research use only" in page.text
    assert "Drawn frames" in page.text


def test_figures_are_those_of_evaluate(page: Page, smoke_run: Path, tmp_path: Path) -> None:
    bundle, archive = smoke_run / "endo-clip-smoke-0.0.0", smoke_run / "0-archive"
    out = tmp_path / "figures.json"
    command = ["evaluate", "--bundle", str(bundle), "--archive", str(archive), "--out", str(out)]
    assert main(command) == 0
    found = json.loads(out.read_text("utf-8"))
    for figure in (found["patients"][task]["unify"] for task in found["patients"]):
        low, high = figure["auroc_low"], figure["auroc_high"]
        assert f"{figure['auroc']:.3f} ({low:.3f}–{high:.3f})" in page.text
    for figure in found["patients"].values():
        assert f"{figure['ece15']:.3f} ({figure['ece15_floor']:.3f})" in page.text


def test_what_is_missing_is_named_with_its_command(page: Page, smoke_run: Path) -> None:
    assert "share.json is not in" in page.text
    assert "python -m training arms --of share" in page.text
    assert "python -m training arms --of attributes" in page.text
    assert "python -m training extract --evaluate" in page.text
    assert str(smoke_run / "experiments") in page.text


def test_the_seed_documents_six_questions_are_answered_by_link(page: Page) -> None:
    for words in (
        "Validation of Cleansing",
        "Ablation on Soft Labels",
        "Attention Visualization",
        "LLM Extraction Accuracy",
        "Cleansing Stage Ablation",
        "Cross-Attention Visualization and Ablation",
    ):
        assert words in page.text


def test_the_same_run_gives_the_same_bytes(path: Path, smoke_run: Path, tmp_path: Path) -> None:
    _report(smoke_run, tmp_path / "again.html")
    assert (tmp_path / "again.html").read_bytes() == path.read_bytes()


def _copy(run: Path, out: Path, *names: str) -> Path:
    """A run that shares the named folders with another; the archive's lists are its own."""
    archive = out / "0-archive"
    archive.mkdir(parents=True)
    for source in (run / "0-archive").iterdir():
        if source.is_dir():
            (archive / source.name).symlink_to(source, target_is_directory=True)
        else:
            shutil.copy(source, archive / source.name)
    for name in names:
        (out / name).symlink_to(run / name, target_is_directory=True)
    return out


def test_hostile_text_of_an_archive_stays_text(smoke_run: Path, tmp_path: Path) -> None:
    names = ("1-cleansing", "2-attunement", "endo-clip-smoke-0.0.0", "report-cache")
    run = _copy(smoke_run, tmp_path / "<b onload=x>run", *names)
    archive = run / "0-archive"
    truth = read_truth(archive)
    for entry in truth.values():
        for lesion in entry["lesions"]:
            lesion["sentence"] = f"{HOSTILE} {lesion['sentence']}"
    write_jsonl(archive / "truth.jsonl", truth.values())
    header = json.loads((archive / "archive.json").read_text("utf-8"))
    (archive / "archive.json").write_text(json.dumps(header | {"kind": "ingested"}), "utf-8")
    experiments = tmp_path / "experiments"
    experiments.mkdir()
    (experiments / "share.json").write_text(json.dumps({"name": HOSTILE}), "utf-8")
    page = _report(run, tmp_path / "page.html", "--experiments", str(experiments))
    assert _loaded(page) == []
    assert "alert(1)" in page.text
    assert "{{7*7}}" in page.text
    assert "As sensitive as the archive" in page.text
    # An ingested archive without pathology has no patient whose malignancy is known.
    assert "holds one class of malignancy only" in page.text or "malignancy of" not in page.text
    assert read(archive).kind == "ingested"


def test_an_ingested_archive_is_shown_by_what_people_said_of_it(
    smoke_run: Path, tmp_path: Path
) -> None:
    names = ("2-attunement", "3-unification", "endo-clip-smoke-0.0.0")
    run = _copy(smoke_run, tmp_path / "run", *names)
    shutil.copytree(smoke_run / "1-cleansing", run / "1-cleansing")
    (run / "1-cleansing" / "report.json").unlink()
    archive = run / "0-archive"
    truth = read_truth(archive)
    (archive / "truth.jsonl").unlink()
    (archive / "views").unlink()
    header = json.loads((archive / "archive.json").read_text("utf-8"))
    (archive / "archive.json").write_text(json.dumps(header | {"kind": "ingested"}), "utf-8")
    told = [frame for entry in truth.values() for frame in entry["frames"]]
    labels = [{"frame": f["file"], "lesion": f["kind"] == "lesion"} for f in told]
    write_jsonl(archive / "labelled_sample.jsonl", labels)
    outcomes = [
        {"record_id": name, "neoplastic": "neoplastic" in [x["histology"] for x in e["lesions"]]}
        for name, e in truth.items()
        if e["lesions"]
    ]
    write_jsonl(archive / "pathology.jsonl", outcomes)
    page = _report(run, tmp_path / "page.html", "--part", "report")
    assert "As sensitive as the archive" in page.text
    assert "Closing figures." in page.text
    assert re.search(r"polyp detection of patients \d", page.text)
    assert "nobody knows which frames show a lesion" in page.text
    assert "says which frame shows which lesion" in page.text
    assert re.search(r"kept [\d.]+|for kept", page.text)


def test_an_unfinished_run_is_shown_as_far_as_it_is(smoke_run: Path, tmp_path: Path) -> None:
    run = _copy(smoke_run, tmp_path / "run", "1-cleansing")
    partial = run / "2-attunement.partial"
    partial.mkdir()
    lines = (smoke_run / "2-attunement" / "attunement.csv").read_text("utf-8").splitlines()
    (partial / "attunement.csv").write_text("\n".join([*lines[:4], lines[4][:5]]), "utf-8")
    page = _report(run, tmp_path / "page.html")
    assert "The stage is not finished." in page.text
    assert "no packed bundle yet" in page.text
    assert f"python -m training run --config smoke --out {run}" in page.text
    assert set(page.ids()) >= SECTIONS


def test_a_broken_file_costs_its_own_section(smoke_run: Path, tmp_path: Path) -> None:
    run = _copy(smoke_run, tmp_path / "run")
    shutil.copytree(smoke_run / "1-cleansing", run / "1-cleansing")
    (run / "1-cleansing" / "report.json").write_text("{half", "utf-8")
    (run / "extraction.json").write_text('{"sets": []}', "utf-8")
    page = _report(run, tmp_path / "page.html")
    assert "report.json cannot be read" in page.text
    assert "extraction.json is not as expected" in page.text
    assert re.search(r"\d+ frames were kept", page.text)


def test_what_is_no_run_is_refused_in_one_line(
    tmp_path: Path, smoke_run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["report", str(tmp_path)]) == 1
    assert "expected the folder of a run" in capsys.readouterr().err
    bundle = "endo-clip-smoke-0.0.0"
    (tmp_path / bundle).symlink_to((smoke_run / bundle).resolve(), target_is_directory=True)
    assert main(["report", str(tmp_path)]) == 1
    assert "finished stages (0-archive, 1-cleansing" in capsys.readouterr().err
    assert not (tmp_path / "report.html").exists()
    other = _copy(smoke_run, tmp_path / "other") / "0-archive"
    lines = (other / "records.jsonl").read_text("utf-8").splitlines()
    records = [json.loads(line) for line in lines]
    write_jsonl(other / "records.jsonl", [r | {"record_id": f"x{r['record_id']}"} for r in records])
    capsys.readouterr()
    assert main(["report", str(smoke_run), "--archive", str(other)]) == 1
    assert "not the run's" in capsys.readouterr().err
    assert main(["report", str(smoke_run), "--config", "nothing"]) == 1
    assert "expected a recipe file" in capsys.readouterr().err
