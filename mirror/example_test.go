// SPDX-License-Identifier: Apache-2.0

package mirror_test

import (
	"context"
	"fmt"
	"log"

	"github.com/coterie-kv/coterie"
	"github.com/coterie-kv/coterie/mirror"
)

type User struct {
	Name  string
	Teams []string
}

// An index looks up users by key and by team.
func Example() {
	ctx := context.Background()
	n, err := coterie.Open(ctx, coterie.Config{InMemory: true})
	if err != nil {
		log.Fatal(err)
	}
	defer n.Close()

	byTeam := mirror.GroupBy(func(u User) []string { return u.Teams })
	users, err := mirror.New(ctx, n, "users/", mirror.JSON[User], byTeam)
	if err != nil {
		log.Fatal(err)
	}
	defer users.Close()
	put, err := n.Put(ctx, "users/ann", `{"Name": "Ann", "Teams": ["storage", "network"]}`)
	if err != nil {
		log.Fatal(err)
	}
	if err := users.WaitRevision(ctx, put.Revision); err != nil { // until the index has the write
		log.Fatal(err)
	}
	ann, ok := users.Get("users/ann")
	fmt.Println(ann.Name, ok)
	for key := range users.Snapshot().Group(byTeam, "network") {
		fmt.Println("in network:", key)
	}
	// Output:
	// Ann true
	// in network: users/ann
}

// Two snapshots of an index have the changes between them.
func ExampleSnapshot_ChangesSince() {
	ctx := context.Background()
	n, err := coterie.Open(ctx, coterie.Config{InMemory: true})
	if err != nil {
		log.Fatal(err)
	}
	defer n.Close()
	users, err := mirror.New(ctx, n, "users/", mirror.JSON[User])
	if err != nil {
		log.Fatal(err)
	}
	defer users.Close()

	before := users.Snapshot()
	put, err := n.Put(ctx, "users/ann", `{"Name": "Ann"}`)
	if err != nil {
		log.Fatal(err)
	}
	if err := users.WaitRevision(ctx, put.Revision); err != nil {
		log.Fatal(err)
	}
	for change := range users.Snapshot().ChangesSince(before) {
		fmt.Println(change.Key, "is new:", change.Old == nil, "name:", change.New.Value.Name)
	}
	// Output:
	// users/ann is new: true name: Ann
}
