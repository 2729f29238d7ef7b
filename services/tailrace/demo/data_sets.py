"""The real data sets that the demo can close the loop on, and what is expected of each."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tailrace.errors import UsageError

HOUR_MS = 3_600_000


@dataclass(frozen=True)
class DataSet:
    """A CSV file that is replayed through the loop.

    Attributes:
        model: the example contract that reads it.
        file: its usual name.
        about: in a line.
        train: how ``tailrace train`` chooses the first version's rows; by default the earliest fifth.
        where: which rows are replayed; all by default.
        label_delay_ms: how long after its request a label comes; None where labels play no part.
        rate: records a second.
        drift_on: a feature that the drift alerts have to name.
        retrained: whether a retrained version has to be promoted.
    """

    model: str
    file: str
    about: str
    rate: float
    train: tuple[str, ...] = ()
    where: str | None = None
    label_delay_ms: int | None = None
    drift_on: str | None = None
    retrained: bool = False


DATA_SETS = {
    "electricity": DataSet(
        model="electricity",
        file="electricity.csv",
        about="Half-hourly prices in New South Wales, 1996 to 1998 (Harries, 1999); labels come 48 half-hours late",
        rate=400.0,
        label_delay_ms=24 * HOUR_MS,
        retrained=True,
    ),
    "wine": DataSet(
        model="wine",
        file="wine_quality.csv",
        about="Vinho verde (Cortez et al., 2009): trained on strong wines, asked about light ones",
        rate=200.0,
        train=("--where", "alcohol >= 11"),
        where="alcohol < 11",
        drift_on="alcohol",
    ),
    "phishing": DataSet(
        model="phishing",
        file="phishing.csv",
        about="Web sites (Abdelhamid et al., 2014), with a flip of the concept that is planted halfway",
        rate=16.0,
        label_delay_ms=24 * HOUR_MS,
        retrained=True,
    ),
}


def find_file(data: DataSet, given: Path | None) -> Path | None:
    """The data set's file: the one given, else under its usual name in the current folder; None for phishing,
    which comes with river.

    Raises:
        UsageError: there is none.
    """
    if data.model == "phishing":
        return None
    file = given if given is not None else Path(data.file)
    if not file.exists():
        raise UsageError(f"{file} is not there: say where it is with --file; `--data phishing` needs no file")
    return file.resolve()


def write_phishing(file: Path) -> None:
    """The rows of river's Phishing as CSV. In the second half of them the truth is turned around: the planted flip.

    The column ``planted`` says which rows those are.
    """
    from river.datasets import Phishing

    rows = list(Phishing())
    names = list(rows[0][0])
    with file.open("w") as out:
        out.write(",".join([*names, "phishing", "planted"]) + "\n")
        for number, (features, truth) in enumerate(rows):
            planted = number >= len(rows) // 2
            values = [*(features[name] for name in names), int(truth != planted), int(planted)]
            out.write(",".join(f"{value:g}" for value in values) + "\n")
