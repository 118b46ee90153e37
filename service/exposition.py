"""Writes figures as Prometheus text: what `prometheus_client.generate_latest` writes, and faster.

A scrape is written on the event loop, where everything else waits for it, and under load each few
milliseconds of it cost a wait for the interpreter besides. A series' name and labels never change
(every series is there from the start), so each is put into text once, and the library's samples,
which repeat them, are not made: a line costs its number. Numbers are read where the library keeps
them; `tests/service/test_metrics.py` holds that the text is the library's.
"""

from collections.abc import Iterator

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.samples import Sample
from prometheus_client.utils import floatToGoString

__all__ = ["Exposition"]

_Figure = Counter | Gauge | Histogram


class Exposition:
    """The text of one registry; names and labels are those of `service.metrics`, plain ASCII."""

    def __init__(self, registry: CollectorRegistry) -> None:
        """Begin.

        Args:
            registry: whose figures are written. Label values must come from closed lists, or be of
                the few bundles that are served in turn, since the text of each is kept.
        """
        self._registry = registry
        self._heads: dict[str, str] = {}
        self._series: dict[tuple[str, ...], list[str]] = {}

    def text(self) -> bytes:
        """Write all figures as they are now."""
        return "".join(self._lines()).encode("utf-8")

    def _lines(self) -> Iterator[str]:
        for collector in list(self._registry._collector_to_names):
            if isinstance(collector, _Figure):
                yield from self._figure(collector)
            else:  # the process, the GPU: a few lines that are read anew each time
                for family in collector.collect():
                    yield self._head(family.name, family.documentation, family.type)
                    for sample in family.samples:
                        yield _name(sample.name, sample.labels) + _number(sample.value)

    def _figure(self, figure: _Figure) -> Iterator[str]:
        head = self._heads.get(figure._name)
        yield head or self._head(figure._name, figure._documentation, figure._type)
        if not figure._labelnames:
            children: dict[tuple[str, ...], _Figure] = {(): figure}
        else:
            with figure._lock:
                # Of the figure's own class; annotated with the class of them all.
                children = dict(figure._metrics)  # type: ignore[arg-type]
        for values, child in children.items():
            names = self._series.get((figure._name, *values)) or self._names(figure, values, child)
            for name, value in zip(names, _values(child), strict=True):
                yield name
                # Most figures of a quiet service are 0.
                yield "0.0\n" if value == 0 else _number(value)

    def _head(self, name: str, about: str, kind: str) -> str:
        full = f"{name}_total" if kind == "counter" else name
        about = about.replace("\\", r"\\").replace("\n", r"\n")
        self._heads[name] = f"# HELP {full} {about}\n# TYPE {full} {kind}\n"
        return self._heads[name]

    def _names(self, figure: _Figure, values: tuple[str, ...], child: _Figure) -> list[str]:
        labels = dict(zip(figure._labelnames, values, strict=True))
        samples: list[Sample] = list(child._child_samples())
        names = [_name(figure._name + one.name, labels | one.labels) for one in samples]
        self._series[(figure._name, *values)] = names
        return names


def _values(child: _Figure) -> list[float]:
    """Give the numbers of one series in the order of its samples: of a histogram, running sums."""
    if not isinstance(child, Histogram):
        return [child._value.get()]
    found, sofar = [], 0.0
    for bucket in child._buckets:
        sofar += bucket.get()
        found.append(sofar)
    return [*found, sofar, child._sum.get()]


def _name(name: str, labels: dict[str, str]) -> str:
    pairs = ",".join(f'{label}="{_escaped(value)}"' for label, value in sorted(labels.items()))
    return f"{name}{{{pairs}}} " if pairs else f"{name} "


def _number(value: float) -> str:
    # The library's own spelling of numbers; it has no annotations.
    return f"{floatToGoString(value)}\n"  # type: ignore[no-untyped-call]


def _escaped(value: str) -> str:
    return value.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")
