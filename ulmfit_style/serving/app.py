"""A model over HTTP: a page, answers as JSON, and files; what is asked at the same time is answered in one batch."""

import asyncio
import io
from collections.abc import Awaitable, Callable, Sequence
from itertools import islice
from pathlib import Path
from secrets import compare_digest
from tempfile import TemporaryDirectory
from typing import Annotated, Any, final

from fastapi import FastAPI, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, JSONResponse
from pydantic import BaseModel
from starlette.middleware.trustedhost import TrustedHostMiddleware

from ulmfit_style.data import columns
from ulmfit_style.errors import UserError
from ulmfit_style.predictor import Predictor, row_of
from ulmfit_style.results import csv
from ulmfit_style.tasks.base import Answer, Row
from ulmfit_style.training.batching import BATCH

PAGE = Path(__file__).with_name("page.html")

FILES = (".csv", ".tsv", ".jsonl", ".json", ".txt")
"""What files that are sent may end in: none that is unpacked, for a small one may hold any size."""

CSV = {"content": {"text/csv": {"schema": {"type": "string", "format": "binary"}}}}


class Question(BaseModel):
    """What is asked."""

    inputs: str | dict[str, Any] | list[str | dict[str, Any] | tuple[str, str]]
    """A text, or the fields of a row by their names, or a list of these, in which two texts are a list of two."""
    explain: bool = False
    """Tell which tokens each answer rests on, which takes far longer."""


class Answers(BaseModel):
    """The answers, one for each input, as `predict` gives them."""

    answers: list[dict[str, Any]]


@final
class Batches:
    """Answers the rows of requests: whoever finds the model free takes those of all who wait with its own."""

    def __init__(self, model: Predictor) -> None:
        self.model = model
        self._waiting: list[tuple[Sequence[Row], asyncio.Future[list[Answer]]]] = []
        self._model_is_free = asyncio.Lock()

    async def answers(self, rows: Sequence[Row]) -> list[Answer]:
        """Return the answers to rows, a batch after another, so that a long file does not hold up others."""
        parts = [await self._of_one(rows[start : start + BATCH]) for start in range(0, len(rows), BATCH)]
        return [answer for part in parts for answer in part]

    async def _of_one(self, rows: Sequence[Row]) -> list[Answer]:
        one = rows, asyncio.get_running_loop().create_future()
        self._waiting.append(one)
        try:
            async with self._model_is_free:
                if not one[1].done():
                    await self._answer([other for other in self._waiting if not other[1].done()])
            return one[1].result()
        finally:
            self._waiting.remove(one)

    async def _answer(self, asked: Sequence[tuple[Sequence[Row], asyncio.Future[list[Answer]]]]) -> None:
        rows = [row for part, _ in asked for row in part]
        try:
            answers = iter(await asyncio.to_thread(lambda: list(self.model.stream(rows))))
        except Exception as error:
            if len(asked) == 1:
                asked[0][1].set_exception(error)
            for one in asked if len(asked) > 1 else ():  # what is wrong with one is nothing to the others
                await self._answer([one])
        else:
            for part, future in asked:
                future.set_result(list(islice(answers, len(part))))

    async def explained(self, rows: Sequence[Row]) -> list[Answer]:
        """Return the answers to rows with what they rest on."""
        async with self._model_is_free:
            return await asyncio.to_thread(lambda: list(self.model.explained(rows)))


def app(model: Predictor, name: str, hosts: Sequence[str], token: str | None, max_bytes: int) -> FastAPI:
    """Return the service.

    Args:
        name: What the model is called; its path is nobody's business.
        hosts: The names by which it may be called: another site's page could call a service of this machine by its own.
        token: What requests have to bring; None: nothing.
        max_bytes: The longest request.
    """
    batches = Batches(model)
    # The pages of FastAPI on the endpoints would be fetched from elsewhere.
    service = FastAPI(title="ulmfit-style", docs_url=None, redoc_url=None)
    service.add_middleware(TrustedHostMiddleware, allowed_hosts=list(hosts))

    @service.middleware("http")
    async def guard(request: Request, call_next: Callable[[Request], Awaitable[Response]]) -> Response:
        """Refuse what has no token or is too long, before it is read."""
        if request.method != "POST":
            return await call_next(request)
        refused, size = None, request.headers.get("content-length")
        if token is not None and not compare_digest(request.headers.get("authorization", ""), f"Bearer {token}"):
            refused = 401, "send the token: Authorization: Bearer <token>"
        elif size is None:
            refused = 411, "send the length of the request: Content-Length"
        elif int(size) > max_bytes:
            refused = 413, f"{int(size):,} bytes are too many; send at most {max_bytes:,} (serve.max_mb)"
        if refused is None:
            return await call_next(request)
        async for _ in request.stream():  # or the sender would see a broken connection, and not the reason
            pass
        return JSONResponse({"detail": refused[1]}, refused[0])

    @service.exception_handler(RequestValidationError)
    @service.exception_handler(UserError)
    async def refuse(request: Request, error: Exception) -> Response:
        detail = str(error)
        if isinstance(error, RequestValidationError):
            place = " ".join(map(str, error.errors()[0]["loc"][:2]))
            taken = 'openapi.json tells what is taken, such as {"inputs": "a text"}'
            detail = f"{place}: {error.errors()[0]['msg']}; {taken}"
        return JSONResponse({"detail": detail}, 422)

    @service.get("/", include_in_schema=False)
    async def page() -> FileResponse:
        return FileResponse(PAGE)

    @service.get("/health")
    async def health() -> dict[str, Any]:
        """Return that the service is there, and of which model it is."""
        task = model.task
        told = {"status": "ok", "model": name, "task": type(task).__name__, "inputs": list(task.inputs())}
        return {**told, "is_explained": task.is_explained}

    @service.post("/predict")
    async def predict(question: Question) -> Answers:
        """Answer one text or several."""
        asked = question.inputs if isinstance(question.inputs, list) else [question.inputs]
        rows = [row_of(model.task, f"inputs[{number}]", one) for number, one in enumerate(asked)]
        return Answers(answers=await (batches.explained(rows) if question.explain else batches.answers(rows)))

    @service.post("/file", openapi_extra={"requestBody": {**CSV, "required": True}}, responses={200: CSV})
    async def file(request: Request, name: Annotated[str, Query(description="What the file is called")]) -> Response:
        """Answer the rows of a file, as a csv with the answers beside them."""
        name, content = Path(name).name, await request.body()
        if not name.endswith(FILES):
            raise UserError(f"{name}: must end in {', '.join(FILES)}")
        with TemporaryDirectory() as folder:
            path = Path(folder) / name
            path.write_bytes(content)
            try:
                rows = await asyncio.to_thread(lambda: list(columns.read_inputs(model.task, "file", str(path))))
            except UserError as error:
                raise UserError(str(error).replace(f"{folder}/", "")) from error
        answers, written = await batches.answers([row for row, _ in rows]), io.StringIO()
        records = [csv.beside(fields, answer) for (_, fields), answer in zip(rows, answers, strict=True)]
        csv.write_records(records, written)
        return Response(written.getvalue(), media_type="text/csv; charset=utf-8")

    return service
