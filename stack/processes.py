"""The environments of the native processes: each has only the variables that it needs, so that no secret reaches a
process that does not need it.
"""

from __future__ import annotations

from collections.abc import Mapping

from stack.home import ROOT, Home
from tidings.contract.targets import load_targets, variables
from tidings.process.settings import ConfigurationError

# Settings whose names do not begin with the name of their process. API_THREADS of the api, for example, needs no entry.
_SHARED = {
    "api": ("TIDINGS_IMAGE_TARGET", "TIDINGS_TARGETS_FILE", "TIDINGS_WEBHOOKS", "TIDINGS_WEBHOOK_ADDRESSES"),
    "dispatcher": ("TIDINGS_TARGETS_FILE", "TIDINGS_WEBHOOK_ADDRESSES"),
    "reconciler": ("TIDINGS_RETENTION_DAYS",),
    "watcher": ("TIDINGS_CONNECTOR_FILE",),
}
# Settings that differ on a developer's machine from a process's own default.
_DEFAULTS = {
    "api": {"TIDINGS_IMAGE_TARGET": "demo-images", "TIDINGS_WEBHOOKS": "on"},
    "relay": {"RELAY_DEDUP_WINDOW_SECONDS": "86400", "RELAY_DRAIN_SECONDS": "5"},
}


def environment_of(home: Home, process: str, caller: Mapping[str, str]) -> dict[str, str]:
    """Return the environment of one process: only the variables that it needs, so that no secret reaches a process that
    does not need it. The caller's values of its settings apply, except for addresses and secrets, which the stack
    sets.
    """
    public = home.public_environment()
    signing = {name: public[name] for name in ("QSTASH_CURRENT_SIGNING_KEY", "QSTASH_NEXT_SIGNING_KEY")}
    internal = {"TIDINGS_INTERNAL_TOKEN": home.secrets["internal_token"]}
    addresses = {"TIDINGS_PUBLIC_URL": home.url("api")}
    callbacks = {"TIDINGS_CALLBACK_URL": home.url("internal")}
    # Only the callback address and the stand-in, not every server on this machine.
    allowed = [f"127.0.0.1:{home.ports[name]}" for name in ("internal", "provider")]
    allowed += _passed_on(caller, "RELAY_ALLOW_HOSTS").values()
    own: dict[str, dict[str, str]] = {
        "api": {
            "API_LISTEN": f"127.0.0.1:{home.ports['api']}",
            "API_INTERNAL_LISTEN": f"127.0.0.1:{home.ports['internal']}",
            "API_DATABASE_URL": home.database_url("tidings_api", "api"),
            **signing, **internal, **addresses, **callbacks,
        },
        "dispatcher": {
            "TIDINGS_API_INTERNAL_URL": home.url("internal"),
            "DISPATCHER_LISTEN": f"127.0.0.1:{home.ports['dispatcher']}",
            "TIDINGS_WEBHOOK_SECRET": home.secrets["webhook_secret"],
            **{name: public[name] for name in (
                "TIDINGS_KAFKA", "QSTASH_URL", "QSTASH_TOKEN", "TIDINGS_PROVIDER_URL",
                "QSTASH_CURRENT_SIGNING_KEY")},
            **_passed_on(caller, *_provider_keys(caller)),
            **internal, **addresses, **callbacks,
        },
        "relay": {
            "RELAY_LISTEN": f"127.0.0.1:{home.ports['relay']}",
            "RELAY_DATABASE_URL": home.database_url("tidings_relay", "relay"),
            "RELAY_ENCRYPTION_KEYS": home.secrets["encryption_key"],
            "RELAY_ALLOW_HOSTS": ",".join(allowed),
            "QSTASH_TOKEN": public["QSTASH_TOKEN"],
            **signing,
        },
        "notifier": {
            "NOTIFIER_LISTEN": f"127.0.0.1:{home.ports['notifier']}",
            "TIDINGS_KAFKA": public["TIDINGS_KAFKA"],
            **addresses,
        },
        "watcher": {
            "WATCHER_LISTEN": f"127.0.0.1:{home.ports['watcher']}",
            "TIDINGS_KAFKA": public["TIDINGS_KAFKA"],
            **{name: public[name] for name in ("TIDINGS_CONNECT_URL", "TIDINGS_CONNECT_PASSWORD")},
            "TIDINGS_CDC_DATABASE_HOST": "127.0.0.1",
            "TIDINGS_CDC_DATABASE_PORT": str(home.ports["postgres"]),
            "TIDINGS_CDC_DATABASE_NAME": "tidings",
            "TIDINGS_CDC_DATABASE_PASSWORD": home.secrets["cdc"],
        },
        "reconciler": {
            "RECONCILER_LISTEN": f"127.0.0.1:{home.ports['reconciler']}",
            "RECONCILER_DATABASE_URL": home.database_url("tidings_reconciler", "reconciler"),
            **{name: public[name] for name in ("TIDINGS_KAFKA", "QSTASH_URL", "QSTASH_TOKEN")},
        },
        "provider": {"PROVIDER_LISTEN": f"127.0.0.1:{home.ports['provider']}"},
    }  # fmt: skip
    common = {"TIDINGS_LOG_FORMAT": "json", "PYTHONUNBUFFERED": "1"}
    common |= _passed_on(caller, "PATH", "HOME", "LANG", "TIDINGS_LOG_LEVEL")
    return common | _DEFAULTS.get(process, {}) | _settings(process, caller) | own[process]


def _settings(process: str, caller: Mapping[str, str]) -> dict[str, str]:
    """Return the caller's values of a process's own settings."""
    own = {name: value for name, value in caller.items() if name.startswith(f"{process.upper()}_")}
    return own | _passed_on(caller, *_SHARED.get(process, ()))


def _provider_keys(caller: Mapping[str, str]) -> frozenset[str]:
    """Return the variables that targets.toml names: only the dispatcher gets them from the caller's shell."""
    file = ROOT / caller.get("TIDINGS_TARGETS_FILE", "targets.toml")
    try:
        targets = load_targets(file)
    except ConfigurationError:
        return frozenset()  # the dispatcher reports the fault of the file
    return frozenset().union(*(variables(target) for target in targets.values())) - {"TIDINGS_PROVIDER_URL"}


def _passed_on(caller: Mapping[str, str], *names: str) -> dict[str, str]:
    return {name: caller[name] for name in names if name in caller}
