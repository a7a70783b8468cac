// SPDX-License-Identifier: Apache-2.0

package auth

import "github.com/coterie-kv/coterie/internal/command"

// covers reports whether the roles of a user together allow an access to a range.
func (s *Store) covers(u *User, to command.Access, key, end string) bool {
	return covered(key, end, func(key string) (best span, found bool) {
		for _, name := range u.Roles {
			role := s.Role(name)
			if role == nil {
				continue // root, which need not be added
			}
			allowed := role.read
			if to == command.Write {
				allowed = role.write
			}
			if r, ok := allowed.at(key); ok {
				if !found {
					best = r
				}
				best, found = farther(best, r), true
			}
		}
		return best, found
	})
}
