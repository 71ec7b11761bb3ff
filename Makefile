# The two commands: `make demo` and `make test`. Everything lives in .venv and build/.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
BUILD  := build/core
SOURCES = $(shell find cpp drivers bindings benchmarks tests/cpp -name '*.cpp' -o -name '*.hpp' | sort) CMakeLists.txt pyproject.toml

SOAK_SCALE ?= 1
# for `make cuda`; 87-real alone on a Jetson Orin
CUDA_ARCHITECTURES ?= 87-real;89-real;90a-real;110-real

.PHONY: demo test test-can test-arm64 cuda mutants soak lint format clean

demo: $(BUILD)/.built
	$(BIN)/wallx-edge demo --out out/demo

test: $(BUILD)/.built
	$(BIN)/ctest --test-dir $(BUILD) --output-on-failure
	$(BIN)/python -m pytest

# SocketCAN for real, in a kernel of its own; where that cannot be, it says so and is no failure
test-can: $(BUILD)/.built
	tests/can_vm/run || [ $$? = 75 ]

# the backend's tests on emulated arm64 processors; where the tools are not installed, it says so and is no failure
test-arm64: $(VENV)/.tools
	tests/arm64/run || [ $$? = 75 ]

# The CUDA backend by this machine's nvcc: what each kernel takes, no spills, and its op tests where there is a GPU.
cuda: $(VENV)/.tools
	$(BIN)/cmake -S . -B build/cuda -G Ninja -DCMAKE_MAKE_PROGRAM=$(abspath $(BIN))/ninja -DWALLX_CUDA=ON \
	  -DWALLX_BUILD_TESTS=ON -DWALLX_WERROR=$(if $(CI),ON,OFF) -DCMAKE_CUDA_ARCHITECTURES="$(CUDA_ARCHITECTURES)" > /dev/null
	rm -f build/cuda/CMakeFiles/wallx_cuda.dir/cpp/backend/cuda/cuda_backend.cu.o
	$(BIN)/cmake --build build/cuda --target test_cuda > build/cuda/build.log 2>&1 || { cat build/cuda/build.log; false; }
	$(BIN)/python tests/cuda/resources.py build/cuda/build.log "$(CUDA_ARCHITECTURES)"
	build/cuda/test_cuda || [ $$? = 77 ]

# faults by the thousand, frames by the million under sanitizers; SOAK_SCALE=0.01 for a minute's worth of it
soak: $(BUILD)/.built
	$(BIN)/python tests/soak/run.py --scale $(SOAK_SCALE)

# breaks, one at a time in a copy of the tree, each killed by the test that is named for it
mutants: $(BUILD)/.built
	$(BIN)/python tests/mutants/run.py

lint: $(BUILD)/.built
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	git ls-files '*.cpp' '*.hpp' '*.cu' '*.cuh' | xargs $(BIN)/clang-format --dry-run --Werror

format: $(BUILD)/.built
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	git ls-files -co --exclude-standard '*.cpp' '*.hpp' '*.cu' '*.cuh' | xargs $(BIN)/clang-format -i

clean:
	rm -rf $(VENV) build out

# the tools first, so that the build below needs no isolation and stays incremental
$(VENV)/.tools: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check 'scikit-build-core>=0.10' 'pybind11>=2.13' cmake ninja 'setuptools>=70.1' 'pip>=24.1'
	touch $@

$(BUILD)/.built: $(VENV)/.tools $(SOURCES)
	$(BIN)/pip install --quiet --disable-pip-version-check --no-build-isolation --editable '.[dev]' \
	  --config-settings=build-dir=$(BUILD) --config-settings=cmake.define.WALLX_BUILD_TESTS=ON \
	  --config-settings=cmake.define.WALLX_WERROR=$(if $(CI),ON,OFF)
	touch $@
