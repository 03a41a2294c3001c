# A thin front to meson and ninja. `make help` lists what there is.
BUILD  ?= build
PREFIX ?= /usr/local
WERROR ?= $(if $(CI),true,false)

.DEFAULT_GOAL := build
.PHONY: build run test weak check bench example sim scaling soak install clean help deps-build deps-run deps-test deps-bench deps-example

build: deps-build $(BUILD)/build.ninja ## build everything into build/ (installs what building needs)
	@ninja -C $(BUILD) $(if $(CI),,--quiet)
	@scripts/link-binaries.sh $(BUILD)

$(BUILD)/build.ninja: | deps-build
	@meson setup --prefix $(PREFIX) -Dwerror=$(WERROR) $(BUILD) >/dev/null

run: deps-run build ## warm pools and real tasks, beside docker exec and docker run
	@scripts/demo.sh $(BUILD)

test: deps-test build weak ## every test suite, on a real engine
	@scripts/test.sh $(BUILD)

weak: deps-build $(BUILD)/weak/build.ninja # the daemon whose defences tests can switch off, for positive controls
	@ninja -C $(BUILD)/weak $(if $(CI),,--quiet) src/daemon/warmpoold

$(BUILD)/weak/build.ninja: | deps-build
	@meson setup -Dweaken=true -Doptimization=0 -Dwerror=$(WERROR) $(BUILD)/weak >/dev/null

check: deps-test ## layout, import directions, scripts
	@scripts/check.sh

bench: deps-bench build ## measures this machine
	@bench/run.sh $(BUILD)

example: deps-example build ## agents compile, test and review in a Debian image (made once, a minute)
	@scripts/example.sh $(BUILD)

soak: deps-test build weak ## the integration tests twenty times over (about an hour)
	@SOAK=1 scripts/test.sh $(BUILD)

sim: build ## hostile worlds in simulated time, without end; stops at a seed that breaks an invariant
	@$(BUILD)/tests/sim/sim forever

scaling: build ## the scaling policies on the same arrivals, in simulated time; docs/scaling.svg
	@$(BUILD)/tests/sim/sim compare docs/scaling.svg

install: build ## make install PREFIX=/usr/local
	@meson configure $(BUILD) --prefix $(PREFIX)
	@meson install -C $(BUILD)

clean: ## remove build/
	rm -rf $(BUILD)

deps-build deps-run deps-test deps-bench deps-example:
	@scripts/deps.sh $(@:deps-%=%)

help: ## this
	@sed -n 's/^\([a-z]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 12
