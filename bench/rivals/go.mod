module github.com/coterie-kv/coterie/bench/rivals

go 1.26.0

// For this tree alone: the go command ignores it in a dependency.
replace github.com/coterie-kv/coterie/bench/harness => ../harness

// Below every version, until there is a tag: docs/versioning.md.
require github.com/coterie-kv/coterie/bench/harness v0.0.0-00010101000000-000000000000
