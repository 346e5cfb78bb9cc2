VENV := build/out/venv
RUN := $(VENV)/bin/python -m
# Without caches beside the sources: under sudo they would be left to root.
PACK := build/out/pack/bin/python -B -m
IN_SAMPLE := . build/out/env.sh &&
# As packagers know them: PREFIX is /usr/local, and with DESTDIR all goes below that folder.
export PREFIX DESTDIR
# Root, or who packs, installs for the whole server.
PLACE := $(if $(DESTDIR)$(PREFIX),server,$(if $(filter 0,$(shell id -u)),server,user))

.DEFAULT_GOAL := help
.PHONY: help venv plugin install uninstall install-user uninstall-user deb test-install check unit integration e2e test test-new test-real torture bench demo demo-shapes picture demo-clean lock release sentences clean images sample

help:  ## Show this help.
	@awk 'BEGIN {FS = ":.*  ## "} /^##@/ {printf "\n%s\n", substr($$0, 5)} \
		/^[a-z0-9-]+:.*  ## / {printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

##@ Use
plugin:  ## Build build/out/docker-chap, the one file that is the plugin.
	@build/venv pack requirements.txt requirements-build.txt
	@$(PACK) build.recipe
	@$(PACK) build.check
	@build/give-back

install: plugin  ## Install it: with sudo for the whole server, without for this user alone.
	@build/install $(PLACE)

uninstall:  ## Take away what make install put there, as the same user.
	@build/install remove-$(PLACE)

install-user: plugin  ## Install it for this user alone, root too.
	@build/install user

uninstall-user:  ## Take that away.
	@build/install remove-user

deb: plugin  ## Build build/out/docker-chap_VERSION_all.deb, for Debian and Ubuntu.
	@$(PACK) build.deb
	@build/give-back

demo: sample  ## Show a backup, an upgrade, a failed upgrade and a restore on a sample stack.
	@tests/sample/demo

demo-shapes: sample  ## Show the same on every other shape of stack: small, from source, prebuilt in a checkout, older.
	@for shape in small source ghcr older; do tests/sample/demo $$shape || exit 1; done

picture: sample  ## Draw the picture at the top of README again, from a real run (root, tmux).
	@$(IN_SAMPLE) $(VENV)/bin/python tests/sample/picture

demo-clean:  ## Remove everything that the demo and the tests set up.
	@tests/sample/clean

##@ Work on it
venv:  ## Make the virtual environment for all of the below.
	@build/venv

check: venv  ## Check style and types, run the unit tests, and audit what is pinned.
	$(RUN) ruff check -q
	$(RUN) ruff format --check -q
	$(RUN) mypy
	$(RUN) pytest -q -n auto tests/unit
	@$(RUN) build.audit

unit: venv  ## Run the unit tests: no engine is needed.
	$(RUN) pytest -n auto tests/unit

integration: sample  ## Run the tests of single modules against a real engine.
	$(IN_SAMPLE) $(RUN) pytest tests/integration

e2e: sample  ## Run the tests of whole commands on the sample stack.
	$(IN_SAMPLE) $(RUN) pytest tests/e2e

# The unit tests need no engine, and run while the set-up waits for the network. Much of another test is waiting for
# containers: three files at a time take half the time on two processors. tests/conftest.py says which begin first.
test:  ## Set everything up and run all tests.
	@$(MAKE) --no-print-directory -j3 unit sample
	$(IN_SAMPLE) $(RUN) pytest -n 3 --dist loadfile --no-loadscope-reorder tests/e2e tests/integration

test-real: sample  ## Run the main job on real releases of CHAP, from PyPI: 25 minutes, 40 the first time, 5 GB. Prints a table.
	@$(IN_SAMPLE) $(RUN) tests.real.images
	$(IN_SAMPLE) $(RUN) pytest -n 2 --maxschedchunk=1 tests/real

test-new: sample  ## Run the end-to-end tests on a second engine, newer, with an older Compose (root on Debian).
	@tests/sample/engine.sh --new
	@build/out/new/run tests/sample/setup
	build/out/new/run $(RUN) pytest -n 3 --dist loadfile tests/e2e

bench: sample  ## Time everything beside the manual procedure and beside the limit, on real releases of CHAP too.
	@$(IN_SAMPLE) $(RUN) tests.real.images
	@$(IN_SAMPLE) $(RUN) tests.bench --real 2.1.0 2.5.1
	@$(IN_SAMPLE) $(RUN) tests.bench.first_output

test-install: sample deb  ## Install it as README says in bare Debian 12, 13 and Ubuntu 24.04 (root on Debian), and look at the report with Chromium: 12 minutes.
	@$(IN_SAMPLE) $(RUN) pytest -m install tests/install

torture: sample  ## Let every fault come over every step, on the real engine: hours. Prints a table.
	@rm -f build/out/torture.tsv
	@tests/sample/engine.sh --new && build/out/new/run tests/sample/setup
	$(IN_SAMPLE) $(RUN) pytest -n $${CHAP_TEST_STACKS:-3} -m torture tests/e2e; \
	build/out/new/run $(RUN) pytest -m torture -k "engine and killed" \
		tests/e2e/test_faults.py tests/e2e/test_backup_faults.py; column -t -s "$$(printf '\t')" build/out/torture.tsv

images:
	@tests/sample/setup

sample: venv plugin images
	@$(IN_SAMPLE) build/install user

##@ Keep it
sentences:  ## List every sentence that docker chap may show.
	@python3 -m build.sentences

lock:  ## Pin the requirements again, for every Python from 3.10 on.
	@build/lock

release: check  ## Build the files of a release, twice, from a clean tree.
	@build/release

clean: demo-clean  ## Remove everything that was built.
	rm -rf build/out .mypy_cache .pytest_cache .hypothesis .coverage
