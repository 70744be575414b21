"""Requests made up from the OpenAPI document, right and wrong ones: no answer is a 500, and each is as documented."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import HealthCheck, Phase, given, settings

import antiphon
from antiphon.serving.app import create_app
from antiphon.serving.server_settings import ServerSettings

CASES = 300


@pytest.mark.slow
def test_requests_of_every_kind(tiny_base):
    import schemathesis  # two seconds that no other test needs
    from schemathesis.generation import GenerationMode

    model = antiphon.build(tiny_base, "echo", max_tokens=64)
    app = create_app(model, ServerSettings(name="tiny", allow_hosts=("*",)))
    seen: Counter[int] = Counter()
    schema = schemathesis.openapi.from_asgi("/openapi.json", app)
    operations = [found.ok() for found in schema.get_all_operations()]
    paths = {operation.path for operation in operations}
    assert {"/v1/embeddings", "/rerank", "/v2/embed", "/embed", "/v1/models", "/playground/similarity"} <= paths
    # those without a body have little to vary
    heavy = [operation for operation in operations if operation.method == "post"]
    for operation in operations:
        for mode in GenerationMode if operation in heavy else [GenerationMode.POSITIVE]:
            run(operation, mode, CASES // len(heavy) // 2 + 20 if operation in heavy else 5, seen)
    assert sum(seen.values()) >= CASES
    assert {200, 400, 404} <= set(seen)


def run(operation, mode, count, seen):
    from schemathesis.checks import not_a_server_error
    from schemathesis.specs.openapi import checks as conform

    checks = [
        not_a_server_error,
        conform.status_code_conformance,
        conform.content_type_conformance,
        conform.response_schema_conformance,
    ]

    @settings(
        max_examples=count,
        deadline=None,
        database=None,
        derandomize=True,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=operation.as_strategy(generation_mode=mode))
    def ask(case):
        answer = case.call_and_validate(checks=checks)
        seen[answer.status_code] += 1

    ask()
