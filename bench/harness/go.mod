module github.com/coterie-kv/coterie/bench/harness

go 1.26.0
