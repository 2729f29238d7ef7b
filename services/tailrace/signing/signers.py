"""Who signs in a home. Each signer has a key of its own; which kinds of record it may sign, contracts/state/kinds.py
says.
"""

from __future__ import annotations

OWNER = "owner"
PUBLISHER = "publisher"
ROLLOUT = "rollout"
CLOCK = "clock"
SCORER = "scorer"
SHADOW_SCORER = "shadow-scorer"
JOINER = "joiner"
DRIFT = "drift"
EVALUATOR = "evaluator"
TRAINER = "trainer"
SINK = "sink"

SERVICES = (ROLLOUT, CLOCK, SCORER, SHADOW_SCORER, JOINER, DRIFT, EVALUATOR, TRAINER, SINK)
"""Signers that are services: each reads the folder of its own key, and no other."""

SIGNERS = {
    OWNER: "whoever owns the home, by the command line",
    PUBLISHER: "people and pipelines elsewhere, whose public keys this home trusts",
    **{name: f"the service {name}" for name in SERVICES},
}
"""All signers, and who that is."""
