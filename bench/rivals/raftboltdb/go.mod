module github.com/coterie-kv/coterie/bench/rivals/raftboltdb

go 1.26.0

// For this tree alone: the go command ignores these in a dependency.
replace (
	github.com/coterie-kv/coterie/bench/harness => ../../harness
	github.com/coterie-kv/coterie/bench/rivals => ../
)

// Below every version, until there is a tag: docs/versioning.md.
require (
	github.com/coterie-kv/coterie/bench/harness v0.0.0-00010101000000-000000000000
	github.com/coterie-kv/coterie/bench/rivals v0.0.0-00010101000000-000000000000
)

require (
	github.com/hashicorp/raft v1.8.0
	github.com/hashicorp/raft-boltdb/v2 v2.3.0
)

require (
	github.com/armon/go-metrics v0.4.1 // indirect
	github.com/boltdb/bolt v1.3.1 // indirect
	github.com/fatih/color v1.13.0 // indirect
	github.com/hashicorp/go-hclog v1.6.3 // indirect
	github.com/hashicorp/go-immutable-radix v1.3.1 // indirect
	github.com/hashicorp/go-metrics v0.7.0 // indirect
	github.com/hashicorp/go-msgpack/v2 v2.1.5 // indirect
	github.com/hashicorp/golang-lru v1.0.2 // indirect
	github.com/mattn/go-colorable v0.1.12 // indirect
	github.com/mattn/go-isatty v0.0.14 // indirect
	go.etcd.io/bbolt v1.5.0 // indirect
	golang.org/x/sys v0.47.0 // indirect
)
