// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"strings"

	"github.com/coterie-kv/coterie"
)

// describe gives a node metadata.
func describe(cfg *coterie.Config) { cfg.Metadata = map[string]string{"zone": "zone-of-" + cfg.Name} }

// descriptions returns the metadata of all members, as a node has it.
func descriptions(ctx context.Context, n *coterie.Node) (string, error) {
	members, err := n.Members(ctx)
	var all []string
	for _, m := range members {
		all = append(all, fmt.Sprintf("%s:%s", m.Name, m.Metadata["zone"]))
	}
	return strings.Join(all, " "), err
}
