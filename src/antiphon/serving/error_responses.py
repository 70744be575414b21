"""Errors as OpenAI's clients read them: `{"error": {"message", "type", "param", "code"}}`, one sentence each."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from antiphon.errors import AntiphonError, ModelError, first_line
from antiphon.serving.batching import ClosedError, DeadError, FullError

logger = logging.getLogger(__name__)

TYPES: Mapping[int, str] = {
    401: "authentication_error",
    429: "rate_limit_error",
    500: "server_error",
    502: "server_error",
    503: "server_error",
}
"""OpenAI's error types; every other one is an invalid_request_error."""
EXPECTED: Mapping[str, str] = {
    "input": "a non-empty string, an array of them, an array of token ids, or an array of such arrays",
    "dimensions": "a whole number above 0",
    "encoding_format": "float or base64",
    "input_type": "query or document (or Cohere's search_query, search_document, classification, clustering)",
    "task": "retrieval.query, retrieval.passage, text-matching, classification, clustering or separation",
    "documents": 'an array of strings or of {"text": string} objects',
    "inputs": "a non-empty string, an array of them, an array of token ids, or an array of such arrays",
    "texts": "an array of strings",
    "top_n": "a whole number above 0",
    "top_k": "a whole number above 0",
    "output_dimension": "a whole number above 0",
    "output_dtype": "float, the only kind of number that this server gives",
    "embedding_type": "float, the only kind of number that this server gives",
    "encoding_type": "float, the only kind of number that this server gives",
    "embedding_types": "an array of float and base64, the only kinds of numbers that this server gives",
    "normalized": "true, for every vector has length 1 here",
    "normalize": "true, for every vector has length 1 here",
    "late_chunking": "false, for a text's vector is of that text alone here",
    "add_special_tokens": "true, for a model is read with the special tokens that it was built with",
    "truncate": "true, false, NONE, START or END",
    "truncate_prompt_tokens": "-1 or a whole number",
    "truncation_direction": "right or left",
    "rank_fields": '["text"], the only field that a document has here',
}
"""What a field takes, in one phrase, where pydantic would list every branch."""


class ApiError(HTTPException):
    """An answer with a status, one sentence, and where it is about one field its name."""

    def __init__(
        self,
        status_code: int,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(status_code, message, headers=dict(headers) if headers else None)
        self.param = param
        self.code = code


def error_response(error: HTTPException) -> JSONResponse:
    """Return an error in OpenAI's shape."""
    status = error.status_code
    content = {
        "message": str(error.detail),
        "type": TYPES.get(status, "invalid_request_error"),
        "param": getattr(error, "param", None),
        "code": getattr(error, "code", None),
    }
    return JSONResponse({"error": content}, status_code=status, headers=error.headers)


def install(app: FastAPI) -> None:
    """Give every kind of failure its answer."""
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(FullError, _full)
    app.add_exception_handler(ClosedError, _closed)
    app.add_exception_handler(DeadError, _dead)
    app.add_exception_handler(AntiphonError, _mendable)
    app.add_exception_handler(Exception, _unforeseen)


def sentence(errors: Sequence[Any]) -> tuple[str, str | None]:
    """Return what is wrong with a body, in one sentence, and the field that it is about."""
    first = errors[0]
    if first["type"] == "value_error":
        return str(first["ctx"]["error"]), None
    where = [str(part) for part in first["loc"] if part != "body"]
    if first["type"] == "json_invalid":
        return f"The body is not JSON: {first['ctx']['error']} at character {first['loc'][-1]}.", None
    if not where:
        return "The body must be a JSON object.", None
    field = where[0]
    if first["type"] == "missing":
        return f"The field {'.'.join(where)} is missing.", field
    if first["type"] == "extra_forbidden":
        return f"There is no field {field[:60]!r} in this request.", field[:60]
    if field in EXPECTED:
        return f"{field} must be {EXPECTED[field]}; {_shown(first['input'])} is not.", field
    return f"{'.'.join(where)}: {first['msg']}; {_shown(first['input'])} is not that.", field


def _shown(value: object) -> str:
    text = ascii(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


async def _http(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    known = {
        404: f"There is nothing at {request.url.path[:100]}.",
        405: f"{request.method} is not a method of {request.url.path[:100]}.",
        400: "The body could not be read as JSON.",
    }
    if not isinstance(error, ApiError) and error.status_code in known:
        error = HTTPException(error.status_code, known[error.status_code], error.headers)
    return error_response(error)


async def _invalid(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if request.method == "POST" and kind != "application/json" and not kind.endswith("+json"):
        return error_response(ApiError(415, "Send the body as JSON, with the header Content-Type: application/json."))
    message, param = sentence(error.errors())
    return error_response(ApiError(400, message, param=param))


async def _full(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, FullError)
    headers = {"Retry-After": str(error.retry_after)}
    return error_response(ApiError(429, str(error), code="queue_full", headers=headers))


async def _closed(request: Request, error: Exception) -> JSONResponse:
    return error_response(ApiError(503, str(error), code="shutting_down", headers={"Retry-After": "5"}))


async def _dead(request: Request, error: Exception) -> JSONResponse:
    return error_response(ApiError(503, str(error), code="worker_died"))


async def _mendable(request: Request, error: Exception) -> JSONResponse:
    return error_response(ApiError(500 if isinstance(error, ModelError) else 400, first_line(error)))


async def _unforeseen(request: Request, error: Exception) -> JSONResponse:
    # the traceback goes to the log by uvicorn; a client learns nothing of the machine
    return error_response(ApiError(500, "The server failed at this request; its log says why."))
