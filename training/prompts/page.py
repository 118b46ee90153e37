"""Figures of ``training prompts`` as a Markdown page with a plot beside it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from training.prompts.questions import UNKNOWN

__all__ = ["write_page"]

_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7")
"""Okabe and Ito's, told apart by colour-blind readers."""
_INTRO = """\
# Prompts in other words

A user's prompt is worded otherwise than a bundle's. Each paraphrase here is a pair of sentences,
one per label, scored as a free `POST /v1/zero-shot` request would be; none stands in the text that
training reads. The page is written by

```bash
python -m training prompts --bundle B --archive A --data D --part {part} --page docs/prompts.md
```

Bundle `{bundle}`, part `{part}` ({flattered}), code of commit `{commit}`. {items} frames, of which
the quality gate sets {set_aside} aside; these are left out. Intervals (95 %) resample source
groups. A pair far below 0.5 is answered the wrong way round: the text tower has not learned its
words, and wordings of its kind must not be used.
"""
_WORST = 3


def write_page(path: Path, found: Mapping[str, Any]) -> None:
    """Write the page and its plot, ``<name>.svg``.

    Args:
        path: Markdown file.
        found: As from ``prompt_figures``.
    """
    plot = path.with_suffix(".svg")
    _write_plot(plot, found["tasks"])
    flattered = (
        "the chosen ensemble is flattered here"
        if found["part"] == "select"
        else "the chosen ensemble was chosen on `select`"
    )
    lines = [_INTRO.format(**{**found, "flattered": flattered, "commit": found["commit"][:12]})]
    lines.append(f"![AUROC of each paraphrase, by task, language and kind of frame]({plot.name})\n")
    for task, kinds in found["tasks"].items():
        lines += [*_spread(task, kinds), "", *_ensembles(kinds), "", *_worst(kinds), ""]
    lines += _questions(found["questions"])
    path.write_text("\n".join(lines).rstrip() + "\n", "utf-8")


def _row(*cells: object) -> str:
    return "| " + " | ".join(str(cell) for cell in cells) + " |"


def _head(*cells: str) -> list[str]:
    return [_row(*cells), "|" + "---|" * len(cells)]


def _spread(task: str, kinds: Mapping[str, Any]) -> Iterator[str]:
    counts = ", ".join(f"{k} {f['positives']} / {f['negatives']}" for k, f in kinds.items())
    yield f"## {task}\n"
    yield f"Positives / negatives: {counts}. AUROC over paraphrases: median (5 to 95 %).\n"
    yield from _head("language", "paraphrases of", "count", "below 0.5", *kinds)
    ways = {
        "pairs": "both labels",
        "positive_alone": "the positive label, beside the bundle's prompts for the other",
        "other_alone": "the other label, beside the bundle's prompts for the positive",
    }
    for language in _languages(kinds):
        for way, name in ways.items():
            if way == "pairs" or language == "en":
                told = [f["languages"][language][way] for f in kinds.values()]
                cells = [f"{t['median']:.3f} ({t['p5']:.3f} to {t['p95']:.3f})" for t in told]
                below = max(t["below_half"] for t in told)
                yield _row(language, name, told[0]["count"], below, *cells)
    spelling = max((f["spelling"] for f in kinds.values()), default=0.0)
    yield f"\nThe same pair in British and American spelling differs by at most {spelling:.3f}."


def _ensembles(kinds: Mapping[str, Any]) -> Iterator[str]:
    names = {"bundle": "the bundle's prompts", "chosen": "the best English pairs of `select`"}
    yield from _head("ensemble", *(f"{kind}: AUROC, lead" for kind in kinds))
    for name in next(iter(kinds.values()), {"ensembles": {}})["ensembles"]:
        cells = []
        for figures in kinds.values():
            told = figures["ensembles"][name]
            cell = f"{told['auroc']:.3f} ({told['auroc_low']:.3f}-{told['auroc_high']:.3f})"
            if name != "bundle":
                cell += (
                    f", {told['lead']:+.3f} ({told['lead_low']:+.3f} to {told['lead_high']:+.3f})"
                )
            cells.append(cell)
        yield _row(names.get(name, f"all pairs, {name}"), *cells)


