"""Whatever the API page allows, and what it does not, is answered; nothing that a client can write is a defect of ours."""

from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import requests
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.errors import Unsatisfiable
from tests.support.examples import examples
from tests.support.serving import Gateway
from tests.support.sim_server import SimServer

if TYPE_CHECKING:
    import schemathesis

EXAMPLES = examples(4)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_no_request_that_the_page_describes_or_forbids_is_answered_with_5xx(tmp_path: Path) -> None:
    import schemathesis  # large: only the worker that needs it pays
    from schemathesis import GenerationMode
    from schemathesis.core.result import Ok

    with (
        SimServer(tmp_path / "exchange") as exchange,
        Gateway(tmp_path / "gateway", exchange.url, env={"ALPACLI_RATE_LIMIT": "100000"}) as gateway,
        requests.Session() as session,
    ):
        token = gateway.token()
        schema = schemathesis.openapi.from_dict(gateway.get("/openapi.json", token).json())
        asked: dict[str, int] = {}
        for found in schema.get_all_operations():
            assert isinstance(found, Ok)
            operation = found.ok()
            for mode in (GenerationMode.POSITIVE, GenerationMode.NEGATIVE):

                @given(case=operation.as_strategy(generation_mode=mode))
                @settings(
                    max_examples=EXAMPLES,
                    deadline=None,
                    database=None,
                    derandomize=True,
                    phases=[Phase.generate],
                    suppress_health_check=list(HealthCheck),
                )
                def ask(case: "schemathesis.Case[Any]") -> None:
                    headers = {"Authorization": f"Bearer {token}"}
                    answer = case.call(base_url=gateway.url, headers=headers, session=session, timeout=20)
                    asked[operation.label] = asked.get(operation.label, 0) + 1  # noqa: B023 # called at once
                    assert answer.status_code < 500, (
                        f"{case.as_curl_command()}\n{answer.text}\n{gateway.errors[-3000:]}"
                    )

                with suppress(Unsatisfiable):  # where nothing can be given, nothing can be given wrongly
                    ask()
        assert len(asked) > 15
        assert gateway.get("/healthz").status_code == 200
