"""Alpaca's published OpenAPI documents as JSON Schema validators, corrected where the wire is known to differ.

The documents are not part of this repository: they lie beside it, in ``../shared/reference/openapi``. Where that folder is
absent, checks are skipped with a message; with ``ALPACLI_REQUIRE_SPECS=1`` its absence is a failure, so that the merge check
cannot pass by skipping. Corrections are data, each with its reason: sections 3 and 4 of the wire reference.
"""

import copy
import functools
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, Literal

import pytest
from jsonschema import Draft202012Validator

SPECS: Final = Path(__file__).resolve().parents[3] / "shared" / "reference" / "openapi"
Spec = Literal["trading-api", "market-data-api"]


def require_specs() -> None:
    """Skip the test when the published documents are not here; fail instead when they were promised to be."""
    if SPECS.is_dir():
        return
    if os.environ.get("ALPACLI_REQUIRE_SPECS") == "1":
        pytest.fail(f"ALPACLI_REQUIRE_SPECS is set, and {SPECS.name}/ is not beside the checkout")
    pytest.skip("the published OpenAPI documents are not beside this checkout (../shared/reference/openapi)")


@functools.cache
def document(spec: Spec = "trading-api") -> dict[str, Any]:
    """Return the corrected document, in JSON Schema's dialect. Call ``require_specs`` first; do not change it."""
    raw: dict[str, Any] = json.loads((SPECS / f"{spec}.json").read_text(encoding="utf-8"))
    if spec == "trading-api":
        _correct_trading(raw["components"]["schemas"])
    else:
        _correct_data(raw)
    corrected: dict[str, Any] = _nullable(raw)
    return corrected


def schema_validator(name: str, spec: Spec = "trading-api") -> Draft202012Validator:
    """Return the validator of one named schema (``Account``, ``Order`` …)."""
    return _validator({"$ref": f"#/components/schemas/{name}"}, spec)


def answer_validator(
    method: str, path: str, status: int = 200, spec: Spec = "trading-api"
) -> Draft202012Validator | None:
    """Return the validator of an answer's body; ``path`` is concrete (``/v2/orders/61e6…``) or the document's template.

    ``None`` when the document promises no JSON body for that status.

    Raises:
        KeyError: the document has no such path, method or status.
    """
    responses = document(spec)["paths"][_template(path, method, spec)][method.lower()]["responses"]
    response = responses[str(status)]
    if "$ref" in response:
        response = document(spec)["components"]["responses"][response["$ref"].rpartition("/")[2]]
    schema = response.get("content", {}).get("application/json", {}).get("schema")
    return None if schema is None else _validator(schema, spec)


def check_answer(method: str, path: str, status: int, body: object, spec: Spec = "trading-api") -> None:
    """Fail with every violation when the parsed JSON ``body`` is not what the document promises."""
    validator = answer_validator(method, path, status, spec)
    if validator is None:
        return
    found = [f"{'/'.join(map(str, e.absolute_path)) or '.'}: {e.message[:200]}" for e in validator.iter_errors(body)]
    assert not found, f"{method} {path} -> {status} does not fit the published schema:\n" + "\n".join(found[:20])


def examples(schema: str) -> Iterator[tuple[str, Any]]:
    """Yield (name, body) of every example that the trading document gives of one named schema, wherever it stands."""
    raw = json.loads((SPECS / "trading-api.json").read_text(encoding="utf-8"))
    node = raw["components"]["schemas"][schema]
    if "example" in node:
        yield f"{schema}.example", node["example"]
    for key in ("x-examples", "examples"):
        for name, example in node.get(key, {}).items():
            yield f"{schema}.{name}", example
    for path, operations in raw["paths"].items():
        for method, operation in operations.items():
            for status, response in operation.get("responses", {}).items() if isinstance(operation, dict) else ():
                content = response.get("content", {}).get("application/json", {})
                if not _refers(content.get("schema", {}), schema, raw):
                    continue
                where = f"{method.upper()} {path} {status}"
                if "example" in content:
                    yield where, content["example"]
                for name, given in content.get("examples", {}).items():
                    shared = given.get("$ref", "").rpartition("/")[2]
                    yield f"{where} {name}", (raw["components"]["examples"][shared] if shared else given)["value"]


def _refers(node: dict[str, Any], schema: str, raw: dict[str, Any]) -> bool:
    if "$ref" in node:
        name = node["$ref"].rpartition("/")[2]
        return name == schema or (
            raw["components"]["schemas"][name].get("type") == "array"
            and _refers(raw["components"]["schemas"][name], schema, raw)
        )
    inner = [node.get("items", {}), *node.get("anyOf", []), *node.get("oneOf", [])]
    return any(_refers(item, schema, raw) for item in inner if item)


