# The usual ways in; all work is done by CMake and scripts/.
BUILD  ?= build
PREFIX ?= /usr/local
JOBS   ?= $(shell nproc)

TESTED = -DCMAKE_BUILD_TYPE=RelWithDebInfo -DTENON_TESTS=ON -DTENON_WERROR=ON
CTEST  = ctest --output-on-failure --no-tests=error -j $(JOBS)

.PHONY: all help setup demo test sanitize webgpu check fuzz format install clean

all: setup ## build the library and the command line (the default)
	cmake -S . -B $(BUILD) -G Ninja -DCMAKE_INSTALL_PREFIX=$(PREFIX)
	cmake --build $(BUILD) -j $(JOBS)

help: ## this list
	@sed -n 's/^\([a-z]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 12

setup: ## install what the build needs, where something is missing
	@scripts/setup.sh

demo: all ## fetch a small model and let it answer a question
	@scripts/fetch-model.sh
	@scripts/demo.sh $(BUILD)/tenon

test: setup ## build and run every test
	cmake -S . -B $(BUILD)-test -G Ninja $(TESTED)
	cmake --build $(BUILD)-test -j $(JOBS)
	$(CTEST) --test-dir $(BUILD)-test

sanitize: setup ## the same tests under the address and undefined-behaviour sanitizers
	cmake -S . -B $(BUILD)-sanitize -G Ninja $(TESTED) -DTENON_SANITIZE=address,undefined
	cmake --build $(BUILD)-sanitize -j $(JOBS)
	$(CTEST) --test-dir $(BUILD)-sanitize

webgpu: setup ## every case of the WebGPU tests on every set of features, with a driver in software: some hours
	@scripts/setup.sh webgpu
	@scripts/fetch-webgpu.sh
	cmake -S . -B $(BUILD)-test -G Ninja $(TESTED)
	cmake --build $(BUILD)-test -j $(JOBS)
	TENON_REQUIRE_WEBGPU=1 $(CTEST) --test-dir $(BUILD)-test -C all -R '^test_webgpu_.*(all|failures)$$'

check: setup ## formatting, the direction of includes, CUDA and aarch64 where there is a compiler
	@scripts/check-format.sh
	@scripts/check-includes.sh
	@scripts/check-cuda.sh
	@scripts/check-arm64.sh

fuzz: ## each fuzz target for a minute, under sanitizers (installs clang)
	@scripts/fuzz.sh

format: setup ## rewrite the C files in the project's format
	@scripts/check-format.sh --fix

install: all ## install below PREFIX
	cmake --install $(BUILD)

clean: ## remove what was built
	rm -rf $(BUILD) $(BUILD)-test $(BUILD)-sanitize build-fuzz
