# Each target does its own set-up in .venv, says in one line what it does, and is quick when nothing has changed.
# Needed: python3 (3.10 or newer) with venv, a C++20 compiler, make; git for the wheel. CMake and Ninja come with pip.
#   make demo ARGS="--data FILE"       make test ARGS="-k chain"       make PYTHON=python3.12 test

PYTHON ?= python3
TORCH  ?= torch==2.13.0
ARGS   ?=

VENV  := .venv
BIN   := $(VENV)/bin
STAMP := $(VENV)/stamp
BUILD := build/editable
# setuptools-scm: seqeval comes as a source archive, which without it calls itself version 0
BUILD_TOOLS := 'scikit-build-core>=0.11' 'pybind11>=3' 'cython>=3.1' 'cmake>=3.24' 'ninja>=1.10' setuptools-scm
RESULTS := benchmarks/results
SEEDS := 0 1 2
# The wheel's own environment lies outside .venv; both install the same torch.
CLEAN := build/clean-env

NATIVE := CMakeLists.txt structlv/__init__.py $(wildcard structlv/data/_brackets.p*) $(shell find csrc _build -type f -not -name '*.pyc')
# CUDA kernels, where there is nvcc, for the GPU that is here, or for one architecture to be tested without a GPU; all
# that CMakeLists.txt names are for releases, and scripts/check_cuda.py
CUDA_ARCHITECTURE = $(if $(shell nvidia-smi -L 2>/dev/null | grep '^GPU '),native,90)
# Instruction sets of this machine, as STRUCTLV_CPU names them
ISAS := base $(shell grep -sqw avx2 /proc/cpuinfo && echo avx2) $(shell grep -sqw avx512vl /proc/cpuinfo && echo avx512)

# and as the compiler names them
MARCH_base := x86-64
MARCH_avx2 := x86-64-v3
MARCH_avx512 := x86-64-v4
# All but the widest, which every other test runs on
NARROW := $(wordlist 2,$(words $(ISAS)),_ $(ISAS))

say = @printf '==> %s\n' "$(1)"
# More OpenMP threads than cores only slow the test workers down; tests of threading set their own number.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q

.PHONY: help environment build demo test test-ray test-cuda mutants-cuda test-isa wheel install-sdist symbols lint format docs sanitize experiments benchmark-smoke clean
.DELETE_ON_ERROR:

help:
	@sed -n 's/^\([a-z-]*\):.*## /\1: /p' Makefile

$(STAMP)/torch:
	$(call say,Creating $(VENV) and installing $(TORCH) and the build tools)
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -qq 'pip>=23.1'  # for -C; distributions come with older ones
	$(BIN)/python -m pip install -qq $(TORCH) $(BUILD_TOOLS)
	@mkdir -p $(STAMP) && touch $@

$(STAMP)/%: $(STAMP)/torch pyproject.toml $(NATIVE)
	$(call say,Compiling the kernels and installing structlv[$*] into $(VENV))
	PATH="$(abspath $(BIN)):$$PATH" $(BIN)/python -m pip install -qq --no-build-isolation -C build-dir=$(BUILD) \
	  -C cmake.define.CMAKE_CUDA_ARCHITECTURES=$(CUDA_ARCHITECTURE) -e '.[$*]'
	@touch $@

environment: $(addprefix $(STAMP)/,dev docs demo test)  ## what the targets below compile and install in .venv

build: $(STAMP)/test  ## compile after a change of the C++ sources; everything tests need is installed

demo: $(STAMP)/demo  ## train a neural HMM on real text (under three minutes on two cores); ARGS=factorial: melodies
	$(call say,Running the demo $(ARGS))
	$(BIN)/python -m structlv demo $(ARGS)

test: $(STAMP)/test  ## all tests
	$(call say,Running the tests)
	$(PYTEST) -n auto $(ARGS)

# Ray is large (500 MB): in an environment of its own that sees what is in .venv
RAY := build/ray-env
SITE := import sysconfig; print(sysconfig.get_path('purelib'))