@functools.cache
def _paths(spec: Spec) -> list[tuple[re.Pattern[str], str]]:
    # Literal paths first: /v2/assets/fixed_income must not be taken for /v2/assets/{symbol_or_asset_id}.
    templates = sorted(document(spec)["paths"], key=lambda path: (path.count("{"), path))
    return [(re.compile(re.sub(r"\\{[^}]*\\}", "[^/]+", re.escape(path))), path) for path in templates]


def _template(path: str, method: str, spec: Spec) -> str:
    paths: dict[str, Any] = document(spec)["paths"]
    if path in paths:
        return path
    for pattern, template in _paths(spec):
        if pattern.fullmatch(path) and method.lower() in paths[template]:
            return template
    raise KeyError(path)


def _validator(schema: dict[str, Any], spec: Spec) -> Draft202012Validator:
    return Draft202012Validator({**schema, "components": document(spec)["components"]})


# ------------------------------------------------------------------------------------------------- corrections


def _correct_trading(schemas: dict[str, Any]) -> None:
    retired = ("pattern_day_trader", "daytrade_count", "daytrading_buying_power", "bod_dtbp")  # on 2026-07-06
    _optional(schemas["Account"], *retired)
    _optional(schemas["AccountConfigurations"], "dtbp_check", "pdt_check")  # the same retirement
    _optional(schemas["Assets"], "easy_to_borrow")  # deprecated, borrow_status takes its place
    _optional(schemas["Position"], "asset_marginable")  # the document's own first example lacks it
    _null(schemas["Account"], "options_approved_level", "options_trading_level", "pending_reg_taf_fees")
    _null(schemas["Account"], "pending_transfer_in", "pending_transfer_out")
    unpriced = ("market_value", "current_price", "lastday_price", "change_today", "unrealized_pl", "unrealized_plpc")
    _null(schemas["Position"], *unpriced, "unrealized_intraday_pl", "unrealized_intraday_plpc")
    for name in ("Order", "OrderLeg"):
        order = schemas[name]
        _null(order, *({"expires_at", "position_intent", "ratio_qty"} & set(order["properties"])))
        # The parent of a multi-leg order really carries empty texts here (4.5), and its legs an empty type.
        for field in ("asset_class", "side", "type", "position_intent"):
            order["properties"][field] = {"anyOf": [order["properties"][field], {"enum": [""]}]}
        order["properties"]["symbol"].pop("minLength")
    schemas["AssetClass"]["enum"] += ["crypto_perp", "treasury", "us_index"]
    schemas["Exchange"]["enum"] += ["ASCX", "CRYPTO", ""]  # 4.7
    schemas["ExchangeForPosition"]["enum"] += ["ASCX", "CRYPTO"]
    schemas["OrderStatus"]["enum"] += ["pending_review", "restated"]  # 5.9, 9
    history = schemas["PortfolioHistory"]
    for field in ("equity", "profit_loss", "profit_loss_pct"):
        history["properties"][field]["items"]["nullable"] = True  # before funding there is nothing to divide by (4.8)


def _correct_data(raw: dict[str, Any]) -> None:
    """Unwrap the stock snapshots: the wire is a flat map from symbol to snapshot (7.2)."""
    content = raw["paths"]["/v2/stocks/snapshots"]["get"]["responses"]["200"]["content"]["application/json"]
    schema = content["schema"]
    if "$ref" in schema:
        schema = raw["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
    wrapped = schema.get("properties", {}).get("snapshots")
    if wrapped is not None:
        content["schema"] = wrapped


def _optional(schema: dict[str, Any], *names: str) -> None:
    schema["required"] = [name for name in schema.get("required", []) if name not in names]


def _null(schema: dict[str, Any], *names: str) -> None:
    for name in names:
        schema["properties"][name] = {"anyOf": [schema["properties"][name], {"type": "null"}]}


def _nullable(node: Any) -> Any:
    """Translate OpenAPI 3.0's ``nullable`` into JSON Schema, everywhere."""
    if isinstance(node, list):
        return [_nullable(item) for item in node]
    if not isinstance(node, dict):
        return node
    made = {key: _nullable(value) for key, value in node.items()}
    if made.get("nullable") is True and "type" in made:
        inner = copy.copy(made)
        del inner["nullable"]
        return {"anyOf": [inner, {"type": "null"}]}
    return made
