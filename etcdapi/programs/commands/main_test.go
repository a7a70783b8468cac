// SPDX-License-Identifier: Apache-2.0

package commands

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
)

var long = flag.Bool("long", false, "run every command on three members, too, and on TLS")

// The paths of the programs. The benchmark is that of v3.7.0: its module has no v3.7.3 on proxy.golang.org.
var etcdctl, etcdutl, benchmark string

// TestMain builds the programs from the modules that go.mod requires. The go command keeps them in its cache.
func TestMain(m *testing.M) {
	etcdctl, etcdutl = build("go.etcd.io/etcd/etcdctl/v3"), build("go.etcd.io/etcd/etcdutl/v3")
	benchmark = build("go.etcd.io/etcd/v3/tools/benchmark")
	// etcdctl reads flags from these variables.
	for _, v := range os.Environ() {
		if name, _, _ := strings.Cut(v, "="); strings.HasPrefix(name, "ETCD") {
			os.Unsetenv(name)
		}
	}
	os.Exit(m.Run())
}

func build(program string) (path string) {
	cmd := exec.Command("go", "tool", "-n", program) // builds the program, and prints its path
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		fmt.Fprintln(os.Stderr, "building", program+":", err)
		os.Exit(1)
	}
	return strings.TrimSpace(string(out))
}
