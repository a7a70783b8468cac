// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"

	"github.com/coterie-kv/coterie"
)

// runUsers is for the versions without users.
func runUsers(_ context.Context, _ *coterie.Node, command []string) (string, error) {
	return "", fmt.Errorf("unknown command %q", command[0])
}
