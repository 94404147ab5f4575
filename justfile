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

# Records tests/fixtures/real anew: what a real kubelet shows of pods, and what podherald is to tell of them
record-real:
    PODHERALD_RECORD=$PWD/tests/fixtures/real tests/real.sh node::every_end

# podherald on its embedded cluster, with example pods
demo:
    cargo run --locked -- --demo

# podherald in front of a real Kubernetes API, Kafka and Redis; with --stay until Ctrl-C
everything *arguments:
    tests/everything.sh {{arguments}}

# Decoding, mapping, the journal
bench *arguments:
    cargo bench --locked -- {{arguments}}

# podherald beside other monitors on a real API server: latency, throughput, cold start, readers
bench-peers *arguments:
    benches/peers/run.sh {{arguments}}

# Many readers of event streams: deliveries a second, latency, memory a reader
bench-sse *arguments:
    benches/sse/run.sh {{arguments}}

# From exec to ready, beside an axum server with one route
bench-start *arguments:
    cargo bench --locked --bench start -- {{arguments}}

# A cold start in front of 1,000 to 100,000 pods, and what each costs while it is there
bench-size *arguments:
    cargo bench --locked --bench size -- {{arguments}}

# From the journal to a server's acknowledgement: throughput beside the server's own client, latency
bench-sinks *arguments:
    benches/real.sh sinks {{arguments}}

# From a pod's end to its stored result, results stored a second beside the driver's own inserts, lists among a million executions
bench-results *arguments:
    benches/real.sh results {{arguments}}

# What following the logs of watched executions costs
bench-follow *arguments:
    cargo bench --locked --bench follow -- {{arguments}}

# Big sizes: 20,000 random walks instead of 300 (prints the seed of a failure), 200 kill -9 points instead of 20 (80 of a result processor
# instead of 4) and 5,000 pods instead of 1,000 on a real API server, the work for one pod among 100,000 instead of 4,000, a stream of ten minutes at 500 events a
# second with Kafka away for one of them instead of 24 seconds
soak:
    PODHERALD_WALKS=0..20000 cargo test --locked --release --test it walk::
    PODHERALD_SIZES=1000,10000,100000 cargo test --locked --release --test it size::
    PODHERALD_CRASH_POINTS=200 tests/real.sh crash:: --nocapture
    PODHERALD_RESULT_ROUNDS=20 tests/real.sh results::by_hand::processors_that_are_killed --nocapture
    PODHERALD_RESULT_ROUNDS=20 tests/real.sh results::by_hand::what_comes_twice
    PODHERALD_PODS=5000 tests/real.sh load::
    PODHERALD_SOAK_SECONDS=600 tests/real.sh soak:: --nocapture

# Which mutations of the decisions the tests do not notice
mutants:
    cargo mutants --package podherald-core