test-ray: $(STAMP)/test  ## shards made by Ray on a cluster of two workers here, one of which is killed
	$(call say,Installing Ray into $(RAY))
	$(PYTHON) -m venv $(RAY)
	echo "import site; site.addsitedir('$$($(BIN)/python -c "$(SITE)")')" > "$$($(RAY)/bin/python -c "$(SITE)")/over.pth"
	$(RAY)/bin/python -m pip install -qq 'ray[data]>=2.9'
	$(call say,Labelling a text with Ray)
	OMP_NUM_THREADS=1 $(RAY)/bin/python -m pytest -q tests/cli/test_ray.py

# The kernels' own check runs on every schedule of the emulator; the tests of operators on OP_SCHEDULES (all of them in
# make experiments)
SCHEDULES := 0 1 2 3
OP_SCHEDULES ?= 1
SIMT := build/simt
STRUCTURES := chain chain_distinct chain_filter factorial lowrank noise pcfg
# Programs of seeded bugs; a few of their bugs, other ones from day to day, are tried by test-cuda
mutants = $(addsuffix _check_mutants$(1),$(STRUCTURES))
GATE := $(BIN)/python -m tests.simt.gate
ROUND ?= $(shell date +%-j)
CHAIN_OPS := $(addprefix tests/ops/test_chain_,values.py hard.py gradients.py sampling.py raw_ops.py layout.py)
OPS := $(CHAIN_OPS) tests/ops/test_chain_second_order.py tests/ops/test_noise.py tests/ops/test_sampling_without_replacement.py \
  $(addprefix tests/ops/test_factorial_,values.py hard.py gradients.py sampling.py layout.py functorch.py) \
  $(addprefix tests/ops/test_pcfg_,values.py hard.py gradients.py raw_ops.py layout.py sampling.py raw_sampling.py) \
  $(addprefix tests/ops/test_lowrank_,values.py gradients.py layout.py transforms.py)
# Left to make experiments, minutes each: a sweep, and laws of samples, which tests/simt compares with the reference's one
# by one
SLOW_EMULATED := $(addprefix --deselect tests/ops/test_,pcfg_hard.py::test_float32_log_z pcfg_sampling.py::test_joint_law \
  pcfg_raw_sampling.py::test_frequencies lowrank_values.py::test_samples_have_the_law_of_the_dense_posterior)
EMULATED := $(PYTEST) -n auto -p tests.simt.emulated -k "not reference and not thread"

test-cuda: $(STAMP)/dev  ## the CUDA kernels without a GPU: emulated, under sanitizers, through nvcc, their PTX interpreted
	$(call say,Compiling the CUDA kernels for the emulator)
	$(BIN)/cmake -S tests/simt -B $(SIMT) -G Ninja -DCMAKE_MAKE_PROGRAM=$(abspath $(BIN))/ninja -DPython_EXECUTABLE=$(abspath $(BIN))/python \
	  -DSCHEDULES="$(SCHEDULES)"
	$(BIN)/cmake --build $(SIMT) --target all $(call mutants,)
	$(call say,Checking the emulator and the kernels; also under the sanitizers)
	$(BIN)/ctest --test-dir $(SIMT) --output-on-failure -j $$(nproc)
	$(call say,Switching on a sample of seeded bugs: that of ROUND=$(ROUND))
	$(GATE) --sample 12 --seed $(ROUND) $(addprefix $(SIMT)/,$(call mutants,))
	$(call say,Interpreting the PTX of the kernels; running the tests of the operators on the emulated kernels)
	$(PYTEST) -n auto tests/simt tests/gpu
	set -e; for seed in $(OP_SCHEDULES); do STRUCTLV_SIMT_SEED=$$seed $(EMULATED) $(OPS) $(SLOW_EMULATED); done
	STRUCTLV_CUDA_CHUNK=2 STRUCTLV_SIMT_SEED=1 $(EMULATED) $(CHAIN_OPS) \
	  --deselect tests/ops/test_chain_hard.py::test_second_order_is_finite
	$(call say,Compiling the kernels for every architecture)
	$(BIN)/python scripts/check_cuda.py

