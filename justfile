# Everything here also runs without just: the scripts are the truth.

# All that has to be green before a change lands
ci:
    .ci/run

# Tests that need nothing but Rust
test *arguments:
    tests/run.sh {{arguments}}

# Format, lints, documentation, licences
check:
    .ci/run tools format clippy shellcheck documentation dependencies

# Tests on a real API server
real *arguments:
    tests/real.sh {{arguments}}

# podherald on its embedded cluster, with example pods
demo:
    cargo run --locked -- --demo

# The numbers in the README
bench *arguments:
    cargo bench --locked -- {{arguments}}
    benches/latency/run.sh {{arguments}}

# Many readers of event streams: deliveries a second, latency, memory a reader
bench-sse *arguments:
    benches/sse/run.sh {{arguments}}

# 200 kill -9 points instead of 20, on a real API server; prints the seed of a failure
soak:
    PODHERALD_CRASH_POINTS=200 tests/real.sh crash:: --nocapture

# Which mutations of the decisions the tests do not notice
mutants:
    cargo mutants --package podherald-core
