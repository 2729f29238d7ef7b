"""One revision of a contract, ready to serve: its schemas, and whatever is worked out from it once and kept."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import Any, TypeVar

from tailrace.avro.codec import Codec
from tailrace.avro.columns.decoder import ColumnDecoder
from tailrace.avro.registry import Registry
from tailrace.contracts.language.model_contract import ModelContract
from tailrace.contracts.records.json_input import JsonInput
from tailrace.contracts.records.lanes import Lane
from tailrace.contracts.records.schemas import namespace, prediction_schema, request_schema, subject
from tailrace.contracts.state.contracts import AppliedContract
from tailrace.models.errors import PackageRefused
from tailrace.models.package.open import check_schema
from tailrace.scorer.versions import ServingVersion

Made = TypeVar("Made")


class ServingPlan:
    """One revision of a model's contract, ready to serve. ``topic`` is where its predictions go."""

    def __init__(self, applied: AppliedContract, topic: str, codec: Codec, registry: Registry) -> None:
        self.applied = applied
        self.contract = applied.contract
        self.topic = topic
        self.codec = codec
        self._registry = registry
        self._misfits: dict[str, str | None] = {}
        self._worked_out: dict[Any, Any] = {}

    @property
    def model(self) -> str:
        return self.applied.model

    @cached_property
    def lane(self) -> Lane:
        return Lane(self.contract.lane)

    @cached_property
    def namespace(self) -> str:
        return namespace(self.model)

    @cached_property
    def request_schema(self) -> dict[str, Any]:
        return request_schema(self.contract)

    @cached_property
    def request_schema_id(self) -> int:
        """Raises `Unavailable` while the registry is away, as does ``prediction_schema_id``."""
        return self._register(self.lane.requests, self.request_schema)

    @cached_property
    def prediction_schema_id(self) -> int:
        return self._register(self.topic, prediction_schema(self.contract))

    @cached_property
    def decoder(self) -> ColumnDecoder:
        return ColumnDecoder(self.request_schema)

    @cached_property
    def json_input(self) -> JsonInput:
        return JsonInput(self.contract, "requests")

    def worked_out(self, make: Callable[[ModelContract], Made]) -> Made:
        """What ``make`` makes of the contract: made once, and kept as long as the revision is in force."""
        if make not in self._worked_out:
            self._worked_out[make] = make(self.contract)
        made: Made = self._worked_out[make]
        return made

    def misfit(self, version: ServingVersion) -> str | None:
        """Why a version cannot serve under this contract, which may be newer than the version."""
        digest = version.model.digest
        if digest not in self._misfits:
            try:
                check_schema(version.model.manifest, self.contract)
                self._misfits[digest] = None
            except PackageRefused as misfit:
                which = f"version {version.number} of {self.model}"
                self._misfits[digest] = f"{which} does not fit its contract any more: {misfit.reason}"
        return self._misfits[digest]

    def _register(self, topic: str, schema: dict[str, Any]) -> int:
        return self._registry.register(subject(topic, self.model, self.contract.lane), schema)
