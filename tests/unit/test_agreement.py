"""Files that must agree are compared: publication, grants, connector, topics, Procfile, environment, docs."""

from __future__ import annotations

import json
import re
from pathlib import Path

import jsonschema
import yaml
from honcho.environ import parse_procfile
from openapi_spec_validator import OpenAPIV31SpecValidator

from services.api.application import create_app
from services.api.dependencies import Dependencies
from services.api.openapi import document
from stack.home import PORTS, open_home
from stack.processes import environment_of
from stack.servers import REST_USER
from tests.process import ROOT
from tidings.contract import topics

CONNECTOR = json.loads((ROOT / "debezium" / "connector.json").read_text())


def test_topics_have_the_partitions_that_the_connector_gives_new_ones() -> None:
    assert int(CONNECTOR["topic.creation.default.partitions"]) == topics.PARTITIONS
    submissions, results = (next(t for t in topics.TOPICS if t.name == n) for n in (topics.SUBMISSIONS, topics.RESULTS))
    assert submissions.partitions == results.partitions


def test_each_process_of_the_procfile_has_a_port_and_a_folder() -> None:
    for name, command in parse_procfile((ROOT / "Procfile").read_text()).processes.items():
        assert name in PORTS
        module = command.removeprefix("python -m ").replace(".", "/")
        assert (ROOT / module / "__main__.py").exists()


def test_compose_runs_the_processes_of_the_procfile_from_official_images() -> None:
    services = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
    processes = parse_procfile((ROOT / "Procfile").read_text()).processes
    assert {name: " ".join(services[name]["command"]) for name in processes} == dict(processes)
    images = {name: services[name]["image"] for name in ("postgres", "kafka", "connect")}
    assert images == {
        "postgres": "postgres:18",
        "kafka": "apache/kafka:4.3.0",
        "connect": "quay.io/debezium/connect:3.6",
    }
    published = [port for service in services.values() for port in service.get("ports", [])]
    assert published
    assert all(port.startswith("127.0.0.1:") for port in published)


def test_compose_configures_kafka_and_connect_like_the_native_files() -> None:
    services = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
    native = dict(
        line.split("=", 1)
        for name in ("broker.properties", "connect-worker.properties")
        for line in (ROOT / "debezium" / name).read_text().splitlines()
        if "=" in line and not line.startswith("#")
    )
    # Settings of one node alone, or with another name in the image.
    own = {"listeners", "log.dirs", "node.id", "advertised.listeners", "process.roles"}
    compared = 0
    for service, prefix in (("kafka", "KAFKA_"), ("connect", "CONNECT_")):
        for name, value in services[service]["environment"].items():
            key = name.removeprefix(prefix).replace("_", ".").lower()
            if name.startswith(prefix) and key in native and key not in own:
                assert str(value) == native[key], name
                compared += 1
    assert compared >= 14


def test_compose_connects_connect_only_to_the_watcher_and_the_servers_that_it_needs() -> None:
    services = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
    networks = {name: set(service.get("networks", ["default"])) for name, service in services.items()}
    reach = {name for name, joined in networks.items() if joined & networks["connect"]}
    assert reach == {"connect", "postgres", "kafka", "connector", "watcher"}
    assert "ports" not in services["connect"]
    # All processes can reach the other servers, and so can Connect.
    assert networks["postgres"] == networks["kafka"] == {"default", "cdc"}


def test_connects_rest_has_the_same_password_in_compose_and_natively() -> None:
    services = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
    debezium = ROOT / "debezium"
    script = (debezium / "connect-entrypoint").read_text()
    [extension] = re.findall(
        r"^rest.extension.classes=(.+)$", (debezium / "connect-worker.properties").read_text(), re.MULTILINE
    )
    package, _, name = extension.rpartition(".")
    assert f"extensions={package}\n" in script
    assert f"CONNECT_REST_EXTENSION_CLASSES=$extensions.{name}\n" in script
    native = (debezium / "connect-login.conf").read_text().partition("\nKafkaConnect")[2]
    assert native.replace("${login_file}", "$folder/rest-login.properties") in script
    assert f"'{REST_USER}=%s" in script
    assert f"-u {REST_USER}:" in services["connect"]["healthcheck"]["test"][1]
    assert services["connect"]["entrypoint"][1] == "/tidings/connect-entrypoint"
    assert "./debezium/connect-entrypoint:/tidings/connect-entrypoint:ro" in services["connect"]["volumes"]
    passwords = {
        services[name]["environment"]["TIDINGS_CONNECT_PASSWORD"] for name in ("connect", "connector", "watcher")
    }
    assert passwords == {"${TIDINGS_CONNECT_PASSWORD:?run make compose-env}"}


def test_the_relay_may_call_the_api_and_the_stand_in_and_no_network(tmp_path: Path) -> None:
    services = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
    environment = {name: service.get("environment", {}) for name, service in services.items()}
    composed = [
        environment["relay"]["RELAY_ALLOW_HOSTS"].removesuffix(",${RELAY_ALLOW_HOSTS:-}"),
        environment["relay"]["RELAY_ALLOW_PRIVATE"].replace("${RELAY_ALLOW_PRIVATE:-}", ""),
        environment["api"]["TIDINGS_CALLBACK_URL"],
        environment["dispatcher"]["TIDINGS_PROVIDER_URL"],
    ]
    assert composed == ["api:8004,provider:8090", "", "http://api:8004", "http://provider:8090"]
    home = open_home({"TIDINGS_HOME": str(tmp_path)})
    relay, dispatcher = (environment_of(home, name, {}) for name in ("relay", "dispatcher"))
    named = [dispatcher[name].removeprefix("http://") for name in ("TIDINGS_CALLBACK_URL", "TIDINGS_PROVIDER_URL")]
    assert relay["RELAY_ALLOW_HOSTS"].split(",") == named
    assert "RELAY_ALLOW_PRIVATE" not in relay
    given = {"RELAY_ALLOW_HOSTS": "gpu:11434", "RELAY_ALLOW_PRIVATE": "10.0.0.0/8", "TIDINGS_WEBHOOK_ADDRESSES": "any"}
    relay, dispatcher, api = (environment_of(home, name, given) for name in ("relay", "dispatcher", "api"))
    assert relay["RELAY_ALLOW_HOSTS"].split(",") == [*named, "gpu:11434"]
    assert relay["RELAY_ALLOW_PRIVATE"] == "10.0.0.0/8"
    assert dispatcher["TIDINGS_WEBHOOK_ADDRESSES"] == api["TIDINGS_WEBHOOK_ADDRESSES"] == "any"