mutants-cuda: test-cuda  ## every seeded bug of the CUDA kernels: is it noticed? (half an hour more); goes on where it was interrupted
	$(call say,Switching on seeded bugs of the CUDA kernels; counts go to $(RESULTS))
	$(BIN)/cmake --build $(SIMT) --target mutants
	$(GATE) --results $(RESULTS)/mutants.json $(addprefix $(SIMT)/,$(call mutants,) $(call mutants,_asan) $(call mutants,_tsan))

# What the kernels compute; errors, compilation and transforms are the same Python whatever the kernels are. -k in ARGS
# takes the place of this one.
KERNEL_TESTS := $(filter-out $(addprefix tests/ops/test_%_,errors.py compile.py functorch.py transforms.py),$(sort $(wildcard tests/ops/test_*.py)))
ON_KERNELS := -k "not [reference"

test-isa: $(STAMP)/test  ## the kernels on the narrower instruction sets, then with two threads
	$(call say,Testing the instruction sets under the widest of this machine: $(NARROW))
	set -e; for isa in $(NARROW); do echo "==> STRUCTLV_CPU=$$isa"; \
	  STRUCTLV_CPU=$$isa $(PYTEST) -n auto $(ON_KERNELS) $(KERNEL_TESTS) $(ARGS); done
	$(call say,Testing with two threads)
	OMP_NUM_THREADS=2 $(BIN)/python -m pytest -q $(ON_KERNELS) $(KERNEL_TESTS) $(ARGS)

