// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/coterie-kv/coterie"
)

// runUsers runs the commands about users: "protect USER KEY" makes a user that may read and write a key, and enables
// the checks of permissions; "putas USER KEY VALUE" and "getas USER KEY" are put and get of a user.
func runUsers(ctx context.Context, n *coterie.Node, command []string) (string, error) {
	switch command[0] {
	case "protect":
		user, key := command[1], command[2]
		var errs []error
		do := func(_ any, err error) { errs = append(errs, err) }
		do(n.UserAdd(ctx, coterie.Root))
		do(n.UserGrantRole(ctx, coterie.Root, coterie.Root))
		do(n.UserAdd(ctx, user))
		do(n.RoleAdd(ctx, user))
		do(n.UserGrantRole(ctx, user, user))
		do(n.RoleGrantPermission(ctx, user, coterie.PermReadWrite, key))
		do(n.AuthEnable(ctx))
		return "done", errors.Join(errs...)
	case "putas":
		_, err := coterie.NewUserView(n, command[1]).Put(ctx, command[2], command[3])
		return "done", err
	case "getas":
		r, err := coterie.NewUserView(n, command[1]).Get(ctx, command[2])
		if err != nil || len(r.KVs) == 0 {
			return "nothing", err
		}
		return "value " + r.KVs[0].Value, nil
	}
	return "", fmt.Errorf("unknown command %q", command[0])
}
