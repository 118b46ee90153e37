"""PromQL that the panels are made of: rates, quantiles, shares, by the variables of a dashboard."""

__all__ = [
    "AT_POINT",
    "FRAMES",
    "HERE",
    "PATIENTS",
    "agreed",
    "beyond",
    "count",
    "decided",
    "differ",
    "drift",
    "fates",
    "mean",
    "of",
    "probability",
    "quantile",
    "rate",
    "up_to",
]

HERE = 'instance=~"$instance"'
CASES = f'{HERE}, task=~"$task", device=~"$device"'
AT_POINT = f'{CASES}, operating_point=~"$operating_point"'
PATIENTS, FRAMES = "patient_decisions_total", "frame_decisions_total"


def rate(metric: str, by: str, where: str = "") -> str:
    """A counter's increase a second, by labels."""
    chosen = f"{HERE}, {where}" if where else HERE
    return f"sum by ({by}) (rate(endoclip_{metric}{{{chosen}}}[$__rate_interval]))"


def mean(metric: str, by: str) -> str:
    """A histogram's mean, by labels."""
    return f"{rate(f'{metric}_sum', by)} / {rate(f'{metric}_count', by)}"


def quantile(at: float, metric: str, by: str) -> str:
    """A histogram's quantile `at` (0 to 1), by labels."""
    return f"histogram_quantile({at}, {rate(f'{metric}_bucket', f'le, {by}')})"


def beyond(limit: str) -> str:
    """Share of frames decoded or encoded in more than `limit` seconds, an edge of the buckets."""
    phases = 'phase=~"decode|encode"'
    within = rate("phase_seconds_bucket", "phase", f'{phases}, le="{limit}"')
    return f"1 - {within} / {rate('phase_seconds_count', 'phase', phases)}"


def count(metric: str, by: str, where: str) -> str:
    """A counter's increase over the dashboard's window, by labels."""
    return f"sum by ({by}) (increase(endoclip_{metric}{{{where}}}[$window]))"


def decided(metric: str, decision: str, by: str) -> str:
    """Share of a decision among those that were decided, over the window."""
    part = count(metric, by, f'{AT_POINT}, decision="{decision}"')
    whole = count(metric, by, f'{AT_POINT}, decision!="unscored"')
    return f"{part} / {whole}"


def probability(level: str, at: float) -> str:
    """Quantile `at` of frames' or patients' probabilities (`level`), over the window."""
    buckets = count(f"{level}_probability_bucket", "le, task, device", CASES)
    return f"histogram_quantile({at}, {buckets})"


def up_to() -> str:
    """Share of frames' probabilities up to each edge of the buckets, over the window."""
    buckets = count("frame_probability_bucket", "le", f'{CASES}, le!="+Inf"')
    whole = count("frame_probability_count", "", CASES)
    return f"{buckets} / scalar({whole})"


def fates(status: str) -> str:
    """Share of frames with a status among all, by reason, over the window."""
    part = count("frames_total", "reason", f'{HERE}, status="{status}"')
    return f"{part} / scalar({count('frames_total', '', HERE)})"


def drift(metric: str, shift: str = ".*") -> str:
    """A figure of drift, of the chosen devices."""
    return f'endoclip_drift_{metric}{{{HERE}, device=~"$device", shift=~"{shift}"}}'


def agreed(of: str) -> str:
    """Share of decisions that the shadow bundle makes alike, by task."""
    whole = f'endoclip_shadow_decisions_total{{{HERE}, of="{of}"}}'
    same = whole.replace("}", ', agreement="same"}')
    return f"sum by (task) ({same}) / sum by (task) ({whole})"


def differ(limit: str) -> str:
    """Share of scores by which the shadow bundle differs by more than `limit`."""
    bins = "endoclip_shadow_score_difference"
    within = f'sum by (task, of) ({bins}_bucket{{{HERE}, le="{limit}"}})'
    return f"1 - {within} / sum by (task, of) ({bins}_count{{{HERE}}})"


def of(metric: str) -> str:
    """A metric of the chosen instances, as it is."""
    return f"{metric}{{{HERE}}}"