def _worst(kinds: Mapping[str, Any]) -> Iterator[str]:
    """The pairs of the lowest mean over the kinds, of each language."""
    yield from _head("language", "lowest pairs", *kinds)
    rows = list(zip(*(figures["pairs"] for figures in kinds.values()), strict=True))
    rows.sort(key=lambda row: sum(one["auroc"] for one in row))
    for language in _languages(kinds):
        for row in [row for row in rows if row[0]["language"] == language][:_WORST]:
            text = f"{row[0]['positive']} / {row[0]['other']}"
            yield _row(language, text, *(f"{one['auroc']:.3f}" for one in row))


def _languages(kinds: Mapping[str, Any]) -> list[str]:
    return list(next(iter(kinds.values()), {"languages": {}})["languages"])


def _questions(questions: Mapping[str, Any]) -> Iterator[str]:
    yield "## Free questions\n"
    yield (
        "Asked of pictures with a lesion, as a free zero-shot request with three or four wordings "
        "per answer. Size is the upper\nagainst the lower third of the lesion's share of the "
        "picture (rank correlation over all), place that of a single lesion's box, number that of "
        "the\nboxes; looks are the attributes that the composer measures in the pixels, which "
        "reports were written from. An interval that holds 0.5 is chance.\n"
    )
    yield from _head(
        "question", "kind", "n", "AUROC", "lowest to highest wording", "rank correlation", ""
    )
    for name, kinds in questions.items():
        for kind, f in kinds.items():
            yield _row(
                name,
                kind,
                f"{f['high']} / {f['low']}",
                f"{f['auroc']:.3f} ({f['auroc_low']:.3f}-{f['auroc_high']:.3f})",
                f"{f['lowest_wording']:.3f} to {f['highest_wording']:.3f}",
                f"{f['rank_correlation']:.2f}" if "rank_correlation" in f else "",
                _verdict(f),
            )
    yield (
        f"\nNot asked: {', '.join(UNKNOWN)}. The data has no truth for them, and what a bundle "
        "answers to such prompts is not known to mean anything.\nThe composer's reports name no "
        "side and training flips frames: place cannot have been learned from them.\n"
    )


def _verdict(figures: Mapping[str, float]) -> str:
    if figures["auroc_low"] <= 0.5 <= figures["auroc_high"]:
        return "chance"
    return "**below chance**" if figures["auroc_high"] < 0.5 else ""


def _write_plot(path: Path, tasks: Mapping[str, Mapping[str, Any]]) -> None:
    style = {"svg.hashsalt": "prompts", "svg.fonttype": "none", "font.size": 9}
    with mpl.rc_context(style):
        canvas = Figure(figsize=(9.0, 3.2), layout="constrained")
        axes = canvas.subplots(1, len(tasks), squeeze=False)[0]
        for axis, (task, kinds) in zip(axes, tasks.items(), strict=True):
            languages = _languages(kinds)
            for index, (kind, figures) in enumerate(kinds.items()):
                colour = _COLOURS[index % len(_COLOURS)]
                x = [pair["auroc"] for pair in figures["pairs"]]
                # Kinds of a language lie above each other inside its band.
                shift = 0.6 * (index + 0.5) / len(kinds) - 0.3
                y = [languages.index(pair["language"]) + shift for pair in figures["pairs"]]
                axis.plot(x, y, ".", color=colour, markersize=4, alpha=0.6, label=kind)
                axis.axvline(figures["ensembles"]["bundle"]["auroc"], color=colour, linewidth=1)
            axis.axvline(0.5, color="black", linewidth=0.6, linestyle=":")
            axis.set_yticks(range(len(languages)), languages)
            axis.invert_yaxis()
            axis.set_xlim(0, 1)
            axis.set_xlabel("AUROC of a pair; line: the bundle's prompts")
            axis.set_title(task, loc="left")
            if kinds:
                axis.legend(
                    loc="lower right",
                    bbox_to_anchor=(1.0, 1.0),
                    ncols=len(kinds),
                    frameon=False,
                    handletextpad=0.0,
                    columnspacing=0.6,
                    borderpad=0.0,
                )
        FigureCanvasSVG(canvas).print_svg(path, metadata={"Date": None})
