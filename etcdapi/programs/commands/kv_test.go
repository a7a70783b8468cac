// SPDX-License-Identifier: Apache-2.0

package commands

import (
	"strings"
	"testing"
)

func TestPutGetDel(t *testing.T) {
	pairs(t, func(t *testing.T, p *pair) {
		p.prints("OK\n", "put", "key", "value")
		p.prints("key\nvalue\n", "get", "key")
		p.formatted("put", "key", "another value")
		p.formatted("put", "key", "third value", "--prev-kv")
		p.formatted("put", "key", "--ignore-value")
		p.typing("from stdin").prints("OK\n", "put", "stdin")
		p.same("put", "/a/1", "one")
		p.same("put", "/a/2", "two")
		p.same("put", "/b", "three")
		p.formatted("get", "key")
		p.formatted("get", "/a", "--prefix")
		p.prints("/a/1\n\n/a/2\n\n/b\n\n", "get", "/", "--prefix", "--keys-only")
		p.formatted("get", "/", "--prefix", "--keys-only")
		p.same("get", "/", "--prefix", "--count-only", "--write-out=fields")
		p.fails("get", "/", "--prefix", "--count-only")
		p.formatted("get", "missing")
		p.same("get", "/a/1", "/b")
		p.same("get", "/a/2", "--from-key", "--limit=2")
		p.same("get", "/", "--prefix", "--order=DESCEND", "--sort-by=VALUE")
		p.same("get", "/", "--prefix", "--print-value-only")
		p.same("get", "/a/1", "--consistency=s", "--hex")
		p.same("get", "/", "--prefix", "--min-create-rev=8", "--max-mod-rev=20")
		p.same("get", "/", "--prefix", "--stream", "--write-out=json")
		p.same("get", "key", "--rev=2")
		p.fails("get", "key", "--rev=99")
		p.fails("get", "")
		p.fails("get")
		p.fails("put", "key")
		p.fails("put", "key", "value", "--lease=xyz")
		p.fails("put", "key", "value", "--ignore-value")
		p.fails("put", "missing", "--ignore-value")
		p.fails("put", "key", "value", "--lease=12f775cb02d34d94")
		p.fails("put", "key", strings.Repeat("x", 100_000), "--max-request-bytes=1000")
		p.same("del", "missing")
		p.prints("1\n", "del", "stdin")
		p.formatted("del", "key", "--prev-kv")
		p.prints("2\n", "del", "/a", "--prefix")
		p.same("put", "key", "v")
		p.same("del", "key", "--prev-kv")
		p.fails("del", "--prefix", "a", "b")
		p.prints("1\n", "del", "", "--from-key")

		p.prints("compacted revision 10\n", "compaction", "10")
		p.same("compaction", "11", "--physical")
		p.fails("compaction", "10")
		p.fails("compaction", "1000")
		p.fails("get", "key", "--rev=2")
		p.fails("compaction", "ten")
	})
}

func TestTxn(t *testing.T) {
	pairs(t, func(t *testing.T, p *pair) {
		p.same("put", "name", "zhangsan")
		p.same("put", "age", "2")
		read := `value("age") > "18"
value("name") = "zhangsan"

put result yes
get name
del age --prev-kv
put name lisi --prev-kv

put result no
get result

`
		p.typing(read).same("txn", "-i")
		p.typing(read).formatted("txn")
		p.typing("create(\"a\") = \"0\"\nmod(\"name\") > \"1\"\nver(\"a\") = \"0\"\n\nget \"\" --from-key\nput a \"two words\"\n\n\n").formatted("txn", "-i")
		p.typing("version(\"a\") < \"9\"\n\n\nget a\n\n").formatted("txn")
		p.typing("\nput a 1\nput a 2\n\n\n").fails("txn")
		p.typing("nonsense\n\n\n\n").fails("txn")
		p.typing("\n\n\n").same("txn")
		p.typing("value(\"a\") = \"1\"").fails("txn")
	})
}
