"""What a request to the registry says (body, schema, the subject and the id in its path), and how an error is told."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import unquote

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from tailrace.avro.registry import CONTENT_TYPE
from tailrace.contracts.records.compatibility import invalid

_LARGEST_BODY = 4 * 1024 * 1024


class ApiError(Exception):
    """An answer other than 200; the first three digits of the code are HTTP's status."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


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
    return unquote(request.path_params["subject"])


def subject_or_none(request: Request) -> str | None:
    return subject_of(request) if "subject" in request.path_params else None


def schema_id_of(request: Request) -> int:
    text = str(request.path_params["id"])
    if not (text.isascii() and text.isdecimal()):
        raise ApiError(404, f"HTTP 404 Not Found: {text} is no schema id")
    return int(text)


def flag(request: Request, name: str) -> bool:
    return request.query_params.get(name, "false").lower() == "true"
