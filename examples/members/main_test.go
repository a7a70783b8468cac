// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"
)

// The whole demonstration, as its own program: it starts itself as other processes.
func TestAClusterLivesThroughEverything(t *testing.T) {
	if testing.Short() {
		t.Skip("it builds the program and runs it as many processes")
	}
	program := filepath.Join(t.TempDir(), "members.exe")
	if out, err := exec.CommandContext(t.Context(), "go", "build", "-o", program, ".").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, program)
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) } // it ends what it has started
	cmd.WaitDelay = 10 * time.Second
	out, err := cmd.CombinedOutput()
	t.Logf("%s", out)
	if err != nil {
		t.Fatal(err)
	}
	for _, step := range steps {
		if !bytes.Contains(out, []byte("\n"+step.name)) && !bytes.HasPrefix(out, []byte(step.name)) {
			t.Errorf("%q has printed nothing", step.name)
		}
	}
}
