// SPDX-License-Identifier: Apache-2.0

package sharedconfig_test

import (
	"context"
	"errors"
	"fmt"
	"log"

	"github.com/coterie-kv/coterie"
	"github.com/coterie-kv/coterie/sharedconfig"
)

type Limits struct{ Rate, Burst int }

func (l Limits) Validate() error {
	if l.Rate <= 0 {
		return errors.New("Rate must be positive")
	}
	return nil
}

// All services share limits, and one service has its own layer.
func Example() {
	ctx := context.Background()
	n, err := coterie.Open(ctx, coterie.Config{InMemory: true})
	if err != nil {
		log.Fatal(err)
	}
	defer n.Close()

	limits, err := sharedconfig.Open(ctx, n, sharedconfig.Config[Limits]{
		Keys:     []string{"config/limits", "config/limits/orders"},
		Default:  Limits{Rate: 100, Burst: 10},
		Validate: Limits.Validate,
	})
	if err != nil {
		log.Fatal(err)
	}
	defer limits.Close()
	fmt.Println("default: ", limits.Load())

	set := func(rate int) func(Limits) (Limits, error) {
		return func(l Limits) (Limits, error) { l.Rate = rate; return l, nil }
	}
	if _, err := limits.Update(ctx, set(500)); err != nil {
		log.Fatal(err)
	}
	if _, err := limits.Update(ctx, set(900)); err != nil {
		log.Fatal(err)
	}
	fmt.Println("updated: ", limits.Load())
	_, err = limits.Update(ctx, set(-1))
	fmt.Println("rejected:", err)
	if _, err := limits.Rollback(ctx, 0); err != nil {
		log.Fatal(err)
	}
	fmt.Println("as before:", limits.Load())
	// Output:
	// default:  {100 10}
	// updated:  {900 10}
	// rejected: sharedconfig: the value for config/limits/orders is bad and was not stored: Rate must be positive
	// as before: {500 10}
}

// Follow yields the value, and again after each change.
func ExampleValue_Follow() {
	ctx := context.Background()
	n, err := coterie.Open(ctx, coterie.Config{InMemory: true})
	if err != nil {
		log.Fatal(err)
	}
	defer n.Close()
	limits, err := sharedconfig.Open(ctx, n, sharedconfig.Config[Limits]{
		Keys: []string{"config/limits"}, Default: Limits{Rate: 100}, Validate: Limits.Validate,
	})
	if err != nil {
		log.Fatal(err)
	}
	defer limits.Close()
	for current, err := range limits.Follow(ctx) {
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println(current.Value.Rate, current.Err)
		switch {
		case current.Value.Rate == 100: // another instance would do this
			_, err = n.Put(ctx, "config/limits", `{"Rate": 200}`)
		case current.Err == nil:
			_, err = n.Put(ctx, "config/limits", `{"Rate": -1}`)
		default:
			return
		}
		if err != nil {
			log.Fatal(err)
		}
	}
	// Output:
	// 100 <nil>
	// 200 <nil>
	// 200 sharedconfig: the value of config/limits at revision 3 is bad and not used: Rate must be positive
}
