module podherald/benches/sse

go 1.26.0
