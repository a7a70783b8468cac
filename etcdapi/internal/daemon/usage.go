// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"flag"
	"fmt"
	"io"
	"slices"
)

// writeUsage prints the flags.
func writeUsage(w io.Writer) {
	fmt.Fprint(w, `Usage:

  coteried [flags]
    Start a member.
  coteried restore | snapshot | certs [flags]
    Make a data directory from etcd's data, save a snapshot, or make certificates.
  coteried --version
    Print the version.

The flags are etcd's. Each can be set by an environment variable, such as ETCD_DATA_DIR for --data-dir, or in the file of
--config-file, which replaces all flags and variables.

`)
	newFlags(&Settings{}).VisitAll(func(f *flag.Flag) {
		if !slices.ContainsFunc(refused, func(r refusedFlag) bool { return r.name == f.Name }) {
			fmt.Fprintf(w, "  --%s '%s'\n    %s\n", f.Name, f.DefValue, f.Usage)
		}
	})
}
