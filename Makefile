# Everything here starts from a fresh clone: python3 (3.11 or newer) and pip are enough, uv is used when it is there.
# The set-up lives in .venv and is redone only when pyproject.toml changes. Paths are relative, so the checkout may
# lie in a folder with spaces in its name.

SHELL := /bin/sh
PY := .venv/bin/python
READY := .venv/.ready
export PIP_DISABLE_PIP_VERSION_CHECK := 1
# The demo account is kept in the checkout, so that nobody's own state, profile or Redis server is touched.
DEMO_ENV := ALPACLI_STATE_DIR="$$PWD/.demo/state" ALPACLI_CONFIG_DIR="$$PWD/.demo/config" ALPACLI_PROFILE= REDIS_URL=

.PHONY: help setup demo test check format bench compiled fuzz chaos mutants coverage golden blocking pictures docs release single-file live clean

help:
	@echo 'make demo      a paper account on the offline exchange: no keys, no network'
	@echo 'make test      the whole test suite, offline'
	@echo 'make check     format, lint, types, layers'
	@echo 'make bench     measure the performance goals'
	@echo 'make compiled  dist/compiled/: the wheel with the engine of the exchange compiled, and its tests (needs a C compiler)'
	@echo 'make golden    what the tests compare: the command tree and the JSON schemas'
	@echo 'make fuzz      ever new inputs for every parser (SECONDS=300)'
	@echo 'make chaos     a bad day for everything at once, and its proofs (MINUTES=10)'
	@echo 'make mutants   whether the tests notice each change of the code that must not be wrong (ONLY=wire.frames)'
	@echo 'make coverage  how much of that code the tests run'
	@echo 'make blocking  the blocking client, made from the one for event loops'
	@echo 'make pictures  docs/images, drawn by the program itself'
	@echo 'make docs      the site of the documentation, in build/site'
	@echo 'make release   dist/: sdist, wheel, one file, bill of materials, licences, and every check that they may be published'
	@echo 'make live      the contract tests against the real paper API (needs a paper key pair)'
	@echo 'make clean     remove everything that was made here'

setup: $(READY)

$(READY): pyproject.toml
	@echo 'setting up .venv'
	@rm -f $(READY)
	@python=; \
	for candidate in python3.13 python3.12 python3.11 python3.14 python3 python; do \
	  if "$$candidate" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; then \
	    python=$$candidate; break; \
	  fi; \
	done; \
	if command -v uv >/dev/null 2>&1 \
	  && uv venv --quiet --allow-existing --python "$${python:->=3.11}" .venv \
	  && uv pip install --quiet --compile-bytecode --python $(PY) --editable . --group dev; then \
	  :; \
	elif [ -z "$$python" ]; then \
	  echo 'alpacli needs Python 3.11 or newer with its venv module, and found none on the PATH' >&2; \
	  echo '(looked for python3.11 to python3.14, python3, python; on Debian and Ubuntu: apt install python3-venv)' >&2; \
	  exit 1; \
	else \
	  "$$python" -m venv .venv \
	  && $(PY) -m pip install --quiet --upgrade 'pip>=25.1' \
	  && $(PY) -m pip install --quiet --editable . --group dev; \
	fi
	@$(PY) -m compileall -q src  # also where PYTHONDONTWRITEBYTECODE is set: compiling costs a command more than its work
	@touch $(READY)

demo: $(READY)
	@for arguments in 'demo --yes' 'account --sim' 'positions --sim' 'orders --sim' 'portfolio --sim' 'limits --sim' \
	  'stream AAPL MSFT NVDA --sim --duration 10'; do \
	  printf '\n$$ alpacli %s\n' "$$arguments"; \
	  env $(DEMO_ENV) .venv/bin/alpacli $$arguments || exit; \
	done

# A worker keeps to its files, and to what they share, until it has nothing left (worksteal). Python may write bytecode here,
# whatever the environment says: else every worker prepares all test files again every time.
test: $(READY) tests/__pycache__/prepared
	@PYTHONDONTWRITEBYTECODE= $(PY) -m pytest -n auto --dist worksteal

