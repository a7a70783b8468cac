// SPDX-License-Identifier: Apache-2.0

package coterie_test

import (
	"bytes"
	"encoding/json"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/coterie-kv/coterie"
	"github.com/coterie-kv/coterie/coterietest"
)

func TestAlarmsStayUntilTheyAreCleared(t *testing.T) {
	coterietest.Run(t, 3, func(t *testing.T, c *coterietest.Cluster) {
		ctx := t.Context()
		leader, other := c.Leader(), coterie.Alarm{Member: 7, Kind: coterie.AlarmCorrupt}
		own := coterie.Alarm{Member: c.Follower().ID(), Kind: coterie.AlarmNoSpace}
		for _, a := range []coterie.Alarm{own, other, own} {
			_, err := c.Follower().RaiseAlarm(ctx, a)
			require.NoError(t, err)
		}
		r, err := leader.RaiseAlarm(ctx, other)
		require.NoError(t, err)
		require.False(t, r.Changed)
		require.EqualValues(t, 1, r.Revision, "alarms make no revision")
		for i := range 3 { // and each restores its state from a snapshot or the log
			c.Stop(i)
			c.Restart(i)
		}
		time.Sleep(5 * time.Second)
		for _, n := range c.Nodes() {
			all, err := n.Alarms(ctx)
			require.NoError(t, err)
			require.Equal(t, []coterie.Alarm{other, own}, all)
		}
		r, err = c.Leader().ClearAlarm(ctx, own)
		require.NoError(t, err)
		require.True(t, r.Changed)
		r, err = c.Leader().ClearAlarm(ctx, own)
		require.NoError(t, err)
		require.False(t, r.Changed)
		all, err := c.Follower().Alarms(ctx)
		require.NoError(t, err)
		require.Equal(t, []coterie.Alarm{other}, all)

		c.Partition()
		time.Sleep(5 * time.Second)
		all, err = c.Node(0).Alarms(ctx, coterie.WithSerializable())
		require.NoError(t, err)
		require.Equal(t, []coterie.Alarm{other}, all)
	})
}

func TestAlarmsAreNotInBackups(t *testing.T) {
	n := open(t)
	_, err := n.RaiseAlarm(t.Context(), coterie.Alarm{Member: 1, Kind: coterie.AlarmNoSpace})
	require.NoError(t, err)
	var b bytes.Buffer
	_, err = n.Backup(t.Context(), &b)
	require.NoError(t, err)
	cfg := coterie.Config{Dir: t.TempDir()}
	require.NoError(t, coterie.RestoreBackup(t.Context(), &b, cfg))
	restored, err := coterie.Open(t.Context(), cfg)
	require.NoError(t, err)
	defer restored.Close()
	all, err := restored.Alarms(t.Context())
	require.NoError(t, err)
	require.Empty(t, all)
}

func TestUnknownAlarmIsRejected(t *testing.T) {
	n := open(t)
	for _, kind := range []coterie.AlarmKind{0, 3} {
		_, err := n.RaiseAlarm(t.Context(), coterie.Alarm{Kind: kind})
		require.ErrorIs(t, err, coterie.ErrInvalidOption)
		_, err = n.ClearAlarm(t.Context(), coterie.Alarm{Kind: kind})
		require.ErrorIs(t, err, coterie.ErrInvalidOption)
	}
}

func TestAlarmsAreTextInJSON(t *testing.T) {
	a := coterie.Alarm{Member: 0xa, Kind: coterie.AlarmCorrupt}
	b, err := json.Marshal(a)
	require.NoError(t, err)
	require.JSONEq(t, `{"member": "000000000000000a", "kind": "CORRUPT"}`, string(b))
	var read coterie.Alarm
	require.NoError(t, json.Unmarshal(b, &read))
	require.Equal(t, a, read)
	require.Error(t, json.Unmarshal([]byte(`{"kind": "FIRE"}`), &read))
	_, err = json.Marshal(coterie.Alarm{})
	require.Error(t, err)
	require.Equal(t, "AlarmKind(9)", coterie.AlarmKind(9).String())
}
