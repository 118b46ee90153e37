"""The commands ``extract`` and ``attributes``: their options, and what they say."""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from training.extract.extraction import Asking

__all__ = ["add_commands"]

_EXTRACT = (
    "Reads the attributes of every report of an archive into a ledger, by the rules or, with "
    "--llm, by a model at any OpenAI-compatible endpoint (vLLM, Ollama, llama.cpp, hosted). What a "
    "model answers is checked against the report; what fails is read by the rules and marked. "
    "Stopped or killed, the same command goes on. Training reads the ledger by the recipe's "
    "attributes.source. --evaluate measures the extractor on labelled texts instead. Reports leave "
    "this machine when the endpoint is not on it. More: docs/extraction.md."
)
_ATTRIBUTES = (
    "Reads one report on standard input; prints one JSON object, "
    '{"lesions": [{"sentence", "attributes": {name: {"value", "evidence"}}}]}. Attributes that the '
    "report does not mention are left out; pathology is not read. With --llm a lesion that the "
    'rules had to read says so: "by", "reason".'
)


def add_commands(commands: Any, say: Callable[[str], None]) -> None:
    """Add both commands to a parser.

    Args:
        commands: What ``add_subparsers`` gave.
        say: Prints a text.
    """
    extract = commands.add_parser(
        "extract",
        help="attributes of an archive's reports into a ledger, by rules or a model; --evaluate",
        description=_EXTRACT,
    )
    what = extract.add_mutually_exclusive_group(required=True)
    what.add_argument("--archive", type=Path, help="archive folder")
    what.add_argument(
        "--evaluate", action="store_true", help="measure on the labelled texts: table and JSON"
    )
    extract.add_argument(
        "--out",
        type=Path,
        help="ledger (default: ARCHIVE/attributes-<rules or model>.jsonl); with --evaluate the "
        "JSON file (default: runs/extraction.json)",
    )
    extract.add_argument(
        "--texts",
        type=Path,
        default=Path("../shared/data/text"),
        help="folder of the public reports that --evaluate reads (default: ../shared/data/text)",
    )
    _add_endpoint(extract)
    extract.add_argument(
        "--concurrency", type=_positive, default=4, help="questions under way at once (default 4)"
    )
    extract.add_argument(
        "--fallback",
        choices=("rules", "leave"),
        default="rules",
        help="an answer that fails: read by the rules and marked (default), or leave the record "
        "out, to be asked again by the next run",
    )
    extract.add_argument(
        "--prices",
        type=float,
        nargs=2,
        metavar=("IN", "OUT"),
        help="price of a million tokens asked and answered, to say what it cost",
    )
    extract.set_defaults(run=lambda args: _run_extract(args, say))
    attributes = commands.add_parser(
        "attributes",
        help="read one report on standard input: its lesions, attributes and evidence as JSON",
        description=_ATTRIBUTES,
    )
    _add_endpoint(attributes)
    attributes.set_defaults(run=lambda args: _run_attributes(args, say))


def _add_endpoint(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--llm", metavar="URL", help="endpoint, as http://127.0.0.1:8080/v1")
    parser.add_argument("--model", metavar="NAME", help="the model's name there")
    parser.add_argument(
        "--key-variable",
        default="OPENAI_API_KEY",
        metavar="NAME",
        help="environment variable that holds the API key (default: OPENAI_API_KEY); without one "
        "the word none is sent, which local servers take",
    )
    parser.add_argument(
        "--timeout", type=float, default=120.0, help="seconds for one attempt (default 120)"
    )
    parser.add_argument(
        "--max-tokens",
        type=_positive,
        default=2048,
        help="of one answer (default 2048, ten lesions); longer ones are cut off and fail",
    )


def _asking(
    args: argparse.Namespace, concurrency: int = 1, fallback: str = "rules"
) -> Asking | None:
    from training.errors import ConfigError

    if not args.llm and not args.model:
        return None
    if not args.llm or not args.model:
        raise ConfigError("--llm URL and --model NAME belong together; only one was given")
    from training.extract.endpoint import Endpoint
    from training.extract.extraction import Asking

    endpoint = Endpoint(args.llm, args.model, args.key_variable, args.timeout, args.max_tokens)
    return Asking(endpoint, concurrency, fallback)


def _run_extract(args: argparse.Namespace, say: Callable[[str], None]) -> int:
    asking = _asking(args, args.concurrency, args.fallback)
    if args.evaluate:
        return _evaluate(args, asking, say)
    from training.errors import TrainingError
    from training.extract.extraction import extract_reports, summary
    from training.records import read

    found = read(args.archive)
    for error in found.errors:
        say(f"left out: {error}")
    reports = {record.record_id: record.report for record in found.records}
    del found  # frames of an archive take more memory than its reports
    path = args.out or args.archive / f"{_ledger_stem(args.model)}.jsonl"
    entries = extract_reports(reports, path, asking)
    say(summary(entries, args.prices))
    say(f"ledger: {path}")
    if missing := len(reports) - len(entries):
        raise TrainingError(f"{missing} reports have no answer yet; the same command asks again")
    return 0


def _evaluate(args: argparse.Namespace, asking: Asking | None, say: Callable[[str], None]) -> int:
    from training.extract.evaluation import evaluation, evaluation_table
    from training.runs import write_json

    out = args.out or Path("runs") / "extraction.json"
    out.parent.mkdir(parents=True, exist_ok=True)
    ledger = out.with_name(f"{out.stem}-{_ledger_stem(args.model)}.jsonl")
    if asking is None:
        ledger.unlink(missing_ok=True)  # the rules are measured anew: they may have changed
    figures = evaluation(ledger, args.texts, asking)
    write_json(out, figures)
    say(evaluation_table(figures))
    say(f"figures: {out}")
    return 0


def _ledger_stem(model: str | None) -> str:
    kept = "".join(c if c.isalnum() or c in "._-" else "-" for c in model or "rules")
    return f"attributes-{kept}"


def _run_attributes(args: argparse.Namespace, say: Callable[[str], None]) -> int:
    from training.extract.answer import rules_lesions
    from training.extract.ledger import BY_RULES, Entry, findings_of, report_digest

    report = sys.stdin.read()
    asking = _asking(args)
    if asking is None:
        entry = Entry("", report_digest(report), rules_lesions(report))
    else:
        entry = asyncio.run(_ask(report, asking))
    lesions = []
    for lesion, finding in zip(entry.lesions, findings_of(entry, report), strict=True):
        attributes = {
            name: {"value": v.value, "evidence": report[slice(*v.span)]}
            for name, v in lesion.attributes.items()
        }
        told: dict[str, Any] = {"sentence": finding.text, "attributes": attributes}
        if asking is not None:
            told["by"] = lesion.by
            if lesion.by == BY_RULES:
                told["reason"] = lesion.reason
        lesions.append(told)
    answer: dict[str, Any] = {"lesions": lesions}
    if entry.reason:
        answer["reason"] = entry.reason
    say(json.dumps(answer, indent=1, ensure_ascii=False))
    return 0


async def _ask(report: str, asking: Asking) -> Any:
    from training.extract.extraction import read_one

    try:
        await asking.endpoint.open()
        return await read_one(report, asking)
    finally:
        await asking.endpoint.close()


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"expected 1 or more, found {number}")
    return number
