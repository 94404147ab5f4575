# Each recipe calls what .ci/run calls; the scripts work without just.

# All that has to be green before a change lands
ci:
    .ci/run

# Tests that need nothing but Rust
test *arguments:
    tests/run.sh {{arguments}}

# Format, lints, documentation, licences
check:
    cargo fmt --all --check
    cargo clippy --workspace --all-targets --locked -- -D warnings
    cargo clippy --test real --locked -- -D warnings
    cargo clippy --workspace --all-targets --features crash-points --locked -- -D warnings
    shellcheck -x .ci/run examples/*.sh tests/*.sh tests/env/*.sh tests/env/k8s/*.sh
    RUSTDOCFLAGS='-D warnings' cargo doc --workspace --no-deps --locked
    cargo deny --locked check bans licenses sources

# Tests on a real API server
real *arguments:
    tests/real.sh {{arguments}}

# A real API server, podherald and a few pods, to try things
demo *arguments:
    examples/demo.sh {{arguments}}

# The numbers in the README
bench *arguments:
    cargo bench --locked -- {{arguments}}

# 200 kill -9 points instead of 20
soak:
    PODHERALD_CRASH_POINTS=200 cargo test --locked --features crash-points --test it crash

# Which mutations of the decisions the tests do not notice
mutants:
    cargo mutants --package podherald-core
