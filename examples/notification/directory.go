// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"

	"github.com/coterie-kv/coterie"
)

// What the directory has. A part is a piece of work, known by its name.
const (
	root     = "push/"
	systems  = root + "systems/"  // system: its heartbeat
	orders   = root + "orders/"   // system/part: percent that were done by others
	progress = root + "progress/" // part: percent that are done, as long as its system lives
	done     = root + "done/"     // part: the system that has done it
)

// order gives a part to a system that is there.
func order(ctx context.Context, node *coterie.Node, system, part string) error {
	there := coterie.Compare(coterie.CreateRevision(systems+system), ">", 0)
	r, err := node.Txn(ctx).If(there).Then(coterie.OpPut(orders+system+"/"+part, "0")).Commit()
	if err == nil && !r.Succeeded {
		err = fmt.Errorf("there is no system %q", system)
	}
	return err
}
