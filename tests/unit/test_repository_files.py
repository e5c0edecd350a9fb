"""Files for tools outside of this repository: editors, pre-commit, GitHub."""

from __future__ import annotations

import configparser
import os
import re
import tomllib

import yaml

from tests.process import ROOT
from tests.unit.test_documents import WIDTH_MAX


def test_editors_wrap_at_the_same_width_as_the_checks() -> None:
    settings = configparser.ConfigParser()
    settings.read_string("[top]\n" + (ROOT / ".editorconfig").read_text())
    ruff = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["ruff"]
    assert int(settings["*"]["max_line_length"]) == ruff["line-length"]
    assert int(settings["*.md"]["max_line_length"]) == WIDTH_MAX


def test_each_hook_of_pre_commit_is_a_check_of_make_lint() -> None:
    [repository] = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    programs = {hook["entry"].split()[0].removeprefix(".venv/bin/") for hook in repository["hooks"]}
    [recipe] = re.findall(r"^lint:.*\n((?:\t.*\n)+)", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert programs == set(re.findall(r"\$\(VENV\)/(\S+)", recipe))


def test_the_workflow_runs_the_checks_that_every_change_must_pass() -> None:
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text())
    steps = workflow["jobs"]["run"]["steps"]
    assert [step["run"] for step in steps if "run" in step] == [".ci/run"]
    assert os.access(ROOT / ".ci" / "run", os.X_OK)
    [python] = [step["with"]["python-version"] for step in steps if "setup-python" in step.get("uses", "")]
    assert f">={python}" == tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["requires-python"]
    assert workflow["permissions"] == {"contents": "read"}


def test_issues_and_pull_requests_have_templates() -> None:
    folder = ROOT / ".github" / "ISSUE_TEMPLATE"
    for file in folder.glob("*.md"):
        head = yaml.safe_load(file.read_text().split("---\n")[1])
        assert {"name", "about", "labels"} <= head.keys(), file.name
    assert {file.name for file in folder.glob("*.md")} == {"bug.md", "feature.md"}
    named = re.findall(r"`([a-z ]+)`", (ROOT / ".github" / "pull_request_template.md").read_text())
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert [name for name in named if name.removeprefix("make ") not in targets] == []


def test_the_files_that_github_shows_exist_and_are_linked() -> None:
    readme = (ROOT / "README.md").read_text()
    for name in ("CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md", "CODE_OF_CONDUCT.md"):
        assert (ROOT / name).exists()
        assert f"]({name})" in readme, name
    assert (ROOT / "LICENSE").exists()
