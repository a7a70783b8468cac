// SPDX-License-Identifier: Apache-2.0

package commands

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
)

// etcdctl is the path of the program.
var etcdctl string

// TestMain builds the program from the module that go.mod requires. The go command keeps it in its cache.
func TestMain(m *testing.M) {
	cmd := exec.Command("go", "tool", "-n", "go.etcd.io/etcd/etcdctl/v3") // builds the program, and prints its path
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		fmt.Fprintln(os.Stderr, "building etcdctl:", err)
		os.Exit(1)
	}
	etcdctl = strings.TrimSpace(string(out))
	// etcdctl reads flags from these variables.
	for _, v := range os.Environ() {
		if name, _, _ := strings.Cut(v, "="); strings.HasPrefix(name, "ETCD") {
			os.Unsetenv(name)
		}
	}
	os.Exit(m.Run())
}
