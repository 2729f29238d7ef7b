"""The registry's endpoints of what is set for a subject, or for all: compatibility level and mode."""

from __future__ import annotations

from dataclasses import dataclass

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response

from tailrace.local.registry_log import Decision, RegistryLog
from tailrace.local.registry_requests import (
    ApiError,
    body_of,
    flag,
    json_answer,
    subject_of,
    subject_or_none,
)
from tailrace.local.registry_state import RegistryState, Setting, setting_record


@dataclass(frozen=True)
class SettingApi:
    """The endpoints of a setting, of a subject or of all: what requests and errors call it, and the errors' codes."""

    log: RegistryLog
    setting: Setting
    field: str
    name: str
    absent: int
    invalid: int

    def show(self, request: Request) -> Response:
        subject, state = subject_or_none(request), self.log.read()
        if subject is None or subject in state.settings[self.setting] or flag(request, "defaultToGlobal"):
            return json_answer({self.setting.name: state.value(self.setting, subject)})
        raise self._no_setting(subject)

    async def set(self, request: Request) -> Response:
        value = str((await body_of(request)).get(self.field, "")).upper()
        if value not in self.setting.values:
            values = ", ".join(self.setting.values)
            raise ApiError(self.invalid, f"Invalid {self.name}. Valid values are {values}")
        record = setting_record(self.setting, subject_or_none(request), value)
        await run_in_threadpool(lambda: self.log.write(lambda state: ([record], None)))
        return json_answer({self.field: value})

    def delete(self, request: Request) -> Response:
        subject = subject_of(request)

        def decide(state: RegistryState) -> Decision[str]:
            if subject not in state.settings[self.setting]:
                raise self._no_setting(subject)
            return [setting_record(self.setting, subject, None)], state.settings[self.setting][subject]

        return json_answer({self.setting.name: self.log.write(decide)})

    def _no_setting(self, subject: str) -> ApiError:
        text = f"Subject '{subject}' does not have subject-level {self.field} configured"
        return ApiError(self.absent, text)
