"""What a request to the registry says (body, schema, the subject and the id in its path), and how an error is told."""

from __future__ import annotations

import json
from typing import Any, TypeVar
from urllib.parse import unquote

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from tailrace.avro.registry import CONTENT_TYPE
from tailrace.contracts.records.compatibility import invalid

_T = TypeVar("_T")
_DEFAULT_PREFIX, _ALL_CONTEXTS = ":.:", ":*:"
_LARGEST_BODY = 4 * 1024 * 1024


class ApiError(Exception):
    """An answer other than 200; the first three digits of the code are HTTP's status."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


def json_answer(content: Any) -> Response:
    return JSONResponse(content, media_type=CONTENT_TYPE)


def error_answer(code: int, message: str) -> Response:
    status = code if code < 1000 else code // 100
    return JSONResponse({"error_code": code, "message": message}, status, media_type=CONTENT_TYPE)


async def body_of(request: Request) -> dict[str, Any]:
    content = b""
    async for chunk in request.stream():
        content += chunk
        if len(content) > _LARGEST_BODY:
            raise ApiError(413, f"The request is larger than {_LARGEST_BODY} bytes")
    try:
        body = json.loads(content)
    except ValueError as error:
        raise ApiError(42201, f"The request is no JSON: {error}") from error
    if not isinstance(body, dict):
        raise ApiError(42201, "The request is no JSON object")
    return body


def schema_of(body: dict[str, Any]) -> str:
    """The request's schema as compact JSON, found to be valid Avro."""
    if body.get("schemaType", "AVRO") not in (None, "AVRO"):
        raise ApiError(42201, f"Invalid schema type {body['schemaType']}: this registry holds AVRO only")
    if body.get("references"):
        raise ApiError(42201, "Invalid schema: this registry holds no schemas that refer to others")
    text = body.get("schema")
    if not isinstance(text, str):
        raise ApiError(42201, "Invalid schema: the request has no text under 'schema'")
    try:
        text = json.dumps(json.loads(text), separators=(",", ":"), ensure_ascii=False)
    except (ValueError, RecursionError) as error:
        raise ApiError(42201, f"Invalid schema: {error}") from error
    if reason := invalid(text):
        raise ApiError(42201, f"Invalid schema {text[:200]}, details: {reason}")
    return text


def subject_of(request: Request) -> str:
    """The subject in the path; of the default context, whose prefix is taken off."""
    return unquote(request.path_params["subject"]).removeprefix(_DEFAULT_PREFIX)


def own_context(subject: str) -> str:
    """A subject that may be registered: in another context its schemas would need ids of their own."""
    if subject.startswith(":.") and ":" in subject[2:]:
        context = subject[1:].partition(":")[0]
        raise ApiError(42208, f"There is no context {context} here: this registry has the default one alone")
    return subject


def prefix_of(request: Request) -> str:
    """What the names of the subjects that are asked for begin with."""
    prefix = request.query_params.get("subjectPrefix", "")
    return prefix.removeprefix(_DEFAULT_PREFIX).removeprefix(_ALL_CONTEXTS)


def page_of(request: Request, items: list[_T]) -> list[_T]:
    """From ``offset`` on, at most ``limit`` of them; a limit below 0 is none."""
    offset, limit = _whole_number(request, "offset", 0), _whole_number(request, "limit", -1)
    return items[max(0, offset) :][: None if limit < 0 else limit]


def _whole_number(request: Request, name: str, default: int) -> int:
    text = request.query_params.get(name, str(default))
    try:
        return int(text)
    except ValueError:
        raise ApiError(404, f"HTTP 404 Not Found: {name}={text[:50]} is no number") from None


def subject_or_none(request: Request) -> str | None:
    return subject_of(request) if "subject" in request.path_params else None


def schema_id_of(request: Request) -> int:
    text = str(request.path_params["id"])
    if not (text.isascii() and text.isdecimal()):
        raise ApiError(404, f"HTTP 404 Not Found: {text} is no schema id")
    return int(text)


def flag(request: Request, name: str) -> bool:
    return request.query_params.get(name, "false").lower() == "true"
