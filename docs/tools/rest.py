"""The page of the api's routes, made from its OpenAPI description. Pure."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from typing import Any

INTRODUCTION = """\
# The REST interface of the api

This page is made from the OpenAPI 3.1 description that the api serves at `/openapi.json`, by
`make documents`; a test compares both. The relay's interface is [another one](relay.md#routes).

| caller | proof | port |
|---|---|---|
| client | `Authorization: Bearer <API key>`; the key decides the tenant | `API_LISTEN` |
| relay | `Upstash-Signature`, and the token that the dispatcher added | both |
| dispatcher | `Authorization: Bearer <TIDINGS_INTERNAL_TOKEN>` | `API_INTERNAL_LISTEN` |
| anyone | none | both, `/metrics` at `API_INTERNAL_LISTEN` alone |

Every error is an `application/problem+json` document: [errors](errors.md). Sizes, times and numbers
that the api does not exceed are in [limits of the api](../ARCHITECTURE.md#limits-of-the-api). Times
are RFC 3339 in UTC, with microseconds and `Z`. HEAD is GET without a body, and OPTIONS answers with
`Allow`. A field marked * is required in a request, and always present in a response.
"""
CALLERS = {"api_key": "client", "signature": "relay", "internal": "dispatcher"}
METHODS = ("get", "post", "put", "patch", "delete")
PATTERNS = {
    r"^[a-z0-9][a-z0-9_-]{0,62}$": "1 to 63 of `a-z 0-9 _ -`, of which the first is a letter or digit",
    r"^[^\x00]*$": "without NUL",
}
WIDTH = 100


def page(document: dict[str, Any]) -> str:
    """Return the page as Markdown."""
    operations = list(_operations(document))
    routes = ["| method | path | caller | statuses |", "|---|---|---|---|"]
    for path, method, operation in operations:
        statuses = ", ".join(status for status in operation["responses"] if status != "default")
        routes.append(
            f"| `{method.upper()}` | [`{path}`](#{_anchor(method, path)}) | {_caller(operation)} | {statuses} |"
        )
    parts = [INTRODUCTION, "## Routes\n\n" + "\n".join(routes) + "\n"]
    parts += [_route(*each) for each in operations]
    parts.append("## Bodies\n")
    schemas = document["components"]["schemas"]
    parts += [_body(name, schemas[name]) for name in sorted(schemas) if "properties" in schemas[name]]
    return "\n".join(parts)


def _operations(document: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, methods in document["paths"].items():
        for method in METHODS:
            if method in methods:
                yield path, method, methods[method]


def _caller(operation: dict[str, Any]) -> str:
    return CALLERS[next(iter(operation["security"][0]))] if operation["security"] else "anyone"


def _route(path: str, method: str, operation: dict[str, Any]) -> str:
    words = f"{operation['summary'].rstrip('.')}. Caller: {_caller(operation)}."
    for media_type, body in operation.get("requestBody", {}).get("content", {}).items():
        words += f" Body: {_type(body['schema'])} as `{media_type}`."
    lines = [f"### {method.upper()} {path}", "", _wrapped(words)]
    if operation["parameters"]:
        lines += ["", "| parameter | in | value |", "|---|---|---|"]
        for each in operation["parameters"]:
            required = "*" if each["required"] else ""
            lines.append(f"| `{each['name']}`{required} | {each['in']} | {_type(each['schema'])} |")
    lines += ["", "| status | meaning | body |", "|---|---|---|"]
    for status, response in operation["responses"].items():
        shown = "4xx, 5xx" if status == "default" else status
        meaning = "success" if response["description"] == operation["summary"] else response["description"]
        bodies = [
            _type(each["schema"]) if "schema" in each else f"`{name}`" for name, each in response["content"].items()
        ]
        lines.append(f"| {shown} | {meaning} | {', '.join(bodies)} |")
    return "\n".join(lines) + "\n"


def _body(name: str, schema: dict[str, Any]) -> str:
    lines = [f"### {name}", ""]
    if "description" in schema:
        lines += [_wrapped(schema["description"]), ""]
    lines += ["| field | value | meaning |", "|---|---|---|"]
    for field, value in schema["properties"].items():
        required = "*" if field in schema.get("required", ()) else ""
        lines.append(f"| `{field}`{required} | {_type(value)} | {value.get('description', '')} |")
    return "\n".join(lines) + "\n"


def _type(schema: dict[str, Any]) -> str:
    """Return the type and the bounds of a value in words."""
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return "any JSON" if name == "JsonValue" else f"[{name}](#{name.lower()})"
    if "anyOf" in schema:
        return "; or ".join(_type(each) for each in schema["anyOf"])
    if "enum" in schema:
        return ", ".join(f"`{each}`" for each in schema["enum"])
    words = schema.get("type", "any JSON")
    if words == "array":
        words = f"array of {_type(schema.get('items', {}))}"
    elif words == "object" and isinstance(schema.get("additionalProperties"), dict):
        words = f"object of {_type(schema['additionalProperties'])}"
    return ", ".join([words, *_bounds(schema)])


def _bounds(schema: dict[str, Any]) -> Iterator[str]:
    if "format" in schema:
        yield schema["format"]
    if "pattern" in schema:
        yield PATTERNS[schema["pattern"]]
    for least, most, unit in (("minimum", "maximum", ""), ("minLength", "maxLength", " characters"),
                              ("minItems", "maxItems", " items")):  # fmt: skip
        if least in schema and most in schema:
            yield f"{schema[least]:,} to {schema[most]:,}{unit}"
        elif least in schema:
            yield f"at least {schema[least]:,}{unit if schema[least] != 1 else unit.removesuffix('s')}"
        elif most in schema:
            yield f"at most {schema[most]:,}{unit}"
    if "exclusiveMaximum" in schema:
        yield f"below {schema['exclusiveMaximum']:,}"
    if "default" in schema and schema["default"] not in (None, "", {}, []):
        yield f"`{str(schema['default']).lower()}` by default"


def _wrapped(text: str) -> str:
    return textwrap.fill(text, WIDTH, break_long_words=False, break_on_hyphens=False)


def _anchor(method: str, path: str) -> str:
    """Return the anchor that GitHub makes of a route's heading."""
    return f"{method} {path}".lower().replace(" ", "-").translate({ord(each): None for each in "/{}."})
