// SPDX-License-Identifier: Apache-2.0

package main

import (
	"testing"

	"github.com/coterie-kv/coterie/bench/harness"
	"github.com/coterie-kv/coterie/bench/rivals"
)

func TestSystemsReturnTheRightValues(t *testing.T) {
	for _, s := range []harness.Setup{{System: system}, {System: system, Snapshots: 50}} {
		t.Run(s.System, func(t *testing.T) {
			s.Dir, s.Members = t.TempDir(), 3
			if err := rivals.Smoke(t.Context(), open, s); err != nil {
				t.Fatal(err)
			}
		})
	}
}

func TestUnknownSystemIsAnError(t *testing.T) {
	if _, err := open(t.Context(), harness.Setup{System: "other", Dir: t.TempDir(), Members: 3}); err == nil {
		t.Error("opened")
	}
}
