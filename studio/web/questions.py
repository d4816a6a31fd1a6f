"""The end points of a labelling page: an answer is confirmed once it is on the disk. They need no
NiceGUI."""

from collections.abc import Callable
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect

from latentedit.directions.labelling.desk import Desk
from latentedit.errors import ArgumentError, Error
from latentedit.io.budget import parse_json

LARGEST_ANSWER = 1024
"""Bytes of an answer; it has less than 50."""


def end_points(
    app: FastAPI, desk: Callable[[], Desk | None], finish: Callable[[], None] | None = None
) -> None:
    """Register with ``app`` what the question asks for and sends.

    Args:
        desk: the labelling that is open; None where none is.
        finish: called after the Done button.
    """

    def open_desk() -> Desk:
        found = desk()
        if found is None:
            raise ArgumentError("no labelling is open; go back to the page")
        return found

    @app.get("/label/state")
    async def state() -> Response:
        return await answered(lambda: open_desk().state())

    @app.get("/label/picture/{number}")
    async def picture(number: str) -> Response:
        try:
            kind, data = await run_in_threadpool(lambda: open_desk().picture(number))
        except Error as error:
            return JSONResponse({"error": str(error)}, 404)
        return Response(data, media_type=kind)

    @app.post("/label/answer")
    async def answer(request: Request) -> Response:
        body = await _body(request)
        if isinstance(body, Response):
            return body
        return await answered(lambda: open_desk().answer(body.get("sample"), body.get("value")))

    @app.post("/label/undo")
    async def undo() -> Response:
        return await answered(lambda: open_desk().undo())

    @app.post("/label/done")
    async def done() -> Response:
        found = await answered(lambda: open_desk().state())
        if finish is not None:
            finish()
        return found


async def answered(work: Callable[[], dict[str, Any]]) -> Response:
    """Do ``work`` in a thread, and answer with its result, or with what went wrong."""
    try:
        return JSONResponse(await run_in_threadpool(work))
    except Error as error:
        return JSONResponse({"error": str(error)}, 409)
    except Exception as error:  # whatever it is, the page must be able to show it
        return JSONResponse({"error": f"{type(error).__name__}: {error}"}, 500)


async def _body(request: Request) -> dict[str, Any] | Response:
    if request.headers.get("content-type", "").partition(";")[0].strip() != "application/json":
        return JSONResponse({"error": "a request must be JSON"}, 415)
    too_long = JSONResponse({"error": f"a request has at most {LARGEST_ANSWER} bytes"}, 413)
    try:
        data = await request.body()
    except ClientDisconnect:  # the guard has cut it
        return too_long

    if len(data) > LARGEST_ANSWER:
        return too_long

    try:
        body = parse_json(data, LARGEST_ANSWER)
    except Error:
        return JSONResponse({"error": "not JSON"}, 400)
    return (
        body
        if isinstance(body, dict)
        else JSONResponse({"error": "a request must be a JSON object"}, 400)
    )
