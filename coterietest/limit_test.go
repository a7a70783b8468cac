// SPDX-License-Identifier: Apache-2.0

package coterietest_test

import (
	"os"
	"os/exec"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/coterie-kv/coterie"
	"github.com/coterie-kv/coterie/coterietest"
)

// Tests that must fail, by name. TestWrongTestsFail runs each in a process of its own.
var faulty = map[string]func(t *testing.T, c *coterietest.Cluster){
	"waits for a node": func(t *testing.T, c *coterietest.Cluster) {
		s, err := coterie.NewSession(t.Context(), c.Node(0))
		require.NoError(t, err)
		m := coterie.NewMutex(s, "lock")
		require.NoError(t, m.Lock(t.Context()))
		require.ErrorIs(t, coterie.NewMutex(s, "lock").Lock(t.Context()), coterie.ErrClosed)
	},
	"waits for nothing": func(*testing.T, *coterietest.Cluster) {
		for {
			time.Sleep(time.Minute)
		}
	},
	"has a subtest": func(t *testing.T, _ *coterietest.Cluster) { t.Run("sub", func(*testing.T) {}) },
	"uses a node that is down": func(t *testing.T, c *coterietest.Cluster) {
		c.Crash(0)
		c.Node(0).Status()
	},
}

const envFaulty = "COTERIETEST_FAULTY"

func TestFaulty(t *testing.T) {
	test, ok := faulty[os.Getenv(envFaulty)]
	if !ok {
		t.Skip("TestWrongTestsFail runs it")
	}
	coterietest.Run(t, 1, test, coterietest.WithTimeLimit(2*time.Hour))
}

// A wrong test ends soon, and its output says what is wrong.
func TestWrongTestsFail(t *testing.T) {
	for name, says := range map[string][]string{
		"waits for a node":         {"has taken 2h0m0s of virtual time", "WithTimeLimit", "limit_test.go:", "coterie.(*Mutex).Lock"},
		"waits for nothing":        {"panic: coterietest: the test has taken 2h0m0s of virtual time, its limit (WithTimeLimit), and waits 1h0m0s later", "time.Sleep", "limit_test.go:"},
		"has a subtest":            {"coterietest: t.Run called inside coterietest.Run", "limit_test.go:"},
		"uses a node that is down": {"node1 is down: call Restart(0)", "limit_test.go:"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			binary, err := os.Executable()
			require.NoError(t, err)
			cmd := exec.CommandContext(t.Context(), binary, "-test.run=^TestFaulty$", "-test.timeout=1m")
			cmd.Env = append(os.Environ(), envFaulty+"="+name)
			out, err := cmd.CombinedOutput()
			require.Error(t, err, "%s", out)
			for _, part := range says {
				require.Contains(t, string(out), part)
			}
		})
	}
}

// A test that waits within the limit passes.
func TestWaitWithinTheLimit(t *testing.T) {
	coterietest.Run(t, 1, func(t *testing.T, c *coterietest.Cluster) {
		time.Sleep(2 * time.Hour)
		require.True(t, c.Up(0))
	}, coterietest.WithTimeLimit(2*time.Hour+time.Second))
}
