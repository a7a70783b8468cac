// SPDX-License-Identifier: Apache-2.0

package rivals

import (
	"bytes"
	"strings"
	"testing"
)

func TestTableKeepsPuts(t *testing.T) {
	var table Table
	for _, value := range []string{"", "one", strings.Repeat("long", 1000)} {
		if err := table.Apply(EncodePut("key", value)); err != nil {
			t.Fatal(err)
		}
		if err := table.Check("key", value); err != nil {
			t.Error(err)
		}
	}
	if table.Check("key", "other") == nil || table.Check("missing", "") == nil {
		t.Error("a wrong value and a missing key pass as right")
	}
	if table.Apply(nil) == nil || table.Apply([]byte{5, 'k', 'e', 'y'}) == nil {
		t.Error("a command without a whole key is executed")
	}
}

func TestSnapshotRestoresTable(t *testing.T) {
	var table, loaded Table
	for _, key := range []string{"a", "b", "c"} {
		if err := table.Apply(EncodePut(key, "value of "+key)); err != nil {
			t.Fatal(err)
		}
	}
	snapshot := table.Copy()
	if err := table.Apply(EncodePut("a", "later")); err != nil {
		t.Fatal(err)
	}
	var file bytes.Buffer
	if err := snapshot.Save(&file); err != nil {
		t.Fatal(err)
	}
	short := bytes.NewReader(file.Bytes()[:file.Len()-1])
	if loaded.Load(short) == nil {
		t.Error("a truncated snapshot is loaded")
	}
	if err := loaded.Apply(EncodePut("old", "value")); err != nil {
		t.Fatal(err)
	}
	if err := loaded.Load(&file); err != nil {
		t.Fatal(err)
	}
	for _, key := range []string{"a", "b", "c"} {
		if err := loaded.Check(key, "value of "+key); err != nil {
			t.Error(err)
		}
	}
	if loaded.Check("old", "value") == nil {
		t.Error("a key that is not in the snapshot is still there")
	}
}
