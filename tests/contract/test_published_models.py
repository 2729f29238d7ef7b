"""Each line of docs/published-models.md is tried, and the page is made of what is tried."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tests.support.published_models import KINDS, ModelKind, page

from tailrace.errors import TailraceError


@pytest.mark.parametrize("kind", KINDS, ids=[kind.name for kind in KINDS])
def test_a_kind_of_model_becomes_what_the_page_says(kind: ModelKind) -> None:
    if kind.refused:
        with pytest.raises(TailraceError) as refused:
            kind.publish()
        assert kind.refused in str(refused.value)
        return
    manifest = kind.publish().manifest
    assert manifest.format == kind.becomes
    if "allow_inverted" in kind.name:
        assert manifest.holdout.metrics["auc"] < 0.5
    elif "missing" not in kind.name:
        assert manifest.holdout.metrics["auc"] == pytest.approx(1.0)
    assert np.isfinite(list(manifest.holdout.metrics.values())).all()


def test_the_page_is_the_table() -> None:
    made = Path("docs/published-models.md").read_text(encoding="utf-8")
    assert made == page(), "run `make pages`"