# In a fresh clone every worker would prepare all test files for itself, half a minute in all; two processes take nine seconds.
# What cannot be read is told by the tests.
tests/__pycache__/prepared: $(READY)
	@for half in tests/unit 'tests/contract tests/e2e tests/fuzz tests/mutation tests/protocol'; do \
	  PYTHONDONTWRITEBYTECODE= $(PY) -m pytest --collect-only $$half >/dev/null 2>&1 & \
	done; wait
	@mkdir -p tests/__pycache__ && touch $@

check: $(READY)
	@.venv/bin/ruff format --check .
	@.venv/bin/ruff check --no-cache .
	@$(PY) -m mypy
	@mkdir -p build && $(PY) -m tests.typed_page > build/page.py && $(PY) -m mypy build/page.py
	@.venv/bin/lint-imports

format: $(READY)
	@.venv/bin/ruff format .
	@.venv/bin/ruff check --fix .

compiled: $(READY)
	@$(PY) -m tools.compiled

fuzz: $(READY)
	@$(PY) -W ignore -m tests.fuzz --seconds $(or $(SECONDS),300)

chaos: $(READY)
	@$(PY) -m tests.chaos --minutes $(or $(MINUTES),10) $(if $(HURRY),--hurry)

mutants: $(READY)
	@$(PY) -m pip install --quiet --group mutation
	@$(PY) -m tests.mutation $(if $(ONLY),--only $(ONLY)) $(if $(SHARE),--share $(SHARE))

# The parts that must not be wrong, of whose lines the tests run at least 95 %, in their own process alone.
BUDGET := store/policy store/allowance store/sqlite_budget store/redis store/scripts store/resilient
ORDERS := broker/desk broker/facts broker/sending broker/notebook broker/outcomes broker/risk \
  store/journal store/halt store/baton domain/order_rules domain/worth domain/tickets domain/replacing domain/identity
LEDGER := sim/ledger sim/collateral sim/book sim/reserves sim/reports sim/settlement
DECODING := wire/frames wire/lines wire/short wire/columns wire/rest wire/quotes domain/ticks domain/values

coverage: $(READY)
	@$(PY) -m pip install --quiet --group mutation
	@$(PY) -m coverage run -m pytest $(addprefix tests/unit/,broker domain sim store wire) tests/contract
	@status=0; \
	for part in 'the budget: $(BUDGET)' 'orders: $(ORDERS)' 'the ledger: $(LEDGER)' 'decoding: $(DECODING)'; do \
	  printf '\n%s\n' "$${part%%:*}"; \
	  files=$$(printf ',src/alpacli/%s.py' $${part#*:}); \
	  $(PY) -m coverage report --include="$${files#,}" --fail-under=95 || status=1; \
	done; \
	exit $$status

bench: $(READY)
	@$(PY) -m compileall -q src
	@$(PY) -m benchmarks

golden: $(READY)
	@$(PY) -m tools.golden

blocking: $(READY)
	@$(PY) -m tools.blocking

pictures: $(READY)
	@$(PY) -m docs.screenshots

# What only these two need is installed when they are asked for the first time.
.venv/.ready-docs .venv/.ready-release: .venv/.ready-%: $(READY)
	@echo 'setting up .venv for make $*'
	@if $(PY) -m pip --version >/dev/null 2>&1; then $(PY) -m pip install --quiet --group $*; \
	else uv pip install --quiet --python $(PY) --group $*; fi
	@touch $@

docs: .venv/.ready-docs
	@$(PY) -m docs.site

release: .venv/.ready-release
	@$(PY) -m tools.release

single-file: .venv/.ready-release
	@$(PY) -m tools.release --single-file

live: $(READY)
	@$(PY) -m pytest -m live -rs tests/contract

clean:
	rm -rf .venv .demo dist build .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	find src tests benchmarks docs tools -name __pycache__ -prune -exec rm -rf {} +
