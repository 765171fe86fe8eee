# Every recipe is one line; every step also works by hand.

demo: build ; @tools/setup.sh demo && tools/demo.sh
build: setup ; @cargo build --release --bin tipstaff && tools/build-policies.sh
test: build ; @tools/setup.sh test && tools/test.sh
test-vm: given-kernel build ; @tools/setup.sh test && tools/test-vm.sh
# What is wrong with KERNEL is said before anything is built.
given-kernel: ; @tools/vm/kernels.sh >/dev/null
bench: build ; @tools/setup.sh test && tools/build-policies.sh tests && cargo bench --package tipstaff-runtime
fuzz: build ; @tools/setup.sh fuzz && tools/fuzz.sh
lint: setup ; @tools/setup.sh lint && tools/lint.sh
install: build ; @tools/install.sh
setup: ; @tools/setup.sh build

.PHONY: demo build test test-vm given-kernel bench fuzz lint install setup
