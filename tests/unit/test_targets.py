"""targets.toml: it is validated as a whole, and all errors are reported at once; variables; and the judgement of
answers.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.process import ROOT
from tidings.contract.targets import Disabled, Resolved, Target, load_targets, resolve
from tidings.process.settings import ConfigurationError


def test_the_shipped_file_is_valid_and_has_the_targets_of_the_readme() -> None:
    assert {"openai-images", "openai-chat", "openai-responses", "demo-images"} <= set(
        load_targets(ROOT / "targets.toml")
    )


def test_the_how_to_names_each_field_with_its_default_and_its_table_is_right(tmp_path: Path) -> None:
    text = (ROOT / "docs/how-to/add-a-target.md").read_text()
    rows = dict(re.findall(r"^\| `(\w+)` \| .* \| (.+) \|$", text, re.MULTILINE))
    assert rows.keys() == Target.model_fields.keys() - {"name"}
    for name, told in rows.items():
        default = Target.model_fields[name].default
        if isinstance(default, int | str):
            assert told.strip("`") == str(default), name
        if isinstance(default, tuple):
            assert told.replace("`", "").split(", ") == [str(value) for value in default], name
    [table] = re.findall(r"```toml\n(.*?)```", text, re.DOTALL)
    (tmp_path / "targets.toml").write_text(table)
    assert list(load_targets(tmp_path / "targets.toml")) == ["replicate-flux"]


def test_all_faults_are_reported_together(tmp_path: Path) -> None:
    file = tmp_path / "targets.toml"
    file.write_text('[Bad_Name]\nurl="https://x"\n[a]\nurl="ftp://x"\nretries=-1\n[b]\nurl="https://x"\nspeed=1\n')
    with pytest.raises(ConfigurationError) as raised:
        load_targets(file)
    for words in ("Bad_Name", "a.url", "a.retries", "b.speed"):
        assert words in str(raised.value)


def test_a_value_that_the_relay_would_refuse_in_every_call_is_reported_at_start(tmp_path: Path) -> None:
    file = tmp_path / "targets.toml"
    file.write_text(
        '[a]\nurl="https://"\n[b]\nurl="https://x y"\n[c]\nurl="https://x"\nheaders={"Bad Name"="x"}\n'
        '[d]\nurl="https://x"\nheaders={A="b\\nc"}\n[e]\nurl="https://x"\nretry_delay="1000; 2"\n'
        '[f]\nurl="https://x"\nretry_delay="pow(2"\n[g]\nurl="https://x"\nfinal_status=[99]\n'
        '[h]\nurl="https://x"\nerror_field=""\nfinal_errors=["a,b"]\n'
    )
    with pytest.raises(ConfigurationError) as raised:
        load_targets(file)
    fields = ("a.url", "b.url", "c.headers", "d.headers", "e.retry_delay", "f.retry_delay", "g.final_status", "h.error_field",
              "h.final_errors")  # fmt: skip
    assert [field for field in fields if f"  {field}" not in str(raised.value)] == []


@pytest.mark.parametrize("delay", ["500", "pow(2, retried) * 1000", "min(60000, 1000 * (1 + retried))"])
def test_a_retry_delay_is_an_expression(tmp_path: Path, delay: str) -> None:
    file = tmp_path / "targets.toml"
    file.write_text(f'[a]\nurl="https://x"\nretry_delay="{delay}"\n')
    assert load_targets(file)["a"].retry_delay == delay


def test_a_missing_variable_disables_the_target_with_its_name() -> None:
    target = load_targets(ROOT / "targets.toml")["openai-images"]
    found = resolve(target, {})
    assert isinstance(found, Disabled)
    assert "OPENAI_API_KEY" in found.reason
    resolved = resolve(target, {"OPENAI_API_KEY": "sk"})
    assert isinstance(resolved, Resolved)
    assert resolved.headers == {"Authorization": "Bearer sk"}
