"""``tailrace explain``: why an answer is what it is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from tailrace.cli.app import app
from tailrace.cli.output import JsonOption, connection, emit, say
from tailrace.cli.verify import SinceOption, UntilOption, span_of

if TYPE_CHECKING:
    from tailrace.verify.explained import Explained

_BAR = 24


@app.command()
def explain(
    name: Annotated[str, typer.Argument(metavar="ID", help="A prediction's id, or a request's.")],
    model: Annotated[str | None, typer.Option("--model", "-m", help="Only this model's predictions.")] = None,
    top: Annotated[int, typer.Option(min=1, help="How many features to show.")] = 10,
    since: SinceOption = None,
    until: UntilOption = None,
    as_json: JsonOption = False,
) -> None:
    """Explain an answer from its package: what each feature added to it.

    Contributions are Shapley values against rows of the training data, in log-odds for a class, otherwise in the
    value's unit; with the baseline they add up to what the model said. They are exact for models that add up features,
    as linear ones do, and else the mean of samples, with its standard error. Explanations in the event itself are shown
    beside them; exits 1 where they do not come out again.

    Example: tailrace explain r-17 --model credit
    """
    from tailrace.verify.explained import explain_logged

    explained = explain_logged(connection(), name, model, span_of(since, until))
    if as_json:
        emit(explained.as_dict(), as_json=True)
    else:
        show(explained, top)
    if explained.as_logged is False:
        say("NOT ok: the explanation in the event is another one")
        raise typer.Exit(1)


def show(explained: Explained, top: int) -> None:
    """Prints an explanation for people: the largest ``top`` contributions with bars."""
    event = explained.event
    output = event["predicted_class"] if event["value"] is None else event["value"]
    score = "" if event["score"] is None else f", score {event['score']:.6g}"
    action = "" if event["action"] == output else f", {event['action']}"
    emit(f"{event['model']} version {event['version']} ({event['role']}): {output}{score}{action}")
    exact = ", exact" if explained.exact else ""
    emit(f"{explained.what}: {explained.baseline:+.4f} on average, {explained.output:+.4f} here{exact}")
    shown = list(explained.contributions.items())[:top]
    rest = explained.output - explained.baseline - sum(contribution for _, contribution in shown)
    most = max(abs(contribution) for _, contribution in shown) or 1.0
    rows: list[dict[str, Any]] = []
    for feature, contribution in shown:
        bar = "#" * round(_BAR * abs(contribution) / most)
        rows.append(
            {
                "feature": feature,
                "value": explained.values[feature],
                "adds": f"{contribution:+.4f}",
                **({} if explained.exact else {"error": f"{explained.errors[feature]:.4f}"}),
                "": f"{bar if contribution < 0 else '':>{_BAR}}|{bar if contribution >= 0 else ''}",
            }
        )
        if explained.logged is not None and not (explained.exact and explained.as_logged):
            logged = explained.logged.get(feature)
            rows[-1]["logged"] = None if logged is None else f"{logged:+.4f}"
    if len(explained.contributions) > top:
        others = f"{len(explained.contributions) - top} others"
        rows.append({"feature": others, "value": None, "adds": f"{rest:+.4f}", "": ""})
    emit(rows)
