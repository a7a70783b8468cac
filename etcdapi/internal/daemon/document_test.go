// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestDocumentListsEveryFlag(t *testing.T) {
	text, err := os.ReadFile("../../../docs/coteried.md")
	require.NoError(t, err)
	newFlags(&Settings{}).VisitAll(func(f *flag.Flag) { require.Contains(t, string(text), "`--"+f.Name+"`") })
	require.Contains(t, string(text), refusedTable(), "the table of refused flags")
}

// refusedTable returns the rows of the refused flags. Neighbours with the same advice share a row.
func refusedTable() string {
	var rows strings.Builder
	for i := 0; i < len(refused); {
		names := "`--" + refused[i].name + "`"
		advice := refused[i].advice
		for i++; i < len(refused) && refused[i].advice == advice; i++ {
			names += ", `--" + refused[i].name + "`"
		}
		fmt.Fprintf(&rows, "| %s | %s |\n", names, advice)
	}
	return rows.String()
}
