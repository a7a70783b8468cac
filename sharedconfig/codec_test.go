// SPDX-License-Identifier: Apache-2.0

package sharedconfig_test

import (
	"strconv"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"

	"github.com/coterie-kv/coterie/coterietest"
	"github.com/coterie-kv/coterie/sharedconfig"
)

func TestLayersMergeByField(t *testing.T) {
	coterietest.Run(t, 1, func(t *testing.T, c *coterietest.Cluster) {
		n := c.Node(0)
		cfg := config("all", "service", "instance")
		cfg.Default.Tags = map[string]string{"from": "default"}
		put(t, n, "all", `{"Rate":10,"Burst":1,"Hosts":["a","b"],"Tags":{"x":"all","y":"all"},"Unknown":12345678901234567890}`)
		put(t, n, "service", `{"Burst":2,"Tags":{"y":"service"}}`)
		v := open(t, n, cfg)
		require.Equal(t, limits{10, 2, []string{"a", "b"}, map[string]string{"from": "default", "x": "all", "y": "service"}}, v.Load())
		require.Equal(t, map[string]string{"from": "default"}, cfg.Default.Tags)

		// A change of a lower layer is visible where no higher layer has the field.
		put(t, n, "all", `{"Rate":11,"Burst":9,"Unknown":12345678901234567890}`)
		synctest.Wait()
		require.Equal(t, limits{11, 2, nil, map[string]string{"from": "default", "y": "service"}}, v.Load())

		// An update writes the fields that differ to the last layer.
		_, err := v.Update(t.Context(), func(l limits) (limits, error) {
			l.Burst = 3
			l.Tags = map[string]string{"z": "instance", "y": "service"} // from is removed
			return l, nil
		})
		require.NoError(t, err)
		require.JSONEq(t, `{"Burst":3,"Tags":{"z":"instance","from":null}}`, stored(t, n, "instance"))
		require.Equal(t, limits{11, 3, nil, map[string]string{"y": "service", "z": "instance"}}, v.Load())

		// An update keeps the fields that the type lacks.
		general := open(t, n, config("all"))
		rate(t, general, 12)
		require.Equal(t, `{"Burst":9,"Rate":12,"Unknown":12345678901234567890}`, stored(t, n, "all"))
		synctest.Wait()
		require.Equal(t, 12, v.Load().Rate)

		_, err = n.Delete(t.Context(), "instance")
		require.NoError(t, err)
		synctest.Wait()
		require.Equal(t, 2, v.Load().Burst)
	})
}

// With two spellings encoding/json would use the last in the alphabet, instead of the last layer or the stored
// update.
func TestTwoSpellingsOfAFieldAreRejected(t *testing.T) {
	coterietest.Run(t, 1, func(t *testing.T, c *coterietest.Cluster) {
		n := c.Node(0)
		v := open(t, n, config("limits", "limits/own"))
		put(t, n, "limits", `{"Rate":1,"burst":2,"Tags":{"path":"1","PATH":"2"},"Unknown":{"x":1,"X":2}}`)
		synctest.Wait()
		require.NoError(t, v.Err(), "one spelling, keys of a map, and unknown fields")
		require.Equal(t, limits{Rate: 1, Burst: 2, Tags: map[string]string{"path": "1", "PATH": "2"}}, v.Load())
		_, err := v.Update(t.Context(), func(l limits) (limits, error) { l.Burst = 3; return l, nil })
		var rejected *sharedconfig.RejectedError
		require.ErrorAs(t, err, &rejected)
		require.ErrorContains(t, err, `"Burst" and "burst"`)
		put(t, n, "limits/own", `{"rate":5}`)
		synctest.Wait()
		require.ErrorContains(t, v.Err(), `"Rate" and "rate"`)
		require.Equal(t, 1, v.Load().Rate)
	})
}

func TestTrailingDataIsRejected(t *testing.T) {
	coterietest.Run(t, 1, func(t *testing.T, c *coterietest.Cluster) {
		v := open(t, c.Node(0), config("limits"))
		for _, document := range []string{`{"Rate":1}}`, `{"Rate":1}]`, `{"Rate":1}{}`, `{"Rate":1},`} {
			put(t, c.Node(0), "limits", document)
			synctest.Wait()
			require.Error(t, v.Err(), document)
			require.Equal(t, 100, v.Load().Rate)
		}
	})
}

func TestCustomCodec(t *testing.T) {
	coterietest.Run(t, 1, func(t *testing.T, c *coterietest.Cluster) {
		cfg := sharedconfig.Config[int]{
			Keys: []string{"n"}, Default: 3, Decode: strconv.Atoi,
			Encode: func(n int) (string, error) { return strconv.Itoa(n), nil },
		}
		v := open(t, c.Node(0), cfg)
		require.Equal(t, 3, v.Load())
		_, err := v.Update(t.Context(), func(n int) (int, error) { return n + 1, nil })
		require.NoError(t, err)
		require.Equal(t, "4", stored(t, c.Node(0), "n"))
		require.Equal(t, 4, v.Load())
		put(t, c.Node(0), "n", "x")
		synctest.Wait()
		require.ErrorIs(t, v.Err(), strconv.ErrSyntax)
		require.Equal(t, 4, v.Load())
	})
}
