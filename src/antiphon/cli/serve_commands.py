"""Commands for who asks servers: serve, and tokens, which engines without a template are sent."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Annotated

import typer

from antiphon.cli.application import SOURCE_HELP, Fields, IdField, Model, SideOption, app, examples
from antiphon.cli.model_options import Compile, CompileOption, open_named, with_model_options

if TYPE_CHECKING:
    from antiphon.model.opening import ModelOptions

KEY = "ANTIPHON_API_KEY"
Upstream = Annotated[
    str | None,
    typer.Option(
        help="A llama.cpp or vLLM server of the same weights: it is sent token ids and computes the vectors. Its key "
        "is read from OPENAI_API_KEY.",
        show_default=False,
    ),
]


@app.command(
    epilog=examples(
        "antiphon serve nano",
        "antiphon serve my-embedder --port 9000 --name search",
        "antiphon serve my-embedder --upstream http://localhost:8080",
        "ANTIPHON_API_KEY=secret antiphon serve Qwen/Qwen3-0.6B --template echo --host 0.0.0.0",
    )
)
@with_model_options
def serve(  # noqa: PLR0913  (the options of the command)
    model: Model,
    host: Annotated[str, typer.Option(help="The address to listen on; 0.0.0.0 for all of this machine's.")] = (
        "127.0.0.1"
    ),
    port: Annotated[int, typer.Option(help="The port; 0 takes any free one.")] = 8000,
    name: Annotated[
        str | None, typer.Option(help="The model's id for clients; its hub id or folder's name without it.")
    ] = None,
    api_key: Annotated[
        str | None, typer.Option(help=f"The key that clients must send; {KEY} in the environment.", show_default=False)
    ] = None,
    allow_host: Annotated[
        list[str] | None,
        typer.Option(
            help="Another name that clients may ask for and pages may come from, such as a proxy's. * is any name to "
            "ask for: a page of another origin stays out, unless it points a name of its own here.",
            show_default=False,
        ),
    ] = None,
    batch_tokens: Annotated[int, typer.Option(help="Tokens that are embedded together.")] = 32768,
    max_queue: Annotated[int, typer.Option(help="Texts that may wait; beyond that clients are told to come back.")] = (
        4096
    ),
    compile: Compile = CompileOption.off,
    upstream: Upstream = None,
    *,
    options: ModelOptions,
) -> None:
    """Serve a model: OpenAI's /v1/embeddings, /rerank, and a page to try it on."""
    from antiphon import serving
    from antiphon.cli import report

    serving.check_installed()
    from antiphon.serving.server_settings import ServerSettings
    from antiphon.serving.sockets import bind, is_loopback, url

    settings = ServerSettings(
        name=serving.served_name(model) if name is None else name,
        # typer would take an empty variable for none, and so serve everybody
        api_key=os.environ.get(KEY) if api_key is None else api_key,
        max_batch_tokens=batch_tokens,
        compile=compile.setting,
        max_queue=max_queue,
        host=host,
        allow_hosts=tuple(allow_host or ()),
        upstream=upstream,
        upstream_key=os.environ.get("OPENAI_API_KEY"),
    )
    with bind(host, port) as listener:
        opened = open_named(model, options)
        from antiphon.serving.server_process import run

        if settings.api_key is None and not is_loopback(host):
            report.note(f"Anyone who reaches {host} can use this server; --api-key asks for a key.")
        ready = f"Serving {settings.name} at {url(listener)} (Ctrl-C stops it)."
        run(opened, listener, settings, on_ready=lambda: report.note(ready))


@app.command(
    epilog=examples(
        "antiphon tokens my-embedder --input texts.jsonl > ids.jsonl",
        "echo 'a question' | antiphon tokens my-embedder --input - --side query",
    )
)
@with_model_options
def tokens(
    model: Model,
    source: Annotated[str, typer.Option("--input", help=SOURCE_HELP, show_default=False)],
    field: Fields = None,
    id_field: IdField = None,
    side: Annotated[SideOption, typer.Option(help="Read texts as documents or as queries.")] = SideOption.document,
    *,
    options: ModelOptions,
) -> None:
    """Print the token ids that a model reads of texts, a JSON object a line: what engines without its template need."""
    from antiphon.cli import report

    opened = open_named(model, options, side=side.side)
    from antiphon.data.skipped import Skipped
    from antiphon.data.sources import read
    from antiphon.encoding.tokenised import Reading, token_ids
    from antiphon.model.prompts import prompt_of

    reading = Reading(prompt_of(opened, side.side), side.side)
    passed_over = Skipped()
    for record in read(source, field=field, id_field=id_field, skipped=passed_over):
        (ids,) = token_ids(opened, [record.text], reading)
        report.say(json.dumps({"id": record.id, "ids": ids}))
    passed_over.tell(source)
