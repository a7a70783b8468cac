// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"

	"github.com/coterie-kv/coterie"
)

// Keys of the directory, and their values. A part is a piece of work with a name.
const (
	root     = "push/"
	systems  = root + "systems/"  // system: its address; the heartbeat
	orders   = root + "orders/"   // system/part: percent that other systems have done
	progress = root + "progress/" // part: percent that is done; ends with its system
	done     = root + "done/"     // part: system that has done it
)

// order gives a part to a system that is up.
func order(ctx context.Context, node *coterie.Node, system, part string) error {
	up := coterie.Compare(coterie.CreateRevision(systems+system), ">", 0)
	r, err := node.Txn(ctx).If(up).Then(coterie.OpPut(orders+system+"/"+part, "0")).Commit()
	if err == nil && !r.Succeeded {
		err = fmt.Errorf("no system %q is up", system)
	}
	return err
}
