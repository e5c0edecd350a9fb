SHELL := /bin/sh
PYTHON ?= python3
VENV := .venv/bin
P ?=
T ?=
# Files of tests run side by side, as most of them wait; each of so many processes starts servers of its own.
TEST_PROCESSES ?= 4
# pytest rewrites each file of tests. Where no bytecode may be written, as in many images, every process does that anew: 15 s
# of a processor each.
pytest := PYTHONDONTWRITEBYTECODE= $(VENV)/python -m pytest

.DEFAULT_GOAL := help
.PHONY: help demo up down status logs restart reset compose-env test unit integration fmt documents bench-cdc bench-submit bench-relay bench-way chaos \
	lint check venv venv-stack

help: ## what can be done
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

venv:
	@$(PYTHON) stack/bootstrap.py dev

venv-stack:
	@$(PYTHON) stack/bootstrap.py stack

demo: venv-stack ## start everything, submit a prompt, show its completion event; Ctrl-C ends it
	@$(VENV)/python -m stack demo

up: venv-stack ## start everything in the background; returns when all is healthy
	@$(VENV)/python -m stack up

down: venv-stack ## stop everything
	@$(VENV)/python -m stack down

status: venv-stack ## what runs, where, and whether it is well
	@$(VENV)/python -m stack status

logs: venv-stack ## the last log lines; P=api for one process
	@$(VENV)/python -m stack logs $(P)

restart: venv-stack ## end one of our processes and start it again, with the code as it is now; P=api
	@$(VENV)/python -m stack restart $(P)

reset: venv-stack ## stop everything and delete all data and secrets (asks first)
	@$(VENV)/python -m stack reset

compose-env: ## write .env and providers.env for docker compose, unless they are there
	@$(PYTHON) stack/compose_env.py

test: venv ## all tests but those that need Docker, on real servers
	@$(pytest) -m "not compose" -n $(TEST_PROCESSES) --dist loadfile

unit: venv ## the tests without I/O
	@$(pytest) -q -n $(TEST_PROCESSES) tests/unit

integration: venv ## the tests on real servers; T=relay or T=api/test_hot.py for a part
	@$(pytest) -n $(TEST_PROCESSES) --dist loadfile tests/integration/$(T)

fmt: venv ## format, and fix what ruff can fix
	@$(VENV)/ruff check --fix .
	@$(VENV)/ruff format .

documents: venv ## make the documents that follow from the code: docs/reference/rest.md, docs/pictures
	@$(VENV)/python -m docs.tools

bench-cdc: venv ## commit to completion event, beside Debezium's defaults
	@$(VENV)/python -m benchmarks.bench_cdc

bench-submit: venv ## durable submissions, beside a plain Flask and pgbench
	@$(VENV)/python -m benchmarks.bench_submit

bench-relay: venv ## the relay beside pgqueuer, procrastinate, celery, arq and its floors; FIGURE=drain for one, BASE=<commit> beside that
	@$(VENV)/python -m benchmarks.bench_relay --figure $(or $(FIGURE),all) $(if $(BASE),--base $(BASE))

bench-way: venv ## submission to completion event, hop by hop, beside celery, pgqueuer and procrastinate
	@$(VENV)/python -m benchmarks.bench_way

chaos: venv ## the whole system under load while it is killed, stopped, cut off; SECONDS=60 SEED=1
	@$(VENV)/python -m tests.chaos --seconds $(or $(SECONDS),60) --seed $(or $(SEED),1)

lint: venv ## ruff, mypy --strict, import-linter
	@$(VENV)/ruff check .
	@$(VENV)/ruff format --check .
	@$(VENV)/mypy
	@$(VENV)/lint-imports

check: lint unit ## lint, and the tests without I/O