def test_the_documents_name_every_setting() -> None:
    documented = "".join(path.read_text() for path in (ROOT / "docs").rglob("*.md"))
    read = set()
    for path in Path(ROOT / "services").rglob("settings.py"):
        read |= set(re.findall(r'validation_alias="([A-Z_]+)"', path.read_text()))
    assert sorted(name for name in read if name not in documented) == []


def test_the_table_of_ports_is_that_of_the_stack() -> None:
    page = (ROOT / "docs/reference/settings.md").read_text()
    rows = re.findall(r"^\| `TIDINGS_PORT_([A-Z]+)` \| (\d+) \|", page, re.MULTILINE)
    assert {name.lower(): int(port) for name, port in rows} == PORTS
    assert len(rows) == len(PORTS)


def test_every_route_has_an_auth_decision() -> None:
    parts = _parts()
    app = create_app(parts)
    decisions = {
        rule.rule: getattr(app.view_functions[rule.endpoint], "auth_decision", None)
        for rule in app.url_map.iter_rules()
    }
    assert [rule for rule, decision in decisions.items() if decision is None] == []
    public = {rule for rule, decision in decisions.items() if decision == "public"}
    assert public == {"/healthz", "/readyz", "/metrics", "/openapi.json"}


def test_the_openapi_document_is_valid_and_has_every_route_with_its_decision() -> None:
    content = document("0")
    OpenAPIV31SpecValidator(content).validate()
    app = create_app(_parts())
    routes = {}
    for rule in app.url_map.iter_rules():
        path = rule.rule.replace("<id:text>", "{id}").replace("<text>", "{id}").replace("<int:number>", "{number}")
        for method in (rule.methods or set()) - {"HEAD", "OPTIONS"}:
            routes[path, method.lower()] = getattr(app.view_functions[rule.endpoint], "auth_decision", None)
    described = {
        (path, method): next(iter(operation["security"][0])) if operation["security"] else "public"
        for path, operations in content["paths"].items()
        for method, operation in operations.items()
    }
    assert described == routes


def test_the_openapi_document_is_no_less_strict_than_the_api() -> None:
    content = document("0")
    paths, schemas = content["paths"], content["components"]["schemas"]
    answers = {
        (path, method): {status for status in operation["responses"] if status != "default"}
        for path, operations in paths.items()
        for method, operation in operations.items()
    }
    assert answers["/v1/submissions", "post"] == {"200", "202"}
    assert answers["/v1/submissions/{id}", "get"] == {"200", "304"}
    assert answers["/v1/submissions/{id}/images/{number}", "get"] == {"200", "302"}
    assert schemas["NewBatch"]["properties"]["submissions"]["items"] == {"$ref": "#/components/schemas/NewSubmission"}
    assert schemas["NewSubmission"]["properties"]["target"]["minLength"] == 1
    assert schemas["DispatchRequest"]["properties"]["ids"]["items"]["format"] == "uuid"
    listed = {each["name"]: each["schema"] for each in paths["/v1/submissions"]["get"]["parameters"]}
    assert (listed["limit"]["type"], listed["limit"]["maximum"]) == ("integer", 100)
    assert "queued" in listed["status"]["enum"]
    assert (listed["since"]["format"], listed["cursor"]["format"]) == ("date-time", "uuid")
    [prompt] = paths["/generate-image"]["get"]["parameters"]
    assert prompt["required"] is True
    headers = {each["name"]: each["schema"] for each in paths["/v1/submissions"]["post"]["parameters"]}
    assert headers["Idempotency-Key"]["minLength"] == 1


def test_every_example_in_the_openapi_document_is_valid() -> None:
    content = document("0")
    components = {"components": content["components"]}
    checked = 0
    for name, schema in content["components"]["schemas"].items():
        for example in schema.get("examples", []):
            jsonschema.validate(example, {"$ref": f"#/components/schemas/{name}", **components})
            checked += 1
    for operations in content["paths"].values():
        for operation in operations.values():
            body = operation.get("requestBody", {}).get("content", {}).get("application/json", {})
            if "example" in body:
                jsonschema.validate(body["example"], {**body["schema"], **components})
                checked += 1
    assert checked >= 6


def _parts() -> Dependencies:
    from typing import Any, cast  # noqa: PLC0415

    from prometheus_client import CollectorRegistry  # noqa: PLC0415
    from pydantic import SecretStr  # noqa: PLC0415

    from services.api.settings import ApiSettings  # noqa: PLC0415
    from tidings.process import log  # noqa: PLC0415

    secret = SecretStr("x" * 32)
    settings = ApiSettings(
        database_url=secret, internal_token=secret, current_signing_key=secret, next_signing_key=secret
    )  # type: ignore[call-arg]
    absent = cast("Any", None)  # the views are not called here
    return Dependencies(
        settings, absent, absent, absent, absent, absent, absent, {}, CollectorRegistry(), log.get("test")
    )
