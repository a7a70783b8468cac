// SPDX-License-Identifier: Apache-2.0

package coterie

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/coterie-kv/coterie/internal/command"
)

// The public numbers of a sort are converted to those of the log as they are.
func TestSortConstantsAreTheCommands(t *testing.T) {
	require.Equal(t,
		[]command.SortTarget{
			command.SortByKey, command.SortByVersion, command.SortByCreateRevision, command.SortByModRevision, command.SortByValue,
		},
		[]command.SortTarget{
			command.SortTarget(SortByKey), command.SortTarget(SortByVersion), command.SortTarget(SortByCreateRevision),
			command.SortTarget(SortByModRevision), command.SortTarget(SortByValue),
		})
	require.Equal(t,
		[]command.SortOrder{command.SortNone, command.SortAscend, command.SortDescend},
		[]command.SortOrder{command.SortOrder(SortNone), command.SortOrder(SortAscend), command.SortOrder(SortDescend)})
}
