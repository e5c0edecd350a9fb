"""targets.toml: read whole, all faults at once; variables; and judging answers."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.process import ROOT
from tidings.settings import ConfigurationError
from tidings.targets import Disabled, Resolved, load_targets, resolve


def test_the_shipped_file_is_right_and_names_what_the_readme_does() -> None:
    assert {"openai-images", "openai-chat", "openai-responses", "demo-images"} <= set(
        load_targets(ROOT / "targets.toml")
    )


def test_all_faults_are_reported_together(tmp_path: Path) -> None:
    file = tmp_path / "targets.toml"
    file.write_text('[Bad_Name]\nurl="https://x"\n[a]\nurl="ftp://x"\nretries=-1\n[b]\nurl="https://x"\nspeed=1\n')
    with pytest.raises(ConfigurationError) as raised:
        load_targets(file)
    for words in ("Bad_Name", "a.url", "a.retries", "b.speed"):
        assert words in str(raised.value)


def test_a_missing_variable_switches_the_target_off_by_name() -> None:
    target = load_targets(ROOT / "targets.toml")["openai-images"]
    found = resolve(target, {})
    assert isinstance(found, Disabled)
    assert "OPENAI_API_KEY" in found.reason
    resolved = resolve(target, {"OPENAI_API_KEY": "sk"})
    assert isinstance(resolved, Resolved)
    assert resolved.headers == {"Authorization": "Bearer sk"}