# No CUDA kernels in it before they have run on a GPU. Of the objects that are compiled here; install-sdist compiles anew.
wheel: $(STAMP)/dev  ## build, repair and check a wheel, and try it in a clean environment
	$(call say,Building the source archive and the wheel)
	rm -rf dist wheelhouse
	$(BIN)/python -m build --sdist -o dist
	$(BIN)/python scripts/check_sdist.py dist/*.tar.gz
	PATH="$(abspath $(BIN)):$$PATH" $(BIN)/python -m build --wheel --no-isolation -C build-dir=$(BUILD) \
	  -C cmake.define.CMAKE_CUDA_ARCHITECTURES=$(CUDA_ARCHITECTURE) -C install.components=structlv -o dist
	$(call say,Repairing the wheel: torch stays outside)
	PATH="$(abspath $(BIN)):$$PATH" $(BIN)/auditwheel repair --exclude 'libtorch*.so*' -w wheelhouse dist/*.whl
	$(BIN)/python scripts/check_symbols.py wheelhouse/*.whl
	$(call say,Trying the wheel in a clean environment)
	$(PYTHON) -m venv --clear $(CLEAN)
	$(CLEAN)/bin/python -m pip install -qq $(TORCH)
	$(CLEAN)/bin/python -m pip install -qq wheelhouse/*.whl
	cd $(CLEAN) && bin/python -I $(CURDIR)/scripts/smoke_test.py

install-sdist: $(STAMP)/dev  ## build the source archive and install it as users do: compiled by pip in an isolated environment
	$(call say,Installing the source archive in a clean environment)
	rm -rf dist
	$(BIN)/python -m build --sdist -o dist
	$(PYTHON) -m venv --clear $(CLEAN)
	$(CLEAN)/bin/python -m pip install -qq 'pip>=23.1' $(TORCH)
	SKBUILD_CMAKE_DEFINE=STRUCTLV_CUDA=OFF $(CLEAN)/bin/python -m pip install -qq dist/*.tar.gz
	cd $(CLEAN) && bin/python -I $(CURDIR)/scripts/smoke_test.py

symbols: $(STAMP)/dev  ## check what the compiled files need from others
	$(call say,Checking the symbols of the extension and of the kernels)
	$(BIN)/python scripts/check_symbols.py $(BUILD)/_C.*.so $(BUILD)/_brackets.*.so $(wildcard $(BUILD)/_cuda.so) $$(find $(BUILD) -path '*slv_kernels_*.o')

lint: $(STAMP)/dev  ## style, types and format
	$(call say,Checking style types and format)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/clang-format --dry-run -Werror $$(find csrc tests -name '*.h' -o -name '*.cpp' -o -name '*.cuh' -o -name '*.cu')

format: $(STAMP)/dev  ## put every file into the project's format
	$(call say,Formatting)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/clang-format -i $$(find csrc tests -name '*.h' -o -name '*.cpp' -o -name '*.cuh' -o -name '*.cu')

docs: $(STAMP)/docs  ## the documentation as a website, in build/site; warnings are errors
	$(call say,Building the documentation in build/site)
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict

# The narrowest and the widest: what lies between differs in the width of a vector alone
sanitize: $(addprefix sanitize-,$(sort $(firstword $(ISAS)) $(lastword $(ISAS))))  ## the kernels' own drivers under ASan and UBSan

sanitize-%: $(STAMP)/torch
	$(call say,Running the kernels under ASan and UBSan: $*)
	$(BIN)/cmake -S . -B build/sanitize-$* -G Ninja -DCMAKE_MAKE_PROGRAM=$(abspath $(BIN))/ninja \
	  -DSTRUCTLV_SANITIZE=ON -DSTRUCTLV_SANITIZE_MARCH=$(MARCH_$*)
	$(BIN)/cmake --build build/sanitize-$*
	$(BIN)/ctest --test-dir build/sanitize-$* --output-on-failure -j $$(nproc)

experiments: $(STAMP)/test  ## benchmarks against peers and full trainings with seeds (an hour or more), as JSON
	$(call say,Installing each peer library into an environment of its own under benchmarks/.envs (about 4 GB))
	$(BIN)/python -m benchmarks envs
	$(call say,Running the benchmarks; results go to $(RESULTS))
	$(BIN)/python -m benchmarks full
	$(call say,Training the neural HMM in full with seeds $(SEEDS))
	set -e; for seed in $(SEEDS); do \
	  $(BIN)/python -m structlv demo --seed $$seed --out build/experiments/neural-hmm-$$seed; \
	  cp build/experiments/neural-hmm-$$seed/result.json $(RESULTS)/neural-hmm-seed-$$seed.json; done
	$(call say,Measuring estimators of gradients; comparing factorial HMMs with HMMs, text VAEs with language models; training structured VAEs; results go to $(RESULTS))
	$(BIN)/python -m benchmarks.estimators
	$(BIN)/python -m benchmarks.costs
	$(BIN)/python -m benchmarks.factorial_learning toy
	$(BIN)/python -m benchmarks.factorial_learning chorales
	$(BIN)/python -m benchmarks.text_vae
	$(BIN)/python -m benchmarks.structured_vae
	$(call say,Learning HMMs by EM: tags without supervision and earthquakes; results go to $(RESULTS))
	$(BIN)/python -m benchmarks.em_hmm tags
	$(BIN)/python -m benchmarks.em_hmm earthquakes
	$(BIN)/python -m benchmarks.em_hmmlearn
	$(call say,Inducing grammars; results go to $(RESULTS))
	$(BIN)/python -m benchmarks.induction
	$(MAKE) test-ray
	$(MAKE) install-sdist
	$(MAKE) mutants-cuda OP_SCHEDULES='$(SCHEDULES)' SLOW_EMULATED=
	$(call say,Interpreting the PTX of the CUDA kernels on all problems of their drivers)
	STRUCTLV_PTX=all $(PYTEST) -n auto tests/simt/ptx

benchmark-smoke: $(STAMP)/test  ## tiny benchmark cases: every implementation here is checked against the reference
	$(call say,Checking and timing tiny benchmark cases)
	$(BIN)/python -m benchmarks run --smoke

clean:  ## remove everything that make has made
	rm -rf $(VENV) build dist wheelhouse .pytest_cache .mypy_cache .ruff_cache .hypothesis
