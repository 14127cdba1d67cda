"""serve: answer over HTTP with a finished model, and show a page on which it can be tried."""

import os
import secrets
import socket
from collections.abc import Sequence
from contextlib import closing, suppress
from pathlib import Path

from ulmfit_style.config.commands import Serve
from ulmfit_style.console import say
from ulmfit_style.errors import Interrupted, UserError, require_packages
from ulmfit_style.resolved import Resolved
from ulmfit_style.tasks.base_text import LabelTask

TOKEN = "ULMFIT_STYLE_TOKEN"
"""The environment variable that holds what requests have to bring; where it is empty, they need nothing."""

LOCAL = ("127.0.0.1", "localhost", "::1")

ENDING_SECONDS = 30
"""How long requests that are under way may take when the service is to end."""


def check(resolved: Resolved, stages: Sequence[str]) -> None:
    """Check that what serves is installed.

    Raises:
        UserError: if not.
    """
    require_packages("serve", "fastapi", "uvicorn")


def run(resolved: Resolved) -> None:
    """Serve until it is told to end; then what was asked is still answered.

    Raises:
        UserError: if there is no model, or the port is taken.
    """
    config, directory = resolved.config, resolved.finished_model("serve")
    options = config.serve
    is_local = options.host in LOCAL
    token = os.environ.get(TOKEN, None if is_local else secrets.token_urlsafe()) or None
    with closing(_listener(options)) as listener:
        import uvicorn

        from ulmfit_style.predictor import Predictor
        from ulmfit_style.serving.app import app

        model = Predictor(str(directory), task=config.predict.task, option="predict.model")
        if isinstance(model.task, LabelTask) and model.task.top_k is None:
            model.task = model.task.with_answer_options({"top_k": "all"})
        name = Path((config.predict.model or config.name).removesuffix("/finetune")).name
        service = app(model, name, LOCAL if is_local else ["*"], token, int(options.max_mb * 1e6))
        server = uvicorn.Server(uvicorn.Config(service, log_level="warning", timeout_graceful_shutdown=ENDING_SECONDS))
        address = f"http://{options.host}:{listener.getsockname()[1]}/" + (f"#{token}" if token else "")
        say(f"serve: {model.name} at {address}; Ctrl-C ends it", style="bold")
        with suppress(KeyboardInterrupt, Interrupted):
            server.run(sockets=[listener])
    say("serve: ended, when all that was asked had been answered")


def _listener(options: Serve) -> socket.socket:
    """Return what listens at the address, so that it is known to be free before the model is loaded."""
    family = socket.AF_INET6 if ":" in options.host else socket.AF_INET
    try:
        return socket.create_server((options.host, options.port), family=family)
    except OSError as error:
        problem = (error.strerror or str(error)).partition(" (")[0].lower()
        address = f"serve.host={options.host} serve.port={options.port}"
        raise UserError(f"{address}: {problem}; choose another, such as serve.port={options.port + 1}") from error
