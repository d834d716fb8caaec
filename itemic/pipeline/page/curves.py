"""The curves of a training as charts: losses and validations over forest tokens, stage after stage."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from itemic.errors import ArtifactError
from itemic.page import Figure, Key
from itemic.page.svg import Axis, Line, count_axis, line_chart, share_axis
from itemic.training.curves import LOSSES, StageLog, read_logs

VALIDATIONS = {"valid/hr@10": "HR@10", "valid/ndcg@10": "NDCG@10"}
POINTS = 300  # of a line, at most
BOUNDARY = 7  # the colour of the lines between stages
UNITS = ((2e6, 1e6, "million forest tokens"), (2e3, 1e3, "thousand forest tokens"), (0, 1, "forest tokens"))
Points = list[tuple[float, float]]


def curves_part(root: Path) -> list[Figure]:
    """What the logs of a run's stages tell; nothing where no stage has begun."""
    try:
        logs = read_logs(root)
    except ArtifactError:
        return []
    return [figure for figure in (_losses(logs), _validations(logs)) if figure is not None]


def _losses(logs: Sequence[StageLog]) -> Figure | None:
    lines = curves(logs, LOSSES)
    if not lines:
        return None
    top = max(value for points in lines.values() for _, value in points)
    return _figure(
        "Training loss",
        "Mean cross-entropy in nats per learned token; itemic tokens are those of semantic IDs."
        + _stages(logs),
        lines,
        logs,
        count_axis("nats per token", top) if top >= 1 else share_axis("nats per token", top),
    )


def _validations(logs: Sequence[StageLog]) -> Figure | None:
    lines = curves(logs, VALIDATIONS)
    if not lines:
        return None
    top = max(value for points in lines.values() for _, value in points)
    text = "Hit rate and NDCG at 10 on a sample of validation requests, ranked over the whole catalogue."
    return _figure("Validation", text, lines, logs, share_axis("", top * 1.05), dots=True)


def curves(logs: Sequence[StageLog], names: Mapping[str, str]) -> dict[str, Points]:
    """For each name its points (forest tokens since the run began, value), all stages in one line; thinned out."""
    found: dict[str, Points] = {name: [] for name in names.values()}
    begin = 0
    for log in logs:
        last = begin
        for line in log.lines:
            last = begin + int(line["tokens"]) if "tokens" in line else last
            for key, name in names.items():
                if key in line:
                    found[name].append((float(last), float(line[key])))
        begin += log.tokens
    return {name: points[:: -(-len(points) // POINTS)] for name, points in found.items() if points}


def _figure(
    title: str, text: str, lines: dict[str, Points], logs: Sequence[StageLog], y: Axis, dots: bool = False
) -> Figure:
    total = max(sum(log.tokens for log in logs), 1)
    _, unit, label = next(one for one in UNITS if total >= one[0])
    drawn = [
        Line(name, [(tokens / unit, value) for tokens, value in points], colour, dots=dots)
        for colour, (name, points) in enumerate(lines.items())
    ]
    begin = 0
    for log in logs[:-1]:
        begin += log.tokens
        edge = [(begin / unit, y.low), (begin / unit, y.high)]
        drawn.append(Line("", edge, BOUNDARY, dash="2 4", dots=False, width=1))
    keys = [Key(name, colour + 1) for colour, name in enumerate(lines)]
    return Figure(title, text, line_chart(title, drawn, count_axis(label, total / unit), y), keys)


def _stages(logs: Sequence[StageLog]) -> str:
    names = [log.name for log in logs]
    return f" Dotted lines part the stages {', '.join(names)}." if len(names) > 1 else ""
