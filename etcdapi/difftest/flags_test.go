// SPDX-License-Identifier: Apache-2.0

package difftest

import (
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"go.etcd.io/etcd/server/v3/embed"
)

// etcdFlags is the list of etcd's flags by which coteried's tests know that it has or refuses each of them.
const etcdFlags = "../internal/daemon/testdata/etcd-flags.txt"

// mainFlags are the flags that etcd's main package adds to those of package embed.
var mainFlags = map[string]string{
	"config-file": "", "discovery-fallback": "exit", "initial-cluster-state": "new", "v2-deprecation": "", "version": "false",
}

// The list is that of the version in go.mod.
func TestListOfEtcdFlagsIsCurrent(t *testing.T) {
	flags := flag.NewFlagSet("etcd", flag.ContinueOnError)
	embed.NewConfig().AddFlags(flags)
	for name, value := range mainFlags {
		flags.String(name, value, "")
	}
	var want strings.Builder
	flags.VisitAll(func(f *flag.Flag) { fmt.Fprintf(&want, "%s=%s\n", f.Name, f.DefValue) })
	listed, err := os.ReadFile(etcdFlags)
	require.NoError(t, err)
	require.Equal(t, want.String(), string(listed), "write the expected text to "+etcdFlags)
}
